"""Time in which a process stood still: it was stopped, or its container was paused.

Clocks went on meanwhile, so that every deadline seems to have passed at once.
"""

from __future__ import annotations

from time import monotonic, process_time

#: A loop that looks about once a second, and did not for so long, stood still; seconds.
STOOD_STILL = 3.0
#: And then it has used no more of the processor than this part of the time.
_IDLE = 0.1


class Stillness:
    """Notices it in a thread that looks again and again."""

    def __init__(self) -> None:
        self._due = monotonic()
        self._used = process_time()

    def expect(self, pause: float) -> None:
        """The next look is meant to be in so many seconds."""
        self._due = monotonic() + pause
        self._used = process_time()

    def lost(self, now: float) -> float:
        """Seconds by which this look is late because nothing in the process ran; else 0.0.

        What keeps the interpreter for itself makes it late too, but uses the processor.
        """
        late = now - self._due
        if late < STOOD_STILL or process_time() - self._used > late * _IDLE:
            return 0.0
        return late
