"""Vectors of request smuggling: where a body ends (RFC 9112 sections 6 and 7)."""

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
    WAITS,
    Section,
    Vector,
    as_bytes,
    called,
    lines,
    post,
    post_field,
    raw,
)

# Transfer-Encoding

UNMEASURED = "9112 6.3 (4): chunked is not the last coding, so the length is not known: 400"
UNKNOWN = "9112 6.1: a coding that is not understood, and chunked after it: 501"
TWICE = "9112 6.1: chunked is applied once"


def te(value: str, *outcome: int | str, why: str, name: str = "") -> Vector:
    return post_field(TE + value, ABC, *outcome, why=why, name=name)


def te_line(field: str, *outcome: int | str, why: str) -> Vector:
    return post_field(field, ABC, *outcome, why=why)


BOTH = Section(
    "Content-Length and Transfer-Encoding",
    "RFC 9112 section 6.1 lets a server reject a message that has both, because it is how "
    "requests are smuggled (section 11.2). It is rejected in any order, whatever the values.",
    [
        post(name, fields, body, 400, why=why)
        for name, fields, body, why in (
            ("CL.TE", f"Content-Length: 6\r\n{TE}chunked", "0\r\n\r\nG", "9112 6.1, 11.2"),
            ("TE.CL", f"{TE}chunked\r\nContent-Length: 4", "5c\r\nGPOST", "9112 6.1, 11.2"),
            ("CL.TE, agreeing", f"Content-Length: 5\r\n{TE}chunked", "0\r\n\r\n", "9112 6.1"),
            ("length 0", f"Content-Length: 0\r\n{TE}chunked", ABC, "9112 6.1"),
            ("identity", f"Content-Length: 3\r\n{TE}identity", "abc", "9112 6.1, 6.3 (4)"),
            ("unknown coding", f"{TE}xchunked\r\nContent-Length: 3", "abc", "9112 6.1"),
            ("gzip, chunked", f"{TE}gzip, chunked\r\nContent-Length: 3", "abc", "9112 6.1"),
            ("no coding", f"Content-Length: 3\r\n{TE}", "abc", "9112 6.1"),
            ("bad length", f"Content-Length: x\r\n{TE}chunked", ABC, "9112 6.1, 6.3 (5)"),
        )
    ]
    + [
        post(
            "TE.TE, the second one odd",
            f"{TE}chunked\r\nTransfer-encoding: x\r\nContent-Length: 4",
            "5c\r\nGPOST",
            400,
            why="9112 6.1, 6.3 (4)",
        ),
        post(
            "coding with an underscore",
            "Content-Length: 3\r\nTransfer_Encoding: chunked",
            "abc",
            called("abc"),
            KEPT,
            why="It is another field (9110 5.1) and dropped; see `header_map`",
        ),
        post(
            "length with an underscore",
            f"Content_Length: 3\r\n{TE}chunked",
            ABC,
            called("abc"),
            KEPT,
            why="As above",
        ),
    ],
)

