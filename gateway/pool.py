"""The seats of a worker, and the pool threads that sit in them.

A thread that was given up keeps its seat until it comes back, which may be
never; a substitute serves from another seat meanwhile.
"""

from __future__ import annotations

import threading
from collections import deque
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from gateway.interrupts import Abandoned
from gateway.loader import LoadError
from gateway.scoreboard import IDLE, Board, Seat

if TYPE_CHECKING:
    from gateway.connection import Connection
    from gateway.worker import Worker


class Seats:
    """Who sits where; used by several threads, each step by itself whole."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._free = deque(range(board.seats))
        self.taken: list[Seat] = []

    def take(self) -> Seat | None:
        """A free seat, or None."""
        try:
            seat = self._board.seat(self._free.popleft())
        except IndexError:
            return None
        self.taken.append(seat)
        return seat

    def leave(self, seat: Seat) -> None:
        """The thread that sat there is gone."""
        self.taken.remove(seat)
        self._free.append(seat.index)


class Pool:
    """Threads that take connections from one queue and serve a request of each."""

    def __init__(self, worker: Worker, seats: Seats) -> None:
        settings = worker.settings
        self._worker = worker
        self._seats = seats
        self._size = settings.queue_size or 2 * settings.threads
        #: Threads that are not stuck.
        self._serving = 0
        #: Connections with a request for a thread, and since when it waits (monotonic).
        self.queue: SimpleQueue[tuple[Connection, float]] = SimpleQueue()

    def start(self) -> None:
        """Start all threads.  Raises LoadError if the system does not have them."""
        wanted = self._worker.settings.threads
        for number in range(wanted):
            if not self.add():
                raise LoadError(
                    f"the system has no more threads: only {number} of {wanted} could be started"
                )

    def add(self) -> bool:
        """Start one thread; False if there can be no more."""
        seat = self._seats.take()
        if seat is None:
            return False
        thread = threading.Thread(
            target=self._serve, args=(seat,), name=f"gateway-{seat.index}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # the system has no more threads
            self._seats.leave(seat)
            return False
        self._serving += 1
        return True

    def gave_up(self) -> None:
        """A thread is stuck: another serves in its place, if there can be another."""
        self._serving -= 1
        self.add()

    def has_room(self) -> bool:
        """Whether a request more would be served soon."""
        return self.queue.qsize() < self._size and self._serving > 0

    def is_pressed(self) -> bool:
        """Whether every thread is busy and something waits."""
        return self.queue.qsize() > 0 and all(
            seat.stuck or seat.exchange is not None for seat in list(self._seats.taken)
        )

    def refuse_overdue(self, now: float) -> None:
        """Refuse what waits longer than ``queue_timeout``; on the loop, instead of a thread."""
        worker = self._worker
        limit = worker.settings.queue_timeout
        if not limit:
            return
        for _ in range(self.queue.qsize()):
            try:
                connection, since = self.queue.get_nowait()
            except Empty:
                return
            if now - since > limit:
                worker.guarded(connection, partial(connection.work, worker.seat, since))
            else:  # all are taken out and put back once, so they keep their order
                self.queue.put((connection, since))

    def _serve(self, seat: Seat) -> None:
        worker = self._worker
        queue = self.queue
        seat.ident = threading.get_ident()
        while True:
            connection, since = queue.get()
            try:
                connection.work(seat, since)
            except Abandoned:
                break  # another thread has taken this one's place
            except Exception:
                # A fault of ours: without this line the thread would be lost.
                worker.log.critical("a fault of the server", exc_info=True)
                seat.exchange = None
                seat.end(IDLE)
                connection.lose_from_thread()
            if not worker.acceptor.accepting and queue.qsize() < self._size:
                worker.orders.wake()
        self._seats.leave(seat)
        if self._serving < worker.settings.threads:
            self.add()  # there was no seat for a substitute
