"""uwsgi: the packet, judged strictly, and exactly CONTENT_LENGTH bytes of body."""

from codec_harness import Case
from uwsgi_words import ask, packet, pairs, want

GET = {"REQUEST_METHOD": "GET", "REQUEST_URI": "/a%20b"}
HEAD = {"REQUEST_METHOD": "HEAD"}
NAMES = {-1: "below", 0: "at", 1: "above"}
LARGE = "431 the uwsgi variables are too large"
NO_PAIRS = "400 the uwsgi variables are not pairs of the given size"

#: The block of the documentation's example, as its two texts.
EXAMPLE = b"\x00\x15\x00\x00\x0e\x00REQUEST_METHOD\x03\x00GET"

#: name, further pairs, environ (front-ends rules 0 and 10)
RULES = [
    (
        "client headers joined",
        [("HTTP_X", "1"), ("A", "a"), ("HTTP_X", "2")],
        {"HTTP_X": "1,2", "A": "a"},
    ),
    ("cookies", [("HTTP_COOKIE", "a=1"), ("HTTP_COOKIE", "b=2")], {"HTTP_COOKIE": "a=1; b=2"}),
    ("last wins", [("PATH_INFO", "/x"), ("PATH_INFO", "")], {"PATH_INFO": ""}),
    ("Host: last wins", [("HTTP_HOST", "a"), ("HTTP_HOST", "b")], {"HTTP_HOST": "b"}),
    ("latin-1", [("HTTP_X", "caf\xe9")], {"HTTP_X": "caf\xe9"}),
    (
        "dropped",
        [
            (f"HTTP_{name}", "0")
            for name in (
                "PROXY CONTENT_LENGTH CONTENT_TYPE CONNECTION KEEP_ALIVE "
                "TRAILER TE UPGRADE EXPECT PROXY_CONNECTION"
            ).split()
        ],
        {},
    ),
    ("empty values", [("QUERY_STRING", ""), ("X", "")], {"QUERY_STRING": "", "X": ""}),
    ("a long value", [("X", "v" * 300)], {"X": "v" * 300}),
    ("no length: nginx for a GET", [("CONTENT_LENGTH", "")], {"CONTENT_LENGTH": ""}),
    ("length 0: nginx for an empty POST", [("CONTENT_LENGTH", "0")], {"CONTENT_LENGTH": "0"}),
    ("length 00", [("CONTENT_LENGTH", "00")], {"CONTENT_LENGTH": "0"}),
    (
        "no body where the client announced one: a subrequest",
        [("CONTENT_LENGTH", ""), ("HTTP_CONTENT_LENGTH", "20")],
        {"CONTENT_LENGTH": ""},
    ),
    (
        "the same length twice",
        [("CONTENT_LENGTH", "0"), ("CONTENT_LENGTH", "0")],
        {"CONTENT_LENGTH": "0"},
    ),
]


def sized(*texts: tuple[int, bytes]) -> bytes:
    """Texts with sizes that may be wrong."""
    return b"".join(size.to_bytes(2, "little") + text for size, text in texts)


#: name, bytes, start of the reason
REFUSED = [
    *(
        (f"modifier1 {number}", packet(pairs(GET), number), f"400 modifier1 is {number} ({what}")
        for number, what in (
            (1, "something else"), (5, "Perl"), (14, "PHP"), (30, "WSGI with SCRIPT_NAME still"),
            (100, "a ping"), (255, "something else"),
        )
    ),
    ("modifier1 alone", b"\5", "400 modifier1 is 5"),
    ("modifier2", packet(pairs(GET), 0, 1), "400 modifier2 is 1: only 0 is served"),
    ("HTTP", b"GET / HTTP/1.1\r\n\r\n", "400 modifier1 is 71"),
    ("FastCGI", b"\x01\x01\x00\x01\x00\x08\x00\x00", "400 modifier1 is 1"),
    ("SCGI", b"24:CONTENT_LENGTH", "400 modifier1 is 50"),
    ("TLS", b"\x16\x03\x01\x00\xf4", "400 modifier1 is 22"),
    ("a name beyond the block", packet(sized((9, b"A"))), NO_PAIRS),
    ("a value beyond the block", packet(sized((1, b"A"), (2, b"b"))), NO_PAIRS),
    ("half a size of a name", packet(pairs(GET) + b"\1"), NO_PAIRS),
    ("half a size of a value", packet(pairs(GET) + b"\1\0A\0"), NO_PAIRS),
    ("a name without a value", packet(pairs(GET) + b"\1\0A"), NO_PAIRS),
    ("a size of 65535", packet(sized((65535, b"A"), (1, b"b"))), NO_PAIRS),
    ("an empty name", ask({"": "x"}), "400 a uwsgi variable has an empty name"),
    ("only an empty name", packet(b"\0\0\0\0"), "400 a uwsgi variable has an empty name"),
    ("two lengths", ask({}, b"abc", ("CONTENT_LENGTH", "4")), "400 CONTENT_LENGTH is there twice"),
    ("a length and none", ask({}, b"abc", ("CONTENT_LENGTH", "")),
     "400 CONTENT_LENGTH is there twice"),
    *(
        (f"CONTENT_LENGTH {value[:9]!r} of {len(value)}",
         packet(pairs([("CONTENT_LENGTH", value)])), "400 CONTENT_LENGTH must be digits")
        for value in ("-1", "+1", "1 ", "0x1", "1_0", "\xb2", "1" * 20, "1" * 5000)
    ),
    ("chunked without a length", ask({"HTTP_TRANSFER_ENCODING": "chunked"}),
     "411 a chunked body needs CONTENT_LENGTH"),
    ("chunked with an empty length",
     ask({"HTTP_TRANSFER_ENCODING": "chunked", "CONTENT_LENGTH": ""}),
     "411 a chunked body needs CONTENT_LENGTH"),
    ("false length", ask({"HTTP_CONTENT_LENGTH": "20"}, b"0123456789"),
     "400 CONTENT_LENGTH is 10 but the client announced 20"),
]  # fmt: skip


