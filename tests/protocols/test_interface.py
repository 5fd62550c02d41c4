"""What every codec is to its driver, whatever the protocol (protocols/model.py)."""

from __future__ import annotations

import inspect
import sys

import pytest
from codec_harness import vectors

import protocols
from protocols.model import Codec, Event, Limits, ProtocolError, Request


def test_found_by_name(protocol, codec_class):
    assert protocol in protocols.names()
    assert issubclass(codec_class, Codec)
    assert codec_class is not Codec


def test_unknown_names():
    with pytest.raises(LookupError, match="there is no protocol 'gopher'; there are "):
        protocols.codec_class("gopher")


def test_no_codec_is_imported_eagerly():
    import subprocess

    code = (
        "import protocols, sys; print(protocols.names());"
        "print([name for name in protocols.names() for m in sys.modules if m.endswith(name)])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert said.stdout.splitlines()[1] == "[]"


def test_shape(codec_class):
    for name in ("origin", "concurrent", "raw_body"):
        assert type(getattr(codec_class, name)) is bool
    for name in ("receive", "receive_eof", "head", "body", "end", "reply", "errors"):
        ours = inspect.signature(getattr(codec_class, name)).parameters
        assert list(ours) == list(inspect.signature(getattr(Codec, name)).parameters)
    limits = Limits()
    codec = codec_class(limits)
    assert codec.limits is limits
    assert type(codec.outbox) is bytes
    assert codec.closing is False


def test_events_are_of_the_model(codec_class, case):
    codec = codec_class(Limits(**case.limits))
    events: list[Event] = []
    try:
        for part in filter(None, case.parts):
            got = codec.receive(part)
            assert type(got) is list
            events += got
            for event in got:
                if type(event) is Request and not event.more:
                    codec.reply(event, "200 OK", [], b"")
    except ProtocolError as error:
        events += error.events
        refused = (type(error.reason), type(error.reply), "\n" in error.reason)
        assert refused == (str, bytes, False)
    assert all(isinstance(event, Event) for event in events)
    for event in events:
        if type(event) is Request:
            assert "REQUEST_METHOD" in event.environ or not codec_class.origin
            assert event == event
            assert repr(event).startswith("Request(")


def test_bare_connection_is_silent(codec_class):
    """A health check connects and closes (front-ends, section 3)."""
    codec = codec_class(Limits())
    assert codec.receive_eof() == []
    assert codec.closing
    assert codec.outbox == b""


def test_timed_out(codec_class, protocol):
    """A request that does not arrive in time gets what its protocol has for that, if any."""
    said = codec_class(Limits()).timed_out()
    assert type(said) is bytes
    check = vectors(protocol).check_refusal
    if said and codec_class.origin and check:
        check("408", said)


def test_overloaded(codec_class, protocol):
    """A request that there is no room for gets a whole 503."""
    case = vectors(protocol).complete
    codec = codec_class(Limits())
    request = codec.receive(case.parts[0])[0]
    said = codec.overloaded(request, [("Retry-After", "5")], b"too many\n")
    assert request.ended
    assert b" Service Unavailable\r\n" in said


def test_two_connections_share_nothing(codec_class, protocol):
    """Two connections fed in turn, byte by byte, see their own bytes alone."""
    case = vectors(protocol).complete
    codecs = [codec_class(Limits()) for _ in range(2)]
    events: list[list[Event]] = [[], []]
    for at in range(len(case.parts[0])):
        for codec, got in zip(codecs, events, strict=True):
            got.extend(codec.receive(case.parts[0][at : at + 1]))
    for got in events:
        assert type(got[0]) is Request
        assert got[0].environ == case.requests[0].environ
    assert events[0][0].environ is not events[1][0].environ


def test_reply_says_the_same_as_its_parts(codec_class, protocol):
    """One-shot and piecewise answers carry the same head and body."""
    case = vectors(protocol).complete
    wires = []
    for one_shot in (True, False):
        codec = codec_class(Limits())
        request = codec.receive(case.parts[0])[0]
        if one_shot:
            wire = codec.reply(request, "200 OK", [("X-Y", "z")], b"hello")
        else:
            wire = codec.head(request, "200 OK", [("X-Y", "z")], 5)
            wire += codec.body(request, b"hello") + codec.end(request)
        assert request.ended
        assert b"hello" in wire
        wires.append(wire)
    assert len(wires[0]) <= len(wires[1])
