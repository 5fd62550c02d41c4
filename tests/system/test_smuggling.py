"""Request smuggling: bytes that servers disagree about, and what this one makes of them.

See ``smuggling.py`` for the vectors; docs/reference/smuggling.md is made of them.
"""

import json
import struct
from contextlib import suppress

import pytest
from clients import END, STDOUT, FastCgi
from smuggling import CLOSED, HIDDEN, KEPT, PROBE, WAITS
from smuggling_page import PAGE, SECTIONS, page

#: Says what it was called with, and how often it was called.
APP = r"""
import itertools
import json

calls = itertools.count(1)

def spelt(text):
    return text.encode("unicode_escape").decode()

def app(environ, start_response):
    call = [environ["REQUEST_METHOD"], spelt(environ["REQUEST_URI"])]
    body = environ["wsgi.input"].read()
    if body:
        call.append('"' + body.decode("latin-1") + '"')
    for name in sorted(environ):
        if name == "CONTENT_TYPE" or name.startswith("HTTP_"):
            call.append("%s=%s" % (spelt(name), spelt(environ[name])))
    text = " ".join(part for part in call if part != "HTTP_HOST=a")
    start_response("200 OK", [("X-Call", json.dumps(text)), ("X-Calls", str(next(calls)))])
    return [b"!"]
"""

#: What follows a vector, where a connection can go on.
PROBES = {
    "http": f"{PROBE} HTTP/1.1\r\nHost: a\r\n\r\n".encode(),
    "fastcgi": FastCgi.encode("/probe", number=2, more={"HTTP_HOST": "a"}),
    "scgi": b"",
    "uwsgi": b"",
}


@pytest.fixture(scope="module")
def server(serve_module, threads):
    return serve_module(APP, "--threads", threads, kinds=["tcp"])


def sent(server, protocol, data, size):
    """All that comes back for ``data`` in pieces of ``size``, and then a probe."""
    data += PROBES[protocol]
    with server.connect(protocol) as peer:
        # The server may close before it has all.
        with suppress(OSError):
            for start in range(0, len(data), size):
                peer.send(data[start : start + size])
            peer.finish()
        return peer.rest()


def answers_of(protocol, data):
    """Status, fields and length of body of each answer."""
    found = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        first, *rest = head.decode("latin-1").split("\r\n")
        if protocol in ("http", "uwsgi"):
            assert first.startswith("HTTP/1.1 "), first
            status = int(first[9:12])
        else:
            rest.insert(0, first)
        fields = dict(line.split(": ", 1) for line in rest)
        if "Status" in fields:
            status = int(fields["Status"][:3])
        found.append((status, fields))
        call = fields.get("X-Call", "")
        length = int(fields.get("Content-Length", "0")) * (not call.startswith('"HEAD '))
        assert len(data) >= length
        data = data[length:]
    return found


def outcome_of(protocol, data, calls):
    """What came back, in the words of a vector; ``calls`` gets the number of each call."""
    found = []
    ending = WAITS
    for status, fields in answers_of(protocol, data):
        closes = fields.get("Connection") == "close" or protocol != "http"
        if status < 200:
            found.append(status)
        elif "X-Call" in fields:
            found.append(json.loads(fields["X-Call"]).replace(HIDDEN.decode(), "<hidden>"))
            calls.append(int(fields["X-Calls"]))
            ending = CLOSED if closes else WAITS
        else:
            assert closes
            found.append(status)
            ending = ""
    if found and found[-1] == PROBE and ending == WAITS:
        found[-1] = ending = KEPT
    elif ending:
        found.append(ending)
    return tuple(found)


def fastcgi_outcome(data, calls):
    """As ``outcome_of``; the probe is another stream of the same connection."""
    streams = {1: b"", 2: b""}
    ended = []
    while data:
        _, kind, number, length, padding = struct.unpack(">BBHHBx", data[:8])
        content, data = data[8 : 8 + length], data[8 + length + padding :]
        if kind == END:
            assert content == bytes(8)
            ended.append(number)
        else:
            assert kind == STDOUT
            streams[number] += content
    first, second = (outcome_of("fastcgi", streams[number], calls) for number in (1, 2))
    assert sorted(ended) == [number for number in (1, 2) if streams[number]]
    if second == (PROBE, CLOSED):
        return (
            *(item for item in first if item not in (CLOSED, WAITS)),
            KEPT if 1 in ended else WAITS,
        )
    assert second == (WAITS,)
    return first


VECTORS = [
    pytest.param(section.protocol, vector, id=f"{section.title}: {vector.label}")
    for section in SECTIONS
    for vector in section.vectors
]


@pytest.mark.parametrize(("protocol", "vector"), VECTORS)
def test_vector(server, protocol, vector):
    """Whole and in pieces, the same, and so once it is remembered; no call without an answer."""
    calls = [int(server.ask("http").get("X-Calls"))]
    size = 1 if len(vector.data) < 10_000 else 1000
    everything = len(vector.data) + 1000
    for pieces in (everything, size, everything, everything, everything):
        data = sent(server, protocol, vector.data, pieces)
        if protocol == "fastcgi":
            found = fastcgi_outcome(data, calls)
        else:
            found = outcome_of(protocol, data, calls)
        assert found == vector.outcome
    calls.append(int(server.ask("http").get("X-Calls")))
    assert sorted(calls) == list(range(calls[0], calls[0] + len(calls)))


def test_names_are_unique():
    for section in SECTIONS:
        labels = [vector.label for vector in section.vectors]
        assert sorted(set(labels)) == sorted(labels)


def test_the_page_is_current():
    assert PAGE.read_text("utf-8") == page(), "run python tools/smuggling_table.py"
