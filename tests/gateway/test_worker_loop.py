"""Signals that reach the loop of a worker at any of its steps."""

import logging
import signal
import socket

from gateway.budget import Budget
from gateway.handover import Handover
from gateway.scoreboard import Board
from gateway.service import services_of
from gateway.settings import Settings
from gateway.sockets import Listener
from gateway.worker import Worker
from protocols.http1 import Http1Codec


class Interrupted(Budget):
    """The sweep asks it something: then, of all moments, a client comes and SIGTERM too."""

    def __init__(self) -> None:
        super().__init__()
        self.once = None

    @property
    def is_tight(self) -> bool:
        once, self.once = self.once, None
        if once is not None:
            once()
        return False


def application(_environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"hi"]


def test_what_came_before_sigterm_is_served_whenever_that_is_heard(tmp_path, monkeypatch):
    monkeypatch.setattr(Http1Codec, "date", b"")  # which the loop sets for all that follows
    settings, log = Settings(threads=1), logging.getLogger("gateway")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket"))
    listening.listen()
    listening.setblocking(False)
    ours, theirs = socket.socketpair()
    listeners = [Listener(listening, "http")]
    worker = Worker(
        settings,
        listeners,
        services_of(listeners, settings, log),
        ours,
        log,
        None,
        Handover(),
        Board(1),
        application=application,
    )
    worker.acceptor.set_accepting(True)
    worker.poller.register(worker.orders.fileno(), 1)
    worker.budget = Interrupted()
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(10)

    def come() -> None:
        client.connect(str(tmp_path / "socket"))
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        signal.raise_signal(signal.SIGTERM)

    worker.budget.once = come
    worker.orders.wake()
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, worker.orders._on_signal)
    try:
        worker._loop()
    finally:
        signal.signal(signal.SIGTERM, before)
        worker.poller.close()
    with client, ours, theirs:
        assert client.recv(1024).startswith(b"HTTP/1.1 200 ")
