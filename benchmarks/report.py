"""From turns to medians, ratios and Markdown: pure functions."""

from __future__ import annotations

from statistics import mean, median

from benchmarks.measure import QUIET
from benchmarks.peers import FLOORS, OURS

_MIB = 1 << 20


def typical(turns, name="cpu"):
    """Median over the rounds of one field."""
    return median(getattr(turn, name) for turn in turns)


def ratio(turns, others, name="cpu"):
    """Median over the rounds of ``turns`` / ``others``, so that drift of the machine cancels."""
    pairs = list(zip(turns, others, strict=False))
    return median(getattr(a, name) / max(getattr(b, name), 1e-9) for a, b in pairs)


def sound(turns):
    """Whether there are turns and all of them count."""
    return bool(turns) and all(turn.sound for turn in turns)


def best(results, among=None, name="cpu"):
    """The peer, none of ours and no floor, with the lowest sound median; None without any."""
    names = [
        peer
        for peer, turns in results.items()
        if peer not in OURS + FLOORS and sound(turns) and (among is None or peer in among)
    ]
    return min(names, key=lambda peer: typical(results[peer], name), default=None)


def line(points):
    """Least squares: (slope, value at 0) of (x, y) pairs with two different x or more."""
    xs, ys = zip(*points, strict=True)
    middle, height = mean(xs), mean(ys)
    spread = sum((x - middle) ** 2 for x in xs)
    slope = sum((x - middle) * (y - height) for x, y in points) / spread
    return slope, height - slope * middle


def figure(value):
    """Three digits or so, thousands apart."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def markdown(head, rows):
    """Lines of a table: the first column to the left, the others to the right."""
    yield "| " + " | ".join(head) + " |"
    yield "|---|" + "---:|" * (len(head) - 1)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def scenario_table(scenario, results, failed):
    """One scenario: a row a server, cheapest first, and why others are not there."""
    ours = next((name for name in OURS if name in results), None)
    head = ["server", "CPU µs/request", "lowest to highest", "requests/s", "p50 ms", "p99 ms"]
    head += ["longest ms", "PSS MiB", "errors"]
    if scenario.idle:
        head += ["CPU without the idle", "bytes a connection"]
    if ours:
        head += [f"{ours} / this"]
    yield f"### {scenario.name}: {scenario.title}"
    yield ""
    order = sorted(results.items(), key=lambda item: typical(item[1]))
    yield from markdown(head, [_row(scenario, name, turns, results, ours) for name, turns in order])
    for name, reason in failed.items():
        yield f"- {name}: not measured: {_one_line(reason)}"
    fewest = min((len(turns) for turns in results.values()), default=0)
    yield f"- {fewest} rounds." if fewest != 1 else "- One round."
    elsewhere = max((turn.elsewhere for turns in results.values() for turn in turns), default=0)
    if elsewhere > QUIET:
        yield f"- The machine was not quiet: others had up to {elsewhere:.2f} cores."
    yield ""


def _row(scenario, name, turns, results, ours):
    costs = [turn.cpu for turn in turns]
    errors = sum(turn.errors for turn in turns)
    row = [
        name,
        figure(median(costs)),
        f"{figure(min(costs))} to {figure(max(costs))}",
        figure(typical(turns, "rate")),
        # wrk has no latency of answers that it did not ask for one by one.
        *(
            "-" if scenario.pipelined > 1 else f"{typical(turns, key) * 1e3:.2f}"
            for key in ("p50", "p99", "longest")
        ),
        f"{typical(turns, 'memory') / _MIB:.1f}",
        str(errors) if sound(turns) else f"**{errors}**",
    ]
    if scenario.idle:
        row += [figure(typical(turns, "cpu_alone")), figure(typical(turns, "idle_bytes"))]
    if ours:
        row.append(f"{ratio(results[ours], turns):.2f}")
    return row


def summary(scenarios, everything):
    """All scenarios in one table: ours, the best, the rival."""
    rows = []
    for name, results in everything.items():
        ours = next((each for each in OURS if each in results), None)
        if not ours:
            continue
        first = best(results)
        rival = scenarios[name].rival
        rows.append(
            [
                scenarios[name].title,
                figure(typical(results[ours])),
                *_against(results, ours, first),
                *_against(results, ours, rival if rival in results else None),
            ]
        )
    if not rows:
        return
    head = ["scenario", "gateway µs", "best peer", "µs", "ratio", "measured by", "µs", "ratio"]
    yield "### CPU per request, all scenarios"
    yield ""
    yield from markdown(head, rows)


def _against(results, ours, other):
    if other is None:
        return ["-", "-", "-"]
    return [
        other,
        figure(typical(results[other])),
        f"{ratio(results[ours], results[other]):.2f}" + ("" if sound(results[other]) else " (!)"),
    ]


def growth_table(title, unit, lines):
    """``lines``: (server, [(x, y)]) each; the slope is what one more costs."""
    yield f"### {title}"
    yield ""
    if lines:
        xs = [f"{x:,}" for x, _y in lines[0][1]]
        rows = []
        for name, points in lines:
            slope, start = line(points)
            values = [figure(y) for _x, y in points]
            rows.append([name, *values, figure(start), f"**{figure(slope)}**"])
        yield from markdown(["server", *xs, "at 0", unit], rows)


def growth_summary(growths, found):
    """The slopes of all lines: a row a growth, a column a server."""
    servers = list(dict.fromkeys(server for lines in found.values() for server, _points in lines))
    if not servers:
        return
    rows = []
    for name, lines in found.items():
        slopes = {server: line(points)[0] for server, points in lines}
        cells = [figure(slopes.get(server)) for server in servers]
        rows.append([f"{growths[name].title}: {growths[name].unit}", *cells])
    yield "### What one more costs"
    yield ""
    yield from markdown(["", *servers], rows)


def checks_table(checks):
    """``checks``: (what, value or None, limit, note) each; None is not measured."""
    rows = []
    for what, value, limit, note in checks:
        met = "not measured" if value is None else "yes" if value <= limit else "**no**"
        rows.append([what, figure(value), f"≤ {limit:g}", met, note])
    yield "### Must show"
    yield ""
    yield from markdown(["", "measured", "limit", "met", ""], rows)


def _one_line(text):
    """The last line that says something."""
    lines = [part.strip() for part in text.splitlines() if part.strip()]
    return lines[-1][:300] if lines else "no reason given"
