"""How many workers there should be (PHP-FPM's static, dynamic and ondemand)."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.child import Child
from gateway.settings import Settings

#: How long requests wait in every worker before another is started, and how
#: often that is looked at, seconds.
PRESSURE = 0.1

#: Workers started at once at most, however long requests have been waiting.
_MOST_AT_ONCE = 32

#: Idle workers leave one by one, this far apart, seconds.
_SHRINK_EVERY = 1.0


class Scaling:
    """Between ``least`` and ``most`` workers, ``wanted`` at the moment."""

    def __init__(self, settings: Settings) -> None:
        grows = settings.process_manager != "static"
        self.least = 0 if settings.process_manager == "ondemand" else settings.workers
        self.most = max(settings.workers, settings.workers_max) if grows else settings.workers
        self.wanted = self.least
        self.idle_timeout = settings.worker_idle_timeout
        self.resting = False
        self._step = 1
        self._looked = 0.0
        self._shrank = 0.0

    @property
    def varies(self) -> bool:
        """Whether the number follows the load."""
        return self.least < self.most

    def resize(self, step: int) -> None:
        """TTIN and TTOU: one more or one less, whatever the load."""
        if self.varies:
            self.most = max(1, self.least, self.most + step)
            self.wanted = min(self.wanted, self.most)
        else:
            self.least = self.most = self.wanted = max(1, self.wanted + step)

    def carry_over(self, other: Scaling) -> None:
        """After a reload: as many as the load needed before, within the new bounds."""
        if self.varies and not other.resting:
            self.wanted = max(self.least, min(other.wanted, self.most))

    def review(self, now: float, workers: Sequence[Child], *, knock: bool) -> Child | None:
        """Change ``wanted`` as the load asks for; the worker that may leave, if one may.

        ``knock``: a connection waits and there is no worker.
        """
        if not self.varies or self.resting or now - self._looked < PRESSURE:
            return None
        self._looked = now
        serving = [child for child in workers if child.ready and not child.retiring]
        if len(serving) < self.wanted:
            return None  # those that start may be enough
        if knock and not workers:
            self.wanted = max(1, self.wanted)
        elif serving and all(_is_pressed(child, now) for child in serving):
            self.wanted = min(self.most, self.wanted + self._step)
            self._step = min(self._step * 2, _MOST_AT_ONCE)
        else:
            self._step = 1
            return self._surplus(now, serving)
        return None

    def _surplus(self, now: float, serving: list[Child]) -> Child | None:
        if self.wanted <= self.least or now - self._shrank < _SHRINK_EVERY:
            return None
        idle = [child for child in serving if _idle(child, now) > self.idle_timeout]
        if not idle:
            return None
        self._shrank = now
        self.wanted -= 1
        return max(idle, key=lambda child: _idle(child, now))


def _is_pressed(child: Child, now: float) -> bool:
    since = child.board.busy_since if child.board is not None else 0.0
    return since > 0.0 and now - since >= PRESSURE


def _idle(child: Child, now: float) -> float:
    """Seconds without a request."""
    if child.board is None or child.board.busy:
        return 0.0
    return now - max(child.board.last_active, child.ready_at)
