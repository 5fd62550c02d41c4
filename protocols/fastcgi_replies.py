"""The sending half of FastCGI: answers in FCGI_STDOUT records (sections 5.3 and 5.5)."""

from __future__ import annotations

from typing import ClassVar

from protocols.cgi import CgiCodec, refusal_head
from protocols.fastcgi_records import (
    MAX_CONTENT,
    OVERLOADED,
    REQUEST_COMPLETE,
    STDERR,
    STDOUT,
    end_request,
    record_edges,
    stream_end,
    stream_records,
    whole_answer,
)
from protocols.model import UNAVAILABLE, Headers, Request
from protocols.native import mypyc_attr
from protocols.speed import fastcgi_answer


def refusal_records(number: int, status: str, reason: str) -> bytes:
    """A whole answer that refuses one request."""
    return whole_answer(number, refusal_head(status, reason))


@mypyc_attr(allow_interpreted_subclasses=True)
class FastCgiReplies(CgiCodec):
    """How answers are framed."""

    most_framed: ClassVar[int] = MAX_CONTENT
    frames_files: ClassVar[bool] = True

    def head(self, request: Request, status: str, headers: Headers, length: int) -> bytes:
        """The head in an FCGI_STDOUT record."""
        return stream_records(
            STDOUT, request.stream, super().head(request, status, headers, length)
        )

    def body(self, request: Request, data: bytes) -> bytes:
        """The piece in FCGI_STDOUT records."""
        return stream_records(STDOUT, request.stream, super().body(request, data))

    def edges(self, request: Request, size: int) -> tuple[bytes, bytes]:
        """Header and padding of the one FCGI_STDOUT record that the piece becomes."""
        super().edges(request, size)
        return record_edges(STDOUT, request.stream, size)

    def end(self, request: Request) -> bytes:
        """The end of FCGI_STDOUT and FCGI_END_REQUEST."""
        request.ended = True
        number = request.stream
        return stream_end(STDOUT, number) + end_request(number, 0, REQUEST_COMPLETE)

    def reply(self, request: Request, status: str, headers: Headers, data: bytes) -> bytes:
        """Head and body in one record where they fit."""
        head = super().head(request, status, headers, len(data))
        if request.head_only:
            data = b""
        request.ended = True
        return fastcgi_answer(request.stream, head, data) or whole_answer(
            request.stream, head + data
        )

    def overloaded(self, request: Request, headers: Headers, data: bytes) -> bytes:
        """The client gets a 503, and the front end is told FCGI_OVERLOADED (section 5.5)."""
        reply = self.reply(request, UNAVAILABLE, headers, data)
        complete = end_request(request.stream, 0, REQUEST_COMPLETE)
        return reply.removesuffix(complete) + end_request(request.stream, 0, OVERLOADED)

    def errors(self, request: Request, text: str) -> bytes:
        """The whole of ``wsgi.errors`` in FCGI_STDERR records; at most once a request."""
        data = text.encode("utf-8", "backslashreplace")
        return stream_records(STDERR, request.stream, data) + stream_end(STDERR, request.stream)
