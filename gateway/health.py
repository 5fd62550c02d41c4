"""When a worker is to be replaced though it serves: age, memory, silence."""

from __future__ import annotations

import logging
import os
import signal
from contextlib import suppress
from time import monotonic

from gateway.child import Child

_PAGE = os.sysconf("SC_PAGE_SIZE")
_MIB = 1 << 20

#: How often memory is looked at, seconds.
_EVERY = 1.0

#: How long an aborted worker has to write its stacks, seconds.
_LAST_WORDS = 5.0


class Health:
    """Looks at workers from outside."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._looked = 0.0

    def review(self, workers: list[Child], now: float) -> None:
        """Mark the workers that are to be replaced."""
        if now - self._looked < _EVERY:
            return
        self._looked = now
        for child in workers:
            if child.ready and child.board is not None:
                reason = self._fault(child, now)
                if reason and not child.worn:
                    child.worn = reason
                    self._log.info("worker %d is to be replaced: %s", child.pid, reason)

    def _fault(self, child: Child, now: float) -> str:
        settings = child.generation.settings
        if self.is_silent(child, now):
            if not child.silent:
                self._log.error(
                    "worker %d gave no sign of life for worker_timeout (%g s)",
                    child.pid,
                    settings.worker_timeout,
                )
            child.silent = True
            return "it gives no sign of life"
        age = now - child.ready_at
        if 0 < settings.max_worker_lifetime < age:
            return f"max_worker_lifetime reached: {age:.0f} s"
        if settings.max_worker_rss:
            size = _resident(child.pid) // _MIB
            if size > settings.max_worker_rss:
                return f"max_worker_rss exceeded: {size} MiB"
        return ""

    def is_silent(self, child: Child, now: float) -> bool:
        """Whether it has given no sign of life for ``worker_timeout``."""
        limit = child.generation.settings.worker_timeout
        assert child.board is not None
        alive = max(child.board.beat, child.ready_at, child.excused)
        return bool(limit) and now - alive > limit

    def abort(self, child: Child) -> None:
        """Have it write the stacks of its threads and die; SIGKILL follows if it does not."""
        child.deadline = monotonic() + _LAST_WORDS
        self._log.error("worker %d is aborted; the stacks of its threads follow", child.pid)
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGABRT)


def _resident(pid: int) -> int:
    """Bytes of resident memory; 0 where the system does not tell (proc(5))."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0
