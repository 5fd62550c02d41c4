"""Open connections that pass from a retiring worker to one that stays.

FastCGI cannot announce that a kept connection ends: a front end that has just
read END_REQUEST sends its next request before it sees the end, and loses it.
So the connection does not end; between two requests its descriptor goes to
whichever worker takes it next, with whatever has arrived on it meanwhile.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gateway.accepted import Sock

_WORD = 4
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)  # Linux and the BSDs


class Handover:
    """One queue of descriptors, made by the manager and shared by all workers.

    ``reader`` and ``writer`` are the descriptors of a queue that is there already.
    """

    def __init__(self, reader: int = -1, writer: int = -1) -> None:
        if reader == -1:
            self._reader, self._writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        else:
            self._reader, self._writer = socket.socket(fileno=reader), socket.socket(fileno=writer)
        for sock in (self._reader, self._writer):
            sock.setblocking(False)
            sock.set_inheritable(False)

    @property
    def numbers(self) -> list[int]:
        """The descriptors of both ends."""
        return [self._reader.fileno(), self._writer.fileno()]

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._reader.fileno()

    def give(self, listener: int, number: int) -> bool:
        """Pass on connection ``number``, accepted on ``listener``; False if it has to stay."""
        try:
            socket.send_fds(self._writer, [listener.to_bytes(_WORD, "big")], [number])
        except OSError:  # the queue is full, or out of descriptors: later, then
            return False
        return True

    def take(self) -> tuple[int, Sock, Any] | None:
        """Listener, socket and peer of the next connection, if there is one."""
        try:
            word, numbers, _, _ = socket.recv_fds(self._reader, _WORD, 1, _CLOSE_ON_EXEC)
        except OSError:
            return None
        if not numbers:
            return None  # out of descriptors: the kernel closed it
        sock = socket.socket(fileno=numbers[0])
        sock.setblocking(False)
        try:
            address = sock.getpeername()
        except OSError:  # it is gone already
            sock.close()
            return None
        return int.from_bytes(word, "big"), sock, address
