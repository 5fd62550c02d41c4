"""The error log: one logger, one file, reopened on request."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from logging.handlers import WatchedFileHandler
from typing import Any

_FORMAT = "%(asctime)s [%(process)d] [%(levelname)s] %(message)s"
_DATE_FORMAT = "[%Y-%m-%d %H:%M:%S %z]"


class _OneLine(logging.Formatter):
    """Control characters in a message are escaped: a peer must not write log lines.

    The lines of a traceback are indented for the same reason: its last line may
    repeat what a peer sent.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        return _escaped(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - logging's name
        lines = super().formatException(ei).split("\n")
        return "\n".join("  " + _escaped(line) for line in lines)


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


class ErrorStream:
    """``wsgi.errors``: what the application writes goes to the error log as it is."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log

    def write(self, text: str) -> int:
        handler = self._log.handlers[0]
        assert isinstance(handler, logging.StreamHandler)
        handler.acquire()
        try:
            if handler.stream is None and isinstance(handler, _LogFile):
                handler.reopenIfNeeded()  # an application's dictConfig closed it
            if handler.stream is not None:
                handler.stream.write(text)
        except (OSError, UnicodeError, ValueError):
            pass  # as for the log itself: a full disk must not end a request
        finally:
            handler.release()
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._log.handlers[0].flush()
