"""What is said of a child that has ended, and of the requests that ended with it."""

from __future__ import annotations

import logging
import signal
from time import monotonic

from gateway.accesslog import AccessLog
from gateway.child import Child


def bury(
    child: Child,
    code: int | None,
    *,
    expected: bool,
    log: logging.Logger,
    access: AccessLog | None,
) -> None:
    """Log how a child ended; name the requests that a worker was serving.

    ``code`` is as of ``os.waitstatus_to_exitcode``; None if nobody knows.
    """
    kind = "template" if child.is_template else "worker"
    if expected:
        level = logging.ERROR if code else logging.INFO
        log.log(level, "%s %d left%s", kind, child.pid, how(code))
    elif child.ready:
        log.error("%s %d died%s", kind, child.pid, how(code))
    else:
        child.failure = child.failure or f"it ended{how(code)}"
        for line in child.failure.rstrip().splitlines():
            log.error("%s %d cannot start: %s", kind, child.pid, line)
    if code != 0:
        _name_lost(child, how(code), log, access)
    if child.board is not None:
        child.board.close()


def _name_lost(child: Child, reason: str, log: logging.Logger, access: AccessLog | None) -> None:
    if child.board is None:
        return
    now = monotonic()
    for lost in child.board.lost(now):
        log.error(
            "[%d-%d] %s %s from %s: lost after %.3f s, worker %d died%s",
            child.pid,
            lost.serial,
            lost.method,
            lost.uri,
            lost.peer,
            lost.age,
            child.pid,
            reason,
        )
        if access is not None:
            access.log_lost(lost, child.pid, now)


def how(code: int | None) -> str:
    """How a process ended, as the end of a sentence."""
    if code is None:
        return ""
    if code < 0:
        try:
            return f" by signal {signal.Signals(-code).name}"
        except ValueError:  # a real-time signal has no name
            return f" by signal {-code}"
    return f" with exit code {code}" if code else ""
