"""What connections and requests ask of the worker that serves them."""

from __future__ import annotations

from collections.abc import Callable
from logging import Logger
from typing import TYPE_CHECKING, Any

from gateway.settings import Settings
from protocols.model import Codec
from protocols.native import mypyc_attr

if TYPE_CHECKING:
    from queue import SimpleQueue

    from gateway.acceptor import Acceptor
    from gateway.accesslog import AccessLog
    from gateway.budget import Budget
    from gateway.connection import Connection
    from gateway.errorlog import Sparing
    from gateway.hooks import Hooks, WorkerView
    from gateway.poller import Poller
    from gateway.replacing import Replacing
    from gateway.scoreboard import Seat
    from gateway.streams import Streams
    from gateway.wsgi import Exchange


@mypyc_attr(allow_interpreted_subclasses=True)
class Serving:
    """A worker, or what has its place where a process serves one request.

    The latter has what an exchange asks for, and no connections.
    """

    settings: Settings
    log: Logger
    hooks: Hooks
    #: What hooks are shown.
    view: WorkerView
    access: AccessLog | None
    refusals: Sparing
    application: Callable[..., Any]
    #: Called with each request that is over and the seconds it took, if not None.
    after_request: Callable[[Exchange, float], None] | None
    #: Gives each request its number; from any thread.
    next_serial: Callable[[], int]
    #: The request with which the worker has served ``max_requests``; 0: there is none.
    last_serial: int
    #: Whether this process is a child that the application forked.
    is_fork: bool
    retiring: bool
    stopping: bool
    #: When the loop last came back from waiting (monotonic).
    now: float
    #: Since when what is read now may have been waiting, as far as that is known.
    since: float
    #: Whether the loop was away so long that clients may have left meanwhile.
    late: bool
    #: Connections with something to do, or None where the loop does it all.
    queue: SimpleQueue[tuple[Connection, float]] | None
    #: Where the loop sits.
    seat: Seat
    poller: Poller
    #: By descriptor.
    connections: dict[int, Connection]
    budget: Budget
    #: Sees to what connections hold back.
    streams: Streams
    acceptor: Acceptor
    replacing: Replacing

    def is_last_answer(self, codec: Codec) -> bool:
        """Whether an answer of a retiring worker ends its connection."""
        raise NotImplementedError

    def give_away(self, connection: Connection) -> bool:
        """Hand an idle connection to another worker; False if it has to stay."""
        raise NotImplementedError

    def may_drop_idle(self, now: float) -> bool:
        """Whether an idle connection is to be closed before its time."""
        raise NotImplementedError

    def guarded(self, connection: Connection, step: Callable[[], None]) -> None:
        """Take a step of a connection; a fault of ours ends that and nothing else."""
        raise NotImplementedError

    def fault(self, connection: Connection) -> None:
        """A fault of ours ends the connection that it met, not the worker."""
        raise NotImplementedError

    def hand_back(self, connection: Connection) -> None:
        """Have the loop look at a connection; from any thread."""
        raise NotImplementedError

    def forget(self, connection: Connection) -> None:
        """A connection closes."""
        raise NotImplementedError
