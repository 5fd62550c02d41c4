"""What becomes of a connection whose peer takes too long; the loop asks once a second."""

from __future__ import annotations

from functools import partial
from math import inf
from operator import attrgetter
from typing import TYPE_CHECKING

from gateway.disconnects import TakesTooLittle
from gateway.linux import unsent
from gateway.output import NOTHING_WAITS
from gateway.poller import READ

if TYPE_CHECKING:
    from gateway.connection import Connection
    from gateway.serving import Serving

#: How long a closed connection is still read between two reads, and in a worker
#: that leaves; seconds.
LINGER_READ = 5.0
LINGER_AT_END = 1.0

#: How long a peer may send or take too little when others need its place; seconds.
_HURRY = 5.0

#: While somebody waits for a connection: how long a peer may take to begin a request and
#: to finish its head, and how long a connection is kept for the next one; seconds.
_HURRY_HEAD = 1.0
_HURRY_KEPT = 5.0

#: One connection in so many is parted with at once.
_PART = 16


def due(worker: Serving, now: float) -> list[Connection]:
    """The connections at which anything may be due; in a worker that retires, all of them.

    Those that nobody has waited on for long are most, and are only looked at.
    """
    connections = worker.connections
    if worker.retiring:
        return list(connections.values())
    settings = worker.settings
    kept_since: float = now - min(settings.keepalive, settings.fastcgi_keepalive)
    begun_since: float = now - settings.client_header_timeout
    nothing = NOTHING_WAITS
    return [
        connection
        for connection in connections.values()
        if connection.since < (begun_since if connection.partial else kept_since)
        or connection.linger_until
        or connection.intake
        or (connection.output is not nothing and connection.output.size)
    ]


def sweep(connection: Connection, now: float, *, hurry: bool) -> None:
    """Apply the deadlines to one connection; in a ``hurry`` others need its place."""
    waited = now - connection.since
    if connection.linger_until:
        if now > connection.linger_until or _has_lingered(connection, waited):
            connection.close()
        return
    patience = _HURRY if hurry else inf
    if connection.output.size and connection.lags(now, patience):
        connection.worker.log.info("%s: %s", connection.peer, TakesTooLittle())
        connection.lose()
    elif connection.intake:
        _sweep_bodies(connection, now, patience)
    elif not _is_busy(connection):
        _sweep_waiting(connection, now, waited)


def _is_busy(connection: Connection) -> bool:
    """Whether requests wait, run or are answered."""
    return bool(
        connection.output.size or connection.active or connection.pending or connection.is_behind()
    )


def _has_lingered(connection: Connection, waited: float) -> bool:
    if connection.worker.retiring and waited > LINGER_AT_END:
        return True
    if connection.reset:
        return not unsent(connection.sock)
    return waited > LINGER_READ


def _sweep_waiting(connection: Connection, now: float, waited: float) -> None:
    """Nothing is under way: the next head is due, or has begun."""
    kept = not connection.partial
    if not kept and waited > connection.settings.client_header_timeout:
        _time_out(connection)
    elif kept or connection.first == b"":
        if (kept and waited > connection.service.keepalive) or connection.worker.may_drop_idle(now):
            close_idle(connection)
        elif connection.worker.retiring:
            connection.settle()


def _sweep_bodies(connection: Connection, now: float, patience: float) -> None:
    """Bodies are due."""
    # While an answer is due on a connection that answers in order, its client need
    # not send, and while it is not read it cannot.
    in_turn = connection.slots == 1 and bool(
        connection.output.size or connection.active or connection.pending
    )
    late = False
    for intake in list(connection.intake.values()):
        if in_turn or not connection.interest & READ:
            intake.excuse(now)
        elif intake.lags(now, patience):
            late = True
            connection.worker.log.info("%s: a request body is too slow", connection.peer)
            connection.refuse_body(
                intake, "408 Request Timeout", b"The request body did not arrive in time.\n"
            )
    if late:
        connection.pump()
        connection.settle()


def make_room(worker: Serving, now: float) -> int:
    """Close connections that nothing is lost with, the oldest first; return how many.

    So those that only hold a place take it from each other, and not from a client
    that asks for something.
    """
    most = worker.settings.worker_connections // _PART + 1
    idle = [item for item in worker.connections.values() if _is_dispensable(item, now)]
    idle.sort(key=attrgetter("since"))
    for connection in idle[:most]:
        kept = not (connection.partial or connection.linger_until)
        step = partial(close_idle, connection) if kept else connection.close
        worker.guarded(connection, step)
    return len(idle[:most])


def _is_dispensable(connection: Connection, now: float) -> bool:
    """Whether nothing is lost with it: not a front end's, which expects to find it open."""
    waited = now - connection.since
    if connection.linger_until:
        return waited > _HURRY_HEAD
    if _is_busy(connection) or connection.intake or not connection.codec.origin:
        return False
    return waited > (_HURRY_HEAD if connection.partial else _HURRY_KEPT)


def close_idle(connection: Connection) -> None:
    """Close, unless the next request is there already: then it gets its answer."""
    since = connection.since
    connection.readable()
    if connection.since == since and not (
        connection.closed or connection.active or connection.pending
    ):
        connection.closing = True
        connection.settle()


def _time_out(connection: Connection) -> None:
    """A head did not arrive in time."""
    reason = connection.unfinished()
    if reason:
        connection.worker.log.info("%s: %s", connection.peer, reason)
    reply = connection.codec.timed_out()
    if connection.first != b"" and reply:
        connection.say_in_turn(reply)
    connection.stop_reading()
    connection.pump()
    connection.settle()