def padded(size: int) -> dict[str, str]:
    """Variables that make a block of that size."""
    return {"X": "x" * (size - len(pairs([("X", "")])))}


def around(name, limits, ask_at, want_at, reason):
    for off in (-1, 0, 1):
        yield Case(f"{name}: {NAMES[off]}", ask_at(off), [] if off > 0 else [want_at(off)],
                   refused=reason if off > 0 else "", closing=True, limits=limits)  # fmt: skip


CASES = [
    Case("get", ask(GET), [want(GET)], closing=True),
    Case("head", ask(HEAD), [want(HEAD, head_only=True)], closing=True),
    Case("post", ask(GET, b"abc"), [want(GET, b"abc")], closing=True),
    Case("the documented layout", EXAMPLE, [want({"REQUEST_METHOD": "GET"})], closing=True),
    Case("no variables", packet(b""), [want({})], closing=True),
    Case("chunked, gathered by the front end",
         ask({"HTTP_TRANSFER_ENCODING": "chunked"}, b"abc"), [want({}, b"abc")], closing=True),
    Case("length with leading zeros", packet(pairs([("CONTENT_LENGTH", "003")])) + b"abc",
         [want({}, b"abc")], closing=True),
    Case("surplus after the body", ask(GET, b"abc") + b"xyz", [want(GET, b"abc")], closing=True),
    Case("surplus where there is no body", ask(GET) + ask(GET), [want(GET)], closing=True),
    Case("surplus later", [ask(GET, b"abc"), b"xyz"], [want(GET, b"abc")], closing=True),
    Case("binary body", ask({}, bytes(range(256))), [want({}, bytes(range(256)))], closing=True),
    *(Case(f"variables: {name}", ask({}, b"", *more), [want(environ)], closing=True)
      for name, more, environ in RULES),
    *(Case(f"refused: {name}", data, refused=reason) for name, data, reason in REFUSED),
    *around("variables", {"request_header_total": 100}, lambda off: ask(padded(100 + off)),
            lambda off: want(padded(100 + off)), LARGE),
    Case("the largest packet", ask(padded(65535)), [want(padded(65535))], closing=True),
    *around("body", {"request_body": 10}, lambda off: ask({}, b"x" * (10 + off)),
            lambda off: want({}, b"x" * (10 + off)), "413 the request body is too large"),
    Case("no limit on the body", ask({}, b"x" * 20), [want({}, b"x" * 20)], closing=True,
         limits={"request_body": 0}),
    Case("nothing", b""),
    Case("end in the header", b"\0\1", eof="in the middle of the uwsgi variables"),
    Case("end in the variables", ask(GET)[:20], eof="in the middle of the uwsgi variables"),
    Case("end before the last byte", ask(GET)[:-1], eof="in the middle of the uwsgi variables"),
    Case("end before the body", ask(GET, b"abc")[:-3],
         [want(GET, b"", length=3, whole=False)], eof="in the middle of a request body"),
    Case("end in the body", ask(GET, b"abc")[:-1],
         [want(GET, b"ab", length=3, whole=False)], eof="in the middle of a request body"),
]  # fmt: skip
