"""Accepted sockets: those that are compiled do what the standard library's do."""

import errno
import gc
import os
import select
import socket
import struct
import sys
from contextlib import suppress

import pytest

from gateway import accepted
from gateway.linux import has_unread, unsent
from gateway.sockets import Listener
from protocols.builds import WANTED

KINDS = ["plain", "native"]
FAMILIES = {
    "tcp": (socket.AF_INET, ("127.0.0.1", 0)),
    "tcp6": (socket.AF_INET6, ("::1", 0)),
    "unix": (socket.AF_UNIX, ""),
}


@pytest.fixture(params=KINDS)
def kind(request, monkeypatch):
    if request.param == "plain":
        monkeypatch.setattr(accepted, "accept", None)
    elif accepted.accept is None:
        if WANTED and sys.platform == "linux" and "CI" in os.environ:
            pytest.fail("gateway/_sockets.c was not built")
        pytest.skip("gateway/_sockets.c is not built, or not wanted")
    return request.param


@pytest.fixture(params=FAMILIES)
def listener(request, kind, tmp_path):
    assert kind in KINDS
    family, address = FAMILIES[request.param]
    sock = socket.socket(family)
    try:
        sock.bind(address or str(tmp_path / "s"))
    except OSError as error:
        sock.close()
        pytest.skip(f"no {request.param} here: {error}")
    sock.listen(8)
    sock.setblocking(False)
    yield Listener(sock, "http")
    sock.close()


def waiting(listener):
    """A client, and what was accepted of it."""
    client = socket.socket(listener.sock.family)
    client.settimeout(10)
    client.connect(listener.sock.getsockname())
    select.select([listener.sock], [], [], 10)
    return client, *listener.accept()


def fills_up(step):
    """Whether ``step`` is refused once there is no room."""
    for _ in range(1 << 20):
        try:
            step()
        except BlockingIOError:
            return True
    return False


def arrived(ours):
    poll = select.poll()
    poll.register(ours.fileno(), select.POLLIN)
    assert poll.poll(10_000)


@pytest.fixture
def pair(listener):
    client, ours, _ = waiting(listener)
    yield client, ours
    ours.close()
    client.close()


def test_which(kind, listener):
    client, ours, _ = waiting(listener)
    assert isinstance(ours, socket.SocketType) is (kind == "plain")
    ours.close()
    client.close()


def test_nobody_waits(listener):
    assert listener.accept() is None


def test_addresses(listener):
    client, ours, address = waiting(listener)
    assert address == client.getsockname()
    if not listener.is_unix:
        assert ours.getsockname() == client.getpeername()
    ours.close()
    client.close()


def test_it_is_nobody_elses_and_does_not_wait(pair):
    _, ours = pair
    assert not os.get_inheritable(ours.fileno())
    assert not os.get_blocking(ours.fileno())
    with pytest.raises(BlockingIOError):
        ours.recv(1)
    with pytest.raises(BlockingIOError):
        ours.recv(1 << 20)
    with pytest.raises(BlockingIOError):
        ours.recv_into(bytearray(1))


@pytest.mark.parametrize("size", [1, 5, 16384, 16385, 65536, 65537, 1 << 20])
def test_recv(pair, size):
    client, ours = pair
    client.sendall(b"hello")
    arrived(ours)
    assert ours.recv(size, socket.MSG_PEEK) == b"hello"[:size]
    assert ours.recv(size) == b"hello"[:size]
    if size > 1:
        client.shutdown(socket.SHUT_WR)
        arrived(ours)
        assert ours.recv(size) == b""


@pytest.mark.parametrize("size", [5, 16384, 70000])
def test_recv_fills_what_is_asked_for(pair, size):
    client, ours = pair
    data = os.urandom(size)
    client.sendall(data)
    found = b""
    while len(found) < size:
        arrived(ours)
        found += ours.recv(size)
    assert found == data


def test_recv_into(pair):
    client, ours = pair
    client.sendall(b"hello")
    arrived(ours)
    buffer = bytearray(b"........")
    assert ours.recv_into(memoryview(buffer)[1:], 2) == 2
    assert ours.recv_into(memoryview(buffer)[3:]) == 3
    assert buffer == b".hello.."
    with pytest.raises(ValueError):
        ours.recv_into(buffer, 9)
    with pytest.raises(ValueError):
        ours.recv_into(buffer, -1)
    with pytest.raises((TypeError, BufferError)):
        ours.recv_into(b"not writable")


def test_send(pair):
    client, ours = pair
    assert ours.send(b"") == 0
    assert ours.send(b"one") == 3
    assert ours.send(memoryview(bytearray(b"-two"))) == 4
    assert ours.sendmsg((b"-three", b"", bytearray(b"-four"))) == 11
    assert ours.sendmsg([memoryview(b"-five")], (), 0) == 5
    assert ours.send(b".", socket.MSG_DONTWAIT) == 1
    ours.shutdown(socket.SHUT_WR)
    assert b"".join(iter(lambda: client.recv(100), b"")) == b"one-two-three-four-five."


