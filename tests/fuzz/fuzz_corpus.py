"""The kept corpus: inputs that reach what the vectors do not, one JSON file a target."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType

import gateway
import protocols

FOLDER = Path(__file__).parents[1] / "protocols" / "corpus"
#: Of each target, so that the whole stays below 100 KB.
MOST_BYTES = 9000


def kept(target: str) -> list[bytes]:
    path = FOLDER / f"{target}.json"
    texts = json.loads(path.read_text("ascii")) if path.exists() else []
    return [text.encode("latin-1") for text in texts]


_OURS = tuple(os.path.dirname(package.__file__ or "") for package in (gateway, protocols))

#: Line to line, in a function.
Arc = tuple[object, int, int]


def arcs(check: Callable[[bytes], None], data: bytes) -> set[Arc]:
    """Which lines of ours follow on each other while ``data`` is checked."""
    seen: set[Arc] = set()

    def enter(frame: FrameType, *_: object) -> Callable[..., object] | None:
        code = frame.f_code
        if not code.co_filename.startswith(_OURS):
            return None
        before = 0

        def step(frame: FrameType, *_: object) -> Callable[..., object]:
            nonlocal before
            seen.add((code, before, frame.f_lineno))
            before = frame.f_lineno
            return step

        return step

    sys.settrace(enter)
    try:
        check(data)
    finally:
        sys.settrace(None)
    return seen


def reaching(
    check: Callable[[bytes], None], seeds: Iterable[bytes], inputs: Iterable[bytes]
) -> list[bytes]:
    """Those of ``inputs``, small ones first, that reach what neither seeds nor others do."""
    seen = set().union(*(arcs(check, seed) for seed in seeds))
    chosen = []
    for data in sorted(inputs, key=len):
        found = arcs(check, data)
        if found - seen:
            seen |= found
            chosen.append(data)
    return chosen


def keep(target: str, inputs: list[bytes]) -> int:
    """Write the smallest of ``inputs``, one a line, as far as there is room; how many."""
    lines: list[str] = []
    room = MOST_BYTES
    for data in sorted(set(inputs), key=lambda data: (len(data), data)):
        line = json.dumps(data.decode("latin-1"))
        room -= len(line) + 2
        if room < 0:
            break
        lines.append(line)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{target}.json").write_text("[\n" + ",\n".join(lines) + "\n]\n", "ascii")
    return len(lines)
