"""FastCGI records: constants and pure functions that cut and build them (section 8)."""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from struct import error as StructError  # noqa: N812 - it is a class
from typing import Any, Final

from protocols.cgi import drop_foreign, merged
from protocols.model import CLAIM_MARK, CLAIMS
from protocols.speed import COMPILED, WholeRequest, fastcgi_pairs, fastcgi_request

#: version, type, requestId, contentLength, paddingLength, reserved.
HEADER: Final = Struct(">BBHHBx")

BEGIN_REQUEST: Final = 1
ABORT_REQUEST: Final = 2
END_REQUEST: Final = 3
PARAMS: Final = 4
STDIN: Final = 5
STDOUT: Final = 6
STDERR: Final = 7
DATA: Final = 8
GET_VALUES: Final = 9
GET_VALUES_RESULT: Final = 10
UNKNOWN_TYPE: Final = 11

KEEP_CONN: Final = 1
RESPONDER: Final = "responder"
ROLES: Final = {1: RESPONDER, 2: "authorizer", 3: "filter"}

REQUEST_COMPLETE: Final = 0
CANT_MPX_CONN: Final = 1
OVERLOADED: Final = 2
UNKNOWN_ROLE: Final = 3

#: The most that a record carries and stays a multiple of 8, the alignment that
#: section 3.3 recommends.
MAX_CONTENT: Final = 65528

_PADDING: Final = tuple(b"\0" * (-length % 8) for length in range(8))
_END_BODY: Final = Struct(">BBHHBxIB3x")
_LONG: Final = Struct(">I")


def record(kind: int, number: int, content: bytes) -> bytes:
    """One record; ``content`` is at most 65535 bytes."""
    header, padding = record_edges(kind, number, len(content))
    return header + content + padding


def record_edges(kind: int, number: int, size: int) -> tuple[bytes, bytes]:
    """The header of a record with ``size`` bytes of content, and the padding behind them."""
    padding = _PADDING[size & 7]
    return HEADER.pack(1, kind, number, size, len(padding)), padding


def stream_records(kind: int, number: int, data: bytes) -> bytes:
    """``data`` as records of a stream, without the stream's end; nothing for no data."""
    if 0 < len(data) <= MAX_CONTENT:
        return record(kind, number, data)
    return b"".join(
        record(kind, number, data[start : start + MAX_CONTENT])
        for start in range(0, len(data), MAX_CONTENT)
    )


def stream_end(kind: int, number: int) -> bytes:
    """The empty record that ends a stream (section 3.3)."""
    return HEADER.pack(1, kind, number, 0, 0)


def end_request(number: int, app_status: int, protocol_status: int) -> bytes:
    """FCGI_END_REQUEST (section 5.5)."""
    return _END_BODY.pack(1, END_REQUEST, number, 8, 0, app_status, protocol_status)


def whole_answer(number: int, content: bytes) -> bytes:
    """All of an answer: FCGI_STDOUT with ``content``, its end, FCGI_END_REQUEST."""
    size = len(content)
    if number < _MOST_KEPT and 0 < size <= MAX_CONTENT:
        tail = number << 3 | size & 7
        return HEADER.pack(1, STDOUT, number, size, -size & 7) + content + _TAILS[tail]
    return stream_records(STDOUT, number, content) + _answer_end(number)


def _answer_end(number: int) -> bytes:
    return stream_end(STDOUT, number) + end_request(number, 0, REQUEST_COMPLETE)


def unknown_type(kind: int) -> bytes:
    """FCGI_UNKNOWN_TYPE (section 4.2)."""
    return record(UNKNOWN_TYPE, 0, bytes((kind, 0, 0, 0, 0, 0, 0, 0)))


def values_result(values: Mapping[str, int]) -> bytes:
    """FCGI_GET_VALUES_RESULT (section 4.1)."""
    content = b"".join(
        bytes((len(name), len(text))) + name + text
        for name, text in ((name.encode(), b"%d" % value) for name, value in values.items())
    )
    return record(GET_VALUES_RESULT, 0, content)


def decode_pairs(block: bytes) -> dict[str, str]:
    """The name-value pairs of a whole block, as latin-1 (section 3.4).

    Raises ValueError if a pair is cut off.
    """
    compiled = fastcgi_pairs(block)
    if compiled is not None:
        return compiled
    text = block.decode("latin-1")
    pairs: dict[str, str] = {}
    position = 0
    size = len(block)
    try:
        while position < size:
            name_length = block[position]
            value_length = block[position + 1]
            if name_length | value_length < 128:
                start = position + 2
            else:
                name_length, value_length, start = _long_lengths(block, position)
            middle = start + name_length
            position = middle + value_length
            name = text[start:middle]
            if name in pairs:
                pairs[name] = merged(pairs, name, text[middle:position])
            else:
                pairs[name] = text[middle:position]
    except (IndexError, StructError):
        position = size + 1
    if position > size:
        raise ValueError("a name-value pair is cut off")
    return pairs


def split_request(
    data: bytes, foreign: frozenset[str], base: dict[str, Any] | None = None
) -> WholeRequest | None:
    """A whole request without a body, if that is all of ``data`` and plain to see.

    What ``speed.fastcgi_request`` does, with fewer kinds of requests.
    """
    if len(data) < _FIRST.size:
        return None
    begin, number, size, padding, role, flags, params, again, length, more = _FIRST.unpack_from(
        data
    )
    start = _FIRST.size
    end = start + length
    if (
        (begin, size, padding, role, params) != _PLAIN
        or number != again
        or not 0 < number < _MOST_KEPT
        or data[end + more :] != _ENDS[number]
    ):
        return None
    try:
        environ = decode_pairs(data[start:end])
    except ValueError:
        return None
    drop_foreign(environ, foreign)
    if data.find(CLAIM_MARK) >= 0:  # ``in`` looks for a number first
        environ[CLAIMS] = ""
    if base:
        environ.update(base)
    return number, flags, environ, b""


def _long_lengths(block: bytes, position: int) -> tuple[int, int, int]:
    """Both lengths of a pair of which at least one takes four bytes, and where its name starts."""
    name_length = block[position]
    position += 1
    if name_length >= 128:
        name_length = _LONG.unpack_from(block, position - 1)[0] & 0x7FFFFFFF
        position += 3
    value_length = block[position]
    position += 1
    if value_length >= 128:
        value_length = _LONG.unpack_from(block, position - 1)[0] & 0x7FFFFFFF
        position += 3
    return name_length, value_length, position


#: What follows the content of most answers, by number and size modulo 8: front ends
#: count their requests from 1.
_MOST_KEPT: Final = 64
_TAILS: Final = tuple(_PADDING[at & 7] + _answer_end(at >> 3) for at in range(_MOST_KEPT << 3))

#: The first two heads of a request, with the content of the first between them:
#: FCGI_BEGIN_REQUEST, 8 bytes, no padding; FCGI_RESPONDER; FCGI_PARAMS.
_FIRST: Final = Struct(">HHHBxHB5xHHHBx")
_PLAIN: Final = (0x100 | BEGIN_REQUEST, 8, 0, 1, 0x100 | PARAMS)
#: The ends of FCGI_PARAMS and FCGI_STDIN, by number.
_ENDS: Final = tuple(stream_end(PARAMS, n) + stream_end(STDIN, n) for n in range(_MOST_KEPT))

whole_request = fastcgi_request if COMPILED else split_request
