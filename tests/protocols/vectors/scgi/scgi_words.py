"""Words in which the SCGI tables are written."""

from __future__ import annotations

from codec_harness import Seen


def netstring(content: bytes) -> bytes:
    return b"%d:%b," % (len(content), content)


def pairs(items) -> bytes:
    items = items.items() if isinstance(items, dict) else items
    return b"".join(f"{name}\0{value}\0".encode("latin-1") for name, value in items)


def ask(environ: dict[str, str] | None = None, body: bytes = b"", *more: tuple[str, str]) -> bytes:
    """A request: its length, ``SCGI``, these variables, further pairs, its body."""
    first = [("CONTENT_LENGTH", str(len(body))), ("SCGI", "1")]
    return netstring(pairs([*first, *(environ or {}).items(), *more])) + body


def want(environ: dict[str, str] | None = None, body: bytes = b"", **seen) -> Seen:
    length = seen.setdefault("length", len(body))
    environ = {"CONTENT_LENGTH": str(length)} | (environ or {})
    return Seen(environ, body=body, keep_alive=False, **seen)


def check_refusal(reason: str, reply: bytes) -> None:
    """A refusal is one whole CGI answer whose status the reason starts with."""
    head, _, body = reply.partition(b"\r\n\r\n")
    lines = head.decode("ascii").split("\r\n")
    assert lines[0] == "Content-Type: text/plain"
    assert lines[1] == f"Content-Length: {len(body)}"
    assert lines[2].startswith(f"Status: {reason[:3]} ")
