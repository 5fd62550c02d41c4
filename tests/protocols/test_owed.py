"""Bodies of known length go past the codec, which only counts them."""

from __future__ import annotations

import pytest

import protocols
from protocols.model import Limits, ProtocolError, Request

_HTTP = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n"
_HEADS = {
    "http": _HTTP,
    "scgi": b"25:CONTENT_LENGTH\x0010\0SCGI\x001\0,",
    "uwsgi": b"\0\x14\0\0\x0e\0CONTENT_LENGTH\x02\x0010",
}


def codec_of(name):
    return protocols.codec_class(name)(Limits())


@pytest.mark.parametrize("name", _HEADS)
def test_what_is_owed_is_what_is_missing(name):
    codec = codec_of(name)
    head = _HEADS[name]
    assert codec.owed() == 0
    assert codec.receive(head[:-1]) == []
    assert codec.owed() == 0
    (request,) = codec.receive(head[-1:] + b"abc")
    assert (request.length, request.body, request.more) == (10, b"abc", True)
    assert codec.owed() == 7
    assert not codec.arrived(1)
    assert codec.owed() == 6
    assert [event.data for event in codec.receive(b"e")] == [b"e"]
    assert codec.owed() == 5
    assert codec.arrived(5)
    assert codec.owed() == 0
    assert codec.closing == (name != "http")


@pytest.mark.parametrize("name", _HEADS)
def test_an_end_before_all_that_is_owed_is_a_fault(name):
    codec = codec_of(name)
    codec.receive(_HEADS[name])
    codec.arrived(9)
    with pytest.raises(ProtocolError, match="in the middle of a request body"):
        codec.receive_eof()
    assert codec.owed() == 0


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
def test_what_follows_is_the_next_request_or_nothing(connection):
    codec = codec_of("http")
    codec.receive(_HTTP.replace(b"Host", f"Connection: {connection}\r\nHost".encode()))
    assert codec.arrived(10)
    events = codec.receive(_HTTP)
    assert [type(event) for event in events] == [Request] * (connection == "keep-alive")
    assert codec.owed() == 10 * len(events)


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("http", b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"),
        ("http", b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"),
        ("fastcgi", b"\1\1\0\1\0\x08\0\0\0\1\1\0\0\0\0\0\1\4\0\1\0\0\0\0\1\5\0\1\0\x08\0\0"),
    ],
)
def test_nothing_is_owed_that_has_to_be_read(name, head):
    codec = codec_of(name)
    codec.receive(head)
    assert codec.owed() == 0
