"""Vectors of request smuggling: what a head says (RFC 9112 sections 2, 3 and 5)."""

from smuggling import (
    ABC,
    BARE,
    CLOSED,
    COLON,
    FOLD,
    HIDDEN,
    HOST,
    INVALID,
    KEPT,
    NO_CONTROL,
    NO_TOKEN,
    TE,
    Section,
    Vector,
    called,
    called_get,
    get,
    lines,
    post,
    raw,
)

# Lines

REQUEST_LINE = "9112 3: single spaces, and nothing is repaired"
VERSION = "9112 2.3: `HTTP/` and two digits, case-sensitive"


def line(text: str, *outcome: int | str, why: str) -> Vector:
    made = raw("", text.encode("latin-1") + lines("", HOST, ""), *outcome, why=why)
    return made._replace(shown=text.encode("latin-1"))


REQUEST_LINES = Section(
    "The request line",
    "Each is sent with `\\r\\nHost: a\\r\\n\\r\\n` behind it.",
    [
        *(
            line(text, 400, why=REQUEST_LINE)
            for text in (
                "GET  /v HTTP/1.1",
                "GET /v  HTTP/1.1",
                "GET /v HTTP/1.1 ",
                " GET /v HTTP/1.1",
                "\tGET /v HTTP/1.1",
                "GET\t/v HTTP/1.1",
                "GET /v\tHTTP/1.1",
                "GET\x0b/v\x0bHTTP/1.1",
                "GET\xa0/v HTTP/1.1",
                "GET /v x HTTP/1.1",
                "GET /v HTTP/1.1 HTTP/1.1",
                "GET /v\rHTTP/1.1",
                "GET HTTP/1.1",
                "/v HTTP/1.1",
                "\x7fGET /v HTTP/1.1",
                "\xef\xbb\xbfGET /v HTTP/1.1",
            )
        ),
        line("GET /v", 400, why="9112 2.3: HTTP/0.9 is not spoken"),
        line("GET /v HTTP/0.9", 505, why="9110 15.6.6"),
        line("GET /v HTTP/2.0", 505, why="9110 15.6.6"),
        line("GET /v HTTP/3.0", 505, why="9110 15.6.6"),
        line(
            "GET /v HTTP/1.2",
            called_get(),
            KEPT,
            why="9110 2.5: a later minor version is read as the highest known",
        ),
        line("GET /v HTTP/1.0", called_get(), CLOSED, why="9112 9.3"),
        *(
            line(f"GET /v {version}", 400, why=VERSION)
            for version in (
                "http/1.1",
                "HTTP/1",
                "HTTP/01.1",
                "HTTP/1.10",
                "HTTP/1.1x",
                "HTTPS/1.1",
                "HTTP /1.1",
                "ICY/1.0",
            )
        ),
        line("get /v HTTP/1.1", 501, why="9110 9.1: methods are case-sensitive; this is unknown"),
        line("FOO /v HTTP/1.1", 501, why="9110 9.1"),
        line("CONNECT a:80 HTTP/1.1", 501, why="9110 9.3.6: no tunnel is made here"),
        line("G(T /v HTTP/1.1", 400, why="9110 9.1: a method is a token"),
        line("GET\0 /v HTTP/1.1", 400, why="9110 9.1"),
        line("G\xc9T /v HTTP/1.1", 400, why="9110 9.1"),
    ],
)

TARGET = "9112 3.2: a target of no form"
CHARACTERS = "3986 2: a character that no target has"

TARGETS = Section(
    "Request targets",
    "",
    [
        *(
            line(f"GET {target} HTTP/1.1", called_get(target), KEPT, why=why)
            for target, why in (
                ("//e/v", "9112 3.2.1: a path, not an authority"),
                ("/../v", "3986 6: the application judges the path as it came, decoded once"),
                ("/%2e%2e/v", "As above"),
                ("http://a/v", "9112 3.2.2"),
                ("HTTP://A:80/v", "9110 4.2.3: the same host as `a`"),
            )
        ),
        *(
            line(f"GET {target} HTTP/1.1", 400, why=why)
            for target, why in (
                ("*", "9112 3.2.4: for OPTIONS alone"),
                ("a:80", "9112 3.2.3: for CONNECT alone"),
                ("v", TARGET),
                ("?x", TARGET),
                ("@a/v", TARGET),
                ("ftp://a/v", TARGET),
                ("http:/a/v", TARGET),
                ("http:///v", "9110 4.2.1: no host"),
                ("http://b/v", "9110 7.4: Host says otherwise; which one a proxy took is unknown"),
                ("http://a:81/v", "As above"),
                ("http://u@a/v", "9110 4.2.4: a user in the authority"),
                ("http://b#@a/v", TARGET),
                ("http://b\\@a/v", TARGET),
                ("/v#x", "9112 3.2: no fragment"),
                ("/%zz", "3986 2.1"),
                ("/%2", "3986 2.1"),
                ("/\x01", CHARACTERS),
                ("/\x7f", CHARACTERS),
                ("/\xe9", CHARACTERS),
                ("/\0", CHARACTERS),
            )
        ),
        line(
            "OPTIONS * HTTP/1.1",
            called(method="OPTIONS", target="*"),
            KEPT,
            why="9112 3.2.4",
        ),
    ],
)

