"""Shared memory of one worker: what each of its threads does now.

The manager makes a board before it forks a worker, and the worker writes to
it; so it outlives a worker that is killed, and the manager can name the
requests that died with it.  Nobody locks: every number is written by one
thread, and a record's state is its last byte, cleared before and set after the
rest of it is written.

Each thread that serves requests has a *seat*.  There are more seats than
threads: a thread that is stuck keeps its own while a substitute serves.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable
from functools import partial
from threading import RLock
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from gateway.wsgi import Exchange

#: Numbers of the whole worker, each a double; see the properties.
_HEADER_SIZE: Final = 64
_DOUBLE: Final = struct.Struct("=d")
_SERIAL: Final = struct.Struct("=Q")

#: serial, start, text, state.  Packing clears the whole record first, and writes in this order.
_RECORD: Final = struct.Struct("=Qd1000sB")
_RECORD_SIZE: Final = 1024
_STATE: Final = _RECORD.size - 1

#: States of a seat.
IDLE: Final = 0
BUSY: Final = 1

#: Seats beyond one a thread, at least.
_SPARE: Final = 8


class LostRequest(NamedTuple):
    """A request that a worker was serving; times are monotonic and in seconds."""

    serial: int
    started: float
    age: float
    method: str
    uri: str
    server_protocol: str
    remote_addr: str
    peer: str
    protocol: str


def describe(
    method: str, server_protocol: str, remote_addr: str, peer: str, protocol: str, uri: str
) -> bytes:
    """The text of a request on the board.

    The hot path makes the same by hand.  The URI is last: it may be cut, and
    nothing that is in it can be taken for another part.
    """
    return f"{method}\0{server_protocol}\0{remote_addr}\0{peer}\0{protocol}\0{uri}".encode()


class Seat:
    """The place of one thread, on the board and in its process.

    ``begin(serial, start, text, BUSY)`` and ``end(IDLE)`` are single calls of
    C functions: they are on the path of every request.

    ``exchange``  the request that the thread serves, or None.
    ``ident``     the thread.
    ``lock``      held by whoever interrupts the thread, and by the thread to
                  make sure that nobody does.
    ``stuck``     the thread was given up; it may come back or not.
    """

    __slots__ = ("begin", "end", "exchange", "ident", "index", "lock", "stuck")

    def __init__(self, memory: mmap.mmap, index: int) -> None:
        offset = _offset(index)
        self.index = index
        self.exchange: Exchange | None = None
        self.ident = 0
        self.lock = RLock()
        self.stuck = False
        self.begin: Callable[[int, float, bytes, int], None] = partial(
            _RECORD.pack_into, memory, offset
        )
        self.end: Callable[[int], None] = partial(memory.__setitem__, offset + _STATE)


class Board:
    """The shared memory of one worker with ``threads`` threads."""

    def __init__(self, threads: int, descriptor: int | None = None) -> None:
        """Without ``descriptor`` the memory is new.  Raises OSError."""
        self.threads = threads
        self.seats = threads + max(threads, _SPARE)
        size = _offset(self.seats)
        if descriptor is None:
            descriptor = -1
            if hasattr(os, "memfd_create"):
                descriptor = os.memfd_create("gateway-board")
                os.ftruncate(descriptor, size)
        self._descriptor = descriptor
        try:
            self._memory = mmap.mmap(descriptor, size)
        except OSError:
            if descriptor != -1:
                os.close(descriptor)
            raise

    @classmethod
    def attach(cls, descriptor: int, threads: int) -> Board:
        """The board behind ``descriptor``, which this object then owns.  Raises OSError."""
        return cls(threads, descriptor)

    def descriptor(self) -> int:
        """What another process can attach to; -1 if there is none on this system."""
        return self._descriptor

    def close(self) -> None:
        """Let go of the descriptor, and of the memory once no seat holds it."""
        if self._descriptor != -1:
            os.close(self._descriptor)
            self._descriptor = -1
        try:
            self._memory.close()
        except BufferError:  # pragma: no cover - only while a view of it is alive
            return

    # The worker's side

    def seat(self, index: int) -> Seat:
        """The seat of one thread: from 0 to ``seats - 1``."""
        if not 0 <= index < self.seats:
            raise IndexError(f"there are {self.seats} seats, and no {index}")
        return Seat(self._memory, index)

    # Both sides: monotonic times in seconds, 0.0 for never

    @property
    def beat(self) -> float:
        """The last sign of life."""
        return self._number(0)

    @beat.setter
    def beat(self, value: float) -> None:
        _DOUBLE.pack_into(self._memory, 0, value)

    @property
    def busy_since(self) -> float:
        """Since when every thread is busy while something waits."""
        return self._number(8)

    @busy_since.setter
    def busy_since(self, value: float) -> None:
        _DOUBLE.pack_into(self._memory, 8, value)

    @property
    def last_active(self) -> float:
        """When it last had a request, or started."""
        return self._number(16)

    @last_active.setter
    def last_active(self, value: float) -> None:
        _DOUBLE.pack_into(self._memory, 16, value)

    def _number(self, offset: int) -> float:
        value: float = _DOUBLE.unpack_from(self._memory, offset)[0]
        return value

    # The manager's side

    @property
    def requests(self) -> int:
        """Requests begun: serials count from 1, so the largest tells."""
        return max(
            int(_SERIAL.unpack_from(self._memory, _offset(index))[0]) for index in range(self.seats)
        )

    @property
    def busy(self) -> int:
        """Threads that are in a request now."""
        return sum(self._memory[_offset(index) + _STATE] == BUSY for index in range(self.seats))

    def lost(self, now: float) -> list[LostRequest]:
        """The requests being served at this moment, the oldest first."""
        found = []
        for index in range(self.seats):
            serial, started, text, state = _RECORD.unpack_from(self._memory, _offset(index))
            if state != BUSY:
                continue
            parts = text.rstrip(b"\0").decode("utf-8", "replace").split("\0", 5)
            method, server_protocol, remote_addr, peer, protocol, uri = parts + [""] * (
                6 - len(parts)
            )
            found.append(
                LostRequest(
                    serial=serial,
                    started=started,
                    age=now - started,
                    method=method or "-",
                    uri=uri or "-",
                    server_protocol=server_protocol or "-",
                    remote_addr=remote_addr,
                    peer=peer or "-",
                    protocol=protocol or "-",
                )
            )
        return sorted(found)


def _offset(index: int) -> int:
    return _HEADER_SIZE + index * _RECORD_SIZE