CODINGS = Section(
    "Transfer-Encoding",
    "Each is sent with the body `3\\r\\nabc\\r\\n0\\r\\n\\r\\n`.",
    [
        *(
            te(value, called("abc"), KEPT, why=why)
            for value, why in (
                ("chunked", "9112 7.1"),
                ("Chunked", "9112 7: codings are case-insensitive"),
                ("CHUNKED", "9112 7"),
                ("chunked ", "9112 5.1: white space around a value is none of it"),
                ("\tchunked", "9112 5.1"),
            )
        ),
        te("chunked\t", 400, why="Stricter than 9112 5.1: the parser takes no tab there"),
        *(
            te(value, 400, why=UNMEASURED)
            for value in (
                "identity",
                "gzip",
                "xchunked",
                "chunkedx",
                "cow",
                "chunked, identity",
                "chunked, gzip",
                "gzip, chunked, br",
                '"chunked"',
                "'chunked'",
                "x chunked",
                "chunked x",
                "chun ked",
                "(c) chunked",
                "chunked\x85",
                "chunked\xa0",
                "=?utf-8?q?chunked?=",
            )
        ),
        te("chunked;a=b", 400, why="9112 7.1: parameters of chunked are an error"),
        te("", 400, why="9112 6.3 (4)"),
        te(
            "chunked,",
            400,
            why="Stricter than 9110 5.6.1.2: an empty element is what an attacker writes here",
        ),
        te(", chunked", 400, why="As above"),
        *(te(value, 400, why=TWICE) for value in ("chunked, chunked", "chunked, gzip, chunked")),
        *(
            te(value, 501, why=UNKNOWN)
            for value in ("gzip, chunked", "identity, chunked", "x, chunked")
        ),
        *(
            te(value, 400, why=NO_CONTROL)
            for value in ("chunked\x0b", "\x0bchunked", "\x0cchunked", "chunked\0", "chu\x01nked")
        ),
        *(
            te(f"{first}\r\n{TE}{second}", status, why=why)
            for first, second, status, why in (
                ("chunked", "chunked", 400, TWICE),
                ("chunked", "gzip", 400, UNMEASURED),
                ("chunked", "", 400, UNMEASURED),
                ("gzip", "chunked", 501, UNKNOWN),
                ("identity", "chunked", 501, UNKNOWN),
            )
        ),
        te_line("transfer-encoding:chunked", called("abc"), KEPT, why="9110 5.1, 9112 5"),
        *(
            te_line(f"Transfer-Encoding{space}: chunked", 400, why=COLON)
            for space in (" ", "\t", "\x0b")
        ),
        *(
            te_line(line, 400, why=NO_TOKEN)
            for line in (
                "Transfer-Encoding\0: chunked",
                "Transfer-\xc9ncoding: chunked",
                "[Transfer-Encoding]: chunked",
                "Transfer-Encoding chunked",
                ": chunked",
            )
        ),
        *(
            te_line(line, 400, why=FOLD)
            for line in (
                "Transfer-Encoding:\r\n chunked",
                "X: y\r\n Transfer-Encoding: chunked",
                "X: y\r\n\tTransfer-Encoding: chunked",
                "Transfer-Encoding: chunked\r\n x",
            )
        ),
        *(
            te_line(line, 400, why=BARE)
            for line in (
                "X: y\nTransfer-Encoding: chunked",
                "X: y\rTransfer-Encoding: chunked",
                "X: y\r\n\rTransfer-Encoding: chunked",
                "Transfer-Encoding:\nchunked",
                "Transfer-Encoding: chunked\r",
            )
        ),
        te_line(
            "X-Transfer-Encoding: chunked",
            called("", "HTTP_X_TRANSFER_ENCODING=chunked"),
            400,
            why="No body is announced (9112 6.3 (7)): `3` begins the next request, which is none",
        ),
        te_line(
            "Transfer_Encoding: chunked",
            called(),
            400,
            why="As above; the field is dropped",
        ),
        raw(
            "in HTTP/1.0",
            lines("POST /v HTTP/1.0", TE + "chunked", "") + ABC.encode(),
            400,
            why="9112 6.1: the framing is faulty",
        ),
        raw(
            "in HTTP/1.0, with a length",
            lines("POST /v HTTP/1.0", "Content-Length: 3", TE + "chunked", "") + b"abc",
            400,
            why="9112 6.1",
        ),
        raw(
            "of a GET",
            lines("GET /v HTTP/1.1", HOST, TE + "chunked", "") + ABC.encode(),
            called("abc", method="GET"),
            KEPT,
            why="9112 6: any request may have a body",
        ),
    ],
)

# Content-Length

DUPLICATE = "9110 8.6, 9112 6.3 (5): may be rejected, even where they agree"


def cl(value: str, *outcome: int | str, why: str, name: str = "") -> Vector:
    return post_field(f"Content-Length: {value}", "abc", *outcome, why=why, name=name)


