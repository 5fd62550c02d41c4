"""Sockets, signals and descriptors that fail: what is lost, which is as little as can be."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import sys
import threading
from time import monotonic, sleep

import pytest
from clients import PEERS, Http
from conftest import PROTOCOLS, numbered
from processes import Load, activated, alive, cpu_seconds, descriptors, started, wait_for
from test_idle import LIMIT

APP = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    path = environ["PATH_INFO"]
    if path == "/large":
        return (b"%07d\\n" % number * 100 for number in range(5000))
    if path == "/generator":
        lines = [b"%07d\\n" % number for number in range(37_500)]
        return (b"".join(lines[start : start + 10]) for start in range(0, 37_500, 10))
    if path == "/list":
        return [b"".join(b"%07d\\n" % number for number in range(37_500))]
    if path == "/file":
        return environ["wsgi.file_wrapper"](open("file", "rb"))
    return [environ["wsgi.input"].read()]
"""


# Short writes


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX], ids=["tcp", "unix"])
def test_answers_arrive_whole_through_a_send_buffer_of_nothing(tmp_path, protocol, threads, family):
    """Each send takes a few kilobytes at most; accepted sockets have the listener's buffer."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "file").write_bytes(numbered(300_000))
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        listener.bind(str(tmp_path / "sock") if family == socket.AF_UNIX else ("127.0.0.1", 0))
        listener.listen()
        words = ("app:app", "--threads", threads, "--bind", f"{protocol}+fd://3")
        server = activated(*words, cwd=tmp_path, sockets={"x": listener})
        try:
            server.wait_for_log("is ready")
            for page in ("list", "generator", "file"):
                with PEERS[protocol](listener.getsockname(), receive_buffer=4096) as peer:
                    answer = peer.ask(f"/{page}")
                    assert (answer.body == numbered(300_000), answer.whole) == (True, True)
        finally:
            server.end()


# Signals


def test_a_storm_of_signals_loses_nothing(serve, threads):
    """Every system call of every process may end early, and has to be begun again."""
    server = serve(APP, "--threads", threads, "--workers", "2", "--errorlog", "log", wait=False)
    log = server.folder / "log"
    wait_for(lambda: log.exists() and log.read_text().count("is ready") == 2, "two workers")
    server.errors.text += log.read_text()
    server.wait_until_ready(2)
    over = threading.Event()
    sent = 0

    def storm() -> None:
        nonlocal sent
        while not over.is_set():
            for pid in (server.process.pid, *server.workers):
                os.kill(pid, signal.SIGUSR1)
                sent += 1
            over.wait(0.003)

    stormer = threading.Thread(target=storm)
    stormer.start()
    try:
        loads = [
            Load(protocol, server.addresses[protocol, kind], keep=True, clients=1, body=b"x" * 9000)
            for protocol in PROTOCOLS
            for kind in ("tcp", "unix")
        ]
        for protocol in PROTOCOLS:
            answer = server.ask(protocol, "/large")
            assert (len(answer.body), answer.whole) == (4_000_000, True)
        wait_for(lambda: sent > 100, "a hundred signals")
        for load in loads:
            load.reached(15)
            load.finish()
    finally:
        over.set()
        stormer.join()
    assert not [lost for load in loads for lost in load.lost]
    assert not sum(load.raced + load.refused for load in loads)
    assert len(server.workers) == 2
    assert all(map(alive, server.workers))


# Peers that reset


def at_accept(server, protocol, kind):
    """The connection is gone before anybody accepted it."""
    (worker,) = server.workers
    os.kill(worker, signal.SIGSTOP)
    try:
        for part in (b"", PEERS[protocol].encode("/")):
            peer = server.connect(protocol, kind)
            peer.send(part)
            peer.reset()
    finally:
        os.kill(worker, signal.SIGCONT)


def before_the_head(server, protocol, kind):
    server.connect(protocol, kind).reset()


def in_the_head(server, protocol, kind):
    peer = server.connect(protocol, kind)
    peer.send(peer.encode("/")[:20])
    peer.reset()


def in_the_body(server, protocol, kind):
    peer = server.connect(protocol, kind)
    peer.send(peer.encode("/", method="POST", body=numbered(2_000_000))[:-1000])
    peer.reset()


def before_the_answer(server, protocol, kind):
    peer = server.connect(protocol, kind)
    peer.start("/large")
    peer.reset()


def in_the_answer(server, protocol, kind):
    peer = server.connect(protocol, kind, receive_buffer=4096)
    peer.start("/large")
    assert peer.head().status == 200
    peer.reset()


def after_the_answer(server, protocol, kind):
    peer = server.connect(protocol, kind)
    assert peer.ask("/").status == 200
    peer.reset()


STAGES = (
    at_accept,
    before_the_head,
    in_the_head,
    in_the_body,
    before_the_answer,
    in_the_answer,
    after_the_answer,
)


@pytest.fixture(scope="module")
def resettable(serve_module, threads):
    server = serve_module(APP, "--threads", threads)
    server.neighbours = {name: server.connect(name) for name in ("http", "fastcgi")}
    return server


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
def test_a_reset_at_any_stage_is_its_own_peers_loss(resettable, protocol, kind, stage):
    """Nothing stays open, and neighbours on kept connections notice nothing."""
    server = resettable
    (worker,) = server.workers
    for peer in server.neighbours.values():
        assert peer.ask("/").status == 200
    before = descriptors(worker)
    for _ in range(3):
        stage(server, protocol, kind)
    for peer in server.neighbours.values():
        assert peer.ask("/").status == 200
    wait_for(lambda: descriptors(worker) <= before, "descriptors to be closed")
    assert server.workers == [worker]
    server.check()


# Descriptors run out


def test_without_descriptors_accepting_rests_and_goes_on_by_itself(serve, threads):
    """Nobody in the backlog is lost, and kept connections are served meanwhile."""
    server = serve(APP, "--threads", threads)
    (worker,) = server.workers
    kept = [server.connect(name) for name in ("http", "fastcgi")]
    for peer in kept:
        assert peer.ask("/").status == 200
    limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    lowered = (descriptors(worker) + 5, limits[1])
    resource.prlimit(worker, resource.RLIMIT_NOFILE, lowered)
    waiting = [server.connect(name) for name in ("http", "fastcgi") * 10]
    for peer in waiting:
        peer.start("/")
    server.wait_for_log("cannot accept on .*Too many open files")
    spent = cpu_seconds(worker)
    begun = monotonic()
    while monotonic() - begun < 2:
        for peer in kept:
            assert peer.ask("/").status == 200
        wait_for(lambda: descriptors(worker) <= lowered[0], "descriptors below the limit")
        sleep(0.05)
    assert cpu_seconds(worker) - spent < 1.0  # what spins takes all that there is
    assert len(server.wait_for_log("cannot accept on ")) == 1
    resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)
    answers = [peer.answer().status for peer in waiting]
    assert answers == [200] * len(waiting)
    server.wait_for_log("accepting goes on")
    assert server.workers == [worker]


def test_what_is_being_served_has_descriptors_left(tmp_path):
    """A sixteenth of them is not for connections: there are some for files."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "file").write_bytes(numbered(300_000))
    words = ("app:app", "--bind", "127.0.0.1:0", "--body-buffer-size", "1000")
    words += ("--defer-accept", "0")  # who came first is accepted first, also in silence
    with started(*words, cwd=tmp_path, before=(sys.executable, "-c", LIMIT, "128")) as server:
        (port,) = re.findall(r"http on 127\.0\.0\.1:(\d+)", server.log)
        peer = Http(("127.0.0.1", int(port)))
        assert peer.ask("/").status == 200
        others = [Http(("127.0.0.1", int(port))) for _ in range(150)]
        server.wait_for_log("accepting waits")
        for _ in range(3):
            upload = numbered(400_000)
            assert peer.ask("/", method="POST", body=upload).body == upload
            assert peer.ask("/file").body == numbered(300_000)
        for other in others:
            other.start("/", close=True)
            assert other.answer().status == 200
            other.close()
        server.wait_for_log("accepting goes on")


