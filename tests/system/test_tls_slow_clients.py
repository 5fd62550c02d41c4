"""Clients of a TLS bind that read or shake hands slowly: no thread waits, and no memory."""

import ssl

import pytest
from clients import EOF
from conftest import numbered
from processes import memory, threads_of
from test_tls import BOTH, RULES, wire
from test_wsgi_heads import follow
from test_wsgi_iterables import closed_once


def test_a_slow_reader_holds_no_thread(serve, certified, threads, name):
    """Not with a large answer, and not with a large file."""
    server = serve(RULES, "--threads", threads, *certified, protocols=BOTH)
    whole = numbered(5_000_000)
    (server.folder / "large").write_bytes(whole)
    slow = [server.connect("https", receive_buffer=4096) for _ in range(12)]
    body = numbered(3_000_000)
    for number, peer in enumerate(slow):
        if number % 2:
            peer.start(f"/file-large?{name}")
        else:
            peer.start("/echo", method="POST", body=body)
    for peer in slow:
        peer.answered = peer.head()
    for protocol in BOTH:
        assert server.ask(protocol, "/pid").status == 200
    for number, peer in enumerate(slow):
        found = b"".join(peer.pieces(peer.answered))
        assert found == (whole if number % 2 else body)
        assert peer.answered.whole
        follow(server, peer)


def test_a_slow_reader_bounds_the_application(serve, certified, name):
    """Beyond response_buffer_size the application waits; what is sent stays whole."""
    server = serve(
        RULES, *certified, "--response-buffer-size", "200000", "--body-buffer-size", "50000",
        protocols=BOTH,
    )  # fmt: skip
    peer = server.connect("https", receive_buffer=4096)
    peer.start(f"/endless?{name}")
    answer = peer.head()
    pieces = peer.pieces(answer)
    seen = b"".join(next(pieces) for _ in range(200))
    assert len(set(seen)) == 1
    peer.reset()
    closed_once(server, "http", name)


@pytest.mark.parametrize("what", ["file", "pieces"])
def test_slow_readers_cost_little_memory(serve, certified, what, threads):
    server = serve(
        """
        def app(environ, start_response):
            start_response("200 OK", [])
            if environ["PATH_INFO"] == "/file":
                return environ["wsgi.file_wrapper"](open("large", "rb"))
            return (bytes(50_000) for _ in range(240 if environ["PATH_INFO"] == "/pieces" else 0))
        """,
        *("--threads", threads, *certified, "--body-buffer-size", "200000"),
        protocols=("https",),
    )
    (server.folder / "large").write_bytes(bytes(12_000_000))
    (worker,) = server.workers
    assert server.ask("https", "/").status == 200
    before = memory(worker)
    slow = [server.connect("https", receive_buffer=4096) for _ in range(40)]
    for peer in slow:
        peer.start("/" + what)
        peer.head()
        assert server.ask("https", "/").status == 200  # no thread is held
    assert memory(worker) - before < 40 * 600_000


def test_idle_connections_keep_nothing_of_large_requests(serve, certified):
    server = serve(RULES, "--threads", "1", *certified, protocols=("https",))
    (worker,) = server.workers
    kept = [server.connect("https") for _ in range(100)]
    for peer in kept:
        assert peer.ask("/pid").status == 200
    before = memory(worker)
    body = numbered(700_000)
    for peer in kept:
        assert peer.ask("/echo", method="POST", body=body).body == body
    assert memory(worker) - before < 100 * 200_000


def test_stalled_handshakes_hold_nobody_up(serve, certified, authority):
    server = serve(
        RULES, *certified, "--threads", "1", "--client-header-timeout", "1", protocols=BOTH
    )
    before = threads_of(server.workers[0])
    hello = ssl.MemoryBIO()
    stalled = []
    for number in range(60):
        peer = wire(server, authority)
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        hello = peer.sealed()
        peer.send(hello[: (0, 1, 100, len(hello))[number % 4]])
        stalled.append(peer)
    assert server.ask("https", "/pid").status == 200
    assert threads_of(server.workers[0]) == before
    for number, peer in enumerate(stalled):
        flight = peer.rest()  # the server's part of the handshake, for who has sent all of its own
        assert bool(flight) is (number % 4 == 3)
        assert peer.ended == EOF
    server.wait_for_log("the TLS handshake did not end in time", 45)
    assert server.ask("https", "/pid").status == 200
