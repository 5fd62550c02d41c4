"""Pieces that an application makes fast go out together, and none of them is left waiting."""

from __future__ import annotations

import socket
import struct
import sys

import pytest
from clients import Gate

#: tcpi_data_segs_in of struct tcp_info (linux/tcp.h).
_SEGMENTS_OFFSET = 152

APP = '''
import os, socket, time

FOLDER = os.path.dirname(__file__)

def at_gate(name):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(os.path.join(FOLDER, name))
        sock.recv(1)

def rows(count, size):
    for number in range(count):
        yield b"%06d" % number + b"x" * (size - 6)

def waits(environ):
    """Fast pieces before each of the stops."""
    yield b"1"
    at_gate("gate")
    yield b"2"
    yield b"3"
    yield b"4"
    at_gate("gate")
    yield b"5"

def computes(environ):
    yield b"1"
    yield b"2"
    yield b"3"
    until = time.monotonic() + 20
    while time.monotonic() < until and not os.path.exists(os.path.join(FOLDER, "enough")):
        sum(range(1000))
    yield b"4"

def fails(environ):
    yield b"1"
    yield b"2"
    yield b"3"
    raise RuntimeError("in the middle")

def calls(environ, write):
    write(b"1")
    write(b"2")
    write(b"3")
    at_gate("gate")
    return [b"4"]

def app(environ, start_response):
    path = environ["PATH_INFO"]
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/rows":
        count, _, size = environ["QUERY_STRING"].partition(",")
        return rows(int(count), int(size))
    if path == "/write":
        return calls(environ, write)
    return {"/waits": waits, "/computes": computes, "/fails": fails}[path](environ)
'''


@pytest.fixture(scope="module")
def server(serve_module, threads):
    return serve_module(APP, "--threads", threads)


@pytest.fixture
def peer(server, protocol):
    with server.connect(protocol) as peer:
        yield peer


@pytest.fixture
def gate(server):
    path = server.folder / "gate"
    with Gate(path) as gate:
        yield gate
    path.unlink()


def read(pieces, count: int) -> bytes:
    """So many bytes of a body, as they come."""
    data = b""
    while len(data) < count:
        data += next(pieces)
    return data


def test_what_was_yielded_is_there_while_the_application_waits(peer, gate):
    peer.start("/waits")
    answer = peer.head()
    pieces = peer.pieces(answer)
    assert read(pieces, 1) == b"1"
    gate.pass_one()
    assert read(pieces, 3) == b"234"
    gate.pass_one()
    assert read(pieces, 1) == b"5"
    assert list(pieces) == []
    assert answer.whole


def test_what_was_yielded_is_there_while_the_application_computes(peer, server):
    peer.start("/computes")
    pieces = peer.pieces(answer := peer.head())
    try:
        assert read(pieces, 3) == b"123"
        (server.folder / "enough").touch()
        assert read(pieces, 1) == b"4"
        assert list(pieces) == []
        assert answer.whole
    finally:
        (server.folder / "enough").unlink(missing_ok=True)


def test_what_was_written_is_there_while_the_application_waits(peer, gate):
    peer.start("/write")
    pieces = peer.pieces(answer := peer.head())
    assert read(pieces, 3) == b"123"
    gate.pass_one()
    assert read(pieces, 1) == b"4"
    assert list(pieces) == []
    assert answer.whole


def test_what_was_yielded_before_a_failure_arrives(server, peer):
    answer = peer.ask("/fails")
    assert answer.body == b"123"
    if peer.protocol in ("http", "fastcgi"):
        assert not answer.whole
    server.wait_for_log("in the middle")


@pytest.mark.parametrize(
    ("count", "size"),
    [(1, 100), (2, 100), (5000, 100), (700, 1000), (300, 4096), (64, 16_384), (9, 70_000),
     (5, 262_143), (3, 262_145), (4, 1_000_000)],
)  # fmt: skip
def test_rows_arrive_whole_and_in_order(peer, count, size):
    answer = peer.ask(f"/rows?{count},{size}")
    expected = b"".join(b"%06d" % number + b"x" * (size - 6) for number in range(count))
    assert (len(answer.body), answer.body == expected, answer.whole) == (count * size, True, True)


@pytest.mark.skipif(sys.platform != "linux", reason="TCP_INFO as Linux has it")
def test_rows_that_come_fast_share_packets(server):
    with server.connect("http") as peer:
        assert len(peer.ask("/rows?2000,100").body) == 200_000
        info = peer.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        segments = struct.unpack_from("=I", info, _SEGMENTS_OFFSET)[0]
    assert segments < 1000, "one for each row, were they sent one by one"
