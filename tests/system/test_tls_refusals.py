"""What is no TLS on a TLS bind, and TLS that fails: an answer, one line in the log, nobody hurt."""

import socket
import ssl
import subprocess
from contextlib import contextmanager, suppress

import pytest
from clients import EOF, RESET, TIMEOUT, Http, Peer, record
from conftest import Output
from processes import cpu_seconds
from test_bad_input import APP, lines_about, logged_once
from test_wrong_protocol import ARRIVALS, check_language
from tls_peers import Authority, Wire

BOTH = ("https", "http")
PLAIN = [name for name in ARRIVALS if name != "tls"]


@pytest.fixture(scope="module")
def served(serve_module, certified, threads):
    return serve_module(APP, "--threads", threads, *certified, protocols=BOTH)


@pytest.fixture(autouse=True)
def sound(served):
    yield
    served.check()
    assert len(served.workers) == 1, served.log
    assert served.ask("https", "/good").body == b"served"


def plain(server):
    peer = Peer(server.addresses["https", "tcp"])
    peer.since = len(server.log)
    peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return peer


def wire(server, authority, **attributes):
    peer = Wire(server.addresses["https", "tcp"], authority.context(**attributes))
    peer.since = len(server.log)
    return peer


# No TLS


@pytest.mark.parametrize("name", PLAIN)
def test_what_is_no_tls_gets_an_answer_in_its_language(served, name):
    title, data = ARRIVALS[name]
    with plain(served) as peer:
        peer.send(data)
        check_language("tls", name, peer.rest())
        assert peer.ended == EOF
        logged_once(served, peer, f"{title} arrived on a TLS bind: ")


@pytest.mark.parametrize("name", PLAIN)
def test_byte_by_byte_too(served, name):
    """It is refused as soon as it is known; "PRI *" is HTTP and not yet HTTP/2."""
    data = ARRIVALS[name][1]
    with plain(served) as peer:
        try:
            for at in range(min(len(data), 100)):
                peer.send(data[at : at + 1])
            peer.finish()
        except OSError:
            pass  # refused while it was still sending
        peer.rest()
        logged_once(served, peer, " arrived on a TLS bind: ")


def test_http_is_told_what_to_use(served):
    with plain(served) as peer:
        peer.send(Http.encode("/bad"))
        answer = peer.rest()
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"use https://, not http://" in answer
        logged_once(served, peer, "use https://, not http://")


def test_the_answer_is_readable_though_the_client_goes_on_sending(served):
    with plain(served) as peer:
        peer.send(Http.encode("/bad", method="POST", body=b"x" * 5_000_000))
        assert peer.rest().startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert peer.ended == EOF


def test_what_is_nothing_known(served):
    with plain(served) as peer:
        peer.send(bytes(range(128, 160)))
        assert (peer.rest(), peer.ended) == (b"", EOF)
        logged_once(served, peer, "what arrived on a TLS bind is no TLS")


def test_a_question_to_a_fastcgi_server_is_no_request(served):
    with plain(served) as peer:
        peer.send(record(9, 0, b"\x0e\0FCGI_MAX_CONNS"))
        assert peer.rest() == b""
        logged_once(served, peer, "FastCGI arrived on a TLS bind: ")


def test_who_says_nothing_is_not_logged(served):
    with plain(served) as peer:
        peer.finish()
        assert peer.rest() == b""
        assert served.ask("http", "/good").body == b"served"
        assert not lines_about(served, peer)


def test_who_leaves_in_the_middle_is_one_line(served, authority):
    with wire(served, authority) as peer:
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        peer.send(peer.sealed()[:50])
        peer.finish()
        assert peer.rest() == b""
        logged_once(served, peer, "left in the middle of the TLS handshake")


# Handshakes that fail


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"maximum_version": ssl.TLSVersion.TLSv1_1}, "unsupported protocol"),
        ({"maximum_version": ssl.TLSVersion.TLSv1_2, "ciphers": "AES128-SHA"}, "no shared cipher"),
        ({"maximum_version": ssl.TLSVersion.TLSv1_2, "ciphers": "ECDHE+AES128+SHA256"},
         "no shared cipher"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_a_handshake_that_fails_ends_with_an_alert(served, authority, attributes, reason):
    ciphers = attributes.get("ciphers", "ALL:@SECLEVEL=0")
    context = authority.context()
    context.set_ciphers(ciphers)
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = attributes["maximum_version"]
    peer = Wire(served.addresses["https", "tcp"], context)
    peer.since = len(served.log)
    with peer:
        with pytest.raises(ssl.SSLError, match="ALERT"):
            peer.handshake()
        peer.rest()
        assert peer.ended == EOF
        logged_once(served, peer, f"the TLS handshake failed: {reason}")


def test_a_client_that_does_not_know_the_authority(served, tmp_path):
    stranger = Authority(tmp_path, "stranger")
    with wire(served, stranger) as peer:
        with pytest.raises(ssl.SSLCertVerificationError):
            peer.handshake()
        peer.send(peer.sealed())
        peer.rest()
        logged_once(served, peer, "the TLS handshake failed: the peer says: unknown ca")


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\3\1\0\x05hello",
        b"\x16\3\1\xff\xff" + bytes(70_000),
        b"\x16\3\1\0\0" * 100,
        b"\x16" * 100,
        b"\x16\3\3\0\x04\1\xff\xff\xff" + b"\x16\3\3\x40\0" + bytes(1 << 14),
    ],
)
def test_a_malformed_handshake(served, data):
    with plain(served) as peer:
        peer.send(data)
        assert peer.rest()[:1] in (b"\x15", b"")  # an alert
        assert peer.ended == EOF
        logged_once(served, peer, "the TLS handshake failed: ")


