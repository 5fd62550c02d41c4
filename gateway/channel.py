"""The sending half of a connection, used by the loop and by pool threads.

Rule: the socket is written to, and the queue touched, only under ``lock``.
Whoever holds no lock may wait; whoever holds it never waits.
"""

from __future__ import annotations

import select
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from gateway.accepted import Lock
from gateway.carrier import Carrier
from gateway.disconnects import ClientDisconnected, TakesTooLittle, disconnected
from gateway.filerange import FileRange
from gateway.linux import unsent
from gateway.output import NOTHING_WAITS, Output
from gateway.pace import Pace
from protocols.native import mypyc_attr

if TYPE_CHECKING:
    from gateway.accepted import Sock
    from gateway.budget import Budget
    from gateway.settings import Settings


#: As a constant of this module it is no look into a dictionary, when this is compiled.
_LOCK: Final = Lock

#: What the poller reports of a peer that has left, beside POLLHUP and POLLERR.
_LEFT: Final = getattr(select, "POLLRDHUP", 0)

#: How often a thread that waits for a reader looks at it, seconds.
_LOOK: Final = 0.25

#: While requests wait for that thread: how long the reader may take nothing, seconds;
#: and what it has to take when the spool has no more room, bytes a second over so many.
_PATIENCE: Final = 1.0
_DECENT: Final = 1 << 16
_DECENT_PERIOD: Final = 5.0

#: A piece of a stream that follows the one before it within so many seconds waits for
#: more, up to so many bytes.
_FAST: Final = 0.0002
_MOST_HELD: Final = 1 << 18

#: Pieces that are smaller on average are joined to be sent.
_SMALL: Final = 4096

#: sendmsg(2) takes no more at once (IOV_MAX).
_MOST_PARTS: Final = 1024


