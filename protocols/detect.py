"""The wrong protocol on a bind: named by its first bytes, answered in its own language."""

from __future__ import annotations

import re
from struct import Struct
from struct import pack as pack_bytes

from protocols.cgi import refusal_head
from protocols.fastcgi_records import (
    BEGIN_REQUEST,
    REQUEST_COMPLETE,
    STDOUT,
    UNKNOWN_TYPE,
    end_request,
    stream_end,
    stream_records,
)
from protocols.http1_head import refusal

_HTTP = re.compile(rb"[A-Z]{2,20} [/*h]")
_SCGI = re.compile(rb"[0-9]{1,9}:CONTENT_")
_PROXY_V2 = b"\r\n\r\n\0\r\nQUIT\n"
_UWSGI_HEAD = Struct("<BHB")

#: nginx's directive for each protocol; Apache's and HAProxy's are called after the protocol.
_DIRECTIVES = {
    "http": "proxy_pass",
    "fastcgi": "fastcgi_pass",
    "scgi": "scgi_pass",
    "uwsgi": "uwsgi_pass",
}
_TITLES = {
    "http": "HTTP",
    "fastcgi": "FastCGI",
    "scgi": "SCGI",
    "uwsgi": "uwsgi",
    "tls": "TLS",
    "http2": "HTTP/2",
    "proxy": "the PROXY protocol",
}

#: RFC 8446 section 6: a fatal protocol_version alert.
_TLS_ALERT = b"\x15\x03\x01\x00\x02\x02\x46"
#: RFC 9113: empty SETTINGS, then GOAWAY with HTTP_1_1_REQUIRED.
_GOAWAY = b"\0\0\0\4\0\0\0\0\0" + b"\0\0\x08\7\0\0\0\0\0" + pack_bytes(">II", 0, 0x0D)


def identify(first: bytes) -> str | None:  # noqa: PLR0911 - one line a protocol
    """The protocol that starts with these bytes, or None if it cannot be told."""
    if first[:2] == b"\x16\x03":
        return "tls"
    if first.startswith(b"PRI * HTTP/2"):
        return "http2"
    if first.startswith((b"PROXY ", _PROXY_V2)):
        return "proxy"
    if len(first) >= 2 and first[0] == 1 and BEGIN_REQUEST <= first[1] <= UNKNOWN_TYPE:
        return "fastcgi"
    if _SCGI.match(first):
        return "scgi"
    if _HTTP.match(first):
        return "http"
    if len(first) >= 6 and first[0] == 0:
        _, size, _ = _UWSGI_HEAD.unpack_from(first)
        name = int.from_bytes(first[4:6], "little")
        if 0 < name < size:
            return "uwsgi"
    return None


def explain(first: bytes, protocol: str) -> tuple[str, bytes] | None:
    """Reason and answer for a peer that speaks something else than ``protocol``.

    None if the bytes are ``protocol`` after all, or nothing that is known.
    """
    found = identify(first)
    if found is None or found == protocol:
        return None
    title, own = _TITLES[found], _TITLES.get(protocol, protocol)
    article = "an" if own.startswith(("HTTP", "SCGI")) else "a"
    reason = f"{title} arrived on {article} {own} bind"
    wanted, used = _DIRECTIVES.get(protocol), _DIRECTIVES.get(found)
    if wanted is not None and used is not None:
        reason += f": use {wanted}, not {used}, or bind with --protocol {found}"
    elif found == "tls":
        reason += ": the peer must speak plain text here"
    elif found == "http2":
        reason += ": HTTP/1.1 is spoken here"
    else:
        reason += ": switch it off at the sender"
    return reason, _answer(found, first, reason)


def _answer(found: str, first: bytes, reason: str) -> bytes:
    if found == "tls":
        return _TLS_ALERT
    if found == "http2":
        return _GOAWAY
    if found in ("http", "uwsgi"):
        return refusal(400, reason).reply
    if found == "scgi":
        return refusal_head("400 Bad Request", reason)
    if found == "fastcgi":
        number = int.from_bytes(first[2:4], "big")
        return (
            stream_records(STDOUT, number, refusal_head("400 Bad Request", reason))
            + stream_end(STDOUT, number)
            + end_request(number, 0, REQUEST_COMPLETE)
        )
    return b""
