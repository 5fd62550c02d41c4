"""The vectors of docs/reference/smuggling.md: what is sent, what comes of it, and why.

Behind the bytes of each vector follows one more request, the probe.  If it is answered as what
it is, server and client agree where the messages end and the connection goes on (KEPT).  An
outcome is what came before: calls of the application, 100 for an interim answer, and at the end
the status of a refusal, or what became of the connection.
"""

from __future__ import annotations

import re
from typing import NamedTuple

KEPT, CLOSED, WAITS = "kept", "closed", "waits"

HOST = "Host: a"
PROBE = "GET /probe"
#: What an attacker would like the server to take for a request, or would not.
HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"

# Clauses that many vectors rest on.
NO_CONTROL = "9110 5.5: no control character in a value"
NO_TOKEN = "9110 5.1: a field name is a token"
BARE = "9112 2.2: a line ends with CRLF; a bare CR or LF is refused and not repaired"
FOLD = "9112 5.2: a folded line is refused"
COLON = "9112 5.1: no space between name and colon: 400"
INVALID = "9112 6.3 (5): an invalid length is an unrecoverable error"

TE = "Transfer-Encoding: "
#: A chunked body.
ABC = "3\r\nabc\r\n0\r\n\r\n"


class Vector(NamedTuple):
    """``shown`` is what the page has of ``data``; ``name`` may be empty."""

    name: str
    data: bytes
    outcome: tuple[int | str, ...]
    why: str
    shown: bytes

    @property
    def label(self) -> str:
        return self.name or spelt(self.shown)


class Section(NamedTuple):
    title: str
    text: str
    vectors: list[Vector]
    protocol: str = "http"


#: A byte that is there more often than this in a row is counted.
_MOST_REPEATED = 20


def spelt(data: bytes) -> str:
    """Bytes as the page has them."""
    text = "".join(
        char if " " <= char <= "~" and char != "\\" else _escapes.get(char, f"\\x{ord(char):02x}")
        for char in data.decode("latin-1").replace(HIDDEN.decode(), "<hidden>")
    )
    return re.sub(
        rf"([0-9A-Za-z])\1{{{_MOST_REPEATED},}}",
        lambda match: f"{match[1]}...{match[1]} ({len(match[0])} of them)",
        text,
    )


_escapes = {"\r": "\\r", "\n": "\\n", "\t": "\\t", "\0": "\\0", "\\": "\\\\"}


def raw(name: str, data: str | bytes, *outcome: int | str, why: str) -> Vector:
    """A vector that is shown as it is."""
    bare = as_bytes(data)
    return Vector(name, bare, outcome, why, bare)


def as_bytes(data: str | bytes) -> bytes:
    return data if isinstance(data, bytes) else data.encode("latin-1")


def lines(*parts: str) -> bytes:
    return "".join(f"{part}\r\n" for part in parts).encode("latin-1")


def post(name: str, fields: str, body: str | bytes, *outcome: int | str, why: str) -> Vector:
    """A POST with these field lines besides Host, and what follows its head."""
    shown = lines(fields, "") + as_bytes(body)
    return Vector(name, lines("POST /v HTTP/1.1", HOST) + shown, outcome, why, shown)


def post_field(field: str, body: str, *outcome: int | str, why: str, name: str = "") -> Vector:
    """As ``post``; what follows the head is the same in the whole section."""
    return post(name, field, body, *outcome, why=why)._replace(shown=field.encode("latin-1"))


def get(field: str, *outcome: int | str, why: str, name: str = "") -> Vector:
    """A GET with these field lines besides Host."""
    head = lines("GET /v HTTP/1.1", HOST, field, "")
    return Vector(name, head, outcome, why, field.encode("latin-1"))


def called(body: str = "", *more: str, method: str = "POST", target: str = "/v") -> str:
    """What the application says that it was called with."""
    return " ".join((method, target, *([f'"{body}"'] if body else []), *more))


def called_get(target: str = "/v", *more: str) -> str:
    return called("", *more, method="GET", target=target)
