"""The access log: formats, and text that peers chose."""

import json
import re
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.accesslog import AccessLog, FormatError, compile_format
from gateway.scoreboard import LostRequest

ENVIRON = {
    "REMOTE_ADDR": "192.0.2.1",
    "REMOTE_USER": "ann",
    "REQUEST_METHOD": "GET",
    "REQUEST_URI": "/a?b=1",
    "PATH_INFO": "/a",
    "QUERY_STRING": "b=1",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "HTTP_REFERER": "http://x/",
    "HTTP_USER_AGENT": "curl/8",
    "HTTP_X_REQUEST_ID": "42",
}


def exchange(environ=ENVIRON, status="200 OK", sent=5, headers=()):
    """A request that has been answered, as far as the log looks at it."""
    return SimpleNamespace(
        request=SimpleNamespace(environ=environ, aborted=False),
        connection=SimpleNamespace(service=SimpleNamespace(protocol="http")),
        status=status,
        sent=sent,
        waited=0.25,
        headers=list(headers),
        identity=lambda: "7-1",
    )


def line(text, given=None, took=1.2345):
    return compile_format(text)(given or exchange(), 0.0, took)


def test_combined():
    shown = re.fullmatch(
        r"192\.0\.2\.1 - ann \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "
        r'"GET /a\?b=1 HTTP/1\.1" 200 5 "http://x/" "curl/8"',
        line("combined"),
    )
    assert shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%(m)s %(U)s %(q)s %(H)s", "GET /a b=1 HTTP/1.1"),
        ("%(T)s %(M)s %(D)s %(L)s", "1 1234 1234500 1.234500"),
        ("%(P)s %(i)s %(x)s %(Q)s", "http 7-1 False 250000"),
        ("%({x-request-id}i)s %({X-Request-ID}i)s", "42 42"),
        ("%({x-none}i)s", "-"),
        ("%({Server}o)s %({x-none}o)s", "me -"),
        ("%({PATH_INFO}e)s %({NONE}e)s", "/a -"),
        ("100%% %(s)s", "100% 200"),
        ("", ""),
        ("plain", "plain"),
    ],
)
def test_fields(text, expected):
    assert line(text, exchange(headers=[("SERVER", "me")])) == expected


@pytest.mark.parametrize("sent", [0, 7])
def test_bytes(sent):
    assert line("%(B)s %(b)s", exchange(sent=sent)) == f"{sent} {sent or '-'}"


def test_a_request_that_has_no_answer_counts_as_500():
    assert line("%(s)s", exchange(status=None)) == "500"


def test_a_request_that_was_given_up_before_its_answer_has_no_status():
    given = exchange(status=None)
    given.request.aborted = True
    assert line("%(s)s %(x)s", given) == "- True"


@pytest.mark.parametrize("text", ["%(zz)s", "%(h)", "%(h", "%({x}z)s", "a %(s)s %(", "%()s"])
def test_a_bad_format_is_refused(text):
    with pytest.raises(FormatError):
        compile_format(text)


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ('a"b', 'a\\"b'),
        ("a\\b", "a\\\\b"),
        ("a\nb", "a\\x0ab"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\x7f", "\\x7f"),
        ("\xe9", "\\xc3\\xa9"),
        ("", "-"),
    ],
)
def test_what_a_peer_sent_cannot_break_the_line(sent, shown):
    environ = ENVIRON | {"HTTP_USER_AGENT": sent}
    assert line('"%(a)s"', exchange(environ)) == f'"{shown}"'


LATIN = st.text(st.characters(max_codepoint=255), max_size=20)


@given(LATIN, LATIN, LATIN)
def test_any_request_is_one_line_that_can_be_read_back(uri, agent, header):
    environ = ENVIRON | {"REQUEST_URI": uri, "HTTP_USER_AGENT": agent}
    given = exchange(environ, headers=[("X-Echo", header)])
    combined = line("combined", given)
    assert combined.isascii()
    assert combined.isprintable()
    quoted = re.findall(r'"((?:[^"\\]|\\.)*)"', combined)
    assert len(quoted) == 3
    assert '"' not in re.sub(r'"((?:[^"\\]|\\.)*)"', "", combined)
    shown = line("json", given)
    assert shown.isascii()
    assert "\n" not in shown
    read = json.loads(shown)
    assert read["user_agent"] == agent
    assert read["request"] == f"GET {uri} HTTP/1.1"


def test_json_has_types():
    read = json.loads(line("json"))
    expected = {"status": 200, "bytes": 5, "duration_us": 1_234_500, "aborted": False, "id": "7-1"}
    assert {name: read[name] for name in expected} == expected
    assert json.loads(line("json", exchange({})))["remote_addr"] is None


def test_lines_are_appended_and_the_file_can_be_moved_away(tmp_path):
    path = tmp_path / "access.log"
    path.write_text("before\n")
    log = AccessLog(str(path), "%(s)s")
    log.log(exchange(), 0.1)
    path.rename(tmp_path / "old.log")
    log.log(exchange(status="404 Not Found"), 0.1)
    log.reopen()
    log.log(exchange(status="500 Error"), 0.1)
    assert (tmp_path / "old.log").read_text() == "before\n200\n404\n"
    assert path.read_text() == "500\n"


def test_a_full_disk_ends_no_request():
    log = AccessLog("/dev/full", "%(s)s")
    log.log(exchange(), 0.1)


LOST = LostRequest(
    serial=9,
    started=10.0,
    age=1.5,
    method="POST",
    uri='/a%20b?c="d"',
    server_protocol="HTTP/1.1",
    remote_addr="192.0.2.1",
    peer="192.0.2.1:99",
    protocol="scgi",
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%(i)s %(p)s %(m)s %(U)s %(q)s", '71-9 71 POST /a b c=\\"d\\" aborted'),
        ("%(h)s %(u)s %(s)s %(b)s %(B)s %(P)s %(M)s", "192.0.2.1 - - - - scgi 2500 aborted"),
        ("%(x)s %({Server}o)s %({x-a}i)s", "True - -"),
    ],
)
def test_a_request_that_its_worker_did_not_live_to_answer(tmp_path, text, expected):
    log = AccessLog(str(tmp_path / "log"), text)
    log.log_lost(LOST, 71, 12.5)
    assert (tmp_path / "log").read_text() == expected + "\n"


def test_a_lost_request_in_json(tmp_path):
    log = AccessLog(str(tmp_path / "log"), "json")
    log.log_lost(LOST, 71, 12.5)
    read = json.loads((tmp_path / "log").read_text())
    assert (read["status"], read["bytes"], read["aborted"]) == (None, None, True)
    assert (read["id"], read["pid"], read["duration_us"]) == ("71-9", 71, 2_500_000)
    assert read["request"] == 'POST /a%20b?c="d" HTTP/1.1'


@pytest.mark.parametrize(("text", "end"), [("%(s)s", "200 aborted"), ("%(s)s %(x)s", "200 True")])
def test_an_answer_that_was_cut(tmp_path, text, end):
    log = AccessLog(str(tmp_path / "log"), text)
    log.log_cut(exchange(), 1.0)
    assert (tmp_path / "log").read_text() == end + "\n"
