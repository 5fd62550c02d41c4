"""Request bodies: gathered before the application runs, in memory or in a temporary file.

So no thread ever waits for a slow upload, and ``wsgi.input`` has a true end of
file for every method.
"""

from __future__ import annotations

import tempfile
from io import BytesIO
from typing import IO, BinaryIO


class Spool:
    """One body while it arrives; beyond ``limit`` bytes it goes to a file in ``folder``."""

    __slots__ = ("_file", "_folder", "_limit", "size")

    def __init__(self, limit: int, folder: str | None) -> None:
        self._limit = limit
        self._folder = folder
        self._file: BinaryIO | IO[bytes] = BytesIO()
        self.size = 0

    def write(self, data: bytes) -> None:
        """Append.  Raises OSError if the disk is full."""
        size = self.size + len(data)
        if size > self._limit >= self.size:
            file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - handed to the application
            file.write(self._file.getvalue())  # type: ignore[union-attr]
            self._file = file
        self._file.write(data)
        self.size = size

    def finish(self) -> BinaryIO | IO[bytes]:
        """The whole body as a file, from its start."""
        self._file.seek(0)
        return self._file

    def close(self) -> None:
        """Drop a body that nobody will read."""
        self._file.close()