def test_garbage_after_the_handshake_ends_all(served, authority):
    """A request that was whole before is not answered any more: TLS is over."""
    for garbage in (b"\x17\3\3\0\x20" + bytes(32), b"GET / HTTP/1.1\r\n\r\n", bytes(100)):
        with wire(served, authority) as peer:
            peer.handshake()
            peer.send(peer.seal(Http.encode("/good")))
            assert b"served" in peer.until_open(b"served")
            peer.send(garbage)
            with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
                peer.open()
            peer.rest()
            assert peer.ended == EOF
            served.wait_for_log(r"TLS broke off: ", since=peer.since)
            assert len(lines_about(served, peer)) == 1


def last_flight(peer):
    """The handshake but for what the client says last, which is returned."""
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.do_handshake()
    peer.send(peer.sealed())
    while not (last := peer.sealed()):
        assert peer._receive()
        with suppress(ssl.SSLWantReadError):
            peer.tls.do_handshake()
    return last


def test_garbage_behind_the_handshake(served, authority):
    """In one piece with its end."""
    with wire(served, authority) as peer:
        peer.send(last_flight(peer) + b"\x17\3\3\0\x20" + bytes(32))
        peer.rest()
        assert peer.ended == EOF
        served.wait_for_log(r"TLS broke off: ", since=peer.since)


def test_a_goodbye_behind_the_handshake(served, authority):
    with wire(served, authority) as peer:
        last = last_flight(peer)
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.unwrap()
        peer.send(last + peer.sealed())
        peer.rest()
        assert peer.ended == EOF
        assert not lines_about(served, peer)


def test_garbage_behind_a_request(served, authority):
    with wire(served, authority) as peer:
        peer.handshake()
        peer.send(peer.seal(Http.encode("/good") * 3) + b"\x17\3\3\0\x20" + bytes(32))
        peer.rest()
        assert peer.ended in (EOF, RESET)
        served.wait_for_log(r"TLS broke off: ", since=peer.since)


# What TLS 1.2 and 1.3 let a client ask for


@contextmanager
def s_client(server, *options):
    """openssl as a client: a function that types a line, and what openssl then says."""
    host, port = server.addresses["https", "tcp"]
    client = subprocess.Popen(
        ["openssl", "s_client", "-connect", f"{host}:{port}", "-crlf", *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said = Output(client.stdout)

    def type_line(line: str) -> None:
        client.stdin.write(line.encode() + b"\n")
        client.stdin.flush()

    try:
        said.wait_for("Verify return code")
        yield type_line, said
    finally:
        client.kill()
        client.stdin.close()
        client.wait()


def test_no_renegotiation(served):
    with s_client(served, "-tls1_2") as (type_line, said):
        type_line("R")
        said.wait_for("RENEGOTIATING")
        said.wait_for("no renegotiation")
        assert "Compression: NONE" in said.text


def test_keys_may_change(served):
    """The server's answer to that goes out among those of the application."""
    with s_client(served, "-tls1_3") as (type_line, said):
        for count in range(1, 21):
            type_line("K" if count % 2 else "k")
            said.wait_for("KEYUPDATE", count)
            type_line("GET /good HTTP/1.1\nHost: a\n")
            said.wait_for("served", count)


def test_alpn(served, authority):
    for offered, chosen in (["h2", "http/1.1"], "http/1.1"), (["http/1.1"], "http/1.1"), ([], None):
        context = authority.context()
        if offered:
            context.set_alpn_protocols(offered)
        with served.connect("https", context=context) as peer:
            assert peer.sock.selected_alpn_protocol() == chosen
            assert peer.ask("/good").body == b"served"


def test_http2_without_being_asked_is_told(served, authority):
    with wire(served, authority) as peer:
        peer.handshake()
        peer.send(peer.seal(ARRIVALS["http2"][1]))
        check_language("http", "http2", peer.open() + peer.open())
        served.wait_for_log(r"HTTP/2 arrived on an HTTP bind", since=peer.since)


def test_a_peer_that_listens_to_nothing_costs_nothing(served, authority):
    """Handshakes without end, of which the server's part is never read."""
    before = cpu_seconds(served.workers[0])
    peers = []
    for _ in range(50):
        peer = Wire(served.addresses["https", "tcp"], authority.context(), receive_buffer=1024)
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.do_handshake()
        peer.send(peer.sealed())
        peers.append(peer)
    for _ in range(20):
        assert served.ask("https", "/good").body == b"served"
    assert cpu_seconds(served.workers[0]) - before < TIMEOUT
    for peer in peers:
        peer.close()
