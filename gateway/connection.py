"""One socket and one codec: read, dispatch, write, close.

The loop thread alone reads, opens and closes.  Requests run on the loop itself
or in pool threads, at most ``slots`` of one connection at once: one where the
protocol answers in order, several where it multiplexes.  A socket is closed
only while nobody serves a request of it; otherwise the kernel would reuse the
descriptor's number and one client's answer would reach another.
"""

from __future__ import annotations

import socket
import struct
from collections import deque
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any

from gateway.body import Intake
from gateway.channel import Channel, ClientDisconnected
from gateway.poller import READ, WRITE
from gateway.wsgi import Exchange
from protocols.detect import explain
from protocols.model import UNKNOWN, Abort, Body, Event, ProtocolError, Request

if TYPE_CHECKING:
    from gateway.service import Service
    from gateway.worker import Worker

#: Enough for most heads; while a body arrives more is read at once.
_READ_SIZE = 16384
_BODY_READ_SIZE = 1 << 18

#: Requests of one connection that wait before it is read no further.
_MOST_PENDING = 64

#: How long a closed connection is still read, so that no reset overtakes the
#: answer: between two reads, and in all (seconds).
LINGER_READ = 5.0
LINGER_TOTAL = 30.0
LINGER_AT_END = 1.0  # between two reads, in a worker that leaves

#: First bytes that are kept to name a wrong protocol.
_FIRST_BYTES = 24

_RESET = struct.pack("ii", 1, 0)


