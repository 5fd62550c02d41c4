"""Every protocol on every other's bind: an answer in its own language, one line in the log."""

import itertools
import shutil
import socket
import ssl
import struct
import subprocess
import sys
from textwrap import dedent

import pytest
from clients import END, PEERS, STDOUT, TIMEOUT, FastCgi, Http, Scgi, Uwsgi, fields, record
from processes import run_many
from test_bad_input import APP, lines_about, logged_once


@pytest.fixture(scope="module")
def served(serve_module, threads):
    return serve_module(APP, "--threads", threads)


def client_hello():
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.create_default_context()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


PROXY_V1 = b"PROXY TCP4 192.0.2.1 192.0.2.2 5000 80\r\n"
PROXY_V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12)
#: What arrives: (its title in the log, its bytes).
ARRIVALS = {
    "http": ("HTTP", Http.encode("/bad")),
    "http-post": ("HTTP", Http.encode("/bad", method="POST", body=b"x" * 100_000)),
    "http-lower-case": ("HTTP", b"get /bad HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "http-absolute": ("HTTP", b"GET http://localhost/bad HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "http-connect": ("HTTP", b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "tls": ("TLS", client_hello()),
    "fastcgi": ("FastCGI", FastCgi.encode("/bad", number=3)),
    "fastcgi-large": ("FastCGI", FastCgi.encode("/bad", number=3, body=b"x" * 100_000)),
    "scgi": ("SCGI", Scgi.encode("/bad")),
    "uwsgi": ("uwsgi", Uwsgi.encode("/bad")),
    "uwsgi-post": ("uwsgi", Uwsgi.encode("/bad", method="POST", body=b"x" * 100_000)),
    "http2": ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"),
    "proxy-1": ("the PROXY protocol", PROXY_V1 + Http.encode("/bad")),
    "proxy-2": ("the PROXY protocol", PROXY_V2 + Http.encode("/bad")),
}
BINDS = {"http": "HTTP", "fastcgi": "FastCGI", "scgi": "SCGI", "uwsgi": "uwsgi"}
MATRIX = [(bind, name) for bind in BINDS for name in ARRIVALS if name.partition("-")[0] != bind]
DIRECTIVES = {protocol: f"{protocol}_pass" for protocol in BINDS} | {"http": "proxy_pass"}
PLAIN = [name for name in BINDS if name != "http"]


def check_language(bind, name, answer):
    """The peer understands what it gets."""
    found = name.partition("-")[0]
    if found in ("http", "uwsgi") or (found, bind) == ("proxy", "http"):
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"arrived on a" in body
        # Apache would end its client's connection too.
        assert (b"Connection: close" in head) is (found != "uwsgi")
    elif found == "scgi":
        assert ("Status", "400 Bad Request") in fields(answer.partition(b"\r\n\r\n")[0])
    elif found == "fastcgi":
        assert b"Status: 400 Bad Request\r\n" in answer
        assert answer.endswith(record(STDOUT, 3) + record(END, 3, bytes(8)))
    elif found == "tls":
        assert answer == b"\x15\3\1\0\2\2\x46"  # a fatal protocol_version alert
    elif found == "http2":
        settings, goaway = answer[:9], answer[9:]
        assert settings == b"\0\0\0\4\0\0\0\0\0"
        assert goaway[3] == 7
        assert struct.unpack(">I", goaway[13:17]) == (0xD,)  # HTTP_1_1_REQUIRED
    else:
        assert answer == b""


@pytest.mark.parametrize(("bind", "name"), MATRIX)
def test_an_answer_in_its_language_and_one_plain_line(served, bind, name):
    title, data = ARRIVALS[name]
    peer = served.connect(bind)
    peer.send(data)
    check_language(bind, name, peer.rest())
    assert peer.ended == "end of file"
    article = "an" if bind in ("http", "scgi") else "a"
    logged_once(served, peer, f"{title} arrived on {article} {BINDS[bind]} bind: ")


@pytest.mark.parametrize(("bind", "name"), MATRIX)
def test_the_same_on_unix_sockets(served, bind, name):
    peer = served.connect(bind, "unix")
    peer.send(ARRIVALS[name][1])
    check_language(bind, name, peer.rest())
    served.wait_for_log(f"a peer on {bind}: {ARRIVALS[name][0]} arrived on", since=peer.since)


@pytest.mark.parametrize(("bind", "found"), list(itertools.permutations(BINDS, 2)))
def test_the_line_names_the_directive_to_use(served, bind, found):
    peer = served.connect(bind)
    peer.send(ARRIVALS[found][1])
    peer.rest()
    advice = f"use {DIRECTIVES[bind]}, not {DIRECTIVES[found]}, or bind with --protocol {found}"
    logged_once(served, peer, advice)


@pytest.mark.parametrize(
    ("name", "advice"),
    [("tls", "http:// and not https://"), ("http2", "proxy_http_version 1.1"),
     ("proxy-1", "send-proxy, proxy_protocol"), ("proxy-2", "send-proxy, proxy_protocol")],
)  # fmt: skip
@pytest.mark.parametrize("bind", BINDS)
def test_the_line_says_what_to_change_at_the_sender(served, bind, name, advice):
    peer = served.connect(bind)
    peer.send(ARRIVALS[name][1])
    peer.rest()
    logged_once(served, peer, advice)


@pytest.mark.parametrize(("bind", "name"), MATRIX)
def test_byte_by_byte_it_is_refused_too(served, bind, name):
    """No hang and no request; what it is may not be known by then."""
    peer = served.connect(bind)
    peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    data = ARRIVALS[name][1]
    try:
        for at in range(min(len(data), 300)):
            peer.send(data[at : at + 1])
        peer.finish()
    except OSError:
        pass  # refused while it was still sending
    peer.rest()
    logged_once(served, peer)


def test_a_question_to_a_fastcgi_server_is_no_request(served):
    """HAProxy asks for FCGI_GET_VALUES first; there is nothing to answer elsewhere."""
    for bind in ("http", "scgi", "uwsgi"):
        peer = served.connect(bind)
        peer.send(record(9, 0, b"\x0e\0FCGI_MAX_CONNS"))
        assert peer.rest() == b""
        logged_once(served, peer, "FastCGI arrived on a")


def test_a_tls_client_is_told_so_that_it_understands(served, protocol):
    context = ssl.create_default_context()
    with (
        socket.create_connection(served.addresses[protocol, "tcp"], TIMEOUT) as sock,
        pytest.raises(ssl.SSLError, match=r"PROTOCOL_VERSION|protocol version"),
    ):
        context.wrap_socket(sock, server_hostname="localhost")


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_an_http2_client_ends_at_once(served, protocol):
    host, port = served.addresses[protocol, "tcp"]
    command = ["curl", "-sS", "-v", "--http2-prior-knowledge", "--max-time", "20"]
    done = subprocess.run(
        [*command, f"http://{host}:{port}/bad"], capture_output=True, text=True, check=False
    )
    if done.returncode == 2 or "Unsupported protocol" in done.stderr:
        pytest.skip("this curl has no HTTP/2")
    assert done.returncode not in (0, 28), done.stderr
    assert not done.stdout


def test_what_is_nothing_known_keeps_the_codecs_own_words(served, protocol):
    peer = served.connect(protocol)
    peer.send(b"\x80\x81\x82\x83\x84\x85\x86\x87\r\n\r\n")
    peer.rest()
    port = peer.sock.getsockname()[1]
    served.wait_for_log(rf"127\.0\.0\.1:{port}: .*\n", since=peer.since)
    (line,) = lines_about(served, peer)
    assert "arrived" not in line


# Binds that take any protocol


@pytest.fixture(scope="module")
def auto(serve_module, threads):
    return serve_module(APP, "--threads", threads, "--workers", "1", protocols=("auto",))


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("name", BINDS)
def test_auto_serves_each(auto, name, kind):
    for method, body in (("GET", b""), ("POST", b"x" * 300_000)):
        with PEERS[name](auto.addresses["auto", kind]) as peer:
            answer = peer.ask("/good", method=method, body=body)
            assert (answer.status, answer.body, answer.whole) == (200, b"served", True)


@pytest.mark.parametrize("name", BINDS)
def test_auto_decides_by_the_first_byte(auto, name):
    with PEERS[name](auto.addresses["auto", "tcp"]) as peer:
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = peer.encode("/good")
        for at in range(len(data)):
            peer.send(data[at : at + 1])
        assert peer.answer().body == b"served"


def test_auto_keeps_connections_and_multiplexes(auto):
    with PEERS["fastcgi"](auto.addresses["auto", "unix"]) as peer:
        for number in (1, 2, 3):
            peer.send(peer.encode("/good", number=number))
        for number in (1, 2, 3):
            assert peer.answer(number=number).body == b"served"
    with PEERS["http"](auto.addresses["auto", "tcp"]) as peer:
        for _ in range(3):
            assert peer.ask("/good").body == b"served"


def test_auto_gives_each_its_own_environ(serve):
    server = serve(
        """
        def app(environ, start_response):
            names = ("SERVER_SOFTWARE", "REMOTE_ADDR", "PATH_INFO", "REQUEST_URI", "SERVER_PORT")
            start_response("200 OK", [])
            return ["|".join(environ.get(name, "-") for name in names).encode()]
        """,
        "--accesslog", "-", "--access-log-format", "%(P)s %(U)s",
        protocols=("auto",),
    )  # fmt: skip
    seen = {}
    for name in BINDS:
        with PEERS[name](server.addresses["auto", "tcp"]) as peer:
            seen[name] = peer.ask("/%61?b").body.decode()
        server.output.wait_for(f"{name} /a\n")
    port = server.addresses["auto", "tcp"][1]
    assert seen.pop("http").startswith("gateway/")
    assert set(seen.values()) == {"-|192.0.2.1|/a|/%61?b|80"}
    with PEERS["http"](server.addresses["auto", "tcp"]) as peer:
        assert peer.ask("/%61").body.decode().endswith(f"|127.0.0.1|/a|/%61|{port}")


@pytest.mark.parametrize("name", ["tls", "http2", "proxy-1", "proxy-2"])
def test_auto_knows_what_it_does_not_serve(auto, name):
    with PEERS["http"](auto.addresses["auto", "tcp"]) as peer:
        since = len(auto.log)
        peer.send(ARRIVALS[name][1])
        check_language("http", name, peer.rest())
        auto.wait_for_log(f"{ARRIVALS[name][0]} arrived on", since=since)


def test_auto_says_nothing_to_who_says_nothing(auto):
    since = len(auto.log)
    for kind in ("tcp", "unix"):
        with PEERS["http"](auto.addresses["auto", kind]) as peer:
            peer.finish()
            assert peer.rest() == b""
    with PEERS["http"](auto.addresses["auto", "tcp"]) as peer:
        assert peer.ask("/good").body == b"served"
    assert "127.0.0.1" not in auto.log[since:]


ELSEWHERE = ["0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:80", "example.org:80", "127.0.0.1.example:1"]


def test_auto_is_for_this_machine_only(tmp_path):
    (tmp_path / "app.py").write_text(dedent(APP))
    ways = [("auto+{}",), ("auto://{}",), ("{}", "--protocol", "auto")]
    words = [[way.format(bind), *more] for bind in ELSEWHERE for way, *more in ways]
    for done in run_many([(["app", "--bind", *bind], tmp_path, {}) for bind in words]):
        assert done.returncode == 2, done
        assert done.stderr.startswith("gateway: bind is "), done
        assert "auto, for any protocol, is allowed on unix sockets and loopback" in done.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "localhost", "[::1]"])
