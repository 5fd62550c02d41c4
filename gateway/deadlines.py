"""What becomes of a connection whose peer takes too long; the loop asks once a second."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.channel import TakesTooLittle
from gateway.linux import unsent
from gateway.poller import READ

if TYPE_CHECKING:
    from gateway.connection import Connection

#: How long a closed connection is still read between two reads, and in a worker
#: that leaves; seconds.
LINGER_READ = 5.0
LINGER_AT_END = 1.0


def sweep(connection: Connection, now: float) -> None:
    """Apply the deadlines to one connection."""
    waited = now - connection.since
    if connection.linger_until:
        if now > connection.linger_until or _has_lingered(connection, waited):
            connection.close()
        return
    if connection.output.size and connection.lags(now):
        connection.worker.log.info("%s: %s", connection.peer, TakesTooLittle())
        connection.lose()
    elif connection.intake:
        _sweep_bodies(connection, now)
    elif not (
        connection.output.size or connection.active or connection.pending or connection.is_behind()
    ):
        _sweep_waiting(connection, now, waited)


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


def _sweep_bodies(connection: Connection, now: float) -> None:
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
        elif intake.lags(now):
            late = True
            connection.worker.log.info("%s: a request body is too slow", connection.peer)
            connection.refuse_body(
                intake, "408 Request Timeout", b"The request body did not arrive in time.\n"
            )
    if late:
        connection.pump()
        connection.settle()


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
