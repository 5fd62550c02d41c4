"""A connection between the loop and the pool: whose turn it is, decided under one lock."""

from __future__ import annotations

import socket
from queue import SimpleQueue
from types import SimpleNamespace

import pytest

from gateway.connection import Connection
from gateway.poller import READ
from gateway.service import Service
from gateway.settings import Settings
from protocols.model import Request


class Hooked:
    """A lock after whose release something happens, once: another thread's turn."""

    def __init__(self) -> None:
        self.then = None

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        then, self.then = self.then, None
        if then is not None:
            then()


@pytest.fixture(params=["fastcgi", "http"])
def connection(request):
    ours, theirs = socket.socketpair()
    settings = Settings(threads=4)
    worker = SimpleNamespace(
        settings=settings,
        queue=SimpleQueue(),
        now=1.0,
        since=1.0,
        retiring=False,
        hand_back=lambda _: None,
    )
    made = Connection(worker, Service(request.param, settings, None), ours, "peer", {})
    made.interest = READ
    made.lock = Hooked()
    with ours, theirs:
        yield made


def test_a_request_that_arrives_while_a_thread_finds_nothing_is_served(connection):
    """The thread has looked and leaves; the loop must not count on it."""
    connection.active = 1  # a thread was sent for what another has done already

    def arrive() -> None:
        connection.pending.append(Request(1, {}))
        connection.pump()

    connection.lock.then = arrive
    connection.work(None, 1.0)
    assert connection.worker.queue.qsize() == connection.active == 1
