"""A whole FastCGI request that is cut in one step means what its records mean."""

from __future__ import annotations

import random
import struct

import pytest
from codec_harness import unmarked, vectors
from compiled_loops import blocks_left, compiled

from protocols import fastcgi, fastcgi_records, speed
from protocols.cgi import FOREIGN
from protocols.model import Limits, ProtocolError, Request

BEGIN, PARAMS, STDIN = 1, 4, 5


def record(kind, content=b"", number=1, padding=0):
    head = struct.pack(">BBHHBx", 1, kind, number, len(content), padding)
    return head + content + b"\0" * padding


def block(**variables):
    pairs = [(name.encode(), value.encode()) for name, value in variables.items()]
    return b"".join(bytes((len(name), len(value))) + name + value for name, value in pairs)


GET = block(REQUEST_METHOD="GET", CONTENT_LENGTH="", HTTP_CONNECTION="close", HTTP_PROXY="x")
HEAD = block(REQUEST_METHOD="HEAD", HTTP_X_FORWARDED_FOR="192.0.2.1", HTTP_X="1")
POST = block(REQUEST_METHOD="POST", CONTENT_LENGTH="5", HTTP_EXPECT="100-continue")


def whole(params=GET, body=b"", number=1, flags=1, role=1, padding=0):
    return b"".join(
        (
            record(BEGIN, struct.pack(">HB5x", role, flags), number),
            record(PARAMS, params, number, padding),
            record(PARAMS, b"", number),
            record(STDIN, body, number, padding) if body else b"",
            record(STDIN, b"", number),
        )
    )


REQUESTS = {
    "get": whole(),
    "head that closes": whole(HEAD, flags=0),
    "post": whole(POST, b"abcde"),
    "post, padded": whole(POST, b"abcde", padding=3),
    "post of another number": whole(POST, b"abcde", number=513),
    "post, a body that is too short": whole(POST, b"abcd"),
    "post, a body that is too long": whole(POST, b"abcdefgh"),
    "post without a body": whole(POST),
    "a body without a length": whole(GET, b"abc"),
    "a length of -1": whole(block(CONTENT_LENGTH="-1"), b"abc"),
    "a length that is none": whole(block(CONTENT_LENGTH="1x")),
    "a name twice": whole(block(HTTP_A="1") + block(HTTP_A="2")),
    "a foreign name twice": whole(block(HTTP_PROXY="1") * 2 + GET),
    "pairs that are cut": whole(GET[:-1]),
    "no variables": whole(b""),
    "an empty name": whole(b"\0\0" + GET),
    "many variables": whole(block(**{f"HTTP_X_{n}": "v" * n for n in range(100)})),
    "a long value": whole(b"\x05\x80\0\1\x2cHTTP_" + b"v" * 300),
    "authorizer": whole(role=2),
    "filter": whole(role=3),
    "no role": whole(role=9),
    "number 0": whole(number=0),
    "two of them": whole() + whole(number=2),
    "values are asked": record(9, block(FCGI_MAX_CONNS="")),
    "half of one": whole()[:40],
}
TAKES = (speed.fastcgi_request, fastcgi_records.split_request)
LIMITS = {
    "as ever": {},
    "one at a time": {"multiplex": 1},
    "small heads": {"request_header_total": 100},
    "small bodies": {"request_body": 4},
    "no responder": {"roles": ("authorizer",)},
    "no keep-alive": {"keep_alive": False},
}


def outcome(sends, limits, ended=True):
    """All that a codec makes of them."""
    codec = fastcgi.FastCgiCodec(Limits(**limits))
    found = []
    for data in sends:
        try:
            events = codec.receive(data)
        except ProtocolError as error:
            events = [*error.events, (error.reason, error.reply)]
        for event in events:
            if type(event) is Request:
                found.append(list(unmarked(codec, event.environ).items()))
                found.append((event.stream, event.length, event.body, event.more))
                found.append((event.keep_alive, event.head_only))
                event.ended = ended
            else:
                found.append(event)
        found.append((codec.outbox, codec.refusals, codec.closing))
    return found, codec.is_between_requests()


