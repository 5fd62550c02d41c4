"""Vectors of request smuggling: requests as variables, over FastCGI, SCGI and uwsgi."""

from clients import PARAMS, STDIN, begin, encode_pairs, netstring, packet, record, records
from smuggling import CLOSED, KEPT, WAITS, Section, Vector, called

METHOD, URI = ("REQUEST_METHOD", "POST"), ("REQUEST_URI", "/v")
BASE = (METHOD, URI, ("SERVER_PROTOCOL", "HTTP/1.1"), ("HTTP_HOST", "a"))

Pairs = list[tuple[str, str]]


def request(given: Pairs) -> Pairs:
    """The variables of a request: those given, and what they do not name."""
    names = {name for name, _ in given}
    return given + [pair for pair in BASE if pair[0] not in names]


def shown(pairs: Pairs, body: bytes) -> bytes:
    text = ", ".join(f"{name}={value}" for name, value in pairs)
    return text.encode("latin-1") + (b"; " + body if body else b"")


def length(*values: str) -> Pairs:
    return [("CONTENT_LENGTH", value) for value in values]


# What all of them have

CLIENTS = "3875 4.1.18: a repeated field of the client is one list"
DROPPED = "Of the connection to the front end, or a danger to the application: dropped"
NO_NAME = "Another name: nothing is read into it"
FRONT_END = "9110 9.1, 3875 4.1.12: a method is a token"

#: Variables, and what the application has of them.
COMMON: list[tuple[Pairs, tuple[str, ...], str]] = [
    ([("HTTP_X_A", "1"), ("HTTP_X_A", "2")], ("HTTP_X_A=1,2",), CLIENTS),
    ([("HTTP_COOKIE", "a=1"), ("HTTP_COOKIE", "b=2")], ("HTTP_COOKIE=a=1; b=2",), CLIENTS),
    (
        [("HTTP_HOST", "b"), ("HTTP_HOST", "a")],
        (),
        "The administrator's own, later, value counts",
    ),
    ([("HTTP_TRANSFER_ENCODING", "chunked")], (), DROPPED),
    ([("HTTP_PROXY", "evil:80")], (), DROPPED),
    ([("HTTP_CONNECTION", "close"), ("HTTP_UPGRADE", "h2c")], (), DROPPED),
    ([("http_x_a", "1"), ("Content_Length", "9")], (), NO_NAME),
    (
        [("wsgi.input", "x"), ("wsgi.url_scheme", "x"), ("gateway.claims", "x")],
        (),
        "What WSGI and the gateway say of a request is not the front end's to say",
    ),
    (
        [("REQUEST_URI", "/v\r\nX: y")],
        ("target",),
        "As it came; the logs and the answer have their own rules",
    ),
]

METHODS = ("", "GE T", "POST\r\nX: y", "POST /x", "POST\xe9")


def target_of(pairs: Pairs) -> str:
    return dict(pairs).get("REQUEST_URI", "/v").encode("unicode_escape").decode()


def called_with(pairs: Pairs, seen: tuple[str, ...]) -> str:
    seen = tuple(item for item in seen if item != "target")
    return called("abc", *seen, target=target_of(pairs))


# FastCGI


def fastcgi(pairs: Pairs, *outcome: int | str, why: str, name: str = "") -> Vector:
    block = encode_pairs(request(pairs))
    data = begin(1) + records(PARAMS, 1, block) + records(STDIN, 1, b"abc")
    return Vector(name, data, outcome, why, shown(pairs, b""))


def fastcgi_raw(name: str, data: bytes, *outcome: int | str, why: str) -> Vector:
    return Vector(name, data, outcome, why, b"")


UNEQUAL = "FastCGI 6.2: STDIN and CONTENT_LENGTH disagree; this request ends, the others go on"
NO_LENGTH = "3875 4.1.2: digits; what comes then cannot be told"
HEAD = encode_pairs([*length("3"), *BASE])

