"""One turn: a fresh process on its core, its answer compared, then loaded and charged."""

from __future__ import annotations

import math
import os
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from benchmarks import fronts
from benchmarks.load import ask, background, generate
from benchmarks.peers import APPS, Wanted
from benchmarks.process import (
    LOAD_CORES,
    SERVER_CORES,
    Meter,
    allow_descriptors,
    connect,
    connects,
    cpu_seconds,
    free_port,
    machine_seconds,
    memory_bytes,
    running,
)

#: Cores that others may have before a turn counts as disturbed.
QUIET = 0.1
_SETTLE = 0.05
#: More than one error in so many requests, and the turn is worth nothing.
_ERRORS = 1000
_WARM = 50
#: How long the end of idle connections is waited for and looked at, and what counts as busy:
#: seconds, and a share of a core.
_MOST_WAIT = 5
_LOOK = 0.2
_BUSY = 0.05


@dataclass
class Turn:
    """What one server did in one turn: microseconds of CPU, seconds, bytes.

    ``elsewhere`` is how many cores others than us kept busy.  The fields
    after it are those of a turn beside idle connections.
    """

    cpu: float
    rate: float
    p50: float
    p99: float
    longest: float
    memory: float
    errors: int
    requests: int
    elsewhere: float = 0.0
    cpu_alone: float = 0.0
    idle_bytes: float = 0.0

    @property
    def sound(self):
        return self.requests > 0 and self.errors * _ERRORS <= self.requests


@contextmanager
def serving(environment, peer, scenario, *, preload=False):
    """Yield the server's pid and the TCP port that takes HTTP."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, ExitStack() as stack:
        os.chmod(folder, 0o755)
        port = free_port()
        unix = scenario.transport == "unix"
        wanted = Wanted(
            scenario.app,
            scenario.protocol,
            f"unix:{folder}/app.sock" if unix else f"127.0.0.1:{port}",
            scenario.threads,
            scenario.workers,
            room=scenario.idle + 1000,
            preload=preload,
            folder=folder,
        )
        command = [str(word) for word in peer.command(environment, wanted)]
        ready = connects(wanted.unix or ("127.0.0.1", port))
        environ = {"PYTHONPATH": APPS} | dict(peer.environ)
        pid = stack.enter_context(
            running(command, SERVER_CORES, ready, folder, environ=environ, cwd=folder)
        )
        if scenario.front:
            port = free_port()
            command = fronts.command(
                scenario.front, scenario.protocol, wanted.address, port, folder
            )
            ready = connects(("127.0.0.1", port))
            stack.enter_context(running(command, LOAD_CORES, ready, folder))
        _warm(port, scenario)
        yield pid, port


def _warm(port, scenario):
    """Only a server that answers the application's bytes is worth a measurement."""
    body = ask(port, scenario.request, 1 if len(scenario.answer) > 4096 else _WARM)
    if body != scenario.answer:
        raise RuntimeError(f"wrong answer of {len(body)} bytes: {body[:200]!r}")


def turn(environment, peer, scenario, seconds):
    """Start, load and stop the peer."""
    seconds = scenario.seconds or seconds
    with serving(environment, peer, scenario) as (pid, port):
        if scenario.idle:
            return _beside_idle(pid, port, scenario, seconds)
        with ExitStack() as stack:
            if scenario.beside:
                longer = seconds + 5
                stack.enter_context(
                    background(port, scenario.beside, scenario.beside_connections, longer)
                )
            found = charged(pid, port, scenario, seconds)
    if not (scenario.sized or peer.chunks or scenario.front):
        # wrk counts the end of a connection as an error although it ends the answer.
        found.errors = max(0, found.errors - found.requests)
    return found


def charged(pid, port, scenario, seconds):
    """Load the port and charge the process tree of ``pid``."""
    time.sleep(_SETTLE)
    started, all_before, meter = time.monotonic(), _not_ours(), Meter(pid)
    load = generate(port, scenario.bytes_sent, scenario.connections, seconds)
    time.sleep(_SETTLE)
    spent = meter.seconds()
    return Turn(
        cpu=spent / max(1, load.requests) * 1e6,
        rate=load.requests / load.seconds,
        p50=load.p50,
        p99=load.p99,
        longest=load.longest,
        memory=memory_bytes(pid),
        errors=load.errors,
        requests=load.requests,
        elsewhere=max(0, _not_ours() - all_before) / (time.monotonic() - started),
    )


