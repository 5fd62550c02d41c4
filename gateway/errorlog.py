"""The error log: one logger, one file, reopened on request."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from logging.handlers import WatchedFileHandler
from time import monotonic
from types import FrameType
from typing import Any

_FORMAT = "%(asctime)s [%(process)d] [%(levelname)s] %(message)s"
_DATE_FORMAT = "[%Y-%m-%d %H:%M:%S %z]"

#: Seconds between two lines of a kind that a peer can cause at will.
_PAUSE = 1.0

#: Where the server calls the application.
_OURS = os.path.dirname(__file__) + os.sep
_CALLS = ("_call", "in_application", "_send_pieces")

#: The descriptor for crashes, once there is one; and files whose descriptor was taken away.
_CRASHES: list[int] = []
_LOST: list[Any] = []


class _OneLine(logging.Formatter):
    """Control characters in a message are escaped: a peer must not write log lines.

    The lines of a traceback are indented for the same reason: its last line may
    repeat what a peer sent.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return _escaped(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - logging's name
        return _indented(stack_info)


def _indented(text: str) -> str:
    return "\n".join("  " + _escaped(line) for line in text.split("\n"))


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char == "\t" else char.encode("unicode_escape").decode()
        for char in text
    )


class _LogFile(WatchedFileHandler):
    """A file that may be moved, and whose folder may vanish, without ending anything."""

    def __init__(self, path: str, own: Callable[[str], None] | None) -> None:
        self._own = own
        super().__init__(path, encoding="utf-8", errors="backslashreplace")

    def _open(self) -> Any:
        stream = super()._open()
        if self._own is not None:
            self._own(self.baseFilename)
        return stream

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            super().emit(record)

    def reopenIfNeeded(self) -> None:  # noqa: N802 - logging's name
        with suppress(OSError):
            super().reopenIfNeeded()
            if self.stream is None:
                self.stream = self._open()


class Sparing:
    """Lines of one kind: one a second at most, and how many were left out in the next."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._next = 0.0
        self._unsaid = 0

    def warn(self, text: str, *values: object) -> None:
        now = monotonic()
        if now < self._next:
            self._unsaid += 1
            return
        more = f" (and {self._unsaid} others since the last such line)" if self._unsaid else ""
        self._log.warning(text + "%s", *values, more)
        self._next = now + _PAUSE
        self._unsaid = 0


def open_error_log(
    path: str, level: str, own: Callable[[str], None] | None = None
) -> logging.Logger:
    """The logger ``gateway.error`` on a file, or on standard error for ``-``.

    ``own`` is called with the path whenever the file was opened, to say whose it
    is.  Raises OSError.
    """
    # Not one of logging's tree: an application that configures logging anew
    # (dictConfig) would switch it off.
    log = logging.Logger("gateway.error")  # noqa: LOG001
    handler: logging.Handler = (
        logging.StreamHandler(sys.stderr) if path == "-" else _LogFile(path, own)
    )
    handler.setFormatter(_OneLine(_FORMAT, _DATE_FORMAT))
    log.handlers[:] = [handler]
    log.setLevel(level.upper())
    logging.raiseExceptions = False  # a full disk must not end a request
    return log


def reopen(log: logging.Logger) -> None:
    """Write to a new file if the old one was moved away."""
    for handler in log.handlers:
        if isinstance(handler, _LogFile):
            handler.acquire()
            try:
                handler.reopenIfNeeded()
            finally:
                handler.release()


def renew(log: logging.Logger) -> None:
    """Open the file again though it is where it was: its descriptor is not ours any more."""
    for handler in log.handlers:
        if isinstance(handler, _LogFile):
            assert handler.lock is not None
            with handler.lock, suppress(OSError):
                _LOST.append(handler.stream)  # closing it would close what has its number now
                handler.stream = handler._open()  # noqa: SLF001


def log_stack(log: logging.Logger, level: int, text: str, frame: FrameType | None) -> None:
    """Log a line, and under it the stack of another thread."""
    if log.isEnabledFor(level):
        record = log.makeRecord(log.name, level, "", 0, text, (), None)
        if frame is not None:
            record.stack_info = _stack(frame)
        log.handle(record)


def _stack(frame: FrameType) -> str:
    """As a traceback shows it, from where the server calls the application."""
    frames = traceback.extract_stack(frame)
    calls = [
        number
        for number, item in enumerate(frames)
        if item.name in _CALLS and item.filename.startswith(_OURS)
    ]
    inner = frames[calls[-1] :] if calls else frames
    return "".join(traceback.format_list(inner)).rstrip()


def show_crashes(log: logging.Logger) -> None:
    """Have SIGABRT, SIGSEGV and their like write all stacks to the error log.

    On a descriptor of its own, which nobody closes for another to reuse.
    """
    handler = log.handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    try:
        number = handler.stream.fileno()
        if _CRASHES:
            os.dup2(number, _CRASHES[0], inheritable=False)
        else:
            _CRASHES.append(os.dup(number))
        faulthandler.enable(_CRASHES[0], all_threads=True)
    except (AttributeError, OSError, ValueError, RuntimeError):
        return  # there is no file behind the log, or it cannot be had now


class ErrorStream:
    """``wsgi.errors``: what the application writes goes to the error log as it is."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log

    def write(self, text: str) -> int:
        handler = self._log.handlers[0]
        assert isinstance(handler, logging.StreamHandler)
        assert handler.lock is not None
        # As for the log itself: a full disk must not end a request.  The lock by
        # ``with``: an interruption of the application may come at any instruction.
        with handler.lock, suppress(OSError, UnicodeError, ValueError):
            if handler.stream is None and isinstance(handler, _LogFile):
                handler.reopenIfNeeded()  # an application's dictConfig closed it
            if handler.stream is not None:
                handler.stream.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._log.handlers[0].flush()