@mypyc_attr(allow_interpreted_subclasses=True)
class Channel(Carrier):
    """A non-blocking socket and what waits to be sent on it."""

    __slots__ = (
        *("budget", "flushed", "heard", "lock", "lost", "output"),
        *("pace", "pile", "pile_size", "said", "sock"),
    )

    def __init__(self, sock: Sock, settings: Settings, budget: Budget) -> None:
        self.sock = sock
        self.settings = settings
        self.lock = _LOCK()
        self.budget = budget
        #: What waits to be sent: most connections never have anything that does.
        self.output: Output = NOTHING_WAITS
        self.gone = False
        #: Bytes that the kernel took later than they were written.
        self.flushed = 0
        #: What the protocol itself has said, bytes, since the peer has taken all before it;
        #: ``flushed`` when it will have.
        self.said: int = 0
        self.heard: int = 0
        #: Of send(2).
        self.send_flags = 0
        #: How fast the peer takes what waits, once that was looked at.
        self.pace: Pace | None = None
        #: Pieces of a stream that are sent together, soon (see streams.py), and their bytes.
        self.pile: list[bytes] | None = None
        self.pile_size: int = 0
        #: Why the thread that sends them could not: the answer is told with its next write.
        self.lost: OSError | None = None
        self.wrote = 0.0

    def _queue(self) -> Output:
        """Where to put what the socket does not take now; under the lock."""
        if self.output is NOTHING_WAITS:
            settings = self.settings
            self.output = Output(settings.body_buffer_size, settings.body_spool_dir, self.budget)
        return self.output

    def send_later(self) -> None:
        """Have the loop send what is queued; called without the lock."""
        raise NotImplementedError

    def cannot_spool(self) -> None:
        """The disk for answers is full (``output.trouble``); called without the lock."""
        raise NotImplementedError

    def say(self, data: bytes) -> None:
        """What the protocol itself says, from the loop: never waits.

        A peer that asks and asks but does not listen is dropped; answers that wait
        for it are another matter.  Raises ClientDisconnected.
        """
        self.write(data)
        if self.flushed >= self.heard:
            self.said = 0
            self.heard = self.flushed + self.output.size
        self.said += len(data)
        if self.said > self.settings.response_buffer_size and self.output.size:
            with self.lock:
                self._drop()
            raise TakesTooLittle

    def write(
        self, data: bytes, rest: bytes = b"", tail: bytes = b"", *, wait: bool = False
    ) -> float:
        """Send, or queue what the socket does not take now; ``rest`` without a copy of it.

        ``data`` is not empty if anything is, and ``rest`` not if ``tail`` is not.  Nothing
        sends what was held back.

        With ``wait``, for what more follows, waits while more than
        ``response_buffer_size`` bytes are queued and the peer does not lag; returns
        for how many seconds.  What follows fast is held back for a moment.  Raises
        ClientDisconnected.
        """
        if not data:
            return self._end_stream() if self.wrote else 0.0
        with self.lock:
            if self.gone:
                raise self._gone()
            if wait and self._holds(data, rest, tail):
                return 0.0
            output = self.output
            try:
                if self.pile_size:
                    self._pile_up(data, rest, tail)
                    self._send_pile()
                elif output.size:
                    output.append(data)
                    output.append(rest)
                    output.append(tail)
                    self._flush()
                else:
                    try:
                        if rest:
                            sent = self.sock.sendmsg((data, rest, tail))
                        else:
                            sent = self.sock.send(data, self.send_flags)
                    except (BlockingIOError, InterruptedError):
                        sent = 0
                    if sent == len(data) + len(rest) + len(tail):
                        return 0.0
                    self._queue_unsent((data, rest, tail), sent)
            except OSError as error:
                self._drop()
                raise disconnected(error) from None
        return self._queued(wait=wait)

    def _holds(self, data: bytes, rest: bytes, tail: bytes) -> bool:
        """Whether a piece can wait for the next one: the application is fast; under the lock."""
        now = monotonic()
        is_fast = now - self.wrote < _FAST
        self.wrote = now
        size = self.pile_size + len(data) + len(rest) + len(tail)
        if not is_fast or size > _MOST_HELD or self.output.size:
            return False
        if not self.pile_size and not self.worker.streams.hold(self):
            return False
        self._pile_up(data, rest, tail)
        return True

    def _pile_up(self, data: bytes, rest: bytes, tail: bytes) -> None:
        pile = self.pile
        if pile is None:
            pile = self.pile = []
        pile.append(data)
        if rest:
            pile.append(rest)
            pile.append(tail)
        self.pile_size += len(data) + len(rest) + len(tail)

    def send_pile(self) -> None:
        """Send what is held back, from any thread; what cannot be is told to the next write."""
        with self.lock:
            if self.gone or not self.pile_size:
                return
            try:
                self._send_pile()
            except OSError as error:
                self._drop()
                self.lost = error
        if self.output.trouble:
            self.cannot_spool()
        if self.gone or self.output.size:
            self.send_later()

    def _end_stream(self) -> float:
        """Send what is held; behind its lock also who sends that meanwhile has told the outcome."""
        self.send_pile()
        if self.lost is not None:
            raise self._gone()
        return 0.0

    def _gone(self) -> ClientDisconnected:
        """What a write to a peer that is gone raises."""
        if self.lost is not None:
            return disconnected(self.lost)
        return ClientDisconnected("the peer is gone")

    def _send_pile(self) -> None:
        parts: list[Any] = self.pile or []
        if self.pile_size < len(parts) * _SMALL:
            parts = [b"".join(parts)]
        self.pile = None
        self.pile_size = 0
        self._send_all(parts)

    def write_parts(self, parts: list[Any]) -> None:
        """As ``write``; what the socket takes now is not copied."""
        with self.lock:
            if self.gone:
                raise self._gone()
            try:
                if self.pile_size:
                    self._send_pile()
                self._send_all(parts)
            except OSError as error:
                self._drop()
                raise disconnected(error) from None
        self._queued()

    def _send_all(self, parts: list[Any]) -> None:
        """Send, or queue what the socket does not take now.  Raises OSError."""
        sent = 0 if self.output.size else self._send_parts(parts[:_MOST_PARTS])
        rest = _unsent_of(parts, sent)
        if rest:
            if not self.output.size:
                self.pace = None
            self._queue().append(rest)

    def _send_parts(self, parts: list[Any]) -> int:
        try:
            return self.sock.sendmsg(parts)
        except (BlockingIOError, InterruptedError):
            return 0

    def _queue_unsent(self, pieces: tuple[bytes, ...], sent: int) -> None:
        """Queue what the socket did not take, behind nothing.  Raises NotKept."""
        self.pace = None
        output = self._queue()
        for piece in pieces:
            output.append(memoryview(piece)[sent:])
            sent = max(0, sent - len(piece))

    def write_file(self, head: bytes, piece: FileRange, tail: bytes = b"") -> None:
        """Send ``head``, a range of a file and ``tail``; the loop sends what is left of it.

        ``piece.release`` is called once, also if the peer leaves before.
        Raises ClientDisconnected.
        """
        with self.lock:
            output = self._queue()
            try:
                if self.gone:
                    raise ClientDisconnected("the peer is gone")
                if self.pile_size:
                    self._send_pile()
                if not output.size:
                    self.pace = None
                output.append(head)
            except OSError as error:
                if piece.release is not None:
                    output.released.append(piece.release)
                self._drop()
                raise disconnected(error) from None
            output.append_file(piece)
            try:
                output.append(tail)
                self._flush()
            except OSError as error:
                self._drop()
                raise ClientDisconnected(str(error)) from None
        self._queued()

    def has_framed_file(self) -> bool:
        return self.output.waiting < self.output.size

    def has_left(self) -> bool:
        """Whether the peer has closed the connection, by one look at it; from any thread.

        One that has only closed its sending half is taken for one that has left:
        over TCP the two look the same.
        """
        if self.gone:
            return True
        poll = select.poll()
        try:
            poll.register(self.sock.fileno(), _LEFT)
        except ValueError:  # closed
            return True
        return bool(poll.poll(0))

    def flush(self) -> bool:
        """Send what is queued; True if nothing is left.  Raises ClientDisconnected."""
        with self.lock:
            if self.gone:
                raise ClientDisconnected("the peer is gone")
            try:
                self._flush()
            except OSError as error:
                self._drop()
                raise ClientDisconnected(str(error)) from None
            done = not self.output.size
        self.release()
        return done

    def release(self) -> None:
        """Let go of the files that are sent; called without the lock."""
        released = self.output.released
        while released:
            try:
                done = released.pop()
            except IndexError:  # another thread is at it too
                return
            done()

    def _flush(self) -> None:
        size = self.output.size
        self.output.flush(self.sock)
        self.flushed += size - self.output.size

    def _drop(self) -> None:
        self.gone = True
        self.pile = None
        self.pile_size = 0
        if self.output is not NOTHING_WAITS:
            self.output.clear()

    def _queued(self, *, wait: bool = False) -> float:
        self.release()
        if self.output.trouble:
            self.cannot_spool()
        output = self.output
        waited = 0.0
        if wait and (output.waiting > self.settings.response_buffer_size or output.must_shrink()):
            begun = monotonic()
            self._wait_for_room()
            waited = monotonic() - begun
        if output.size:
            self.send_later()
        return waited

    def lags(self, now: float, patience: float | None = None) -> bool:
        """Whether the peer takes too little; ``patience`` may be shorter than ``send_timeout``."""
        # A send buffer may hold what a slow peer needs minutes for, and the socket
        # becomes writable only when much of that is gone.
        taken = self.flushed - unsent(self.sock)
        pace = self.pace
        if pace is None:  # what waits is new
            pace = self.pace = Pace(taken, now)
        settings = self.settings
        timeout = settings.send_timeout
        if patience is not None and patience < timeout:
            timeout = patience
        return pace.lags(taken, now, timeout, settings.send_min_rate)

    def is_awaited(self) -> bool:
        """Whether requests wait for the thread that waits for a reader."""
        return False

    def _room(self) -> int:
        """How much may wait when the application goes on."""
        return 0 if self.output.must_shrink() else self.settings.response_buffer_size // 2

    def _wait_for_room(self) -> None:
        """Wait for a slow reader; the descriptor stays open while its request is served.

        Not while requests wait for this thread: a reader that takes nothing is given
        up soon, and what others do not take at once goes to the spool as long as that
        has room.  Raises TakesTooLittle.
        """
        poll = select.poll()
        poll.register(self.sock.fileno(), select.POLLOUT)
        while self.output.waiting > self._room():
            now = monotonic()
            lags = self.lags(now)
            if self.pace is not None and self.is_awaited():
                if self._may_go_on(self.pace, now):
                    return
                lags = lags or self._is_in_the_way(self.pace, now)
            if lags:
                with self.lock:
                    self._drop()
                self.release()
                raise TakesTooLittle
            poll.poll(_LOOK * 1000)
            self.flush()

    def _may_go_on(self, pace: Pace, now: float) -> bool:
        """Whether the spool takes what the reader, who does take something, does not."""
        return pace.has_moved and pace.rests(now) <= _LOOK and self.output.may_grow()

    def _is_in_the_way(self, pace: Pace, now: float) -> bool:
        """Whether the reader takes nothing, or not enough to have a thread wait for it."""
        return pace.rests(now) > _PATIENCE or (
            not self.output.may_grow() and pace.is_below(now, _DECENT, _DECENT_PERIOD)
        )


def _unsent_of(parts: list[Any], sent: int) -> bytes:
    """What is left of ``parts`` when ``sent`` bytes of them are gone."""
    for at, part in enumerate(parts):
        if sent < len(part):
            return b"".join((memoryview(part)[sent:], *parts[at + 1 :]))
        sent -= len(part)
    return b""