def test_many_pieces(pair):
    client, ours = pair
    pieces = [b"%04d" % number for number in range(1024)]
    sent = ours.sendmsg(pieces)
    assert sent == 4096
    ours.shutdown(socket.SHUT_WR)
    assert b"".join(iter(lambda: client.recv(1000), b"")) == b"".join(pieces)[:sent]


@pytest.mark.parametrize("size", [1000, 100_000])
def test_a_full_socket(pair, size):
    _, ours = pair
    data = bytes(size)
    assert fills_up(lambda: ours.send(data))
    assert fills_up(lambda: ours.sendmsg([data, data]))


def test_the_peer_is_gone(pair):
    client, ours = pair
    client.close()
    with suppress(OSError):
        ours.send(b"x")  # it is answered with a reset
    arrived(ours)
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        ours.send(b"x")


def test_options(pair):
    _, ours = pair
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    linger = struct.pack("ii", 1, 7)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == linger
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes(8))
    for size in (-1, 1025):
        with pytest.raises((ValueError, OSError)):
            ours.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, size)
    with pytest.raises(OSError) as caught:
        ours.setsockopt(12345, 1, 1)
    assert caught.value.errno in (errno.ENOPROTOOPT, errno.EOPNOTSUPP)


def test_what_waits(pair):
    client, ours = pair
    assert not has_unread(ours)
    assert unsent(ours) == 0
    client.sendall(b"hello")
    arrived(ours)
    assert has_unread(ours)
    with suppress(BlockingIOError):
        while True:
            ours.send(bytes(10_000))
    assert unsent(ours) > 0


def test_closed(pair):
    client, ours = pair
    number = ours.fileno()
    ours.close()
    assert ours.fileno() == -1
    ours.close()
    for step in (
        lambda: ours.recv(1),
        lambda: ours.recv(1 << 20),
        lambda: ours.send(b"x"),
        lambda: ours.sendmsg([b"x"]),
        lambda: ours.shutdown(socket.SHUT_WR),
        lambda: ours.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        lambda: ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        ours.getsockname,
    ):
        with pytest.raises(OSError) as caught:
            step()
        assert caught.value.errno == errno.EBADF
    with pytest.raises(OSError):
        os.fstat(number)
    assert client.recv(1) == b""


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_let_go_of(listener):
    client, ours, _ = waiting(listener)
    del ours
    gc.collect()
    assert client.recv(1) == b""
    client.close()


def test_wrong_arguments(pair):
    _, ours = pair
    for wrong in (
        ours.recv,
        lambda: ours.recv("1"),
        lambda: ours.recv(1, 2, 3),
        lambda: ours.recv(1, "2"),
        ours.recv_into,
        lambda: ours.recv_into(1),
        ours.send,
        lambda: ours.send("text"),
        lambda: ours.send(b"x", b"x"),
        ours.sendmsg,
        lambda: ours.sendmsg(1),
        lambda: ours.sendmsg([b"x", "text"]),
        lambda: ours.sendmsg([1]),
        lambda: ours.shutdown("now"),
        lambda: ours.setsockopt(1, 2),
        lambda: ours.setsockopt(1, 2, 3.5),
        lambda: ours.getsockopt(1),
        lambda: ours.close(1),
    ):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(ValueError):
        ours.recv(-1)
    with pytest.raises(OverflowError):
        ours.recv(1 << 80)


def test_a_listener_that_is_closed(listener):
    listener.sock.close()
    with pytest.raises(OSError) as caught:
        listener.accept()
    assert caught.value.errno == errno.EBADF


def test_it_is_made_by_accepting_only(kind, listener):
    if kind == "native":
        client, ours, _ = waiting(listener)
        with pytest.raises(TypeError):
            type(ours)()
        for wrong in ("1", None, 1 << 80):
            with pytest.raises((TypeError, OverflowError)):
                accepted.accept(wrong)
        ours.close()
        client.close()


def test_references(listener):
    """What goes in and out is not kept."""
    client, ours, _ = waiting(listener)
    data, pieces = b"x" * 100, [b"y" * 100, bytearray(7)]
    before = [sys.getrefcount(item) for item in (data, pieces, *pieces, ours, listener)]
    for _ in range(100):
        ours.send(data)
        ours.sendmsg(pieces)
        with suppress(TypeError):
            ours.sendmsg([*pieces, 1])
    assert [sys.getrefcount(item) for item in (data, pieces, *pieces, ours, listener)] == before
    pieces[1].append(1)  # no view of it is left
    ours.close()
    client.close()
