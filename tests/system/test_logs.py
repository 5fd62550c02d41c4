"""What is written to the two logs, and that nobody else can write to them."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket

import pytest
from clients import STDERR
from processes import wait_for

APP = """
import sys

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path.startswith("/raise"):
        raise ValueError("no " + path)
    if path == "/errors":
        errors = environ["wsgi.errors"]
        errors.write("one\\n")
        errors.writelines(["two\\n", "three \\u20ac\\n"])
        errors.flush()
    if path == "/print":
        print("printed", file=environ["wsgi.errors"])
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Kind", "best")])
    return [b"hello"]
"""

COMBINED = re.compile(
    r'(?P<h>\S+) - (?P<u>\S+) \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "(?P<r>.*)" '
    r'(?P<s>\d{3}) (?P<b>\d+|-) "(?P<f>.*)" "(?P<a>.*)"'
)
ERROR_LINE = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\] \[\d+\] \[[A-Z]+\] .+")


def access_lines(server, count: int) -> list[str]:
    """The lines of access.log, once there are so many."""
    file = server.folder / "access.log"
    wait_for(lambda: file.read_text().count("\n") >= count, f"{count} lines")
    return file.read_text().splitlines()


def logging_server(serve, *options, **more):
    return serve(APP, "--accesslog", "access.log", *options, kinds=["tcp"], **more)


# The access log


def test_combined_line(serve):
    server = logging_server(serve)
    headers = [("User-Agent", "test/1.0"), ("Referer", "http://a/b")]
    server.ask(target="/a%20b?c=d", headers=headers)
    server.ask(target="/raise")
    first, second = (COMBINED.fullmatch(line) for line in access_lines(server, 2))
    assert first.groupdict() == {
        "h": "127.0.0.1",
        "u": "-",
        "r": "GET /a%20b?c=d HTTP/1.1",
        "s": "200",
        "b": "5",
        "f": "http://a/b",
        "a": "test/1.0",
    }
    assert second["s"] == "500"
    assert (second["f"], second["a"]) == ("-", "-")


def test_line_of_a_front_end_has_the_client(serve):
    server = logging_server(serve)
    for protocol in ("fastcgi", "scgi"):
        server.ask(protocol, "/x", more={"REMOTE_ADDR": "192.0.2.7", "REMOTE_USER": "jo"})
    for line in access_lines(server, 2):
        found = COMBINED.fullmatch(line)
        assert (found["h"], found["u"], found["r"]) == ("192.0.2.7", "jo", "GET /x HTTP/1.1")


def test_atoms(serve):
    atoms = "%(h)s|%(m)s|%(U)s|%(q)s|%(H)s|%(s)s|%(B)s|%(P)s|%({x-one}i)s|%({X-Kind}o)s"
    atoms += "|%({SERVER_NAME}e)s|%(p)s|%(D)s|%(M)s|%(T)s|%(L)s|%(i)s|100%%"
    server = logging_server(serve, "--access-log-format", atoms)
    server.ask(target="/a%20b?c=d", headers=[("X-One", "1")], method="HEAD")
    (line,) = access_lines(server, 1)
    words = line.split("|")
    expected = "127.0.0.1|HEAD|/a b|c=d|HTTP/1.1|200|0|http|1|best|127.0.0.1".split("|")
    assert words[:11] == expected
    assert int(words[11]) in server.workers
    assert all(int(word) >= 0 for word in words[12:15])
    assert float(words[15]) >= 0
    assert words[16] == f"{server.workers[0]}-1"
    assert words[17] == "100%"


def test_access_log_on_standard_output(serve):
    server = serve(APP, "--accesslog", "-", protocols=["http"])
    server.ask(target="/here")
    assert server.output.wait_for(r'"GET /here HTTP/1.1" 200 5')


EVIL = 'a"b\\c\r\n127.0.0.1 - - [01/Jan/2026:00:00:00 +0000] "GET /forged HTTP/1.1" 200 5 "-" "-"'
EVIL_BYTES = EVIL + "\x00\x07\x1b[31m\x7f\x85\xe2\x80\xa8\xff"
EVIL_VARIABLES = (
    "HTTP_USER_AGENT HTTP_REFERER REQUEST_URI QUERY_STRING HTTP_X REMOTE_ADDR REMOTE_USER "
    "REQUEST_METHOD SERVER_PROTOCOL"
).split()
FORMATS = ["combined", "json", '%(h)s "%(r)s" "%(a)s" %(U)s %(q)s %(u)s %({x}i)s %(m)s']


@pytest.mark.parametrize("log_format", FORMATS, ids=["combined", "json", "own"])
def test_no_request_forges_an_access_line(serve, log_format):
    server = logging_server(serve, "--access-log-format", log_format)
    asked = 0
    for protocol in ("fastcgi", "scgi", "uwsgi"):  # whatever a front end lets through
        for name in EVIL_VARIABLES:
            text = EVIL_BYTES.replace("\0", "") if protocol == "scgi" else EVIL_BYTES
            if name == "REQUEST_URI":
                text = "/" + text
            server.ask(protocol, "/", more={name: text})
            asked += 1
    # Over HTTP only what the grammar lets through: quotes, tabs and bytes above 127.
    server.ask(headers=[("User-Agent", 'x" "y\\ \t\xff\xe2\x80\xa8'), ("X", '"')])
    server.ask(target='/%22%0a%00%ff%e2%80%a8"\\?"')
    asked += 2
    lines = access_lines(server, asked)
    data = (server.folder / "access.log").read_bytes()
    assert len(lines) == data.count(b"\n") == asked
    for line in lines:
        assert line.isascii()
        assert line.isprintable()
        if log_format == "combined":
            # Quotes inside of fields are escaped, so a field ends where it should.
            assert len(re.findall(r'(?<!\\)(?:\\\\)*"', line)) == 6, line
        elif log_format == "json":
            found = json.loads(line)
            assert found["pid"] in server.workers
            assert found["status"] in (200, 400)


def test_json_line(serve):
    server = logging_server(serve, "--access-log-format", "json")
    server.ask(target="/a%22b?c", headers=[("User-Agent", 'x"y\\z\xe4')])
    (line,) = access_lines(server, 1)
    found = json.loads(line)
    expected = {
        "remote_addr": "127.0.0.1",
        "remote_user": None,
        "request": "GET /a%22b?c HTTP/1.1",
        "method": "GET",
        "path": '/a"b',
        "query": "c",
        "server_protocol": "HTTP/1.1",
        "status": 200,
        "bytes": 5,
        "referer": None,
        "user_agent": 'x"y\\z\xe4',
        "protocol": "http",
        "aborted": False,
    }
    assert {name: found[name] for name in expected} == expected
    assert found["duration_us"] >= 0


# The error log


def test_bad_peers_get_one_line_each(serve):
    server = serve(APP, kinds=["tcp"])
    before = server.log.count("\n")
    bad = {
        "http": [
            b"\x00\x1b[31m\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nX\n[2026-01-01 00:00:00 +0000] [1] [INFO] false\r\n\r\n",
            b"GET /\xff\n\n HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        ],
        "fastcgi": [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x07" * 64],
        "scgi": [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"5:\n[2026,", b"x\n[20"],
    }
    count = 0
    for protocol, starts in bad.items():
        for start in starts:
            with server.connect(protocol) as peer:
                peer.send(start)
                peer.finish()
                peer.rest()
            count += 1
            server.wait_for_log("\n", before + count)
    lines = server.log.splitlines()
    assert len(lines) == before + count, server.log
    for line in lines:
        assert ERROR_LINE.fullmatch(line), line
        assert line.isprintable()
        assert "INFO] false" not in line[:60]


def test_traceback_with_what_a_peer_sent_forges_no_line(serve):
    server = serve(APP, kinds=["tcp"])
    genuine = len(server.log.splitlines())
    forged = "[2026-01-01%2000:00:00%20%2B0000]%20[1]%20[CRITICAL]%20forged"
    assert server.ask(target=f"/raise%0A{forged}%0D%1B[31m%C2%85").status == 500
    server.wait_for_log("ValueError")
    wait_for(lambda: server.log.endswith("\n"), "the end of the line")
    lines = server.log.splitlines()
    assert "/raise%0A" in lines[genuine]
    assert "GET" in lines[genuine]
    assert lines[genuine + 1] == "  Traceback (most recent call last):"
    for line in lines[genuine + 1 :]:
        assert line.startswith("  ")
        assert line.isprintable()


FORGED = "[2026-01-01 00:00:00 +0000] [1] [CRITICAL] forged"
EVIL_LOG = f"/a?b c\r\n{FORGED}\n\x1b[31m\x9b31m\x85\xe2\x80\xa8\xe2\x80\xae\x7f"
EVIL_APP = """
import os
import signal

