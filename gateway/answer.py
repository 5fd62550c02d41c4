"""An answer on its way out: head, pieces, end, and what is said when there is none."""

from __future__ import annotations

import os
import sys
from functools import partial
from logging import DEBUG, INFO
from typing import Any, Final

from gateway.carrier import Carrier
from gateway.disconnects import AnswerLost, ClientDisconnected, TakesTooLittle
from gateway.environ import text_of
from gateway.filerange import FileRange, FramedRange
from gateway.filewrapper import FileWrapper
from gateway.scoreboard import LostRequest
from protocols.model import UNAVAILABLE, UNKNOWN, Headers, Request

#: What has become of a request's deadline.
IN_TIME: Final = 0
EXPIRED: Final = 1
ABANDONED: Final = 2

#: Bytes of a body that is not joined with its head.
_LARGE: Final = 32768

#: Bytes of a piece that is not copied between what frames it.
_UNCOPIED: Final = 16_384

#: Whether somebody still wants the answer is asked of a request that waited longer
#: for its turn; seconds.
LATE: Final = 1.0

_WORTH_A_WORD: Final = 0.05

#: What a client that is refused is told to wait, seconds.
_RETRY_AFTER: Final = "5"


class Overloaded(Exception):
    """The request waited too long for its turn."""


class ApplicationError(Exception):
    """The application broke PEP 3333; the message says how."""