HEAD = b"GET /v HTTP/1.1\r\nHost: a\r\n\r\n"

LINE_ENDS = Section(
    "Line ends",
    "",
    [
        *(
            raw(name, b"\r\n" * count + HEAD, called_get(), KEPT, why=why)
            for name, count, why in (
                ("an empty line first", 1, "9112 2.2: at least one is ignored"),
                ("ten empty lines first", 10, "9112 2.2"),
            )
        ),
        *(
            raw(name, data, 400, why=BARE)
            for name, data in (
                ("LF first", b"\n" + HEAD),
                ("CR first", b"\r" + HEAD),
                ("CR CRLF first", b"\r" + b"\r\n" + HEAD),
                ("LF alone, everywhere", HEAD.replace(b"\r", b"")),
                ("LF behind the request line", HEAD.replace(b"\r", b"", 1)),
                ("LF behind a field", b"GET /v HTTP/1.1\r\nHost: a\n\r\n"),
                ("LF for the empty line", b"GET /v HTTP/1.1\r\nHost: a\r\n\n"),
                ("LF LF at the end", b"GET /v HTTP/1.1\r\nHost: a\n\n"),
                ("CR alone, everywhere", HEAD.replace(b"\n", b"") + b"\r\n\r\n"),
                ("CR CR LF", HEAD.replace(b"\r\n", b"\r\r\n")),
                ("LF CR", HEAD.replace(b"\r\n", b"\n\r")),
                ("CR before the empty line", b"GET /v HTTP/1.1\r\nHost: a\r\n\r\r\n"),
            )
        ),
        raw(
            "space before the first field",
            b"GET /v HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n",
            400,
            why="9112 2.2: refused",
        ),
        raw("space in the first line", b" \r\n" + HEAD, 400, why="9112 2.2"),
        raw(
            "empty line behind the request line",
            b"GET /v HTTP/1.1\r\n\r\nHost: a\r\n\r\n",
            400,
            why="9112 3.2: there the head ends, without a Host",
        ),
    ],
)

# Fields


def host(fields: str, *outcome: int | str, why: str, name: str = "") -> Vector:
    head = lines("GET /v HTTP/1.1", *([fields] if fields else []), "")
    return raw(name, head, *outcome, why=why)._replace(shown=fields.encode("latin-1"))


ONE_HOST = "9112 3.2: exactly one Host in HTTP/1.1"
VALID_HOST = "9112 3.2, 9110 7.2: a host and a port, nothing else"

