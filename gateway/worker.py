"""One worker process: the loop thread and what belongs to the process as a whole.

The loop reads, parses and closes; the acceptor opens.  With one thread the
application runs on the loop; with more, requests go to the pool by one queue
and the pool threads write their answers themselves.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from mmap import PAGESIZE, mmap
from time import monotonic, time
from typing import TYPE_CHECKING, Any
from wsgiref.handlers import format_date_time

from gateway import forkguard, requesthooks
from gateway.acceptor import Acceptor
from gateway.accesslog import AccessLog
from gateway.budget import Budget
from gateway.connection import Connection
from gateway.deadlines import due, sweep
from gateway.errorlog import Sparing, renew, show_crashes
from gateway.handover import Handover
from gateway.hooks import NO_HOOKS, Hooks, ServerView, WorkerView
from gateway.interrupts import Abandoned
from gateway.leaving import leave
from gateway.linux import die_with_parent, keep_freed_memory
from gateway.loader import LoadError, load_from_settings
from gateway.orders import Orders
from gateway.poller import READ, make_poller
from gateway.pool import Pool, Seats
from gateway.replacing import EXIT_BROKEN, Replacing
from gateway.scoreboard import IDLE, Board, Seat
from gateway.serving import Serving
from gateway.settings import Settings
from gateway.sockets import Listener
from gateway.stillness import STOOD_STILL
from gateway.streams import Streams
from gateway.watchdog import Watchdog
from protocols.http1 import Http1Codec
from protocols.model import Codec

if TYPE_CHECKING:
    from gateway.service import Service

#: Exit codes of a worker.
EXIT_OK = 0
EXIT_LOAD = 3

#: What a worker tells its manager, a line each; after FAILED comes a text up to the end.
READY = b"ready\n"
FAILED = b"failed\n"

#: At most this long between two looks at the deadlines, seconds.
_TICK = 1.0

#: A kept FastCGI connection that no other worker took is closed this long
#: before the time of a retiring worker is up, seconds.
_LAST_CALL = 2.0


class _DescriptorsClosedError(Exception):
    """The application has closed what is not its own."""


class Worker(Serving):
    """Serves the application on inherited listening sockets until told to leave."""

    def __init__(
        self,
        settings: Settings,
        listeners: list[Listener],
        services: dict[int, Service],
        pipe: socket.socket,
        log: logging.Logger,
        access: AccessLog | None,
        handover: Handover,
        board: Board,
        hooks: Hooks = NO_HOOKS,
        application: Callable[..., Any] | None = None,
        view: WorkerView | None = None,
    ) -> None:
        """``application`` is given if it is loaded already; ``view`` is what hooks are shown."""
        self.settings = settings
        self.log = log
        self.access = access
        self.board = board
        self.hooks = hooks
        self.budget = Budget.of(settings)
        self.refusals = Sparing(log)
        self.streams = Streams(log)
        self.view = view or WorkerView(os.getpid(), log, settings, 0)
        where = [str(listener) for listener in listeners]
        self.server_view = ServerView(os.getppid(), log, settings, where)
        self.application = application or _no_application
        self._is_loaded = application is not None
        self.after_request = None if access is None else access.log
        self.next_serial = count(1).__next__
        self.last_serial = 0
        if settings.max_requests:
            jitter = random.randint(0, settings.max_requests_jitter)  # noqa: S311 - no secret
            self.last_serial = settings.max_requests + jitter
        self.retiring = False
        self.stopping = False
        self.stop_now = False
        #: When a retiring worker has to be gone, and its idle connections may go (monotonic).
        self.deadline = 0.0
        self.idle_until = 0.0
        self.orders = Orders(self)
        #: Held from the moment that somebody has begun to end the process.
        self.leaving = threading.Lock()
        #: Held while a thread is given up, from its client's answer to the line in the log.
        self.giving_up = threading.Lock()
        self.is_fork = False
        self.now = self.since = monotonic()
        self.late = False
        self.poller = make_poller(settings.poller)
        self.connections = {}
        self.seats = Seats(board)
        self.pool = Pool(self, self.seats) if settings.threads > 1 else None
        self.queue = None if self.pool is None else self.pool.queue
        self.seat = self._own_seat()
        self.acceptor = Acceptor(self, listeners, services, handover)
        self._handover = handover
        self.replacing = Replacing(self, pipe)
        self._pipe = pipe
        self._handed_back: deque[Connection] = deque()
        self._second = 0
        self._loop_thread = threading.get_ident()
        self._next_sweep = 0.0
        self._sweep_is_late = False

    def _own_seat(self) -> Seat:
        if self.pool is not None:  # it serves nothing, but refuses
            return Seat(mmap(-1, PAGESIZE), 0)
        seat = self.seats.take()
        assert seat is not None
        seat.ident = threading.get_ident()
        return seat

    # Life

    def run(self) -> int:
        """Load the application, serve, and return the exit code."""
        try:
            self._prepare()
        except BaseException as error:  # noqa: BLE001 - SystemExit in user code too
            text = str(error) if isinstance(error, LoadError) else traceback.format_exc()
            with suppress(OSError):
                self._pipe.sendall(FAILED + text.encode("utf-8", "backslashreplace"))
            return EXIT_LOAD
        with suppress(OSError):
            self._pipe.sendall(READY)
        try:
            return self._serve()
        except Abandoned:
            # Another thread runs the loop and will end the process.
            while True:
                threading.Event().wait()

    def _prepare(self) -> None:
        if not self._is_loaded:
            keep_freed_memory()
            # Nobody would end an import that hangs.  Later the worker sees for
            # itself that the manager has gone, and finishes what it has.
            die_with_parent(True)
            self.application = load_from_settings(self.settings)
            die_with_parent(False)
        requesthooks.install(self)
        self.hooks.call("post_worker_init", self.view)
        if self.hooks.call("ready", self.view) is False:
            raise LoadError("the hook ready returned False")
        forkguard.guard(self)
        show_crashes(self.log)
        self.poller.register(self.orders.fileno(), READ)
        self.poller.register(self._pipe.fileno(), READ)
        if self.pool is not None:
            self.pool.start()
        self.acceptor.set_accepting(True)
        self.now = monotonic()
        Watchdog(self).start()

    def _serve(self) -> int:
        try:
            self._loop()
        except _DescriptorsClosedError:
            self.lost_descriptors()
        leave(self)
        return EXIT_OK

    def lost_descriptors(self) -> None:
        """End here: there is nothing left to serve on.  Does not return."""
        if self.leaving.acquire(blocking=False):
            renew(self.log)
            self.log.critical(
                "the application has closed the server's descriptors (os.closerange?): "
                "this worker cannot go on"
            )
            logging.shutdown()
            os._exit(EXIT_BROKEN)
        threading.Event().wait()

    def let_go(self) -> None:
        """In a child that the application forked: close what is the worker's.

        Nothing is said to anybody.  The objects stay as they are; nobody uses
        them in the child.
        """
        numbers = [
            *self.acceptor.numbers(),
            *self._handover.numbers,
            *self.orders.numbers,
            *self.connections,
            self._pipe.fileno(),
        ]
        for number in numbers:
            with suppress(OSError):
                os.close(number)
        self.poller.close()

    # Retiring; see orders.py

    def take_signals(self) -> None:
        """Replace the manager's handlers; before that, signals are blocked."""
        self.orders.take_signals()

    def is_last_answer(self, codec: Codec) -> bool:
        """Whether an answer of a retiring worker ends its connection.

        HTTP says so in the answer.  FastCGI cannot; its connections go to
        another worker instead, while there is one.
        """
        return codec.origin or self.stopping or self.now >= self.deadline - _LAST_CALL

    def give_away(self, connection: Connection) -> bool:
        """Hand an idle connection to another worker; False if it has to stay."""
        return not self.stopping and self.acceptor.give(connection)

    def may_drop_idle(self, now: float) -> bool:
        """Whether an idle connection is to be closed before its time."""
        return self.retiring and now >= self.idle_until

    def go_on(self, seat: Seat) -> None:
        """Run the loop in place of a thread that is stuck in the application."""
        code = 1
        try:
            seat.ident = self._loop_thread = threading.get_ident()
            self.seat = seat
            code = self._serve()
        except Abandoned:
            self.seats.leave(seat)
            return
        except BaseException:
            self.log.critical("a worker failed", exc_info=True)
        os._exit(code)

    # The loop

    def _loop(self) -> None:
        poll = self.poller.poll
        connections = self.connections
        acceptor = self.acceptor
        while not self.stop_now:
            try:
                events = poll(0 if self._handed_back else _TICK)
            except (OSError, ValueError):
                raise _DescriptorsClosedError from None
            before, self.now = self.now, monotonic()
            self.since = now = self.now
            if now - before > STOOD_STILL:
                self._put_off_sweep()
            wall = int(time())
            if wall != self._second:
                self._second = wall
                Http1Codec.date = b"Date: %b\r\n" % format_date_time(wall).encode()
            self._handle(events)
            self.late = monotonic() - now > _TICK
            if self.late:
                self._excuse(events)
            for _ in range(len(self._handed_back)):
                connection = self._handed_back.popleft()
                self.guarded(connection, connection.look_again)
            # Once: a signal between two looks must not end a loop that has yet to accept the last.
            retiring = self.retiring
            if retiring or not acceptor.accepting:
                acceptor.review(now)
            if now >= self._next_sweep or self.stopping:
                self._sweep(now)
            if retiring and (not connections or now >= self.deadline):
                break

    def _put_off_sweep(self) -> None:
        """What came meanwhile is read first; once, for requests on the loop may take long too."""
        if not self._sweep_is_late:
            self._next_sweep = self.now + _TICK
            self._sweep_is_late = True

    def _sweep(self, now: float) -> None:
        self._next_sweep = now + _TICK
        self._sweep_is_late = False
        hurry = self.budget.is_tight or self.acceptor.is_full
        if self.pool is not None:
            self.pool.refuse_overdue(now)
        for connection in due(self, now):
            self.guarded(connection, partial(sweep, connection, now, hurry=hurry))

    def _handle(self, events: list[tuple[int, int]]) -> None:
        connections = self.connections
        for number, mask in events:
            connection = connections.get(number)
            if connection is None:
                self._other_event(number)
                continue
            try:
                if mask == READ:
                    connection.readable()
                else:
                    connection.on_event(mask)
            except Exception:  # noqa: BLE001 - logged there
                self.fault(connection)

    def guarded(self, connection: Connection, step: Callable[[], None]) -> None:
        """Take a step of a connection; a fault of ours ends that and nothing else."""
        try:
            step()
        except Exception:  # noqa: BLE001 - logged there
            self.fault(connection)

    def fault(self, connection: Connection) -> None:
        """A fault of ours ends the connection that it met, not the worker."""
        if not self.orders.are_open():
            raise _DescriptorsClosedError
        fault = sys.exc_info()
        self.log.critical("%s: a fault of the server", connection.peer, exc_info=fault)
        if self.pool is None:
            self.seat.exchange = None
            self.seat.end(IDLE)
        try:
            connection.lose()
        except Exception:
            self.log.critical("%s: and another", connection.peer, exc_info=True)

    def _excuse(self, events: list[tuple[int, int]]) -> None:
        """An application held the loop: its connections were not idle meanwhile."""
        self.now = monotonic()
        for number, _ in events:
            connection = self.connections.get(number)
            if connection is not None:
                connection.since = self.now
        self._put_off_sweep()

    def _other_event(self, number: int) -> None:
        if self.acceptor.event(number):
            return
        if number == self.orders.fileno():
            self.orders.read()
        elif number == self._pipe.fileno():
            # Only the end of the manager is heard here.
            self.poller.unregister(number)
            self.orders.manager_is_gone()

    def hand_back(self, connection: Connection) -> None:
        """Have the loop look at a connection; from any thread."""
        self._handed_back.append(connection)
        if threading.get_ident() != self._loop_thread:
            self.orders.wake()

    def forget(self, connection: Connection) -> None:
        """A connection closes."""
        if connection.interest != -1:
            self.poller.unregister(connection.number)
        del self.connections[connection.number]
        if connection.counted:
            self.acceptor.crowd.leave(connection)


def _no_application(*_: object) -> Any:
    raise RuntimeError("the application is not loaded")
