"""FastCGI 1.0 to requests and back (the FastCGI specification, sections 3 to 6).

Strategy: records are cut from the buffer and handed to one method a type.
PARAMS is a stream: a pair may be cut anywhere between records, so it is decoded
only after its empty record.  Several requests share the connection; what
concerns one of them is answered on its stream, and only a record that cannot
be right ends the connection.

Whether a request is still active is read from its ``ended`` flag, which the
replying side sets, so that receiving and replying share no table.
"""

from __future__ import annotations

from struct import Struct
from typing import ClassVar, Final

from protocols.cgi import FOREIGN, body_length
from protocols.fastcgi_records import (
    ABORT_REQUEST,
    BEGIN_REQUEST,
    CANT_MPX_CONN,
    DATA,
    GET_VALUES,
    HEADER,
    KEEP_CONN,
    OVERLOADED,
    PARAMS,
    REQUEST_COMPLETE,
    RESPONDER,
    ROLES,
    STDIN,
    UNKNOWN_ROLE,
    decode_pairs,
    end_request,
    unknown_type,
    values_result,
    whole_request,
)
from protocols.fastcgi_replies import FastCgiReplies, refusal_records
from protocols.fastcgi_stream import Stream, variables_of
from protocols.model import (
    UNKNOWN,
    Abort,
    Body,
    Data,
    Event,
    Limits,
    ProtocolError,
    Request,
)
from protocols.native import mypyc_attr

_BEGIN_BODY: Final = Struct(">HB5x")
_TO_APPLICATION: Final = frozenset({PARAMS, STDIN, DATA, ABORT_REQUEST})


