"""FastCGI: requests, streams, management records and aborts (FastCGI 1.0, sections 3 to 6)."""

from itertools import pairwise

from codec_harness import Case
from fastcgi_words import (
    ABORT,
    AUTHORIZER,
    BEGIN,
    CANT_MPX,
    DATA,
    END,
    FILTER,
    GET_VALUES,
    OVERLOADED,
    PARAMS,
    RESULT,
    STDERR,
    STDIN,
    STDOUT,
    UNKNOWN,
    UNKNOWN_ROLE,
    answered,
    ask,
    begin,
    block,
    end,
    pair,
    params,
    rec,
    refusal,
    stdin,
    want,
)  # fmt: skip

GET = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "/a b"}
HEAD = {"REQUEST_METHOD": "HEAD"}
POST = {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": "3"}
BIG = {"REQUEST_METHOD": "GET", "A" * 127: "a" * 127, "B" * 128: "b" * 128, "C": "c" * 70_000}
FILE = {"REQUEST_METHOD": "GET", "FCGI_DATA_LENGTH": "4", "FCGI_DATA_LAST_MOD": "0"}
THREE = {"REQUEST_METHOD": "GET", "N": "x" * 200, "M": ""}


def cut_params(content: bytes, *at: int, number: int = 1) -> bytes:
    """The PARAMS stream in records that end at those places."""
    edges = [0, *at, len(content)]
    pieces = [content[a:b] for a, b in pairwise(edges)]
    return b"".join(rec(PARAMS, number, piece) for piece in pieces) + rec(PARAMS, number)


def unknown(kind: int) -> bytes:
    return answered(UNKNOWN, 0, bytes([kind, 0, 0, 0, 0, 0, 0, 0]))


def result(**values: str) -> bytes:
    return answered(RESULT, 0, block(values))


def values(*names: str, pad: int = 0) -> bytes:
    return rec(GET_VALUES, 0, block((name, "") for name in names), pad)


#: name, pairs, environ (front-ends rule 0 and 10)
RULES = [
    (
        "client headers joined",
        [("HTTP_X", "1"), ("A", "a"), ("HTTP_X", "2"), ("HTTP_X", "")],
        {"HTTP_X": "1,2,", "A": "a"},
    ),
    ("cookies", [("HTTP_COOKIE", "a=1"), ("HTTP_COOKIE", "b=2")], {"HTTP_COOKIE": "a=1; b=2"}),
    ("last wins", [("SCRIPT_NAME", "/x"), ("SCRIPT_NAME", "")], {"SCRIPT_NAME": ""}),
    ("Host: last wins", [("HTTP_HOST", "a"), ("HTTP_HOST", "b")], {"HTTP_HOST": "b"}),
    (
        "Authorization: last wins",
        [("HTTP_AUTHORIZATION", "a"), ("HTTP_AUTHORIZATION", "b")],
        {"HTTP_AUTHORIZATION": "b"},
    ),
    (
        "latin-1",
        [("HTTP_X", "caf\xe9"), ("PATH_INFO", "/\xc3\xa9")],
        {"HTTP_X": "caf\xe9", "PATH_INFO": "/\xc3\xa9"},
    ),
    (
        "values stay as they are",
        [("HTTP_X", " a \t"), ("REQUEST_URI", "/%41?%")],
        {"HTTP_X": " a \t", "REQUEST_URI": "/%41?%"},
    ),
    (
        "dropped",
        [
            (f"HTTP_{name}", "1")
            for name in (
                "PROXY CONTENT_LENGTH CONTENT_TYPE TRANSFER_ENCODING CONNECTION KEEP_ALIVE "
                "TRAILER TE UPGRADE EXPECT PROXY_CONNECTION"
            ).split()
        ],
        {},
    ),
    (
        "not dropped",
        [("HTTP_PROXY_X", "1"), ("HTTP_HTTPS", "on")],
        {"HTTP_PROXY_X": "1", "HTTP_HTTPS": "on"},
    ),
    ("no parameters", [], {}),
    ("empty length", [("CONTENT_LENGTH", "")], {"CONTENT_LENGTH": ""}),
    ("length -1", [("CONTENT_LENGTH", "-1")], {"CONTENT_LENGTH": "-1"}),
]

CASES = [
    Case("get", ask(GET), [want(GET)]),
    Case("get without keep", ask(GET, flags=0), [want(GET, keep_alive=False)]),
    Case("other flags are ignored", ask(GET, flags=0xFE), [want(GET, keep_alive=False)]),
    Case("head", ask(HEAD), [want(HEAD, head_only=True)]),
    Case("post", ask(POST, b"abc"), [want(POST, body=b"abc")]),
    Case("post in pieces", ask(POST, b"a", b"bc"), [want(POST, body=b"abc")]),
    Case("post of unknown length", ask({"CONTENT_LENGTH": ""}, b"a", b"bc"),
         [want({"CONTENT_LENGTH": ""}, body=b"abc")]),
    Case("post of length -1", ask({"CONTENT_LENGTH": "-1"}, b"x" * 3000),
         [want({"CONTENT_LENGTH": "-1"}, body=b"x" * 3000)]),
    Case("largest record", ask({}, b"x" * 65535), [want({}, body=b"x" * 65535)]),
    Case("long lengths and values", begin() + cut_params(block(BIG), 60_000) + stdin(),
         [want(BIG)], limits={"request_header_total": 1 << 20}),
    Case("short values in long form", begin() + rec(PARAMS, 1, pair("A", "b", long=True))
         + params({}) + stdin(), [want({"A": "b"})]),
    Case("padding", begin() + rec(PARAMS, 1, block(GET), 255) + rec(PARAMS, 1, b"", 7)
         + rec(STDIN, 1, b"a", 7) + rec(STDIN, 1, b"", 8), [want(GET, body=b"a")]),
    Case("kept connection", [ask(GET), ask(POST, b"abc"), ask(GET, number=65535)],
         [want(GET), want(POST, body=b"abc"), want(GET, 65535)]),
    Case("ids of HAProxy", ask(GET, number=1) + ask(POST, b"abc", number=3) + ask(GET, number=5),
         [want(GET, 1), want(POST, 3, body=b"abc"), want(GET, 5)]),
    *(
        Case(f"parameters cut at {at}", begin() + cut_params(block(THREE), at) + stdin(),
             [want(THREE)])
        for at in (1, 2, 3, 10, 19, 20, 22, 23, 24, 25, 26, 100, 225, 226, 227, 228)
    ),
    Case("parameters in records of a byte",
         begin() + cut_params(block(THREE), *range(1, len(block(THREE)))) + stdin(),
         [want(THREE)]),
    *(Case(f"variables: {name}", ask(pairs), [want(environ)]) for name, pairs, environ in RULES),
    # Roles (section 6)
    Case("authorizer", begin(role=AUTHORIZER) + params(GET),
         [want(GET | {"FCGI_ROLE": "AUTHORIZER"}, length=0)]),
    Case("authorizer with an empty body", ask(GET, role=AUTHORIZER),
         [want(GET | {"FCGI_ROLE": "AUTHORIZER"}, length=0)]),
    Case("filter", ask(FILE, b"ab", role=FILTER) + stdin(b"da", b"ta", kind=DATA),
         [want(FILE | {"FCGI_ROLE": "FILTER"}, body=b"ab", data=b"data")]),
    Case("filter without data length", ask(GET, role=FILTER) + stdin(b"data", kind=DATA),
         [want(GET | {"FCGI_ROLE": "FILTER"}, data=b"data")]),
    Case("filter, data too short", ask(FILE, role=FILTER) + stdin(b"dat", kind=DATA),
         [want(FILE | {"FCGI_ROLE": "FILTER"}, data=b"dat", whole=False, aborted=True)],
         outbox=refusal("400 Bad Request", "FCGI_DATA_LENGTH is 4, not 3")),
    Case("unknown role", begin(role=9) + params(GET) + stdin(), outbox=end(1, UNKNOWN_ROLE)),
    Case("unknown role without keep", begin(role=0, flags=0) + params(GET) + stdin(),
         outbox=end(1, UNKNOWN_ROLE), closing=True),
    Case("role switched off", ask(GET, role=FILTER) + ask(GET, number=2), [want(GET, 2)],
         outbox=end(1, UNKNOWN_ROLE), limits={"roles": ["responder"]}),
    # Management records (section 4)
    Case("values", values("FCGI_MAX_CONNS", "FCGI_MAX_REQS", "FCGI_MPXS_CONNS", pad=3) + ask(GET),
         [want(GET)], outbox=result(FCGI_MAX_CONNS="7", FCGI_MAX_REQS="28", FCGI_MPXS_CONNS="1"),
         limits={"connections": 7, "multiplex": 4}),
    Case("values, one at a time", values("FCGI_MPXS_CONNS"), outbox=result(FCGI_MPXS_CONNS="0"),
         limits={"multiplex": 1}),
    Case("values, unknown", values("NONSENSE", "FCGI_MAX_CONNS", ""),
         outbox=result(FCGI_MAX_CONNS="1000")),
    Case("values, none", values(), outbox=result()),
    Case("values, cut off", rec(GET_VALUES, 0, b"\x05A"), refused="FCGI_GET_VALUES"),
    Case("values amid a request", begin() + values("FCGI_MAX_CONNS") + params(GET) + stdin(),
         [want(GET)], outbox=result(FCGI_MAX_CONNS="1000")),
    *(
        Case(f"unknown type {kind}", rec(kind, 0, b"x" * 9, 3) + ask(GET), [want(GET)],
             outbox=unknown(kind))
        for kind in (0, 10, 11, 12, 255)
    ),
    Case("unknown type of a request", begin() + rec(42, 1) + params(GET) + stdin(), [want(GET)],
         outbox=unknown(42)),
    *(
        Case(f"type {kind} without an id", rec(kind, 0, b"x" * 8), refused="has no request id")
        for kind in (BEGIN, ABORT, END, PARAMS, STDIN, STDOUT, STDERR, DATA)
    ),
    *(
        Case(f"type {kind} from the wrong side", ask(GET) + rec(kind, 1), [want(GET)],
             refused="comes only from a server")
        for kind in (0, END, STDOUT, STDERR)
    ),
    # Several requests at once
    Case("multiplexed", begin(1) + begin(2) + params(GET, 2) + params(POST, 1)
         + rec(STDIN, 1, b"a") + stdin(number=2) + rec(STDIN, 1, b"bc") + rec(STDIN, 1),
         [want(GET, 2), want(POST, 1, body=b"abc")]),
    Case("multiplexed up to the cap",
         begin(1) + begin(2) + begin(3) + b"".join(params(GET, n) + stdin(number=n)
                                                   for n in (3, 2, 1)),
         [want(GET, 2), want(GET, 1)], outbox=end(3, OVERLOADED), limits={"multiplex": 2}),
    Case("whole ones count until they are answered",
         ask(GET, number=1) + ask(GET, number=2) + ask(GET, number=3, flags=0),
         [want(GET, 1), want(GET, 2)], outbox=end(3, OVERLOADED), limits={"multiplex": 2}),
    Case("room again once answered", [ask(GET, number=n) for n in (1, 2, 3, 4)],
         [want(GET, n) for n in (1, 2, 3, 4)], limits={"multiplex": 1}),
    Case("one at a time", begin(1) + begin(2) + params(GET, 1) + stdin(number=1), [want(GET)],
         outbox=end(2, CANT_MPX), limits={"multiplex": 1}),
    Case("id begun twice", begin() + begin(), refused="request 1 was begun twice",
         faults=1),
    Case("id begun twice in the body", begin() + params(POST) + begin(),
         [want(POST, whole=False)], refused="request 1 was begun twice"),
    Case("id begun again before its answer", ask(GET) + ask(GET), [want(GET), want(GET)]),
    Case("id begun again before its answer, one at a time", ask(GET) + ask(GET),
         [want(GET), want(GET)], limits={"multiplex": 1}),
    Case("id begun again after its answer", [ask(GET), ask(GET)], [want(GET), want(GET)]),
    # Aborts (section 5.4)
    Case("abort before parameters", begin() + rec(ABORT, 1) + ask(GET, number=2), [want(GET, 2)],
         outbox=end()),
    Case("abort amid parameters", begin() + rec(PARAMS, 1, b"\1") + rec(ABORT, 1)
         + params(GET) + stdin() + ask(GET), [want(GET)], outbox=end()),
    Case("abort amid the body", begin() + params(POST) + rec(STDIN, 1, b"a") + rec(ABORT, 1)
         + stdin(b"bc") + ask(GET), [want(POST, body=b"a", whole=False, aborted=True), want(GET)],
         outbox=end()),
    Case("abort of a whole request", ask(GET) + rec(ABORT, 1), [want(GET, aborted=True)]),
    Case("abort after the answer", [ask(GET), rec(ABORT, 1) + ask(GET, number=2)],
         [want(GET), want(GET, 2)]),
    Case("abort of nothing", rec(ABORT, 9) + ask(GET), [want(GET)]),
    Case("abort without keep", begin(flags=0) + rec(ABORT, 1) + ask(GET), outbox=end(),
         closing=True),
    # Streams of nobody are ignored (section 3.3)
    Case("records of an unknown id", params(GET, 5) + stdin(b"x", number=5) + ask(GET),
         [want(GET)]),
    Case("records after the answer", [ask(GET), rec(STDIN, 1, b"x") + rec(PARAMS, 1, b"x")],
         [want(GET)]),
    # The end of the connection
    Case("nothing", b""),
    Case("end in a header", begin()[:5], eof="middle of a request"),
    Case("end in a record", begin()[:12], eof="middle of a request"),
    Case("end before parameters", begin(), eof="middle of a request"),
    Case("end amid parameters", begin() + rec(PARAMS, 1, block(GET)), eof="middle of a request"),
    Case("end before the body", begin() + params(POST), [want(POST, whole=False)],
         eof="middle of a request"),
    Case("end amid the body", begin() + params(POST) + rec(STDIN, 1, b"ab"),
         [want(POST, body=b"ab", whole=False)], eof="middle of a request"),
    Case("end in padding", ask(GET) + rec(STDIN, 9, b"", 4)[:-1], [want(GET)],
         eof="middle of a request"),
]  # fmt: skip