class Wicked:
    def __str__(self):
        raise SystemExit("no text for you")
    __repr__ = __format__ = __str__

def app(environ, start_response):
    action = environ["HTTP_X_ACTION"]
    if action == "raise":
        raise ValueError("because of " + environ["REQUEST_URI"])
    if action == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if action in ("replace", "replace and raise"):
        for name in environ:
            environ[name] = Wicked()
    if action == "replace and raise":
        raise ValueError
    start_response("200 OK", [("Content-Length", "9")])
    return [b"too short"[: 5 if action == "short" else 9]]
"""


@pytest.mark.parametrize("action", ["raise", "die", "short"])
@pytest.mark.parametrize("protocol", ["fastcgi", "scgi", "uwsgi"])
def test_no_request_forges_an_error_line(serve, protocol, action):
    """Over HTTP no target has a space, and no field a control character."""
    server = serve(EVIL_APP, "--accesslog", "access.log", protocols=[protocol], kinds=["tcp"])
    genuine = len(server.log.splitlines())
    evil = {"REQUEST_URI": EVIL_LOG, "REMOTE_ADDR": EVIL_LOG, "HTTP_X_ACTION": action}
    peer = server.connect(protocol)
    peer.start("/", more=evil, **({"close": True} if protocol == "fastcgi" else {}))
    peer.rest()
    (line,) = access_lines(server, 1)
    assert line.isascii()
    assert line.isprintable()
    assert ("aborted" in line) is (action == "die")
    server.stop()
    lines = server.log.split("\n")[genuine:-1]
    assert any("/a?b c\\r\\n[2026" in line for line in lines)
    for line in lines:
        assert line.startswith("  ") or ERROR_LINE.fullmatch(line), line
        assert line.isprintable()
        assert not line.startswith(FORGED)


@pytest.mark.parametrize("log_format", FORMATS, ids=["combined", "json", "own"])
def test_an_environ_that_cannot_be_printed_ends_nothing(serve, threads, log_format):
    options = ("--threads", threads, "--access-log-format", log_format)
    server = serve(EVIL_APP, "--accesslog", "access.log", *options, protocols=["http"])
    with server.connect("http") as peer:
        for action, status in (("replace", 200), ("replace and raise", 500), ("", 200)) * 3:
            assert peer.ask("/x", headers=[("X-Action", action)]).status == status
    assert len(access_lines(server, 9)) == 9
    server.wait_for_log("the application failed", 3)


def test_wsgi_errors_is_the_error_log(serve, protocol, tmp_path):
    log = tmp_path / "error.log"
    server = serve(APP, "--errorlog", str(log), protocols=[protocol], kinds=["unix"], wait=False)
    wait_for(lambda: log.exists() and "is ready" in log.read_text(), "the start")
    server.addresses[protocol, "unix"] = str(server.folder / f"{protocol}.sock")
    with server.connect(protocol, "unix") as peer:
        assert peer.ask("/errors").status == 200
    assert "one\ntwo\nthree \u20ac\n" in log.read_text()
    with server.connect(protocol, "unix") as peer:
        answer = peer.ask("/print")
    assert answer.errors == b""
    with server.connect(protocol, "unix") as peer:
        peer.ask("/raise")
    wait_for(lambda: "ValueError" in log.read_text(), "the traceback")
    assert log.read_text().index("printed\n") < log.read_text().index("ValueError")
    assert server.stop() == 0
    assert server.log == ""


def test_fastcgi_stderr(serve):
    server = serve(APP, "--fastcgi-stderr", protocols=["fastcgi", "http"], kinds=["tcp"])
    answer = server.ask("fastcgi", "/errors")
    assert (answer.status, answer.body, answer.whole) == (200, b"hello", True)
    assert answer.errors == b"one\ntwo\nthree \xe2\x82\xac\n"
    server.wait_for_log("three \u20ac")
    assert STDERR == 7
    assert server.ask("fastcgi", "/").errors == b""
    assert server.ask("http", "/errors").body == b"hello"


def test_loglevel(serve):
    server = serve(APP, "--loglevel", "error", protocols=["http"], kinds=["unix"], wait=False)
    path = server.folder / "http.sock"

    def answers() -> bool:
        from clients import Http

        try:
            with Http(str(path)) as peer:
                return peer.ask("/raise").status == 500
        except (FileNotFoundError, ConnectionRefusedError):
            return False

    wait_for(answers, "the server")
    server.wait_for_log("ValueError")
    assert "INFO" not in server.log


# What must not end a request


def _is_listening(path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(path)) == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_full_disk_ends_no_request(serve, threads):
    server = serve(
        APP, "--accesslog", "/dev/full", "--errorlog", "/dev/full", "--threads", threads,
        protocols=["http"], kinds=["unix"], wait=False,
    )  # fmt: skip
    path = server.folder / "http.sock"
    wait_for(lambda: _is_listening(path), "the socket")
    server.addresses["http", "unix"] = str(path)
    with server.connect("http", "unix") as peer:
        for target in ("/", "/errors", "/print", "/raise", "/") * 20:
            assert peer.ask(target).status == (500 if target == "/raise" else 200)
        bad = server.connect("http", "unix")
        bad.send(b"\x00\r\n\r\n")
        assert bad.rest().startswith(b"HTTP/1.1 400 ")
    assert server.stop() == 0


def test_vanished_folder_of_the_logs_ends_nothing(serve):
    import signal

    server = serve(
        "import os\nos.makedirs('other', exist_ok=True)\n" + APP,
        "--errorlog", "logs/error.log", "--accesslog", "logs/access.log",
        protocols=["http"], kinds=["unix"], files={}, wait=False,
    )  # fmt: skip
    # The folder is missing at the start: one line and 1.
    assert server.process.wait(20) == 1
    folder = server.folder.parent / f"{server.folder.name}-logs"
    folder.mkdir()
    try:
        server = serve(
            APP, "--errorlog", f"{folder}/error.log", "--accesslog", f"{folder}/access.log",
            protocols=["http"], kinds=["unix"], wait=False,
        )  # fmt: skip
        log = folder / "error.log"
        wait_for(lambda: log.exists() and "is ready" in log.read_text(), "the start")
        server.addresses["http", "unix"] = str(server.folder / "http.sock")
        shutil.rmtree(folder)
        with server.connect("http", "unix") as peer:
            assert peer.ask("/raise").status == 500
            server.kill(signal.SIGUSR1)
            server.kill(signal.SIGHUP)  # the manager writes as well
        for _ in range(20):  # a worker that retires ends its kept connections
            with server.connect("http", "unix") as peer:
                assert peer.ask("/errors").status == 200
        folder.mkdir()
        server.kill(signal.SIGUSR1)
        wait_for(lambda: log.exists() and (folder / "access.log").exists(), "new files")
        with server.connect("http", "unix") as peer:
            assert peer.ask("/errors").status == 200
        wait_for(lambda: "three" in log.read_text(), "a line in the new file")
        assert server.process.poll() is None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("to_file", [False, True], ids=["stderr", "file"])
def test_an_application_that_configures_logging_silences_nothing(serve, tmp_path, to_file):
    source = """
    import logging.config
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": True})
    """
    log = tmp_path / "error.log"
    options = ("--errorlog", str(log)) if to_file else ()
    server = serve(
        source.replace("\n    ", "\n") + APP, *options, protocols=["http"], kinds=["unix"],
        wait=not to_file,
    )  # fmt: skip

    def text() -> str:
        if not to_file:
            return server.log
        return log.read_text() if log.exists() else ""

    wait_for(lambda: "is ready" in text(), "the start")
    server.addresses["http", "unix"] = str(server.folder / "http.sock")
    with server.connect("http", "unix") as peer:
        assert peer.ask("/errors").status == 200
        wait_for(lambda: "three" in text(), "the application's line")
        assert peer.ask("/raise").status == 500
    wait_for(lambda: "ValueError" in text(), "the traceback")
