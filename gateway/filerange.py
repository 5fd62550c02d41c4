"""Parts of open files that wait to be sent by the kernel, as they are or in records."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.accepted import Sock
    from protocols.model import Request

#: Of send(2): more follows at once, and goes into the same packet.
_MORE: Final[int] = getattr(socket, "MSG_MORE", 0)


class FileTooShort(OSError):
    """A file has fewer bytes than its range: it was cut while it was sent."""


class FileRange:
    """``count`` bytes of an open file from ``offset``; ``release`` is called once at the end."""

    __slots__ = ("count", "number", "offset", "release")

    def __init__(
        self, number: int, offset: int, count: int, release: Callable[[], None] | None = None
    ) -> None:
        self.number = number
        self.offset = offset
        self.count = count
        self.release = release

    def send(self, sock: Sock, most: int) -> int:
        """Send up to ``most`` bytes; return how many.  Raises OSError."""
        count = os.sendfile(sock.fileno(), self.number, self.offset, min(self.count, most))
        if count == 0:
            raise FileTooShort("a file was cut while it was sent")
        self.offset += count
        self.count -= count
        return count


class FramedRange(FileRange):
    """A range that goes out in records of up to ``most`` bytes, as answer to ``request``.

    ``edges`` gives what stands before and behind a record of so many bytes.  Once the
    request is aborted, the range ends with the record that has begun.
    """

    __slots__ = ("_behind", "_edge", "_edges", "_left", "_most", "cut", "request")

    def __init__(
        self,
        plain: FileRange,
        request: Request,
        most: int,
        edges: Callable[[int], tuple[bytes, bytes]],
        cut: Callable[[], None],
    ) -> None:
        super().__init__(plain.number, plain.offset, plain.count, plain.release)
        self.request = request
        self._most = most
        self._edges = edges
        #: Called if the file turns out to be too short.
        self.cut = cut
        #: What is still to be sent of the record, and of what stands between two.
        self._left = 0
        self._edge = b""
        self._behind = b""

    @property
    def is_between(self) -> bool:
        """Whether no record has begun."""
        return not (self._left or self._edge)

    @property
    def is_over(self) -> bool:
        """Whether no record has begun, and none will."""
        return self.is_between and (not self.count or self.request.aborted)

    def send_framed(self, sock: Sock) -> int:
        """Send some of the record, or of what stands around it.

        Returns by how much ``count`` is less.  Raises OSError.
        """
        if self.is_between:
            # What a record announces has to be there: behind one that is cut nothing is understood.
            left = min(self._most, self.count, os.fstat(self.number).st_size - self.offset)
            if left <= 0:
                raise FileTooShort("a file was cut while it was sent")
            self._left = left
            self._edge, self._behind = self._edges(left)
        if self._edge:
            sent = sock.send(self._edge, _MORE)
            self._edge = self._edge[sent:]
            return 0
        sent = self.send(sock, self._left)
        self._left -= sent
        if not self._left:
            self._edge = self._behind
        return sent
