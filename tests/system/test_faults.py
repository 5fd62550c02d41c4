"""What an odd application, signal or peer must not bring down."""

from __future__ import annotations

import os
import signal

import pytest
from clients import record
from processes import wait_for

APP = """
import gzip

class Awkward:
    def __init__(self):
        self.left = [b"odd"]

    def __iter__(self):
        return iter(self.left)

    @property
    def close(self):
        raise RuntimeError("no close here")

def app(environ, start_response):
    path = environ["PATH_INFO"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/user":
        environ["REMOTE_USER"] = b"joe"
    if path == "/awkward":
        return Awkward()
    if path == "/gzip":
        with gzip.open("page.gz", "wb") as file:
            file.write(b"unpacked " * 100)
        return environ["wsgi.file_wrapper"](gzip.open("page.gz"))
    return [b"fine"]
"""

GET_VALUES = 9


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("path", ["/user", "/awkward"])
def test_an_odd_application_harms_no_neighbour(serve, threads, path):
    server = serve(
        APP, "--threads", str(threads), "--accesslog", "-", "--access-log-format", "json"
    )
    with server.connect("http") as neighbour:
        assert neighbour.ask("/").status == 200
        assert server.ask("http", path).status == 200
        assert neighbour.ask("/").status == 200


@pytest.mark.parametrize("kind", ["http", "scgi", "fastcgi"])
def test_a_file_that_is_not_what_it_reads_is_read(serve, kind):
    assert serve(APP).ask(kind, "/gzip").body == b"unpacked " * 100


def test_a_worker_killed_by_a_signal_without_a_name_is_replaced(serve):
    server = serve(APP)
    (worker,) = server.workers
    os.kill(worker, signal.SIGRTMIN + 1)
    wait_for(lambda: server.workers not in ([], [worker]), "another worker")
    server.wait_for_log(f"died by signal {signal.SIGRTMIN + 1}")
    assert server.ask("http", "/").status == 200


@pytest.mark.parametrize("number", [signal.SIGPIPE, signal.SIGURG])
def test_a_signal_that_means_nothing_here_stops_nothing(serve, number):
    server = serve(APP)
    server.kill(number)
    server.kill(signal.SIGUSR1)
    assert server.ask("http", "/").status == 200
    assert server.process.poll() is None


def test_a_peer_that_asks_and_never_listens_is_dropped(serve):
    server = serve(APP, "--response-buffer-size", "100000", "--body-buffer-size", "50000")
    with server.connect("fastcgi", "unix") as deaf:
        question = record(GET_VALUES, 0, b"\x0f\0FCGI_MPXS_CONNS") * 400
        with pytest.raises(OSError):  # noqa: PT012 - the drop may be seen at any of them
            for _ in range(10_000):
                deaf.send(question)
        assert server.ask("http", "/").status == 200


def test_a_file_in_a_wrapper_with_its_own_read_is_read(serve):
    source = APP.replace('return [b"fine"]', 'return environ["wsgi.file_wrapper"](Swapped())')
    source += """
class Swapped:
    def __init__(self):
        self.file = open("plain.txt", "rb")

    def read(self, size):
        return self.file.read(size).swapcase()
"""
    assert serve(source, files={"plain.txt": "hello"}).ask("http", "/").body == b"HELLO"