FASTCGI = Section(
    "FastCGI",
    "Each is a request whose FCGI_STDIN has the three bytes `abc`, and behind it the probe as "
    "request 2 on the same connection. The end of a body is a record: CONTENT_LENGTH can only "
    "agree with it or not.",
    [
        fastcgi(length("3"), called("abc"), KEPT, why="FastCGI 6.2"),
        fastcgi([], called("abc"), KEPT, why="FastCGI 6.2: not announced; STDIN has an end"),
        fastcgi(length(""), called("abc"), KEPT, why="As not there: nginx, unbuffered"),
        fastcgi(length("-1"), called("abc"), KEPT, why="As not there: Caddy, chunked"),
        fastcgi(length("03"), called("abc"), KEPT, why="3875 4.1.2: digits"),
        *(fastcgi(length(text), 400, KEPT, why=UNEQUAL) for text in ("2", "5", "0")),
        *(
            fastcgi(length(text), 400, why=NO_LENGTH)
            for text in ("+3", "3 ", " 3", "0x3", "3,3", "3.0", "\xb3", "-2", "9" * 20)
        ),
        fastcgi(length("3", "3"), called("abc"), KEPT, why="The last one counts"),
        fastcgi(length("5", "3"), called("abc"), KEPT, why="The last one counts, and agrees"),
        fastcgi(length("3", "5"), 400, KEPT, why=UNEQUAL),
        fastcgi(
            [*length("3"), ("HTTP_CONTENT_LENGTH", "9")],
            called("abc"),
            KEPT,
            why=DROPPED,
        ),
        *(
            fastcgi([*length("3"), *pairs], called_with(pairs, seen), KEPT, why=why)
            for pairs, seen, why in COMMON
        ),
        *(fastcgi([("REQUEST_METHOD", text)], 400, KEPT, why=FRONT_END) for text in METHODS),
        fastcgi_raw(
            "the body in four records",
            begin(1)
            + records(PARAMS, 1, HEAD)
            + b"".join(record(STDIN, 1, byte) for byte in (b"a", b"b", b"c", b"")),
            called("abc"),
            KEPT,
            why="FastCGI 3.3: a stream",
        ),
        fastcgi_raw(
            "a pair that is longer than its block",
            begin(1) + records(PARAMS, 1, b"\x04\x7fNAMEx") + records(STDIN, 1, b"abc"),
            400,
            why="FastCGI 3.4",
        ),
        fastcgi_raw(
            "a pair that is longer than any block",
            begin(1) + records(PARAMS, 1, b"\xff\xff\xff\xff\xff\xff\xff\xffx"),
            400,
            why="FastCGI 3.4",
        ),
        fastcgi_raw(
            "STDIN before the end of PARAMS",
            begin(1) + record(PARAMS, 1, HEAD) + record(STDIN, 1, b"abc"),
            400,
            why="FastCGI 3.3, 5.2",
        ),
        fastcgi_raw(
            "no end of STDIN",
            begin(1) + records(PARAMS, 1, HEAD) + record(STDIN, 1, b"abc"),
            WAITS,
            why="FastCGI 3.3: not all has come; the probe is served meanwhile",
        ),
    ],
    "fastcgi",
)


# SCGI


def scgi(pairs: Pairs, body: bytes, *outcome: int | str, why: str, name: str = "") -> Vector:
    has_length = pairs[:1] and pairs[0][0] == "CONTENT_LENGTH"
    first, rest = (pairs[:1], pairs[1:]) if has_length else (length(str(len(body))), pairs)
    block = request([*first, ("SCGI", "1"), *rest])
    return Vector(name, netstring(block) + body, outcome, why, shown(pairs, body))


def scgi_raw(name: str, data: bytes, *outcome: int | str, why: str) -> Vector:
    return Vector(name, data, outcome, why, data if len(data) < 40 else b"")


STRING = netstring([*length("3"), ("SCGI", "1"), *BASE]) + b"abc"
STRICT = "SCGI, Request Format: a netstring, with nothing left to guess"
FIRST = "SCGI, Request Format: CONTENT_LENGTH is first, once, and digits"

