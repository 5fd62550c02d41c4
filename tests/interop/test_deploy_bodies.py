"""Uploads and answers of every kind pass unharmed behind every file of deploy/."""

import contextlib
import hashlib
import http.client
import json
import random
import socket
import time
from urllib.parse import quote

import pytest
from front_ends import HOST, receive
from matrix import looks_cut, streaming

#: Beyond what the gateway or a front end keeps in memory; test_front_end_table.py has 20 MB.
LARGE = random.Random(1).randbytes(6 << 20)
SHA = hashlib.sha256(LARGE).hexdigest()
DIGEST = f"{len(LARGE)} {SHA}".encode()

CODES = [200, 201, 202, 400, 401, 403, 404, 409, 418, 429, 500, 502, 503]
REDIRECTS = [200, 201, 301, 302, 303, 307, 308]


def test_upload(site):
    assert site.ask(app="digest", method="POST", body=LARGE).body == DIGEST


def test_chunked_upload(site):
    chunks = [LARGE[start : start + 300_000] for start in range(0, len(LARGE), 300_000)]
    answer = site.ask(app="digest", method="POST", chunks=chunks)
    if site.way.server == "apache" and site.way.protocol in ("scgi", "uwsgi"):
        # These need the length first and Apache does not wait for it.
        assert answer.status == 411
    else:
        assert answer.body == DIGEST


@pytest.mark.parametrize("size", [0, 1, 8191, 8192, 65535, 65536, 65537])
def test_upload_of_odd_size(site, size):
    answer = site.ask(app="digest", method="POST", body=LARGE[:size])
    assert answer.body == f"{size} {hashlib.sha256(LARGE[:size]).hexdigest()}".encode()


@pytest.mark.parametrize("size", [1_000_001, 20 << 20])
def test_upload_above_the_limit(servers, site, size):
    """The gateway refuses it, and the refusal reaches the client that is still sending."""
    site = servers.site(site.way, "--limit-request-body=1000000")
    assert site.ask(app="digest", method="POST", body=LARGE[:1_000_000]).status == 200
    assert site.ask(app="digest", method="POST", body=bytes(size)).status == 413


def test_upload_that_the_application_does_not_read(site):
    answer = site.ask(app="ignore", method="POST", body=LARGE[: 3 << 20])
    assert (answer.status, answer.body) == (200, b"did not look")


def test_expect_100_continue(site):
    with site.connect() as connection:
        head = f"POST {site.way.prefix}/ HTTP/1.1\r\nHost: {HOST}\r\nX-App: digest\r\n"
        head += "Content-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode())
        interim = b""
        while not interim.endswith(b"\r\n\r\n"):
            interim += connection.recv(1)
        assert interim.startswith(b"HTTP/1.1 100 ")
        connection.sendall(b"hello")
        assert receive(connection).body == b"5 " + hashlib.sha256(b"hello").hexdigest().encode()


@pytest.mark.parametrize("length", ["", "1"], ids=["unannounced", "announced"])
def test_download(site, length):
    answer = site.ask(f"/?size={len(LARGE)}&length={length}", app="download")
    assert len(answer.body) == len(LARGE)
    assert answer.one("X-SHA256") == hashlib.sha256(answer.body).hexdigest()


@pytest.mark.parametrize("length", ["", "1"], ids=["unannounced", "announced"])
@pytest.mark.parametrize(("size", "start"), [(5 << 20, 0), (5 << 20, 1_234_567), (1, 0), (0, 0)])
def test_file(site, size, start, length):
    answer = site.ask(f"/?size={size}&start={start}&length={length}", app="file")
    assert (answer.status, len(answer.body)) == (200, size - start)
    assert answer.one("X-SHA256") == hashlib.sha256(answer.body).hexdigest()


