"""The watchdog of a worker: a thread that looks at the others.

It gives the sign of life that the manager waits for, logs requests that are
slow, ends those that take longer than ``timeout``, gives up threads that do
not come back, and sees to it that a worker that has to leave does.

A deadline has three steps.  The request *expires*: wherever it next comes back
from the application, it ends.  If it does not come back by the next look, it is
*interrupted*: an exception is raised in its thread.  If the thread is still in
the application a while later, it is *abandoned*: the server answers in its
place, somebody else serves on, and the manager is asked for another worker.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from time import monotonic, sleep
from typing import TYPE_CHECKING

from gateway.answer import EXPIRED
from gateway.errorlog import log_stack
from gateway.interrupts import interrupt
from gateway.leaving import force_out
from gateway.loader import LoadError
from gateway.stillness import Stillness

if TYPE_CHECKING:
    from gateway.scoreboard import Seat
    from gateway.worker import Worker
    from gateway.wsgi import Exchange

#: Between two looks: at most, and while a request is past its deadline; seconds.
_REST = 1.0
_CLOSE = 0.25
_LEAST = 0.02

#: How long a thread may take to come back after its interruption, seconds.
GRACE = 2.0

#: What a worker may take beyond ``graceful_timeout``, or beyond a signal to stop
#: at once, before it is made to leave; less than the manager's own patience.
_MERCY = 1.0

#: How long a loop that runs the application itself may stay away before what
#: waits for it counts as waiting, and before its signals are read for it; seconds.
_AWAY = 0.1
_LONG_AWAY = 1.0


class _Case:
    """What has been done about one request."""

    __slots__ = ("exchange", "interrupted")

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.interrupted = 0.0


class Watchdog:
    """Looks at the seats of one worker."""

    def __init__(self, worker: Worker) -> None:
        settings = worker.settings
        self._worker = worker
        self._slow = settings.slow_request_timeout
        self._timeout = settings.timeout
        limits = [limit for limit in (self._slow, self._timeout) if limit]
        self._rest = min([_REST, *(max(_LEAST, limit / 4) for limit in limits)])
        self._cases: dict[int, _Case] = {}
        self._requests = -1
        self._parent = os.getppid()
        self._stop_seen = 0.0
        self._stillness = Stillness()

    def start(self) -> None:
        """Look for the first time, and go on in a thread of its own.  Raises LoadError."""
        self.look()
        thread = threading.Thread(target=self._run, name="gateway-watchdog", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise LoadError(f"the system has no more threads: {error}") from None

    def _run(self) -> None:
        while True:
            try:
                pause = self.look()
            except Exception:
                self._worker.log.critical("a fault of the server", exc_info=True)
                pause = self._rest
            sleep(pause)

    def look(self) -> float:
        """Look at everything once; return in how many seconds to look again."""
        now = monotonic()
        self._excuse(now)
        pause = self._rest
        busy = False
        for seat in list(self._worker.seats.taken):
            exchange = seat.exchange
            if exchange is None:
                self._cases.pop(seat.index, None)
            else:
                busy = True
                pause = min(pause, self._look_at(seat, exchange, now))
        self._report(now, busy=busy)
        self._see_off(now)
        pause = max(pause, _LEAST)
        self._stillness.expect(pause)
        return pause

    def _excuse(self, now: float) -> None:
        """Time in which the whole process stood still is no request's."""
        lost = self._stillness.lost(now)
        if not lost:
            return
        self._worker.log.warning("the process stood still for %.1f s", lost)
        for seat in list(self._worker.seats.taken):
            exchange = seat.exchange
            if exchange is not None:
                exchange.clock += lost
        for case in self._cases.values():
            if case.interrupted:
                case.interrupted += lost

    # Requests

    def _look_at(self, seat: Seat, exchange: Exchange, now: float) -> float:
        """One request; return in how many seconds it needs another look."""
        if not exchange.in_app:
            return self._rest  # it waits for its client, or is about to end
        case = self._cases.get(seat.index)
        if case is None or case.exchange is not exchange:
            case = None
        if exchange.expired:
            return self._pursue(seat, case or self._open(seat, exchange), now)
        age = now - exchange.clock
        pause = self._rest
        if self._slow:
            if age < self._slow:
                pause = self._slow - age
            elif case is None:
                self._open(seat, exchange)
                self._log(
                    logging.WARNING, seat, exchange, f"slow, {age:.1f} s so far{exchange.delay()}"
                )
        if self._timeout:
            if age >= self._timeout:
                exchange.expired = EXPIRED
                self._open(seat, exchange)
                what = f"timeout after {age:.1f} s"
                self._log(logging.ERROR, seat, exchange, what)
                return _CLOSE
            pause = min(pause, self._timeout - age)
        return pause

    def _open(self, seat: Seat, exchange: Exchange) -> _Case:
        case = self._cases[seat.index] = _Case(exchange)
        return case

    def _pursue(self, seat: Seat, case: _Case, now: float) -> float:
        """The request has expired and is still in the application."""
        exchange = case.exchange
        if not case.interrupted:
            case.interrupted = now
            with seat.lock:
                # Under the lock the thread cannot get further than to the end of
                # ``_settle``: what is set here arrives in the application, or there.
                if exchange.in_app and seat.exchange is exchange:
                    interrupt(seat.ident)
        elif now - case.interrupted >= GRACE:
            with self._worker.giving_up:
                self._give_up(seat, exchange, now)
        return _CLOSE

    def _give_up(self, seat: Seat, exchange: Exchange, now: float) -> None:
        frame = sys._current_frames().get(seat.ident)  # noqa: SLF001 - there is no other way
        if not exchange.abandon():
            return
        seat.stuck = True
        worker = self._worker
        try:
            age = now - exchange.clock
            what = f"stuck, {age:.1f} s so far: its thread is given up"
            log_stack(worker.log, logging.ERROR, f"{exchange.title()}: {what}", frame)
        finally:
            worker.replacing.replace_thread(exchange)

    def _log(self, level: int, seat: Seat, exchange: Exchange, what: str) -> None:
        frame = sys._current_frames().get(seat.ident)  # noqa: SLF001 - there is no other way
        log_stack(self._worker.log, level, f"{exchange.title()}: {what}", frame)

    # The worker

    def _report(self, now: float, *, busy: bool) -> None:
        """Tell the manager how the worker is."""
        worker = self._worker
        board = worker.board
        requests = board.requests
        if busy or requests != self._requests:
            self._requests = requests
            board.last_active = now
        if worker.pool is None:
            away = now - worker.now if busy else 0.0
            # In the application ``timeout`` has the say, not ``worker_timeout``.
            board.beat = now if busy else worker.now
            board.busy_since = worker.now if away > _AWAY else 0.0
            if away > _LONG_AWAY:
                worker.orders.read()
        else:
            board.beat = worker.now
            pressed = worker.pool.is_pressed()
            board.busy_since = (board.busy_since or now) if pressed else 0.0

    def _see_off(self, now: float) -> None:
        """Have the worker leave that has to, and whose loop does not come to it."""
        worker = self._worker
        if not worker.orders.are_open():
            worker.lost_descriptors()
        if os.getppid() != self._parent:
            worker.orders.manager_is_gone()
        if worker.stop_now:
            self._stop_seen = self._stop_seen or now
            if now > self._stop_seen + _MERCY:
                force_out(worker)
        elif worker.retiring and now > worker.deadline + _MERCY:
            force_out(worker)
