"""The design's table "What bad input gets", line by line."""

import os
import re
import signal
import socket
import stat
import struct

import pytest
from clients import (
    ABORT,
    BEGIN,
    DATA,
    END,
    PARAMS,
    STDIN,
    STDOUT,
    TIMEOUT,
    FastCgi,
    Http,
    begin,
    encode_pairs,
    netstring,
    record,
    records,
    variables,
)
from conftest import PROTOCOLS

APP = """
def app(environ, start_response):
    environ["wsgi.errors"].write("called %s\\n" % environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"served"]
"""

#: A limit small enough that a body beyond it is quickly sent.
LIMITS = ("--limit-request-body", "1000", "--limit-request-header-total", "20000")


@pytest.fixture(scope="module")
def strict(serve_module, threads):
    return serve_module(APP, "--threads", threads, *LIMITS)


def lines_about(server, peer):
    """The log lines that name this connection."""
    port = peer.sock.getsockname()[1]
    return re.findall(rf".*127\.0\.0\.1:{port}: .*", server.log[peer.since :])


def logged_once(server, peer, *words):
    """One line with the peer and the reason; the application was not called."""
    port = peer.sock.getsockname()[1]
    server.wait_for_log(rf"127\.0\.0\.1:{port}: .*\n", since=peer.since)
    # What came before it is in the log for certain once a later request is.
    assert server.ask("http", f"/after-{port}").body == b"served"
    server.wait_for_log(f"called /after-{port}\n", since=peer.since)
    lines = lines_about(server, peer)
    assert len(lines) == 1, lines
    assert not [word for word in words if word not in lines[0]], lines
    assert "called /bad" not in server.log
    assert "Traceback" not in server.log


# Malformed HTTP

