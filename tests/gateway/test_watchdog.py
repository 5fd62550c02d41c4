"""The watchdog against a thread that runs in and out of the application all the time.

The rule under test: what it raises arrives in the application's code or
nowhere, and nothing is left over when the request is over.
"""

from __future__ import annotations

import logging
import random
import sys
import threading
from contextlib import suppress
from io import BytesIO
from itertools import count
from time import monotonic
from types import SimpleNamespace

import pytest

from gateway.answer import ABANDONED, EXPIRED
from gateway.carrier import Carrier
from gateway.interrupts import Abandoned, RequestTimeout, interrupt, withdraw
from gateway.scoreboard import Board
from gateway.service import Service
from gateway.serving import Serving
from gateway.settings import Settings
from gateway.watchdog import GRACE, Watchdog
from gateway.wsgi import Exchange
from protocols import codec_class
from protocols.model import Limits, Request


class Wire(Carrier):
    """A connection, as far as an exchange sees it; what is written may not be interrupted."""

    def __init__(self, worker) -> None:
        self.worker = worker
        self.codec = codec_class("http")(Limits())
        self.settings = worker.settings
        self.service = Service("http", Settings(), logging.getLogger("gateway"))
        self.own = {}
        self.peer = "peer"
        self.gone = False
        self.slots = 1
        self.closing = False
        self.reset = False
        self.written = []
        self.given_up = []
        self.torn = False

    def client_disconnected(self) -> bool:
        return self.gone

    def write(self, data, rest=b"", tail=b"", *, wait=False) -> float:
        self.torn = True  # an exception between here and there leaves it so
        for _ in range(50):
            pass
        self.written.append(data)
        self.torn = False
        return 0.0

    def cut(self, request) -> None:
        request.keep_alive = False
        self.closing = True

    def abandoned(self, request) -> None:
        self.given_up.append(request)


class Place(Serving):
    """A worker, as far as an exchange and the watchdog see it."""

    def __init__(self, application, log) -> None:
        self.application = application
        self.log = log
        self.next_serial = count(1).__next__
        self.last_serial = 0
        self.after_request = self.access = None
        self.retiring = self.is_fork = self.late = False
        self.giving_up = threading.Lock()


class Bench:
    """A worker with one seat and a watchdog that looks when it is told to."""

    def __init__(self, application, timeout=1.0, slow=0.0) -> None:
        self.board = Board(1)
        self.seat = self.board.seat(0)
        self.replaced = []
        self.lines = []
        log = logging.Logger("bench")  # noqa: LOG001 - as the error log: in no tree
        handler = logging.Handler()
        self.problems = []
        handler.emit = self._note
        log.addHandler(handler)
        self.worker = Place(application, log)
        self.worker.settings = SimpleNamespace(
            timeout=timeout, slow_request_timeout=slow, fastcgi_stderr=False
        )
        self.worker.seats = SimpleNamespace(taken=[self.seat])
        self.worker.replacing = SimpleNamespace(replace_thread=self.replaced.append)
        self.wire = Wire(self.worker)
        self.dog = Watchdog(self.worker)

    def _note(self, record) -> None:
        self.lines.append(record.getMessage())
        if record.exc_info:
            self.problems.append(str(record.exc_info[1]))

    def exchange(self) -> Exchange:
        environ = {
            "REQUEST_METHOD": "GET",
            "REQUEST_URI": "/",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.input": BytesIO(),
            "wsgi.errors": sys.stderr,
        }
        return Exchange(self.wire, Request(1, environ))

    def look(self, now: float) -> None:
        exchange = self.seat.exchange
        if exchange is not None:
            self.dog._look_at(self.seat, exchange, now)


def served(bench, exchange):
    """Serve in a thread; what came out of ``run``."""
    outcome = []

    def run() -> None:
        bench.seat.ident = threading.get_ident()
        try:
            exchange.run(bench.seat, monotonic())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, outcome


def hello(_environ, start_response):
    start_response("200 OK", [])
    return [b"hello"]


class Gate:
    """An application that waits, in Python, until it is let go."""

    def __init__(self, then=hello, swallow=False) -> None:
        self.arrived = threading.Event()
        self.go = threading.Event()
        self.then = then
        self.swallow = swallow
        self.met = []

    def __call__(self, environ, start_response):
        self.arrived.set()
        try:
            while not self.go.is_set():
                pass
        except RequestTimeout as error:
            self.met.append(error)
            if not self.swallow:
                raise
        return self.then(environ, start_response)


