"""TLS around a connection: a transformation of bytes, beneath the codec and above the socket.

OpenSSL reads from memory and writes to memory, so nothing in it waits.  An
OpenSSL object must not be used by two threads at once: it is touched only under
the connection's lock, which is held as long as it takes to encrypt and to queue
what comes out, so that records are sent in the order in which they were made.
What arrives is decrypted at once and whole, so that no byte waits where the
poller does not see it.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from gateway.certificates import reason_of, variables
from gateway.disconnects import ClientDisconnected, TakesTooLittle, disconnected
from gateway.filerange import FileRange, FileTooShort
from gateway.output import Output
from gateway.proxied import ProxiedConnection
from protocols.detect import FIRST_BYTES, explain

if TYPE_CHECKING:
    from gateway.accepted import Sock
    from gateway.budget import Budget
    from gateway.service import Service
    from gateway.serving import Serving

#: The most that a record holds (RFC 8446 section 5.1).
_RECORD = 1 << 14

#: What is encrypted at a time of a large answer, so that a slow client holds
#: no more of it in memory than that.
_PIECE = 1 << 16

#: The most of a file that one turn encrypts: the loop has others to serve.
_TURN = 1 << 20

#: The most that TLS may say to a peer that takes nothing and has it say more and more.
_MOST_UNHEARD = 1 << 16

#: The content type of a handshake record, the first byte of every client (RFC 8446 section 5.1).
_HANDSHAKE = 0x16


class Tls:
    """The server's side of one connection: bytes to bytes."""

    __slots__ = ("_incoming", "_object", "_outgoing", "ended", "established", "failure")

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        #: Whether the handshake is done.
        self.established = False
        #: The peer has said that it sends no more (close_notify).
        self.ended = False
        #: What makes it impossible to go on; an alert about it is in ``outgoing``.
        self.failure: ssl.SSLError | None = None

    def open(self, data: bytes) -> bytes:
        """Take what arrived; return all that is decrypted of it."""
        pieces: list[bytes] = []
        rest = memoryview(data)
        while rest and not self.ended and self.failure is None:
            # No more at once: what OpenSSL's memory has grown to it keeps.
            self._incoming.write(rest[:_RECORD])
            rest = rest[_RECORD:]
            self._take(pieces)
        return b"".join(pieces)

    def _take(self, pieces: list[bytes]) -> None:
        try:
            if not self.established:
                self._object.do_handshake()
                self.established = True
            while self._incoming.pending or self._object.pending():
                piece = self._object.read(_RECORD)
                if not piece:
                    self.ended = True
                    break
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass  # the rest of a record is still to come
        except ssl.SSLZeroReturnError:
            self.ended = True
        except ssl.SSLError as error:
            self.failure = error

    def seal(self, data: bytes | memoryview) -> bytes:
        """Encrypt.  Raises ssl.SSLError, an OSError, if that is not possible any more."""
        pieces: list[bytes] = []
        rest = memoryview(data)
        while rest:
            rest = rest[self._object.write(rest[:_RECORD]) :]
            pieces.append(self._outgoing.read())
        return b"".join(pieces)

    def outgoing(self) -> bytes:
        """What TLS itself has to say: the handshake, alerts, answers to changes of keys."""
        return self._outgoing.read() if self._outgoing.pending else b""

    def goodbye(self) -> bytes:
        """That nothing more is sent (close_notify)."""
        with suppress(ssl.SSLError):  # the peer's own goodbye is not there yet
            self._object.unwrap()
        return self.outgoing()

    def variables(self) -> dict[str, str]:
        """What the application is told of the connection, once it is established."""
        return variables(self._object)