SCGI = Section(
    "SCGI",
    "One request a connection. The body has as many bytes as CONTENT_LENGTH says; what the "
    "table has behind the semicolon follows the headers.",
    [
        scgi(length("3"), b"abc", called("abc"), CLOSED, why="SCGI, Request Format"),
        scgi(length("3"), b"abcde", called("abc"), CLOSED, why="The rest is nobody's: dropped"),
        scgi(length("5"), b"abc", WAITS, why="SCGI: not all has come"),
        scgi(length("03"), b"abc", called("abc"), CLOSED, why="3875 4.1.2: digits"),
        *(
            scgi(length(text), b"abc", 400, why=FIRST)
            for text in ("", "-1", "+3", "3 ", " 3", "0x3", "3,3", "\xb3", "9" * 20)
        ),
        *(scgi(length("3", text), b"abc", 400, why=FIRST) for text in ("3", "5")),
        scgi(
            [*length("3"), ("HTTP_CONTENT_LENGTH", "9")],
            b"abc",
            400,
            why="The front end lost a part of the body (nginx, scgi_request_buffering off)",
        ),
        scgi(
            [*length("3"), ("HTTP_CONTENT_LENGTH", "2")],
            b"abc",
            called("abc"),
            CLOSED,
            why=DROPPED,
        ),
        *(
            scgi(pairs, b"abc", called_with(pairs, seen), CLOSED, why=why)
            for pairs, seen, why in COMMON
        ),
        *(scgi([("REQUEST_METHOD", text)], b"", 400, why=FRONT_END) for text in METHODS),
        scgi([("", "x")], b"", 400, why="SCGI: a name is not empty"),
        scgi([("SCGI", "2")], b"", 400, why="SCGI: the version is 1"),
        *(
            scgi_raw(name, data, 400, why=STRICT)
            for name, data in (
                ("a length with a zero first", b"0" + STRING),
                ("a length with a sign", b"+" + STRING),
                ("a length with a space", b" " + STRING),
                ("a length that is too short", b"9" + STRING[STRING.index(b":") :]),
                ("no comma", STRING.replace(b",abc", b";abc")),
                ("a NUL too many", netstring([*length("3"), ("SCGI", "1\0"), *BASE]) + b"abc"),
                (
                    "CONTENT_LENGTH second",
                    netstring([("SCGI", "1"), *length("3"), *BASE]) + b"abc",
                ),
            )
        ),
    ],
    "scgi",
)


# uwsgi


def uwsgi(pairs: Pairs, body: bytes, *outcome: int | str, why: str, name: str = "") -> Vector:
    has_length = any(pair[0] == "CONTENT_LENGTH" for pair in pairs)
    first = [] if has_length else length(str(len(body)))
    return Vector(name, packet(request(first + pairs)) + body, outcome, why, shown(pairs, body))


def uwsgi_raw(name: str, data: bytes, *outcome: int | str, why: str) -> Vector:
    return Vector(name, data, outcome, why, b"")


PACKET = packet([*length("3"), *BASE]) + b"abc"
ONE_LENGTH = "Two lengths that disagree"
SIZES = "The sizes of names and values fill the block exactly"

UWSGI = Section(
    "uwsgi",
    "One request a connection, as with SCGI. The protocol has no specification but uWSGI's "
    "documentation; what a length may be is RFC 3875's word.",
    [
        uwsgi(length("3"), b"abc", called("abc"), CLOSED, why="3875 4.1.2"),
        uwsgi(length("3"), b"abcde", called("abc"), CLOSED, why="The rest is nobody's: dropped"),
        uwsgi(length("5"), b"abc", WAITS, why="Not all has come"),
        uwsgi(length(""), b"", called(), CLOSED, why="No body is announced"),
        *(
            uwsgi(length(text), b"abc", 400, why=NO_LENGTH)
            for text in ("-1", "+3", "3 ", " 3", "0x3", "3,3", "\xb3", "9" * 20)
        ),
        uwsgi(length("3", "3"), b"abc", called("abc"), CLOSED, why="The same twice"),
        uwsgi(length("3", "5"), b"abc", 400, why=ONE_LENGTH),
        uwsgi(length("3", ""), b"abc", 400, why=ONE_LENGTH),
        uwsgi(
            [*length(""), ("HTTP_TRANSFER_ENCODING", "chunked")],
            b"abc",
            411,
            why="A body that nobody can measure is not taken for none",
        ),
        uwsgi(
            [*length("3"), ("HTTP_CONTENT_LENGTH", "9")],
            b"abc",
            400,
            why="The front end lost a part of the body",
        ),
        *(
            uwsgi(pairs, b"abc", called_with(pairs, seen), CLOSED, why=why)
            for pairs, seen, why in COMMON
        ),
        *(uwsgi([("REQUEST_METHOD", text)], b"", 400, why=FRONT_END) for text in METHODS),
        uwsgi([("", "x")], b"", 400, why="A name is not empty"),
        uwsgi_raw("modifier1 is 9", b"\x09" + PACKET[1:], 400, why="Only 0, a WSGI request"),
        uwsgi_raw("modifier2 is 1", PACKET[:3] + b"\1" + PACKET[4:], 400, why="As above"),
        uwsgi_raw(
            "a block that is one byte too short",
            bytes((PACKET[0], PACKET[1] - 1)) + PACKET[2:],
            400,
            why=SIZES,
        ),
        uwsgi_raw(
            "a value that is longer than the block",
            b"\0\x0a\0\0\x01\0N\xff\xffvalue",
            400,
            why=SIZES,
        ),
    ],
    "uwsgi",
)

VARIABLES = [FASTCGI, SCGI, UWSGI]