HOST = b"Host: localhost\r\n"
GET = b"GET /bad HTTP/1.1\r\n" + HOST
POST = b"POST /bad HTTP/1.1\r\n" + HOST
MALFORMED_HTTP = {
    "garbage": (b"\x80\x81\x82\r\n\r\n", 400),
    "no version": (b"GET /bad\r\n\r\n", 400),
    "a method that is no token": (b"G(T /bad HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "no Host": (b"GET /bad HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (GET + HOST + b"\r\n", 400),
    "an invalid Host": (b"GET /bad HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    "Host against target": (b"GET http://other/bad HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a bare line feed": (b"GET /bad HTTP/1.1\nHost: localhost\n\n", 400),
    "a folded line": (GET + b"X-A: 1\r\n 2\r\n\r\n", 400),
    "space before the colon": (GET + b"X-A : 1\r\n\r\n", 400),
    "NUL in a value": (GET + b"X-A: \0\r\n\r\n", 400),
    "a malformed escape": (b"GET /bad%zz HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "length and coding": (
        POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "two lengths": (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
    "a length with a sign": (POST + b"Content-Length: +3\r\n\r\nabc", 400),
    "a bad chunk": (POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n\r\n", 400),
    "chunks in HTTP/1.0": (
        b"POST /bad HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "a long request line": (b"GET /bad" + b"x" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414),
    "a long field": (GET + b"X-A: " + b"x" * 9000 + b"\r\n\r\n", 431),
    "many fields": (GET + b"X-A: 1\r\n" * 101 + b"\r\n", 431),
    "a large head": (GET + (b"X-A: " + b"x" * 4000 + b"\r\n") * 6 + b"\r\n", 431),
    "a large body": (POST + b"Content-Length: 1001\r\n\r\n" + b"x" * 1001, 413),
    "large chunks": (
        POST + b"Transfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n",
        413,
    ),
    "an unknown expectation": (POST + b"Expect: miracles\r\nContent-Length: 1\r\n\r\n1", 417),
    "an unknown coding": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
    "CONNECT": (b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + b"\r\n", 501),
    "HTTP/2.0": (b"GET /bad HTTP/2.0\r\n" + HOST + b"\r\n", 505),
    "HTTP/0.9": (b"GET /bad HTTP/0.9\r\n" + HOST + b"\r\n", 505),
}


@pytest.mark.parametrize("case", MALFORMED_HTTP)
def test_malformed_http_is_answered_and_closed_and_logged_in_one_line(strict, case):
    data, status = MALFORMED_HTTP[case]
    peer = strict.connect("http")
    peer.send(data)
    answer = peer.answer()
    assert (answer.status, answer.whole, answer.get("connection")) == (status, True, "close")
    assert answer.body
    assert peer.closed()
    logged_once(strict, peer, f": {status} ")


def test_what_came_before_malformed_http_is_served_first(strict):
    peer = strict.connect("http")
    peer.send(Http.encode("/good") + b"nonsense\r\n\r\n")
    assert peer.answer().body == b"served"
    assert peer.answer().status == 400
    assert peer.closed()


def test_a_request_that_is_cut_off_is_not_served(strict, protocol):
    """The client left in the middle; one line, and nothing to answer."""
    whole = strict.connect(protocol).encode("/bad", method="POST", body=b"x" * 100)
    for end in (len(whole) - 50, 20):
        peer = strict.connect(protocol)
        peer.send(whole[:end])
        peer.finish()
        assert peer.closed() if protocol == "http" else peer.rest() == b""
        logged_once(strict, peer, "left in the middle")


def test_a_connection_without_a_byte_is_closed_silently(strict, protocol):
    """So do health checks."""
    peer = strict.connect(protocol)
    peer.finish()
    assert peer.rest() == b""
    assert lines_about(strict, peer) == []


# Malformed FastCGI and SCGI


def fastcgi(*, number=1, more=None, length=0, body=b""):
    pairs = encode_pairs(variables("/bad", "POST", (), length, more))
    return begin(number) + records(PARAMS, number, pairs) + records(STDIN, number, body)


CLOSED_FASTCGI = {
    "another version": record(BEGIN, 1, b"\0\1\1\0\0\0\0\0").replace(b"\1", b"\2", 1),
    "a short BEGIN_REQUEST": record(BEGIN, 1, b"\0\1\1"),
    "PARAMS without an id": record(PARAMS, 0, b""),
    "a record of the server's": begin(1) + record(STDOUT, 1, b"x"),
    "begun twice": begin(1) + begin(1),
    "GET_VALUES cut off": record(9, 0, b"\x0fFCGI"),
    "DATA for a responder": fastcgi(body=b"")[:-8] + record(DATA, 1, b"x"),
}
ENDED_FASTCGI = {
    "a pair cut off": (begin(1) + record(PARAMS, 1, b"\x09\x09x") + record(PARAMS, 1), 400),
    "a body before the parameters": (begin(1) + record(STDIN, 1, b"x"), 400),
    "a length that is no number": (fastcgi(more={"CONTENT_LENGTH": "1x"}), 400),
    "a body shorter than its length": (fastcgi(length=5, body=b"1234"), 400),
    "a body longer than its length": (fastcgi(length=3, body=b"1234"), 400),
    "too many parameters": (fastcgi(more={"HTTP_X": "x" * 20_000}), 431),
    "a large body": (fastcgi(length=1001, body=b"x" * 1001), 413),
    "a large body of unknown length": (fastcgi(length=None, body=b"x" * 1001), 413),
}


@pytest.mark.parametrize("case", CLOSED_FASTCGI)
def test_malformed_fastcgi_closes_and_is_logged_in_one_line(strict, case):
    peer = strict.connect("fastcgi")
    peer.send(CLOSED_FASTCGI[case])
    assert peer.rest() == b""
    assert peer.ended == "end of file"
    logged_once(strict, peer)


@pytest.mark.parametrize("case", ENDED_FASTCGI)
def test_malformed_fastcgi_ends_the_request_where_it_is_known(strict, case):
    data, status = ENDED_FASTCGI[case]
    peer = strict.connect("fastcgi")
    peer.send(data)
    answer = peer.answer()
    assert (answer.status, answer.whole, answer.protocol_status) == (status, True, 0)
    logged_once(strict, peer)


def test_an_unknown_role_is_refused_and_the_connection_stays(strict):
    peer = strict.connect("fastcgi")
    peer.send(FastCgi.encode("/bad", role=9))
    assert peer.record() == (END, 1, struct.pack(">IB3x", 0, 3))
    logged_once(strict, peer, "FastCGI role 9 is not served")
    assert peer.ask("/good", number=2).body == b"served"


def test_an_unknown_record_type_is_named_and_the_connection_stays(strict):
    peer = strict.connect("fastcgi")
    peer.send(record(77, 0, b"what is this"))
    assert peer.record() == (11, 0, b"\x4d" + bytes(7))
    peer.send(record(ABORT, 5))
    assert peer.ask("/good").body == b"served"


def scgi(pairs, body=b""):
    return netstring(pairs) + body


LENGTH, ONE, METHOD = ("CONTENT_LENGTH", "0"), ("SCGI", "1"), ("REQUEST_METHOD", "GET")
URI = ("REQUEST_URI", "/bad")
MALFORMED_SCGI = {
    "no number": (b"abc:" + b"x" * 50, 400),
    "a leading zero": (b"0" + scgi([LENGTH, ONE, METHOD, URI]), 400),
    "no comma": (scgi([LENGTH, ONE, METHOD, URI])[:-1] + b";", 400),
    "no CONTENT_LENGTH first": (scgi([ONE, LENGTH, METHOD, URI]), 400),
    "two CONTENT_LENGTHs": (scgi([LENGTH, ONE, METHOD, URI, LENGTH]), 400),
    "a length that is no number": (scgi([("CONTENT_LENGTH", "-1"), ONE, METHOD, URI]), 400),
    "no SCGI": (scgi([LENGTH, METHOD, URI]), 400),
    "SCGI 2": (scgi([LENGTH, ("SCGI", "2"), METHOD, URI]), 400),
    "no pairs": (b"20:CONTENT_LENGTH\x000\0SC\0,", 400),
    "no method": (scgi([LENGTH, ONE, URI]), 400),
    "nginx's false length": (
        scgi([("CONTENT_LENGTH", "5"), ONE, METHOD, URI, ("HTTP_CONTENT_LENGTH", "9")]) + b"12345",
        400,
    ),
    "large headers": (scgi([LENGTH, ONE, METHOD, URI, ("X", "x" * 20_000)]), 431),
    "a large body": (scgi([("CONTENT_LENGTH", "1001"), ONE, METHOD, URI], b"x" * 1001), 413),
}


@pytest.mark.parametrize("case", MALFORMED_SCGI)
def test_malformed_scgi_is_refused_and_closed_and_logged_in_one_line(strict, case):
    data, status = MALFORMED_SCGI[case]
    peer = strict.connect("scgi")
    peer.send(data)
    answer = peer.answer()
    assert (answer.status, answer.whole, peer.ended) == (status, True, "end of file")
    logged_once(strict, peer)


def test_fastcgi_without_a_method_is_refused(strict):
    peer = strict.connect("fastcgi")
    peer.send(fastcgi(more={"REQUEST_METHOD": None}))
    assert peer.answer().status == 400
    logged_once(strict, peer, "REQUEST_METHOD is missing")


def test_bad_input_leaves_the_worker_as_it_was(strict):
    """After everything above."""
    assert len(strict.workers) == 1
    for protocol in PROTOCOLS:
        assert strict.ask(protocol, "/good").body == b"served"


# The application


def test_an_application_that_raises_before_the_head_is_500_with_a_traceback_and_an_id(
    rules, protocol
):
    peer = rules.connect(protocol)
    answer = peer.ask("/raises?SystemExit")
    port = peer.sock.getsockname()[1]
    assert (answer.status, answer.whole) == (500, True)
    rules.wait_for_log(
        rf"\[{rules.workers[0]}-\d+\] GET /raises\?SystemExit from 127\.0\.0\.1:{port}: "
        r"the application failed\n\s*Traceback (?:.*\n)+?\s*SystemExit: 7\n"
    )


def test_an_application_that_raises_after_the_head_is_cut_with_a_traceback_and_an_id(
    rules, protocol
):
    peer = rules.connect(protocol)
    answer = peer.ask("/raises-later?KeyboardInterrupt")
    port = peer.sock.getsockname()[1]
    assert answer.fault
    rules.wait_for_log(
        rf"\[{rules.workers[0]}-\d+\] GET /raises-later\?KeyboardInterrupt from "
        rf"127\.0\.0\.1:{port}: the application failed\n\s*Traceback "
    )


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("too-short?list", "the answer is 5 bytes shorter than announced"),
        ("too-long?list", "the answer is longer than its Content-Length"),
    ],
)
def test_an_application_that_breaks_its_content_length_is_logged_in_one_line(
    rules, protocol, page, words
):
    peer = rules.connect(protocol)
    peer.start(f"/{page}")
    peer.rest()
    port = peer.sock.getsockname()[1]
    page = re.escape(page)
    rules.wait_for_log(rf"\] GET /{page} from 127\.0\.0\.1:{port}: {words}\n")


def test_a_bad_header_of_the_application_is_500_and_named_in_the_log(rules, protocol):
    peer = rules.connect(protocol)
    assert peer.ask("/bad-head?value-crlf").status == 500
    rules.wait_for_log(r"ValueError: the value of X-Evil has a forbidden character")


# Starting


def refused(serve, code, *options, app=APP, **more):
    """A server that does not start: its exit code, and what it said."""
    server = serve(app, *options, wait=False, **more)
    assert server.process.wait(TIMEOUT) == code, server.log
    assert server.errors.wait_for_end(TIMEOUT)
    assert server.printed == ""
    return server.log


#: Options or files or environment; words of the message: name, value, what is allowed.
BAD_SETTINGS = {
    "too small": (["--threads", "0"], "threads", "'0'", "from 1 to"),
    "no number": (["--workers", "many"], "workers", "'many'", "a whole number"),
    "negative seconds": (["--keepalive", "-1"], "keepalive", "'-1'", "above 0"),
    "not among the choices": (["--loglevel", "loud"], "loglevel", "'loud'", "debug, info"),
    "unknown protocol": (["--protocol", "gopher"], "protocol", "'gopher'", "fastcgi, http, scgi"),
    "unknown protocol of a bind": (["--bind", "ftp+:80"], "bind", "'ftp+:80'", "fastcgi"),
    "no port": (["--bind", "localhost:http"], "bind", "'localhost:http'", "up to 65535"),
    "odd option of a bind": (["--bind", "unix:/x?colour=red"], "bind", "colour", "mode"),
    "unknown field": (["--access-log-format", "%(zz)s"], "access_log_format", "zz", "%(h)s"),
    "relative path": (["--script-name", "app"], "script_name", "'app'", "/app"),
    "unknown role": (["--fastcgi-roles", "king"], "fastcgi_roles", "king", "responder"),
    "no such folder": (["--chdir", "/nowhere"], "chdir", "'/nowhere'", "No such file"),
    "no such file": (["-c", "nowhere.toml"], "config", "nowhere.toml'", "No such file"),
    "unknown option": (["--thread", "2"], "--thread", "No such option", "--threads"),
    "environment": ({"env": {"GATEWAY_THREADS": "x"}}, "threads", "'x'", "environment"),
    "file": ({"files": {"gateway.toml": "threads = 0"}}, "threads", "0", "gateway.toml"),
    "wrong type in a file": ({"files": {"gateway.toml": "pidfile = 7"}}, "pidfile", "7", "text"),
    "unknown name in a file": (
        {"files": {"gateway.toml": "thread = 2"}},
        "thread",
        "2",
        "did you mean threads?",
    ),
    "no TOML": ({"files": {"gateway.toml": "threads"}}, "config", "gateway.toml", "no TOML"),
}


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_a_bad_setting_is_exit_2_with_name_value_and_what_is_allowed(serve, case):
    given, *words = BAD_SETTINGS[case]
    options = given if isinstance(given, list) else []
    more = given if isinstance(given, dict) else {}
    said = refused(serve, 2, *options, protocols=["http"], kinds=["unix"], **more)
    assert not [word for word in words if word not in said], said
    assert "Traceback" not in said


BAD_APPLICATIONS = {
    "an exception": ("raise RuntimeError('at import')", "RuntimeError: at import", "Traceback"),
    "bad syntax": ("def app(:\n", "SyntaxError", "app.py"),
    "a missing import": ("import no_such_module_at_all\n", "no_such_module_at_all", "app.py"),
    "an exit": ("raise SystemExit(0)", "SystemExit: 0", "Traceback"),
    "no such attribute": ("def appl(environ, start_response): ...", "app", "did you mean appl"),
    "nothing to call": ("app = 7", "'app:app' is a int", "cannot be called"),
}


@pytest.mark.parametrize("case", BAD_APPLICATIONS)
def test_an_application_that_cannot_be_imported_is_exit_3_at_start(serve, case):
    source, *words = BAD_APPLICATIONS[case]
    said = refused(serve, 3, app=source)
    assert not [word for word in words if word not in said], said
    assert said.count("cannot start: ") >= 1


def test_an_application_that_cannot_be_imported_at_reload_leaves_the_old_code(serve, threads):
    server = serve(APP, "--threads", threads)
    old = server.workers
    source = server.folder / "app.py"
    source.write_text("raise RuntimeError('the new code is broken')")
    server.kill(signal.SIGHUP)
    server.wait_for_log("reload failed, the old workers go on serving")
    assert "RuntimeError: the new code is broken" in server.log
    assert server.ask("http").body == b"served"
    assert server.workers == old
    source.write_text(APP.replace("served", "served by better code"))
    server.kill(signal.SIGHUP)
    server.wait_for_log(rf"worker {old[0]} left")
    for protocol in PROTOCOLS:
        assert server.ask(protocol).body == b"served by better code"


def one_line(said, *words):
    assert len(said.splitlines()) == 1, said
    assert said.startswith("gateway: ")
    assert not [word for word in words if word not in said], said


def test_an_address_in_use_is_exit_1_and_one_line(serve):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        said = refused(serve, 1, "--bind", "unix:first.sock", "--bind", where)
        one_line(said, f"cannot listen on {where}: the address is in use")
        assert not (serve.servers[-1].folder / "first.sock").exists()


def test_no_permission_is_exit_1_and_one_line(serve):
    """Nobody may create a file there, root included."""
    one_line(refused(serve, 1, "--bind", "unix:/proc/x.sock"), "cannot listen on unix:/proc/x.sock")


def test_a_stale_unix_socket_is_replaced(serve, tmp_path_factory, protocol):
    with socket.socket(socket.AF_UNIX) as left_behind:
        folder = tmp_path_factory.mktemp("s")
        path = os.path.relpath(folder / "x.sock")
        left_behind.bind(path)
        inode = os.stat(path).st_ino
    server = serve(APP, "--bind", f"{protocol}+unix:{folder}/x.sock")
    assert server.connect(protocol, "unix").ask().body == b"served"
    assert os.stat(path).st_ino != inode or stat.S_ISSOCK(os.stat(path).st_mode)


@pytest.mark.parametrize("state", ["listening", "with a full backlog"])
def test_a_live_unix_socket_is_not_replaced(serve, tmp_path_factory, state):
    path = str(tmp_path_factory.mktemp("s") / "x.sock")
    with socket.socket(socket.AF_UNIX) as live, socket.socket(socket.AF_UNIX) as client:
        live.bind(path)
        live.listen(8 if state == "listening" else 0)
        inode = os.stat(path).st_ino
        if state != "listening":
            client.connect(path)
        said = refused(serve, 1, "--bind", f"unix:{path}")
        one_line(said, f"cannot listen on unix:{path}: another server listens there")
        assert os.stat(path).st_ino == inode
        if state == "listening":
            client.connect(path)
        live.settimeout(TIMEOUT)
        live.accept()[0].close()


def test_a_file_that_is_no_socket_is_not_replaced(serve, tmp_path_factory):
    path = tmp_path_factory.mktemp("s") / "x.sock"
    path.write_text("precious")
    said = refused(serve, 1, "--bind", f"unix:{path}")
    one_line(said, f"cannot listen on unix:{path}: there is a file that is no socket")
    assert path.read_text() == "precious"
