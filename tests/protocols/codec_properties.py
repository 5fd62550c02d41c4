"""What holds for every codec, whatever the bytes: shared by all that fuzzes.

Each property takes one input and raises AssertionError (or whatever escapes) if the
codec breaks it.  Choices that an input does not spell out (where it is cut, how its
requests are answered) follow from its checksum, so that an input that fails fails again.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterable, Sequence
from itertools import pairwise, product
from typing import Any

from codec_harness import Feed, Outcome, received, run, single_bytes, whole

from protocols.model import UNKNOWN, Codec, Event, Limits, ProtocolError, Request

#: Small, so that inputs reach the limits.
LIMITS: dict[str, Any] = {
    "request_line": 600,
    "request_header_total": 3000,
    "request_field_size": 900,
    "request_body": 2000,
    "request_fields": 12,
    "multiplex": 3,
}

#: The limits of all connections of a worker, and with them what these have in common.
REMEMBERED = Limits(**LIMITS)

#: What one codec may hold: a FastCGI record, and the parameters of every stream.
MOST_HELD = 65_535 + 255 + 8 + LIMITS["request_header_total"] * (LIMITS["multiplex"] + 2)
#: How often the last part of an input is sent again to see whether anything grows.
AGAIN = 60

STATUSES = ("200 OK", "204 No Content", "304 Not Modified", "205 Reset", "404 ", "599 \xe9")
HEADERS = ([], [("X-Y", "z\t\xff")], [("Content-Length", "3")], [("Set-Cookie", "a")] * 3)
DATA = (b"", b"abc", b"x" * 70_000)


class Counting(bytearray):
    """A codec's buffer that counts the bytes it is asked to search or to copy."""

    work = 0

    def find(self, sub, start=0, end=None):
        end = len(self) if end is None else min(end, len(self))
        found = super().find(sub, start, end)
        self.work += max(0, (end if found < 0 else found) - start)
        return found

    def __getitem__(self, key):
        found = super().__getitem__(key)
        self.work += len(found) if isinstance(key, slice) else 1
        return found

    def __bytes__(self):
        self.work += len(self)
        return bytes(bytearray(self))

    def count(self, *args):
        self.work += len(self)
        return super().count(*args)

    def startswith(self, *args):
        self.work += 1
        return super().startswith(*args)


def essence(outcome: Outcome) -> tuple:
    """Of two faults in one input, the one reported may depend on the cuts."""
    return outcome.requests, bool(outcome.refused), bool(outcome.eof), outcome.closing


def cut(part: bytes, cuts: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(at % (len(part) + 1) for at in cuts), len(part)]
    return [part[a:b] for a, b in pairwise(edges)]


def check_cuts(
    codec_class: type[Codec], parts: Sequence[bytes], *ways: Sequence[Sequence[bytes]], **limits
) -> None:
    """Only ProtocolError escapes, and each of ``ways`` to cut the parts changes nothing.

    Nor does it change anything that bodies go past the codec.
    """
    limits = LIMITS | limits
    expected = run(codec_class, whole(parts), **limits)
    for past, sends in product((False, True), (*ways, single_bytes(parts))):
        outcome = run(codec_class, sends, past=past, **limits)
        assert essence(outcome) == essence(expected)
        assert outcome.outbox == expected.outbox or expected.refused


def check_cost(codec_class: type[Codec], data: bytes) -> None:
    """Bytes that come one by one are not searched again and again."""
    codec = codec_class(Limits(**LIMITS))
    codec._buffer = buffer = Counting()
    try:
        for at in range(len(data)):
            codec.receive(data[at : at + 1])
    except ProtocolError:
        pass
    assert buffer.work <= 40 * len(data) + 10_000, f"{buffer.work} bytes of work for {len(data)}"