class SealedOutput(Output):
    """A queue that encrypts; its limits are about what is encrypted already.

    A file of the application, after which nothing is queued until it is sent,
    is read and encrypted as fast as the peer takes it.
    """

    __slots__ = ("_plain", "_tls")

    def __init__(self, in_memory: int, folder: str | None, budget: Budget, tls: Tls) -> None:
        super().__init__(in_memory, folder, budget)
        self._tls = tls
        self._plain: FileRange | None = None

    def append(self, data: bytes | memoryview) -> None:
        """Encrypt and queue a piece.  Raises OSError, if it has to go to a full disk too."""
        if data:
            super().append(self._tls.seal(data))

    def append_sealed(self, data: bytes | memoryview) -> None:
        """Queue what must not be encrypted, or is.  Raises OSError."""
        super().append(data)

    def append_file(self, piece: FileRange) -> None:
        self._plain = piece
        self.size += piece.count

    def flush(self, sock: Sock) -> None:
        super().flush(sock)
        done = 0
        while self._plain is not None and not self._chunks and done < _TURN:
            done += self._seal_piece(self._plain)
            super().flush(sock)

    def _seal_piece(self, piece: FileRange) -> int:
        data = os.pread(piece.number, min(piece.count, _PIECE), piece.offset)
        if not data:
            raise FileTooShort("a file was cut while it was sent")
        piece.offset += len(data)
        piece.count -= len(data)
        self.size -= len(data)
        self.append(data)
        if not piece.count:
            self._let_go()
        return len(data)

    def clear(self) -> None:
        self._let_go()
        super().clear()

    def _let_go(self) -> None:
        if self._plain is not None and self._plain.release is not None:
            self.released.append(self._plain.release)
        self._plain = None