# Faults of the gateway itself

BREAKS_CONNECTIONS = """
import os
from app import app
from protocols.http1 import Http1Codec

make = Http1Codec.__init__

def broken(*args):
    if os.path.exists("broken"):
        raise RuntimeError("on purpose")
    make(*args)

Http1Codec.__init__ = broken  # which the constructor of a connection calls
"""


@pytest.mark.parametrize("kind", ["http", "https"])
def test_a_connection_that_cannot_be_made_is_lost_alone(tmp_path, certified, kind):
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "breaks.py").write_text(BREAKS_CONNECTIONS)
    path = str(tmp_path / "sock")
    with started("breaks:app", *certified, "--bind", f"{kind}+unix:{path}", cwd=tmp_path) as server:
        with PEERS[kind](path) as before:
            assert before.ask("/", method="POST", body=b"1").body == b"1"
            (tmp_path / "broken").touch()
            for _ in range(3):
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.settimeout(20)
                    sock.connect(path)
                    assert sock.recv(1) == b""
            (tmp_path / "broken").unlink()
            assert before.ask("/", method="POST", body=b"2").body == b"2"
        with PEERS[kind](path) as after:
            assert after.ask("/", method="POST", body=b"3").body == b"3"
        assert server.log.count("a fault of the server") == 3
        assert server.log.count("RuntimeError: on purpose") == 3
        assert server.log.count("is ready") == 1