def test_auto_on_every_loopback_address(serve, host):
    if host == "[::1]":
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            pytest.skip("there is no IPv6 here")
    server = serve(APP, "--bind", f"auto://{host}:0")
    assert "listening: auto on " in server.log


def test_auto_on_an_inherited_socket_is_checked_when_it_is_there(tmp_path):
    with socket.create_server(("0.0.0.0", 0)) as listener:
        number = listener.fileno()
        command = [sys.executable, "-m", "gateway", "app:app", "--bind", f"auto+fd://{number}"]
        done = subprocess.run(
            command, pass_fds=(number,), cwd=tmp_path, capture_output=True, text=True, check=False
        )
    assert done.returncode == 1
    assert "auto, for any protocol, is allowed on unix sockets and loopback" in done.stderr


def test_a_kept_connection_of_an_auto_bind_outlives_its_worker(serve):
    """FastCGI connections change hands at a reload, whatever chose their protocol."""
    server = serve(APP, protocols=("auto",))
    with PEERS["fastcgi"](server.addresses["auto", "unix"]) as peer:
        assert peer.ask("/good").body == b"served"
        since = len(server.log)
        server.kill(1)  # SIGHUP
        server.wait_for_log(r"worker \d+ is ready", since=since)
        assert peer.ask("/good").body == b"served"
        assert peer.ask("/good").body == b"served"
