"""What honest clients notice of an attack by slow ones: ``python -m benchmarks.attack``.

The same clients work for the same time before it, while it begins, while it lasts and after it;
Markdown on standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import select
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from benchmarks.attackers import READY
from benchmarks.peers import APPS
from benchmarks.process import (
    LOAD_CORES,
    ROOT,
    SERVER_CORES,
    allow_descriptors,
    connects,
    free_port,
    memory_bytes,
    on_cores,
    python,
    running,
    tree,
)

_BETWEEN_LOOKS = 0.5
_BEGIN_SECONDS = 60
_LEAVE_SECONDS = 30
_SPARE = 100


@dataclass
class State:
    """Of the server's processes: bytes of all, threads and descriptors of each worker."""

    memory: int
    threads: list
    descriptors: list

    def highest(self, other):
        """Of two looks at the same workers."""
        return State(
            max(self.memory, other.memory),
            [*map(max, self.threads, other.threads)],
            [*map(max, self.descriptors, other.descriptors)],
        )


def main(arguments=None):
    options = _options(arguments)
    count = options.loris + options.silent + options.trickles
    allow_descriptors(2 * count + 1000)
    with serving(options, count) as (pid, port):
        work(options, pid, port, 1)  # the first answers are always slower
        phases = {"before": work(options, pid, port)}
        with attack(options, port) as attackers:
            phases["as it begins"] = work(options, pid, port)
            attackers.wait_until_begun()
            phases["while it lasts"] = work(options, pid, port)
        wait_until_left(pid, phases["before"][1])
        phases["after"] = work(options, pid, port)
    for line in report(options, phases, attackers.told):
        print(line)
    return 1 if any(seen["errors"] for seen, _ in phases.values()) else 0


@contextmanager
def serving(options, connections):
    """The server's pid and port; every worker could take all the connections."""
    port = free_port()
    words = [
        *("attacked:app", "--bind", f"127.0.0.1:{port}", "--loglevel", "warning"),
        *("--workers", options.workers, "--threads", options.threads),
        *("--worker-connections", connections + options.clients + _SPARE),
    ]
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, running(
        python("gateway", *words), SERVER_CORES, connects(("127.0.0.1", port)), folder,
        environ={"PYTHONPATH": os.pathsep.join((APPS, str(ROOT)))}, cwd=folder,
    ) as pid:  # fmt: skip
        yield pid, port


def work(options, pid, port, seconds=0):
    """What honest clients saw, and the highest that was seen of the server meanwhile."""
    words = python("benchmarks.honest", port, options.clients, seconds or options.seconds)
    with on_cores(LOAD_CORES):
        process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        state = look(pid)
        while process.poll() is None:
            time.sleep(_BETWEEN_LOOKS)
            state = state.highest(look(pid))
        return json.loads(process.stdout.read()), state
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def look(pid):
    workers = [each for each in tree(pid) if each != pid]
    return State(
        memory_bytes(pid),
        [len(os.listdir(f"/proc/{each}/task")) for each in workers],
        [len(os.listdir(f"/proc/{each}/fd")) for each in workers],
    )


class Attackers:
    """``told`` is what they tell at their end."""

    def __init__(self, words):
        self.told = {}
        with on_cores(LOAD_CORES):
            self._process = subprocess.Popen(
                words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )

    def wait_until_begun(self):
        """Until each of them has a connection."""
        there, _, _ = select.select([self._process.stdout], [], [], _BEGIN_SECONDS)
        if not there or self._process.stdout.readline().strip() != READY:
            raise RuntimeError("the attackers cannot all connect")

    def leave(self):
        self.told = json.loads(self._process.communicate(timeout=_LEAVE_SECONDS)[0])

    def end(self):
        self._process.kill()
        self._process.communicate()


@contextmanager
def attack(options, port):
    """It goes on up to the end of the block."""
    counts = options.loris, options.silent, options.trickles
    attackers = Attackers(python("benchmarks.attackers", port, *counts))
    try:
        yield attackers
        attackers.leave()
    finally:
        attackers.end()


def wait_until_left(pid, before):
    """Until the server has closed what the attackers held."""
    until = time.monotonic() + _LEAVE_SECONDS
    most = sum(before.descriptors)
    while sum(look(pid).descriptors) > most and time.monotonic() < until:
        time.sleep(_BETWEEN_LOOKS)


def report(options, phases, told):
    """Lines of Markdown."""
    yield (
        f"{datetime.now(tz=UTC):%Y-%m-%d}, Python {platform.python_version()}, "
        f"{len(os.sched_getaffinity(0))} cores; {options.workers} workers x {options.threads} "
        f"threads on one of them. {options.loris} slow-loris connections, {options.silent} that "
        f"read nothing of 10 MB, {options.trickles} that send a body at 1 byte/s; {told['held']} "
        f"held at the end, {told['closed']} closed by the server meanwhile, which came again. "
        f"{options.clients} honest clients, {options.seconds:g} s each time."
    )
    yield ""
    yield f"| | {' | '.join(phases)} |"
    yield f"|---|{'---:|' * len(phases)}"
    for title, value in _ROWS.items():
        yield f"| {title} | {' | '.join(value(*phase) for phase in phases.values())} |"
    for name, (seen, _) in phases.items():
        for example in seen["examples"]:
            yield f"\n{name}: {example}"


def _milliseconds(name):
    return lambda seen, _: f"{seen[name] * 1e3:.1f}" if name in seen else "-"


_ROWS = {
    "answers to honest clients": lambda seen, _: f"{seen['answers']:,}",
    "errors": lambda seen, _: str(seen["errors"]),
    "p50, ms": _milliseconds("p50"),
    "p99, ms": _milliseconds("p99"),
    "longest, ms": _milliseconds("longest"),
    "PSS of all processes at most, MiB": lambda _, state: f"{state.memory / (1 << 20):.1f}",
    "threads of each worker": lambda _, state: ", ".join(map(str, state.threads)),
    "descriptors of each worker": lambda _, state: ", ".join(map(str, state.descriptors)),
}


def _options(arguments):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attack", description=__doc__)
    for name, default, text in (
        ("loris", 2000, "connections that send a head, a byte every five seconds"),
        ("silent", 200, "connections that never read an answer of 10 MB"),
        ("trickles", 200, "connections that send a body at a byte a second"),
        ("clients", 16, "honest clients"),
        ("workers", 2, "of the server"),
        ("threads", 4, "of each worker"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} ({default})")
    parser.add_argument("--seconds", type=float, default=20, help="of each phase (20)")
    options = parser.parse_args(arguments)
    if min(vars(options).values()) < 0 or min(options.clients, options.workers) < 1:
        parser.error("there is at least one client and one worker, and nothing is negative")
    return options


if __name__ == "__main__":
    sys.exit(main())