def test_in_time_nothing_happens():
    gate = Gate()
    bench = Bench(gate, timeout=1.0)
    exchange = bench.exchange()
    thread, outcome = served(bench, exchange)
    gate.arrived.wait()
    bench.look(exchange.clock + 0.9)
    assert not exchange.expired
    gate.go.set()
    thread.join()
    assert outcome == []
    assert bench.wire.written[0].endswith(b"hello")
    assert bench.seat.exchange is None
    assert bench.board.busy == 0


def test_an_expired_request_ends_where_it_comes_back_without_an_interruption():
    gate = Gate()
    bench = Bench(gate, timeout=1.0)
    exchange = bench.exchange()
    thread, outcome = served(bench, exchange)
    gate.arrived.wait()
    bench.look(exchange.clock + 1.0)
    assert exchange.expired == EXPIRED
    gate.go.set()
    thread.join()
    assert outcome == gate.met == []
    assert b" 504 " in bench.wire.written[0]
    assert ["timeout after" in line for line in bench.lines] == [True]


@pytest.mark.parametrize("swallow", [False, True])
def test_an_interruption_arrives_once_and_the_answer_is_504(swallow):
    gate = Gate(swallow=swallow)
    bench = Bench(gate, timeout=1.0)
    exchange = bench.exchange()
    thread, outcome = served(bench, exchange)
    gate.arrived.wait()
    for late in (1.0, 1.1, 1.2, 1.3):
        bench.look(exchange.clock + late)
    thread.join()
    assert outcome == []
    assert len(gate.met) == 1
    assert [b" 504 " in data for data in bench.wire.written] == [True]


def test_a_thread_that_does_not_come_back_is_answered_for():
    gate = threading.Event()
    arrived = threading.Event()

    def stuck(environ, start_response):
        arrived.set()
        while not gate.is_set():
            with suppress(RequestTimeout):
                gate.wait()
        return hello(environ, start_response)

    bench = Bench(stuck, timeout=1.0)
    exchange = bench.exchange()
    thread, outcome = served(bench, exchange)
    arrived.wait()
    begun = exchange.clock
    bench.look(begun + 1.0)
    bench.look(begun + 1.3)
    bench.look(begun + 1.3 + GRACE - 0.1)
    assert not bench.wire.written
    bench.look(begun + 1.3 + GRACE)
    assert exchange.expired == ABANDONED
    assert [b" 504 " in data for data in bench.wire.written] == [True]
    assert bench.wire.given_up == [exchange.request]
    assert bench.replaced == [exchange]
    assert bench.seat.stuck
    assert bench.seat.exchange is None
    assert bench.board.busy == 0
    gate.set()
    thread.join()
    assert [type(error) for error in outcome] == [Abandoned]
    assert len(bench.wire.written) == 1, "it says nothing when it comes back"


def test_a_slow_request_is_logged_once():
    gate = Gate()
    bench = Bench(gate, timeout=5.0, slow=1.0)
    exchange = bench.exchange()
    thread, _ = served(bench, exchange)
    gate.arrived.wait()
    for age in (0.9, 1.0, 1.5, 2.0):
        bench.look(exchange.clock + age)
    gate.go.set()
    thread.join()
    assert len(bench.lines) == 1
    assert "slow, 1.0 s so far" in bench.lines[0]


class Door:
    """A seat's lock that tells when the thread of the seat comes to it."""

    def __init__(self, seat) -> None:
        self.seat = seat
        self.lock = seat.lock
        self.reached = threading.Event()

    def acquire(self) -> None:
        if threading.get_ident() == self.seat.ident:
            self.reached.set()
        self.lock.acquire()

    def release(self) -> None:
        self.lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_) -> None:
        self.release()

    def wait_for(self, thread) -> bool:
        """Whether ``thread`` comes before it ends."""
        while not self.reached.is_set() and thread.is_alive():
            self.reached.wait(0.01)
        return self.reached.is_set()


