"""Response splitting: no character, and no object that lies about itself, gets into a head."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest

from protocols.headers import encode_fields, status_code

TOKEN = set("!#$%&'*+-.^_`|~0123456789") | set(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)
VALUE = {"\t"} | {chr(code) for code in (*range(0x20, 0x7F), *range(0x80, 0x100))}
CHARACTERS = [
    chr(code) for code in (*range(0x300), 0x2028, 0x2029, 0xD800, 0xDFFF, 0xFF1A, 0x1F600)
]

INJECTED = "\r\nInjected: yes"


class Liar(str):
    """Says that it is another text, to whoever asks it and not its characters."""

    __slots__ = ("mask",)

    def __new__(cls, text, mask):
        made = super().__new__(cls, text)
        made.mask = mask
        return made

    def __eq__(self, other):
        return self.mask == other

    def __hash__(self):
        return hash(self.mask)

    def __str__(self):
        return self.mask

    __repr__ = __format__ = lower = strip = encode = isprintable = isascii = __str__


class Changing(tuple):
    """Another pair each time that it is read."""

    __slots__ = ()
    turn = 0

    def __iter__(self):
        Changing.turn += 1
        return iter(("X", "a" + INJECTED) if Changing.turn % 2 else ("X", "plain"))


@pytest.mark.parametrize(
    ("make", "good"),
    [
        (lambda char: encode_fields([("X", f"a{char}b")]), VALUE),
        (lambda char: encode_fields([("X", char)]), VALUE),
        (lambda char: encode_fields([("A", "plain"), ("X", f"{char}b"), ("Z", "a\tb")]), VALUE),
        (lambda char: encode_fields([(f"X{char}Y", "a")]), TOKEN),
        (lambda char: encode_fields([(f"{char}Y", "a")]), TOKEN),
        (lambda char: encode_fields([(f"X{char}", "a")]), TOKEN),
        (lambda char: status_code(f"200 O{char}K"), VALUE),
        (lambda char: status_code(f"200 {char}"), VALUE),
        (lambda char: status_code(f"200{char}OK"), {" "}),
        (lambda char: status_code(f"{char}00 OK"), set("23456789")),
        (lambda char: encode_fields([("Content-Length", f"1{char}")]), set("0123456789")),
        (lambda char: encode_fields([("Content-Length", f"{char}1")]), set("0123456789")),
    ],
)
def test_every_character(make, good):
    taken = set()
    for char in CHARACTERS:
        try:
            made = make(char)
        except ValueError:
            continue
        taken.add(char)
        if not isinstance(made, int):
            lines = made.lines.encode("latin-1")
            assert len(re.findall(rb"[\r\n]", lines)) == 2 * lines.count(b"\r\n")
            assert lines.count(b"\r\n") == lines.count(b": ")
    assert taken == good & set(CHARACTERS)


@pytest.mark.parametrize("again", range(3))
@pytest.mark.parametrize(
    "field",
    [
        (Liar("X-A" + INJECTED, "X-A"), "plain"),
        ("X-A", Liar("plain" + INJECTED, "plain")),
        (Liar("Transfer-Encoding", "X-A"), "chunked"),
        (Liar("Connection", "X-A"), "close"),
        ("Content-Length", Liar("5" + INJECTED, "5")),
    ],
    ids=repr,
)
def test_text_that_lies_about_itself(field, again):
    """Whatever is remembered of honest text."""
    del again
    for honest in ([("X-A", "plain")], [("Content-Length", "5")]):
        encode_fields(honest)
    with suppress(ValueError, TypeError):
        assert encode_fields([field]).lines in ("X-A: plain\r\n", "Content-Length: 5\r\n")


def test_a_length_that_is_none_of_those_that_are_counted():
    """It would be framing that the server does not know of."""
    encode_fields([("X-A", "7")])
    fields = encode_fields([(Liar("Content-Length", "X-A"), "7"), ("X-B", "1")])
    assert fields.length == 7


@pytest.mark.parametrize("again", range(4))
def test_a_pair_that_changes(again):
    del again
    with suppress(ValueError):
        assert encode_fields([Changing(("X", "plain"))]).lines == "X: plain\r\n"
