"""``wsgi.file_wrapper`` (PEP 3333): a file that the kernel can send."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from io import BufferedRandom, BufferedReader, FileIO
from tempfile import _TemporaryFileWrapper
from typing import Any

from gateway.filerange import FileRange
from protocols.model import UNKNOWN

_BLOCK_SIZE = 1 << 18


class FileWrapper:
    """``wsgi.file_wrapper``: sent with sendfile where that is possible."""

    def __init__(self, filelike: Any, block_size: int = _BLOCK_SIZE) -> None:
        self.filelike = filelike
        self.block_size = block_size
        self.left = UNKNOWN
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        data: bytes = self.filelike.read(self.block_size) if self.left else b""
        if self.left != UNKNOWN:
            data = data[: self.left]
            self.left -= len(data)
        if not data:
            raise StopIteration
        return data

    def file_range(self) -> FileRange | None:
        """What is left of a regular file, or None if it is none.

        Only Python's own binary files: others may have a descriptor too, but
        what they read is not what it holds (gzip).
        """
        file = self.filelike
        if type(file) is _TemporaryFileWrapper:
            file = file.file
        raw = file.raw if type(file) in (BufferedReader, BufferedRandom) else file
        if type(raw) is not FileIO:
            return None
        try:
            number = file.fileno()
            info = os.fstat(number)
            if not stat.S_ISREG(info.st_mode):
                return None
            offset = file.tell()
        except (AttributeError, OSError, ValueError):
            return None
        return FileRange(number, offset, max(0, info.st_size - offset))
