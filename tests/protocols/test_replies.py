"""Answers, byte for byte; what may not be answered; and that answers share no state."""

from __future__ import annotations

import copy

import pytest
from codec_harness import Reply, vectors
from codec_properties import attributes

import protocols
from protocols import headers
from protocols.headers import encode_fields, status_code
from protocols.http1 import Http1Codec
from protocols.model import UNKNOWN, Limits, Request

BAD_STATUSES = [
    "", "200", "OK", "2000 OK", "20 OK", "200OK", " 200 OK", "100 Continue", "101 Switching", "0xx",
    "600", "1e3 OK", "200 OK\r\n", "200 OK\r\nX: y", "200 O\nK", "200 O\0K", "200 O\x7fK",
    "200 \u20ac", "\u0662\u0660\u0660 OK", "200\tOK",
]  # fmt: skip
BAD_FIELDS = [
    ("", "x"), ("X Y", "x"), ("X:", "x"), ("X\r\nY", "x"), ("X\0", "x"), ("\xe9", "x"),
    ("X\t", "x"), ("\u212a", "x"), ("X", "a\r\nY: z"), ("X", "a\n"), ("X", "a\r"), ("X", "a\0"),
    ("X", "a\x1b"),
    ("X", "a\x7f"), ("X", "\u20ac"), ("X", "\u0100"), ("X", "\u2028"), ("X", "\ud800"),
    ("Content-Length", ""), ("Content-Length", "-1"), ("Content-Length", "+1"),
    ("Content-Length", "1.0"), ("Content-Length", " 1"), ("Content-Length", "\xb2"),
    ("Content-Length", "1, 1"), ("Content-Length", "\u0661"),
    *((name, "x") for name in (
        "Connection", "connection", "KEEP-ALIVE", "Proxy-Authenticate", "Proxy-Authorization",
        "Proxy-Connection", "TE", "Trailer", "Trailers", "Transfer-Encoding", "Upgrade", "Status",
    )),
]  # fmt: skip
BAD_LISTS = [*([field] for field in BAD_FIELDS), [("Content-Length", "1"), ("content-length", "1")]]
NO_TEXT = [[(b"X", "y")], [("X", b"y")], [(1, "y")], [("X", 1)], [("X", None)], [(None, "y")]]
GOOD_FIELDS = [
    ("X", ""), ("X", " a\tb "), ("X", "\x80\xff"), ("X", '~!"{}'), ("!#$%&'*+-.^_`|~0aA", "x"),
    ("Content-Length", "0"), ("Content-Length", "00012"), ("Keep-Alive-X", "x"), ("X_Y", "x"),
]  # fmt: skip
LONG_NUMBER = [[("Content-Length", "1" * 5000)]]


def request_of(codec, data: bytes) -> Request:
    request = codec.receive(data)[0]
    assert type(request) is Request
    return request


def sample(codec_class, protocol: str) -> tuple:
    codec = codec_class(Limits())
    return codec, request_of(codec, vectors(protocol).complete.parts[0])


def state(request: Request) -> dict:
    return {name: copy.copy(value) for name, value in attributes(request).items()}


def wire_of(codec, request: Request, answer: Reply) -> bytes:
    request.keep_alive = request.keep_alive and answer.keep_alive
    if answer.pieces is None:
        return codec.reply(request, answer.status, answer.headers, answer.data)
    head = codec.head(request, answer.status, answer.headers, answer.length)
    assert head, "the head is sent at once"
    pieces = [codec.body(request, piece) for piece in answer.pieces]
    assert not any(wire for wire, piece in zip(pieces, answer.pieces, strict=True) if not piece), (
        "an empty piece is no bytes: a chunk of none would end the body"
    )
    return head + b"".join(pieces) + codec.end(request)


def test_wire(codec_class, answer):
    codec = codec_class(Limits())
    request = request_of(codec, answer.request)
    assert wire_of(codec, request, answer) == answer.wire
    assert request.ended
    assert request.keep_alive is not answer.closes


def test_edges_are_what_the_body_has_around_a_piece(codec_class, protocol):
    """Once while there is a length, once while there is none."""
    for length in (UNKNOWN, 1 << 20):
        codec, request = sample(codec_class, protocol)
        codec.head(request, "200 OK", [], length)
        _, twin = sample(codec_class, protocol)
        codec.head(twin, "200 OK", [], length)
        for size in (1, 7, 8, 255, 256, 8192, 16_384, 65_528, 65_529, 100_000):
            if size <= codec.most_framed:
                before, behind = codec.edges(request, size)
                assert before + b"x" * size + behind == codec.body(twin, b"x" * size)
                assert state(request) == state(twin)
    assert codec.most_framed >= 65_528 or not codec_class.__module__.startswith("protocols.")