def test_head(site):
    answer = site.ask("/?size=100000&length=1", app="download", method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.all("Content-Length") in ([], ["100000"])


def test_answers_without_content_leave_the_connection_sound(site):
    """HEAD, 204 and 304 have no body: what follows on the connection must not be taken for one."""
    client = http.client.HTTPConnection("127.0.0.1")
    client.sock = site.connect()
    with contextlib.closing(client):
        for method, code in [
            ("HEAD", 200),
            ("GET", 204),
            ("GET", 304),
            ("HEAD", 404),
            ("GET", 200),
        ]:
            headers = {"Host": HOST, "X-App": "status"}
            client.request(method, f"{site.way.prefix}/?code={code}", headers=headers)
            response = client.getresponse()
            text = b"this is 200\n" if (method, code) == ("GET", 200) else b""
            assert (response.status, response.read()) == (code, text)
            assert response.getheader("X-Probe") == str(code)


def test_status(site):
    for code in CODES:
        answer = site.ask(f"/?code={code}", app="status")
        assert (answer.status, answer.body) == (code, f"this is {code}\n".encode())


@pytest.mark.parametrize("code", REDIRECTS)
def test_redirect(site, code):
    for location in ("/elsewhere?x=1", "http://other.example/%20"):
        answer = site.ask(f"/?code={code}&location={quote(location)}", app="status")
        assert (answer.status, answer.one("Location")) == (code, location)
        assert answer.body == f"this is {code}\n".encode()


def test_answer_headers(site):
    answer = site.ask("/?size=6000", app="headers")
    assert answer.body == b"look at the headers"
    assert answer.all("Set-Cookie") == [
        "a=1; Path=/; HttpOnly",
        "b=2; Expires=Thu, 01 Jan 2099 00:00:00 GMT",
    ]
    assert answer.one("X-Large") == "v" * 6000
    assert answer.one("X-Latin") == "caf\xe9"
    assert answer.one("Content-Type") == "text/plain; charset=utf-8"
    assert len(answer.all("Date")) == 1
    assert len(answer.all("Server")) == 1


def test_write_and_return(site):
    assert site.ask(app="written").body == b"by write, by return"


@pytest.mark.parametrize("request_", [{}, {"method": "POST", "body": b"12345"}, {"method": "HEAD"}])
def test_validator(site, request_):
    """wsgiref.validate has no complaint; its complaints would be a 500 and in the log."""
    answer = site.ask("/x", app="validated", **request_)
    assert answer.status == 200
    if request_.get("method") != "HEAD":
        size = len(request_.get("body", b""))
        assert answer.body.decode() == f"{site.way.prefix}|/x|{size}"


def test_one_connection_many_requests(site):
    """Kept connections, also to the gateway; a delayed acknowledgement would cost 40 ms each."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1")) as client:
        client.sock = site.connect()
        if client.sock.family == socket.AF_INET:
            client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began = time.monotonic()
        for number in range(100):
            body = b"x" * (number % 2 * 1000)
            client.request("POST", f"{site.way.prefix}/{number}", body, {"Host": HOST})
            environ = json.loads(client.getresponse().read())
            assert environ["PATH_INFO"] == f"/{number}"
            assert environ["body"] == body.decode()
        assert time.monotonic() - began < 3


def test_200_uploads_at_once(site):
    size = 50_000
    with contextlib.ExitStack() as stack:
        connections = [
            stack.enter_context(
                site.send(app="digest", method="POST", body=LARGE[number : number + size])
            )
            for number in range(200)
        ]
        for number, connection in enumerate(connections):
            digest = hashlib.sha256(LARGE[number : number + size]).hexdigest()
            assert receive(connection).body == f"{size} {digest}".encode()


def test_http_1_0(site):
    """Health checks speak it, and may leave out Host."""
    answer = site.ask_raw(f"GET {site.way.prefix}/x HTTP/1.0\r\n\r\n")
    assert (answer.status, answer.json()["PATH_INFO"]) == (200, "/x")


def test_200_requests_at_once(site):
    with contextlib.ExitStack() as stack:
        connections = [
            stack.enter_context(site.send(f"/{number}", headers=[("X-Number", number)]))
            for number in range(200)
        ]
        for number, connection in enumerate(connections):
            environ = receive(connection).json()
            assert environ["PATH_INFO"] == f"/{number}"
            assert environ["HTTP_X_NUMBER"] == str(number)


def test_pieces_arrive_one_by_one(site):
    """The application makes a piece only after the client has got the one before."""
    assert not streaming(site)


def test_failure_before_the_head(site):
    assert site.ask(app="broken").status == 500


@pytest.mark.parametrize("length", ["", "1"], ids=["unannounced", "announced"])
def test_failure_after_the_head_can_be_seen(site, length):
    """A cut answer must not look whole to the client."""
    way = site.way
    if way.protocol in ("scgi", "uwsgi") and way.transport == "unix" and not length:
        pytest.skip("the end of the connection ends the answer, and unix sockets have no reset")
    if (way.server, way.protocol) == ("apache", "uwsgi") and not length:
        pytest.skip("mod_proxy_uwsgi takes a reset for the end now and then")
    assert looks_cut(site, length)


def test_the_client_may_leave(site):
    """A client that goes away in the middle harms nobody after it."""
    with site.send("/?size=20000000", app="download") as connection:
        assert connection.recv(1000)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert site.ask("/after").json()["PATH_INFO"] == "/after"