HOSTS = Section(
    "Host",
    "Each is sent with `GET /v HTTP/1.1`.",
    [
        host("", 400, why=ONE_HOST, name="none"),
        *(
            host(f"Host: a\r\n{other}", 400, why=ONE_HOST)
            for other in ("Host: a", "Host: b", "hOST: b")
        ),
        *(
            host(f"Host: {value}", 400, why=VALID_HOST)
            for value in (
                "a, b",
                "a b",
                "a\tb",
                "u@a",
                "u:p@a",
                "a/b",
                "a?b",
                "a#b",
                "a\\b",
                "a:b",
                "a:80:80",
                ":80",
                "::1",
                "[::1",
                "a%zz",
                "http://a",
                "<a>",
                '"a"',
                "\xe9",
            )
        ),
        host("Host:", called_get("/v", "HTTP_HOST="), KEPT, why="9112 3.2: may be empty"),
        host("Host: a,b", called_get("/v", "HTTP_HOST=a,b"), KEPT, why="3986 3.2.2: a name"),
        host("Host: [::1]:80", called_get("/v", "HTTP_HOST=[::1]:80"), KEPT, why="9110 7.2"),
        host("Host : a", 400, why=COLON),
        host(" Host: a", 400, why="9112 2.2"),
        host("Host: a\r\n b", 400, why=FOLD),
        host("Host: a\rb", 400, why=BARE),
        host("Host: a\nHost: b", 400, why=BARE),
        host("Host\0: a", 400, why=NO_TOKEN),
        host("Host: a\0", 400, why=NO_CONTROL),
        host("Hos_t: a", 400, why=ONE_HOST),
        raw(
            "none in HTTP/1.0",
            lines("GET /v HTTP/1.0", ""),
            called_get(),
            CLOSED,
            why="9112 3.2",
        ),
        raw(
            "two in HTTP/1.0",
            lines("GET /v HTTP/1.0", HOST, "Host: b", ""),
            400,
            why="9112 3.2: in any version",
        ),
        raw(
            "none, absolute-form",
            lines("GET http://a/v HTTP/1.1", ""),
            400,
            why=ONE_HOST,
        ),
    ],
)

FIELDS = Section(
    "Other fields",
    "Each is sent with `GET /v HTTP/1.1\\r\\nHost: a`.",
    [
        *(
            get(field, 400, why=why)
            for field, why in (
                ("X-A : 1", COLON),
                ("X-A\t: 1", COLON),
                ("X A: 1", NO_TOKEN),
                ("X-A", NO_TOKEN),
                (": 1", NO_TOKEN),
                ("X(A: 1", NO_TOKEN),
                ("X\x01A: 1", NO_TOKEN),
                ("X\0A: 1", NO_TOKEN),
                ("X\x7fA: 1", NO_TOKEN),
                ("X-\xe9: 1", NO_TOKEN),
                ("X-A: a\0b", NO_CONTROL),
                ("X-A: a\x01b", NO_CONTROL),
                ("X-A: a\x0bb", NO_CONTROL),
                ("X-A: a\x1bb", NO_CONTROL),
                ("X-A: a\x7fb", NO_CONTROL),
                ("X-A: a\rb", BARE),
                ("X-A: a\nb", BARE),
                ("X-A: a\r\n b", FOLD),
                ("X-A: a\r\n\tb", FOLD),
            )
        ),
        *(
            get(field, called_get("/v", *seen), KEPT, why=why)
            for field, seen, why in (
                ("X-A: \t1 \t", ("HTTP_X_A=1",), "9112 5.1"),
                ("X-A:", ("HTTP_X_A=",), "9112 5"),
                ("X-A: a\tb\xff", ("HTTP_X_A=a\\tb\\xff",), "9110 5.5: a tab, and obs-text"),
                ("X-A: 1\r\nx-a: 2", ("HTTP_X_A=1,2",), "9110 5.3"),
                ("Cookie: a=1\r\nCookie: b=2", ("HTTP_COOKIE=a=1; b=2",), "6265 5.4, 9113 8.2.3"),
                ("X-A: 1\r\nX_A: 2", ("HTTP_X_A=1",), "X_A would be taken for X-A: dropped"),
                ("Proxy: x", (), "It would be HTTP_PROXY (CVE-2016-5385): dropped"),
                ("REMOTE_USER: root", (), "Dropped"),
                ("Remote-User: root", ("HTTP_REMOTE_USER=root",), "Not REMOTE_USER"),
                ("Content-Type: a\r\nContent_Type: b", ("CONTENT_TYPE=a",), "Dropped"),
                ("Connection: Host", (), "9110 7.6.1: Host is for us"),
                ("Connection: X-A\r\nX-A: 1", ("HTTP_X_A=1",), "9110 7.6.1: so is X-A"),
                ("TE: trailers, chunked", (), "9110 10.1.4: about the answer; not passed on"),
                ("Trailer: Content-Length", (), "9110 6.6.2: not passed on"),
            )
        ),
        get("\r\n".join(["X: 1"] * 101), 431, why="6585 5", name="101 fields")._replace(
            shown=b"X: 1\r\nX: 1..."
        ),
        get("X: " + "y" * 9000, 431, why="6585 5"),
    ],
)

# Connections

ABOUT_CLOSE = "9112 9.6: nothing is read behind the last request"
IGNORED = "9110 7.8: an offer, which a server may ignore"

