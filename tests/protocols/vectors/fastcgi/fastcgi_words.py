"""Words in which the FastCGI tables are written; built apart from the codec's own."""

from __future__ import annotations

import struct

from codec_harness import Seen

BEGIN, ABORT, END, PARAMS, STDIN, STDOUT, STDERR, DATA, GET_VALUES, RESULT, UNKNOWN = range(1, 12)
COMPLETE, CANT_MPX, OVERLOADED, UNKNOWN_ROLE = range(4)
RESPONDER, AUTHORIZER, FILTER = 1, 2, 3


def rec(kind: int, number: int, content: bytes = b"", pad: int = 0, version: int = 1) -> bytes:
    """One record as a web server may send it: any padding, of any bytes."""
    head = struct.pack(">BBHHBB", version, kind, number, len(content), pad, 0)
    return head + content + b"\xff" * pad


def answered(kind: int, number: int, content: bytes = b"") -> bytes:
    """One record as ours are: padded with zeros to a multiple of 8."""
    pad = -len(content) % 8
    return struct.pack(">BBHHBB", 1, kind, number, len(content), pad, 0) + content + b"\0" * pad


def begin(number: int = 1, role: int = RESPONDER, flags: int = 1) -> bytes:
    return rec(BEGIN, number, struct.pack(">HB5x", role, flags))


def pair(name: str, value: str, *, long: bool = False) -> bytes:
    """One name and value; ``long`` writes both lengths in four bytes."""
    parts = name.encode("latin-1"), value.encode("latin-1")
    lengths = (
        bytes([len(part)])
        if len(part) < 128 and not long
        else struct.pack(">I", len(part) | 1 << 31)
        for part in parts
    )
    return b"".join(lengths) + b"".join(parts)


def block(pairs) -> bytes:
    items = pairs.items() if isinstance(pairs, dict) else pairs
    return b"".join(pair(name, value) for name, value in items)


def params(pairs, number: int = 1) -> bytes:
    """The whole PARAMS stream in one record and its end."""
    content = block(pairs)
    return (rec(PARAMS, number, content) if content else b"") + rec(PARAMS, number)


def stdin(*pieces: bytes, number: int = 1, kind: int = STDIN) -> bytes:
    """The pieces in a record each, and the end of the stream."""
    return b"".join(rec(kind, number, piece) for piece in pieces) + rec(kind, number)


def ask(pairs, *body: bytes, number: int = 1, role: int = RESPONDER, flags: int = 1) -> bytes:
    """A whole request."""
    return begin(number, role, flags) + params(pairs, number) + stdin(*body, number=number)


def end(number: int = 1, protocol_status: int = COMPLETE) -> bytes:
    return answered(END, number, struct.pack(">IB3x", 0, protocol_status))


def refusal(status: str, reason: str, number: int = 1) -> bytes:
    """The answer by which one request is refused."""
    text = f"{status}: {reason}\n"
    head = f"Content-Type: text/plain\r\nContent-Length: {len(text)}\r\nStatus: {status}\r\n\r\n"
    return answered(STDOUT, number, (head + text).encode()) + answered(STDOUT, number) + end(number)


def want(environ: dict[str, str], number: int = 1, *, body: bytes = b"", **seen) -> Seen:
    length = environ.get("CONTENT_LENGTH", "")
    seen.setdefault("length", int(length) if length not in ("", "-1") else -1)
    return Seen(dict(environ), stream=number, body=body, **seen)


def check_refusal(reason: str, reply: bytes) -> None:
    """Where the stream is known it is answered and ended; else nothing can be said."""
    assert reason
    if reply:
        assert reply[:2] == bytes([1, STDOUT])
        assert b"Status: 400 Bad Request\r\n\r\n" in reply
        assert reply.endswith(end(reply[3]))
