"""What a service holds after many reloads is what it held after a few."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from fleet import Fleet, settled, versioned
from processes import alive, children, descriptors, memory, threads_of, wait_for

FEW = 5
#: Bytes that memory may differ by: the allocator's pages, not a kilobyte for each reload.
SLACK = 512 << 10


@dataclass
class Held:
    """What the processes of a service hold."""

    processes: int
    descriptors: list[int]
    threads: list[int]
    memory: list[int]

    def __str__(self) -> str:
        kib = [size >> 10 for size in self.memory]
        return (
            f"{self.processes} processes, {self.descriptors} descriptors, {self.threads} threads, "
            f"{kib} KiB private"
        )


def family(pid: int) -> list[int]:
    """A process, its children and theirs, each after its parent."""
    found = [pid]
    for child in sorted(children(pid)):
        found += family(child)
    return found


def held(manager: int, processes: int) -> Held:
    wait_for(lambda: len(family(manager)) == processes, f"{processes} processes")
    pids = settled(lambda: family(manager), 0.3, "a family that stays")
    return Held(
        len(pids),
        [descriptors(pid) for pid in pids],
        [threads_of(pid) for pid in pids],
        [memory(pid) for pid in pids],
    )


@pytest.mark.parametrize(
    ("many", "options"), [(200, ()), (100, ("--preload",))], ids=["plain", "preload"]
)
def test_reloads_leave_nothing_behind(serve, many, options):
    with Fleet(serve, versioned(0), "--workers", "1", *options) as fleet:
        manager = fleet.server.process.pid
        assert fleet.server.ask().status == 200
        processes = len(settled(lambda: family(manager), 0.3, "a family that stays"))
        seen = {}
        with fleet.load(("http-keep", "fastcgi-close"), clients=1) as load:
            for number in range(1, many + 1):
                fleet.hup()
                if number == FEW:
                    load.reached(20)
                    seen[FEW] = held(manager, processes)
            load.reached(20)
            seen[many] = held(manager, processes)
        print("\n".join(f"after {number} reloads: {what}" for number, what in seen.items()))
        print(load)
        load.check()
        first, last = seen[FEW], seen[many]
        assert last.threads == first.threads
        # A connection more or less: two clients come and go.
        for before, after in zip(first.descriptors, last.descriptors, strict=True):
            assert abs(after - before) <= 2
        for before, after in zip(first.memory, last.memory, strict=True):
            assert after - before <= SLACK
        there = set(family(manager))
        assert not [pid for pid in fleet.server.workers if alive(pid) and pid not in there]