class TlsConnection(ProxiedConnection):
    """A connection of a bind that speaks TLS; a PROXY protocol header may come before it."""

    __slots__ = ("beginning", "said_goodbye", "tls", "unheard")

    is_plain: ClassVar[bool] = False

    output: SealedOutput

    def __init__(
        self,
        worker: Serving,
        service: Service,
        sock: Sock,
        peer: str,
        own: Mapping[str, Any],
    ) -> None:
        super().__init__(worker, service, sock, peer, own)
        assert service.tls is not None
        self.tls = Tls(service.tls)
        settings = self.settings
        self.output = SealedOutput(
            settings.body_buffer_size, settings.body_spool_dir, worker.budget, self.tls
        )
        #: The first bytes, by which TLS is told from what else may come.
        self.beginning = b""
        self.said_goodbye = False
        #: What TLS itself has said since the peer last took all there was.
        self.unheard = 0

    # Receiving

    def receive(self, data: bytes) -> None:
        """Take encrypted bytes of the peer."""
        greeted = self.tls.established
        if not greeted and not self._is_handshake(data):
            self._refuse_plain()
            return
        try:
            plain = self._open(data)
        except ClientDisconnected:
            self.lose()
            return
        if self.tls.failure is not None:
            self._break(self.tls.failure)
            return
        if self.tls.established and not greeted:
            self.since = self.worker.now  # the request has its own time
            self.own = {**self.own, **self.tls.variables()}
        self._go_on(plain)

    def _is_handshake(self, data: bytes) -> bool:
        if len(self.beginning) < FIRST_BYTES:
            self.beginning = (self.beginning + data[:FIRST_BYTES])[:FIRST_BYTES]
        return self.beginning[0] == _HANDSHAKE

    def _open(self, data: bytes) -> bytes:
        """Decrypt, and send what TLS has to say meanwhile.  Raises ClientDisconnected."""
        with self.lock:
            if self.gone:
                raise ClientDisconnected("the peer is gone")
            plain = self.tls.open(data)
            self._say_sealed(self.tls.outgoing())
        return plain

    def _go_on(self, plain: bytes) -> None:
        """Serve what was decrypted, and see whether it was the last."""
        if plain:
            super().receive(plain)
        if self.tls.ended and not self.closed:
            self.end_of_file()
        elif self.output.size and not self.closed:
            self.settle()

    def end_of_file(self) -> None:
        """The peer's end, by TLS or without it: what was cut off is no request either way."""
        if not self.tls.established and self.beginning:
            self.worker.log.info("%s: left in the middle of the TLS handshake", self.peer)
        super().end_of_file()

    # Refusing

    def _refuse_plain(self) -> None:
        """Say so to a peer that does not speak TLS, in its own language, once that is clear."""
        found = explain(self.beginning, "tls")
        if found is None and len(self.beginning) < FIRST_BYTES:
            return
        reason, reply = found or ("what arrived on a TLS bind is no TLS", b"")
        self.worker.log.warning("%s: %s", self.peer, reason)
        with suppress(ClientDisconnected), self.lock:
            self._say_sealed(reply)
        self.stop_reading()
        self.settle()

    def _break(self, failure: ssl.SSLError) -> None:
        """Nothing can be read or sent any more; the alert that says so is sent.

        What was asked for and not begun does not run: nobody would hear the answer.
        """
        what = "TLS broke off" if self.tls.established else "the TLS handshake failed"
        self.worker.log.warning("%s: %s: %s", self.peer, what, reason_of(failure))
        self.ending = True
        self.drop_intake()
        self.stop_reading()
        self.settle()

    def unfinished(self) -> str:
        if not self.tls.established and self.beginning:
            return "the TLS handshake did not end in time"
        return super().unfinished()

    # Sending

    def write(
        self, data: bytes, rest: bytes = b"", tail: bytes = b"", *, wait: bool = False
    ) -> float:
        """As for any connection; a large piece is encrypted bit by bit."""
        if tail:  # a record and a send of its own would cost more than the copy
            data = b"".join((data, rest, tail))
        elif rest:
            self.write(data)
            data = rest
        if not data:
            return 0.0
        with self.lock:
            if self.gone:
                raise ClientDisconnected("the peer is gone")
            try:
                if not self.output.size and len(data) <= _PIECE:
                    if self._send_at_once(self.tls.seal(data)):
                        return 0.0
                else:
                    self._write_bit_by_bit(memoryview(data))
            except OSError as error:
                self._drop()
                raise disconnected(error) from None
        return self._queued(wait=wait)

    def write_parts(self, parts: list[Any]) -> None:
        """All of it is copied when it is encrypted."""
        self.write(b"".join(parts))

    def _send_at_once(self, records: bytes) -> bool:
        """Send while nothing waits; False if a part waits now.  Under the lock."""
        try:
            sent = self.sock.send(records)
        except (BlockingIOError, InterruptedError):
            sent = 0
        if sent == len(records):
            return True
        self.pace = None
        self.output.append_sealed(memoryview(records)[sent:])
        return False

    def _write_bit_by_bit(self, data: memoryview) -> None:
        if not self.output.size:
            self.pace = None
        for start in range(0, len(data), _PIECE):
            self.output.append(data[start : start + _PIECE])
            self._flush()

    def _say_sealed(self, records: bytes) -> None:
        """Send what TLS itself says; under the lock.  Raises ClientDisconnected."""
        if not records:
            return
        try:
            if self.output.size:
                self.unheard += len(records)
                self.output.append_sealed(records)
                self._flush()
            else:
                self.unheard = 0
                self._send_at_once(records)
        except OSError as error:
            self._drop()
            raise ClientDisconnected(str(error)) from None
        if self.unheard > _MOST_UNHEARD:
            self._drop()
            raise TakesTooLittle

    def _begin_close(self) -> None:
        """Not without a goodbye: an answer that ends with the connection would seem to be cut.

        One that is cut gets none, so that the peer can tell (RFC 9112 section 9.8).
        """
        owed = self.tls.established and not (self.said_goodbye or self.gone or self.reset)
        if owed and self.tls.failure is None:
            self.said_goodbye = True
            with suppress(ClientDisconnected), self.lock:
                self._say_sealed(self.tls.goodbye())
            if self.output.size:
                self.settle()  # when it is out
                return
        super()._begin_close()
