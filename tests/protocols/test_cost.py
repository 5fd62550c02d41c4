"""A head that arrives byte by byte costs no quadratic time: counted, not timed."""

from __future__ import annotations

from codec_harness import vectors
from codec_properties import Counting

from protocols.model import Limits

LARGE = 60_000
LIMITS = {"request_line": 1 << 20, "request_fields": 10_000, "request_header_total": 1 << 20}


def work(codec_class, data: bytes) -> int:
    """Bytes of the buffer looked at while ``data`` arrives byte by byte."""
    codec = codec_class(Limits(**LIMITS))
    assert type(codec._buffer) is bytearray, "the codec gathers bytes in a bytearray _buffer"
    codec._buffer = buffer = Counting()
    events = []
    for at in range(len(data)):
        events += codec.receive(data[at : at + 1])
        assert codec._buffer is buffer
    assert events
    return buffer.work


def test_byte_by_byte_is_linear(codec_class, protocol, shape):
    """Twice the bytes are about twice the work; quadratic would be four times."""
    build = vectors(protocol).long[shape]
    half, full = work(codec_class, build(LARGE // 2)), work(codec_class, build(LARGE))
    assert full <= 2.5 * half + 1000, (half, full)


def test_every_protocol_has_a_long_input(protocol):
    assert vectors(protocol).long, f"the vectors of {protocol!r} have no LONG inputs"
