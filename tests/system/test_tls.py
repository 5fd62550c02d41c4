"""HTTP inside of TLS: the same answers, whole, however the bytes are cut."""

import hashlib
import json
import socket
import ssl
import struct
from contextlib import suppress

import pytest
from clients import EOF, Gate, Http
from conftest import APPS, numbered
from processes import Load, started
from test_wsgi_heads import follow
from test_wsgi_iterables import closed_once
from tls_peers import Https, Wire

RULES = APPS / "rules_app.py"
BOTH = ("https", "http")
LARGE = numbered(20_000_000)


@pytest.fixture(scope="module")
def served(serve_module, certified, threads):
    """HTTPS and HTTP at once, on TCP and on unix sockets."""
    server = serve_module(RULES, "--threads", threads, *certified, protocols=BOTH)
    for name, size in ("empty", 0), ("small", 100), ("large", 5_000_000):
        (server.folder / name).write_bytes(numbered(size))
    return server


@pytest.fixture(autouse=True)
def sound(request):
    """One worker survives all of it."""
    yield
    if "served" in request.fixturenames:
        server = request.getfixturevalue("served")
        server.check()
        assert "Traceback" not in server.log
        assert len(server.workers) == 1, server.log


def wire(server, authority, **attributes):
    """A client of the TLS bind whose every byte the test decides on."""
    options = {name: attributes.pop(name) for name in ("receive_buffer",) if name in attributes}
    context = authority.context(**attributes)
    peer = Wire(server.addresses["https", "tcp"], context, **options)
    peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return peer


def environ_of(peer):
    return {
        name: eval(text)
        for name, text in json.loads(peer.ask("/environ").body).items()
        if text[:1] in "'\""
    }


# The same as without TLS


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_connection_is_kept(served, kind):
    with served.connect("https", kind) as peer:
        for body in (b"", b"x", numbered(300_000)):
            for chunked in (False, True):
                answer = peer.ask("/echo", method="POST", body=body, chunked=chunked)
                assert (answer.status, answer.body, answer.whole) == (200, body, True)
        assert peer.ask("/environ", method="HEAD").body == b""
        follow(served, peer)


def test_pipelined_requests_are_answered_in_turn(served):
    with served.connect("https") as peer:
        bodies = [numbered(size) for size in (1, 40_000, 7, 100_000, 0, 16_384, 3)]
        peer.send(b"".join(peer.encode("/echo", method="POST", body=body) for body in bodies))
        assert [peer.answer().body for _ in bodies] == bodies


def test_what_was_asked_before_the_goodbye_is_answered(served, authority):
    """More than is decoded at once, and the end of it, arrive together."""
    peer = wire(served, authority)
    peer.handshake()
    asked = peer.seal(Http.encode("/pid") * 200)
    with suppress(ssl.SSLWantReadError):
        peer.tls.unwrap()
    peer.send(asked + peer.sealed())
    answers = b""
    with suppress(ssl.SSLZeroReturnError):
        while piece := peer.open():
            answers += piece
    assert answers.count(b"HTTP/1.1 200 OK") == 200


def test_twenty_megabytes_both_ways(served):
    with served.connect("https") as peer:
        answer = peer.ask("/reads?by_read", method="POST", body=LARGE)
        report = json.loads(answer.body)
        assert (report["size"], report["digest"]) == (len(LARGE), hashlib.sha256(LARGE).hexdigest())
        peer.start("/echo", method="POST", body=LARGE, chunked=True)
        answer = peer.answer()
        assert hashlib.sha256(answer.body).digest() == hashlib.sha256(LARGE).digest()
        follow(served, peer)


@pytest.mark.parametrize("page", ["small", "large", "empty", "offset", "shorter", "after-write"])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_file_arrives_whole_and_is_closed_once(served, name, page, kind):
    whole = (served.folder / "large").read_bytes()
    bodies = {
        "small": whole[:100], "large": whole, "empty": b"", "offset": whole[1_000_000:],
        "shorter": whole[1_000_000:1_001_234], "after-write": b"before " + whole[:100],
    }  # fmt: skip
    with served.connect("https", kind) as peer:
        answer = peer.ask(f"/file-{page}?{name}")
        assert (answer.body == bodies[page], answer.whole) == (True, True)
        follow(served, peer)
    closed_once(served, "http", name)


def test_a_file_is_closed_when_its_client_leaves(served, name):
    peer = served.connect("https", receive_buffer=4096)
    peer.start(f"/file-large?{name}")
    peer.head()
    peer.reset()
    closed_once(served, "http", name)


