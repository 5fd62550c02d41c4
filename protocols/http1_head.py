"""What an HTTP/1.1 request head means: pure functions that judge and translate its parts.

Everything that the parser leaves to its caller is decided here: sizes, the
request line and its target, Host, transfer codings and how a field name
becomes a variable.  Each function raises the :class:`ProtocolError` that
refuses the request.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from protocols.headers import TOKEN
from protocols.model import Limits, ProtocolError

#: Field name to variable; "" drops the field.  Hop-by-hop fields concern the
#: connection, not the application (RFC 9110 section 7.6.1); ``Proxy`` would
#: become HTTP_PROXY (httpoxy, CVE-2016-5385).
_DROPPED: Final = (
    "Connection",
    "Keep-Alive",
    "Proxy-Connection",
    "Proxy",
    "TE",
    "Trailer",
    "Upgrade",
)
_COMMON: Final = (
    "Accept Accept-Charset Accept-Encoding Accept-Language Authorization Cache-Control Cookie DNT "
    "Expect Host If-Match If-Modified-Since If-None-Match If-Range If-Unmodified-Since "
    "Origin Pragma Priority Range Referer Sec-CH-UA Sec-CH-UA-Mobile Sec-CH-UA-Platform "
    "Sec-Fetch-Dest Sec-Fetch-Mode Sec-Fetch-Site Sec-Fetch-User Transfer-Encoding "
    "Upgrade-Insecure-Requests User-Agent X-Real-IP X-Request-ID X-Requested-With"
).split()
#: Fields that speak for somebody behind the peer: not in the table, so that only
#: a request that has one takes the time to mark it.
_CLAIMS: Final = (
    "Forwarded X-Forwarded-For X-Forwarded-Host X-Forwarded-Port X-Forwarded-Prefix "
    "X-Forwarded-Proto X-Forwarded-Server"
).split()
LENGTH: Final = "CONTENT_LENGTH"
TYPE: Final = "CONTENT_TYPE"
HOST: Final = "HTTP_HOST"
PATH: Final = "PATH_INFO"

#: Peers choose the names, so they can fill the cache: it is bounded.
_NAMES_SIZE: Final = 2048
NAMES: Final[dict[bytes, str]] = {}
for _name in _COMMON:
    for _spelling in (_name, _name.lower()):
        NAMES[_spelling.encode()] = "HTTP_" + _name.upper().replace("-", "_")
for _name in _DROPPED:
    for _spelling in (_name, _name.lower()):
        NAMES[_spelling.encode()] = ""
for _name in ("Content-Length", "content-length", "Content-Type", "content-type"):
    NAMES[_name.encode()] = _name.upper().replace("-", "_")
_DROPPED_VARIABLES: Final = frozenset("HTTP_" + name.upper().replace("-", "_") for name in _DROPPED)
#: As variables, names with ``_`` in place of ``-`` would be taken for these.
_UNMAPPABLE: Final = _DROPPED_VARIABLES | {
    "HTTP_CONTENT_LENGTH",
    "HTTP_CONTENT_TYPE",
    "HTTP_TRANSFER_ENCODING",
}
_CLAIM_NAMES: Final[dict[bytes, str]] = {}
for _name in _CLAIMS:
    for _spelling in (_name, _name.lower()):
        NAMES[_spelling.encode()] = ""
        _CLAIM_NAMES[_spelling.encode()] = "HTTP_" + _name.upper().replace("-", "_")

#: RFC 9110 section 7.2 with RFC 3986 section 3.2: uri-host [ ":" port ], or empty.
_HOST_VALUE: Final = re.compile(
    r"(?:(?:\[[0-9A-Fa-f:.]+\]|\[v[0-9A-Fa-f]+\.[!$&-.0-9:;=A-Z_a-z~]+\]"
    r"|(?:[!$&-.0-9;=A-Z_a-z~]|%[0-9A-Fa-f]{2})+)(?::[0-9]*)?)?"
)
_ABSOLUTE: Final = re.compile(r"https?://([^/?]*)(.*)", re.IGNORECASE)
_OTHER_VERSION: Final = re.compile(r"HTTP/[0-9]\.[0-9]")
_SPOKEN: Final = "HTTP/1."
BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")

_REASONS: Final = {
    400: "Bad Request",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    417: "Expectation Failed",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    505: "HTTP Version Not Supported",
}


def refusal(status: int, reason: str) -> ProtocolError:
    """A ProtocolError whose reply is a complete, closing HTTP/1.1 answer."""
    phrase = _REASONS[status]
    body = f"{status} {phrase}: {reason}\n".encode("latin-1", "replace")
    head = (
        f"HTTP/1.1 {status} {phrase}\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return ProtocolError(f"{status} {reason}", head.encode("ascii") + body)


def variable_for(name: bytes) -> str:
    """The variable for a field name that the table does not have; "" if it is a special one."""
    text = name.decode("latin-1")
    variable = "HTTP_" + text.upper().replace("-", "_")
    if "_" in text or variable in _DROPPED_VARIABLES or is_claim(variable):
        variable = ""
    elif variable[5:] in (LENGTH, TYPE):
        variable = variable[5:]
    if len(NAMES) < _NAMES_SIZE:
        NAMES[name] = variable
    return variable


def is_claim(variable: str) -> bool:
    """Whether this variable speaks for somebody behind the peer."""
    return variable.startswith("HTTP_X_FORWARDED_") or variable == "HTTP_FORWARDED"


def special_variable(name: bytes, header_map: str) -> str:
    """The variable for a special field name; "" drops the field.

    A name with ``_`` cannot be told from the same name with ``-`` once it is a
    variable, and so would spoof it: ``header_map`` decides.
    """
    variable = _CLAIM_NAMES.get(name)
    if variable is not None:
        return variable
    text = name.decode("latin-1")
    variable = "HTTP_" + text.upper().replace("-", "_")
    if "_" in text:
        if header_map == "refuse":
            raise refusal(400, f"the field name {text} has an underscore")
        if header_map == "drop" or variable in _UNMAPPABLE:
            return ""
        return variable
    return "" if variable in _DROPPED_VARIABLES else variable


def check_partial(head: bytearray, start: int, line: int, limits: Limits) -> int:
    """Refuse what can no longer become a good head, without waiting for its end.

    ``start`` is how far earlier calls looked, ``line`` the length of the request
    line once its end was seen, else -1; what is now known of that is returned.
    """
    if start == 0 and TOKEN.match(chr(head[0])) is None:
        raise malformed_line(head, "")
    check_line_ends(head, start)
    if line < 0:
        line = head.find(b"\r\n", max(0, start - 1), limits.request_line + 2)
        if line >= 0:
            split_request_line(bytes(head[:line]))
        elif len(head) > limits.request_line + 1:
            raise refusal(414, "the request line is too long")
    if len(head) > limits.request_header_total:
        raise refusal(431, "the request head is too large")
    return line


def check_line_ends(head: bytes | bytearray, start: int = 0) -> None:
    """Refuse a line feed alone from ``start`` on (RFC 9112 section 2.2)."""
    feed = head.find(b"\n", start)
    while feed >= 0:
        if feed == 0 or head[feed - 1] != 13:
            raise refusal(400, "a line ends without a carriage return")
        feed = head.find(b"\n", feed + 1)


def check_sizes(head: bytes, line: int, limits: Limits) -> None:
    """Bound the request line, the fields and the whole; ``line`` is the line's length."""
    if line > limits.request_line:
        raise refusal(414, "the request line is too long")
    if len(head) > limits.request_header_total:
        raise refusal(431, "the request head is too large")
    fields = head.count(b"\r\n") - 2
    if fields > limits.request_fields:
        raise refusal(431, f"more than {limits.request_fields} header fields")
    if len(head) - line > limits.request_field_size:
        longest = max(len(field) for field in head[line + 2 :].split(b"\r\n"))
        if longest > limits.request_field_size:
            raise refusal(431, "a header field is too large")


