"""The wrong protocol on a bind: named by its first bytes, answered in its own language.

And the right one where a bind takes any: ``by_first_byte``.
"""

from __future__ import annotations

import re
from struct import Struct
from struct import pack as pack_bytes
from typing import Final

from protocols.cgi import refusal_head, refusal_http
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

#: How many first bytes tell all protocols apart.
FIRST_BYTES: Final = 24

#: What a bind that takes any protocol says in place of one.
AUTO: Final = "auto"
#: What ``by_first_byte`` chooses from.
CHOICES: Final = ("http", "fastcgi", "scgi", "uwsgi")

_HTTP: Final = re.compile(rb"[A-Za-z]{2,20} [!-~]")
_SCGI: Final = re.compile(rb"[0-9]{1,9}:[A-Z]")
_PROXY_V2: Final = b"\r\n\r\n\0\r\nQUIT\n"
_UWSGI_HEAD: Final = Struct("<BHB")

#: nginx's directive for each protocol; Apache's and HAProxy's are called after the protocol.
_DIRECTIVES: Final = {
    "http": "proxy_pass",
    "fastcgi": "fastcgi_pass",
    "scgi": "scgi_pass",
    "uwsgi": "uwsgi_pass",
}
_TITLES: Final = {
    "http": "HTTP",
    "fastcgi": "FastCGI",
    "scgi": "SCGI",
    "uwsgi": "uwsgi",
    "tls": "TLS",
    "http2": "HTTP/2",
    "proxy": "the PROXY protocol",
}
#: Titles that are spelt out when they are read aloud: "an HTTP bind".
_AN: Final = ("HTTP", "SCGI")

#: What to do about what has no directive of its own.
_ADVICE: Final = {
    "tls": "the peer must speak plain text here, such as http:// and not https://",
    "http2": "the peer must speak HTTP/1.1 here, such as proxy_http_version 1.1",
    "proxy": "switch it off at the sender (send-proxy, proxy_protocol)",
}

#: RFC 8446 section 6: a fatal protocol_version alert.
_TLS_ALERT: Final = b"\x15\x03\x01\x00\x02\x02\x46"
#: RFC 9113: empty SETTINGS, then GOAWAY with HTTP_1_1_REQUIRED.
_GOAWAY: Final = b"\0\0\0\4\0\0\0\0\0" + b"\0\0\x08\7\0\0\0\0\0" + pack_bytes(">II", 0, 0x0D)


def by_first_byte(byte: int) -> str:
    """The protocol of a bind that takes any of them.

    What is none of the others is HTTP: its codec knows best what it is instead.
    """
    if byte == 0:
        return "uwsgi"
    if byte == 1:
        return "fastcgi"
    return "scgi" if byte in b"0123456789" else "http"


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

    ``protocol`` is that of the bind, or ``tls`` where it is spoken inside of TLS.
    None if the bytes are ``protocol`` after all, or nothing that is known.
    """
    found = identify(first)
    if found is None or found == protocol:
        return None
    own = _TITLES.get(protocol, protocol)
    article = "an" if own.startswith(_AN) else "a"
    reason = f"{_TITLES[found]} arrived on {article} {own} bind: {_advice(found, protocol)}"
    return reason, _answer(found, protocol, first, reason)


def _advice(found: str, protocol: str) -> str:
    if found in _ADVICE:
        return _ADVICE[found]
    if protocol == "tls":
        return "use https://, not http://" if found == "http" else "the peer must speak TLS here"
    wanted, used = _DIRECTIVES.get(protocol), _DIRECTIVES[found]
    instead = f"use {wanted}, not {used}" if wanted else f"{used} is not for it"
    return f"{instead}, or bind with --protocol {found}"


def _answer(found: str, protocol: str, first: bytes, reason: str) -> bytes:  # noqa: PLR0911 - as above
    """What the peer understands; nothing where there is no such thing."""
    if found == "tls":
        return _TLS_ALERT
    if found == "http2":
        return _GOAWAY
    if found == "uwsgi":
        return refusal_http("400 Bad Request", reason)
    if found == "scgi":
        return refusal_head("400 Bad Request", reason)
    if found == "fastcgi":
        return _fastcgi_answer(int.from_bytes(first[2:4], "big"), reason)
    if found == "http" or protocol == "http":
        # A PROXY header has no answer, but behind it a client of this bind waits for one.
        return refusal(400, reason).reply
    return b""


def _fastcgi_answer(number: int, reason: str) -> bytes:
    if number == 0:
        return b""  # a question to the server, not a request
    return (
        stream_records(STDOUT, number, refusal_head("400 Bad Request", reason))
        + stream_end(STDOUT, number)
        + end_request(number, 0, REQUEST_COMPLETE)
    )