def test_pieces_arrive_as_they_are_made(served, name):
    with Gate(served.folder / f"{name}.gate") as gate, served.connect("https") as peer:
        peer.start(f"/step-by-step?{name}")
        answer = peer.head()
        pieces = peer.pieces(answer)
        seen = [next(pieces)]
        for _ in range(2):
            gate.pass_one()
            seen.append(next(pieces))
        assert not list(pieces)
        assert (len(seen), answer.whole) == (3, True)
        follow(served, peer)


def test_expect_continue(served):
    with served.connect("https") as peer:
        peer.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n"
                  b"Expect: 100-continue\r\n\r\n")  # fmt: skip
        assert peer.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        peer.send(b"four")
        assert peer.answer().body == b"four"
        follow(served, peer)


def test_both_at_once(served):
    """One worker, both kinds of clients, side by side."""
    address = {name: served.addresses[name, "tcp"] for name in BOTH}
    with (
        Load("https", address["https"], keep=True, target="/pid", races=False) as kept,
        Load("https", address["https"], keep=False, target="/pid") as closed,
        Load("http", address["http"], keep=True, target="/pid", races=False) as plain,
    ):
        for load in (kept, closed, plain):
            load.reached(50)
    assert [load.lost for load in (kept, closed, plain)] == [[], [], []]
    assert kept.bodies == closed.bodies == plain.bodies == {str(served.workers[0]).encode()}


# However it is cut


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_byte_by_byte(served, authority, version):
    peer = wire(served, authority, maximum_version=version)
    peer.handshake(step=1)
    for byte in peer.seal(Http.encode("/echo", method="POST", body=b"slow but steady")):
        peer.send(bytes((byte,)))
    assert peer.until_open(b"slow but steady").startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_records_of_one_byte(served, authority, version):
    """Thousands of them in each read."""
    peer = wire(served, authority, maximum_version=version)
    peer.handshake()
    body = numbered(5_000)
    peer.send(peer.seal(Http.encode("/echo", method="POST", body=body), size=1))
    assert peer.until_open(body[-16:]).endswith(body)


@pytest.mark.parametrize("size", [1, 100, 16_384])
def test_nothing_waits_where_the_poller_does_not_see_it(served, authority, size):
    """All that is sent is there before the first answer is asked for, in one piece or in two."""
    peer = wire(served, authority)
    peer.handshake()
    bodies = [numbered(100 * number) + b"end %d;" % number for number in range(1, 40)]
    data = peer.seal(b"".join(Http.encode("/echo", method="POST", body=it) for it in bodies), size)
    peer.send(data[: len(data) - 7])
    peer.send(data[-7:])
    assert peer.until_open(b"end 39;").count(b"HTTP/1.1 200 OK\r\n") == len(bodies)


def test_the_first_request_comes_with_the_end_of_the_handshake(served, authority):
    peer = wire(served, authority)
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.do_handshake()
    peer.send(peer.sealed())
    while True:
        assert peer._receive()
        try:
            peer.tls.do_handshake()
            break
        except ssl.SSLWantReadError:
            pass
    peer.send(peer.sealed() + peer.seal(Http.encode("/echo", method="POST", body=b"at once")))
    peer.until_open(b"at once")


def test_reading_and_answering_at_once(serve, certified):
    """The loop decrypts what a client goes on sending while threads encrypt its answers."""
    server = serve(RULES, "--threads", "8", *certified, protocols=BOTH)
    body = numbered(200_000)
    clients = [server.connect("https") for _ in range(4)]
    for _ in range(10):
        for peer in clients:
            peer.start("/echo", method="POST", body=body)
        for peer in clients:
            peer.start("/echo", method="POST", body=body, chunked=True)
        for peer in clients:
            for _ in range(2):
                assert peer.answer().body == body


def test_a_handshake_larger_than_the_socket_takes(authority, tmp_path):
    """What is left of it is sent when the client has read the rest."""
    certificate, key = authority.issue("long")
    chain = tmp_path / "chain.pem"
    chain.write_bytes(certificate.read_bytes() + authority.certificate.read_bytes() * 60)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # of what it accepts too
        words = ("--certfile", str(chain), "--keyfile", str(key))
        bind = ("--bind", f"https+fd://{listener.fileno()}")
        with (
            started(f"{RULES}:app", *words, *bind, cwd=tmp_path, pass_fds=(listener.fileno(),)),
            Wire(listener.getsockname(), authority.context(), receive_buffer=2048) as peer,
        ):
            with Https(listener.getsockname()) as other:  # by now the server waits for the first
                assert other.ask("/pid").status == 200
            peer.handshake()
            peer.send(peer.seal(Http.encode("/echo", method="POST", body=b"after all")))
            peer.until_open(b"after all")


