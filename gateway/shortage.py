"""Descriptors run out: connections leave some of them to what they need."""

from __future__ import annotations

import os
import resource
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging

#: The part of the descriptors that no new connection takes: it is for files of the
#: application, temporary files and logs.
_RESERVE = 1 / 16


class Shortage:
    """Whether accepting has to wait for descriptors; said once when it begins and ends."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self.begun = False
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._limit = sys.maxsize if limit == resource.RLIM_INFINITY else limit
        #: The highest descriptor that is none of the reserve: the lowest are given first.
        self.highest = self._limit - 1 - int(self._limit * _RESERVE)

    def begin(self, reason: str) -> None:
        """Accepting waits, for this reason."""
        if not self.begun:
            self.begun = True
            self._log.error("%s", reason)

    def look_at(self, number: int) -> None:
        """A connection has this descriptor, which is above ``highest``."""
        self.begin(
            f"{number + 1} descriptors of {self._limit} (RLIMIT_NOFILE) are open: accepting waits"
        )

    def lasts(self) -> bool:
        """Whether accepting still has to wait: the next descriptor would be of the reserve."""
        if not self.begun:
            return False
        try:
            number = os.open(os.devnull, os.O_RDONLY)
        except OSError:
            return True
        os.close(number)
        if number > self.highest:
            return True
        self.begun = False
        self._log.info("there are descriptors again: accepting goes on")
        return False
