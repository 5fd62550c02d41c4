"""An application cannot make two answers of one, whatever it says and however it says it."""

import json
from urllib.parse import quote

import pytest
from clients import SINGLE

#: Does what the query asks for, in JSON: a head, and a body in one of the ways that WSGI has.
APP = r"""
import json
import sys
from io import BytesIO
from urllib.parse import unquote

class Liar(str):
    '''Compares as another text than what it says.'''

    def __eq__(self, other):
        return other == "200 OK"

    def __hash__(self):
        return hash("200 OK")

def app(environ, start_response):
    asked = json.loads(unquote(environ["QUERY_STRING"]) or "{}")
    status = asked.get("status", "200 OK")
    headers = [tuple(field) for field in asked.get("headers", ())]
    pieces = [piece.encode("latin-1") for piece in asked.get("pieces", ())]
    if "liar" in asked:
        start_response("200 OK", [])
        try:
            raise ValueError
        except ValueError:
            start_response(Liar(asked["liar"]), headers, sys.exc_info())
        return pieces
    if "late" in asked:
        write = start_response("200 OK", [("X-First", "1")])
        if asked["late"]:
            write(b"begun ")
        try:
            raise KeyError("meanwhile")
        except KeyError:
            try:
                start_response(status, headers, sys.exc_info())
            except (KeyError, ValueError, TypeError):
                pass
        return pieces
    write = start_response(status, headers)
    way = asked.get("way", "list")
    if way == "write":
        for piece in pieces:
            write(piece)
        return []
    if way == "generator":
        return (piece for piece in pieces)
    if way == "file":
        return environ["wsgi.file_wrapper"](BytesIO(b"".join(pieces)))
    return pieces
"""

TOKEN = set("!#$%&'*+-.^_`|~0123456789") | {chr(code) for code in range(128) if chr(code).isalpha()}
VALUE = {"\t"} | {chr(code) for code in (*range(0x20, 0x7F), *range(0x80, 0x100))}
CHARACTERS = [chr(code) for code in range(0x100)] + ["\u0100", "\u2028", "\ud800"]

#: What must never be seen where a head is.
FORGED = "HTTP/1.1 200 OK\r\nX-Forged: 1\r\nContent-Length: 6\r\n\r\nforged"


@pytest.fixture(scope="module")
def server(serve_module, threads):
    return serve_module(APP, "--threads", threads, kinds=["tcp"])


def asked(**what):
    return "/?" + quote(json.dumps(what))


def follow(server, peer):
    """The next answer is the next request's, on the same connection where there is one."""
    if peer.protocol in SINGLE:
        peer.close()
        peer = server.connect(peer.protocol)
    answer = peer.ask(asked(headers=[("X-Next", "1")], pieces=["next"]))
    assert (answer.status, answer.get("x-next"), answer.body) == (200, "1", b"next")


# Heads


@pytest.mark.parametrize(
    ("part", "good"),
    [("value", VALUE), ("name", TOKEN), ("status", VALUE)],
    ids=["value", "name", "status"],
)
def test_every_character(server, protocol, part, good):
    """It arrives as it is, or there is a 500 with nothing of it."""
    with server.connect(protocol) as peer:
        for char in CHARACTERS:
            heads = {
                "value": {"headers": [("X-A", f"a{char}X-Forged: 1")]},
                "name": {"headers": [(f"X-A{char}X-Forged", "1")]},
                "status": {"status": f"200 O{char}X-Forged: 1"},
            }
            request = peer if protocol not in SINGLE else server.connect(protocol)
            answer = request.ask(asked(pieces=["body"], **heads[part]))
            if char in good:
                assert (answer.status, answer.body) == (200, b"body"), repr(char)
                line = f"a{char}X-Forged: 1" if part == "value" else f"{char}X-Forged"
                assert line.encode("latin-1") in answer.head
                assert answer.head.count(b"X-Forged") == 1
                assert answer.get("x-forged") is None
            else:
                assert (answer.status, answer.body) == (500, b"Internal Server Error\n"), repr(char)
                assert b"X-Forged" not in answer.head


