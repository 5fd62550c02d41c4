"""How a worker is reached from outside of its loop: by signals, and by its own threads.

A signal is obeyed at once if the main thread is in Python, and read once more
from the wake-up pair, by the loop or, while that is away, by the watchdog.  To
be told twice changes nothing.
"""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from gateway.errorlog import reopen, show_crashes

if TYPE_CHECKING:
    from gateway.worker import Worker

#: How long an idle connection may stay when the whole service stops, seconds.
_IDLE_AT_STOP = 1.0


class Orders:
    """What a worker is told."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._manager_is_gone = False
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._inode = os.fstat(self._reader.fileno()).st_ino

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self._reader.fileno()

    @property
    def numbers(self) -> list[int]:
        """Its descriptors."""
        return [self._reader.fileno(), self._writer.fileno()]

    def are_open(self) -> bool:
        """Whether its descriptors are still what they were."""
        try:
            return os.fstat(self._reader.fileno()).st_ino == self._inode
        except OSError:
            return False

    def wake(self) -> None:
        """End the loop's wait; from any thread."""
        with suppress(OSError):  # full: it is awake already
            self._writer.send(b"\0")

    def take_signals(self) -> None:
        """Replace the manager's handlers; before that, signals are blocked."""
        signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for name in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR2):
            signal.signal(name, self._on_signal)
        signal.signal(signal.SIGUSR1, _on_usr1)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for name in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGWINCH, signal.SIGPIPE):
            signal.signal(name, signal.SIG_IGN)

    def is_own_handler(self, handler: object) -> bool:
        """Whether a signal's handler is one of those that ``take_signals`` has set."""
        return handler in (self._on_signal, _on_usr1, signal.SIG_IGN)

    def read(self) -> None:
        """Obey what has come, and end the wake-up."""
        try:
            numbers = self._reader.recv(4096)
        except (BlockingIOError, InterruptedError):
            return
        for number in dict.fromkeys(numbers):
            self._obey(number)
            if number == signal.SIGUSR1:
                self._reopen_logs()

    def _on_signal(self, number: int, _frame: object) -> None:
        self._obey(number)

    def _obey(self, number: int) -> None:
        if number == signal.SIGTERM:
            self._retire(stopping=True)
        elif number == signal.SIGUSR2:  # the manager's word that a successor is ready
            self._retire(stopping=False)
        elif number in (signal.SIGINT, signal.SIGQUIT):
            self._worker.stop_now = True

    def _retire(self, *, stopping: bool) -> None:
        """Answer what there is and leave.

        When the service goes on in other workers, a kept connection may wait
        for its last answer as long as ``graceful_timeout`` lets it.
        """
        worker = self._worker
        if worker.stopping:
            return
        now = monotonic()
        worker.deadline = worker.deadline or now + worker.settings.graceful_timeout
        worker.stopping = stopping
        worker.idle_until = now + _IDLE_AT_STOP if stopping else worker.deadline
        worker.retiring = True  # last: threads read the others once they see it

    def _reopen_logs(self) -> None:
        worker = self._worker
        reopen(worker.log)
        show_crashes(worker.log)
        if worker.access is not None:
            try:
                worker.access.reopen()
            except OSError as error:
                worker.log.error("the access log cannot be reopened: %s", error)

    def manager_is_gone(self) -> None:
        """Nobody would replace this worker or speak to it: finish and leave."""
        if not self._manager_is_gone:
            self._manager_is_gone = True
            self._worker.log.warning("the manager is gone: leaving")
            self._retire(stopping=True)
            self.wake()


def _on_usr1(_number: int, _frame: object) -> None:
    """Files are not opened in the middle of something else; ``read`` does it."""
