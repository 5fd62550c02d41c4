"""The body: any iterable, its length, its pieces as they come, and close() (PEP 3333)."""

from contextlib import suppress

import pytest
from clients import Gate
from rules_app import EMPTY_ITERABLES, ITERABLES, PIECE_SIZES, large_piece
from test_wsgi_heads import follow


def closed_once(server, protocol, name):
    """close() was called, and after another request of this worker still only once."""
    server.wait_for_log(rf"closed {name}\n")
    assert server.ask(protocol, "/pid").status == 200
    assert server.log.count(f"closed {name}\n") == 1


@pytest.mark.parametrize("case", ITERABLES)
def test_any_iterable_is_a_body(rules, protocol, case):
    peer = rules.connect(protocol)
    answer = peer.ask(f"/iterable?{case}")
    assert (answer.status, answer.body, answer.whole) == (200, b"abcd", True)
    follow(rules, peer)


@pytest.mark.parametrize("case", EMPTY_ITERABLES)
def test_an_empty_body_is_a_whole_answer(rules, protocol, case):
    peer = rules.connect(protocol)
    answer = peer.ask(f"/iterable?{case}")
    assert (answer.status, answer.body, answer.whole) == (200, b"", True)
    assert answer.get("content-length") == "0"
    follow(rules, peer)


@pytest.mark.parametrize("case", ["one-item", "list", "tuple", "subclass"])
def test_a_body_that_is_there_at_once_gets_a_content_length(rules, protocol, case):
    answer = rules.ask(protocol, f"/iterable?{case}")
    assert answer.get("content-length") == "4"
    assert answer.get("transfer-encoding") is None


def test_a_generator_gets_no_content_length(rules, protocol):
    answer = rules.ask(protocol, "/iterable?generator")
    assert answer.get("content-length") is None
    if protocol == "http":
        assert answer.get("transfer-encoding") == "chunked"


@pytest.mark.parametrize("receive_buffer", [0, 4096])
def test_pieces_of_all_sizes_arrive_as_they_were_made(rules, protocol, receive_buffer):
    """Also where the socket takes a part of one, between head, piece and what frames it."""
    peer = rules.connect(protocol, receive_buffer=receive_buffer)
    answer = peer.ask("/pieces-of-sizes")
    assert answer.whole
    expected = b"".join(large_piece(number, size) for number, size in enumerate(PIECE_SIZES))
    assert answer.body == expected
    follow(rules, peer)


@pytest.mark.parametrize("size", [32_767, 32_768, 65_528, 65_529, 131_056, 131_060, 3_000_001])
def test_a_body_in_one_piece_arrives_as_it_was_made(rules, protocol, size):
    """FastCGI has it in records, which the socket takes a part of."""
    for receive_buffer in (0, 4096):
        peer = rules.connect(protocol, receive_buffer=receive_buffer)
        answer = peer.ask(f"/one-piece?{size}")
        assert (answer.status, answer.whole) == (200, True)
        assert answer.get("content-length") == str(size)
        assert answer.body == large_piece(7, size)
        follow(rules, peer)


def test_a_large_body_of_an_answer_without_content_is_not_sent(rules, protocol):
    peer = rules.connect(protocol)
    answer = peer.ask("/one-piece?100000&304")
    assert (answer.status, answer.body, answer.whole) == (304, b"", True)
    follow(rules, peer)
    peer = rules.connect(protocol)
    answer = peer.ask("/one-piece?100000", method="HEAD")
    assert (answer.status, answer.body, answer.whole) == (200, b"", True)
    follow(rules, peer)


def test_large_pieces_arrive_whole_before_the_next_is_made(rules, protocol, name):
    with Gate(rules.folder / f"{name}.gate") as gate:
        peer = rules.connect(protocol)
        peer.start(f"/step-by-large?{name}")
        answer = peer.head()
        pieces = peer.pieces(answer)
        for number in range(3):
            if number:
                gate.pass_one()
            received = b""
            while len(received) < len(large_piece(number)):
                received += next(pieces)
            assert received == large_piece(number)
        assert list(pieces) == []
        assert answer.whole
    follow(rules, peer)


@pytest.mark.parametrize("page", ["step-by-step", "step-by-write"])
def test_pieces_arrive_one_by_one(rules, protocol, name, page):
    """The application makes a piece only after the client has the one before."""
    with Gate(rules.folder / f"{name}.gate") as gate:
        peer = rules.connect(protocol)
        peer.start(f"/{page}?{name}")
        answer = peer.head()
        pieces = peer.pieces(answer)
        assert next(pieces) == b"piece 0;"
        gate.pass_one()
        assert next(pieces) == b"piece 1;"
        gate.pass_one()
        assert next(pieces) == b"piece 2;"
        assert list(pieces) == []
        assert answer.whole
    follow(rules, peer)


