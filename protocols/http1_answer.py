"""The sending half of HTTP/1.1: heads, chunks and what the protocol itself says."""

from __future__ import annotations

import sys
from typing import ClassVar, Final

from protocols.headers import (
    BODYLESS,
    DATE,
    NOT_MODIFIED,
    RESET_CONTENT,
    SERVER,
    Fields,
    encode_fields,
    status_code,
)
from protocols.headers import CONTENT_LENGTH as HAS_LENGTH
from protocols.http1_head import refusal
from protocols.model import UNKNOWN, Codec, Headers, Request
from protocols.native import mypyc_attr

#: First lines of chunks, by size: pieces are often of the same few.
_CHUNK_LINES: Final[dict[int, bytes]] = {}
_MOST_CHUNK_LINES: Final = 256


def _chunk_line(size: int) -> bytes:
    line = _CHUNK_LINES.get(size)
    if line is None:
        line = b"%x\r\n" % size
        if len(_CHUNK_LINES) < _MOST_CHUNK_LINES:
            _CHUNK_LINES[size] = line
    return line


@mypyc_attr(allow_interpreted_subclasses=True)
class Http1Answers(Codec):
    """How answers are framed (RFC 9112 sections 4, 6 and 7)."""

    #: Field lines of every answer that lacks them (RFC 9110 sections 6.6.1 and
    #: 10.2.4).  The codec has no clock: the driver keeps ``date`` fresh.
    date: ClassVar[bytes] = b""
    server: ClassVar[bytes] = b"Server: gateway\r\n"
    most_framed: ClassVar[int] = sys.maxsize

    def head(self, request: Request, status: str, headers: Headers, length: int) -> bytes:
        """Encode status line and fields (RFC 9112 sections 4 and 6; RFC 9110 section 8.6)."""
        fields = headers if type(headers) is Fields else encode_fields(headers)
        start = fields.heads.get(status)
        if start is None:
            code = status_code(status)
            if code in BODYLESS:
                return self._bodyless_head(request, code, status, headers)
            start = self._constant_part(status, fields)
            fields.keep_head(status, start)
        framing = b""
        if fields.kinds & HAS_LENGTH:
            request.remaining = fields.length
        elif length != UNKNOWN and (length or not request.head_only):
            request.remaining = length
            framing = b"Content-Length: %d\r\n" % length
        elif request.head_only:
            request.remaining = UNKNOWN
        elif request.http10:
            request.until_close = True
            request.keep_alive = False
        else:
            request.chunked = True
            framing = b"Transfer-Encoding: chunked\r\n"
        return self._encode(request, start, fields, framing)

    def _bodyless_head(self, request: Request, code: int, status: str, headers: Headers) -> bytes:
        request.head_only = True
        framing = b""
        if code != NOT_MODIFIED:
            headers = [field for field in headers if field[0].lower() != "content-length"]
        if code == RESET_CONTENT:
            framing = b"Content-Length: 0\r\n"
        fields = encode_fields(headers)
        return self._encode(request, self._constant_part(status, fields), fields, framing)

    def _encode(self, request: Request, head: bytes, fields: Fields, framing: bytes) -> bytes:
        if not fields.kinds & DATE:
            head += self.date
        if not request.keep_alive:
            framing += b"Connection: close\r\n"
        elif request.http10:
            framing += b"Connection: keep-alive\r\n"
        return head + framing + b"\r\n" if framing else head + b"\r\n"

    def _constant_part(self, status: str, fields: Fields) -> bytes:
        """What is the same in every answer with this status and these fields."""
        head = f"HTTP/1.1 {status}\r\n{fields.lines}".encode("latin-1")
        if not fields.kinds & SERVER:
            head += self.server
        return head

    def body(self, request: Request, data: bytes) -> bytes:
        """Frame a piece: as it is, or as a chunk (RFC 9112 section 7.1)."""
        if request.head_only or not data:
            return b""
        if request.chunked:
            return b"%x\r\n%b\r\n" % (len(data), data)
        if request.remaining > 0:
            request.remaining -= len(data)
        return data

    def edges(self, request: Request, size: int) -> tuple[bytes, bytes]:
        """The line before the data of a chunk and the one behind it, where there are chunks."""
        if request.chunked:
            return _chunk_line(size), b"\r\n"
        if request.remaining > 0:
            request.remaining -= size
        return b"", b""

    def end(self, request: Request) -> bytes:
        """The last chunk, where there are chunks."""
        request.ended = True
        return b"0\r\n\r\n" if request.chunked and not request.head_only else b""

    def reply(self, request: Request, status: str, headers: Headers, data: bytes) -> bytes:
        """Head and body at once; a known length needs no chunks."""
        head = self.head(request, status, headers, len(data))
        request.ended = True
        return head if request.head_only else head + data

    def timed_out(self) -> bytes:
        """A 408 (RFC 9110 section 15.5.9)."""
        return self._sign(refusal(408, "the request did not arrive in time").reply)

    def _sign(self, reply: bytes) -> bytes:
        """A refusal with the Date and Server of every answer."""
        return reply.replace(b"\r\n", b"\r\n" + self.date + self.server, 1)

    def resets_to_cut(self, request: Request) -> bool:
        """Only a body that ends with the connection looks whole when it is cut."""
        return request.until_close