LENGTHS = Section(
    "Content-Length",
    "Each is sent with `abc` behind the head, unless the table shows something else.",
    [
        *(
            cl(value, called("abc"), KEPT, why=why)
            for value, why in (
                ("3", "9112 6.3 (6)"),
                (" \t3 \t", "9112 5.1: white space around a value is none of it"),
                ("03", "9110 8.6: digits, so leading zeros too"),
            )
        ),
        cl("0" * 6000 + "3", called("abc"), KEPT, why="9110 8.6", name="thousands of zeros"),
        *(
            cl(value, 400, why=INVALID)
            for value in (
                "+3",
                "-3",
                "-0",
                "-1",
                "3 3",
                "0x3",
                "3.0",
                "3e0",
                "1_0",
                "",
                "three",
                "3;",
                '"3"',
                "\xb3",
                "3\x0b",
                "3\0",
            )
        ),
        *(cl(value, 400, why=DUPLICATE) for value in ("3, 3", "3,3")),
        *(cl(value, 400, why=INVALID) for value in ("3, 4", "3,", ",3")),
        *(
            cl(
                f"{one}\r\nContent-Length: {two}",
                400,
                why=why,
            )
            for one, two, why in (
                ("3", "3", DUPLICATE),
                ("3", "4", INVALID),
                ("0", "3", INVALID),
                ("3", "", INVALID),
            )
        ),
        *(
            cl(value, 400, why="9110 8.6: no integer overflow", name=name)
            for value, name in (
                (str(1 << 64), "2^64"),
                (str((1 << 64) + 3), "2^64 + 3"),
                ("9" * 100, "a hundred nines"),
            )
        ),
        *(
            cl(value, 413, why="9110 15.5.14: more than `limit_request_body`", name=name)
            for value, name in (
                (str((1 << 64) - 1), "2^64 - 1"),
                (str(1 << 63), "2^63"),
                (str((1 << 30) + 1), "a byte too many"),
            )
        ),
        *(
            post("", line, "abc", 400, why=why)
            for line, why in (
                ("Content-Length : 3", COLON),
                ("Content-Length\t: 3", COLON),
                ("Content-Length\0: 3", NO_TOKEN),
                ("Content-Length 3", NO_TOKEN),
                ("Content-Length", NO_TOKEN),
                ("Content-Length:\r\n 3", FOLD),
                ("Content-Length: 3\r\n 4", FOLD),
                ("X: y\r\n Content-Length: 3", FOLD),
                ("X: y\nContent-Length: 3", BARE),
                ("X: y\rContent-Length: 3", BARE),
            )
        ),
        post(
            "with an underscore",
            "Content_Length: 34",
            HIDDEN,
            called(),
            called(method="GET", target="/hidden"),
            KEPT,
            why="Another field, dropped: no body is announced, so what follows is a request",
        ),
        post(
            "none",
            "X: y",
            HIDDEN,
            called("", "HTTP_X=y"),
            called(method="GET", target="/hidden"),
            KEPT,
            why="9112 6.3 (7): without length and coding there is no body",
        ),
        post(
            "CL.0",
            f"Content-Length: {len(HIDDEN)}",
            HIDDEN,
            called("<hidden>"),
            KEPT,
            why="9112 6.3 (6): the length counts for every method and path",
        ),
        post(
            "0.CL",
            "Content-Length: 0",
            HIDDEN,
            called(),
            called(method="GET", target="/hidden"),
            KEPT,
            why="9112 6.3 (6), 9.3.2: what follows is a pipelined request",
        ),
        raw(
            "CL.0 with GET",
            lines("GET /v HTTP/1.1", HOST, f"Content-Length: {len(HIDDEN)}", "") + HIDDEN,
            called("<hidden>", method="GET"),
            KEPT,
            why="9110 9.3.1, 9112 6.3 (6): the body of a GET is read",
        ),
        raw(
            "CL.0 with HEAD",
            lines("HEAD /v HTTP/1.1", HOST, f"Content-Length: {len(HIDDEN)}", "") + HIDDEN,
            called("<hidden>", method="HEAD"),
            KEPT,
            why="As above",
        ),
        raw(
            "GET with what is no request behind it",
            lines("GET /v HTTP/1.1", HOST, "") + b"abc",
            called(method="GET"),
            501,
            why="9112 6.3 (7): no body; `abcGET` is no method that is known here",
        ),
        post(
            "longer than what comes",
            "Content-Length: 300",
            "abc",
            WAITS,
            why="9112 8: an incomplete request is not served",
        ),
        raw(
            "in HTTP/1.0",
            lines("POST /v HTTP/1.0", "Content-Length: 3", "") + b"abc" + HIDDEN,
            called("abc"),
            CLOSED,
            why="9112 9.3: no keep-alive was asked for; what follows is not read",
        ),
        raw(
            "none in HTTP/1.0",
            lines("POST /v HTTP/1.0", "") + b"abc",
            called(),
            CLOSED,
            why="9112 6.3 (7): a request's body never ends with the connection",
        ),
    ],
)