EVIL = {
    "value": {"headers": [("X-A", "a\r\nX-Forged: 1")]},
    "name": {"headers": [("X-A\r\nX-Forged", "1")]},
    "status": {"status": "500 Bad\r\nX-Forged: 1"},
    "framing": {"headers": [("Transfer-Encoding", "chunked")]},
    "length": {"headers": [("Content-Length", "1\r\nX-Forged: 1")]},
}


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("case", EVIL)
def test_what_is_refused_leaves_the_head_before_it(server, protocol, case, begun):
    """start_response with exc_info raises, the application goes on regardless."""
    with server.connect(protocol) as peer:
        answer = peer.ask(asked(late=begun, pieces=["body"], **EVIL[case]))
        body = b"begun body" if begun else b"body"
        assert (answer.status, answer.get("x-first"), answer.body) == (200, "1", body)
        assert b"X-Forged" not in answer.head
        assert answer.whole
        follow(server, peer)


def test_a_status_that_compares_as_another_is_judged_by_what_it_says(server, protocol):
    with server.connect(protocol) as peer:
        answer = peer.ask(asked(liar="299 Odd", pieces=["body"]))
        assert (answer.status, answer.body) == (299, b"body")
    with server.connect(protocol) as peer:
        answer = peer.ask(asked(liar="200 OK\r\nX-Forged: 1", pieces=["body"]))
        assert (answer.status, answer.body) == (500, b"Internal Server Error\n")
        assert b"X-Forged" not in answer.head
        follow(server, peer)


# Bodies

STATUSES = ("200 OK", "204 No Content", "205 Reset Content", "304 Not Modified", "404 Not Found")
WAYS = ("list", "generator", "write", "file")
#: Content-Length that is declared, by the length of the body.
LENGTHS = {
    "no length": lambda _: None,
    "its length": lambda size: size,
    "less": lambda size: size - len(FORGED),
    "more": lambda size: size + 100,
    "none": lambda _: 0,
}


@pytest.mark.parametrize("declared", LENGTHS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("status", STATUSES)
def test_an_answer_ends_where_its_head_says(server, protocol, status, way, declared):
    """What is left over is dropped, or the connection ends: it is never the next answer."""
    pieces = ["content", FORGED]
    size = sum(map(len, pieces))
    length = LENGTHS[declared](size)
    headers = [] if length is None else [("Content-Length", str(length))]
    for method in ("GET", "HEAD"):
        with server.connect(protocol) as peer:
            answer = peer.ask(
                asked(status=status, headers=headers, way=way, pieces=pieces), method=method
            )
            assert answer.status == int(status[:3])
            assert answer.get("x-forged") is None
            if method == "HEAD" or answer.status in (204, 205, 304):
                # A body would be taken for the next answer.
                assert answer.body == b""
                assert answer.whole
                follow(server, peer)
            elif length is None or length == size:
                assert answer.body == "".join(pieces).encode()
                assert answer.whole
                follow(server, peer)
            elif length < size:
                body = "".join(pieces).encode()[:length]
                if way == "write":  # it raises, and the application fails: the rest is a reset
                    assert body.startswith(answer.body)
                    continue
                assert answer.body == body
                assert answer.whole
                if way == "file":  # PEP 3333: no more of it than that is sent
                    follow(server, peer)
                else:
                    assert protocol == "fastcgi" or peer.rest() == b""
            else:
                assert answer.fault


def test_pipelined_answers_keep_in_step(server):
    """Over HTTP nothing but the framing tells them apart."""
    wanted = []
    data = b""
    with server.connect("http") as peer:
        for number, status in enumerate(STATUSES * 4):
            for method in ("GET", "HEAD"):
                headers = [("X-Number", f"{number}{method}")]
                target = asked(status=status, headers=headers, pieces=["content", FORGED])
                data += peer.encode(target, method=method)
                wanted.append((int(status[:3]), f"{number}{method}", method))
        peer.send(data)
        for status, number, method in wanted:
            answer = peer.answer(method)
            assert (answer.status, answer.get("x-number")) == (status, number)
            assert answer.whole
        follow(server, peer)
