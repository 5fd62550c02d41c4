"""Spartan: requests, refusals, limits and answers."""

from codec_harness import Case, Reply, Seen
from hypothesis import strategies as st


def want(path: str = "/", body: bytes = b"", decoded: str | None = None, **seen) -> Seen:
    length = seen.setdefault("length", len(body))
    environ = {
        "REQUEST_METHOD": "POST" if length else "GET",
        "SERVER_PROTOCOL": "SPARTAN",
        "REQUEST_URI": path,
        "SCRIPT_NAME": "",
        "PATH_INFO": path if decoded is None else decoded,
        "QUERY_STRING": "",
        "CONTENT_LENGTH": str(length),
        "HTTP_HOST": "a.example",
    }
    return Seen(environ, body=body, keep_alive=False, **seen)


def check_refusal(reason: str, reply: bytes) -> None:
    assert reply == f"4 {reason}\r\n".encode()


MALFORMED = [b"\r\n", b"a / 0 \r\n", b"a /\r\n", b"a x 0\r\n", b"a / -1\r\n", b"a /\xe9 0\r\n",
             b" / 0\r\n", b"a / " + b"1" * 5000 + b"\r\n", b"\x16\x03\x01\r\n"]  # fmt: skip

CASES = [
    Case("page", b"a.example / 0\r\n", [want()], closing=True),
    Case("escapes", b"a.example /a%20b 0\r\n", [want("/a%20b", decoded="/a b")], closing=True),
    Case("body", b"a.example /up 5\r\nhello", [want("/up", b"hello")], closing=True),
    Case("surplus", b"a.example / 2\r\nhello", [want(body=b"he")], closing=True),
    *(Case(f"refused {line[:12]!r}", line, refused="the request line is malformed")
      for line in MALFORMED),
    *(Case(f"line of {10 + off}", b"a.example " + b"/" * (off + 2),
           refused="the request line is too long" if off > 0 else "",
           eof="" if off > 0 else "middle of a request", limits={"request_line": 11})
      for off in (-1, 0, 1)),
    Case("body at the limit", b"a.example / 3\r\nabc", [want(body=b"abc")], closing=True,
         limits={"request_body": 3}),
    Case("body above the limit", b"a.example / 4\r\nabcd", refused="the request body is too large",
         limits={"request_body": 3}),
    Case("nothing", b""),
    Case("end in the line", b"a.example", eof="in the middle of a request"),
    Case("end in the body", b"a.example / 3\r\nab", [want(body=b"ab", length=3, whole=False)],
         eof="in the middle of a request"),
]  # fmt: skip

REPLIES = [
    Reply("page", b"a.example / 0\r\n", b"2 text/gemini\r\n# hi", data=b"# hi", closes=True,
          headers=[("Content-Type", "text/gemini")]),
    Reply("pieces", b"a.example / 0\r\n", b"2 application/octet-stream\r\nab", closes=True,
          pieces=[b"a", b"", b"b"]),
    Reply("redirect", b"a.example / 0\r\n", b"3 /x\r\n", status="302 Found", closes=True,
          headers=[("Location", "/x")], data=b"moved"),
    Reply("missing", b"a.example / 0\r\n", b"4 Not Found\r\n", status="404 Not Found", closes=True),
    Reply("failure", b"a.example / 0\r\n", b"5 Oops\r\n", status="500 Oops", closes=True),
]  # fmt: skip

STRUCTURED = st.lists(
    st.sampled_from([b"a.example", b" ", b"/", b"0", b"5", b"\r\n", b"%41", b"\n", b"hello"]),
    max_size=10,
).map(b"".join)

LONG = {"a body": lambda n: b"a.example / %d\r\n%b" % (n, b"x" * n)}
