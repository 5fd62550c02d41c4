"""The receiving half of a connection: bytes to whole requests, on the loop thread.

What the codec makes of the bytes is sorted here: a request waits until its
body is whole and is then *pending*; what the protocol itself says goes out in
its turn; what breaks the protocol is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO
from time import monotonic
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final

from gateway.body import NO_BODY, Intake
from gateway.channel import Channel
from gateway.disconnects import ClientDisconnected
from gateway.linux import has_unread
from protocols.detect import FIRST_BYTES, by_first_byte, explain
from protocols.model import UNKNOWN, Abort, Body, Event, Interim, ProtocolError, Request
from protocols.native import mypyc_attr

if TYPE_CHECKING:
    from gateway.accepted import Sock
    from gateway.service import Service
    from gateway.serving import Serving

#: Enough for most heads; while a body arrives more is read at once.
_READ_SIZE: Final = 16384
_BODY_READ_SIZE: Final = 1 << 18

#: What one connection may have read while a request waits for its turn: requests, and
#: bytes of heads and bodies.
MOST_PENDING: Final = 64
_MOST_HELD: Final = 1 << 17

#: How long one connection keeps the loop with what was put off; seconds.
_TURN: Final = 0.01


#: Of an environ, where a connection has nothing of its own.
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


@mypyc_attr(allow_interpreted_subclasses=True)
class Receiver(Channel):
    """The state of one connection, and how bytes change it."""

    #: Whether what is read of the socket is what the codec is given.
    is_plain: ClassVar[bool] = True

    __slots__ = (
        "active",
        "closed",
        "counted",
        "ending",
        "eof",
        "first",
        "held",
        "intake",
        "interest",
        "landing",
        "linger_until",
        "lingers",
        "number",
        "partial",
        "pending",
        "read_size",
        "reset",
        "running",
        "since",
    )

    def __init__(
        self,
        worker: Serving,
        service: Service,
        sock: Sock,
        peer: str,
        own: Mapping[str, Any],
    ) -> None:
        super().__init__(sock, worker.settings, worker.budget)
        self.worker = worker
        self.service = service
        #: What is in the environ of its requests beside what is in every one of the service.
        self.own = own
        self.peer = peer
        self.number = sock.fileno()
        self.codec = service.codec_class(service.limits)
        self.slots = service.slots
        #: Requests, and what the protocol says between answers, in order.  Mostly one at
        #: a time: a list, for an idle connection would keep ten times as much in a deque.
        self.pending: list[Request | bytes] = []
        self.intake: dict[int, Intake] = {}
        #: Of these, the one whose body the socket is read into.
        self.landing: Intake | None = None
        self.running: dict[int, Request] = {}
        self.active = 0
        #: Bytes that were read since something waits for its turn.
        self.held = 0
        #: The address under which it is counted, see crowd.py.
        self.counted = ""
        self.interest = -1
        self.read_size = _READ_SIZE
        self.first: bytes | None = b""
        self.partial = True
        self.since = worker.now
        self.linger_until = 0.0
        self.eof = False  # the peer sends no more
        self.closing = False  # nothing more is read; close once all is answered
        self.ending = False  # an answer said that it is the last one
        self.lingers = False  # the peer may still be sending when we close
        self.reset = False  # only a reset tells the peer that an answer was cut
        self.closed = False

    def pump(self) -> None:
        """Serve what is pending."""
        raise NotImplementedError

    def settle(self) -> None:
        """Decide what to wait for."""
        raise NotImplementedError

    def receive(self, data: bytes) -> None:
        """Take bytes of the peer; serve what they complete."""
        first = self.first
        if first is not None:
            if self.service.choices is not None:
                self.choose(by_first_byte(data[0]))
            self.first = (first + data[:FIRST_BYTES])[:FIRST_BYTES]
        codec = self.codec
        try:
            events = codec.receive(data)
        except ProtocolError as error:
            self._take_all(error.events)
            self._refuse(error)
        else:
            self._take_all(events)
            if codec.closing and self.service.concurrent:
                self.closing = True
            elif self.first and self.first != first and explain(self.first, self.service.protocol):
                # Not wrong yet to this codec, but it never can be right.
                self._refuse(ProtocolError("the wrong protocol"))
        if self.pending:
            self.pump()
        if codec.rest:
            self.catch_up()
        elif (
            self.closing
            or self.output.size
            or self.gone
            or len(self.pending) > MOST_PENDING
            or self.held
            or self.worker.retiring
        ):
            self.settle()

    def is_behind(self) -> bool:
        """Whether bytes that were read are still to be decoded."""
        return bool(self.codec.rest) and not (self.closing or self.gone)

    def catch_up(self) -> None:
        """Decode what the codec has put off while nothing waits for its turn.

        Not for long: other connections have to have theirs.
        """
        codec = self.codec
        until = monotonic() + _TURN
        while self.is_behind() and not (self.pending or self.output.size):
            rest, codec.rest = codec.rest, b""
            try:
                self._take_all(codec.receive(rest))
            except ProtocolError as error:
                self._take_all(error.events)
                self._refuse(error)
            if self.pending:
                self.pump()
            if monotonic() > until:
                break
        if self.eof and not codec.rest:
            self.end_of_file()
        else:
            self.settle()

    def choose(self, protocol: str) -> None:
        """Settle what is spoken, where the bind takes any protocol; before the first byte."""
        service = self.service
        assert service.choices is not None
        self.service = chosen = service.choices[protocol]
        if self.peer == service.peer:
            self.peer = chosen.peer
        if not chosen.codec_class.origin:  # else it has what a connection starts with
            self.own = NOTHING
            self.codec.close()
            self.codec = chosen.codec_class(chosen.limits)
            self.slots = chosen.slots

    def _take_all(self, events: list[Event]) -> None:
        if events:
            self.first = None
            self.partial = False
            self.since = self.worker.now
            for event in events:
                if type(event) is not Request or event.more:
                    self._take(event)
                elif event.body:
                    self._ready(event, BytesIO(event.body), len(event.body))
                else:
                    event.environ["wsgi.input"] = NO_BODY
                    self.pending.append(event)
        elif self.intake or not self.partial:
            self.partial = not self.intake
            self.since = self.worker.now
        if self.codec.outbox:
            for reason in self.codec.refusals:
                self.worker.log.warning("%s: %s", self.peer, reason)
            self.codec.refusals.clear()
            self.say_in_turn(self.codec.outbox)
            self.codec.outbox = b""

    def _take(self, event: Event) -> None:
        """Take what is no whole request."""
        if isinstance(event, Request):
            self.read_size = _BODY_READ_SIZE
            self.intake[event.stream] = Intake(
                event, self.settings, self.worker.budget, self.worker.now
            )
            self._more(Body(event.stream, event.body, True))
        elif isinstance(event, Abort):
            self._abort(event.stream)
        elif isinstance(event, Interim):
            self.say_in_turn(event.data)
        else:
            self._more(event)

    def _more(self, event: Body) -> None:
        intake = self.intake.get(event.stream)
        if intake is None:
            return
        try:
            body = intake.finish() if intake.take(event) else None
        except OSError as error:
            self._cannot_keep(intake, error)
            return
        if body is None:
            if self.is_plain and intake.takes_room() and self.codec.owed():
                self.landing = intake
        else:
            del self.intake[event.stream]
            if not self.intake:
                self.read_size = _READ_SIZE
            self._ready(intake.request, body, intake.size)

    def landed(self, intake: Intake, count: int) -> None:
        """Take bytes that the kernel has put into a body."""
        self.since = self.worker.now
        if self.pending:
            self.held += count
        try:
            intake.fill(count)
            body = intake.finish() if self.codec.arrived(count) else None
        except OSError as error:
            self._cannot_keep(intake, error)
        else:
            if body is None and not self.held:
                return
            if body is not None:
                self.landing = None
                if self.codec.closing and has_unread(self.sock):
                    self.lingers = True
                del self.intake[intake.request.stream]
                self.read_size = _READ_SIZE
                self._ready(intake.request, body, intake.size)
        if self.pending:
            self.pump()
        self.settle()

    def has_room(self) -> bool:
        """Whether to read on while requests wait; under the lock.

        What waits is bounded by its bytes too: who takes no answer could have many
        heads and bodies kept, each of them as large as any.
        """
        pending = len(self.pending)
        if not pending:
            self.held = 0
        return (
            pending <= MOST_PENDING
            and self.held <= _MOST_HELD
            and (not self.codec.rest or self.closing)
        )

    def _cannot_keep(self, intake: Intake, error: OSError) -> None:
        """The disk for request bodies is full: this request ends, nothing else does."""
        self.worker.log.error("%s: a request body cannot be kept: %s", self.peer, error)
        self.refuse_body(intake, "507 Insufficient Storage", b"The request body cannot be kept.\n")

    def refuse_body(self, intake: Intake, status: str, body: bytes) -> None:
        """Answer a request whose body is not whole and will not be waited for."""
        request = intake.request
        self.intake.pop(request.stream, None)
        self.landing = None
        intake.close()
        request.keep_alive = False
        headers = [("Content-Type", "text/plain")]
        self.say_in_turn(self.codec.reply(request, status, headers, body))
        if not self.codec.concurrent:
            self.stop_reading()

    def _ready(self, request: Request, body: Any, size: int) -> None:
        """The request is whole: it may run."""
        environ: dict[str, Any] = request.environ
        environ["wsgi.input"] = body
        if request.length == UNKNOWN and size:
            environ["CONTENT_LENGTH"] = str(size)
        self.pending.append(request)

    def _abort(self, stream: int) -> None:
        intake = self.intake.pop(stream, None)
        if intake is not None:
            intake.close()
            return
        with self.lock:
            for item in (*self.pending, *self.running.values()):
                if type(item) is Request and item.stream == stream:
                    item.aborted = True
            self.output.end_file(stream)

    def say_in_turn(self, data: bytes) -> None:
        """What the protocol itself says: at once, or after the answers before it."""
        if self.codec.concurrent:
            with suppress(ClientDisconnected):
                self.say(data)
        else:
            self.pending.append(data)

    def _refuse(self, error: ProtocolError) -> None:
        reason, reply = error.reason, error.reply
        if self.first is not None:
            found = explain(self.first, self.service.protocol)
            if found is not None:
                reason, reply = found
        self.worker.log.warning("%s: %s", self.peer, reason)
        self.drop_intake()
        if reply:
            self.say_in_turn(reply)
        self.stop_reading()

    def unfinished(self) -> str:
        """What is said of a peer that began something and took too long; "" if it did not begin."""
        return "" if self.first == b"" else "the request did not arrive in time"

    def stop_reading(self) -> None:
        self.lingers = True
        self.codec.closing = True
        self.closing = True

    def end_of_file(self) -> None:
        """The peer sends no more; what it asked for is still answered."""
        self.eof = True
        if not self.is_behind():
            try:
                self.codec.receive_eof()
            except ProtocolError as error:
                self.worker.log.info("%s: %s", self.peer, error.reason)
            self.drop_intake()
            self.closing = True
        self.settle()

    def drop_intake(self) -> None:
        for intake in self.intake.values():
            intake.close()
        self.intake.clear()
        self.landing = None

    def drop_pending(self) -> None:
        """Let go of requests that will not run, and of the files that they have."""
        for item in self.pending:
            if type(item) is Request:
                with suppress(OSError):
                    item.environ["wsgi.input"].close()
        self.pending.clear()
