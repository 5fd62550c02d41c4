"""Request bodies: gathered before the application runs, in memory or in a temporary file.

So no thread ever waits for a slow upload, and ``wsgi.input`` has a true end of
file for every method.
"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from io import SEEK_END, BytesIO
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from gateway.pace import Pace
from protocols.model import Body, Data, Request

if TYPE_CHECKING:
    from gateway.settings import Settings

#: Pieces of a body that are kept as they came.
_MOST_PIECES = 64


class Spool:
    """One body while it arrives; beyond ``limit`` bytes it goes to a file in ``folder``.

    In memory it stays as the pieces that came, which are joined once; a file that
    grows would be copied again and again.  Many small pieces do become a file.
    """

    __slots__ = ("_file", "_folder", "_limit", "_pieces", "size")

    def __init__(self, limit: int, folder: str | None) -> None:
        self._limit = limit
        self._folder = folder
        self._pieces: list[bytes] = []
        self._file: BinaryIO | IO[bytes] | None = None
        self.size = 0

    def write(self, data: bytes) -> None:
        """Append.  Raises OSError if the disk is full."""
        size = self.size + len(data)
        if size > self._limit >= self.size:
            file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - handed to the application
            file.write(self._taken())
            self._file = file
        elif self._file is None and len(self._pieces) >= _MOST_PIECES:
            self._file = BytesIO(self._taken())
            self._file.seek(0, SEEK_END)
        if self._file is None:
            self._pieces.append(data)
        else:
            self._file.write(data)
        self.size = size

    def _taken(self) -> bytes:
        """What is in memory, which is then no more in here."""
        if self._file is not None:  # in memory up to here
            self._file.seek(0)
            return self._file.read()
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data

    def finish(self) -> BinaryIO | IO[bytes]:
        """The whole body as a file, from its start.  Raises OSError if the disk is full."""
        if self._file is None:
            return BytesIO(self._taken())
        self._file.seek(0)
        return self._file

    def close(self) -> None:
        """Drop a body that nobody will read."""
        self._pieces.clear()
        if self._file is not None:
            with suppress(OSError):  # what is still in the file's buffer finds a full disk
                self._file.close()


class Intake:
    """A request whose body, and data of the Filter role, still arrive."""

    __slots__ = ("_body", "_data", "_pace", "_settings", "request")

    def __init__(self, request: Request, settings: Settings, now: float) -> None:
        self.request = request
        self._settings = settings
        self._pace = Pace(0, now)
        self._body = self._spool()
        self._data: Spool | None = None

    def _spool(self) -> Spool:
        return Spool(self._settings.body_buffer_size, self._settings.body_spool_dir)

    @property
    def size(self) -> int:
        """Bytes of the body so far."""
        return self._body.size

    @property
    def arrived(self) -> int:
        """Bytes of body and data so far."""
        return self._body.size + (0 if self._data is None else self._data.size)

    def lags(self, now: float) -> bool:
        """Whether it arrives too slowly."""
        settings = self._settings
        return self._pace.lags(
            self.arrived, now, settings.client_body_timeout, settings.client_body_min_rate
        )

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

    def finish(self) -> BinaryIO | IO[bytes]:
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
