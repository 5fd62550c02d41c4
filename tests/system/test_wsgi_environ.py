"""wsgi.input and the other variables of the environ (PEP 3333)."""

import ast
import hashlib
import json

import pytest
from clients import SINGLE
from conftest import PROTOCOLS, numbered
from rules_app import WAYS_TO_READ
from test_wsgi_heads import follow

FRAMINGS = [
    (protocol, framing)
    for protocol in PROTOCOLS
    for framing in ("length", "unknown length")
    if not (protocol in SINGLE and framing == "unknown length")
]


def environ_of(server, protocol, target="/environ", **request):
    answer = server.ask(protocol, target, **request)
    assert answer.status == 200
    shown = json.loads(answer.body)
    known = {}
    for name, text in shown.items():
        try:
            known[name] = ast.literal_eval(text)
        except (SyntaxError, ValueError):
            known[name] = text
    return known


@pytest.mark.parametrize("size", [0, 1, 65_536, 3_000_000])
@pytest.mark.parametrize(("protocol", "framing"), FRAMINGS)
def test_input_by_every_method_and_a_true_end_of_file(rules, protocol, framing, size):
    body = numbered(size)
    options = {"chunked": True} if framing != "length" else {}
    peer = rules.connect(protocol)
    for way in WAYS_TO_READ:
        if protocol in SINGLE:
            peer = rules.connect(protocol)
        answer = peer.ask(f"/reads?{way}", method="POST", body=body, **options)
        assert answer.status == 200, way
        report = json.loads(answer.body)
        assert (report["size"], report["after"]) == (size, ""), way
        assert report["digest"] == hashlib.sha256(body).hexdigest(), way
        assert report["terminated"] is True
        assert int(report["length"] or 0) == size


@pytest.mark.parametrize(("protocol", "framing"), FRAMINGS)
def test_a_body_that_nobody_reads_spoils_nothing(rules, protocol, framing):
    options = {"chunked": True} if framing != "length" else {}
    peer = rules.connect(protocol)
    for size in (1, 3_000_000):
        if protocol in SINGLE:
            peer = rules.connect(protocol)
        answer = peer.ask("/pid", method="POST", body=numbered(size), **options)
        assert answer.status == 200
    follow(rules, peer)


def test_a_request_without_a_body_has_an_empty_input(rules, protocol):
    answer = rules.ask(protocol, "/reads?by_read", method="GET")
    assert json.loads(answer.body)["size"] == 0


def test_every_cgi_variable_is_a_native_string_of_latin_1(rules, protocol):
    headers = [("X-Latin", "\xe9"), ("Cookie", "a=1"), ("Content-Type", "text/x")]
    environ = environ_of(
        rules, protocol, "/%65nviron?q=%C3%A9&x=y", method="POST", headers=headers, body=b"12"
    )
    expected = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/environ",
        "QUERY_STRING": "q=%C3%A9&x=y",
        "CONTENT_TYPE": "text/x",
        "CONTENT_LENGTH": "2",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost",
        "HTTP_X_LATIN": "\xe9",
        "HTTP_COOKIE": "a=1",
        "REQUEST_URI": "/%65nviron?q=%C3%A9&x=y",
        "RAW_URI": "/%65nviron?q=%C3%A9&x=y",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    assert {name: environ[name] for name in expected} == expected
    assert environ["SERVER_NAME"]
    assert environ["SERVER_PORT"].isdigit()
    assert not [name for name in environ if name.isupper() and type(environ[name]) is not str]
    assert "HTTP_CONTENT_LENGTH" not in environ
    assert "HTTP_CONTENT_TYPE" not in environ


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("threads", ["1", "4"])
def test_multithread_and_multiprocess_are_honest(serve, workers, threads):
    app = """
        def app(environ, start_response):
            start_response("200 OK", [])
            return [b"%d %d" % (environ["wsgi.multithread"], environ["wsgi.multiprocess"])]
    """
    server = serve(app, "--workers", workers, "--threads", threads)
    for protocol in PROTOCOLS:
        assert server.ask(protocol).body == b"%d %d" % (threads != "1", workers != "1")


def test_wsgiref_finds_nothing_to_complain_about(serve, protocol, threads):
    server = serve(
        """
        from wsgiref.validate import validator

        def plain(environ, start_response):
            environ["wsgi.errors"].write("said\\n")
            environ["wsgi.errors"].writelines(["more\\n"])
            environ["wsgi.errors"].flush()
            body = environ["wsgi.input"].read(10) + environ["wsgi.input"].readline()
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"read ", body]

        app = validator(plain)
        """,
        "--threads",
        threads,
    )
    for method, body in (("GET", b""), ("POST", b"x" * 20), ("HEAD", b"")):
        answer = server.ask(protocol, "/a/b?c", method=method, body=body)
        assert (answer.status, answer.whole) == (200, True), server.log
        assert answer.body == (b"" if method == "HEAD" else b"read " + body)
    server.wait_for_log("said\nmore\n", 3)
    assert "Traceback" not in server.log
