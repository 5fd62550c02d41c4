"""Connections that say nothing yet: the kernel has them for a while, and a stop is told to them."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

import pytest
from processes import TIMEOUT, WAITING_APP, activated, descriptors, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="TCP_DEFER_ACCEPT is Linux's")

#: As proc(5) has them in net/tcp.
ESTABLISHED, GREETED = "01", "03"


def state(sock: socket.socket) -> str:
    """What the kernel has at the server's end of a client's connection."""
    ends = [f"{int(name[1]):04X}" for name in (sock.getpeername(), sock.getsockname())]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        own, other, found = line.split(maxsplit=4)[1:4]
        if [own.rpartition(":")[2], other.rpartition(":")[2]] == ends:
            return found
    return ""


def silent(server) -> socket.socket:
    return socket.create_connection(server.addresses["http", "tcp"], timeout=TIMEOUT)


@pytest.fixture
def server(serve, request):
    return serve(WAITING_APP, *request.param, protocols=["http"], kinds=["tcp"])


@pytest.mark.parametrize("server", [[]], indirect=True)
def test_connection_is_accepted_with_its_first_bytes(server):
    with silent(server) as sock:
        assert state(sock) == GREETED
        before = descriptors(server.workers[0])
        sock.sendall(b"G")
        wait_for(lambda: state(sock) == ESTABLISHED, "the connection to be accepted")
        wait_for(lambda: descriptors(server.workers[0]) == before + 1, "the worker to have it")
        sock.sendall(b"ET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("server", [[]], indirect=True)
def test_who_leaves_without_a_word_leaves_nothing_behind(server):
    before = descriptors(server.workers[0])
    sock = silent(server)
    sock.shutdown(socket.SHUT_WR)
    assert sock.recv(1) == b""
    sock.close()
    wait_for(lambda: descriptors(server.workers[0]) == before, "the connection to be closed")


@pytest.mark.parametrize("server", [["--client-header-timeout", "0.2"]], indirect=True)
def test_connection_that_says_nothing_is_accepted_a_second_later(server):
    with silent(server) as sock:
        assert state(sock) == GREETED
        wait_for(lambda: state(sock) != GREETED, "the connection to be accepted")
        assert not sock.recv(4096).startswith(b"HTTP/1.1 200 "), "and then its time is up"


@pytest.mark.parametrize("server", [["--defer-accept", "0"]], indirect=True)
def test_zero_accepts_at_once(server):
    with silent(server) as sock:
        assert state(sock) == ESTABLISHED


@pytest.mark.parametrize("server", [[], ["--threads", "4"]], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["TERM", "INT"])
def test_who_has_said_nothing_is_told_that_the_server_stops(server, number):
    with silent(server) as sock:
        assert state(sock) == GREETED
        assert server.stop(number) == 0
        assert sock.recv(1) == b""


@pytest.mark.parametrize("server", [[]], indirect=True)
def test_request_that_comes_while_the_server_waits_for_the_silent_is_answered(server):
    with silent(server) as sock:
        server.process.terminate()
        server.wait_for_log("stopping")
        if state(sock) == GREETED:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert sock.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_sockets_of_others_stay_as_they_are(tmp_path):
    """Of systemd, DeferAcceptSec=: its sockets live longer than the server."""
    (tmp_path / "app.py").write_text(WAITING_APP)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 3)
        set_to = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT)
        server = activated("app:app", cwd=tmp_path, sockets={"http": listener})
        try:
            server.wait_for_log("is ready")
            assert server.stop(signal.SIGTERM) == 0
        finally:
            server.end()
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT) == set_to > 0