# Chunks

LAST = "0\r\n\r\n"
SIZE = "9112 7.1: a chunk size is hexadecimal digits"
EXTENSION = "9112 7.1.1: a malformed extension"
ENDS = "9112 7.1: chunk data ends with CRLF where its size says"
TRAILER = "9110 6.5.1: a trailer is not merged; all of them are dropped"


def chunked(
    name: str, body: str | bytes, *outcome: int | str, why: str, shown: bytes = b""
) -> Vector:
    made = post(name, TE + "chunked", body, *outcome, why=why)
    return made._replace(shown=shown or as_bytes(body))


def size(text: str, *outcome: int | str, why: str, name: str = "") -> Vector:
    return chunked(name, f"{text}\r\nabc\r\n{LAST}", *outcome, why=why)


CHUNKS = Section(
    "Chunks",
    "Each is the body of a POST with `Transfer-Encoding: chunked`. Nothing of it reaches the "
    "application before all of it has come.",
    [
        *(
            size(text, called("abc"), KEPT, why=why)
            for text, why in (
                ("3", "9112 7.1"),
                ("003", "9112 7.1: leading zeros are digits"),
                ("3;x", "9112 7.1.1: unknown extensions are ignored"),
                ("3;x=y;z", "9112 7.1.1"),
                ('3;x="q;\\" "', "9112 7.1.1: a quoted value"),
            )
        ),
        size("0" * 60 + "3", called("abc"), KEPT, why="9112 7.1", name="sixty zeros"),
        chunked("upper case", "A\r\n0123456789\r\n0\r\n\r\n", called("0123456789"), KEPT, why=SIZE),
        chunked("lower case", "a\r\n0123456789\r\n0\r\n\r\n", called("0123456789"), KEPT, why=SIZE),
        *(
            size(text, 400, why=SIZE)
            for text in (
                "0x3",
                "+3",
                "-3",
                " 3",
                "\t3",
                "3 ",
                "3\t",
                "3.0",
                "3,x",
                "3 x",
                "3=x",
                "g",
                "",
                "\xb3",
                "three",
            )
        ),
        size("3 ;x", 400, why="Stricter than 9112 7.1.1, which lets white space stand here"),
        size("3; x", 400, why="As above"),
        *(size(text, 400, why=EXTENSION) for text in ("3;", "3;;", '3;x="', "3;\0", "3;x=\x80")),
        size(
            "3;x=",
            called("abc"),
            KEPT,
            why="Laxer than 9112 7.1.1, where a value has a character; the line ends all the same",
        ),
        chunked("quoted CRLF", f'3;x="\r\nabc\r\n{LAST}"\r\nabc\r\n{LAST}', 400, why=EXTENSION),
        chunked("extension, LF", f"3;x\nabc\r\n{LAST}", 400, why=BARE),
        chunked("extension, CR", f"3;x\rabc\r\n{LAST}", 400, why=BARE),
        chunked("extension, CR CR LF", f"3;x\r\r\nabc\r\n{LAST}", 400, why=BARE),
        chunked("size, LF", f"3\nabc\r\n{LAST}", 400, why=BARE),
        chunked("size, CR", f"3\rabc\r\n{LAST}", 400, why=BARE),
        chunked("size, CR CR LF", f"3\r\r\nabc\r\n{LAST}", 400, why=BARE),
        chunked("data, LF", f"3\r\nabc\n{LAST}", 400, why=ENDS),
        chunked("data, CR", f"3\r\nabc\r{LAST}", 400, why=ENDS),
        chunked("data, nothing", f"3\r\nabc{LAST}", 400, why=ENDS),
        chunked("data, two other bytes", f"3\r\nabcXY{LAST}", 400, why=ENDS),
        chunked("data too long", f"3\r\nabcde\r\n{LAST}", 400, why=ENDS),
        chunked("data too short", f"3\r\nab\r\n{LAST}", 400, why=ENDS),
        *(
            size(text, 400, why="9112 7.1: no integer overflow", name=name)
            for text, name in (("10000000000000003", "2^64 + 3"), ("f" * 17, "17 times f"))
        ),
        size(
            "f" * 16,
            WAITS,
            why="9112 7.1: a size like any other, until `limit_request_body` is reached",
            name="2^64 - 1",
        ),
        *(
            chunked("", f"3\r\nabc\r\n{text}\r\n\r\n", *outcome, why=why)
            for text, outcome, why in (
                ("00", (called("abc"), KEPT), "9112 7.1: the last chunk is one or more zeros"),
                ("0;x", (called("abc"), KEPT), "9112 7.1.1"),
                ("0 ", (400,), SIZE),
                ("-0", (400,), SIZE),
                ("0x0", (400,), SIZE),
            )
        ),
        chunked("end, LF", "0\n\n", 400, why=BARE),
        chunked("end, CRLF LF", "0\r\n\n", 400, why=BARE),
        chunked("end, CRLF CR", "0\r\n\r\r\n", 400, why=BARE),
        chunked(
            "no empty line at the end",
            b"0\r\n" + HIDDEN,
            400,
            why="9112 7.1: what follows is a trailer, and `GET /hidden HTTP/1.1` is none",
        ),
        chunked("end and one more CRLF", LAST + "\r\n", called(), KEPT, why="9112 2.2"),
        chunked(
            "a request behind the end",
            LAST.encode() + HIDDEN,
            called(),
            called(method="GET", target="/hidden"),
            KEPT,
            why="9112 9.3.2",
        ),
        *(
            chunked("", f"0\r\n{line}\r\n\r\n", called(), KEPT, why=TRAILER)
            for line in (
                "X-A: 1",
                "Host: evil",
                "Authorization: x",
                "Cookie: a=1",
                "X-Forwarded-For: 6.6.6.6",
                "Connection: close",
                "Upgrade: h2c",
                "Expect: 100-continue",
            )
        ),
        *(
            chunked("", f"0\r\n{line}\r\n\r\n", 400, why="9110 6.5.1: forbidden")
            for line in ("Content-Length: 50", TE + "chunked", TE + "gzip")
        ),
        *(
            chunked("", f"0\r\n{line}\r\n\r\n", 400, why=why)
            for line, why in (
                ("X-A : 1", COLON),
                ("X-A: 1\r\n x", FOLD),
                (" X-A: 1", FOLD),
                ("X-A: 1\nX-B: 2", BARE),
                ("X-A: 1\rX-B: 2", BARE),
                ("X-A: \0", NO_CONTROL),
                ("no colon", NO_TOKEN),
            )
        ),
        chunked(
            "70,000 bytes of extension",
            f"3;{'x' * 70_000}\r\nabc\r\n{LAST}",
            431,
            why="9112 7.1.1: a limit to the whole of the extensions",
        ),
        chunked(
            "2,000 bytes of extension to each byte",
            f"1;{'x' * 2000}\r\na\r\n" * 50 + LAST,
            431,
            why="As above: 64 KiB, and 32 bytes to each byte of the body",
            shown=b"1;xxx...\r\na\r\n1;xxx...",
        ),
        chunked(
            "20,000 trailers",
            "0\r\n" + "X: 1\r\n" * 20_000 + "\r\n",
            431,
            why="9110 5.4",
            shown=b"0\r\nX: 1\r\nX: 1...",
        ),
    ],
)

BODIES = [BOTH, CODINGS, LENGTHS, CHUNKS]
