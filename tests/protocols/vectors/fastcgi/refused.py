"""FastCGI: limits, bodies that do not fit their length, and records that cannot be right."""

from codec_harness import Case
from fastcgi_words import (
    DATA,
    FILTER,
    PARAMS,
    STDIN,
    ask,
    begin,
    block,
    pair,
    params,
    rec,
    refusal,
    stdin,
    want,
)  # fmt: skip

GET = {"REQUEST_METHOD": "GET"}
POST = {"CONTENT_LENGTH": "3"}
TOO_MANY = refusal("431 Request Header Fields Too Large", "the FastCGI parameters are too large")
TOO_LARGE = refusal("413 Content Too Large", "the request body is too large")
NAMES = {-1: "below", 0: "at", 1: "above"}


def padded(size: int) -> dict[str, str]:
    """Parameters whose block has that many bytes."""
    return {"X": "x" * (size - len(pair("X", "")))}


def unequal(length: int, received: int) -> bytes:
    return refusal("400 Bad Request",
                   f"CONTENT_LENGTH is {length} but the body has {received} bytes")  # fmt: skip


def around(name, limits, ask_at, want_at, refused_with, partial=()):
    """Below, at and above a limit; above it only that request is refused."""
    for off in (-1, 0, 1):
        above = off > 0
        yield Case(
            f"{name}: {NAMES[off]}",
            ask_at(off) + ask(GET, number=2),
            [*(partial if above else [want_at(off)]), want(GET, 2)],
            outbox=refused_with if above else b"",
            limits=limits,
        )


CASES = [
    *around("parameters", {"request_header_total": 100},
            lambda off: ask(padded(100 + off)), lambda off: want(padded(100 + off)), TOO_MANY),
    *around("parameters in two records", {"request_header_total": 100},
            lambda off: begin() + rec(PARAMS, 1, block(padded(100 + off))[:50])
            + rec(PARAMS, 1, block(padded(100 + off))[50:]) + params({}) + stdin(),
            lambda off: want(padded(100 + off)), TOO_MANY),
    *around("announced body", {"request_body": 10},
            lambda off: ask({"CONTENT_LENGTH": str(10 + off)}, b"x" * (10 + off)),
            lambda off: want({"CONTENT_LENGTH": str(10 + off)}, body=b"x" * (10 + off)), TOO_LARGE),
    *around("body of unknown length", {"request_body": 10},
            lambda off: ask({}, b"x" * 6, b"x" * (4 + off)),
            lambda off: want({}, body=b"x" * (10 + off)), TOO_LARGE,
            partial=[want({}, body=b"x" * 6, whole=False, aborted=True)]),
    *around("data of a filter", {"request_body": 10},
            lambda off: ask(GET, role=FILTER) + stdin(b"x" * (10 + off), kind=DATA),
            lambda off: want(GET | {"FCGI_ROLE": "FILTER"}, data=b"x" * (10 + off)),
            refusal("413 Content Too Large", "the filter's data is too large"),
            partial=[want(GET | {"FCGI_ROLE": "FILTER"}, whole=False, aborted=True)]),
    Case("no limit on bodies", ask({"CONTENT_LENGTH": "20"}, b"x" * 20),
         [want({"CONTENT_LENGTH": "20"}, body=b"x" * 20)], limits={"request_body": 0}),
    Case("parameters too large without keep", begin(flags=0) + params(padded(101)) + ask(GET),
         outbox=TOO_MANY, closing=True, limits={"request_header_total": 100}),
    # STDIN and CONTENT_LENGTH (section 6.2)
    Case("body too short", ask(POST, b"ab") + ask(GET, number=2),
         [want(POST, body=b"ab", whole=False, aborted=True), want(GET, 2)], outbox=unequal(3, 2)),
    Case("no body", ask(POST) + ask(GET, number=2),
         [want(POST, whole=False, aborted=True), want(GET, 2)], outbox=unequal(3, 0)),
    Case("body too long", ask(POST, b"abcd") + ask(GET, number=2),
         [want(POST, body=b"abcd", whole=False, aborted=True), want(GET, 2)],
         outbox=unequal(3, 4)),
    Case("body where none is announced", ask({"CONTENT_LENGTH": "0"}, b"a"),
         [want({"CONTENT_LENGTH": "0"}, body=b"a", whole=False, aborted=True)],
         outbox=unequal(0, 1)),
    Case("body too short without keep", ask(POST, b"ab", flags=0),
         [want(POST, body=b"ab", whole=False, aborted=True, keep_alive=False)],
         outbox=unequal(3, 2), closing=True),
    # Faults of the whole connection
    *(
        Case(f"version {version}", ask(GET) + rec(STDIN, 1, version=version), [want(GET)],
             refused=f"FastCGI version {version} is not known")
        for version in (0, 2, 255)
    ),
    Case("HTTP", b"GET / HTTP/1.1\r\n\r\n", refused="version 71 is not known"),
    Case("version by its first byte", ask(GET) + b"\2", [want(GET)], refused="version 2"),
    Case("begin too short", rec(1, 1, b"\0\1\0"), refused="FCGI_BEGIN_REQUEST"),
    Case("begin too long", rec(1, 1, b"\0\1\0\0\0\0\0\0\0"), refused="FCGI_BEGIN_REQUEST"),
    Case("parameters after their end", begin() + params(GET) + rec(PARAMS, 1, b"\0\0"),
         [want(GET, whole=False)], refused="FCGI_PARAMS after its end"),
    Case("a second end of the parameters", begin() + params(GET) + rec(PARAMS, 1) + stdin(),
         [want(GET)]),
    Case("body after its end", ask(GET) + rec(STDIN, 1, b"x"), [want(GET)],
         refused="FCGI_STDIN after its end"),
    Case("a second end of the body", ask(GET) + rec(STDIN, 1), [want(GET)]),
    Case("body before the parameters", begin() + rec(STDIN, 1, b"x"),
         refused="before the end of FCGI_PARAMS"),
    Case("data of a responder", begin() + params(GET) + rec(DATA, 1, b"x"),
         [want(GET, whole=False)], refused="FCGI_DATA where none is due"),
    Case("data before the parameters", begin(role=FILTER) + rec(DATA, 1, b"x"),
         refused="before the end of FCGI_PARAMS"),
    *(
        Case(f"parameters: {name}", begin() + rec(PARAMS, 1, content) + rec(PARAMS, 1),
             refused="FCGI_PARAMS: a name-value pair is cut off")
        for name, content in [
            ("a length alone", b"\1"),
            ("half a long length", b"\x80\0"),
            ("half a long length of the value", b"\1\x80\0\0"),
            ("no value", b"\1\1A"),
            ("a cut value", b"\1\2AB"),
            ("second cut", block(GET) + b"\1\2AB"),
            ("a vast length", b"\xff\xff\xff\xff\1A"),
        ]
    ),
    *(
        Case(f"length {value[:9]!r} of {len(value)}", begin() + params({"CONTENT_LENGTH": value}),
             refused="CONTENT_LENGTH must be digits")
        for value in ("x", "-2", "+3", "3 ", "3.0", "1_0", "\xb2", "1" * 20, "1" * 5000)
    ),
    Case("data length of no digits",
         begin(role=FILTER) + params({"FCGI_DATA_LENGTH": "1_0"}),
         refused="FCGI_DATA_LENGTH must be digits"),
]  # fmt: skip
