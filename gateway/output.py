"""What waits to be sent on one socket: pieces in memory, ranges of files.

Pieces beyond a limit go to a temporary file, so that an answer whose client is
slow frees its thread without holding memory.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import IO, TYPE_CHECKING, Final

from gateway.budget import Budget, NotKept, SpoolFull
from gateway.filerange import FileRange, FileTooShort, FramedRange
from protocols.native import mypyc_attr

if TYPE_CHECKING:
    from gateway.accepted import Sock

#: The most that one turn sends, so that one fast reader cannot hold the loop.
_TURN: Final = 1 << 20
_BATCH: Final = 64
_SMALL: Final = 4096
#: A temporary file that has grown so far is followed by another, and closed when
#: it is sent: an endless answer must not fill the disk with what is sent already.
_MOST_IN_FILE: Final = 16 << 20


def _trimmed(rest: memoryview) -> memoryview:
    """The rest of a piece; alone, if most of what it keeps in memory is sent already."""
    return memoryview(bytes(rest)) if 2 * len(rest) < memoryview(rest.obj).nbytes else rest


@mypyc_attr(allow_interpreted_subclasses=True)
class Output:
    """A queue of bytes for one socket.  The caller holds the connection's lock."""

    __slots__ = (
        "_budget",
        "_charged",
        "_chunks",
        "_file",
        "_file_size",
        "_folder",
        "_framed",
        "_in_memory",
        "_last",
        "_memory",
        "_told",
        "released",
        "size",
        "trouble",
        "unkept",
    )

    def __init__(self, in_memory: int, folder: str | None, budget: Budget) -> None:
        self._budget = budget
        #: A list, though it is a queue: an empty one is a tenth of an empty deque.
        self._chunks: list[memoryview | FileRange] = []
        self._in_memory = in_memory
        self._folder = folder
        self._memory = 0
        #: What of that is charged to the budget.
        self._charged = 0
        self._file: IO[bytes] | None = None
        self._file_size = 0
        self._last: FileRange | None = None
        #: Releases of files that are done, to be called without the lock.
        self.released: list[Callable[[], None]] = []
        self.size = 0
        #: Bytes that are in memory because the disk did not take them; why it did not,
        #: once, for whoever can say it.
        self.unkept = 0
        self._told = False
        self.trouble = ""
        #: What of ``size`` is in files that go out in records.
        self._framed = 0

    def append(self, data: bytes | memoryview) -> None:
        """Queue a piece.  Raises NotKept if the disk is full, and memory too."""
        size = len(data)
        if not size:
            return
        if self._memory + size <= self._in_memory and self._budget.memory.take(size):
            self._charged += size
            self._append_piece(data)
        else:
            try:
                self._append_to_file(data)
            except OSError as error:
                self._append_unkept(data, error)
        self.size += size

    def _append_unkept(self, data: bytes | memoryview, error: OSError) -> None:
        """Have in memory what the disk does not take.  Raises NotKept."""
        size = len(data)
        if not self._told:
            self._told = True
            self.trouble = str(error)
        if not self._budget.unkept.take(size):
            raise NotKept(f"the answer cannot be kept: {error}") from None
        self.unkept += size
        self._append_piece(data)

    def _append_to_file(self, data: bytes | memoryview) -> None:
        """Raises OSError if the disk, or its part of the budget, is full."""
        if self._file_size >= _MOST_IN_FILE:
            self._leave_file()
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed by clear
            self._file_size = 0
        size, number = len(data), self._file.fileno()
        if not self._budget.disk.take(size):
            raise SpoolFull
        written = 0
        try:
            while written < size:
                written += os.pwrite(number, data[written:], self._file_size + written)
        except OSError:
            self._budget.disk.give_back(size)
            raise
        self._append_range(number, size)
        self._file_size += size

    def must_shrink(self) -> bool:
        """Whether what is in memory in place of the disk has to go before more comes."""
        return self.unkept > 0 and self._budget.is_overdrawn

    def may_grow(self) -> bool:
        """Whether the spool has room for more than what must wait there."""
        return self._budget.is_ample

    def _append_range(self, number: int, size: int) -> None:
        """What was just written to the end of the file; one range for many pieces."""
        last = self._last
        if last is not None and self._chunks and self._chunks[-1] is last:
            last.count += size
        else:
            self._last = FileRange(number, self._file_size, size)
            self._chunks.append(self._last)

    def _append_piece(self, data: bytes | memoryview) -> None:
        """Small pieces are joined: each by itself would cost many times its size."""
        last = self._chunks[-1] if self._chunks else None
        if isinstance(last, memoryview) and len(last) + len(data) <= _SMALL:
            self._chunks[-1] = memoryview(bytes(last) + data)
        else:
            self._chunks.append(_trimmed(memoryview(data)))
        self._memory += len(data)

    def append_file(self, piece: FileRange) -> None:
        """Queue a range, which is not empty, of a file of the application."""
        self._chunks.append(piece)
        self.size += piece.count
        if type(piece) is FramedRange:
            self._framed += piece.count

    def flush(self, sock: Sock) -> None:
        """Send until the socket is full, the queue empty or the turn over.

        Raises OSError if the peer is gone.
        """
        sent = 0
        try:
            while self._chunks and sent < _TURN:
                head = self._chunks[0]
                if type(head) is FileRange:
                    sent += self._send_range(sock, head)
                elif type(head) is FramedRange:
                    sent += self._send_framed(sock, head)
                else:
                    sent += self._send_pieces(sock)
        except (BlockingIOError, InterruptedError):
            pass
        if not self._chunks:
            self._forget_file()
            if self.unkept:
                self._give_back()

    def _give_back(self) -> None:
        self._budget.unkept.give_back(self.unkept)
        self.unkept = 0

    def _uncharge(self, size: int) -> None:
        self._charged -= size
        self._budget.memory.give_back(size)

    def _send_range(self, sock: Sock, piece: FileRange) -> int:
        count = piece.send(sock, _TURN) if piece.count else 0
        self.size -= count
        if not piece.count:
            self._let_go_of(piece)
        return count

    def _let_go_of(self, piece: FileRange) -> None:
        """The first of what waits is sent."""
        del self._chunks[0]
        if piece.release is not None:
            self.released.append(piece.release)

    def _send_framed(self, sock: Sock, piece: FramedRange) -> int:
        if piece.is_over:
            piece.request.ended = True  # before its end is sent: then the number may come again
            self._uncount(piece.count)
            self._let_go_of(piece)
            return 0
        try:
            count = piece.send_framed(sock)
        except FileTooShort:
            self.released.append(piece.cut)
            raise
        self._uncount(count)
        return count

    def _uncount(self, count: int) -> None:
        """So many bytes of framed files wait no more."""
        self.size -= count
        self._framed -= count

    def end_file(self, stream: int) -> None:
        """Nobody wants the rest of what answers request ``stream`` with a file."""
        for chunk in self._chunks:
            if type(chunk) is FramedRange and chunk.request.stream == stream:
                chunk.request.aborted = True

    @property
    def waiting(self) -> int:
        """Bytes that wait, without those of files that stand before others' answers."""
        return self.size - self._framed

    def _send_pieces(self, sock: Sock) -> int:
        pieces: list[memoryview] = []
        for chunk in self._chunks[:_BATCH]:
            if not isinstance(chunk, memoryview):
                break
            pieces.append(chunk)
        sent = left = sock.sendmsg(pieces)
        self.size -= sent
        self._memory -= sent
        if self._charged:
            self._uncharge(min(sent, self._charged))
        done = 0
        while done < len(pieces) and left >= len(pieces[done]):
            left -= len(pieces[done])
            done += 1
        if left:
            self._chunks[done] = _trimmed(pieces[done][left:])
        del self._chunks[:done]
        return sent

    def clear(self) -> None:
        """Drop everything."""
        if not self.size and self._file is None:
            return
        self.released += [
            chunk.release
            for chunk in self._chunks
            if isinstance(chunk, FileRange) and chunk.release is not None
        ]
        self._chunks.clear()
        self.size = self._framed = self._memory = 0
        self._forget_file()
        if self._charged:
            self._uncharge(self._charged)
        if self.unkept:
            self._give_back()

    def _leave_file(self) -> None:
        """Have the file closed when its last range is sent."""
        if self._file is not None and self._last is not None and self._last.count:
            self._last.release = partial(self._close, self._file, self._file_size)
            self._file = self._last = None
        self._forget_file()

    def _forget_file(self) -> None:
        if self._file is not None:
            self._close(self._file, self._file_size)
            self._file = self._last = None
        self._file_size = 0

    def _close(self, file: IO[bytes], size: int) -> None:
        with suppress(OSError):
            file.close()
        self._budget.disk.give_back(size)


class _Nothing(Output):
    """The queue of everybody who has none; nothing gets in."""

    __slots__ = ()

    def append(self, data: bytes | memoryview) -> None:
        raise TypeError("this queue is nobody's")

    def append_file(self, piece: FileRange) -> None:
        raise TypeError("this queue is nobody's")


NOTHING_WAITS: Final[Output] = _Nothing(0, None, Budget(0, 0))
