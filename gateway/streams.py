"""Pieces of answers that come fast: put together, and never left waiting.

PEP 3333 wants a block to be on its way before the application is asked for the next
one, or that it goes on its way while the application is at work.  Here a thread sees
to that: what a channel holds back it sends, a moment later, whatever the application does.
"""

from __future__ import annotations

import threading
from time import sleep
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from logging import Logger

    from gateway.channel import Channel

#: How long a piece is held back at most, seconds; beyond that the thread has to get
#: the interpreter's lock.
_PAUSE: Final = 0.001


class Streams:
    """The channels of a worker that hold something back."""

    def __init__(self, log: Logger) -> None:
        self.log = log
        self._lock = threading.Lock()
        self._wanted = threading.Lock()
        self._wanted.acquire()
        self._holding: list[Channel] = []
        self._thread: threading.Thread | None = None
        self._is_awake = False

    def hold(self, channel: Channel) -> bool:
        """Have ``send_pile`` of a channel called soon; False if nobody can.  From any thread."""
        with self._lock:
            if self._thread is None and not self._start():
                return False
            self._holding.append(channel)
            if not self._is_awake:
                self._is_awake = True
                self._wanted.release()
        return True

    def _start(self) -> bool:
        thread = threading.Thread(target=self._run, name="gateway-streams", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system has no more threads
            return False
        self._thread = thread
        return True

    def _run(self) -> None:
        while True:
            self._wanted.acquire()
            sleep(_PAUSE)
            with self._lock:
                holding, self._holding = self._holding, []
                self._is_awake = False
            for channel in holding:
                try:
                    channel.send_pile()
                except Exception:
                    self.log.critical("a fault of the server", exc_info=True)
