"""Each vector means the same whole, cut in two anywhere, and byte by byte."""

from __future__ import annotations

from dataclasses import replace

import pytest
from codec_harness import (
    Case,
    Outcome,
    folder,
    run,
    single_bytes,
    two_way_splits,
    vectors,
    whole,
)


def comparable(case: Case, outcome: Outcome) -> Outcome:
    """The fault that is found first may depend on the cuts where there are several."""
    if case.faults > 1 and outcome.refused:
        return replace(outcome, refused="yes", reply=b"")
    return outcome


def test_has_vectors(protocol):
    assert folder(protocol) is not None, (
        f"the protocol {protocol!r} is installed but has no vectors: add the folder "
        f"tests/protocols/vectors/{protocol}, or name the folder above it in "
        "GATEWAY_PROTOCOL_VECTORS"
    )
    assert vectors(protocol).cases, f"the vectors of {protocol!r} have no CASES"
    assert vectors(protocol).replies, f"the vectors of {protocol!r} have no REPLIES"
    assert vectors(protocol).complete


def test_whole(codec_class, protocol, case):
    outcome = run(codec_class, whole(case.parts), **case.limits)
    assert outcome.requests == case.requests
    assert outcome.outbox == case.outbox
    assert bool(outcome.refused) == bool(case.refused), outcome.refused
    assert case.refused in outcome.refused
    assert bool(outcome.eof) == bool(case.eof), outcome.eof
    assert case.eof in outcome.eof
    assert outcome.closing == (case.closing or bool(case.refused))
    check = vectors(protocol).check_refusal
    if outcome.refused and check:
        check(outcome.refused, outcome.reply)


def test_two_way_splits(codec_class, case):
    expected = comparable(case, run(codec_class, whole(case.parts), **case.limits))
    for at, sends in two_way_splits(case.parts):
        outcome = run(codec_class, sends, **case.limits)
        assert comparable(case, outcome) == expected, f"cut at {at}"


@pytest.mark.parametrize("past", [False, True], ids=["", "past"])
def test_byte_by_byte(codec_class, case, past):
    """Also with bodies that go past the codec."""
    expected = comparable(case, run(codec_class, whole(case.parts), **case.limits))
    outcome = run(codec_class, single_bytes(case.parts), past=past, **case.limits)
    assert comparable(case, outcome) == expected
