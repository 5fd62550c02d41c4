"""What one worker keeps for all of its peers together, in memory and in temporary files."""

from __future__ import annotations

import sys
from errno import ENOSPC
from io import BufferedRandom, BytesIO, FileIO
from threading import RLock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.settings import Settings

#: What is read at once of what goes on to a file.
_SCRATCH = 1 << 18

#: What is kept in memory, beyond its part of it, of what the disk does not take.
_MOST_UNKEPT = 64 << 20


class SpoolFull(OSError):
    """Temporary files have all that ``worker_spool_size`` lets them have."""

    def __init__(self) -> None:
        super().__init__(ENOSPC, "worker_spool_size is used up")


class NotKept(OSError):
    """Neither the disk nor memory takes what waits."""


class Allowance:
    """Bytes that may still be kept; for any thread."""

    __slots__ = ("_lock", "left", "size")

    def __init__(self, size: int) -> None:
        self.size = self.left = size
        # What is freed in the middle of a step may give its bytes back.
        self._lock = RLock()

    def take(self, size: int) -> bool:
        """Whether there was so much."""
        with self._lock:
            if size > self.left:
                return False
            self.left -= size
            return True

    def give_back(self, size: int) -> None:
        with self._lock:
            self.left += size


class Budget:
    """The allowances of one worker."""

    __slots__ = ("_scratch", "disk", "memory", "unkept")

    def __init__(self, memory: int = sys.maxsize, disk: int = sys.maxsize) -> None:
        self.memory = Allowance(memory)
        self.disk = Allowance(disk)
        self.unkept = Allowance(_MOST_UNKEPT)
        self._scratch: memoryview | None = None

    @classmethod
    def of(cls, settings: Settings) -> Budget:
        return cls(settings.worker_buffer_size, settings.worker_spool_size or sys.maxsize)

    @property
    def scratch(self) -> memoryview:
        """Memory for bytes on their way to a file; the loop's alone."""
        if self._scratch is None:
            self._scratch = memoryview(bytearray(_SCRATCH))
        return self._scratch

    @property
    def is_tight(self) -> bool:
        """Whether little room is left in temporary files, or what belongs there is in memory."""
        return self.disk.left < self.disk.size // 4 or self.unkept.left < self.unkept.size

    @property
    def is_overdrawn(self) -> bool:
        """Whether much is in memory because the disk did not take it."""
        return self.unkept.left < self.unkept.size // 2

    @property
    def is_ample(self) -> bool:
        """Whether temporary files may have more than what must go there."""
        return self.disk.left > self.disk.size // 2


class Charge:
    """What one body takes of an allowance, until it is let go."""

    __slots__ = ("_allowance", "_size")

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._size = 0

    def add(self, size: int) -> bool:
        """Whether there was so much."""
        if not self._allowance.take(size):
            return False
        self._size += size
        return True

    def release(self) -> None:
        """Once or more often."""
        size, self._size = self._size, 0
        if size:
            self._allowance.give_back(size)


class KeptInMemory(BytesIO):
    """A body in memory; closing it, or forgetting it, gives its bytes back."""

    def __init__(self, data: bytes, charge: Charge) -> None:
        super().__init__(data)
        self._charge = charge

    def close(self) -> None:
        self._charge.release()
        super().close()


class KeptInFile(BufferedRandom):
    """A body in a temporary file; closing it, or forgetting it, gives its bytes back."""

    def __init__(self, raw: FileIO, charge: Charge) -> None:
        super().__init__(raw)
        self._charge = charge

    def close(self) -> None:
        self._charge.release()
        super().close()
