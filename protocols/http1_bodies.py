"""The bodies of HTTP/1.1 requests: where each ends, how large it may be, what it is made of."""

from __future__ import annotations

from typing import Final

import httptools

from protocols.http1_answer import Http1Answers
from protocols.http1_head import LENGTH, check_coding, refusal
from protocols.model import UNKNOWN, Body, Event, Limits, Request
from protocols.native import mypyc_attr

#: Ends a head, and a chunked body.
END_OF_HEAD: Final = b"\r\n\r\n"

#: What is being read.
HEAD: Final = 0
SIZED: Final = 1
CHUNKED: Final = 2
DONE: Final = 3

#: Bytes of framing that each byte of a chunked body may come with; chunks of one byte
#: have 5.
_FRAMING: Final = 32


@mypyc_attr(allow_interpreted_subclasses=True)
class Http1Bodies(Http1Answers):
    """How bodies are framed (RFC 9112 sections 6 and 7)."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._state = HEAD
        #: None while no message is parsed: a connection whose heads are all remembered
        #: needs none.
        self._parser: httptools.HttpRequestParser | None = None
        self._request: Request | None = None
        self._body: list[bytes] = []
        self._received = 0
        self._framing = 0
        self._tail = b""
        self._complete = False
        self._keep_alive = True

    # What a head says of its body

    def _start_chunked(self, request: Request, coding: str) -> None:
        check_coding(coding, request.environ["SERVER_PROTOCOL"])
        request.length = UNKNOWN
        request.more = True
        self._received = self._framing = 0
        self._tail = b""
        self._state = CHUNKED

    def _start_sized(self, request: Request, environ: dict[str, str]) -> None:
        # Zeros are trimmed because int() takes no text of any length.
        request.length = length = int(environ[LENGTH].lstrip("0") or "0")
        environ[LENGTH] = str(length)
        if self.limits.request_body and length > self.limits.request_body:
            raise refusal(413, "the request body is too large")
        if length:
            request.more = True
            self._received = 0
            self._state = SIZED
            if not self._complete:  # the parser waits for the body, which needs no parsing
                self._parser = None

    # Called by the parser

    def on_body(self, data: bytes) -> None:
        """Take a piece of a body, without its framing."""
        self._received += len(data)
        self._body.append(data)

    def on_message_complete(self) -> None:
        """The parser saw the end of the message."""
        assert self._parser is not None
        self._complete = True
        self._keep_alive = self._parser.should_keep_alive()

    def _parser_keeps_alive(self) -> bool:
        """What the head said of the connection, which a message that is complete has settled."""
        if self._complete:
            return self._keep_alive
        assert self._parser is not None
        return self._parser.should_keep_alive()

    # What came

    def owed(self) -> int:
        """What is missing of a body with Content-Length."""
        request = self._request
        return 0 if request is None or self._state != SIZED else request.length - self._received

    def arrived(self, count: int) -> bool:
        """The body is whole with the last of Content-Length bytes."""
        request = self._request
        assert request is not None
        self._received += count
        if self._received < request.length:
            return False
        self._go_on(request)
        return True

    def _receive_sized(self, data: bytes, position: int, events: list[Event]) -> int:
        request = self._request
        assert request is not None
        end = min(len(data), position + request.length - self._received)
        self._body.append(data[position:end])
        self._received += end - position
        if self._received == request.length:
            self._finish(request, events)
        return end

    def _receive_chunked(self, data: bytes, position: int, events: list[Event]) -> int:
        """Feed up to the next empty line: no chunked message ends anywhere else."""
        request = self._request
        assert request is not None
        tail = self._tail
        end = data.find(END_OF_HEAD, position) + 4
        if end == 3:
            end = len(data)
        if tail:
            across = (tail + data[position : position + 3]).find(END_OF_HEAD) + 4
            if across != 3:
                end = position + across - len(tail)
        piece = data[position:end]
        self._tail = (tail + piece)[-3:] if len(piece) < 3 else piece[-3:]
        received = self._received
        self._feed_body(piece)
        excess = self._received - self.limits.request_body
        if self.limits.request_body and excess > 0:
            self._body = [b"".join(self._body)[:-excess]]
            raise refusal(413, "the request body is too large")
        self._framing += len(piece) - (self._received - received)
        if self._framing > self.limits.request_header_total + _FRAMING * self._received:
            raise refusal(431, "chunk extensions or trailers are too large")
        if self._complete:
            self._finish(request, events)
        return end

    def _feed_body(self, piece: bytes) -> None:
        assert self._parser is not None
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserError as error:
            raise refusal(400, f"malformed HTTP body: {error}") from None

    def _finish(self, request: Request, events: list[Event]) -> None:
        self._deliver(events, more=False)
        self._go_on(request)

    def _go_on(self, request: Request) -> None:
        """Read what follows a body that is whole."""
        self._request = None
        if request.keep_alive:
            self._state = HEAD
            if not self._keep_alive:
                # A trailer said "Connection: close", which only a head can say: this
                # parser would refuse the next request.
                self._parser = None
        else:
            self._state = DONE
            self.closing = True

    def _deliver(self, events: list[Event], *, more: bool = True) -> None:
        """Hand over what was gathered: with its request if that is new, else by itself."""
        request = self._request
        if request is None or (more and not self._body):
            return
        data = b"".join(self._body)
        self._body.clear()
        if more and not data:
            return
        if events and events[-1] is request:
            request.body = data
            request.more = more
        else:
            events.append(Body(0, data, more))
