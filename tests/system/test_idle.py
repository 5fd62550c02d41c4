"""Many connections, too many connections, and no descriptor left."""

from __future__ import annotations

import re
import resource
import signal
import sys
from time import monotonic

import pytest
from clients import PEERS, Http
from processes import (
    WAITING_APP,
    Load,
    children,
    cpu_seconds,
    descriptors,
    memory,
    started,
    switches,
    threads_of,
    wait_for,
)

IDLE = 1000

#: Executes its arguments with at most so many descriptors.
LIMIT = "import os, resource, sys; n = int(sys.argv[1]); "
LIMIT += "resource.setrlimit(resource.RLIMIT_NOFILE, (n, n)); os.execv(sys.argv[2], sys.argv[2:])"


@pytest.fixture
def many_descriptors():
    """This process holds the other ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = IDLE + 500
    if soft < wanted:
        if hard != resource.RLIM_INFINITY and hard < wanted:
            pytest.skip(f"only {hard} descriptors are allowed")
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize(("protocol", "kind"), [("http", "tcp"), ("fastcgi", "unix")])
@pytest.mark.usefixtures("many_descriptors")
def test_a_thousand_idle_connections_and_eight_busy_clients(serve, protocol, kind):
    server = serve(WAITING_APP, "--worker-connections", "1100", protocols=[protocol], kinds=[kind])
    (worker,) = children(server.process.pid)
    address = server.addresses[protocol, kind]
    with Load(protocol, address, keep=True, clients=8) as load:
        load.reached(200)
    before = memory(worker)
    idle = [PEERS[protocol](address) for _ in range(IDLE)]
    try:
        for peer in idle:
            assert peer.ask().status == 200
        assert descriptors(worker) > IDLE
        used = memory(worker) - before
        print(f"{protocol} on {kind}: {used / IDLE:.0f} bytes of memory per idle connection")
        assert used / IDLE < 40_000
        with Load(protocol, address, keep=True, clients=8) as load:
            load.reached(800)
        print(f"8 busy clients beside {IDLE} idle connections: {load}")
        assert not load.lost
        assert not load.raced
        assert not load.refused
        assert threads_of(worker) == 6  # four of the pool, the loop and the watchdog
        # Idle connections cost no processor: all but the sweep once a second.
        begun, spent = monotonic(), cpu_seconds(worker)
        wait_for(lambda: monotonic() - begun > 1.5, "a while")
        assert cpu_seconds(worker) - spent < 0.5
        for peer in idle:
            assert peer.ask().status == 200
    finally:
        for peer in idle:
            peer.close()
    wait_for(lambda: descriptors(worker) < 50, "all to be closed")


def test_connections_beyond_worker_connections_wait(serve, threads):
    server = serve(
        WAITING_APP,
        "--worker-connections",
        "10",
        "--threads",
        threads,
        protocols=["http"],
    )
    (worker,) = children(server.process.pid)
    address = server.addresses["http", "tcp"]
    free = descriptors(worker)
    held = [Http(address) for _ in range(10)]
    assert [peer.ask().status for peer in held] == [200] * 10
    waiting = [Http(address) for _ in range(10)]
    for peer in waiting:
        peer.start()
    # Those that are in are served while the others wait.
    assert [peer.ask().status for peer in held] == [200] * 10
    assert descriptors(worker) == free + 10
    before = switches(worker), cpu_seconds(worker)
    begun = monotonic()
    wait_for(lambda: monotonic() - begun > 1.2, "a while")
    assert switches(worker) - before[0] < 12
    assert cpu_seconds(worker) - before[1] < 0.2
    for old, new in zip(held, waiting, strict=True):
        old.close()
        assert new.answer().status == 200
    for peer in waiting:
        peer.close()


@pytest.mark.parametrize("poller", ["epoll", "selectors"])
def test_without_descriptors_accepting_rests_and_recovers(tmp_path, poller):
    (tmp_path / "app.py").write_text(WAITING_APP)
    words = ("app:app", "--bind", "127.0.0.1:0", "--poller", poller)
    before = (sys.executable, "-c", LIMIT, "40")
    with started(*words, cwd=tmp_path, before=before) as server:
        (worker,) = children(server.process.pid)
        (port,) = re.findall(r"http on 127\.0\.0\.1:(\d+)", server.log)
        address = ("127.0.0.1", int(port))
        peers = [Http(address) for _ in range(60)]
        for peer in peers:
            peer.start()
        server.wait_for_log(" descriptors of 40 (RLIMIT_NOFILE) are open: accepting waits")
        # A sixteenth is left, but for a look whether there are some again.
        wait_for(lambda: 38 <= descriptors(worker) <= 39, "a sixteenth to be left")
        counted = switches(worker), cpu_seconds(worker), server.log.count("accepting waits")
        begun = monotonic()
        wait_for(lambda: monotonic() - begun > 2.5, "a while")
        woken = switches(worker) - counted[0]
        spent = cpu_seconds(worker) - counted[1]
        said = server.log.count("accepting waits") - counted[2]
        print(
            f"{poller}: out of descriptors for 2.5 s: {woken} wake-ups, {spent:.2f} s, {said} lines"
        )
        assert woken < 30
        assert spent < 0.3
        assert said == 0
        # Those that are in go on being served, and when they leave the others get their turn.
        statuses = []
        for peer in peers:
            statuses.append(peer.answer().status)
            peer.close()
        assert statuses == [200] * 60
        wait_for(lambda: descriptors(worker) < 30, "all to be closed")
        with Load("http", address, keep=False) as load:
            load.reached(50)
        assert not load.lost
        assert server.stop(signal.SIGTERM) == 0


def test_a_client_that_sends_nothing_takes_no_thread(serve):
    server = serve(WAITING_APP, "--threads", "2", protocols=["http", "fastcgi", "scgi"])
    silent = [
        server.connect(protocol, kind)
        for protocol in ("http", "fastcgi", "scgi")
        for kind in ("tcp", "unix")
        for _ in range(10)
    ]
    for number, peer in enumerate(silent):
        if number % 2:
            peer.send(peer.encode("/")[:11])
    for protocol in ("http", "fastcgi", "scgi"):
        with Load(protocol, server.addresses[protocol, "tcp"], keep=False) as load:
            load.reached(50)
        assert not load.lost
    for number, peer in enumerate(silent):
        peer.send(peer.encode("/")[11 if number % 2 else 0 :])
        assert peer.answer().status == 200
