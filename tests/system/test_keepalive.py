"""How long a connection is kept, and connections that are not kept at all."""

from __future__ import annotations

import socket
import struct
import sys
from time import monotonic

import pytest
from clients import BEGIN, PARAMS, STDIN, encode_pairs, record, records, variables
from processes import WAITING_APP, Load, wait_for

#: Packets to a client before its answer: its connection is open, its request has arrived.
OPENING = 2
NONE = ("--keepalive", "0", "--fastcgi-keepalive", "0")


def test_without_keepalive_every_answer_is_the_last_one(serve, threads):
    server = serve(WAITING_APP, *NONE, "--threads", threads, protocols=["http"])
    for more in ({}, {"method": "POST", "body": b"x" * 100_000}, {"version": "HTTP/1.0"}):
        peer = server.connect("http")
        answer = peer.ask(**more)
        assert (answer.status, answer.get("connection")) == (200, "close")
        assert peer.closed()
    with Load("http", server.addresses["http", "tcp"], keep=True) as load:
        load.reached(100)
    assert not load.lost
    assert not load.raced


def test_without_keepalive_what_is_pipelined_is_not_answered(serve, threads):
    server = serve(WAITING_APP, *NONE, "--threads", threads, protocols=["http"])
    peer = server.connect("http")
    peer.send(peer.encode() * 3)
    assert peer.answer().status == 200
    assert peer.closed()


def test_without_keepalive_a_fastcgi_connection_ends_with_its_request(serve, threads):
    server = serve(WAITING_APP, *NONE, "--threads", threads, protocols=["fastcgi"])
    peer = server.connect("fastcgi")
    answer = peer.ask(keep=True)
    assert (answer.status, answer.whole) == (200, True)
    assert peer.rest() == b""
    assert peer.ended == "end of file"


def test_without_keepalive_requests_that_share_a_connection_are_all_answered(serve):
    server = serve(WAITING_APP, *NONE, protocols=["fastcgi"])
    peer = server.connect("fastcgi")
    for number in (1, 2):
        peer.send(peer.encode(f"/wait/{number}", number=number))
        wait_for((server.folder / f"{number}.started").exists, "the request to run")
    (server.folder / "1").touch()
    assert peer.answer(number=1).whole
    (server.folder / "2").touch()
    assert peer.answer(number=2).whole
    assert peer.rest() == b""


def packets_of_answers(server, protocol):
    """How many packets each of some connections got (tcpi_segs_in of linux/tcp.h)."""
    counts = []
    for _ in range(20):
        with server.connect(protocol) as peer:
            assert peer.ask().status == 200
            assert peer.rest() == b""
            info = peer.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 144)
            counts.append(struct.unpack_from("=I", info, 140)[0])
    return counts


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts a connection's packets")
@pytest.mark.parametrize("protocol", ["http", "scgi", "uwsgi"])
def test_the_last_answer_is_in_one_packet_with_the_end_of_its_connection(serve, protocol):
    server = serve(WAITING_APP, *NONE, "--threads", "1", protocols=[protocol], kinds=["tcp"])
    assert min(packets_of_answers(server, protocol)) <= OPENING + 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts a connection's packets")
@pytest.mark.parametrize("options", [("--threads", "4"), ("--config", "hooks.py")])
def test_an_answer_waits_for_no_end_that_may_be_late(serve, options):
    """After it other threads may run, or a hook: the client has its answer meanwhile."""
    files = {"hooks.py": "def post_request(worker, req, environ, resp): pass"}
    server = serve(WAITING_APP, *NONE, *options, kinds=["tcp"], protocols=["http"], files=files)
    assert min(packets_of_answers(server, "http")) > OPENING + 1


@pytest.mark.parametrize("protocol", ["http", "fastcgi"])
def test_without_keepalive_a_client_may_take_its_time_before_it_asks(serve, protocol):
    """``keepalive`` counts between two requests, not before the first."""
    server = serve(WAITING_APP, *NONE)
    peer = server.connect(protocol)
    begun = monotonic()
    wait_for(lambda: monotonic() - begun > 2.5, "two looks at the deadlines")
    assert peer.ask().status == 200


@pytest.mark.parametrize("protocol", ["http", "fastcgi"])
def test_an_idle_connection_is_kept_for_as_long_as_set(serve, protocol):
    options = ("--keepalive", "1", "--fastcgi-keepalive", "1")
    server = serve(WAITING_APP, *options)
    peer = server.connect(protocol)
    assert [peer.ask().status for _ in range(3)] == [200] * 3
    assert peer.rest() == b""
    assert peer.ended == "end of file"


def test_a_fastcgi_stream_that_is_begun_is_not_idle(serve):
    server = serve(WAITING_APP, "--fastcgi-keepalive", "1", protocols=["fastcgi"])
    peer = server.connect("fastcgi")
    assert peer.ask().status == 200
    pairs = encode_pairs(variables("/", "POST", length=3))
    peer.send(record(BEGIN, 1, b"\0\1\1\0\0\0\0\0") + records(PARAMS, 1, pairs))
    begun = monotonic()
    wait_for(lambda: monotonic() - begun > 2.5, "two looks at the deadlines")
    peer.send(records(STDIN, 1, b"abc"))
    assert peer.answer(number=1).status == 200
