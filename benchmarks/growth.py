"""What one more costs: an idle connection, a header field, a byte of a body, a worker."""

from __future__ import annotations

import math
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from statistics import median

from benchmarks.apps import bodies
from benchmarks.measure import charged, idle_connections, in_time, serving
from benchmarks.process import memory_by_process
from benchmarks.scenarios import SCENARIOS, headers, request, upload

_KIB = 1024
_MIB = 1 << 20
_PEERS = ("gateway", "gateway-pure", "granian", "uwsgi", "bjoern", "gunicorn-gthread")


@dataclass(frozen=True)
class Growth:
    """``vary(scenario, x)`` is the scenario of one point."""

    name: str
    title: str
    unit: str
    base: str
    points: tuple[int, ...]
    vary: object = None
    peers: tuple[str, ...] = _PEERS


def _with_headers(scenario, count):
    return replace(scenario, request=request(fields=headers(count)))


def _with_upload(scenario, size):
    return replace(scenario, request=upload(size * _KIB), answer=b"%d" % (size * _KIB))


def _with_download(scenario, size):
    return replace(
        scenario, request=request(f"/?{size * _KIB}"), answer=bytes(bodies.MEGABYTE)[: size * _KIB]
    )


GROWTH = {
    growth.name: growth
    for growth in (
        Growth(
            "grow-headers", "CPU µs per request, by header fields", "µs a field", "hello",
            (1, 10, 20, 40), _with_headers,
        ),
        Growth(
            "grow-upload", "CPU µs per request, by KiB of its body", "µs a KiB", "upload",
            (1, 64, 256, 1024), _with_upload,
        ),
        Growth(
            "grow-download", "CPU µs per request, by KiB of its answer", "µs a KiB", "download",
            (1, 64, 256, 1024), _with_download,
        ),
        Growth(
            "grow-idle", "Growth of PSS in bytes, by idle connections", "bytes each", "idle-1000",
            (1000, 2000, 4000, 8000),
            peers=tuple(peer for peer in _PEERS if peer != "uwsgi"),  # it keeps none
        ),
        Growth(
            "grow-workers", "PSS in MiB, by workers with preload_app", "MiB each", "hello",
            (1, 2, 3, 4), peers=("gateway", "gateway-pure", "uwsgi", "gunicorn-gthread"),
        ),
    )
}  # fmt: skip


def run(environment, peers, growth, rounds, seconds, until=math.inf):
    """([(peer's name, [(x, y)])], {name: reason}); rounds as of ``measure.rounds``."""
    measured, failed = [], {}
    for place, peer in enumerate(peers):
        now = time.monotonic()
        share = now + (until - now) / (len(peers) - place)
        sys.stderr.write(f"{growth.name}: {peer.name}\n")
        try:
            if growth.name == "grow-idle":
                points = _idle(environment, peer, growth)
            elif growth.name == "grow-workers":
                points = [
                    (count, sum(workers(environment, peer, count).values()) / _MIB)
                    for count in growth.points
                ]
            else:
                points = _cpu(environment, peer, growth, rounds, seconds, share)
        except (RuntimeError, OSError) as error:
            failed[peer.name] = str(error)
            continue
        measured.append((peer.name, points))
    return measured, failed


def _cpu(environment, peer, growth, rounds, seconds, until):
    """The points take turns in one process."""
    scenario = SCENARIOS[growth.base]
    found = {x: [] for x in growth.points}
    first = growth.vary(scenario, growth.points[0])
    with serving(environment, peer, first) as (pid, port):
        for _ in in_time(rounds, until):
            for x, costs in found.items():
                costs.append(charged(pid, port, growth.vary(scenario, x), seconds).cpu)
    return [(x, median(costs)) for x, costs in found.items()]


def _idle(environment, peer, growth):
    scenario = replace(SCENARIOS[growth.base], idle=growth.points[-1])
    points = []
    with serving(environment, peer, scenario) as (pid, port), ExitStack() as stack:
        before = charged(pid, port, scenario, 1).memory
        held = 0
        for count in growth.points:
            more = replace(scenario, idle=count - held)
            stack.enter_context(idle_connections(port, more))
            held = count
            points.append((count, sum(memory_by_process(pid).values()) - before))
    return points


def workers(environment, peer, count, *, preload=True):
    """Pid to PSS, the manager's first, of so many workers with hello after a load."""
    scenario = replace(SCENARIOS["hello"], workers=count)
    with serving(environment, peer, scenario, preload=preload) as (pid, port):
        charged(pid, port, scenario, 1)
        found = memory_by_process(pid)
        return {pid: found.pop(pid)} | found
