"""An SCGI or uwsgi request that is cut by the compiled loop means what its bytes mean."""

from __future__ import annotations

import pytest
from codec_harness import run, vectors
from compiled_loops import blocks_left, compiled

from protocols import scgi, speed, uwsgi
from protocols.cgi import FOREIGN

pytestmark = compiled


def netstring(*pairs):
    text = "".join(f"{name}\0{value}\0" for name, value in pairs).encode("latin-1")
    return b"%d:%b," % (len(text), text)


def packet(*pairs):
    texts = [text.encode("latin-1") for pair in pairs for text in pair]
    block = b"".join(len(text).to_bytes(2, "little") + text for text in texts)
    return b"\0" + len(block).to_bytes(2, "little") + b"\0" + block


NO_BODY, OURS = ("CONTENT_LENGTH", "0"), ("SCGI", "1")
VARIABLES = {
    "plain": (NO_BODY, OURS, ("REQUEST_METHOD", "GET"), ("HTTP_X", "1")),
    "head": (NO_BODY, OURS, ("REQUEST_METHOD", "HEAD"), ("HTTP_X_FORWARDED_FOR", "192.0.2.1")),
    "no length": (("CONTENT_LENGTH", ""), OURS, ("REQUEST_METHOD", "GET")),
    "no word of a length": (OURS, ("REQUEST_METHOD", "GET")),
    "length later": (OURS, NO_BODY, ("REQUEST_METHOD", "GET")),
    "length after a foreign name": (("HTTP_PROXY", "x"), NO_BODY, OURS),
    "length twice": (NO_BODY, OURS, NO_BODY),
    "lengths that differ": (NO_BODY, OURS, ("CONTENT_LENGTH", "5")),
    "a body": (("CONTENT_LENGTH", "5"), OURS, ("REQUEST_METHOD", "POST")),
    "a long zero": (("CONTENT_LENGTH", "00"), OURS),
    "a length that is none": (("CONTENT_LENGTH", "0x"), OURS),
    "no mark": (NO_BODY, ("REQUEST_METHOD", "GET")),
    "another mark": (NO_BODY, ("SCGI", "2")),
    "the mark twice": (NO_BODY, OURS, OURS),
    "foreign names": (NO_BODY, OURS, ("HTTP_PROXY", "x"), ("HTTP_CONNECTION", "close")),
    "a foreign name twice": (NO_BODY, OURS, ("HTTP_TE", "x"), ("HTTP_TE", "y")),
    "a coding": (("CONTENT_LENGTH", ""), OURS, ("HTTP_TRANSFER_ENCODING", "chunked")),
    "a coding and a length": (NO_BODY, OURS, ("HTTP_TRANSFER_ENCODING", "chunked")),
    "the client's length": (NO_BODY, OURS, ("HTTP_CONTENT_LENGTH", "5")),
    "the client's, where there is none": (OURS, ("HTTP_CONTENT_LENGTH", "5")),
    "a name twice": (NO_BODY, OURS, ("HTTP_X", "1"), ("HTTP_X", "2")),
    "an empty name": (NO_BODY, OURS, ("", "1")),
    "nothing": (),
    "many": (NO_BODY, OURS, *((f"HTTP_X_{n}", "v" * n) for n in range(100))),
}
FAMILIES = {
    "scgi": (scgi.ScgiCodec, netstring, scgi, "scgi_request"),
    "uwsgi": (uwsgi.UwsgiCodec, packet, uwsgi, "uwsgi_request"),
}
LIMITS = ({}, {"request_header_total": 50}, {"request_body": 4})
every_family = pytest.mark.parametrize("family", FAMILIES)


def agree(family, *pieces, **limits):
    codec, _, module, name = FAMILIES[family]
    compiled = run(codec, [pieces], **limits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, lambda *_: None)
        assert run(codec, [pieces], **limits) == compiled
    return compiled


@every_family
@pytest.mark.parametrize("name", VARIABLES)
def test_variables(family, name):
    data = FAMILIES[family][1](*VARIABLES[name])
    for limits in LIMITS:
        agree(family, data, **limits)
        agree(family, data, b"abcde", **limits)
        agree(family, data + b"abcde", **limits)
        agree(family, data + data, **limits)


@every_family
@pytest.mark.parametrize("name", ["plain", "foreign names", "no length"])
def test_any_byte_changed_and_cut_anywhere(family, name):
    data = FAMILIES[family][1](*VARIABLES[name])
    for at in range(len(data)):
        agree(family, data[:at], data[at:])
        for value in (0, 1, 0x2C, 0x30, 0x31, 0x39, 0x3A, 255, data[at] ^ 1):
            agree(family, data[:at] + bytes((value,)) + data[at + 1 :])


@every_family
def test_a_request_is_not_cut_from_the_middle_of_another(family):
    data = FAMILIES[family][1](*VARIABLES["plain"])
    for before in (b"1", b"\0", b"\0\xff", data[:9]):
        assert agree(family, before, data).requests == []


@every_family
def test_vectors(family):
    for case in vectors(family).cases:
        agree(family, *case.parts, **case.limits)


@pytest.mark.parametrize(
    "size", [b"", b"0", b"00", b"015", b"-1", b"+15", b" 15", b"99999999999999999999", b"65600"]
)
def test_sizes_of_netstrings(size):
    text = netstring(*VARIABLES["plain"]).partition(b":")[2]
    agree("scgi", size + b":" + text)
    agree("scgi", size + b":,")
    agree("scgi", size + b":")
    agree("scgi", size or b":")


def test_what_is_taken():
    variables = VARIABLES["foreign names"]
    said = {name: value for name, value in variables if name != "SCGI"}
    assert speed.scgi_request(netstring(*variables), FOREIGN) == {"CONTENT_LENGTH": "0"}
    assert speed.scgi_request(netstring(*variables), frozenset()) == said
    assert speed.uwsgi_request(packet(*variables)) == dict(variables)
    assert speed.uwsgi_request(packet()) == {}
    for data in (b"", b"\0", b"\0\0\0", b"1:", b":,"):
        assert speed.scgi_request(data, FOREIGN) is None
        assert speed.uwsgi_request(data) is None


def test_nothing_but_bytes():
    for data in ("text", bytearray(b""), None):
        with pytest.raises(TypeError):
            speed.scgi_request(data, FOREIGN)
        with pytest.raises(TypeError):
            speed.uwsgi_request(data)
    names = FOREIGN
    for wrong in ((b"", {"A"}), (b"",), (b"", names, []), (b"", names, None), (b"", names, {}, {})):
        with pytest.raises(TypeError):
            speed.scgi_request(*wrong)
    for wrong in ((), (b"", []), (b"", {}, {})):
        with pytest.raises(TypeError):
            speed.uwsgi_request(*wrong)


@every_family
def test_it_keeps_nothing_of_a_request(family):
    """The same ones a thousand times leave as many objects as ten times."""

    def ask():
        for variables in VARIABLES.values():
            data = FAMILIES[family][1](*variables)
            speed.scgi_request(data, FOREIGN)
            speed.uwsgi_request(data)

    assert blocks_left(ask, 300) < 100