@mypyc_attr(allow_interpreted_subclasses=True)
class FastCgiCodec(FastCgiReplies):
    """The application's side of one FastCGI connection."""

    concurrent: ClassVar[bool] = True
    marks_claims: ClassVar[bool] = True
    starts_with_base: ClassVar[bool] = True
    raw_body: ClassVar[bool] = False

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._buffer = bytearray()
        self._needed = 8
        self._streams: dict[int, Stream] = {}
        self._events: list[Event] = []
        self._said: list[bytes] = []  # for the outbox, in this call

    # Receiving

    def receive(self, data: bytes) -> list[Event]:
        """Return the events of the complete records in ``data`` (section 3.3)."""
        if self.closing:
            return []
        buffer = self._buffer
        if buffer:
            buffer += data
            if len(buffer) < self._needed:
                self._check_version(buffer)
                return []
            data = bytes(buffer)
            buffer.clear()
        else:
            whole = whole_request(data, FOREIGN, self.limits.base)
            if whole is not None:
                request = self._whole(data, *whole)
                if request is not None:
                    return [request]
        events: list[Event] = []
        self._events = events
        try:
            position = self._records(data)
            if position < len(data) and not self.closing:
                buffer += data[position:]
                self._check_version(buffer)
        except ProtocolError as error:
            self.closing = True
            self._settle()
            error.events = events
            raise
        self._settle()
        return events

    def _whole(
        self, data: bytes, number: int, flags: int, environ: dict[str, str], body: bytes
    ) -> Request | None:
        """The request of a Responder that is all of ``data``; None if it has to be judged."""
        limits = self.limits
        streams = self._streams
        stream = streams.get(number)
        if stream is None:
            if len(streams) >= limits.multiplex or RESPONDER not in limits.roles:
                return None
            stream = Stream(RESPONDER, False)
        elif not stream.stdin_done or stream.role != RESPONDER:
            return None
        if len(data) > limits.request_header_total or len(body) > limits.request_body > 0:
            return None
        try:
            length = body_length(environ)
        except ValueError:
            return None
        if length not in (UNKNOWN, len(body)):
            return None
        streams[number] = stream
        stream.keep = bool(flags & KEEP_CONN) and limits.keep_alive
        stream.stdin_done = True
        return stream.open(number, environ, length, body)

    def receive_eof(self) -> list[Event]:
        """Raise ProtocolError if requests were cut off; a bare connect is silent."""
        cut = bool(self._buffer) or any(stream.arriving for stream in self._streams.values())
        self.closing = True
        if cut:
            raise ProtocolError("the front end left in the middle of a request")
        return []

    def is_between_requests(self) -> bool:
        """Whether every request that was begun is answered."""
        self._forget_ended()
        return not (self._buffer or self._streams or self.closing)

    def _check_version(self, buffer: bytearray) -> None:
        if buffer[0] != 1:
            self.closing = True
            raise ProtocolError(f"FastCGI version {buffer[0]} is not known, only 1")

    def _records(self, data: bytes) -> int:
        """Handle the whole records in ``data``; return where the rest starts."""
        position = 0
        size = len(data)
        while size - position >= 8 and not self.closing:
            version, kind, number, length, padding = HEADER.unpack_from(data, position)
            if version != 1:
                raise ProtocolError(f"FastCGI version {version} is not known, only 1")
            start = position + 8
            after = start + length + padding
            if after > size:
                self._needed = after - position
                return position
            content = data[start : start + length]
            position = after
            if number == 0:
                self._management(kind, content)
            elif kind == BEGIN_REQUEST:
                self._begin(number, content)
            else:
                self._application(kind, number, content)
        self._needed = 8
        return position

    def _settle(self) -> None:
        """Requests of earlier buffers get their bodies in events of their own."""
        for stream in self._streams.values():
            stream.fresh = False
        if self._said:
            self.outbox += b"".join(self._said)
            self._said.clear()

    # Management records (section 4)

    def _management(self, kind: int, content: bytes) -> None:
        if kind == GET_VALUES:
            values = {
                "FCGI_MAX_CONNS": self.limits.connections,
                "FCGI_MAX_REQS": self.limits.connections * self.limits.multiplex,
                "FCGI_MPXS_CONNS": int(self.limits.multiplex > 1),
            }
            try:
                asked = decode_pairs(content)
            except ValueError as error:
                raise ProtocolError(f"FCGI_GET_VALUES: {error}") from None
            self._said.append(
                values_result({name: values[name] for name in asked if name in values})
            )
        elif BEGIN_REQUEST <= kind <= DATA:
            raise ProtocolError(f"a FastCGI record of type {kind} has no request id")
        else:
            self._said.append(unknown_type(kind))

    # Application records (section 5)

    def _begin(self, number: int, content: bytes) -> None:
        if len(content) != 8:
            raise ProtocolError("FCGI_BEGIN_REQUEST has the wrong length")
        role_number, flags = _BEGIN_BODY.unpack(content)
        keep = bool(flags & KEEP_CONN) and self.limits.keep_alive
        streams = self._streams
        # A peer should wait for the end of a request before it uses its number
        # again (section 3.3).  Whether it did cannot be told from the bytes, so
        # a whole request makes room; the driver answers one number in turn.
        known = streams.get(number)
        if known is not None:
            if known.arriving:
                raise ProtocolError(f"FastCGI request {number} was begun twice")
            del streams[number]
        role = ROLES.get(role_number, "")
        if role not in self.limits.roles:
            self.refusals.append(f"FastCGI role {role_number} is not served")
            self._refuse_stream(number, keep, UNKNOWN_ROLE)
            return
        if len(streams) >= self.limits.multiplex:
            self._forget_ended()
            if len(streams) >= self.limits.multiplex:
                full = CANT_MPX_CONN if self.limits.multiplex == 1 else OVERLOADED
                self._refuse_stream(number, True, full)
                return
        streams[number] = Stream(role, keep)

    def _forget_ended(self) -> None:
        for number, stream in list(self._streams.items()):
            if stream.request is not None and stream.request.ended:
                del self._streams[number]

    def _refuse_stream(self, number: int, keep: bool, protocol_status: int) -> None:
        """End a request that is not served; its later records are ignored (section 3.3)."""
        self._streams.pop(number, None)
        self._said.append(end_request(number, 0, protocol_status))
        if not keep:
            self.closing = True

    def _application(self, kind: int, number: int, content: bytes) -> None:
        stream = self._streams.get(number)
        if kind not in _TO_APPLICATION:
            if kind > DATA:
                self._said.append(unknown_type(kind))
                return
            raise ProtocolError(f"a FastCGI record of type {kind} comes only from a server")
        if stream is None or (stream.request is not None and stream.request.ended):
            return
        if kind == PARAMS:
            self._params(number, stream, content)
        elif kind == ABORT_REQUEST:
            self._abort(number, stream)
        elif stream.request is None:
            raise self._broken(number, "body data before the end of FCGI_PARAMS")
        elif kind == STDIN:
            self._stdin(number, stream, stream.request, content)
        else:
            self._data(number, stream, stream.request, content)

    def _params(self, number: int, stream: Stream, content: bytes) -> None:
        if stream.request is not None:
            if content:
                raise ProtocolError("FCGI_PARAMS after its end")
            return
        if content:
            stream.size += len(content)
            if stream.size > self.limits.request_header_total:
                self._answer_stream(
                    number,
                    stream,
                    "431 Request Header Fields Too Large",
                    "the FastCGI parameters are too large",
                )
                return
            stream.params.append(content)
            return
        block = stream.params[0] if len(stream.params) == 1 else b"".join(stream.params)
        stream.params.clear()
        try:
            environ = variables_of(block)
            length = body_length(environ)
            if stream.role == "filter":
                stream.data_length = body_length(environ, "FCGI_DATA_LENGTH")
        except ValueError as error:
            raise self._broken(number, f"FCGI_PARAMS: {error}") from None
        if self.limits.request_body and length > self.limits.request_body:
            self._answer_stream(
                number, stream, "413 Content Too Large", "the request body is too large"
            )
            return
        environ.update(self.limits.base)
        request = stream.open(number, environ, length, b"")
        request.more = True
        if stream.role != RESPONDER:
            environ["FCGI_ROLE"] = stream.role.upper()
        if stream.role == "authorizer":
            request.length = 0
            request.more = False
        stream.fresh = True
        self._events.append(request)

    def _stdin(self, number: int, stream: Stream, request: Request, content: bytes) -> None:
        if stream.stdin_done:
            if content and stream.role != "authorizer":
                raise ProtocolError("FCGI_STDIN after its end")
        elif content:
            stream.received += len(content)
            limit = self.limits.request_body
            if limit and stream.received > limit:
                self._answer_stream(
                    number, stream, "413 Content Too Large", "the request body is too large"
                )
            elif stream.fresh:
                request.body += content
            else:
                self._events.append(Body(number, content, True))
        elif request.length not in (UNKNOWN, stream.received):
            # Section 6.2: a Responder compares the two and does not go on.
            self._answer_stream(
                number,
                stream,
                "400 Bad Request",
                f"CONTENT_LENGTH is {request.length} but the body has {stream.received} bytes",
            )
        else:
            stream.stdin_done = True
            self._complete(stream, Body(number, b"", False))

    def _data(self, number: int, stream: Stream, request: Request, content: bytes) -> None:
        """FCGI_DATA, the file that a Filter works on (section 6.4)."""
        if stream.data_done:
            if content:
                raise ProtocolError("FCGI_DATA where none is due")
        elif content:
            stream.data_received += len(content)
            limit = self.limits.request_body
            if limit and stream.data_received > limit:
                self._answer_stream(
                    number, stream, "413 Content Too Large", "the filter's data is too large"
                )
            else:
                self._events.append(Data(number, content, True))
        elif stream.data_length not in (UNKNOWN, stream.data_received):
            self._answer_stream(
                number,
                stream,
                "400 Bad Request",
                f"FCGI_DATA_LENGTH is {stream.data_length}, not {stream.data_received}",
            )
        else:
            stream.data_done = True
            self._complete(stream, Data(number, b"", False))

    def _complete(self, stream: Stream, last: Body) -> None:
        """A stream of the request ended; the request is whole when both have."""
        request = stream.request
        assert request is not None
        if not (stream.stdin_done and stream.data_done):
            return
        if stream.fresh and type(last) is not Data:
            request.more = False
        else:
            self._events.append(last)

    def _abort(self, number: int, stream: Stream) -> None:
        """FCGI_ABORT_REQUEST (section 5.4): answered here unless the request may be running."""
        request = stream.request
        if request is not None:
            self._events.append(Abort(number))
            if not stream.arriving:
                return
            request.ended = True
        del self._streams[number]
        self._said.append(end_request(number, 0, REQUEST_COMPLETE))
        if not stream.keep:
            self.closing = True

    def _answer_stream(self, number: int, stream: Stream, status: str, reason: str) -> None:
        """Refuse one request with an answer; the connection stays sound."""
        request = stream.request
        if request is not None:
            request.ended = True
            self._events.append(Abort(number))
        del self._streams[number]
        self.refusals.append(f"{status[:3]} {reason}")
        self._said.append(refusal_records(number, status, reason))
        if not stream.keep:
            self.closing = True

    def _broken(self, number: int, reason: str) -> ProtocolError:
        del self._streams[number]
        return ProtocolError(reason, refusal_records(number, "400 Bad Request", reason))
