"""What the CGI family (FastCGI, SCGI, uwsgi, CGI) shares: variables in, a head out.

Front ends send RFC 3875 meta-variables; this module turns the pairs into one
dictionary, drops what concerns only the front end's own connection, and
encodes the head of an answer the way that every known front end reads it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import ClassVar, Final

from protocols.headers import BODYLESS, NOT_MODIFIED, Fields, encode_fields, status_code
from protocols.headers import CONTENT_LENGTH as HAS_LENGTH
from protocols.model import UNKNOWN, Codec, Headers, Request
from protocols.native import mypyc_attr

#: Variables that must not reach the application: HTTP_PROXY is
#: httpoxy (CVE-2016-5385); the entity fields have their own variables; the
#: others belong to the connection between client and front end.
FOREIGN: Final = frozenset(
    {
        "HTTP_CONNECTION",
        "HTTP_CONTENT_LENGTH",
        "HTTP_CONTENT_TYPE",
        "HTTP_EXPECT",
        "HTTP_KEEP_ALIVE",
        "HTTP_PROXY",
        "HTTP_PROXY_CONNECTION",
        "HTTP_TE",
        "HTTP_TRAILER",
        "HTTP_TRANSFER_ENCODING",
        "HTTP_UPGRADE",
    }
)

#: A repeated one of these is not a repeated client header but the
#: administrator's own, later, value: the last wins.
_LAST_WINS: Final = frozenset({"HTTP_HOST", "HTTP_AUTHORIZATION"})


def variables(names: Sequence[str], values: Sequence[str]) -> dict[str, str]:
    """One dictionary of what a front end sent."""
    environ = dict(zip(names, values, strict=True))
    if len(environ) != len(names):
        environ.clear()
        for name, value in zip(names, values, strict=True):
            environ[name] = merged(environ, name, value) if name in environ else value
    return environ


def merged(environ: dict[str, str], name: str, value: str) -> str:
    """The value of a variable that is there already.

    A repeated client header arrives as a repeated ``HTTP_*`` and is joined; of
    any other repeated variable the last wins.
    """
    if not name.startswith("HTTP_") or name in _LAST_WINS:
        return value
    separator = "; " if name == "HTTP_COOKIE" else ","
    return environ[name] + separator + value


def drop_foreign(environ: dict[str, str], foreign: frozenset[str] = FOREIGN) -> None:
    """Drop what must not reach the application."""
    if not environ.keys().isdisjoint(foreign):
        for name in foreign.intersection(environ):
            del environ[name]


def body_length(environ: dict[str, str], name: str = "CONTENT_LENGTH") -> int:
    """The announced length of the body, or UNKNOWN.

    Some front ends send an empty string or ``-1`` when they do not know it
    (Caddy for chunked uploads).  Raises ValueError for anything else.
    """
    text = environ.get(name, "")
    if text in ("", "-1"):
        return UNKNOWN
    if not is_length(text):
        raise ValueError(f"{name} must be digits, not {text[:40]!r}")
    return int(text)


def is_length(text: str) -> bool:
    """Whether this is a length: digits, and no more of them than 2**63 has."""
    return len(text) <= 19 and text.isascii() and text.isdigit()


def is_cut_short(length: int, announced: str) -> bool:
    """Whether the client announced more (HTTP_CONTENT_LENGTH) than the front end does.

    The rest of the body would be lost silently.  A length of 0 is meant: a front
    end that only asks for permission sends no body.
    """
    return is_length(announced) and 0 < length < int(announced)


def refusal_head(status: str, reason: str) -> bytes:
    """A whole answer that refuses a request."""
    body = f"{status}: {reason}\n"
    return (
        f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\nStatus: {status}\r\n\r\n{body}"
    ).encode("latin-1", "replace")


def refusal_http(status: str, reason: str) -> bytes:
    """The same for a front end that reads an HTTP status line."""
    body = f"{status}: {reason}\n"
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n{body}".encode("latin-1", "replace")


@mypyc_attr(allow_interpreted_subclasses=True)
class CgiCodec(Codec):
    """The reply half of the CGI family: a head, then the body as it is."""

    #: Of whom are the heads that ``encode_head`` makes.
    heads_of: ClassVar[str] = "CGI"
    most_framed: ClassVar[int] = sys.maxsize

    def head(self, request: Request, status: str, headers: Headers, length: int) -> bytes:
        """Encode the head (RFC 3875 section 6.3), Status last.

        HAProxy 2.6 makes any status a 302 when Location comes after Status.
        """
        fields = headers if type(headers) is Fields else encode_fields(headers)
        known = fields.heads.get((self.heads_of, status))
        if known is not None:
            request.remaining = UNKNOWN if request.head_only else fields.length
            return known
        code = status_code(status)
        if code in BODYLESS:
            request.head_only = True
            if code != NOT_MODIFIED and fields.kinds & HAS_LENGTH:
                fields = encode_fields(without_length(headers))
        lines = fields.lines
        if fields.kinds & HAS_LENGTH:
            request.remaining = UNKNOWN if request.head_only else fields.length
            if code not in BODYLESS:
                head = self.encode_head(status, lines)
                fields.keep_head((self.heads_of, status), head)
                return head
        elif length != UNKNOWN and code not in BODYLESS and (length or not request.head_only):
            request.remaining = UNKNOWN if request.head_only else length
            lines += f"Content-Length: {length}\r\n"
        return self.encode_head(status, lines)

    def encode_head(self, status: str, lines: str) -> bytes:
        """The bytes of a head whose fields are ``lines``."""
        return f"{lines}Status: {status}\r\n\r\n".encode("latin-1")

    def body(self, request: Request, data: bytes) -> bytes:
        """Return the piece, or nothing where the answer has no content."""
        if request.head_only:
            return b""
        if request.remaining > 0:
            request.remaining -= len(data)
        return data

    def edges(self, request: Request, size: int) -> tuple[bytes, bytes]:
        """Nothing: pieces are sent as they are."""
        if request.remaining > 0:
            request.remaining -= size
        return b"", b""

    def end(self, request: Request) -> bytes:
        """Nothing marks the end but the end of the connection."""
        request.ended = True
        return b""


def without_length(headers: Headers) -> Sequence[tuple[str, str]]:
    """The headers without Content-Length, for an answer that has no content."""
    return [field for field in headers if field[0].lower() != "content-length"]