def test_more_sizes_of_chunks_than_are_kept():
    codec, request = sample(Http1Codec, "http")
    request.chunked = True
    for _ in range(2):
        for size in range(1, 600):
            assert codec.edges(request, size) == (b"%x\r\n" % size, b"\r\n")


@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "304 Not Modified"])
@pytest.mark.parametrize("fields", [*BAD_LISTS, *NO_TEXT, *LONG_NUMBER], ids=repr)
def test_bad_headers(codec_class, protocol, status, fields):
    """Nothing is sent, and nothing of the attempt is left: a 500 can follow."""
    codec, request = sample(codec_class, protocol)
    before = state(request)
    for length in (UNKNOWN, 3):
        with pytest.raises((ValueError, TypeError)):
            codec.head(request, status, [("Good", "x"), *fields], length)
    with pytest.raises((ValueError, TypeError)):
        codec.reply(request, status, fields, b"abc")
    assert state(request) == before


@pytest.mark.parametrize("status", [*BAD_STATUSES, 200, None, b"200 OK"], ids=repr)
def test_bad_status(codec_class, protocol, status):
    codec, request = sample(codec_class, protocol)
    before = state(request)
    with pytest.raises((ValueError, TypeError)):
        codec.head(request, status, [], UNKNOWN)
    assert state(request) == before


@pytest.mark.parametrize("field", GOOD_FIELDS, ids=repr)
def test_good_headers(field):
    encoded = encode_fields([field])
    assert encoded.lines == f"{field[0]}: {field[1]}\r\n"
    assert encoded.length == (int(field[1]) if field[0] == "Content-Length" else UNKNOWN)


@pytest.mark.parametrize(
    ("status", "code"), [("200 OK", 200), ("404 ", 404), ("999 a\tb\xe9", 999), ("299 200 OK", 299)]
)
def test_good_status(status, code):
    assert status_code(status) == code


def test_answers_share_no_state(protocol, codec_class):
    """Every answer comes out the same while another one of the codec is under way."""
    for other in vectors(protocol).replies:
        codec = codec_class(Limits())
        half = request_of(codec_class(Limits()), other.request)
        half.keep_alive = half.keep_alive and other.keep_alive
        before = repr(attributes(codec))
        codec.head(half, other.status, other.headers, other.length)
        codec.body(half, b"ab")
        unfinished = state(half)
        for answer in vectors(protocol).replies:
            request = request_of(codec_class(Limits()), answer.request)
            assert wire_of(codec, request, answer) == answer.wire, (other.name, answer.name)
        assert state(half) == unfinished
        assert repr(attributes(codec)) == before


def test_answer_while_receiving(protocol, codec_class):
    """Replying changes nothing of what is received, and the other way round."""
    case = vectors(protocol).complete
    answer = vectors(protocol).replies[0]
    data = case.parts[0]
    for at in range(1, len(data)):
        codec = codec_class(Limits())
        request = request_of(codec_class(Limits()), answer.request)
        first = codec.receive(data[:at])
        assert wire_of(codec, request, answer) == answer.wire
        events = first + codec.receive(data[at:])
        assert events[0].environ == case.requests[0].environ


# What a protocol does beside its answers


def test_http_pipelined_close_is_the_second_ones():
    from protocols.http1 import Http1Codec

    codec = Http1Codec(Limits())
    get = b"GET / HTTP/1.1\r\nHost: a\r\n"
    first, second = codec.receive(get + b"\r\n" + get + b"Connection: close\r\n\r\n")
    assert codec.closing
    for request, closes in ((second, True), (first, False)):
        wire = codec.reply(request, "200 OK", [], b"")
        assert (b"Connection: close" in wire) is closes


def test_http_date_and_server(monkeypatch):
    from protocols.http1 import Http1Codec
    from protocols.model import ProtocolError

    monkeypatch.setattr(Http1Codec, "date", b"Date: now\r\n")
    monkeypatch.setattr(Http1Codec, "server", b"")
    codec = Http1Codec(Limits())
    request = request_of(codec, b"GET / HTTP/1.0\r\n\r\n")
    wire = codec.reply(request, "200 OK", [("X-Own", "1")], b"")
    assert wire.startswith(b"HTTP/1.1 200 OK\r\nX-Own: 1\r\nDate: now\r\nContent-Length: 0\r\n")
    with pytest.raises(ProtocolError) as caught:
        Http1Codec(Limits()).receive(b"GET / HTTP/1.1\r\n\r\n")
    assert caught.value.reply.startswith(b"HTTP/1.1 400 Bad Request\r\nDate: now\r\n")