class Answer:
    """The answer to one request.  What is here is the server's code only."""

    __slots__ = (
        "announced",
        "clock",
        "codec",
        "connection",
        "deferred",
        "errors",
        "expired",
        "headers",
        "in_app",
        "iterable",
        "request",
        "sent",
        "serial",
        "started",
        "status",
        "waited",
        "worker",
    )

    #: Since when the application has had the request (monotonic); moved on by
    #: the time in which it waited for a slow client.
    clock: float

    #: How long it waited for a thread, seconds.
    waited: float

    def __init__(self, connection: Carrier, request: Request) -> None:
        self.connection: Carrier = connection
        self.codec = connection.codec
        self.worker = connection.worker
        self.request: Request = request
        self.status: str | None = None
        self.headers: Headers = ()
        self.announced = UNKNOWN  # by the application, in Content-Length
        self.started = False  # the head is out
        self.deferred = False  # the loop sends a file and then finishes
        self.sent: int = 0
        # Of the exchange; here because a constructor of its own would cost a call more.
        self.iterable: Any = None
        self.in_app = False
        self.expired = IN_TIME
        self.serial = connection.worker.next_serial()
        #: What the application wrote to wsgi.errors, if the front end gets it too.
        self.errors: list[str] | None = None

    def file_sent(self) -> None:
        """The file is sent, or its client gone: its iterable can be closed."""
        raise NotImplementedError

    def _send_whole(self, data: Any) -> None:
        """A body that is whole: one head with its length, one send."""
        status = self.status
        if status is None or self.worker.retiring:
            status = self._checked_status()
        if not isinstance(data, bytes):
            raise TypeError(f"the application must yield bytes, not {type(data).__name__}")
        request = self.request
        declared = self.announced
        if self.errors is not None or not (
            declared == UNKNOWN or declared == len(data) or request.head_only
        ):
            if data and self._send(data, len(data)):
                self._too_long()
            self._finish()
            return
        if len(data) >= _LARGE and self.codec.most_framed and not request.head_only:
            self._send_large(status, data)
            return
        reply = self.codec.reply(request, status, self.headers, data)
        self.started = True
        self.sent = 0 if request.head_only else len(data)
        if not request.keep_alive:
            self.connection.send_flags = self.connection.service.last_flags
        self.connection.write(reply)

    def _send_large(self, status: str, data: bytes) -> None:
        """A body that is too large to be copied behind its head."""
        request, codec = self.request, self.codec
        head = codec.head(request, status, self.headers, len(data))
        self.started = True
        if request.head_only:  # a 304, say
            self.connection.write(head + codec.end(request))
            return
        self.sent = len(data)
        if len(data) <= codec.most_framed:
            before, behind = codec.edges(request, len(data))
            self.connection.write(head + before, data, behind + codec.end(request))
            return
        parts: list[Any] = [head]
        view = memoryview(data)
        for start in range(0, len(data), codec.most_framed):
            piece = view[start : start + codec.most_framed]
            before, behind = codec.edges(request, len(piece))
            parts += (before, piece, behind)
        parts.append(codec.end(request))
        self.connection.write_parts(parts)

    def _send_file(self, wrapper: FileWrapper) -> bool:
        """Let the loop send the file; False if it has to be iterated."""
        request = self.request
        codec = self.codec
        if self.started or request.head_only or not (codec.raw_body or codec.frames_files):
            return False
        if not codec.raw_body and self.connection.has_framed_file():
            return False  # each that waits holds a descriptor
        piece = wrapper.file_range()
        if piece is None or (not codec.raw_body and piece.count <= codec.most_framed):
            return False  # what fits in one record is as well read
        status = self._checked_status()
        declared = self.announced
        if declared > piece.count or not piece.count:
            return False
        if declared != UNKNOWN:
            piece.count = declared
        head = self.codec.head(request, status, self.headers, piece.count)
        if request.head_only or request.chunked:  # a 304, say
            self.started = True
            self.connection.write(head + self.codec.end(request))
            return True
        self.started = True
        self.sent = piece.count
        self.deferred = True
        piece.release = self.file_sent
        if codec.raw_body:
            request.ended = True
            self.connection.write_file(head, piece)
        else:
            self._send_framed_file(head, piece)
        return True

    def _send_framed_file(self, head: bytes, piece: FileRange) -> None:
        """What stands between records of a file; the loop has the kernel send the rest."""
        codec, request = self.codec, self.request
        edges = partial(codec.edges, request)
        tail = codec.errors(request, "".join(self.errors)) if self.errors else b""
        tail += codec.end(request)
        request.ended = False  # until the file is sent
        framed = FramedRange(piece, request, codec.most_framed, edges, self._file_cut)
        self.connection.write_file(head, framed, tail)

    def _file_cut(self) -> None:
        self._log_error("the file was cut while it was sent: the answer is shorter than announced")
        self.connection.cut(self.request)

    def _send(self, piece: bytes, length: int = UNKNOWN) -> bool:
        """Send a piece, with the head before the first; True if it was too long and was cut."""
        request = self.request
        out = b""
        if not self.started:
            out = self.codec.head(request, self._checked_status(), self.headers, length)
            self.started = True
            self.connection.wrote = 0.0
        owed = request.remaining
        too_long = UNKNOWN != owed < len(piece) and not request.head_only
        if too_long:
            piece = piece[:owed]
        size = len(piece)
        if _UNCOPIED <= size <= self.codec.most_framed and not request.head_only:
            self._send_uncopied(out, piece, size)
            return too_long
        out += self.codec.body(request, piece)
        if not request.head_only:
            self.sent += size
        if out:
            self.clock += self.connection.write(out, wait=True)
        return too_long

    def _send_uncopied(self, out: bytes, piece: bytes, size: int) -> None:
        """Send a piece of an answer behind ``out``, the head or nothing."""
        before, behind = self.codec.edges(self.request, size)
        out += before
        self.sent += size
        connection = self.connection
        if out:
            self.clock += connection.write(out, piece, behind, wait=True)
        else:
            self.clock += connection.write(piece, wait=True)

    def _finish(self) -> None:
        """End the answer, or cut it if it is shorter than announced."""
        request = self.request
        out = b""
        if not self.started:
            out = self.codec.head(request, self._checked_status(), self.headers, 0)
            self.started = True
        if request.remaining > 0 and not request.head_only:
            if out:
                self.connection.write(out)
            self._log_error(f"the answer is {request.remaining} bytes shorter than announced")
            self.connection.cut(request)
            return
        if self.errors:
            out += self.codec.errors(request, "".join(self.errors))
        self.connection.write(out + self.codec.end(request))

    def _checked_status(self) -> str:
        if self.status is None:
            raise ApplicationError("the application answered without calling start_response")
        if self.worker.retiring:
            self._say_goodbye()
        return self.status

    def _say_goodbye(self) -> None:
        """A worker that leaves says so in every head that it still sends."""
        if self.worker.retiring and self.worker.is_last_answer(self.codec):
            self.request.keep_alive = False

    # Failing

    def _too_long(self) -> None:
        """RFC 9112 section 6.3: what follows would be taken for another answer."""
        self._log_error("the answer is longer than its Content-Length")
        self.request.keep_alive = False
        self.connection.closing = True

    def _answer(self, status: str, body: bytes) -> None:
        self.status = status
        self.headers = [("Content-Type", "text/plain; charset=utf-8")]
        self._say_goodbye()
        self._say(self.codec.reply(self.request, status, self.headers, body), len(body))

    def _say(self, reply: bytes, size: int) -> None:
        """Send a whole answer of the server's own, with ``size`` bytes of body."""
        self.started = True
        self.sent = size
        try:
            self.connection.write(reply)
        except ClientDisconnected as error:
            self._disconnected(error)

    # Too many requests

    def _check_wanted(self) -> None:
        """Before a request runs that had to wait.  Raises Overloaded and ClientDisconnected."""
        limit = self.connection.settings.queue_timeout
        if limit and self.waited > limit:
            raise Overloaded
        if self.connection.has_left():
            raise ClientDisconnected("left while its request waited for a thread")

    def _refuse(self) -> None:
        """The request waited too long."""
        body = b"Service Unavailable: too many requests wait.\n"
        self.worker.refusals.warn("%s: refused with a 503%s", self.title(), self.delay())
        self.status = UNAVAILABLE
        self.headers = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Retry-After", _RETRY_AFTER),
        ]
        self._say_goodbye()
        self._say(self.codec.overloaded(self.request, self.headers, body), len(body))

    def _disconnected(self, error: ClientDisconnected) -> None:
        self.request.aborted = True
        if self.codec.concurrent and not self.connection.gone:
            # FastCGI section 5.4: an aborted request still ends with END_REQUEST.
            try:
                self.connection.write(self.codec.end(self.request))
            except ClientDisconnected:
                return
        if isinstance(error, AnswerLost):
            self._log_error(str(error))
            self.connection.cut(self.request)
            return
        level = INFO if isinstance(error, TakesTooLittle) else DEBUG
        self.worker.log.log(level, "%s: %s", self.connection.peer, error)

    # What the logs say

    def identity(self) -> str:
        """The request's id, as the logs give it."""
        return f"{os.getpid()}-{self.serial}"

    def title(self) -> str:
        """Id, method, URI and peer, as the log gives them."""
        get = self.request.environ.get
        method, uri = text_of(get("REQUEST_METHOD", "-")), text_of(get("REQUEST_URI", "-"))
        return f"[{self.identity()}] {method} {uri} from {self.connection.peer}"

    def delay(self) -> str:
        """How long it waited for a thread, as the log gives it; "" if that is not worth a word."""
        return f" after {self.waited:.1f} s in the queue" if self.waited >= _WORTH_A_WORD else ""

    def as_lost(self, now: float) -> LostRequest:
        """What the log has of a request that gets no answer."""
        get = self.request.environ.get
        return LostRequest(
            serial=self.serial,
            started=self.clock,
            age=now - self.clock,
            method=text_of(get("REQUEST_METHOD", "-")),
            uri=text_of(get("REQUEST_URI", "-")),
            server_protocol=text_of(get("SERVER_PROTOCOL", "-")),
            remote_addr=text_of(get("REMOTE_ADDR", "")),
            peer=self.connection.peer,
            protocol=self.connection.service.protocol,
        )

    def _log_error(self, text: str, *, traceback: bool = False) -> None:
        self.worker.log.error(
            "%s: %s", self.title(), text, exc_info=sys.exc_info() if traceback else None
        )
