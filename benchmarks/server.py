"""CPU microseconds per request of the whole server, beside its peers in the same run.

One worker on a core of its own; load and nginx on the others.  Counted is the
server's process tree alone.  The peers take turns, round after round; a ratio
is the median of the rounds' ratios, so that drift of the machine cancels.
"""

from __future__ import annotations

import sys
from statistics import median

from benchmarks.load import measure
from benchmarks.peers import flup, gateway, granian, gunicorn

INLINE, POOL = "gateway, 1 thread", "gateway, 4 threads"
GRANIAN = "granian, 1 blocking thread"
GTHREAD_1, GTHREAD_4 = "gunicorn gthread, 1 thread", "gunicorn gthread, 4 threads"

SCENARIOS = {
    "http": (
        "HTTP, direct",
        [
            gateway("http", 1),
            gateway("http", 4),
            granian(),
            gunicorn("sync", 1),
            gunicorn("gthread", 1),
            gunicorn("gthread", 4),
        ],
    ),
    "fastcgi": (
        "FastCGI over a unix socket, kept connections, behind nginx",
        [gateway("fastcgi", 1), gateway("fastcgi", 4), flup("fastcgi")],
    ),
    "scgi": (
        "SCGI over a unix socket, behind nginx",
        [gateway("scgi", 1), gateway("scgi", 4), flup("scgi"), flup("scgi", log=False)],
    ),
}

#: Cores that others may have before the table says so.
_QUIET = 0.1

#: Scenario, server, peer, and the most that server / peer may be.
MUST_SHOW = [
    ("http", INLINE, GRANIAN, 1.3, "1.3"),
    ("http", INLINE, GTHREAD_1, 1 / 8, "1/8"),
    ("http", POOL, GTHREAD_4, 1 / 5, "1/5"),
    ("fastcgi", INLINE, "flup", 1 / 2, "1/2"),
    ("scgi", INLINE, "flup", 1 / 3, "1/3"),
]


def run(rounds, requests, scenarios=tuple(SCENARIOS), tries=1):
    """Yield lines of Markdown.

    A turn in which others used the machine is taken again, up to ``tries``
    times in all; the quietest counts, whatever it measured.
    """
    results = {}
    for key in scenarios:
        title, peers = SCENARIOS[key]
        loads = {peer.name: [] for peer in peers}
        for number in range(rounds):
            shift = number % len(peers)
            for peer in peers[shift:] + peers[:shift]:
                sys.stderr.write(f"{key} round {number + 1}/{rounds}: {peer.name}\n")
                loads[peer.name].append(_turn(peer, requests, tries))
        results[key] = loads
        yield from _table(title, loads)
    yield from _verdicts(results)


def _turn(peer, requests, tries):
    with peer.serving() as (pid, port):
        best = measure(pid, port, requests)
        for _ in range(tries - 1):
            if best.elsewhere <= _QUIET:
                break
            best = min(best, measure(pid, port, requests), key=lambda load: load.elsewhere)
    return best


def ratio(loads, name, other):
    """Median over the rounds of CPU per request of ``name`` / ``other``."""
    pairs = zip(loads[name], loads[other], strict=True)
    return median(a.microseconds / b.microseconds for a, b in pairs)


def _table(title, loads):
    names = [name for name in (INLINE, POOL) if name in loads]
    yield f"### {title}"
    yield ""
    heads = [f"{name} to this" for name in names]
    yield (
        "| server | CPU µs/request | lowest to highest | requests/s | errors | "
        + " | ".join(heads)
        + " |"
    )
    yield "|---|---:|---:|---:|---:|" + "---:|" * len(names)
    for peer, rounds in loads.items():
        costs = [load.microseconds for load in rounds]
        ratios = " | ".join(f"{ratio(loads, name, peer):.3f}" for name in names)
        yield (
            f"| {peer} | {median(costs):.1f} | {min(costs):.1f} to {max(costs):.1f} "
            f"| {median(load.rate for load in rounds):,.0f} "
            f"| {sum(load.errors for load in rounds)} | {ratios} |"
        )
    yield ""
    elsewhere = max(load.elsewhere for rounds in loads.values() for load in rounds)
    if elsewhere > _QUIET:
        yield f"The machine was not quiet: others had up to {elsewhere:.2f} cores."
        yield ""


def _verdicts(results):
    yield "| must show | at most | measured | |"
    yield "|---|---:|---:|---|"
    for key, name, peer, most, text in MUST_SHOW:
        if key in results:
            value = ratio(results[key], name, peer)
            verdict = "pass" if value <= most else "**fail**"
            yield f"| {key}: {name} / {peer} | {text} = {most:.3f} | {value:.3f} | {verdict} |"
    yield ""
