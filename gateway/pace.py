"""How fast bytes move: whether a peer still does its part, judged over whole periods."""

from __future__ import annotations


class Pace:
    """One direction of a connection while bytes are due.

    ``level`` counts what has moved so far and never falls; times are monotonic, in seconds.
    """

    __slots__ = ("_begun", "_level", "_moved", "_start")

    def __init__(self, level: int, now: float) -> None:
        self._begun = self._moved = now
        self._start = self._level = level

    def lags(self, level: int, now: float, patience: float, rate: int) -> bool:
        """Whether nothing moved for ``patience`` seconds, or too little in a period of them.

        Too little is less than ``rate`` bytes a second on average.  A period is no
        credit for the next: who was fast once must not be slow for ever.
        """
        if level > self._level:
            self._level = level
            self._moved = now
        if now - self._moved > patience:
            return True
        if now - self._begun <= patience:
            return False
        if self.is_below(now, rate):
            return True
        self._begun = now
        self._start = level
        return False

    def is_below(self, now: float, rate: int, least: float = 0.0) -> bool:
        """Whether less than ``rate`` bytes a second moved in a period ``least`` seconds old."""
        elapsed = now - self._begun
        return elapsed >= least and self._level - self._start < rate * elapsed

    @property
    def has_moved(self) -> bool:
        """Whether anything moved in this period."""
        return self._level > self._start

    def rests(self, now: float) -> float:
        """For how many seconds nothing has moved, as far as was looked."""
        return now - self._moved
