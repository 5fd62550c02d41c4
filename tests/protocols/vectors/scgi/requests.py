"""SCGI: the netstring, judged strictly, and exactly CONTENT_LENGTH bytes of body."""

from codec_harness import Case
from scgi_words import ask, netstring, pairs, want

GET = {"REQUEST_METHOD": "GET", "REQUEST_URI": "/a%20b"}
HEAD = {"REQUEST_METHOD": "HEAD"}
LENGTH, ONE = ("CONTENT_LENGTH", "0"), ("SCGI", "1")
NAMES = {-1: "below", 0: "at", 1: "above"}
LARGE = "431 the SCGI headers are too large"

#: The example of the specification.
DEEP_THOUGHT = (
    b"70:CONTENT_LENGTH\x0027\x00SCGI\x001\x00REQUEST_METHOD\x00POST\x00"
    b"REQUEST_URI\x00/deepthought\x00,What is the answer to life?"
)

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
                "PROXY CONTENT_LENGTH CONTENT_TYPE TRANSFER_ENCODING CONNECTION KEEP_ALIVE "
                "TRAILER TE UPGRADE EXPECT PROXY_CONNECTION"
            ).split()
        ],
        {},
    ),
    ("empty values", [("QUERY_STRING", ""), ("X", "")], {"QUERY_STRING": "", "X": ""}),
    ("client's length is the same", [("HTTP_CONTENT_LENGTH", "0")], {}),
    ("client's length is smaller", [("HTTP_CONTENT_LENGTH", "-1")], {}),
]

#: name, bytes, start of the reason
REFUSED = [
    ("leading zero", b"0" + ask(), "400 the SCGI netstring has no valid length"),
    ("leading zeros alone", b"00:,", "400 the SCGI netstring has no valid length"),
    ("no digits", b":,", "400 the SCGI netstring has no valid length"),
    ("sign", b"+24:", "400 the SCGI netstring has no valid length"),
    ("negative", b"-1:", "400 the SCGI netstring has no valid length"),
    ("space", b"24 :", "400 the SCGI netstring has no valid length"),
    ("space first", b" 24:", "400 the SCGI netstring has no valid length"),
    ("hexadecimal", b"1f:", "400 the SCGI netstring has no valid length"),
    ("HTTP", b"GET / HTTP/1.1\r\n\r\n", "400 the SCGI netstring has no valid length"),
    ("FastCGI", b"\x01\x01\x00\x01\x00\x08\x00\x00", "400 the SCGI netstring has no valid length"),
    ("length too large", b"65537:", LARGE),
    ("length of six digits", b"100000:", LARGE),
    ("length without end", b"9" * 40, LARGE),
    ("no comma", ask()[:-1] + b";", "400 the SCGI netstring does not end with a comma"),
    ("length one short", b"23" + ask()[2:], "400 the SCGI netstring does not end with a comma"),
    ("empty", b"0:,", "400 the first SCGI header must be CONTENT_LENGTH"),
    ("one name", netstring(pairs([LENGTH, ONE]) + b"X\0"), "400 the SCGI headers are not pairs"),
    ("no NUL at the end", netstring(pairs([LENGTH, ONE])[:-1]), "400 the SCGI headers are not p"),
    ("no NUL at all", netstring(b"CONTENT_LENGTH"), "400 the SCGI headers are not pairs"),
    ("name without NUL", netstring(pairs([LENGTH, ONE]) + b"X"), "400 the SCGI headers are not"),
    ("SCGI first", netstring(pairs([ONE, LENGTH])), "400 the first SCGI header must be"),
    ("no CONTENT_LENGTH", netstring(pairs([ONE])), "400 the first SCGI header must be"),
    ("content_length", netstring(pairs([("content_length", "0"), ONE])), "400 the first SCGI"),
    ("no SCGI", netstring(pairs([LENGTH])), "400 the header SCGI must be 1"),
    ("SCGI 2", netstring(pairs([LENGTH, ("SCGI", "2")])), "400 the header SCGI must be 1"),
    ("SCGI 01", netstring(pairs([LENGTH, ("SCGI", "01")])), "400 the header SCGI must be 1"),
    ("SCGI empty", netstring(pairs([LENGTH, ("SCGI", "")])), "400 the header SCGI must be 1"),
    ("empty name", ask({"": "x"}), "400 an SCGI header has an empty name"),
    ("CONTENT_LENGTH twice", netstring(pairs([LENGTH, ONE, LENGTH])),
     "400 CONTENT_LENGTH must be there once"),
    *(
        (f"CONTENT_LENGTH {value[:9]!r} of {len(value)}",
         netstring(pairs([("CONTENT_LENGTH", value), ONE])), "400 CONTENT_LENGTH must be")
        for value in ("", "-1", "+1", "1 ", "0x1", "1_0", "\xb2", "1" * 20, "1" * 5000)
    ),
    ("false length", netstring(pairs([("CONTENT_LENGTH", "10"), ONE,
                                      ("HTTP_CONTENT_LENGTH", "20")])) + b"0123456789",
     "400 CONTENT_LENGTH is 10 but the client announced 20"),
]  # fmt: skip


