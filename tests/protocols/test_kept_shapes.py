"""What the compiled loops keep of requests with the same names never shows in another request."""

from __future__ import annotations

import random
import sys

import pytest
from compiled_loops import compiled
from test_whole_reads import netstring, packet
from test_whole_requests import block, whole

from protocols import speed
from protocols.cgi import FOREIGN
from protocols.model import CLAIMS

pytestmark = compiled

START = (("CONTENT_LENGTH", "0"), ("SCGI", "1"))


def by_scgi(pairs, foreign=FOREIGN, *base):
    return speed.scgi_request(netstring(*START, *pairs), foreign, *base)


def by_uwsgi(pairs, foreign=FOREIGN, *base):
    del foreign
    return speed.uwsgi_request(packet(*START, *pairs), *base)


def by_fastcgi(pairs, foreign=FOREIGN, *base):
    return speed.fastcgi_request(whole(block(**dict([*START, *pairs]))), foreign, *base)[2]


WAYS = {by_scgi: True, by_uwsgi: False, by_fastcgi: True}
every_way = pytest.mark.parametrize("ask", WAYS)


def expected(ask, pairs, foreign=FOREIGN):
    left_out = foreign if WAYS[ask] else ()
    if ask is by_scgi:
        left_out = {*left_out, "SCGI"}
    return [(name, value) for name, value in (*START, *pairs) if name not in left_out]


@every_way
def test_it_comes_again_as_it_came(ask):
    pairs = [("A", "1"), ("HTTP_PROXY", "x"), ("HTTP_B", "\x7f" * 100), ("C", "")]
    for _ in range(5):
        assert [*ask(pairs).items()] == expected(ask, pairs)
    for at in range(len(pairs)):
        for value in ("", "1", "2", "v" * 64, "v" * 65, "w" * 120):
            other = [*pairs]
            other[at] = other[at][0], value
            for _ in range(2):
                assert [*ask(other).items()] == expected(ask, other)
    assert [*ask(pairs).items()] == expected(ask, pairs)


@every_way
def test_what_an_application_does_with_it_is_its_own(ask):
    pairs = [("A", "1"), ("B", "2")]
    for _ in range(5):
        environ = ask(pairs)
        assert [*environ.items()] == expected(ask, pairs)
        environ["A"] = "another"
        del environ["B"]
        environ["wsgi.input"] = object()


def test_protocols_and_names_that_are_left_out_do_not_mix():
    pairs = [("A", "1"), ("HTTP_TE", "x"), ("B", "2")]
    for foreign in (FOREIGN, frozenset({"A"}), frozenset(), FOREIGN):
        for _ in range(4):
            for ask in WAYS:
                for _ in range(3):
                    assert [*ask(pairs, foreign).items()] == expected(ask, pairs, foreign)


@every_way
@pytest.mark.parametrize("count", [0, 1, 44, 45, 46, 47, 60])
def test_any_number_of_pairs(ask, count):
    pairs = [(f"HTTP_X{number}", str(number)) for number in range(count)]
    for turn in range(5):
        assert [*ask(pairs).items()] == expected(ask, pairs)
        if pairs:
            pairs[turn % count] = pairs[turn % count][0], "changed"


@every_way
@pytest.mark.parametrize("count", [0, 1, 60])
def test_what_every_environ_has_wins(ask, count):
    """Whatever the front end says, and whether it is kept or not."""
    more = [(f"HTTP_X{number}", "") for number in range(count)]
    stream, other = object(), object()
    bases = (
        {"wsgi.errors": stream, "A": "ours", "B": 1},
        {"wsgi.errors": other, "HTTP_PROXY": "ours"},
        {},
    )
    for turn in range(6):
        for base in bases:
            for value in (str(turn), "same"):
                pairs = [("A", value), ("HTTP_PROXY", value), *more, ("B", value)]
                for _ in range(3):
                    environ = ask(pairs, FOREIGN, base)
                    assert environ == dict(expected(ask, pairs)) | base
                    environ.clear()
    assert bases[0] == {"wsgi.errors": stream, "A": "ours", "B": 1}


@every_way
@pytest.mark.parametrize("count", [0, 60])
def test_claims_are_marked(ask, count):
    more = [(f"HTTP_X{number}", "") for number in range(count)]
    for name in ("HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_X_FORWARDED_" + "A" * 60):
        for value in ("1", "1", "2", "2"):
            pairs = [("A", value), (name, value), *more]
            assert ask(pairs) == dict(expected(ask, pairs)) | {CLAIMS: ""}
    plain = [("A", "HTTP_X_FORWARDED_FOR"), ("HTTP_FORWARD", ""), *more]
    for _ in range(4):
        assert CLAIMS not in ask(plain)


@pytest.mark.parametrize("count", [0, 60])
def test_what_is_no_scgi_is_left_to_the_codec(count):
    more = [(f"HTTP_X{number}", "") for number in range(count)]
    length, mark = START
    for _ in range(4):
        for wrong in ([length], [length, ("SCGI", "2")], [*START, mark], [*START, ("SCGI", "")]):
            assert speed.scgi_request(netstring(*wrong, *more), FOREIGN) is None
        assert speed.scgi_request(netstring(*START, *more), FOREIGN) is not None


def test_names_that_look_alike():
    """The same ends and the same length; and the same names in another order."""
    alike = [f"HTTP_X_F{letter}RWARDED_X_FOR" for letter in "ABCDEFGHIJ"]
    for turn in range(60):
        for ask in WAYS:
            names = random.Random(turn // 3).sample(alike, 6)
            pairs = [(name, f"{turn}{name}") for name in names]
            assert [*ask(pairs).items()] == expected(ask, pairs)


def test_requests_of_many_kinds():
    choices = random.Random(11)
    names = ["A", "B", "HTTP_C", "HTTP_TE", "HTTP_PROXY", "D" * 64, "E" * 65, "REMOTE_PORT"]
    kinds = [choices.sample(names, choices.randint(0, 8)) for _ in range(60)]
    for _ in range(6000):
        kind = choices.choice(kinds if choices.random() < 0.3 else kinds[:5])
        pairs = [(name, choices.choice(("", "1", "2", "x" * 70))) for name in kind]
        ask = choices.choice([*WAYS])
        assert [*ask(pairs).items()] == expected(ask, pairs)


def test_what_is_kept_is_bounded():
    def many(start):
        for number in range(start, start + 300):
            pairs = [(f"HTTP_N{number}", "v" * 60), ("HTTP_LARGE", "w" * 20000)]
            for _ in range(3):
                by_scgi(pairs)
                by_uwsgi(pairs[:1])

    many(0)
    before = sys.getallocatedblocks()
    many(1000)
    assert sys.getallocatedblocks() - before < 600