@pytest.mark.parametrize("page", ["closes", "closes-list", "closes-not-modified"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_close_after_a_normal_answer(rules, protocol, name, page, method):
    peer = rules.connect(protocol)
    answer = peer.ask(f"/{page}?{name}", method=method)
    bodyless = method == "HEAD" or answer.status == 304
    assert (answer.body, answer.whole) == (b"" if bodyless else b"abcd", True)
    follow(rules, peer)
    closed_once(rules, protocol, name)


@pytest.mark.parametrize("page", ["closes-after-failure", "closes-without-start"])
def test_close_after_an_exception_before_the_head(rules, protocol, name, page):
    peer = rules.connect(protocol)
    assert peer.ask(f"/{page}?{name}").status == 500
    follow(rules, peer)
    closed_once(rules, protocol, name)


@pytest.mark.parametrize("page", ["closes-after-late-failure", "wrong-later", "closes-short"])
def test_close_after_an_answer_that_is_cut(rules, protocol, name, page):
    with suppress(ConnectionError):  # a reset may overtake the head
        assert rules.ask(protocol, f"/{page}?{name}").fault
    closed_once(rules, protocol, name)


def test_close_after_an_answer_that_is_too_long(rules, protocol, name):
    answer = rules.ask(protocol, f"/closes-long?{name}")
    assert (answer.body, answer.whole) == (b"abc", True)
    closed_once(rules, protocol, name)


@pytest.mark.parametrize(("page", "text"), [("badly", "ValueError"), ("with-exit", "SystemExit")])
def test_an_exception_in_close_spoils_nothing(rules, protocol, name, page, text):
    peer = rules.connect(protocol)
    answer = peer.ask(f"/closes-{page}?{name}")
    assert (answer.status, answer.body, answer.whole) == (200, b"abcd", True)
    follow(rules, peer)
    closed_once(rules, protocol, name)
    rules.wait_for_log(rf"{name} from .*: close\(\) of the answer failed\n(?:.*\n)+?\s*{text}")


@pytest.mark.parametrize("leave", ["reset", "close"])
def test_close_after_the_client_has_gone(rules, protocol, name, leave):
    """An endless answer ends with its client."""
    peer = rules.connect(protocol)
    peer.start(f"/endless?{name}")
    answer = peer.head()
    assert next(peer.pieces(answer)).startswith(b"x")
    getattr(peer, leave)()
    closed_once(rules, protocol, name)


def test_an_aborted_request_is_closed_and_ended(rules, threads_of_rules, name):
    """FastCGI section 5.4; the connection goes on.  On the loop nobody would read the record."""
    if threads_of_rules == "1":
        pytest.skip("the application has the only thread")
    peer = rules.connect("fastcgi")
    peer.start(f"/endless?{name}")
    answer = peer.head()
    pieces = peer.pieces(answer)
    next(pieces)
    peer.abort(1)
    for _ in pieces:
        pass
    assert (answer.whole, answer.protocol_status) == (True, 0)
    closed_once(rules, "fastcgi", name)
    follow(rules, peer)


SHORT = ["too-short?list", "too-short?generator", "too-short-written", "file-longer?short"]


@pytest.mark.parametrize("page", [*SHORT, "too-short?nothing"])
def test_a_body_shorter_than_announced_is_cut(rules, protocol, page):
    """The client can tell, and never gets a byte that the application did not send."""
    peer = rules.connect(protocol)
    peer.start(f"/{page}")
    with suppress(ConnectionError):
        answer = peer.head()
        body = b"".join(peer.pieces(answer))
        assert b"12345".startswith(body) or page.startswith("file")
        assert answer.fault
    assert peer.rest() == b""
    follow(rules, rules.connect(protocol))


@pytest.mark.parametrize("page", SHORT)
def test_the_announced_length_binds_no_answer_to_head(rules, protocol, page):
    peer = rules.connect(protocol)
    answer = peer.ask(f"/{page}", method="HEAD")
    assert (answer.status, answer.body, answer.whole) == (200, b"", True)
    assert answer.get("content-length") == ("200" if page.startswith("file") else "10")
    follow(rules, peer)


@pytest.mark.parametrize(
    "page",
    [
        "too-long?list",
        "too-long?lists",
        "too-long?generator",
        "too-long?exact-then-more",
        "too-long-written",
    ],
)
def test_never_more_bytes_than_announced(rules, protocol, page):
    """What follows would be taken for another answer: the connection closes instead."""
    peer = rules.connect(protocol)
    answer = peer.ask(f"/{page}")
    assert (answer.status, answer.body) == (200, b"12345")
    assert peer.rest() == b""
    follow(rules, rules.connect(protocol))


def test_http_1_0_gets_no_chunks_and_the_connection_ends_the_body(rules):
    peer = rules.connect("http")
    headers = [("Connection", "keep-alive")]
    answer = peer.ask("/iterable?generator", version="HTTP/1.0", headers=headers)
    assert (answer.body, answer.whole, peer.ended) == (b"abcd", True, "end of file")
    assert answer.get("transfer-encoding") is None
    assert answer.get("connection") == "close"


def test_http_1_0_is_kept_alive_where_the_length_is_known_and_it_asks(rules):
    peer = rules.connect("http")
    headers = [("Connection", "keep-alive")]
    for _ in range(2):
        answer = peer.ask("/iterable?list", version="HTTP/1.0", headers=headers)
        assert (answer.body, answer.get("connection")) == (b"abcd", "keep-alive")
    answer = peer.ask("/iterable?list", version="HTTP/1.0")
    assert answer.get("connection") == "close"
    assert peer.closed()


def test_an_http_1_0_answer_that_fails_is_reset(rules):
    """Only a reset tells that a body which ends with the connection is not whole."""
    peer = rules.connect("http")
    peer.start("/closes-after-late-failure?http10", version="HTTP/1.0")
    with suppress(ConnectionError):
        answer = peer.head()
        assert b"".join(peer.pieces(answer)) in (b"", b"begun")
    assert peer.ended == "reset"
