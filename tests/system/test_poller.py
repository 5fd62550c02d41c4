"""epoll and its portable replacement behave the same on the wire."""

from __future__ import annotations

import hashlib
import signal

import pytest
from clients import Http
from processes import Load, children, cpu_seconds, descriptors, wait_for

SOURCE = """
import hashlib
import os

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/upload":
        body = hashlib.sha256(environ["wsgi.input"].read()).hexdigest().encode()
    elif path == "/big":
        body = b"0123456789abcdef" * (1 << 18)
    elif path == "/pieces":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return (b"%d," % number for number in range(1000))
    else:
        body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
"""

BIG = b"0123456789abcdef" * (1 << 18)


@pytest.fixture(params=["epoll", "selectors"], scope="module")
def poller(request):
    return request.param


@pytest.fixture(scope="module")
def server(serve_module, poller, threads):
    return serve_module(SOURCE, "--poller", poller, "--threads", threads)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_requests(server, protocol, kind):
    for target in ("/", "/pieces", "/big"):
        peer = server.connect(protocol, kind)
        answer = peer.ask(target)
        assert (answer.status, answer.whole) == (200, True)
        if target == "/big":
            assert answer.body == BIG
        peer.close()


def test_upload(server, protocol):
    with server.connect(protocol) as peer:
        answer = peer.ask("/upload", method="POST", body=BIG)
    assert answer.body == hashlib.sha256(BIG).hexdigest().encode()


def test_kept_connection_and_pipelining(server):
    with server.connect() as peer:
        for _ in range(20):
            assert peer.ask().status == 200
        peer.send(peer.encode("/") * 30 + peer.encode("/big") + peer.encode("/", close=True))
        answers = [peer.answer() for _ in range(32)]
        assert {answer.status for answer in answers} == {200}
        assert answers[30].body == BIG
        assert peer.closed()


def test_several_requests_on_one_fastcgi_connection(server):
    with server.connect("fastcgi") as peer:
        peer.send(b"".join(peer.encode("/pieces", number=number) for number in (1, 2, 3)))
        bodies = {peer.answer(number=number).body for number in (3, 1, 2)}
        assert bodies == {b"".join(b"%d," % number for number in range(1000))}


def test_slow_reader_holds_up_nobody(server):
    slow = Http(server.addresses["http", "tcp"], receive_buffer=4096)
    slow.start("/big")
    with Load("http", server.addresses["http", "tcp"], keep=True) as load:
        load.reached(50)
    assert not load.lost
    assert slow.answer().body == BIG
    slow.close()


def test_refused_request(server):
    with server.connect() as peer:
        peer.send(b"GET / HTTP/1.1\r\n\r\n")
        assert peer.answer().status == 400
        assert peer.closed()


def test_peers_that_leave(server):
    (worker,) = children(server.process.pid)
    assert server.ask().status == 200
    settled = descriptors(worker)
    for number in range(100):
        peer = Http(server.addresses["http", "tcp"])
        peer.send((b"", b"GET ", peer.encode("/big"), peer.encode("/") * 3)[number % 4])
        if number % 8 < 4:
            peer.reset()
        else:
            peer.close()
    wait_for(lambda: descriptors(worker) <= settled, "all to be closed")
    spent = cpu_seconds(worker)
    with server.connect() as peer:
        assert peer.ask().status == 200
    assert cpu_seconds(worker) - spent < 0.5


def test_several_workers_are_replaced_and_stopped(serve, poller):
    server = serve(SOURCE, "--poller", poller, "--workers", "2", protocols=["http"])
    with Load("http", server.addresses["http", "tcp"], keep=True) as load:
        load.reached(50)
        server.kill(signal.SIGHUP)
        server.wait_for_log("reloaded: 2 workers")
        wait_for(lambda: len(children(server.process.pid)) == 2, "the old workers to leave")
        load.reached(50)
    print(f"HUP with {poller}: {load}")
    assert not load.lost
    assert not load.raced
    assert server.stop(signal.SIGTERM) == 0
