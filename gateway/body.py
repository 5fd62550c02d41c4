"""Request bodies: gathered before the application runs, in memory or in a temporary file.

So no thread ever waits for a slow upload, and ``wsgi.input`` has a true end of
file for every method.
"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from io import BytesIO, UnsupportedOperation
from typing import TYPE_CHECKING, Any, Final

from gateway.budget import Budget, Charge, KeptInFile, KeptInMemory, SpoolFull
from gateway.pace import Pace
from protocols.model import Body, Data, Request

if TYPE_CHECKING:
    from gateway.settings import Settings


class _NoBody(BytesIO):
    """``wsgi.input`` of every request without a body: nothing to read, nothing to change."""

    #: It stays open, for others read it too: flushing does nothing, and that at once.
    close = BytesIO.flush

    def writable(self) -> bool:
        return False

    def write(self, data: Any) -> int:
        raise UnsupportedOperation("wsgi.input is for reading")

    def writelines(self, lines: Any) -> None:
        raise UnsupportedOperation("wsgi.input is for reading")

    def truncate(self, size: int | None = None) -> int:
        raise UnsupportedOperation("wsgi.input is for reading")

    def seek(self, offset: int, whence: int = 0) -> int:
        """There is nowhere to go."""
        return 0

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"wsgi.input takes no attribute {name}")


#: One for all of them, in all threads.
NO_BODY: Final = _NoBody()

#: Pieces of a body that are kept as they came.
_MOST_PIECES = 64

#: A body of known length gets memory for this many times what is there of it, but none
#: before so many bytes are: who announces much and sends nothing has nothing.
_AHEAD = 16
_EARNEST = 4096

_NO_ROOM: Final = memoryview(b"")


class Spool:
    """One body while it arrives.

    Beyond ``limit`` bytes, or what ``budget`` has in memory, it goes to a file in
    ``folder``.  In memory it stays as the pieces that came, which are joined once; a
    buffer that grows would be copied again and again.  Many small pieces do become one.

    Where the length is known and enough has come, the rest may be put straight where it
    stays: ``room`` says where, ``fill`` that it is there.
    """

    __slots__ = (
        "_budget",
        "_charge",
        "_file",
        "_folder",
        "_joined",
        "_limit",
        "_memory",
        "_pieces",
        "_view",
        "size",
    )

    def __init__(self, limit: int, folder: str | None, budget: Budget) -> None:
        self._limit = limit
        self._folder = folder
        self._budget = budget
        self._charge = Charge(budget.memory)
        self._joined = bytearray()
        self._pieces: list[bytes] = []
        #: In place of pieces: memory that is filled from outside, and the way to it.
        self._memory: BytesIO | None = None
        self._view = _NO_ROOM
        self._file: KeptInFile | None = None
        self.size = 0

    def takes_room(self, length: int) -> bool:
        """Whether the rest of a body of ``length`` bytes is better put where ``room`` says."""
        if self._file is None:
            return length <= self._limit and self.size >= _EARNEST
        return True

    def room(self, length: int) -> memoryview:
        """Where the next bytes of a body of ``length`` may be put; ``fill`` takes them."""
        if self.size >= len(self._view) and not self._grow(length):
            return self._budget.scratch[: length - self.size]
        return self._view[self.size :]

    def fill(self, count: int) -> None:
        """Take what was put there.  Raises OSError as ``write`` does."""
        if self.size < len(self._view):
            self.size += count
        else:
            self.write(self._budget.scratch[:count])

    def _grow(self, length: int) -> bool:
        """Have memory for what is to come; False if that does not stay in memory."""
        if self._file is not None or length > self._limit:
            return False
        capacity = length
        if _AHEAD * self.size < length:  # what is copied again must be little of the whole
            capacity = min(_AHEAD * self.size, -(-length // _AHEAD))
        if not self._charge.add(capacity - self.size):
            return False
        memory = BytesIO(bytes(capacity))
        view = memory.getbuffer()
        view[: self.size] = self._taken()
        self._memory, self._view = memory, view
        return True

    def write(self, data: bytes | memoryview) -> None:
        """Append.  Raises OSError if the disk, or its part of the budget, is full."""
        if self._memory is not None:
            self._pieces.append(self._taken())
        if self._file is None and not self._fits(len(data)):
            self._file = self._move_to_file()
        if self._file is None:
            self._append_to_memory(data)
        else:
            self._append_to_file(self._file, data)
        self.size += len(data)

    def _fits(self, size: int) -> bool:
        return self.size + size <= self._limit and self._charge.add(size)

    def _append_to_memory(self, data: bytes | memoryview) -> None:
        if len(self._pieces) >= _MOST_PIECES:
            self._joined += b"".join(self._pieces)
            self._pieces.clear()
        self._pieces.append(bytes(data))

    def _append_to_file(self, file: KeptInFile, data: bytes | memoryview) -> None:
        if not self._charge.add(len(data)):
            raise SpoolFull
        file.write(data)

    def _move_to_file(self) -> KeptInFile:
        """What is in memory goes to a file, at the expense of the disk."""
        data = self._taken()
        self._charge.release()
        self._charge = Charge(self._budget.disk)
        raw = tempfile.TemporaryFile(buffering=0, dir=self._folder)  # noqa: SIM115 - handed over
        file = KeptInFile(raw, self._charge)
        self._append_to_file(file, data)
        return file

    def _taken(self) -> bytes:
        """What is in memory, which is then no more in here."""
        if self._memory is not None:
            self._view = _NO_ROOM
            memory, self._memory = self._memory, None
            return memory.getvalue()[: self.size]
        data = b"".join(self._pieces)
        self._pieces.clear()
        if self._joined:
            data = bytes(self._joined + data)
            self._joined.clear()
        return data

    def finish(self) -> KeptInMemory | KeptInFile:
        """The whole body as a file, from its start.  Raises OSError if the disk is full."""
        if self._file is None:
            return KeptInMemory(self._taken(), self._charge)
        self._file.seek(0)
        return self._file

    def close(self) -> None:
        """Drop a body that nobody will read."""
        self._pieces.clear()
        self._joined.clear()
        self._view = _NO_ROOM
        self._memory = None
        self._charge.release()
        if self._file is not None:
            with suppress(OSError):  # what is still in the file's buffer finds a full disk
                self._file.close()


class Intake:
    """A request whose body, and data of the Filter role, still arrive."""

    __slots__ = ("_body", "_budget", "_data", "_pace", "_settings", "request")

    def __init__(self, request: Request, settings: Settings, budget: Budget, now: float) -> None:
        self.request = request
        self._settings = settings
        self._budget = budget
        self._pace = Pace(0, now)
        self._body = self._spool()
        self._data: Spool | None = None

    def _spool(self) -> Spool:
        settings = self._settings
        return Spool(settings.body_buffer_size, settings.body_spool_dir, self._budget)

    @property
    def size(self) -> int:
        """Bytes of the body so far."""
        return self._body.size

    @property
    def arrived(self) -> int:
        """Bytes of body and data so far."""
        return self._body.size + (0 if self._data is None else self._data.size)

    def lags(self, now: float, patience: float) -> bool:
        """Whether it arrives too slowly; ``patience`` may be shorter than the setting."""
        settings = self._settings
        patience = min(patience, settings.client_body_timeout)
        return self._pace.lags(self.arrived, now, patience, settings.client_body_min_rate)

    def excuse(self, now: float) -> None:
        """It was not for the peer to send: judge it anew."""
        self._pace = Pace(self.arrived, now)

    def take(self, event: Body) -> bool:
        """Take a piece; True if it was the last.  Raises OSError if the disk is full."""
        if type(event) is Data:
            if self._data is None:
                self._data = self._spool()
            self._data.write(event.data)
        else:
            self._body.write(event.data)
        return not event.more

    def takes_room(self) -> bool:
        """Whether what comes next is better put where ``room`` says; see ``Spool``."""
        return self._body.takes_room(self.request.length)

    def room(self) -> memoryview:
        """Where to put the next bytes of a body whose length is known."""
        return self._body.room(self.request.length)

    def fill(self, count: int) -> None:
        """Take what was put there.  Raises OSError if the disk is full."""
        self._body.fill(count)

    def finish(self) -> KeptInMemory | KeptInFile:
        """The body; a Filter's data goes into the environ.  Raises OSError if the disk is full."""
        if self._data is not None:
            environ: dict[str, Any] = self.request.environ
            environ["gateway.fastcgi_data"] = self._data.finish()
        return self._body.finish()

    def close(self) -> None:
        """Drop what nobody will read."""
        self._body.close()
        if self._data is not None:
            self._data.close()
