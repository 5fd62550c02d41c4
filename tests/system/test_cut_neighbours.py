"""An answer that is cut takes nothing from the others on its FastCGI connection."""

import pytest
from clients import RESET, FastCgi
from conftest import numbered

APP = """
def app(environ, start_response):
    if environ["PATH_INFO"] == "/cut":
        start_response("200 OK", [])
        yield b"begun"
        raise RuntimeError("on purpose")
    start_response("200 OK", [])
    with open("body", "rb") as file:
        yield file.read()
"""

#: The kernel takes all of it, but the peer does not make room for much of it.
BODY = numbered(24_000)


@pytest.fixture
def server(serve, threads):
    server = serve(APP, "--threads", threads, protocols=("fastcgi",), kinds=("tcp",))
    (server.folder / "body").write_bytes(BODY)
    return server


def cut_beside_a_whole_answer(server):
    """A peer that reads nothing yet: an answer is finished, another one cut."""
    peer = server.connect("fastcgi", receive_buffer=2048)
    peer.send(FastCgi.encode("/whole", number=1))
    peer.need(1)
    peer.send(FastCgi.encode("/cut", number=2))
    server.wait_for_log("RuntimeError: on purpose")
    for _ in range(3):  # the loop has looked at every connection since
        server.ask("fastcgi", "/whole")
    return peer


def test_what_was_answered_before_arrives_before_the_reset(server):
    with cut_beside_a_whole_answer(server) as peer:
        whole = peer.answer(number=1)
        assert (whole.whole, whole.body) == (True, BODY)
        assert peer.answer(number=2).fault
        assert peer.ended == RESET


def test_a_peer_that_leaves_meanwhile(server):
    with cut_beside_a_whole_answer(server) as peer:
        peer.reset()
    assert server.ask("fastcgi", "/whole").body == BODY
