"""Clients that others wrote, directly on the gateway's sockets: flup's and cgi-fcgi."""

import hashlib
import io
import random
import subprocess
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest
from flup.client.fcgi_app import FCGIApp
from flup.client.scgi_app import SCGIApp
from front_ends import TRANSPORTS, Answer, Site, Way, connect, program

DATA = random.Random(3).randbytes(2 << 20)
SHA = hashlib.sha256(DATA).hexdigest()


class OnPython3:
    """flup compares with types.StringTypes, which Python 3 does not have, to choose a family."""

    def _getConnection(self):
        return connect(self._connect)


class Flup:
    """A request through one of flup's clients, as a front end would make it."""

    def __init__(self, client):
        self.client = client

    def environ(self, target="/", method="GET", headers=(), body=b"", **changes):
        path, _, query = target.partition("?")
        environ = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_URI": quote(path, encoding="latin-1") + ("?" + query if query else ""),
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "8080",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": "example.org:8080",
        }
        environ |= {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers}
        if body:
            environ |= {"CONTENT_LENGTH": str(len(body)), "CONTENT_TYPE": "text/plain"}
        return environ | changes

    def ask(self, target="/", *, app="environ", headers=(), body=b"", **changes):
        environ = self.environ(target, headers=[("X-App", app), *headers], body=body, **changes)
        environ |= {"wsgi.input": io.BytesIO(body), "wsgi.errors": io.StringIO()}
        answers = []
        pieces = self.client(environ, lambda *head: answers.append(head))
        ((status, headers),) = answers
        decoded = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        return Answer(int(status[:3]), decoded, b"".join(pieces))


FlupFastCgi = type("FlupFastCgi", (OnPython3, FCGIApp), {})
FlupScgi = type("FlupScgi", (OnPython3, SCGIApp), {})
CLIENTS = {"fastcgi": FlupFastCgi, "scgi": FlupScgi}


@pytest.fixture(params=TRANSPORTS)
def addresses(request, servers):
    """The gateway's binds of one kind: protocol → address."""
    known = servers.gateway("root").addresses
    return {protocol: at for (protocol, kind), at in known.items() if kind == request.param}


@pytest.fixture(params=CLIENTS)
def flup(request, addresses):
    return Flup(CLIENTS[request.param](connect=addresses[request.param]))


