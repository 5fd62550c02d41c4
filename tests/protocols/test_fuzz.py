"""Whatever the bytes: only ProtocolError leaves a codec, and the cuts change nothing.

By default a short, reproducible run.  ``GATEWAY_FUZZ_SECONDS=60`` explores for that
long with each codec, with new seeds, and prints how many inputs it tried.
"""

from __future__ import annotations

import os
import random
import time

import pytest
from codec_harness import Vectors, vectors
from codec_properties import check_cuts, cut
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

SECONDS = float(os.environ.get("GATEWAY_FUZZ_SECONDS", "0"))
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
        check_cuts(codec_class, [data], [cut(data, cuts)])

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
