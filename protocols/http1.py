"""HTTP/1.1 (RFC 9112) to requests and back; ``httptools`` parses the fields.

Strategy: a head is gathered until its empty line, judged as a whole (sizes,
request line, target, Host, framing) and handed to the parser in one piece, so
that limits are exact and any split of the bytes gives the same events.  How
far the buffer was searched is remembered: a head that arrives byte by byte
costs no quadratic time.  Where a message ends is known before the parser is
fed, so what follows it is never swallowed by mistake.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final

import httptools

from protocols.headers import TOKEN
from protocols.http1_bodies import CHUNKED, DONE, END_OF_HEAD, HEAD, SIZED, Http1Bodies
from protocols.http1_head import (
    HOST,
    LENGTH,
    NAMES,
    PATH,
    check_coding,
    check_expectation,
    check_host,
    check_line_ends,
    check_partial,
    check_sizes,
    is_claim,
    malformed_line,
    refusal,
    set_path,
    special_variable,
    split_request_line,
    variable_for,
)
from protocols.http1_memory import LARGEST_HEAD, Memory, is_plain
from protocols.model import (
    CLAIMS,
    Event,
    Interim,
    Limits,
    ProtocolError,
    Request,
)
from protocols.native import mypyc_attr

#: A head starts with none of the bytes up to the space; empty lines may come before it.
_FIRST_BYTES: Final = 32

#: Requests that one call makes of what arrived; the rest is decoded when these have had
#: their turn, for a head of 25 bytes becomes 750 bytes of objects.
_MOST_AT_ONCE: Final = 32

#: Where fields go while no head is parsed; none do.
_NO_FIELDS: Final[dict[str, str]] = {}

_EXPECT: Final = "HTTP_EXPECT"
_TRANSFER_ENCODING: Final = "HTTP_TRANSFER_ENCODING"
_UPGRADE_FIELD: Final = re.compile(rb"(?im)^upgrade(?=:)")


@mypyc_attr(allow_interpreted_subclasses=True)
class Http1Codec(Http1Bodies):
    """HTTP/1.0 and HTTP/1.1, keep-alive and pipelining."""

    origin: ClassVar[bool] = True
    marks_claims: ClassVar[bool] = True
    starts_with_base: ClassVar[bool] = True

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._buffer = bytearray()
        self._searched = 0
        self._line = -1
        self._environ = _NO_FIELDS
        self._trim = False
        self._host: str | None = ""
        self._repeated_host = False
        if limits.memory is None:
            limits.memory = Memory()
        self._memory: Memory = limits.memory
        #: A head up to this size needs no look at its fields and its total.
        self._small_head = min(limits.request_field_size, limits.request_header_total)

    # Receiving

    def receive(self, data: bytes) -> list[Event]:
        """Return the requests and body pieces in ``data`` (RFC 9112 section 2)."""
        at_start = self._state == HEAD and not self._buffer
        if at_start and len(data) <= LARGEST_HEAD:
            known = self._memory.heads.get(data)
            if known is not None:
                return [Request(0, known.copy())]
            known = self._memory.last_heads.get(data)
            if known is not None:
                self._state = DONE
                self.closing = True
                return [Request(0, known.copy(), 0, b"", False, False)]
        events: list[Event] = []
        try:
            if at_start and data.find(END_OF_HEAD) + 4 == len(data) > 4 and data[0] > _FIRST_BYTES:
                self._message(data, events)  # one head and nothing else, as most of the time
            else:
                self._receive_all(data, events)
        except ProtocolError as error:
            self._state = DONE
            self.closing = True
            self._deliver(events)
            error.events = events
            error.reply = self._sign(error.reply)
            raise
        if self._body:
            self._deliver(events)
        return events

    def _receive_all(self, data: bytes, events: list[Event]) -> None:
        position = 0
        while position < len(data):
            if self._state == HEAD:
                if len(events) >= _MOST_AT_ONCE:
                    self.rest = data[position:]
                    break
                position = self._receive_head(data, position, events)
            elif self._state == SIZED:
                position = self._receive_sized(data, position, events)
            elif self._state == CHUNKED:
                position = self._receive_chunked(data, position, events)
            else:
                break

    def receive_eof(self) -> list[Event]:
        """Raise ProtocolError if the peer left in the middle of a message."""
        state, self._state = self._state, DONE
        self.closing = True
        if state in (SIZED, CHUNKED):
            raise ProtocolError("the client left in the middle of a request body")
        if state == HEAD and self._buffer:
            raise ProtocolError("the client left in the middle of a request head")
        return []

    def close(self) -> None:
        """The parser holds callbacks into this codec."""
        self._state = DONE
        self._parser = None

    def _receive_head(self, data: bytes, position: int, events: list[Event]) -> int:
        buffer = self._buffer
        if not buffer:
            if data[position] in b"\r\n":  # empty lines before a request: RFC 9112 section 2.2
                return self._skip_empty_line(data, position)
            end = data.find(END_OF_HEAD, position) + 4
            if end != 3:
                head = data if end == len(data) and position == 0 else data[position:end]
                self._message(head, events)
                return end
        elif buffer[0] == 13:
            if data[position] != 10:
                raise refusal(400, "a carriage return without a line feed")
            buffer.clear()
            return position + 1
        buffer += data[position:]
        end = buffer.find(END_OF_HEAD, max(0, self._searched - 3)) + 4
        if end == 3:
            self._line = check_partial(buffer, self._searched, self._line, self.limits)
            self._searched = len(buffer)
            return len(data)
        head = bytes(buffer[:end])
        position = len(data) - (len(buffer) - end)
        buffer.clear()
        self._searched = 0
        self._line = -1
        self._message(head, events)
        return position

    def _skip_empty_line(self, data: bytes, position: int) -> int:
        if data[position] == 10:
            raise refusal(400, "a line ends without a carriage return")
        if position + 1 == len(data):
            self._buffer += b"\r"
            return position + 1
        if data[position + 1] != 10:
            raise refusal(400, "a carriage return without a line feed")
        return position + 2

    def _message(self, head: bytes, events: list[Event]) -> None:
        """Judge one whole head and append its Request."""
        size = head.find(b"\r\n")
        if size > self.limits.request_line or len(head) > self._small_head:
            check_sizes(head, size, self.limits)
        line, block = head[:size], head[size:]
        start = self._memory.lines.get(line) or self._start(line)
        known = self._memory.blocks.get(block)
        keep_alive = known is not None
        if known is None:
            known = self._memory.last_blocks.get(block)
        if known is not None and PATH in start:
            environ = known | start
            if LENGTH not in environ and environ["REQUEST_METHOD"] != "HEAD":
                self._memory.learn_head(head, environ, keep_alive=keep_alive)
                if keep_alive:
                    events.append(Request(0, environ))
                    return
        else:
            environ = self._parse(head, start)
            keep_alive = self.limits.keep_alive and self._parser_keeps_alive()
            if PATH in start:
                self._memory.learn_block(block, environ, keep_alive=keep_alive)
        self._begin(Request(0, environ, 0, b"", False, keep_alive), events)

    def _begin(self, request: Request, events: list[Event]) -> None:
        """Settle what follows the head of ``request``, and append it."""
        environ = request.environ
        if environ["SERVER_PROTOCOL"] == "HTTP/1.0":
            request.http10 = True
        if environ["REQUEST_METHOD"] == "HEAD":
            request.head_only = True
        if _TRANSFER_ENCODING in environ:
            self._start_chunked(request, environ.pop(_TRANSFER_ENCODING))
        elif LENGTH in environ:
            self._start_sized(request, environ)
        if _EXPECT in environ:
            self._answer_expectation(environ.pop(_EXPECT), request, events)
        events.append(request)
        if request.more:
            self._request = request
        elif not request.keep_alive:
            self._state = DONE
            self.closing = True

    def _start(self, line: bytes) -> dict[str, str]:
        """The variables of a request line; with the path, unless that depends on Host."""
        method, target, version = split_request_line(line)
        start = {
            "REQUEST_METHOD": method,
            "SERVER_PROTOCOL": version,
            "REQUEST_URI": target,
            "SCRIPT_NAME": "",
        }
        if is_plain(method, target, version):
            set_path(start, target)
            self._memory.learn_line(line, start)
        return start

    def _parse(self, head: bytes, start: dict[str, str]) -> dict[str, str]:
        """The environ of a head, by the parser; ``start`` is what its first line gave."""
        if head.count(b"\n") - 2 > self.limits.request_fields:
            check_sizes(head, head.find(b"\r\n"), self.limits)
        environ = self._feed_head(head, start)
        self._environ = _NO_FIELDS  # an idle connection does not keep its last request
        host = environ.get(HOST)
        if host is None or host != self._host or self._repeated_host:
            check_host(host, self._repeated_host, start["SERVER_PROTOCOL"])
            self._host = host
        if PATH not in start:
            set_path(environ, start["REQUEST_URI"])
        return environ

    def _feed_head(self, head: bytes, start: dict[str, str]) -> dict[str, str]:
        """Let the parser add the fields of ``head`` to ``start`` and what all start with."""
        self._environ = environ = self.limits.base | start
        self._trim = b" \r\n" in head or b"\t\r\n" in head
        self._repeated_host = False
        self._complete = False
        if self._parser is None:
            self._parser = httptools.HttpRequestParser(self)
        try:
            self._parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            # An upgrade is an offer, not an order (RFC 9110 section 7.8).  This
            # parser took the rest for another protocol; a fresh one that sees a
            # dropped field instead reads the rest as what it is.
            self._parser = None
            return self._feed_head(_UPGRADE_FIELD.sub(b"te", head), start)
        except httptools.HttpParserInvalidMethodError:
            if TOKEN.fullmatch(start["REQUEST_METHOD"]):
                raise refusal(501, "the method is not implemented") from None
            raise malformed_line(head[: head.find(b"\r")], "the method is malformed") from None
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, ProtocolError):  # raised in on_header
                raise error.__context__ from None
            line = head.find(b"\r\n")
            version = start["SERVER_PROTOCOL"]
            own, known = head[line - len(version) : line], version.encode()
            if own != known:  # a later minor version, which the parser does not know
                self._parser = None
                head = head[: line - len(own)] + known + head[line:]
                return self._feed_head(head, start)
            check_line_ends(head)
            coding = environ.get(_TRANSFER_ENCODING)
            if coding is not None and "invalid `Transfer-Encoding`" in str(error):
                check_coding(coding, version)
            raise refusal(400, f"malformed HTTP: {error}") from None
        return environ

    # Called by the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        """Enter one field; repeated ones are joined (RFC 9110 section 5.3).

        Trailers come here too and are dropped (RFC 9110 section 6.5.1).
        """
        if self._state == CHUNKED:
            return
        variable = NAMES.get(name)
        if variable is None:
            variable = variable_for(name)
        if not variable:
            variable = self._special(name)
            if not variable:
                return
        text = value.decode("latin-1")
        if self._trim:
            text = text.rstrip(" \t")
        environ = self._environ
        if variable in environ:
            if variable == HOST:
                self._repeated_host = True
            separator = "; " if variable == "HTTP_COOKIE" else ","
            text = environ[variable] + separator + text
        environ[variable] = text

    def _special(self, name: bytes) -> str:
        """The variable of a field that is no common one, or "" to drop it."""
        variable = special_variable(name, self.limits.header_map)
        if is_claim(variable):
            self._environ[CLAIMS] = ""
        return variable

    def _answer_expectation(self, expect: str, request: Request, events: list[Event]) -> None:
        """RFC 9110 section 10.1.1."""
        if request.http10:
            return
        check_expectation(expect)
        if request.more and expect:
            events.append(Interim(0, b"HTTP/1.1 100 Continue\r\n\r\n"))