@pytest.fixture
def cgi_fcgi(addresses):
    """A request by libfcgi's own client: its environment is the request."""
    binary, address = program("cgi-fcgi"), addresses["fastcgi"]
    where = address if isinstance(address, str) else "{}:{}".format(*address)

    def ask(environ, body=b""):
        command = [binary, "-bind", "-connect", where]
        done = subprocess.run(
            command, env=environ, input=body, stdout=subprocess.PIPE, check=True, timeout=30
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = [line.split(": ", 1) for line in head.decode("latin-1").split("\r\n")]
        status = next(value for name, value in fields if name == "Status")
        return Answer(int(status[:3]), [(name, value) for name, value in fields], content)

    return ask


def test_same_environ_over_three_protocols(addresses, cgi_fcgi):
    """What flup and cgi-fcgi send arrives as if the client had come over HTTP."""
    target = "/a b/\xe9?x=1&y=%26"
    headers = [("X-App", "environ"), ("X-Two", "one,two"), ("Cookie", "a=1; b=2")]
    seen = {
        protocol: Flup(CLIENTS[protocol](connect=addresses[protocol])).ask(
            target, headers=headers[1:], body=b"hello", method="POST"
        )
        for protocol in CLIENTS
    }
    variables = Flup(None).environ(target, headers=headers, body=b"hello", method="POST")
    latin = {name.encode(): value.encode("latin-1") for name, value in variables.items()}
    seen["cgi-fcgi"] = cgi_fcgi(latin, b"hello")
    direct = Site(Way("direct", "http", "", "root"), addresses["http"])
    seen["http"] = direct.ask(
        "/a%20b/%E9?x=1&y=%26",
        method="POST",
        headers=[*headers[1:], ("Content-Type", "text/plain")],
        body=b"hello",
    )
    environs = {name: answer.json() for name, answer in seen.items()}
    own = {
        # The server's name for itself, which CGI clients did not send or sent their own way.
        "SERVER_SOFTWARE",
        "GATEWAY_INTERFACE",
        # The address of the peer's own socket: flup's environ above made these up.
        "REMOTE_ADDR",
        "REMOTE_PORT",
        "SERVER_NAME",
        "SERVER_PORT",
        "SERVER_ADDR",
        # What names the protocol itself.
        "gateway.protocol",
    }
    for environ in environs.values():
        for name in own:
            environ.pop(name, None)
    assert environs["scgi"] == environs["fastcgi"] == environs["cgi-fcgi"] == environs["http"]
    assert environs["http"]["PATH_INFO"] == "/a b/\xe9"
    assert environs["http"]["body"] == "hello"


def test_flup_upload(flup):
    answer = flup.ask(app="digest", method="POST", body=DATA)
    assert answer.body == f"{len(DATA)} {SHA}".encode()


def test_flup_upload_that_the_application_does_not_read(flup):
    assert flup.ask(app="ignore", method="POST", body=DATA).body == b"did not look"


@pytest.mark.parametrize("length", ["", "1"], ids=["unannounced", "announced"])
def test_flup_download(flup, length):
    answer = flup.ask(f"/?size=3000000&length={length}", app="download")
    assert len(answer.body) == 3_000_000
    assert answer.one("x-sha256") == hashlib.sha256(answer.body).hexdigest()


def test_flup_file(flup):
    answer = flup.ask("/?size=3000001&start=1", app="file")
    assert len(answer.body) == 3_000_000
    assert answer.one("x-sha256") == hashlib.sha256(answer.body).hexdigest()


@pytest.mark.parametrize("code", [200, 204, 302, 304, 404, 500])
def test_flup_status(flup, code):
    answer = flup.ask(f"/?code={code}&location=/x", app="status")
    assert (answer.status, answer.one("location")) == (code, "/x")
    assert answer.body == (b"" if code in {204, 304} else f"this is {code}\n".encode())


def test_flup_head(flup):
    answer = flup.ask("/?size=1000&length=1", app="download", method="HEAD")
    assert (answer.body, answer.one("content-length")) == (b"", "1000")


def test_flup_headers_and_cookies(flup):
    answer = flup.ask("/?size=100000", app="headers")
    assert len(answer.all("set-cookie")) == 2
    assert answer.one("x-large") == "v" * 100_000
    assert answer.one("x-latin") == "caf\xe9"


def test_flup_validator(flup):
    assert flup.ask("/x", app="validated", method="POST", body=b"12345").body == b"|/x|5"


def test_flup_failure(flup):
    assert flup.ask(app="broken").status == 500


def test_flup_at_a_split_of_its_own(flup):
    """Without --script-name the split of a front end would be trusted; here / was asked for."""
    environ = flup.ask("/x", SCRIPT_NAME="/app", REQUEST_URI="/app/x").json()
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("", "/app/x")


def test_flup_many_at_once(flup):
    with ThreadPoolExecutor(50) as pool:
        answers = pool.map(lambda number: flup.ask(f"/{number}").json()["PATH_INFO"], range(200))
        assert list(answers) == [f"/{number}" for number in range(200)]


@pytest.mark.parametrize("framework", ["flask", "django"])
def test_flup_framework(flup, framework):
    known = flup.ask("/?q=1", app=framework).json()
    assert known["url"] == "http://example.org:8080/?q=1"
    form = flup.ask(
        "/form",
        app=framework,
        method="POST",
        body=b"a=1&b=2&a=3",
        CONTENT_TYPE="application/x-www-form-urlencoded",
    )
    assert form.json() == {"a": ["1", "3"], "b": ["2"]}


def test_cgi_fcgi_with_little(cgi_fcgi):
    """The least that a front end may send."""
    environ = cgi_fcgi({"REQUEST_METHOD": "GET"}).json()
    assert environ["SCRIPT_NAME"] == ""
    assert environ["PATH_INFO"] in {"", "/"}
    assert environ["QUERY_STRING"] == ""
    assert {"SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL"} <= environ.keys()


def test_cgi_fcgi_upload(cgi_fcgi):
    environ = {
        "REQUEST_METHOD": "POST",
        "REQUEST_URI": "/",
        "CONTENT_LENGTH": str(len(DATA)),
        "HTTP_X_APP": "digest",
    }
    assert cgi_fcgi(environ, DATA).body == f"{len(DATA)} {SHA}".encode()


@pytest.mark.parametrize("app", ["download", "file"])
def test_cgi_fcgi_download(cgi_fcgi, app):
    environ = {
        "REQUEST_METHOD": "GET",
        "REQUEST_URI": "/",
        "QUERY_STRING": "size=3000000",
        "HTTP_X_APP": app,
    }
    answer = cgi_fcgi(environ)
    assert len(answer.body) == 3_000_000
    assert answer.one("X-SHA256") == hashlib.sha256(answer.body).hexdigest()