def padded(size: int) -> dict[str, str]:
    """Variables that make a netstring of that content."""
    return {"X": "x" * (size - len(pairs([LENGTH, ONE, ("X", "")])))}


def around(name, limits, ask_at, want_at, reason):
    for off in (-1, 0, 1):
        yield Case(f"{name}: {NAMES[off]}", ask_at(off), [] if off > 0 else [want_at(off)],
                   refused=reason if off > 0 else "", closing=True, limits=limits)  # fmt: skip


CASES = [
    Case("get", ask(GET), [want(GET)], closing=True),
    Case("head", ask(HEAD), [want(HEAD, head_only=True)], closing=True),
    Case("post", ask(GET, b"abc"), [want(GET, b"abc")], closing=True),
    Case("the specification's example", DEEP_THOUGHT, [
        want({"REQUEST_METHOD": "POST", "REQUEST_URI": "/deepthought"},
             b"What is the answer to life?")], closing=True),
    Case("length with leading zeros", netstring(pairs([("CONTENT_LENGTH", "003"), ONE])) + b"abc",
         [want({}, b"abc")], closing=True),
    Case("surplus after the body", ask(GET, b"abc") + b"xyz", [want(GET, b"abc")], closing=True),
    Case("surplus where there is no body", ask(GET) + ask(GET), [want(GET)], closing=True),
    Case("surplus later", [ask(GET, b"abc"), b"xyz"], [want(GET, b"abc")], closing=True),
    Case("binary body", ask({}, bytes(range(256))), [want({}, bytes(range(256)))], closing=True),
    *(Case(f"variables: {name}", ask({}, b"", *more), [want(environ)], closing=True)
      for name, more, environ in RULES),
    *(Case(f"refused: {name}", data, refused=reason) for name, data, reason in REFUSED),
    *around("headers", {"request_header_total": 100}, lambda off: ask(padded(100 + off)),
            lambda off: want(padded(100 + off)), LARGE),
    *around("headers of the default size", {}, lambda off: ask(padded(65536 + off)),
            lambda off: want(padded(65536 + off)), LARGE),
    *around("headers, more digits than the limit", {"request_header_total": 99},
            lambda off: ask(padded(99 + off)), lambda off: want(padded(99 + off)), LARGE),
    *around("body", {"request_body": 10}, lambda off: ask({}, b"x" * (10 + off)),
            lambda off: want({}, b"x" * (10 + off)), "413 the request body is too large"),
    Case("no limit on the body", ask({}, b"x" * 20), [want({}, b"x" * 20)], closing=True,
         limits={"request_body": 0}),
    Case("nothing", b""),
    Case("end in the length", b"2", eof="in the middle of the SCGI headers"),
    Case("end in the headers", ask()[:20], eof="in the middle of the SCGI headers"),
    Case("end before the comma", ask()[:-1], eof="in the middle of the SCGI headers"),
    Case("end before the body", ask(GET, b"abc")[:-3],
         [want(GET, b"", length=3, whole=False)], eof="in the middle of a request body"),
    Case("end in the body", ask(GET, b"abc")[:-1],
         [want(GET, b"ab", length=3, whole=False)], eof="in the middle of a request body"),
]  # fmt: skip