def test_a_thread_that_leaves_the_application_while_it_is_being_interrupted(monkeypatch):
    """The watchdog has seen it in the application; it is out before the exception is set."""
    gate = Gate()
    bench = Bench(gate, timeout=1.0)
    exchange = bench.exchange()
    door = bench.seat.lock = Door(bench.seat)
    thread, outcome = served(bench, exchange)
    stands = []

    def too_late(ident: int) -> bool:
        gate.go.set()
        if door.wait_for(thread):
            stands.append(ident)
        return interrupt(ident)

    monkeypatch.setattr("gateway.watchdog.interrupt", too_late)
    gate.arrived.wait()
    bench.look(exchange.clock + 1.0)
    bench.look(exchange.clock + 1.3)
    thread.join()
    assert stands == [thread.ident], "it waits until the exception is set, and takes it back"
    assert (outcome, gate.met) == ([], [])
    assert [b" 504 " in data for data in bench.wire.written] == [True]


def test_a_thread_that_leaves_the_application_while_it_is_being_given_up(monkeypatch):
    """Either it answers or the server does, and never both."""
    gate2 = Gate()
    gate = Gate(swallow=True, then=gate2)
    bench = Bench(gate, timeout=1.0)
    exchange = bench.exchange()
    thread, outcome = served(bench, exchange)
    gate.arrived.wait()
    begun = exchange.clock
    bench.look(begun + 1.0)
    bench.look(begun + 1.3)
    gate2.arrived.wait()
    door = bench.seat.lock = Door(bench.seat)
    ended = bench.seat.end

    def end(state: int) -> None:
        """Called by ``abandon``, which has decided and holds the lock."""
        if threading.get_ident() != bench.seat.ident:
            gate2.go.set()
            door.wait_for(thread)
        ended(state)

    monkeypatch.setattr(bench.seat, "end", end)
    bench.look(begun + 1.3 + GRACE)
    thread.join()
    assert [type(error) for error in outcome] == [Abandoned]
    assert [b" 504 " in data for data in bench.wire.written] == [True]


def test_what_is_withdrawn_never_arrives():
    ready, go, done = threading.Event(), threading.Event(), []

    def run() -> None:
        try:
            ready.set()
            go.wait()
            for _ in range(1000):
                done.append(1)
        except RequestTimeout:
            done.append("arrived")

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    assert interrupt(thread.ident)
    withdraw(thread.ident)
    go.set()
    thread.join()
    assert "arrived" not in done


#: Interruptions that have to strike before it is believed.
ENOUGH = 100


def test_whenever_it_strikes_the_server_is_never_hit(monkeypatch):
    """Thousands of requests against a watchdog whose every look is past the deadline."""
    arrived = []
    sent = []

    def counted(ident: int) -> bool:
        sent.append(ident)
        return interrupt(ident)

    monkeypatch.setattr("gateway.watchdog.interrupt", counted)
    chance = random.Random(1)

    def dawdle() -> None:
        for _ in range(chance.choice((0, 1, 2, 5, 200, 20_000))):
            pass

    def application(_environ, start_response):
        try:
            write = start_response("200 OK", [])
            dawdle()
            write(b"some")
            dawdle()
            return pieces()
        except RequestTimeout:
            arrived.append("application")
            if len(arrived) % 3:
                raise
            dawdle()
            return [b"an answer all the same"]

    def pieces():
        dawdle()
        yield b"more"
        dawdle()

    bench = Bench(application, timeout=1.0)
    bench.worker.log.setLevel(logging.CRITICAL)  # a stack takes long to format
    over = threading.Event()

    def strike() -> None:
        while not over.is_set():
            bench.look(monotonic() + 1000.0)

    # The grace must not run out: what strikes here are interruptions.
    bench.dog._give_up = lambda *_: None
    striker = threading.Thread(target=strike)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    wrong = []

    def run() -> None:
        bench.seat.ident = threading.get_ident()
        while len(sent) < ENOUGH:
            exchange = bench.exchange()
            try:
                exchange.run(bench.seat, monotonic())
                for _ in range(20):  # whatever is still pending arrives here
                    exchange.title()
            except BaseException as error:
                wrong.append(error)
                return
            if bench.wire.torn or bench.seat.lock._is_owned():
                wrong.append("torn")
                return

    thread = threading.Thread(target=run)
    try:
        striker.start()
        thread.start()
        thread.join()
    finally:
        over.set()
        striker.join()
        sys.setswitchinterval(interval)
    assert wrong == []
    assert arrived, "none of them met the application"
