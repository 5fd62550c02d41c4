"""What the manager knows of one process that it started."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from gateway.hooks import Hooks
from gateway.scoreboard import Board
from gateway.settings import Settings

if TYPE_CHECKING:
    from ssl import SSLContext

_MOST_FAILURE_TEXT = 1 << 16


class Child:
    """A worker, or (without a board) the template that workers are forked from.

    It reports over ``pipe``, a line each: ``ready``, ``replace REASON``, ``pid
    N``, and ``failed`` with a text up to the end.
    """

    __slots__ = (
        "_buffer",
        "board",
        "deadline",
        "excused",
        "failure",
        "generation",
        "number",
        "pid",
        "pipe",
        "ready",
        "ready_at",
        "retiring",
        "silent",
        "started",
        "worn",
    )

    def __init__(
        self, number: int, pipe: socket.socket, generation: Generation, board: Board | None
    ) -> None:
        self.number = number
        self.pid = 0  # not known yet
        self.pipe = pipe
        self.generation = generation
        self.board = board
        self.started = monotonic()
        self.ready = False
        self.ready_at = 0.0
        self.retiring = False
        #: When it must be gone (monotonic); 0.0: it need not go.
        self.deadline = 0.0
        #: When the manager last noticed that all had stood still (monotonic).
        self.excused = 0.0
        #: Why it is to be replaced; empty: it is not.
        self.worn = ""
        #: It gave no sign of life for worker_timeout.
        self.silent = False
        #: Why it could not start, in its own words.
        self.failure: str | None = None
        self._buffer = b""

    @property
    def is_template(self) -> bool:
        """Whether it serves nothing and only forks workers."""
        return self.board is None

    @property
    def has_served(self) -> bool:
        """Whether it has begun any request."""
        return self.board is not None and self.board.requests > 0

    def close(self) -> None:
        """Let go of its pipe and its board."""
        self.pipe.close()
        if self.board is not None:
            self.board.close()

    def excuse(self, lost: float, now: float) -> None:
        """Nobody could do anything for the last ``lost`` seconds."""
        self.excused = now
        self.started += lost
        if self.deadline:
            self.deadline += lost

    def hear(self) -> bool:
        """Read what it reports; False once it has closed its end."""
        try:
            data = self.pipe.recv(65536)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        if not data:
            return False
        self._buffer += data
        while self.failure is None and b"\n" in self._buffer:
            line, _, self._buffer = self._buffer.partition(b"\n")
            self._take(line.decode("utf-8", "replace"))
        self._take_failure()
        return True

    def _take(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "ready":
            self.ready = True
            self.ready_at = monotonic()
        elif word == "replace":
            self.worn = self.worn or rest
        elif word == "pid" and rest.isdecimal():
            self.pid = int(rest)
        elif word == "failed":
            self.failure = ""

    def _take_failure(self) -> None:
        if self.failure is not None:
            text = self.failure + self._buffer.decode("utf-8", "replace")
            self.failure = text[-_MOST_FAILURE_TEXT:]
            self._buffer = b""


@dataclass
class Generation:
    """Settings and hooks of one load of the application, and its template if it has one.

    ``tls`` has the certificate and the key, read by the manager: workers may not be
    allowed to.
    """

    number: int
    settings: Settings
    hooks: Hooks
    template: Child | None = None
    tls: SSLContext | None = None
