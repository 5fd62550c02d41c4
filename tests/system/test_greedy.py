"""Clients that send or take too slowly: they are given up, and nobody else is."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import repeat
from time import monotonic

import pytest
from clients import PARAMS, STDIN, Gate, begin, encode_pairs, record, records, variables
from conftest import APPS, PROTOCOLS
from processes import wait_for

RULES = APPS / "rules_app.py"

#: Judged every second.
STRICT = (
    *("--client-body-timeout", "1", "--client-body-min-rate", "1000"),
    *("--send-timeout", "1", "--send-min-rate", "100000"),
)

#: More than is ever sent.
LENGTH = 1_000_000


def a_while(seconds):
    """Time that passes: what the server has to put up with."""
    begun_at = monotonic()
    wait_for(lambda: monotonic() - begun_at > seconds, "a while")


class Drip:
    """Sends a piece every now and then until the peer is closed or this ends."""

    def __init__(self, peer, pieces, pause=0.1) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(peer, pieces, pause), daemon=True)
        self._thread.start()

    def _run(self, peer, pieces, pause) -> None:
        with suppress(OSError):
            for piece in pieces:
                peer.send(piece)
                if self._ended.wait(pause):
                    return

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


@pytest.fixture(scope="module")
def strict(serve_module, threads):
    server = serve_module(RULES, "--threads", threads, *STRICT, kinds=["tcp"])
    (server.folder / "large").write_bytes(bytes(20_000_000))
    return server


def begun(peer, target="/echo", length=LENGTH):
    """The request without its body, and how a piece of that is sent."""
    if peer.protocol == "fastcgi":
        pairs = encode_pairs(variables(target, "POST", length=length))
        peer.send(begin(1) + records(PARAMS, 1, pairs))
        return lambda data: record(STDIN, 1, data)
    if peer.protocol == "http":
        peer.send(f"POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n".encode())
    else:
        peer.send(peer.encode(target, method="POST", more={"CONTENT_LENGTH": str(length)}))
    return lambda data: data


def refused(server, peer):
    """The answer of a peer whose body was given up."""
    answer = peer.answer()
    assert (answer.status, answer.whole) == (408, True)
    server.wait_for_log("a request body is too slow", since=peer.since)
    if peer.protocol == "fastcgi":  # the connection is sound
        assert peer.ask("/echo", method="POST", body=b"12", number=1).body == b"12"
    else:
        peer.finish()
        peer.rest()
        assert peer.ended == "end of file"


@pytest.mark.parametrize("first", [0, 200_000], ids=["slow from the start", "fast at first"])
def test_a_body_that_comes_too_slowly_is_408(strict, first):
    """Who was fast at first has no credit for the rest."""
    peers = [strict.connect(protocol) for protocol in PROTOCOLS]
    with ExitStack() as drips:
        for peer in peers:
            frame = begun(peer)
            for _ in range(first // 50_000):
                peer.send(frame(bytes(50_000)))
            drips.enter_context(Drip(peer, repeat(frame(b"0123456789"))))
        for peer in peers:
            refused(strict, peer)


def test_a_body_that_stops_is_408(strict):
    peers = [strict.connect(protocol) for protocol in PROTOCOLS]
    for peer in peers:
        peer.send(begun(peer)(b"0123456789"))
    for peer in peers:
        refused(strict, peer)


def test_a_body_that_comes_fast_enough_may_take_long(strict):
    """Three periods and more."""
    peers = [strict.connect(protocol) for protocol in PROTOCOLS]
    with ExitStack() as drips:
        for peer in peers:
            frame = begun(peer, length=40 * 2000)
            pieces = [frame(bytes(2000))] * 40
            if peer.protocol == "fastcgi":
                pieces[-1] += record(STDIN, 1)
            drips.enter_context(Drip(peer, pieces))
        for peer in peers:
            assert peer.answer().body == bytes(40 * 2000)


def test_any_rate_will_do_without_a_least_one(serve):
    options = ("--client-body-timeout", "1", "--client-body-min-rate", "0")
    server = serve(RULES, *options, protocols=["http"])
    peer = server.connect("http")
    begun(peer, length=30)
    with Drip(peer, [b"0"] * 30):
        assert peer.answer().body == b"0" * 30


def test_a_client_that_waits_for_its_turn_need_not_send(strict, threads, name):
    """The second body is not due before the first answer is there."""
    if threads == "1":
        pytest.skip("nothing is judged while the application has the only thread")
    with Gate(strict.folder / f"{name}.gate") as gate, strict.connect("http") as peer:
        peer.send(peer.encode(f"/waits?{name}"))
        begun(peer, length=10)
        waiting = gate.arrived()
        a_while(2.5)
        waiting.close()
        assert peer.answer().body == name.encode()
        peer.send(b"0123456789")
        assert peer.answer().body == b"0123456789"


class Sip:
    """Takes a few bytes now and then until it is given up or this ends."""

    def __init__(self, peer) -> None:
        self._peer = peer
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with suppress(OSError):
            while self._peer.sock.recv(2000) and not self._ended.wait(0.1):
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._peer.close()
        self._thread.join()


@pytest.mark.parametrize("page", ["large-list", "large-generator", "file-large"])
def test_a_client_that_takes_too_little_is_given_up(strict, page, name):
    """There is progress all the time."""
    since = len(strict.log)
    with ExitStack() as sips:
        for protocol in PROTOCOLS:
            peer = strict.connect(protocol, receive_buffer=4096)
            peer.start(f"/{page}?{name}")
            sips.enter_context(Sip(peer))
        strict.wait_for_log("the peer takes too little of its answer", 4, since=since)
        if page == "file-large":
            strict.wait_for_log(f"closed {name}\n", 4, since=since)
        for protocol in PROTOCOLS:
            assert strict.ask(protocol, "/pid").status == 200


def test_a_client_that_reads_slowly_but_steadily_gets_all_of_it(strict):
    """It takes several times ``send_timeout``."""
    peers = [strict.connect(protocol, receive_buffer=4096) for protocol in PROTOCOLS]
    for peer in peers:
        peer.start("/large-list")
    begun_at = monotonic()
    while monotonic() - begun_at < 3.5:
        for peer in peers:
            assert peer.fill(40_000)
        a_while(0.05)
    # All at once: while one is read to its end the others would take nothing.
    with ThreadPoolExecutor(len(peers)) as pool:
        for answer in pool.map(lambda peer: peer.answer(), peers):
            assert (len(answer.body), answer.whole) == (10_000_000, True)