CONNECTIONS = Section(
    "Connection, Upgrade, Expect",
    "",
    [
        *(
            post("", field, HIDDEN, called(), CLOSED, why=ABOUT_CLOSE)
            for field in (
                "Connection: close",
                "Connection: Close",
                "Connection: keep-alive, close",
                "Connection: close\r\nConnection: keep-alive",
                "Connection: close, Upgrade\r\nUpgrade: h2c",
            )
        ),
        post("", "Connection: closed", "", called(), KEPT, why="9110 7.6.1"),
        post(
            "",
            "Connection: Content-Length\r\nContent-Length: 3",
            "abc",
            called("abc"),
            KEPT,
            why="9110 7.6.1: the message has its length all the same",
        ),
        post(
            "",
            f"Connection: Transfer-Encoding\r\n{TE}chunked",
            ABC,
            called("abc"),
            KEPT,
            why="9112 6.1",
        ),
        *(
            post(
                "",
                fields,
                body + HIDDEN,
                called(*seen),
                called_get("/hidden"),
                KEPT,
                why=IGNORED,
            )
            for fields, body, seen in (
                ("Upgrade: h2c", b"", ()),
                ("Connection: Upgrade\r\nUpgrade: websocket", b"", ()),
                (
                    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA",
                    b"",
                    ("", "HTTP_HTTP2_SETTINGS=AAMA"),
                ),
                ("Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3", b"abc", ("abc",)),
                (f"Connection: Upgrade\r\nUpgrade: h2c\r\n{TE}chunked", ABC.encode(), ("abc",)),
            )
        ),
        *(
            post("", fields, "abc", *outcome, why=why)
            for fields, outcome, why in (
                (
                    "Expect: 100-continue\r\nContent-Length: 3",
                    (100, called("abc"), KEPT),
                    "9110 10.1.1",
                ),
                (
                    "Expect: 100-continue, 100-Continue\r\nContent-Length: 3",
                    (100, called("abc"), KEPT),
                    "9110 10.1.1: a list",
                ),
                ("Expect: x\r\nContent-Length: 3", (417,), "9110 10.1.1"),
                ("Expect: 100-continue, x\r\nContent-Length: 3", (417,), "9110 10.1.1"),
                ("Expect: y 100-continue\r\nContent-Length: 3", (417,), "9110 10.1.1"),
                ("Expect: 100-continue=x\r\nContent-Length: 3", (417,), "9110 10.1.1"),
                ("Expect:\r\n 100-continue\r\nContent-Length: 3", (400,), FOLD),
                ("Expect: 100-continue\r\nContent-Length: x", (400,), INVALID),
            )
        ),
        post(
            "100-continue without a body",
            "Expect: 100-continue",
            HIDDEN,
            called(),
            called_get("/hidden"),
            KEPT,
            why="9110 10.1.1: no body, no interim answer",
        ),
        post(
            "100-continue and a request instead of the body",
            f"Expect: 100-continue\r\nContent-Length: {len(HIDDEN)}",
            HIDDEN,
            100,
            called("<hidden>"),
            KEPT,
            why="9110 10.1.1: what follows the head is the body, whatever it looks like",
        ),
        raw(
            "100-continue in HTTP/1.0",
            lines("POST /v HTTP/1.0", "Expect: 100-continue", "Content-Length: 3", "") + b"abc",
            called("abc"),
            CLOSED,
            why="9110 10.1.1: ignored",
        ),
        raw(
            "a good request, then a bad one",
            HEAD + b"GET /v HTTP/1.1\r\n\r\n",
            called_get(),
            400,
            why="9112 9.3.2: answered in order; then the connection is over",
        ),
        raw(
            "a bad request, then a good one",
            b"GET /v HTTP/1.1\r\n\r\n" + HIDDEN,
            400,
            why="9112 9.6: nobody knows where the bad one ends",
        ),
        raw(
            "keep-alive in HTTP/1.0",
            lines("POST /v HTTP/1.0", "Connection: keep-alive", "Content-Length: 3", "") + b"abc",
            called("abc"),
            KEPT,
            why="9112 C.2.2",
        ),
        raw(
            "a target of 9,000 bytes",
            lines("GET /" + "x" * 9000 + " HTTP/1.1", HOST, ""),
            414,
            why="9110 15.5.15",
        ),
    ],
)

HEADS = [REQUEST_LINES, TARGETS, LINE_ENDS, HOSTS, FIELDS, CONNECTIONS]