# The end


def test_the_server_says_goodbye(serve, certified):
    server = serve(RULES, *certified, "--keepalive", "1", protocols=BOTH)
    with server.connect("https") as peer:
        assert peer.ask("/pid", close=True).whole
        assert (peer.rest(), peer.ended) == (b"", EOF)
    with server.connect("https") as peer:  # its end is the end of the answer
        peer.send(b"GET /iterable?generator HTTP/1.0\r\n\r\n")
        answer = peer.rest()
        assert b"Content-Length" not in answer
        assert (answer[-4:], peer.ended) == (b"abcd", EOF)
    with server.connect("https") as peer:
        assert peer.ask("/pid").whole
        assert (peer.rest(), peer.ended) == (b"", EOF)  # idle for too long


def test_an_answer_without_length_that_was_cut_is_seen_to_be(serve, certified, threads):
    server = serve(RULES, "--threads", threads, *certified, protocols=("https",))
    with server.connect("https") as peer:
        peer.send(b"GET /raises-later?ValueError HTTP/1.0\r\n\r\n")
        assert peer.rest().startswith(b"HTTP/1.1 200 ")
        assert peer.ended != EOF


@pytest.mark.parametrize("goodbye", [False, True])
def test_a_request_that_was_cut_is_none(served, goodbye):
    """Whether TLS was ended or only its connection."""
    since = len(served.log)
    for start in (
        Http.encode("/never", method="POST", body=b"x" * 1000)[:-1],
        Http.encode("/never", method="POST", body=b"x" * 1000, chunked=True)[:-5],
        Http.encode("/never")[:-2],
    ):
        with served.connect("https") as peer:
            peer.send(start)
            if goodbye:
                peer.say_goodbye()
            peer.finish()
            assert (peer.rest(), peer.ended) == (b"", EOF)
    assert served.ask("https", "/pid").status == 200
    assert "never" not in served.log[since:]


@pytest.mark.parametrize("goodbye", [False, True])
def test_a_client_that_only_listens_from_now_on_gets_its_answers(served, authority, goodbye):
    peer = wire(served, authority)
    peer.handshake()
    data = b"".join(Http.encode("/echo", method="POST", body=b"%d!" % it) for it in range(5))
    sealed = peer.seal(data)
    if goodbye:
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.unwrap()
        sealed += peer.sealed()
    peer.send(sealed)
    peer.finish()
    if goodbye:  # the client's TLS has ended: see only that there is no reset
        peer.rest()
    else:
        peer.until_open(b"4!")
        assert peer.open() == b""
    assert peer.ended in ("", EOF)


def test_the_answer_to_a_refused_upload_is_readable(serve, certified, threads):
    """The client sends 5 MB before it reads; no reset may eat the 413."""
    server = serve(
        RULES, *certified, "--threads", threads, "--limit-request-body", "1000", protocols=BOTH
    )
    with server.connect("https") as peer:
        answer = peer.ask("/echo", method="POST", body=numbered(5_000_000))
        assert (answer.status, answer.whole) == (413, True)
        assert (peer.rest(), peer.ended) == (b"", EOF)


def test_a_client_that_resets_is_forgotten(served):
    for _ in range(20):
        peer = served.connect("https")
        peer.start("/echo", method="POST", body=numbered(100_000))
        peer.reset()
    follow(served, served.connect("https"))


def test_a_proxy_header_comes_before_tls(serve, certified):
    server = serve(RULES, *certified, "--proxy-protocol", "auto", protocols=("https",))
    v1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 443\r\n"
    v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes((192, 0, 2, 1, 192, 0, 2, 2))
    for header in (v1, v2 + struct.pack(">HH", 5000, 443)):
        with server.connect("https", before=header) as peer:
            environ = environ_of(peer)
        assert environ["REMOTE_ADDR"] == "192.0.2.1"
        assert environ["wsgi.url_scheme"] == "https"
        assert environ["SSL_PROTOCOL"] == "TLSv1.3"
    since = len(server.log)
    with pytest.raises((ssl.SSLError, OSError)):
        server.connect("https")
    server.wait_for_log(r"127\.0\.0\.1:\d+: ", since=since)
