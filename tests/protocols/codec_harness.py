"""Feeds a codec in any cuts and tells what came out as one comparable value.

A folder of vectors holds Python tables, one module a topic.  Every module may have
``CASES`` (bytes in, requests out), ``REPLIES`` (bytes of an answer), ``STRUCTURED``
(a hypothesis strategy of half-right inputs), ``LONG`` (valid inputs of about n bytes)
and ``check_refusal`` (what a refusal of this protocol looks like on the wire).
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from protocols.http1_head import is_claim
from protocols.model import (
    CLAIMS,
    UNKNOWN,
    Abort,
    Body,
    Codec,
    Data,
    Event,
    Interim,
    Limits,
    ProtocolError,
    Request,
)

#: Where the vectors of a codec are: a folder of its name below one of these.  A package
#: that brings a protocol of its own adds the folder of its vectors to the environment.
ROOTS = [
    Path(__file__).parent / "vectors",
    *map(Path, filter(None, os.environ.get("GATEWAY_PROTOCOL_VECTORS", "").split(os.pathsep))),
]
#: Two-way splits tried of one input; a longer input is cut at evenly spread positions.
MOST_SPLITS = 600


@dataclass
class Seen:
    """A request as it came, or is expected to come, with all of its body."""

    environ: dict[str, str]
    stream: int = 0
    length: int = 0
    body: bytes = b""
    whole: bool = True
    keep_alive: bool = True
    head_only: bool = False
    http10: bool = False
    aborted: bool = False
    data: bytes = b""  # FCGI_DATA


@dataclass
class Outcome:
    """All that a codec made of some bytes."""

    requests: list[Seen] = field(default_factory=list)
    outbox: bytes = b""
    closing: bool = False
    refused: str = ""
    reply: bytes = b""
    eof: str = ""  # the reason why the end of the connection is an error here


@dataclass
class Case:
    """Bytes to receive and what they mean.

    ``sends`` are fed one after the other; after each, the complete requests are answered.
    ``refused`` and ``eof`` are parts of the reason.  ``faults`` above 1 leaves open which
    one is reported, as that may depend on the cuts.
    """

    name: str
    sends: bytes | Sequence[bytes]
    requests: list[Seen] = field(default_factory=list)
    refused: str = ""
    eof: str = ""
    outbox: bytes = b""
    closing: bool = False
    limits: dict[str, Any] = field(default_factory=dict)
    faults: int = 1

    @property
    def parts(self) -> list[bytes]:
        return [self.sends] if isinstance(self.sends, bytes) else list(self.sends)


@dataclass
class Reply:
    """An answer and its bytes: ``pieces`` None is the one-shot ``reply`` of ``data``."""

    name: str
    request: bytes
    wire: bytes
    status: str = "200 OK"
    headers: Sequence[tuple[str, str]] = ()
    data: bytes = b""
    pieces: Sequence[bytes] | None = None
    length: int = UNKNOWN
    keep_alive: bool = True  # cleared before the head, as a driver does that wants to close
    closes: bool = False  # the connection ends with this answer


class Feed:
    """One codec and what came out of it so far.

    With ``past``, bytes of bodies go past the codec wherever it says that they may.
    """

    def __init__(self, codec: Codec, *, past: bool = False) -> None:
        self.codec = codec
        self.past = past
        self.outcome = Outcome()
        self.requests: list[Request] = []
        self._open: dict[int, Seen] = {}

    def send(self, pieces: Iterable[bytes]) -> bool:
        """Feed pieces and answer what is complete; False once the codec refused."""
        for piece in pieces:
            try:
                for events in received(self.codec, piece, past=self.past):
                    self._take(events)
            except ProtocolError as error:
                self.outcome.refused, self.outcome.reply = error.reason or "?", error.reply
                self._take(error.events)
                assert self.codec.closing, "a refusal must close"
                return False
        for request, seen in zip(self.requests, self.outcome.requests, strict=True):
            assert unmarked(self.codec, request.environ) == seen.environ, (
                "environ changed after its Request"
            )
            if seen.whole and not request.ended and not seen.aborted:
                self.codec.reply(request, "200 OK", [], b"")
        return True

    def finish(self) -> Outcome:
        outcome = self.outcome
        outcome.outbox += self.codec.outbox
        outcome.closing = self.codec.closing
        if not outcome.refused:
            try:
                assert self.codec.receive_eof() == []
            except ProtocolError as error:
                outcome.eof, outcome.reply = error.reason, error.reply
            assert self.codec.closing
        assert self.codec.receive(b"more") == [], "nothing is read after the end"
        return outcome

    def _take(self, events: list[Event]) -> None:
        for event in events:
            if type(event) is Interim:
                self.outcome.outbox += event.data
                continue
            seen = self._open.get(event.stream)
            if type(event) is Request:
                seen = Seen(
                    environ=unmarked(self.codec, event.environ),
                    stream=event.stream,
                    length=event.length,
                    body=event.body,
                    whole=not event.more,
                    keep_alive=event.keep_alive,
                    head_only=event.head_only,
                    http10=event.http10,
                )
                self._open[event.stream] = seen
                self.requests.append(event)
                self.outcome.requests.append(seen)
            elif type(event) is Abort:
                assert seen is not None
                seen.aborted = True
            else:
                assert isinstance(event, Body)
                assert seen is not None
                assert not seen.whole, "a body went on after its end"
                assert event.data or not event.more, "an empty piece says nothing"
                if type(event) is Data:
                    seen.data += event.data
                else:
                    seen.body += event.data
                seen.whole = not event.more
            if seen is not None and seen.whole:
                assert seen.length in (UNKNOWN, len(seen.body))
            for value in (*seen.environ, *seen.environ.values()):
                assert type(value) is str
                value.encode("latin-1")


def received(codec: Codec, data: bytes, *, past: bool = False) -> Iterator[list[Event]]:
    """What ``codec`` makes of ``data``, and of what it puts off.  Raises ProtocolError."""
    while data:
        count = min(codec.owed(), len(data)) if past else 0
        if count:
            piece, data = data[:count], data[count:]
            yield [Body(0, piece, not codec.arrived(count))]
            continue
        yield codec.receive(data)
        put_off, codec.rest = codec.rest, b""
        assert data.endswith(put_off)
        assert len(put_off) < len(data)
        data = put_off


def unmarked(codec: Codec, environ: dict[str, str]) -> dict[str, str]:
    """The environ without the mark of its claims, which has to be there if there are any."""
    assert not (codec.marks_claims and any(map(is_claim, environ))) or CLAIMS in environ
    return {name: value for name, value in environ.items() if name != CLAIMS}


def run(
    codec_class: type[Codec],
    sends: Iterable[Iterable[bytes]],
    *,
    past: bool = False,
    **limits: Any,
) -> Outcome:
    """What comes out if each of ``sends`` arrives in the pieces given; see ``Feed``."""
    feed = Feed(codec_class(Limits(**limits)), past=past)
    for pieces in sends:
        if not feed.send(pieces):
            break
    return feed.finish()


def whole(parts: Sequence[bytes]) -> list[list[bytes]]:
    return [[part] for part in parts]


def single_bytes(parts: Sequence[bytes]) -> list[list[bytes]]:
    return [[part[at : at + 1] for at in range(len(part))] for part in parts]


def two_way_splits(parts: Sequence[bytes]) -> Iterator[tuple[int, list[list[bytes]]]]:
    """Each split of one part into two, the other parts whole; at most MOST_SPLITS."""
    total = sum(map(len, parts))
    most = min(MOST_SPLITS, max(20, 1_000_000 // max(total, 1)))
    step = max(1, -(-total // most))
    for index, part in enumerate(parts):
        for at in range(1, len(part), step):
            sends = whole(parts)
            sends[index] = [part[:at], part[at:]]
            yield at, sends


# Vectors


@dataclass
class Vectors:
    """All that the modules of one folder say."""

    cases: list[Case] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    structured: Any = None
    long: dict[str, Callable[[int], bytes]] = field(default_factory=dict)
    check_refusal: Callable[[str, bytes], None] | None = None

    @property
    def complete(self) -> Case:
        """A plain case: one whole request, no fault, default limits."""
        for case in self.cases:
            if len(case.requests) == 1 and not (case.refused or case.eof or case.limits):
                seen = case.requests[0]
                if seen.whole and seen.keep_alive | case.closing and not seen.head_only:
                    return case
        raise LookupError("the vectors have no plain case of one whole request")


def folder(protocol: str) -> Path | None:
    return next((root / protocol for root in ROOTS if (root / protocol).is_dir()), None)


@cache
def vectors(protocol: str) -> Vectors:
    """The vectors of a protocol; none if it has no folder, which test_vectors reports."""
    found = Vectors()
    place = folder(protocol)
    if place is None:
        return found
    if str(place) not in sys.path:
        sys.path.append(str(place))  # the tables share words in modules of their own
    for path in sorted(place.glob("*.py")):
        module = _load(f"vectors_{protocol}_{path.stem}", path)
        found.cases += getattr(module, "CASES", [])
        found.replies += getattr(module, "REPLIES", [])
        found.long |= getattr(module, "LONG", {})
        found.structured = getattr(module, "STRUCTURED", found.structured)
        found.check_refusal = getattr(module, "check_refusal", found.check_refusal)
    names = [case.name for case in found.cases]
    assert len(names) == len(set(names)), f"two {protocol} cases of one name"
    return found


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
