"""The compiled loops give what Python gives, or leave it to Python."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
from importlib.util import find_spec

import pytest
from codec_harness import ProtocolError
from compiled_loops import blocks_left, compiled
from hypothesis import given
from hypothesis import strategies as st

from protocols import fastcgi_records, scgi, speed, uwsgi

NAMES = ["", "A", "CONTENT_LENGTH", "HTTP_X", "HTTP_" + "Y" * 200, "\xe9", "REQUEST_URI", "SCGI"]
VALUES = ["", "1", "x" * 127, "x" * 128, "x" * 70000, "\xff\x80"]
PAIRS = [(name, value) for name in NAMES for value in VALUES]


def fastcgi_block(pairs) -> bytes:
    def length(text: str) -> bytes:
        size = len(text)
        return bytes([size]) if size < 128 else struct.pack(">I", size | 1 << 31)

    return b"".join(
        length(name) + length(value) + (name + value).encode("latin-1") for name, value in pairs
    )


def uwsgi_block(pairs) -> bytes:
    texts = [text.encode("latin-1")[:65535] for pair in pairs for text in pair]
    return b"".join(struct.pack("<H", len(text)) + text for text in texts)


def scgi_block(pairs) -> bytes:
    return "".join(f"{name}\0{value}\0" for name, value in pairs).encode("latin-1")


def in_python(family, block):
    """What the codec makes of it without the compiled loop, or None for a refusal."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (fastcgi_records, "fastcgi_pairs"),
            (scgi, "scgi_pairs"),
            (uwsgi, "uwsgi_pairs"),
        ):
            patch.setattr(module, name, lambda _block: None)
        try:
            if family == "fastcgi":
                return fastcgi_records.decode_pairs(block)
            return (scgi if family == "scgi" else uwsgi)._pairs(block)
        except (ProtocolError, ValueError):
            return None


LOOPS = {
    "fastcgi": (speed.fastcgi_pairs, fastcgi_block),
    "scgi": (speed.scgi_pairs, scgi_block),
    "uwsgi": (speed.uwsgi_pairs, uwsgi_block),
}
every_loop = pytest.mark.parametrize("family", LOOPS)


def agree(family, block) -> bool:
    """Whether the compiled loop took the block; what it says must be what Python says."""
    found = LOOPS[family][0](block)
    if found is None:
        return False
    expected = in_python(family, block)
    assert found == expected
    assert [*found] == [*expected]
    return True


@compiled
@every_loop
def test_pairs_of_every_size(family):
    encode = LOOPS[family][1]
    assert agree(family, b"")
    for pair in PAIRS:
        assert agree(family, encode([pair]))
        assert agree(family, encode([("FIRST", "1"), pair, ("LAST", "\xe4")]))
    for _ in range(3):  # names that are known by now
        assert agree(family, encode([(name, str(n)) for n, name in enumerate(NAMES)]))


@compiled
@every_loop
def test_a_name_that_comes_twice_is_left_to_python(family):
    encode = LOOPS[family][1]
    assert not agree(family, encode([("A", "1"), ("B", "2"), ("A", "1")]))
    assert not agree(family, encode([("", ""), ("", "")]))


@compiled
@every_loop
def test_a_block_that_is_cut_anywhere(family):
    block = LOOPS[family][1]([("A", "1"), ("HTTP_" + "X" * 130, "y" * 300), ("B", "")])
    for end in range(len(block)):
        assert agree(family, block[:end]) == (in_python(family, block[:end]) is not None)


@compiled
@every_loop
def test_more_names_than_are_kept(family):
    encode = LOOPS[family][1]
    numbers = [*range(5000)]
    for _ in range(3):
        random.Random(7).shuffle(numbers)
        assert agree(family, encode([(f"HTTP_X_{n}", str(n)) for n in numbers[:900]]))


@compiled
@every_loop
@given(data=st.binary(max_size=300))
def test_any_bytes(family, data):
    agree(family, data)


@compiled
@every_loop
def test_nothing_but_bytes(family):
    for value in ("text", bytearray(b""), None, 1):
        with pytest.raises(TypeError):
            LOOPS[family][0](value)


@compiled
@every_loop
def test_it_keeps_nothing_of_a_request(family):
    """The same block a thousand times leaves as many objects as ten times."""
    encode, loop = LOOPS[family][1], LOOPS[family][0]
    value = "v" * 50
    block = encode([("A", value), ("HTTP_B", value)])
    cut = encode([("A", value), ("A", value)])
    assert blocks_left(lambda: (loop(block), loop(cut))) < 100


@pytest.mark.parametrize("value", ["1", "0"])
def test_the_environment_leaves_it_out(value):
    code = "from protocols import speed; print(speed.COMPILED)"
    command = [sys.executable, "-c", code]
    env = {**os.environ, "GATEWAY_PURE": value}
    said = subprocess.run(command, check=True, env=env, capture_output=True, text=True).stdout
    is_built = find_spec("protocols._speed") is not None
    assert said == f"{is_built and value == '0'}\n"


@compiled
@every_loop
def test_values_that_change_and_come_back(family):
    encode = LOOPS[family][1]
    values = ["", "1", "2", "\xe9", "\xe8", "v" * 64, "w" * 64, "v" * 65, "w" * 65, "1"]
    for first in values:
        for second in values:
            block = encode([("A", first), ("B", second), ("N" * 65, first), ("\xe4", second)])
            assert agree(family, block)


@compiled
@pytest.mark.parametrize("number", [0, 1, 255, 256, 65535])
def test_whole_answers(number):
    for size in (1, 2, 7, 8, 9, 100, 65521, 65528):
        content = bytes(range(1, 256)) * 258
        for cut in {0, 1, size // 2, size}:
            head, data = content[:cut], content[cut:size]
            answer = speed.fastcgi_answer(number, head, data)
            assert answer == fastcgi_records.whole_answer(number, head + data)
            assert answer == speed.fastcgi_answer(number, Text(head), Text(data))


class Text(bytes):
    """An application may send these."""


@compiled
def test_answers_that_are_left_to_python():
    for number, size in ((1, 0), (1, 65529), (-1, 5), (65536, 5), (1, 200_000)):
        for cut in {0, size // 2, size}:
            assert speed.fastcgi_answer(number, b"x" * cut, b"x" * (size - cut)) is None
    with pytest.raises(OverflowError):
        speed.fastcgi_answer(1 << 70, b"x", b"")
    for wrong in ((1, b""), ("1", b"x", b""), (1, "x", b""), (1, b"x", None), (1, b"", b"", b"")):
        with pytest.raises(TypeError):
            speed.fastcgi_answer(*wrong)


@compiled
def test_answers_keep_nothing():
    number, head, data = 70000 // 2, b"h" * 600, b"d" * 600
    speed.fastcgi_answer(number, head, data)
    before = sys.getallocatedblocks(), sys.getrefcount(number), sys.getrefcount(data)
    for _ in range(1000):
        speed.fastcgi_answer(number, head, data)
    after = sys.getallocatedblocks(), sys.getrefcount(number), sys.getrefcount(data)
    assert after[0] - before[0] < 10
    assert after[1:] == before[1:]
