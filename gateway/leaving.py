"""The end of a worker: what it could not answer is named, then it is gone."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from protocols.model import Request

if TYPE_CHECKING:
    from gateway.connection import Connection
    from gateway.worker import Worker
    from gateway.wsgi import Exchange

#: How long the application's exit functions may take in a worker that is made
#: to leave, seconds.
_LAST_WORDS = 0.5


def leave(worker: Worker, *, name: bool = True) -> None:
    """Name what is left, and run what the application registered.

    ``os._exit`` follows: a thread that the application left behind must not
    keep a worker that has nothing more to do.
    """
    if not worker.leaving.acquire(blocking=False):
        return  # another thread is at it
    with worker.giving_up:
        pass  # its client has gone, but the log does not have it yet
    if name:
        name_unanswered(worker)
    _say_goodbye(worker)


def force_out(worker: Worker) -> None:
    """Leave from another thread than the loop's; does not return."""
    try:
        if worker.leaving.acquire(blocking=False):
            name_unanswered(worker)
            last = threading.Thread(target=_say_goodbye, args=(worker,), daemon=True)
            last.start()
            last.join(_LAST_WORDS)
    finally:
        os._exit(0)


def name_unanswered(worker: Worker) -> None:
    """Log each request that is cut off."""
    now = monotonic()
    for seat in list(worker.seats.taken):
        exchange = seat.exchange
        if exchange is not None:
            _name_running(worker, exchange, now)
    for connection in list(worker.connections.values()):
        _name_waiting(worker, connection)


def _name_running(worker: Worker, exchange: Exchange, now: float) -> None:
    lost = exchange.as_lost(now)
    worker.log.error("%s: cut off %s, %.1f s old", exchange.title(), _why(worker), lost.age)
    if worker.access is None:
        return
    if exchange.started:
        worker.access.log_cut(exchange, lost.age)
    else:
        worker.access.log_lost(lost, os.getpid(), now)


def _name_waiting(worker: Worker, connection: Connection) -> None:
    for item in tuple(connection.pending):
        if type(item) is Request:
            _name(worker, connection, item, "before it ran")
    for intake in tuple(connection.intake.values()):
        _name(worker, connection, intake.request, "before its body had arrived")
    if connection.output.size and not connection.closed:
        worker.log.error(
            "%s: cut off %s, %d bytes of an answer were not taken",
            connection.peer,
            _why(worker),
            connection.output.size,
        )


def _name(worker: Worker, connection: Connection, request: Request, when: str) -> None:
    worker.log.error(
        "%s %s from %s: cut off %s, %s",
        request.environ.get("REQUEST_METHOD", "-"),
        request.environ.get("REQUEST_URI", "-"),
        connection.peer,
        _why(worker),
        when,
    )


def _why(worker: Worker) -> str:
    return "by a stop at once" if worker.stop_now else "after graceful_timeout"


def _say_goodbye(worker: Worker) -> None:
    try:
        worker.hooks.call("worker_exit", worker.server_view, worker.view)
    except BaseException:
        worker.log.exception("the hook worker_exit failed")
    atexit._run_exitfuncs()  # noqa: SLF001 - the only way to run them before os._exit
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    logging.shutdown()
