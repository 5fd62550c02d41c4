"""Response status and header fields: checked and encoded, for every protocol.

What an application may put on the wire is decided here and nowhere else
(PEP 3333 "The start_response() Callable"; RFC 9110 sections 5 and 15): a value
with a control character, a name that is no token, a hop-by-hop field or a
malformed status raises before a byte of it is sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from protocols.model import UNKNOWN, Headers

#: RFC 9110 section 5.6.2.
TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
#: RFC 9110 section 5.5, with obs-text: no control character but the tab.
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
#: PEP 3333: "999 Message here"; 1xx can be no final answer.
_STATUS: Final = re.compile(r"[2-9][0-9]{2} [\t\x20-\x7e\x80-\xff]*")

#: RFC 2616 section 13.5.1, which PEP 3333 refers to; and the CGI family's own field.
_FORBIDDEN: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
        "status",
    }
)

PLAIN: Final = 0
CONTENT_LENGTH: Final = 1
DATE: Final = 2
SERVER: Final = 4
_KINDS: Final = {"content-length": CONTENT_LENGTH, "date": DATE, "server": SERVER}

#: Applications use few names and statuses, but may echo a client's: the caches are bounded.
_CACHE_SIZE: Final = 1024
_names: dict[str, int] = {}
_statuses: dict[str, int] = {}

#: Statuses whose answers have no content (RFC 9110 sections 15.3.5, 15.3.6, 15.4.5).
NO_CONTENT: Final = 204
RESET_CONTENT: Final = 205
NOT_MODIFIED: Final = 304
BODYLESS: Final = frozenset({NO_CONTENT, RESET_CONTENT, NOT_MODIFIED})


#: Most answers of an application have the same few sets of fields; longer ones
#: are not worth their memory.
_CACHED_LINES: Final = 1024
#: Statuses with the same fields for which heads are kept.
_MOST_HEADS: Final = 4


class Fields:
    """Header fields that are checked: the application's pairs and their encoded lines.

    ``heads`` is for the codecs to keep, by status, what they make of them.
    """

    __slots__ = ("heads", "kinds", "length", "lines", "pairs")

    def __init__(
        self, pairs: Sequence[tuple[str, str]], lines: str, kinds: int, length: int
    ) -> None:
        self.pairs = pairs
        self.lines = lines
        self.kinds = kinds
        self.length = length
        self.heads: dict[str | tuple[str, str], bytes] = {}

    def keep_head(self, key: str | tuple[str, str], head: bytes) -> None:
        """Keep what was made of them, while that is not much."""
        if len(self.heads) < _MOST_HEADS:
            self.heads[key] = head

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self.pairs)


_encoded: dict[tuple[tuple[str, str], ...], Fields] = {}


def status_code(status: Any) -> int:
    """Return the code of a status such as ``"200 OK"``.

    Raises TypeError if it is no ``str`` and ValueError if it is malformed.
    """
    code = _statuses.get(status)
    if code is None:
        if not isinstance(status, str):
            raise TypeError(f"the status must be a str, not {type(status).__name__}")
        if _STATUS.fullmatch(status) is None:
            raise ValueError(f'the status must look like "200 OK", not {status!r}')
        code = int(status[:3])
        if len(_statuses) < _CACHE_SIZE:
            _statuses[status] = code
    return code


def encode_fields(headers: Headers) -> Fields:
    """Return the header lines, each ended by CRLF; what is checked already, as it is.

    Raises TypeError or ValueError with the offending field; nothing of it may be sent.
    """
    if type(headers) is Fields:
        return headers
    try:
        key = tuple(headers)
        fields = _encoded.get(key)
    except TypeError:
        return _encode_fields(list(headers))
    if fields is None:
        fields = _encode_fields(key)
        if len(fields.lines) <= _CACHED_LINES:
            if len(_encoded) >= _CACHE_SIZE:
                _encoded.clear()
            _encoded[key] = fields
    return fields


def _encode_fields(headers: Sequence[tuple[str, str]]) -> Fields:
    kinds = PLAIN
    length = UNKNOWN
    lines: list[str] = []
    values = []
    for name, value in headers:
        if type(name) is not str:
            name = _content(name)  # noqa: PLW2901 - it may compare equal to another
        kind = _names.get(name)
        if kind is None:
            kind = _learn_name(name)
        if kind:
            kinds |= kind
            if kind == CONTENT_LENGTH:
                length = _content_length(value, length)
        values.append(value)
        # Joined, not formatted: a subclass of str may print as something else
        # than the content that is judged here.
        lines += (name, ": ", value, "\r\n")
    try:
        joined = "".join(values)
        plain = joined.isascii() and joined.isprintable()
    except TypeError:
        plain = False
    if not plain:
        _check_values(lines[::4], values)
    return Fields(headers, "".join(lines), kinds, length)


def _content(name: object) -> str:
    """The characters of a header name that is a subclass of str."""
    if not isinstance(name, str):
        raise TypeError(f"a header name must be a str, not {type(name).__name__}")
    return str.__str__(name)


def _learn_name(name: str) -> int:
    if TOKEN.fullmatch(name) is None:
        raise ValueError(f"{name!r} is no header name")
    lower = name.lower()
    if lower in _FORBIDDEN:
        raise ValueError(f"the header {name} is the server's own: an application must not send it")
    kind = _KINDS.get(lower, PLAIN)
    if len(_names) < _CACHE_SIZE:
        _names[name] = kind
    return kind


def _content_length(value: str, earlier: int) -> int:
    if not (isinstance(value, str) and value.isascii() and value.isdigit()):
        raise ValueError(f"Content-Length must be digits, not {value!r}")
    length = int(value)
    if earlier != UNKNOWN:
        raise ValueError(f"Content-Length is given twice: {earlier} and {length}")
    return length


def _check_values(names: Sequence[str], values: Sequence[str]) -> None:
    for name, value in zip(names, values, strict=True):
        if not isinstance(value, str):
            raise TypeError(f"the value of {name} must be a str, not {type(value).__name__}")
        if _VALUE.fullmatch(value) is None:
            raise ValueError(f"the value of {name} has a forbidden character: {value!r}")
