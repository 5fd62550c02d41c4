"""A connection between the loop and the pool: whose turn it is, decided under one lock."""

from __future__ import annotations

import socket
from contextlib import suppress
from queue import SimpleQueue
from time import monotonic
from types import SimpleNamespace

import pytest

from gateway.budget import Budget
from gateway.connection import Connection
from gateway.disconnects import AnswerLost, TakesTooLittle
from gateway.poller import READ, make_poller
from gateway.scoreboard import Board
from gateway.service import Service
from gateway.serving import Serving
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


class Place(Serving):
    """A worker with threads, as far as a connection sees it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.queue = SimpleQueue()
        self.now = self.since = 1.0
        self.budget = Budget()
        self.retiring = False
        self.log = SimpleNamespace(info=lambda *_: None, error=lambda *_: None)
        self.poller = make_poller("auto")
        self.handed_back = []
        self.streams = SimpleNamespace(hold=lambda _: True)

    def hand_back(self, connection) -> None:
        self.handed_back.append(connection)


@pytest.fixture
def both():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def theirs(both):
    return both[1]


@pytest.fixture(params=["fastcgi", "http"])
def connection(request, both):
    ours, _ = both
    settings = Settings(threads=4)
    worker = Place(settings)
    made = Connection(worker, Service(request.param, settings, None), ours, "peer", {})
    worker.poller.register(made.number, READ)
    made.interest = READ
    made.lock = Hooked()
    yield made
    worker.poller.close()


def test_a_request_that_arrives_while_a_thread_finds_nothing_is_served(connection):
    """The thread has looked and leaves; the loop must not count on it."""
    connection.active = 1  # a thread was sent for what another has done already

    def arrive() -> None:
        connection.pending.append(Request(1, {}))
        connection.pump()

    connection.lock.then = arrive
    connection.work(Board(1).seat(0), 1.0)
    assert connection.worker.queue.qsize() == connection.active == 1


PIPELINED = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 1000


def serve_all(connection):
    """What threads of the pool do with what is pending, without an application."""
    served = len(connection.pending)
    connection.pending.clear()
    connection.active = 0
    return served


@pytest.mark.parametrize("connection", ["http"], indirect=True)
def test_pipelined_requests_are_decoded_a_few_at_a_time(connection):
    connection.receive(PIPELINED)
    served = 0
    while connection.pending:
        assert len(connection.pending) <= 32
        assert bool(connection.interest & READ) == (not connection.codec.rest)
        served += serve_all(connection)
        connection.look_again()
    assert served == 1000
    assert connection.interest == READ


@pytest.mark.parametrize("connection", ["http"], indirect=True)
def test_what_is_put_off_is_not_forgotten_if_threads_are_quick(connection):
    """They have served everything before the loop has settled what it waits for."""

    def after_the_second_look() -> None:
        connection.lock.then = lambda: serve_all(connection)

    connection.lock.then = after_the_second_look
    connection.receive(PIPELINED)
    assert connection.worker.handed_back == [connection]


@pytest.mark.parametrize("connection", ["http"], indirect=True)
def test_the_end_comes_after_what_was_put_off(connection):
    """TLS tells of the end together with what came before it."""
    connection.receive(PIPELINED + b"GET /")
    connection.end_of_file()
    served = 0
    while not connection.closing:
        served += serve_all(connection)
        connection.look_again()
    served += serve_all(connection)
    assert served == 1000


def test_what_the_protocol_says_beside_an_answer_that_waits_costs_no_connection(connection):
    connection.sock.setblocking(False)
    most = connection.settings.response_buffer_size
    connection.write(bytes(2 * most))  # of which the socket takes a part
    assert connection.output.waiting > most
    connection.say(b"values")
    assert not connection.gone


def says_on(connection, size: int) -> None:
    for _ in range(size // 50_000):
        connection.say(bytes(50_000))


def test_a_peer_that_asks_and_does_not_listen_is_dropped(connection):
    connection.sock.setblocking(False)
    with pytest.raises(TakesTooLittle):
        says_on(connection, connection.settings.response_buffer_size + 5_000_000)
    assert connection.gone


def test_a_peer_that_listens_while_something_always_waits_may_ask_on(connection, theirs):
    """Bytes that it has taken are not held against it."""
    connection.sock.setblocking(False)
    most = connection.settings.response_buffer_size
    connection.write(bytes(5_000_000))
    said = 0
    while said < 2 * most:
        connection.say(bytes(500_000))
        said += 500_000
        taken = 0
        while taken < 500_000:
            taken += len(theirs.recv(50_000))
            connection.flush()
        assert connection.output.size


def test_what_was_held_and_cannot_be_kept_is_told_with_the_end(connection):
    """The thread that sends what is held has nobody to tell it to."""
    connection.sock.setblocking(False)
    connection.budget.memory.left = connection.budget.disk.left = 0
    connection.budget.unkept.left = 0
    with suppress(BlockingIOError):
        while True:
            connection.sock.send(bytes(100_000))
    connection.wrote = monotonic() + 60  # so that what comes now comes fast
    connection.write(b"a piece", wait=True)
    assert connection.pile_size
    connection.send_pile()
    assert connection.worker.handed_back == [connection]
    with pytest.raises(AnswerLost):
        connection.write(b"")
