"""The sending half of a connection, used by the loop and by pool threads.

Rule: the socket is written to, and the queue touched, only under ``lock``.
Whoever holds no lock may wait; whoever holds it never waits.
"""

from __future__ import annotations

import select
import socket
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING

from gateway.output import FileRange, Output

if TYPE_CHECKING:
    from gateway.settings import Settings


class ClientDisconnected(ConnectionError):
    """The peer is gone or takes nothing any more; raised where the application writes."""


class Channel:
    """A non-blocking socket and what waits to be sent on it."""

    __slots__ = ("gone", "lock", "output", "progress", "settings", "sock")

    def __init__(self, sock: socket.SocketType, settings: Settings) -> None:
        self.sock = sock
        self.settings = settings
        self.lock = Lock()
        self.output = Output(settings.body_buffer_size, settings.body_spool_dir)
        self.gone = False
        #: When the peer last took something, or was first asked to (monotonic).
        self.progress = 0.0

    def send_later(self) -> None:
        """Have the loop send what is queued; called without the lock."""
        raise NotImplementedError

    def say(self, data: bytes) -> None:
        """What the protocol itself says, from the loop: never waits.

        A peer that asks and asks but does not listen is dropped.  Raises
        ClientDisconnected.
        """
        self.write(data, wait=False)
        if self.output.size > self.settings.response_buffer_size:
            with self.lock:
                self._drop()
            raise ClientDisconnected("the peer takes nothing")

    def write(self, data: bytes, *, wait: bool = True) -> float:
        """Send, or queue what the socket does not take now.

        Waits, up to ``send_timeout`` without progress, while more than
        ``response_buffer_size`` bytes are queued; returns for how many seconds.
        Raises ClientDisconnected.
        """
        if not data:
            return 0.0
        with self.lock:
            if self.gone:
                raise ClientDisconnected("the peer is gone")
            output = self.output
            try:
                if output.size:
                    output.append(data)
                    self._flush()
                else:
                    try:
                        sent = self.sock.send(data)
                    except (BlockingIOError, InterruptedError):
                        sent = 0
                    if sent == len(data):
                        return 0.0
                    self.progress = monotonic()
                    output.append(memoryview(data)[sent:])
            except OSError as error:
                self._drop()
                raise ClientDisconnected(str(error)) from None
        return self._queued(wait=wait)

    def write_file(self, head: bytes, piece: FileRange) -> None:
        """Send ``head`` and then a range of a file; the loop sends what is left of it.

        ``piece.release`` is called once, also if the peer leaves before.
        Raises ClientDisconnected.
        """
        with self.lock:
            output = self.output
            try:
                if self.gone:
                    raise ClientDisconnected("the peer is gone")
                output.append(head)
            except OSError:
                if piece.release is not None:
                    output.released.append(piece.release)
                self._drop()
                raise
            output.append_file(piece)
            self.progress = monotonic()
            try:
                self._flush()
            except OSError as error:
                self._drop()
                raise ClientDisconnected(str(error)) from None
        self._queued()

    def flush(self) -> bool:
        """Send what is queued; True if nothing is left.  Raises ClientDisconnected."""
        with self.lock:
            if self.gone:
                raise ClientDisconnected("the peer is gone")
            try:
                self._flush()
            except OSError as error:
                self._drop()
                raise ClientDisconnected(str(error)) from None
            done = not self.output.size
        self.release()
        return done

    def release(self) -> None:
        """Let go of the files that are sent; called without the lock."""
        while True:
            try:  # another thread may be at it too
                done = self.output.released.pop()
            except IndexError:
                return
            done()

    def _flush(self) -> None:
        size = self.output.size
        self.output.flush(self.sock)
        if self.output.size < size:
            self.progress = monotonic()

    def _drop(self) -> None:
        self.gone = True
        self.output.clear()

    def _queued(self, *, wait: bool = True) -> float:
        self.release()
        waited = 0.0
        if wait and self.output.size > self.settings.response_buffer_size:
            begun = monotonic()
            self._wait_for_room()
            waited = monotonic() - begun
        if self.output.size:
            self.send_later()
        return waited

    def _wait_for_room(self) -> None:
        """Wait for a slow reader; the descriptor stays open while its request is served."""
        poll = select.poll()
        poll.register(self.sock.fileno(), select.POLLOUT)
        while self.output.size > self.settings.response_buffer_size // 2:
            if not poll.poll(self.settings.send_timeout * 1000):
                with self.lock:
                    self._drop()
                self.release()
                raise ClientDisconnected("the peer takes nothing")
            self.flush()
