"""The error log: one logger, one file, reopened on request."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from logging.handlers import WatchedFileHandler

_FORMAT = "%(asctime)s [%(process)d] [%(levelname)s] %(message)s"
_DATE_FORMAT = "[%Y-%m-%d %H:%M:%S %z]"


class _OneLine(logging.Formatter):
    """Control characters in a message are escaped: a peer must not write log lines."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        text = super().formatMessage(record)
        if text.isprintable():
            return text
        return "".join(
            char if char.isprintable() or char == "\t" else char.encode("unicode_escape").decode()
            for char in text
        )


def open_error_log(path: str, level: str) -> logging.Logger:
    """The logger ``gateway.error`` on a file, or on standard error for ``-``.

    Raises OSError.
    """
    log = logging.getLogger("gateway.error")
    handler: logging.Handler = (
        logging.StreamHandler(sys.stderr)
        if path == "-"
        else WatchedFileHandler(path, encoding="utf-8", errors="backslashreplace")
    )
    handler.setFormatter(_OneLine(_FORMAT, _DATE_FORMAT))
    log.handlers[:] = [handler]
    log.setLevel(level.upper())
    log.propagate = False
    logging.raiseExceptions = False  # a full disk must not end a request
    return log


def reopen(log: logging.Logger) -> None:
    """Write to a new file if the old one was moved away."""
    for handler in log.handlers:
        if isinstance(handler, WatchedFileHandler):
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
        self._log.handlers[0].flush()
