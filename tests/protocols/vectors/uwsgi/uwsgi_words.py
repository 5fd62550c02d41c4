"""Words in which the uwsgi tables are written."""

from __future__ import annotations

import struct

from codec_harness import Seen


def packet(content: bytes, modifier1: int = 0, modifier2: int = 0) -> bytes:
    return struct.pack("<BHB", modifier1, len(content), modifier2) + content


def pairs(items) -> bytes:
    items = items.items() if isinstance(items, dict) else items
    texts = [text.encode("latin-1") for pair in items for text in pair]
    return b"".join(struct.pack("<H", len(text)) + text for text in texts)


def ask(environ: dict[str, str] | None = None, body: bytes = b"", *more: tuple[str, str]) -> bytes:
    """A request: these variables, its length if there is a body, further pairs, its body."""
    length = [("CONTENT_LENGTH", str(len(body)))] if body else []
    return packet(pairs([*length, *(environ or {}).items(), *more])) + body


def want(environ: dict[str, str] | None = None, body: bytes = b"", **seen) -> Seen:
    length = seen.setdefault("length", len(body))
    environ = ({"CONTENT_LENGTH": str(length)} if length else {}) | (environ or {})
    return Seen(environ, body=body, keep_alive=False, **seen)


def check_refusal(reason: str, reply: bytes) -> None:
    """A refusal is one whole HTTP answer whose status the reason starts with."""
    head, _, body = reply.partition(b"\r\n\r\n")
    lines = head.decode("ascii").split("\r\n")
    assert lines[0].startswith(f"HTTP/1.1 {reason[:3]} ")
    assert lines[1:] == ["Content-Type: text/plain", f"Content-Length: {len(body)}"]
    assert reason[4:].encode() in body