def _not_ours():
    """CPU seconds that all cores gave to others than us and what we started."""
    return machine_seconds() - cpu_seconds(os.getpid())


def _beside_idle(pid, port, scenario, seconds):
    """Alone before and after: what drifts meanwhile is not of the idle ones."""
    alone = charged(pid, port, scenario, seconds)
    with idle_connections(port, scenario) as idle:
        grown = memory_bytes(pid) - alone.memory
        beside = charged(pid, port, scenario, seconds)
        beside.errors += sum(not _asks(sock, scenario) for sock in idle)
    _wait_until_idle(pid)
    again = charged(pid, port, scenario, seconds)
    beside.errors += alone.errors + again.errors
    beside.cpu_alone = (alone.cpu + again.cpu) / 2
    beside.idle_bytes = grown / scenario.idle
    return beside


def _wait_until_idle(pid):
    """Thousands of connections have ended, of which the server is still to hear."""
    deadline = time.monotonic() + _MOST_WAIT
    spent = _BUSY
    while spent >= _BUSY and time.monotonic() < deadline:
        meter = Meter(pid)
        time.sleep(_LOOK)
        spent = meter.seconds() / _LOOK


@contextmanager
def idle_connections(port, scenario):
    """Connections that each had one answer and are kept open."""
    allow_descriptors(scenario.idle + 1000)
    with ExitStack() as stack:
        found = []
        for _ in range(scenario.idle):
            sock = stack.enter_context(connect(("127.0.0.1", port)))
            if not _asks(sock, scenario):
                raise RuntimeError(f"connection {len(found) + 1} gets no answer")
            found.append(sock)
        time.sleep(_SETTLE)
        yield found


def _asks(sock, scenario):
    """Whether the connection gets an answer."""
    sock.settimeout(5)
    data = b""
    try:
        sock.sendall(scenario.request)
        while not data.endswith(scenario.answer):
            piece = sock.recv(4096)
            if not piece:
                return False
            data += piece
    except OSError:
        return False
    return data.startswith(b"HTTP/1.1 200")


def in_time(count, until):
    """Numbers below ``count``: the first, and more as long as the next should end in time."""
    started = time.monotonic()
    for number in range(count):
        now = time.monotonic()
        if number and now + (now - started) / number > until:
            return
        yield number


def rounds(environment, peers, scenario, count, seconds, tries=1, until=math.inf):
    """Peer's name to its turns; and name to reason of those that could not.

    The peers take turns, each round in another order, so that what disturbs
    the machine disturbs them all.  A turn while others used the machine is
    taken again, up to ``tries`` times in all; the quietest counts.  Of the
    rounds after the first, those take place that should end before ``until``.
    """
    found = {peer.name: [] for peer in peers}
    failed = {}
    for number in in_time(count, until):
        shift = number % len(peers) if peers else 0
        for peer in peers[shift:] + peers[:shift]:
            if peer.name in failed:
                continue
            sys.stderr.write(f"{scenario.name} round {number + 1}/{count}: {peer.name}\n")
            try:
                turns = found[peer.name]
                turns.append(_quietest(environment, peer, scenario, seconds, tries))
            except (RuntimeError, OSError) as error:
                failed[peer.name] = str(error).strip() or repr(error)
    return {name: turns for name, turns in found.items() if name not in failed}, failed


def _quietest(environment, peer, scenario, seconds, tries):
    try:
        best = turn(environment, peer, scenario, seconds)
    except RuntimeError as error:  # once may be an accident
        sys.stderr.write(f"{error}\n")
        best = turn(environment, peer, scenario, seconds)
    for _ in range(tries - 1):
        if best.elsewhere <= QUIET:
            break
        again = turn(environment, peer, scenario, seconds)
        best = min(best, again, key=lambda each: each.elsewhere)
    return best
