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
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Final

from gateway.disconnects import ClientDisconnected
from gateway.linux import has_unread, unsent
from gateway.poller import READ, WRITE
from gateway.receiving import Receiver
from gateway.scoreboard import Seat
from gateway.wsgi import Exchange
from protocols.model import Request
from protocols.native import mypyc_attr

if TYPE_CHECKING:
    from gateway.body import Intake

#: How long a closed connection is still read in all, so that no reset overtakes
#: the answer; seconds.
LINGER_TOTAL: Final = 30.0

#: An answer that is larger is on its way for a while after it was sent.
_IN_FLIGHT: Final = 1 << 16

_RESET: Final = struct.pack("ii", 1, 0)


@mypyc_attr(allow_interpreted_subclasses=True)
class Connection(Receiver):
    """The driver of one codec."""

    __slots__ = ()

    # The loop's side

    def resume(self) -> None:
        """Go on with a kept connection of another worker."""
        if self.service.choices is not None:
            self.choose("fastcgi")  # no other protocol's connections change hands
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
        landing = self.landing
        if landing is not None and not self.linger_until:
            self._read_into(landing)
            return
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
            if self.pending and self.slots == 1:
                self.held += len(data)
            self.receive(data)
        else:
            self.end_of_file()

    def _read_into(self, intake: Intake) -> None:
        """Have the kernel put what came where the body is kept."""
        try:
            count = self.sock.recv_into(intake.room())
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.lose()
            return
        if count:
            self.landed(intake, count)
        else:
            self.end_of_file()

    def writable(self) -> None:
        """Send what waits."""
        try:
            if self.flush():
                self.since = self.worker.now  # idle from here
                self.settle()
        except ClientDisconnected:
            self.lose()

    def lose(self) -> None:
        """The peer is gone: nothing can be sent any more."""
        with self.lock:
            self._drop()
        self.release()
        self.drop_intake()
        self.settle()

    def lose_from_thread(self) -> None:
        """After a fault in a pool thread: nothing is known about what was sent."""
        with self.lock:
            self._drop()
            self.active -= 1
        self.send_later()

    # Serving

    def pump(self) -> None:
        """Serve what is pending, or hand it to the pool (loop thread)."""
        worker = self.worker
        queue = worker.queue
        in_order = self.slots == 1
        if queue is None:
            while self.pending and not self.gone and not (in_order and self.output.size):
                self._serve(self.pending.pop(0), worker.seat, worker.since)
            return
        with self.lock:
            if in_order:
                wanted = int(not self.output.size and not self.active and bool(self.pending))
            else:
                handed_over = self.active - len(self.running)
                wanted = min(len(self.pending) - handed_over, self.slots - self.active)
            for _ in range(wanted):
                self.active += 1
                queue.put((self, worker.since))

    def work(self, seat: Seat, since: float) -> None:
        """Serve one pending request, which has waited ``since`` then, in a pool thread.

        Raises Abandoned: then all that follows has been done by another thread.
        """
        with self.lock:
            item = self._next()
            # At once: the loop would take this thread for one that will serve
            # what arrives between here and a later look.
            loop_is_needed = item is None and self._step_back()
        if item is not None:
            self._serve(item, seat, since)
            self._worked(item)
        elif loop_is_needed:
            self.send_later()

    def abandoned(self, request: Request) -> None:
        """The server has answered in place of the thread that serves ``request``."""
        if not request.keep_alive:
            self.ending = True
            self.closing = True
        if self.worker.queue is None:
            self.send_later()
        else:
            self._worked(request)

    def _worked(self, item: Request | bytes) -> None:
        """See whether there is more to do, and who has to do it."""
        self.since = self.worker.now
        with self.lock:
            if type(item) is Request:
                self.running.pop(item.stream, None)
            again = bool(self.pending) and not self.gone
            if again and self.slots == 1 and self.output.size:
                again = False
            loop_is_needed = not again and self._step_back()
        if again:
            queue = self.worker.queue
            assert queue is not None
            queue.put((self, monotonic()))
        elif loop_is_needed:
            self.send_later()

    def _step_back(self) -> bool:
        """One thread serves it no more; whether the loop has to look.  Under the lock."""
        self.active -= 1
        return bool(
            self.gone
            or self.closing
            or self.output.size
            or self.interest != READ
            or self.worker.retiring
        )

    def _next(self) -> Request | bytes | None:
        """The first pending item that may run now; a stream number runs once at a time."""
        if self.gone or not self.pending:
            return None
        if self.slots == 1:
            return self.pending.pop(0)
        for index, item in enumerate(tuple(self.pending)):  # the loop may append meanwhile
            assert type(item) is Request
            if item.stream not in self.running:
                del self.pending[index]
                self.running[item.stream] = item
                return item
        return None

    def _serve(self, item: Request | bytes, seat: Seat, since: float) -> None:
        if self.ending and self.slots == 1:
            return
        if isinstance(item, bytes):
            with suppress(ClientDisconnected):
                self.say(item)
            return
        exchange = Exchange(self, item)
        exchange.run(seat, since)
        if not item.keep_alive:
            if exchange.sent > _IN_FLIGHT:
                self.lingers = True  # what the peer still sends would cut it
            self.ending = True
            self.closing = True

    def client_disconnected(self, stream: int = 0) -> bool:
        """Whether nobody waits for the answer to request ``stream``; from any thread.

        What the application finds as ``gateway.client_disconnected``.
        """
        request = self.running.get(stream)
        return (request is not None and request.aborted) or self.has_left()

    def cut(self, request: Request) -> None:
        """End a started answer so that the peer can tell that it is not whole."""
        self.send_pile()
        request.keep_alive = False
        self.closing = True
        if self.codec.resets_to_cut(request):
            self.reset = True

    def look_again(self) -> None:
        """What the loop does when it was asked to look (loop thread)."""
        if self.is_behind() and not self.closed:
            self.catch_up()
        else:
            self.settle()

    def send_later(self) -> None:
        """Have the loop look at this connection."""
        self.worker.hand_back(self)

    def cannot_spool(self) -> None:
        reason, self.output.trouble = self.output.trouble, ""
        self.worker.log.error("%s: answers stay in memory, not in files: %s", self.peer, reason)

    def is_awaited(self) -> bool:
        worker = self.worker
        if worker.queue is not None:
            return not worker.queue.empty()
        return any(number != self.number for number, _ in worker.poller.poll(0))

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
            if self.gone and self.pending:
                self.drop_pending()
            over = (self.gone or (self.closing and interest <= 0)) and not (
                self.active or self.pending
            )
            if interest != self.interest and not over:
                self._set_interest(interest)
            goes_on = bool(self.codec.rest) and not (
                self.closing or self.active or self.pending or self.output.size
            )
        if self.gone:
            self.release()
        if over:
            self._begin_close()
        elif goes_on:
            self.send_later()
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
            interest |= READ if self.has_room() else 0
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
        if self.gone or self.eof or not self._leaves_in_two_steps():
            self.close()
            return
        self.since = self.worker.now
        self.linger_until = self.since + LINGER_TOTAL
        with self.lock:
            self._set_interest(READ)

    def _leaves_in_two_steps(self) -> bool:
        """Whether closing now would lose what the peer is to have."""
        if self.reset:
            # It would drop the end of other requests' answers, which the kernel has yet to send.
            is_shared = self.codec.concurrent and not self.service.is_unix
            return is_shared and bool(unsent(self.sock))
        lingers = self.lingers or self._has_unread()
        if not (lingers or self.send_flags):
            return False
        # Closing now would reset the connection and the answer with it (RFC
        # 9112 section 9.6): say that nothing more comes, and read on for a while.
        # What the kernel still holds back goes out with that, whatever has come meanwhile.
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            return False
        return lingers

    def _has_unread(self) -> bool:
        """Whether the peer sent, or may still send, what nobody will read."""
        if self.service.concurrent:
            return True  # FastCGI streams that nobody asked for: flup's client ends FCGI_DATA late
        return self.service.origin and has_unread(self.sock)

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
        if self.intake:
            self.drop_intake()
        with self.lock:
            self._drop()
        self.release()
        if self.reset:
            with suppress(OSError):
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.sock.close()
        self.codec.close()
