"""The uwsgi protocol to requests and back.

One request a connection: four bytes (modifier1, size of the block as a
little-endian 16-bit number, modifier2), the block of names and values, each
after its own 16-bit length, and exactly CONTENT_LENGTH bytes of body (the uWSGI
documentation, "The uwsgi Protocol").  The answer is an HTTP head, without
chunks: neither nginx nor mod_proxy_uwsgi decodes them.

Only modifier1 0, a WSGI request, is served.  A body whose length nobody
announces cannot be told from nothing, so it is refused.
"""

from __future__ import annotations

from struct import Struct
from typing import ClassVar, Final

from protocols.cgi import drop_foreign, is_cut_short, is_length, refusal_http, variables
from protocols.model import CLAIM_MARK, CLAIMS, ProtocolError, Request
from protocols.native import mypyc_attr
from protocols.single import SingleRequestCodec
from protocols.speed import uwsgi_pairs, uwsgi_request

HEADER: Final = Struct("<BHB")
_SIZE: Final = Struct("<H")

#: What modifier1 asks for elsewhere; for the log.
_MODIFIERS: Final = {
    5: "Perl",
    6: "Lua",
    7: "Ruby",
    8: "Java",
    9: "CGI",
    14: "PHP",
    15: "Mono",
    17: "a spooler",
    18: "a function in C",
    22: "code to run",
    23: "XSLT",
    30: "WSGI with SCRIPT_NAME still in PATH_INFO, for which --script-name is here",
    100: "a ping",
    173: "a remote procedure call",
    224: "a subscription",
}


def _refusal(status: str, reason: str) -> ProtocolError:
    return ProtocolError(f"{status[:3]} {reason}", refusal_http(status, reason))


@mypyc_attr(allow_interpreted_subclasses=True)
class UwsgiCodec(SingleRequestCodec):
    """One uwsgi request; the connection closes after its answer."""

    block: ClassVar[str] = "uwsgi variables"
    heads_of: ClassVar[str] = "uwsgi"

    def read_size(self, data: bytes) -> tuple[int, int]:
        """Where the block starts and ends; what is wrong is said as early as it shows."""
        if data[0]:
            what = _MODIFIERS.get(data[0], "something else")
            raise _refusal(
                "400 Bad Request",
                f"modifier1 is {data[0]} ({what}): only 0, a WSGI request, is served; "
                "remove uwsgi_modifier1",
            )
        if len(data) < HEADER.size:
            return 0, 0
        _, size, modifier2 = HEADER.unpack_from(data)
        if modifier2:
            raise _refusal(
                "400 Bad Request",
                f"modifier2 is {modifier2}: only 0 is served; remove uwsgi_modifier2",
            )
        if size > self.limits.request_header_total:
            raise _refusal(
                "431 Request Header Fields Too Large", "the uwsgi variables are too large"
            )
        return HEADER.size, HEADER.size + size

    def whole(self, data: bytes) -> Request | None:
        """A request that says nothing of a body."""
        limits = self.limits
        environ = uwsgi_request(data, limits.base)
        if (
            environ is None
            or environ.get("CONTENT_LENGTH")
            or "HTTP_TRANSFER_ENCODING" in environ
            or "" in environ
            or len(data) > limits.request_header_total
        ):
            return None
        drop_foreign(environ)
        return self.open(environ, 0)

    def decode(self, block: bytes) -> Request:
        """The request of a block of variables."""
        environ = uwsgi_pairs(block)
        if environ is None:
            environ = _pairs(block)
        if "" in environ:
            raise _refusal("400 Bad Request", "a uwsgi variable has an empty name")
        length = _body_length(environ)
        drop_foreign(environ)
        if block.find(CLAIM_MARK) >= 0:
            environ[CLAIMS] = ""
        if length or environ.get("CONTENT_LENGTH"):
            environ["CONTENT_LENGTH"] = str(length)
        if self.limits.request_body and length > self.limits.request_body:
            raise _refusal("413 Content Too Large", "the request body is too large")
        environ.update(self.limits.base)
        return self.open(environ, length)

    def encode_head(self, status: str, lines: str) -> bytes:
        """A status line first: mod_proxy_uwsgi takes nothing else.

        No Connection field: Apache would close its client's connection.
        """
        return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode("latin-1")


def _pairs(block: bytes) -> dict[str, str]:
    """The pairs of a block.  Raises ProtocolError if a length leads beyond it."""
    text = block.decode("latin-1")
    unpack = _SIZE.unpack_from
    end = len(block)
    parts: list[str] = []
    position = 0
    while position < end:
        if end - position < 2:
            break
        start = position + 2
        position = start + unpack(block, position)[0]
        parts.append(text[start:position])
    if position != end or len(parts) % 2:
        raise _refusal("400 Bad Request", "the uwsgi variables are not pairs of the given size")
    names, values = parts[::2], parts[1::2]
    lengths = {value for name, value in zip(names, values, strict=True) if name == "CONTENT_LENGTH"}
    if len(lengths) > 1:
        raise _refusal("400 Bad Request", "CONTENT_LENGTH is there twice, and not the same")
    return variables(names, values)


def _body_length(environ: dict[str, str]) -> int:
    """The length of the body, which only CONTENT_LENGTH tells; nothing there is no body."""
    text = environ.get("CONTENT_LENGTH", "")
    if text and not is_length(text):
        raise _refusal("400 Bad Request", "CONTENT_LENGTH must be digits")
    if not text and "HTTP_TRANSFER_ENCODING" in environ:
        raise _refusal("411 Length Required", "a chunked body needs CONTENT_LENGTH")
    length = int(text or 0)
    if "HTTP_CONTENT_LENGTH" in environ:
        announced = environ["HTTP_CONTENT_LENGTH"]
        if is_cut_short(length, announced):
            raise _refusal(
                "400 Bad Request",
                f"CONTENT_LENGTH is {length} but the client announced {int(announced)}",
            )
    return length