class Connection(Channel):
    """The driver of one codec."""

    __slots__ = (
        "active",
        "base",
        "closed",
        "closing",
        "codec",
        "ending",
        "eof",
        "first",
        "intake",
        "interest",
        "linger_until",
        "lingers",
        "number",
        "partial",
        "peer",
        "pending",
        "read_size",
        "reset",
        "running",
        "service",
        "since",
        "slots",
        "worker",
    )

    def __init__(
        self,
        worker: Worker,
        service: Service,
        sock: socket.SocketType,
        peer: str,
        base: dict[str, Any],
    ) -> None:
        super().__init__(sock, worker.settings)
        self.worker = worker
        self.service: Service = service
        self.base = base
        self.peer = peer
        self.number = sock.fileno()
        self.codec = service.codec_class(service.limits)
        self.slots = service.limits.multiplex if self.codec.concurrent else 1
        #: Requests, and what the protocol says between answers, in order.
        self.pending: deque[Request | bytes] = deque()
        self.intake: dict[int, Intake] = {}
        self.running: dict[int, Request] = {}
        self.active = 0
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

    # The loop's side

    def resume(self) -> None:
        """Go on with a kept connection of another worker."""
        self.first = None
        self.partial = False
        self.open()

    def open(self) -> None:
        """Look before waiting: often the whole request is there, and no wait is needed."""
        self.readable()
        if not self.closed:
            self.settle()

    def on_event(self, events: int) -> None:
        """Something happened on the socket."""
        if self.closed:
            return
        if events & WRITE:
            self.writable()
        if events & READ and self.interest & READ and not self.closed:
            self.readable()
        elif events & ~(READ | WRITE) and not self.closed:
            self.lose()

    def readable(self) -> None:
        """Read once and serve what came."""
        try:
            data = self.sock.recv(self.read_size)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.lose()
            return
        if self.linger_until:
            self._discard(data)
        elif data:
            self._receive(data)
        else:
            self._end_of_file()

    def writable(self) -> None:
        """Send what waits."""
        try:
            if self.flush():
                self.settle()
        except ClientDisconnected:
            self.lose()

    def _receive(self, data: bytes) -> None:
        codec = self.codec
        first = self.first
        if first is not None:
            self.first = (first + data[:_FIRST_BYTES])[:_FIRST_BYTES]
        try:
            events = codec.receive(data)
        except ProtocolError as error:
            self._take_all(error.events)
            self._refuse(error)
        else:
            self._take_all(events)
            if codec.closing and codec.concurrent:
                self.closing = True
            elif self.first and self.first != first and explain(self.first, self.service.protocol):
                # Not wrong yet to this codec, but it never can be right.
                self._refuse(ProtocolError("the wrong protocol"))
        if self.pending:
            self.pump()
        if (
            self.closing
            or self.output.size
            or self.gone
            or len(self.pending) > _MOST_PENDING
            or self.worker.retiring
        ):
            self.settle()

    def _take_all(self, events: list[Event]) -> None:
        if events:
            self.first = None
            self.partial = False
            self.since = self.worker.now
            for event in events:
                if type(event) is Request and not event.more:
                    self._ready(event, BytesIO(event.body), len(event.body))
                else:
                    self._take(event)
        elif self.intake or not self.partial:
            self.partial = not self.intake
            self.since = self.worker.now
        if self.codec.outbox:
            for reason in self.codec.refusals:
                self.worker.log.warning("%s: %s", self.peer, reason)
            self.codec.refusals.clear()
            self._say(self.codec.outbox)
            self.codec.outbox = b""

    def _take(self, event: Event) -> None:
        """Take what is no whole request."""
        if isinstance(event, Request):
            self.read_size = _BODY_READ_SIZE
            self.intake[event.stream] = Intake(event, self.settings)
            self._more(Body(event.stream, event.body, True))
        elif isinstance(event, Abort):
            self._abort(event.stream)
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
        if body is not None:
            del self.intake[event.stream]
            if not self.intake:
                self.read_size = _READ_SIZE
            self._ready(intake.request, body, intake.size)

    def _cannot_keep(self, intake: Intake, error: OSError) -> None:
        """The disk for request bodies is full: this request ends, nothing else does."""
        self.worker.log.error("%s: a request body cannot be kept: %s", self.peer, error)
        request = intake.request
        self.intake.pop(request.stream, None)
        intake.close()
        request.keep_alive = False
        headers = [("Content-Type", "text/plain")]
        body = b"The request body cannot be kept.\n"
        self._say(self.codec.reply(request, "507 Insufficient Storage", headers, body))
        if not self.codec.concurrent:
            self._stop_reading()

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

    def _say(self, data: bytes) -> None:
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
        self._drop_intake()
        if reply:
            self._say(reply)
        self._stop_reading()

    def _stop_reading(self) -> None:
        self.lingers = True
        self.codec.closing = True
        self.closing = True

    def _end_of_file(self) -> None:
        """The peer sends no more; what it asked for is still answered."""
        try:
            self.codec.receive_eof()
        except ProtocolError as error:
            self.worker.log.info("%s: %s", self.peer, error.reason)
        self._drop_intake()
        self.eof = True
        self.closing = True
        self.settle()

    def lose(self) -> None:
        """The peer is gone: nothing can be sent any more."""
        with self.lock:
            self._drop()
        self.release()
        self._drop_intake()
        self.settle()

    def lose_from_thread(self) -> None:
        """After a fault in a pool thread: nothing is known about what was sent."""
        with self.lock:
            self._drop()
            self.active -= 1
        self.send_later()

    def _drop_intake(self) -> None:
        for intake in self.intake.values():
            intake.close()
        self.intake.clear()

    # Serving

    def pump(self) -> None:
        """Serve what is pending, or hand it to the pool (loop thread)."""
        queue = self.worker.queue
        in_order = self.slots == 1
        if queue is None:
            while self.pending and not self.gone and not (in_order and self.output.size):
                self._serve(self.pending.popleft())
            return
        with self.lock:
            if in_order:
                wanted = int(not self.output.size and not self.active and bool(self.pending))
            else:
                handed_over = self.active - len(self.running)
                wanted = min(len(self.pending) - handed_over, self.slots - self.active)
            for _ in range(wanted):
                self.active += 1
                queue.put(self)

    def work(self) -> None:
        """Serve one pending request in a pool thread."""
        with self.lock:
            item = self._next()
        if item is not None:
            self._serve(item)
        self.since = self.worker.now
        with self.lock:
            if type(item) is Request:
                self.running.pop(item.stream, None)
            again = item is not None and bool(self.pending) and not self.gone
            if again and self.slots == 1 and self.output.size:
                again = False
            if not again:
                self.active -= 1
            loop_is_needed = not again and (
                self.gone
                or self.closing
                or self.output.size
                or self.interest != READ
                or self.worker.retiring
            )
        if again:
            self.worker.queue.put(self)  # type: ignore[union-attr]
        elif loop_is_needed:
            self.send_later()

    def _next(self) -> Request | bytes | None:
        """The first pending item that may run now; a stream number runs once at a time."""
        if self.gone or not self.pending:
            return None
        if self.slots == 1:
            return self.pending.popleft()
        for index, item in enumerate(tuple(self.pending)):  # the loop may append meanwhile
            assert type(item) is Request
            if item.stream not in self.running:
                del self.pending[index]
                self.running[item.stream] = item
                return item
        return None

    def _serve(self, item: Request | bytes) -> None:
        if self.ending and self.slots == 1:
            return
        if type(item) is bytes:
            with suppress(ClientDisconnected):
                self.say(item)
            return
        assert type(item) is Request
        Exchange(self, item).run()
        if not item.keep_alive:
            self.ending = True
            self.closing = True

    def cut(self, request: Request) -> None:
        """End a started answer so that the peer can tell that it is not whole."""
        request.keep_alive = False
        self.closing = True
        if self.codec.resets_to_cut(request):
            self.reset = True

    def send_later(self) -> None:
        """Have the loop look at this connection."""
        self.worker.hand_back(self)

    # Closing

    def settle(self) -> None:
        """Decide what the loop waits for, or close (loop thread)."""
        if self.closed:
            return
        if self.pending and not self.output.size and not self.gone:
            self.pump()
        with self.lock:
            # Under the lock, so that a thread that finishes meanwhile sees the
            # outcome, or is seen.
            interest = self._wanted_interest()
            if self.gone:
                self.pending.clear()
            over = (self.gone or (self.closing and interest <= 0)) and not (
                self.active or self.pending
            )
            if interest != self.interest and not over:
                self._set_interest(interest)
        if self.gone:
            self.release()
        if over:
            self._begin_close()
        elif self.worker.retiring and self.codec.concurrent:
            self._hand_over()

    def _hand_over(self) -> None:
        """Give a kept connection to a worker that stays, between two requests."""
        idle = not (self.active or self.pending or self.intake or self.output.size)
        if idle and not self.closing and self.codec.is_between_requests():
            given = self.worker.give_away(self)
            if given:
                self.closed = True
                self.worker.forget(self)
                self.sock.close()

    def _wanted_interest(self) -> int:
        """What to wait for; -1: nothing, not even the peer's end."""
        if self.gone:
            return -1
        interest = WRITE if self.output.size else 0
        if self.linger_until or not (self.eof or self.closing):
            interest |= READ if len(self.pending) <= _MOST_PENDING else 0
        if self.interest == -1 and self.codec.closing and not interest & WRITE:
            return -1  # all is read, and it was never waited for
        return interest

    def _set_interest(self, interest: int) -> None:
        """Wait for these events; -1: for none, not even for the peer's end."""
        poller = self.worker.poller
        if interest == -1:
            poller.unregister(self.number)
        elif self.interest == -1:
            poller.register(self.number, interest)
        else:
            poller.modify(self.number, interest)
        self.interest = interest

    def _begin_close(self) -> None:
        if self.gone or self.reset or self.eof or not (self.lingers or self._has_unread()):
            self.close()
            return
        # Closing now would reset the connection and the answer with it (RFC
        # 9112 section 9.6): say that nothing more comes, and read on for a while.
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        self.since = self.worker.now
        self.linger_until = self.since + LINGER_TOTAL
        with self.lock:
            self._set_interest(READ)

    def _has_unread(self) -> bool:
        """Whether the peer sent, or may still send, what nobody will read."""
        if self.codec.concurrent:
            return True  # FastCGI streams that nobody asked for: flup's client ends FCGI_DATA late
        if not self.codec.origin:
            return False
        try:
            return bool(self.sock.recv(_READ_SIZE))
        except OSError:
            return False

    def _discard(self, data: bytes) -> None:
        if data:
            self.since = self.worker.now
        else:
            self.close()

    def close(self) -> None:
        """Close for good; only while no request of this connection runs."""
        if self.closed:
            return
        self.closed = True
        self.worker.forget(self)
        self._drop_intake()
        with self.lock:
            self._drop()
        self.release()
        if self.reset:
            with suppress(OSError):
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.sock.close()
        self.codec.close()

    def sweep(self, now: float) -> None:
        """Apply the deadlines; called about once a second."""
        settings = self.settings
        waited = now - self.since
        if self.linger_until:
            patience = LINGER_AT_END if self.worker.retiring else LINGER_READ
            if waited > patience or now > self.linger_until:
                self.close()
        elif self.output.size:
            if now - self.progress > settings.send_timeout:
                self.worker.log.info("%s: the peer takes nothing", self.peer)
                self.lose()
        elif self.active or self.pending:
            return
        elif self.intake:
            if waited > settings.client_body_timeout:
                self._time_out("the request body did not arrive in time")
        elif self.partial and waited > settings.client_header_timeout:
            self._time_out("the request did not arrive in time")
        elif not self.partial or self.first == b"":
            self._sweep_idle(now, waited)

    def _sweep_idle(self, now: float, waited: float) -> None:
        if waited > self.service.keepalive or self.worker.may_drop_idle(now):
            self._close_idle()
        elif self.worker.retiring:
            self.settle()

    def _close_idle(self) -> None:
        """Close, unless the next request is there already: then it gets its answer."""
        since = self.since
        self.readable()
        if self.since == since and not (self.closed or self.active or self.pending):
            self.closing = True
            self.settle()

    def _time_out(self, reason: str) -> None:
        reply = b"" if self.first == b"" else self.codec.timed_out()
        if self.first != b"":
            self.worker.log.info("%s: %s", self.peer, reason)
        self._drop_intake()
        if reply:
            self._say(reply)
        self._stop_reading()
        self.pump()
        self.settle()
