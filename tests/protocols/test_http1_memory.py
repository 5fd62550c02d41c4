"""What is remembered of other connections changes nothing but the time it takes."""

from __future__ import annotations

from codec_harness import Feed, whole
from codec_harness import vectors as vectors_of

from protocols.http1 import Http1Codec
from protocols.http1_memory import Memory, is_plain
from protocols.model import Limits, ProtocolError

CASES = vectors_of("http").cases


def outcome(case, limits):
    feed = Feed(Http1Codec(limits))
    for pieces in whole(case.parts):
        if not feed.send(pieces):
            break
    return feed.finish()


def test_every_vector_again_and_again():
    """With the memory of all of them, five times, in both orders."""
    shared = {}
    expected = [outcome(case, Limits(**case.limits)) for case in CASES]
    for order in (1, 1, -1, 1, -1):
        for case, first in [*zip(CASES, expected, strict=True)][::order]:
            limits = shared.setdefault(str(case.limits), Limits(**case.limits))
            assert outcome(case, limits) == first, case
    memories = [limits.memory for limits in shared.values()]
    assert any(memory.blocks and memory.lines and memory.heads for memory in memories)


#: Ends the connection, and is kept with those that do.
LAST = b"Host: a\r\nConnection: close\r\n"
FIELDS = {
    b"Host: a\r\n": True,
    b"Host: a\r\nX-A: 1\r\nx-a: 2\r\n": True,
    b"Host: a\r\nContent-Length: 3\r\n": True,
    b"Host: a\r\nX-Forwarded-For: 1.2.3.4\r\n": True,
    b"Host: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n": True,
    b"": False,
    b"Host: a\r\nHost: a\r\n": False,
    LAST: False,
    b"Host: a\r\nTransfer-Encoding: chunked\r\n": False,
    b"Host: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n": False,
    b"Host: a\r\nX: " + b"1" * 2048 + b"\r\n": False,
}
#: Plain, but not worth its memory by itself.
LONG = b"GET /" + b"a" * 300 + b" HTTP/1.1"
LINES = {
    b"GET / HTTP/1.1": True,
    b"POST /a%20b?c=%64 HTTP/1.1": True,
    b"HEAD /a HTTP/1.1": True,
    b"HEAD /%zz HTTP/1.1": False,
    b"GET / HTTP/1.0": False,
    b"GET http://a/ HTTP/1.1": False,
    b"GET http://b/ HTTP/1.1": False,
    b"OPTIONS * HTTP/1.1": False,
    b"PROPFIND / HTTP/1.1": False,
    b"GET /\xff HTTP/1.1": False,
    b"GET /#x HTTP/1.1": False,
    LONG: False,
}


def seen(limits, line, fields):
    codec = Http1Codec(limits)
    try:
        *interim, request = codec.receive(line + b"\r\n" + fields + b"\r\n")
    except ProtocolError as error:
        return error.reason, error.reply
    return request, interim, codec.closing


def test_every_line_with_every_block():
    limits = Limits()
    for _ in range(5):
        for line in LINES:
            for fields in FIELDS:
                alone = seen(Limits(), line, fields)
                assert seen(limits, line, fields) == alone, (line, fields)
    memory = limits.memory
    assert memory.lines.keys() == {line for line, kept in LINES.items() if kept}
    blocks = {b"\r\n" + fields + b"\r\n" for fields, kept in FIELDS.items() if kept}
    assert memory.blocks.keys() == blocks
    assert memory.last_blocks.keys() == {b"\r\n" + LAST + b"\r\n"}
    assert memory.heads.keys() == {
        line + block
        for line in (*memory.lines, LONG)
        for block in blocks
        if line[:4] != b"HEAD" and b"Content-Length" not in block
    }


def test_a_remembered_head_in_other_company():
    """Cut, behind another request, and as bytes of a body: what it is depends on where it is."""
    head = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
    limits = Limits()
    alone = [Http1Codec(limits).receive(head) for _ in range(6)]
    assert head in limits.memory.heads
    assert alone[-1] == alone[0]
    for cut in range(1, len(head)):
        codec = Http1Codec(limits)
        assert [*codec.receive(head[:cut]), *codec.receive(head[cut:])] == alone[0]
    assert Http1Codec(limits).receive(head * 2) == alone[0] * 2
    codec = Http1Codec(limits)
    codec.receive(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(head))
    (body,) = codec.receive(head)
    assert body.data == head
    codec = Http1Codec(limits)
    codec.receive(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert codec.receive(head) == []


def test_a_remembered_head_that_is_the_last():
    """It ends its connection, as it did when it was new; what follows is nobody's."""
    head = b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    limits = Limits()
    for _ in range(6):
        codec = Http1Codec(limits)
        (request,) = codec.receive(head)
        assert (request.keep_alive, request.more, codec.closing) == (False, False, True)
        assert request.environ["PATH_INFO"] == "/a"
        request.environ.clear()
        assert codec.receive(head) == []
        assert codec.receive_eof() == []
    assert [*limits.memory.last_heads] == [head]
    assert head not in limits.memory.heads
    for cut in range(1, len(head)):
        codec = Http1Codec(limits)
        (request,) = [*codec.receive(head[:cut]), *codec.receive(head[cut:])]
        assert (request.keep_alive, codec.closing) == (False, True)
    kept = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
    codec = Http1Codec(limits)
    assert [request.keep_alive for request in codec.receive(kept + head + kept)] == [True, False]


def test_what_an_application_does_to_its_environ_is_not_remembered():
    limits = Limits()
    for _ in range(7):
        request, _, _ = seen(limits, b"GET /a HTTP/1.1", b"Host: a\r\n")
        assert "X" not in request.environ
        assert request.environ["HTTP_HOST"] == "a"
        request.environ["X"] = "1"
        request.environ["HTTP_HOST"] = "other"


def test_it_is_bounded():
    memory = Memory()
    for number in range(5000):
        for _ in range(2):
            memory.learn_line(b"GET /%d HTTP/1.1" % number, {})
            memory.learn_block(b"X: %d" % number, {}, keep_alive=True)
            memory.learn_block(b"Y: %d" % number, {}, keep_alive=False)
            memory.learn_head(b"Z: %d" % number, {}, keep_alive=True)
            memory.learn_head(b"Z: -%d" % number, {}, keep_alive=False)
    assert 0 < len(memory.lines) <= 256
    assert 0 < len(memory.blocks) <= 256
    assert 0 < len(memory.last_blocks) <= 256
    assert 0 < len(memory.heads) <= 256
    assert 0 < len(memory.last_heads) <= 256
    memory = Memory()
    for number in range(5000):
        memory.learn_line(b"GET /%d HTTP/1.1" % number, {})
    assert not memory.lines


def test_plain_targets_are_those_that_the_parser_takes():
    """Any byte in a target: a plain one is taken, and what is not plain is left to the parser."""
    for byte in range(256):
        target = f"/a{chr(byte)}b"
        fresh = seen(Limits(), b"GET " + target.encode("latin-1") + b" HTTP/1.1", b"Host: a\r\n")
        if is_plain("GET", target, "HTTP/1.1") and chr(byte) not in " %#":
            assert fresh[0].environ["REQUEST_URI"] == target
