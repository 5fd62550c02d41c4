"""wsgi.file_wrapper: every kind of file, whole, once closed (PEP 3333)."""

import os
from contextlib import suppress

import pytest
from clients import SINGLE
from conftest import numbered
from test_wsgi_heads import follow
from test_wsgi_iterables import closed_once

LARGE = numbered(5_000_000)
SMALL = LARGE[:100]
BODIES = {
    "small": SMALL,
    "large": LARGE,
    "empty": b"",
    "offset": LARGE[1_000_000:],
    "shorter": LARGE[1_000_000:1_001_234],
    "in-memory": b"m" * 10_000,
    "after-write": b"before " + SMALL,
}


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("page", BODIES)
def test_a_file_arrives_whole_and_is_closed_once(rules, protocol, name, page, kind):
    peer = rules.connect(protocol, kind)
    answer = peer.ask(f"/file-{page}?{name}")
    assert (answer.status, answer.whole) == (200, True)
    assert answer.body == BODIES[page]
    assert answer.get("content-length") in (None, str(len(BODIES[page])))
    follow(rules, peer)
    closed_once(rules, protocol, name)


@pytest.mark.parametrize("page", [*BODIES, "not-modified"])
def test_head_of_a_file_sends_none_of_it(rules, protocol, name, page):
    peer = rules.connect(protocol)
    answer = peer.ask(f"/file-{page}?{name}", method="HEAD")
    assert (answer.body, answer.whole) == (b"", True)
    follow(rules, peer)
    closed_once(rules, protocol, name)


def test_a_304_with_a_file_sends_none_of_it(rules, protocol, name):
    peer = rules.connect(protocol)
    answer = peer.ask(f"/file-not-modified?{name}")
    assert (answer.status, answer.body, answer.whole) == (304, b"", True)
    follow(rules, peer)
    closed_once(rules, protocol, name)


def test_a_file_is_closed_when_its_client_leaves(rules, protocol, name):
    peer = rules.connect(protocol, receive_buffer=4096)
    peer.start(f"/file-large?{name}")
    peer.head()
    peer.reset()
    closed_once(rules, protocol, name)


def test_a_file_that_shrinks_while_it_is_sent_cuts_the_answer(serve, protocol, threads):
    server = serve(
        """
        def app(environ, start_response):
            if environ["PATH_INFO"] == "/pid":
                start_response("200 OK", [])
                return [b"well"]
            start_response("200 OK", [("Content-Length", "50000000")])
            return environ["wsgi.file_wrapper"](open("huge", "rb"))
        """,
        "--threads",
        threads,
    )
    with open(server.folder / "huge", "wb") as file:
        file.truncate(50_000_000)
    with server.connect(protocol, receive_buffer=4096) as peer:
        if (
            protocol not in SINGLE
        ):  # a kept connection, which is looked at less often than a new one
            assert peer.ask("/pid").body == b"well"
        peer.start("/")
        answer = peer.head()
        os.truncate(server.folder / "huge", 1000)
        with suppress(ConnectionError):
            for _ in peer.pieces(answer):
                pass
        assert answer.fault
    assert server.ask(protocol, "/pid").body == b"well"
