"""Whatever the bytes: only ProtocolError leaves a codec, and the cuts change nothing.

By default a short, reproducible run.  ``GATEWAY_FUZZ_SECONDS=60`` explores for that
long with each codec, with new seeds, and prints how many inputs it tried.
"""

from __future__ import annotations

import os
import random
import time
from itertools import pairwise

import pytest
from codec_harness import Outcome, Vectors, run, single_bytes, vectors
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

SECONDS = float(os.environ.get("GATEWAY_FUZZ_SECONDS", "0"))
#: Small, so that inputs reach the limits.
LIMITS = {"request_header_total": 6000, "request_body": 4000, "request_fields": 12, "multiplex": 3}
LONGEST = 3000


@st.composite
def mutated(draw: st.DrawFn, corpus: list[bytes]) -> bytes:
    """A vector with bits flipped and pieces taken out, put in and repeated."""
    data = bytearray(draw(st.sampled_from(corpus)))
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(data)))
        size = draw(st.integers(1, 12))
        match draw(st.integers(0, 5)):
            case 0 if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case 1:
                del data[at : at + size]
            case 2:
                data[at:at] = draw(st.binary(min_size=1, max_size=6))
            case 3:
                data[at:at] = data[max(0, at - size * 8) : at]
            case 4:
                data += draw(st.sampled_from(corpus))
            case 5 if at < len(data):
                data[at] = draw(st.sampled_from(b"\0\r\n :;,\x80\xff09"))
    return bytes(data[:LONGEST])


def inputs(found: Vectors) -> dict[str, st.SearchStrategy[bytes]]:
    parts = [part for case in found.cases for part in case.parts if 0 < len(part) <= LONGEST]
    corpus = sorted(set(parts), key=len)
    kinds = {"random": st.binary(max_size=200), "mutated": mutated(corpus)}
    if found.structured is not None:
        kinds["structured"] = found.structured
    return kinds


def essence(outcome: Outcome) -> tuple:
    """Of two faults in one input, the one reported may depend on the cuts."""
    return outcome.requests, bool(outcome.refused), bool(outcome.eof), outcome.closing


def check(codec_class, data: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in pairwise(edges)]
    whole = run(codec_class, [[data]], **LIMITS)
    for sends in ([pieces], single_bytes([data])):
        outcome = run(codec_class, sends, **LIMITS)
        assert essence(outcome) == essence(whole)
        assert outcome.outbox == whole.outbox or whole.refused


@pytest.mark.timeout(120 + 2 * SECONDS)
@pytest.mark.parametrize("kind", ["random", "mutated", "structured"])
def test_any_bytes(codec_class, protocol, kind, capsys):
    found = inputs(vectors(protocol))
    if kind not in found:
        pytest.skip(f"the vectors of {protocol} have no STRUCTURED inputs")
    tried = 0

    def fuzz(data, cuts):
        nonlocal tried
        tried += 1
        check(codec_class, data, cuts)

    chosen = given(found[kind], st.lists(st.integers(0, LONGEST), max_size=4))
    chosen(fuzz)()
    exploring = settings(
        max_examples=400,
        derandomize=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    deadline = time.monotonic() + SECONDS / len(found)
    while time.monotonic() < deadline:
        seed(random.getrandbits(64))(exploring(chosen(fuzz)))()
    with capsys.disabled():
        if SECONDS:
            print(f"\n{protocol}: {tried} {kind} inputs, each in three ways")
