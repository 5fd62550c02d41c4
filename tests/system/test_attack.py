"""Slow clients of three kinds at once: honest ones notice nothing, nothing is held for long.

The attackers are those of ``make attack``, fewer of them.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

from clients import Gate
from conftest import APPS
from processes import Load, descriptors, peak_memory, threads_of, wait_for

ROOT = Path(__file__).parents[2]

APP = """
    import rules_app

    def app(environ, start_response):
        if environ["PATH_INFO"] != "/large":
            return rules_app.app(environ, start_response)
        start_response("200 OK", rules_app.PLAIN)
        return [b"x" * (4 << 20)]
"""
THREADS = 4
LORIS, SILENT, TRICKLES = 100, 30, 20

STRICT = (
    *("--client-header-timeout", "1", "--client-body-timeout", "1", "--send-timeout", "1"),
    *("--threads", str(THREADS), "--pythonpath", str(APPS)),
)


@contextmanager
def attackers(server):
    """All of them are there; those that are closed come again."""
    port = server.addresses["http", "tcp"][1]
    command = [sys.executable, "-m", "benchmarks.attackers"]
    process = subprocess.Popen(
        [*command, *map(str, (port, LORIS, SILENT, TRICKLES))],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        yield
        process.communicate()  # the end of its input is its end
    finally:
        process.kill()
        process.communicate()


def test_honest_clients_beside_slow_ones(serve):
    server = serve(APP, *STRICT, protocols=["http"], kinds=["tcp"])
    (worker,) = server.workers
    address = server.addresses["http", "tcp"]
    with Load("http", address, keep=True, clients=4, target="/pid", races=False) as load:
        load.reached(200)
        before = peak_memory(worker), threads_of(worker), descriptors(worker)
        with attackers(server):
            server.wait_for_log("the request did not arrive in time", LORIS)
            server.wait_for_log("a request body is too slow", TRICKLES)
            server.wait_for_log("the peer takes too little of its answer", SILENT)
            load.reached(200)
            # Each thread in hand had an answer of 4 MiB; that of nobody else is in memory.
            assert peak_memory(worker) < before[0] + (THREADS * 4 + 30 << 20)
            assert threads_of(worker) == before[1]
            wait_for(lambda: descriptors(worker) > before[2] + LORIS, "all attackers at once")
            all_threads_are_free(server)
        wait_for(lambda: descriptors(worker) <= before[2], "the connections of the attackers")
    assert not load.lost, load
    assert server.workers == [worker]


def all_threads_are_free(server):
    """As many requests as there are threads are with the application at the same time."""
    with ExitStack() as stack:
        for number in range(THREADS):
            gate = stack.enter_context(Gate(server.folder / f"{number}.gate"))
            peer = stack.enter_context(server.connect("http"))
            peer.start(f"/waits?{number}")
            stack.enter_context(gate.arrived())