def check_bounds(codec_class: type[Codec], data: bytes, choices: random.Random) -> None:
    """Whatever follows, and however often: what the codec holds is bounded."""
    feed = Feed(codec_class(Limits(**LIMITS)))
    codec = feed.codec
    tail = data[choices.randrange(len(data)) :] if data else b""
    answers = choices.random() < 0.5
    for count, piece in enumerate((data, *[tail] * AGAIN)):
        if not codec.closing:
            for event in all_events(codec, piece):
                if answers and type(event) is Request and not event.more:
                    codec.reply(event, "200 OK", [], b"")
        codec.outbox = b""  # as the driver does
        codec.refusals.clear()
        if count in (AGAIN // 2, AGAIN):
            size = held(codec)
            assert size <= MOST_HELD, f"{size} bytes held"


def all_events(codec: Codec, data: bytes) -> list[Event]:
    """What comes out of ``data``, up to an error."""
    events: list[Event] = []
    try:
        for more in received(codec, data):
            events += more
    except ProtocolError as error:
        events += error.events
    return events


def held(value: object, depth: int = 6) -> int:
    """Bytes of text and of bytes in what a codec refers to, but for requests handed over."""
    if isinstance(value, bytes | bytearray | str):
        return len(value)
    if depth == 0 or isinstance(value, Request | Limits):
        return 0
    if isinstance(value, dict):
        return sum(held(item, depth - 1) for pair in value.items() for item in pair)
    if isinstance(value, list | tuple | set):
        return sum(held(item, depth - 1) for item in value)
    return sum(held(item, depth - 1) for item in attributes(value).values())


def attributes(value: object) -> dict[str, object]:
    """What an object of ours refers to, compiled or not, by name."""
    if not type(value).__module__.startswith(("protocols.", "gateway")):
        return dict(getattr(value, "__dict__", {}))
    found = {name: getattr(value, name, None) for name in dir(value) if name[:2] != "__"}
    return {name: item for name, item in found.items() if not callable(item)}


def check_answers(codec_class: type[Codec], parts: Sequence[bytes], choices: random.Random) -> None:
    """Every request that is whole can be answered, in one go and in pieces, and again."""
    codec = codec_class(Limits(**LIMITS))
    for part in parts:
        for event in all_events(codec, part):
            if type(event) is Request and not event.more:
                answer(codec, event, choices)


def answer(codec: Codec, request: Request, choices: random.Random) -> bytes:
    """The wire of some answer to ``request``."""
    request.keep_alive = request.keep_alive and choices.random() < 0.7
    status, headers = choices.choice(STATUSES), choices.choice(HEADERS)
    data = b"abc" if headers == HEADERS[2] else choices.choice(DATA)
    if choices.random() < 0.5:
        wire = codec.reply(request, status, headers, data)
    else:
        length = choices.choice((UNKNOWN, len(data)))
        wire = codec.head(request, status, headers, length)
        wire += b"".join(codec.body(request, piece) for piece in cut(data, [len(data) // 2]))
        wire += codec.errors(request, "said\n") + codec.end(request)
    assert type(wire) is bytes
    assert request.ended
    return wire


def check_memory(codec_class: type[Codec], parts: Sequence[bytes]) -> None:
    """What other connections have sent makes no difference."""
    expected = run(codec_class, whole(parts), **LIMITS)
    for _ in range(2):
        feed = Feed(codec_class(REMEMBERED))
        all(feed.send([part]) for part in parts)
        assert feed.finish() == expected


def check_all(codec_class: type[Codec], parts: Sequence[bytes]) -> None:
    """Every property at one input; ``parts`` arrive one after the other's answers."""
    data = b"".join(parts)
    choices = random.Random(zlib.crc32(data))
    pieces = [cut(part, (choices.randrange(4096) for _ in range(3))) for part in parts]
    rules = {"header_map": choices.choice(("drop", "refuse", "dangerous"))}
    check_cuts(codec_class, parts, pieces, **rules)
    check_answers(codec_class, parts, choices)
    check_memory(codec_class, parts)
    check_cost(codec_class, data)
    check_bounds(codec_class, data, choices)