def agree(*sends, limits=(), ended=True):
    limits = dict(limits)
    found = outcome(sends, limits, ended)
    with pytest.MonkeyPatch.context() as patch:
        for function in (lambda *_: None, fastcgi_records.split_request):
            patch.setattr(fastcgi, "whole_request", function)
            assert outcome(sends, limits, ended) == found


@compiled
def test_what_is_taken():
    number, flags, environ, body = speed.fastcgi_request(REQUESTS["post, padded"], FOREIGN)
    assert (number, flags, body) == (1, 1, b"abcde")
    assert environ == {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": "5"}
    everything = speed.fastcgi_request(REQUESTS["get"], frozenset())[2]
    assert [*everything] == ["REQUEST_METHOD", "CONTENT_LENGTH", "HTTP_CONNECTION", "HTTP_PROXY"]
    assert len(speed.fastcgi_request(REQUESTS["get"], FOREIGN)[2]) == 2


@pytest.mark.parametrize("limits", LIMITS.values(), ids=LIMITS)
@pytest.mark.parametrize("ended", [True, False])
def test_one_and_another(limits, ended):
    for first in REQUESTS.values():
        agree(first, limits=limits, ended=ended)
        for second in REQUESTS.values():
            agree(first, second, limits=limits, ended=ended)


@pytest.mark.parametrize("name", ["get", "post, padded"])
def test_any_byte_of_it_changed(name):
    data = REQUESTS[name]
    for at in range(len(data)):
        for value in (0, 1, 2, 4, 5, 6, 127, 128, 255, data[at] ^ 1):
            changed = data[:at] + bytes((value,)) + data[at + 1 :]
            agree(changed, whole(number=3), ended=False)


@pytest.mark.parametrize("name", ["get", "post, padded"])
def test_cut_anywhere(name):
    data = REQUESTS[name]
    for at in range(1, len(data)):
        for take in TAKES:
            assert take(data[:at], FOREIGN) is None
        agree(data[:at], data[at:], whole())
    for take in TAKES:
        assert take(data + b"\1", FOREIGN) is None
    agree(data + b"\1", whole()[1:])


def test_records_put_together_at_random():
    choices = random.Random(5)
    parts = [
        record(BEGIN, b"\0\1\1\0\0\0\0\0"), record(BEGIN, b"\0\1\0\0\0\0\0\0", 2),
        record(PARAMS, GET, padding=1), record(PARAMS, POST, 2), record(PARAMS), record(PARAMS),
        record(PARAMS, b"", 2), record(STDIN, b"abcde"), record(STDIN), record(STDIN),
        record(STDIN, b"", 2), record(2), record(8), record(11, b"", 0),
    ]  # fmt: skip
    for _ in range(3000):
        chosen = b"".join(choices.choices(parts, k=choices.randint(1, 7)))
        agree(chosen, whole(), ended=False)


def test_more_requests_at_once_than_there_may_be():
    agree(*(whole(number=number) for number in range(1, 9)), limits={"multiplex": 5}, ended=False)
    agree(*(whole(number=number) for number in range(1, 9)), limits={"multiplex": 5})


def test_vectors_on_one_connection():
    """Whatever came before, a whole request means the same."""
    for case in vectors("fastcgi").cases:
        if case.refused or case.limits:
            continue
        agree(*case.parts, whole(), whole(HEAD, number=7))


def test_what_is_taken_without_the_compiled_loop():
    for name in ("get", "head that closes", "a foreign name twice", "many variables"):
        found = fastcgi_records.split_request(REQUESTS[name], FOREIGN)
        assert found is not None, name
        assert found[0] == 1
        assert found[2]
        assert found[3] == b""


@compiled
def test_nothing_but_bytes():
    for data in ("text", bytearray(b""), None):
        with pytest.raises(TypeError):
            speed.fastcgi_request(data, FOREIGN)
    for names in (None, {"A"}, ("A",)):
        with pytest.raises(TypeError):
            speed.fastcgi_request(b"", names)


@compiled
def test_it_keeps_nothing_of_a_request():
    """The same ones a thousand times leave as many objects as ten times."""

    def ask():
        for data in REQUESTS.values():
            speed.fastcgi_request(data, FOREIGN)

    assert blocks_left(ask) < 100