@pytest.mark.parametrize(
    ("head", "pieces", "resets"),
    [(b"GET / HTTP/1.0\r\n\r\n", UNKNOWN, True), (b"GET / HTTP/1.0\r\n\r\n", 3, False),
     (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", UNKNOWN, False)],
)  # fmt: skip
def test_http_cut_answers(head, pieces, resets):
    from protocols.http1 import Http1Codec

    codec = Http1Codec(Limits())
    request = request_of(codec, head)
    codec.head(request, "200 OK", [], pieces)
    assert codec.resets_to_cut(request) is resets


@pytest.mark.parametrize("size", [1, 7, 8, 70_000])
def test_fastcgi_errors(size):
    """``wsgi.errors`` goes as one whole STDERR stream, padded like the rest."""
    from protocols.fastcgi import FastCgiCodec

    codec = FastCgiCodec(Limits())
    request = Request(7, {})
    wire = codec.errors(request, "\xe9" + "x" * (size - 1))
    content, at, ends = b"", 0, 0
    while at < len(wire):
        length, padding = int.from_bytes(wire[at + 4 : at + 6], "big"), wire[at + 6]
        assert wire[at : at + 4] == bytes([1, 7, 0, 7])
        assert (length + padding) % 8 == 0
        assert ends == 0
        ends += length == 0
        content += wire[at + 8 : at + 8 + length]
        at += 8 + length + padding
    assert ends == 1
    assert content.decode() == "\xe9" + "x" * (size - 1)
    assert not request.ended


def test_others_have_no_channel_for_errors():
    from protocols.scgi import ScgiCodec

    assert ScgiCodec(Limits()).errors(Request(0, {}), "x") == b""


@pytest.mark.parametrize("number", [1, 63, 64, 65535])
@pytest.mark.parametrize("size", [*range(17), 65519, 65528, 65529, 200_000])
def test_fastcgi_whole_answers(number, size):
    """An answer in one piece is what its records make, whatever its number and size."""
    from protocols.fastcgi import FastCgiCodec

    codec = FastCgiCodec(Limits())
    fields, body = [("Content-Length", str(size))], b"x" * size
    whole = codec.reply(Request(number, {}), "200 OK", fields, body)
    request = Request(number, {})
    pieces = codec.head(request, "200 OK", fields, size), codec.body(request, body)
    assert stream_of(whole, number) == stream_of(b"".join(pieces) + codec.end(request), number)


def stream_of(wire: bytes, number: int) -> bytes:
    """What is in the records of an answer, of which only the last two may be no content."""
    content, at = b"", 0
    while wire[at + 1] == 6:
        size, padding = int.from_bytes(wire[at + 4 : at + 6], "big"), wire[at + 6]
        assert wire[at : at + 4] == b"\1\6" + number.to_bytes(2, "big")
        assert (size + padding) % 8 == 0
        assert size or wire[at + 8 + padding + 1] == 3
        content += wire[at + 8 : at + 8 + size]
        at += 8 + size + padding
    assert wire[at:] == b"\1\3" + number.to_bytes(2, "big") + b"\0\x08\0\0" + bytes(8)
    return content


def test_protocols_do_not_answer_with_the_heads_of_others(monkeypatch):
    """They share what is known of header fields."""
    monkeypatch.setattr("protocols.headers._encoded", {})
    fields = [("X", "shared"), ("Content-Length", "3")]
    answers = {name: protocols.codec_class(name)(Limits()) for name in protocols.names()}
    alone = {}
    for name, codec in answers.items():
        headers._encoded.clear()
        alone[name] = codec.reply(Request(1, {}), "200 OK", fields, b"abc")
    for _ in range(2):
        for name, codec in answers.items():
            assert codec.reply(Request(1, {}), "200 OK", fields, b"abc") == alone[name]
    assert len(set(alone.values())) > 2
    for number in range(400, 420):
        for codec in answers.values():
            assert b"%d X" % number in codec.reply(Request(1, {}), f"{number} X", fields, b"abc")
    assert all(len(known.heads) < 8 for known in headers._encoded.values())