def malformed_line(line: bytes | bytearray, reason: str) -> ProtocolError:
    """Refuse a request line; one that starts with no token is no HTTP at all."""
    if TOKEN.match(line[:1].decode("latin-1")) is None:
        reason = "this is no HTTP request"
    elif b"\n" in line:
        reason = "a line ends without a carriage return"
    return refusal(400, reason)


def split_request_line(line: bytes) -> tuple[str, str, str]:
    """Method, target and version of a request line (RFC 9112 section 3)."""
    try:
        method, target, version = line.decode("latin-1").split(" ")
    except ValueError:
        raise malformed_line(line, "the request line is malformed") from None
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        if not _OTHER_VERSION.fullmatch(version):
            raise malformed_line(line, "the request line is malformed")
        if not version.startswith(_SPOKEN):
            raise refusal(505, f"HTTP/1.1 is spoken here, not {version}")
        version = "HTTP/1.1"  # RFC 9110 section 2.5: as the highest minor version known
    if method == "CONNECT":
        raise refusal(501, "CONNECT is not implemented")
    return method, target, version


def check_host(host: str | None, repeated: bool, version: str) -> None:
    """RFC 9112 section 3.2: exactly one valid Host in HTTP/1.1."""
    if host is None:
        if version == "HTTP/1.1":
            raise refusal(400, "the Host field is missing")
        return
    if repeated:
        raise refusal(400, "the Host field is repeated")
    if _HOST_VALUE.fullmatch(host) is None:
        raise refusal(400, "the Host field is invalid")


def set_path(environ: dict[str, str], target: str) -> None:
    """PATH_INFO and QUERY_STRING from the target (RFC 9112 section 3.2, RFC 3875 4.1)."""
    if "#" in target:
        raise refusal(400, "the request target has a fragment")
    if target[0] != "/":
        target = _absolute_target(environ, target)
    path, _, query = target.partition("?")
    if "%" in path:
        if BAD_ESCAPE.search(path):
            raise refusal(400, "the path has a malformed percent-encoding")
        path = unquote_to_bytes(path).decode("latin-1")
    environ["PATH_INFO"] = path
    environ["QUERY_STRING"] = query


def _absolute_target(environ: dict[str, str], target: str) -> str:
    if target == "*" and environ["REQUEST_METHOD"] == "OPTIONS":
        return ""
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise refusal(400, "the request target is malformed")
    authority, path = match.groups()
    if not authority or _HOST_VALUE.fullmatch(authority) is None:
        raise refusal(400, "the authority of the request target is invalid")
    default = ":443" if target[4] in "sS" else ":80"
    host = environ.setdefault(HOST, authority)
    if host.lower().removesuffix(default) != authority.lower().removesuffix(default):
        raise refusal(400, "the Host field contradicts the request target")
    return path if path[:1] == "/" else "/" + path


def is_host(text: str) -> bool:
    """Whether this can be the value of a Host field."""
    return _HOST_VALUE.fullmatch(text) is not None


def check_coding(coding: str, version: str) -> None:
    """RFC 9112 sections 6.1 and 6.3: only chunked, and only in HTTP/1.1.

    Where chunked is not the last coding, or there twice, nobody can tell where
    the body ends: that is a 400, whatever else there is.
    """
    if version == "HTTP/1.0":
        raise refusal(400, "Transfer-Encoding in HTTP/1.0")
    if coding.lower() == "chunked":
        return
    *others, last = (part.strip(" \t") for part in coding.lower().split(","))
    if last != "chunked" or "chunked" in others or not all(map(TOKEN.fullmatch, others)):
        raise refusal(400, "chunked is not the last transfer coding, or not the only one")
    raise refusal(501, "the only transfer coding known here is chunked")


def check_expectation(expect: str) -> None:
    """RFC 9110 section 10.1.1: a list, of which one member is known."""
    members = {part.strip(" \t") for part in expect.lower().split(",")} - {""}
    if not members <= {"100-continue"}:
        raise refusal(417, "the only expectation known here is 100-continue")
