"""HTTP/1.1: how bodies are framed (RFC 9112 sections 6 and 7)."""

from codec_harness import Case
from http_words import HOST, chunked, get, message, post, sized, unsized, want

NEXT = get(target="/next")
next_ = want("/next")
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
UPGRADE = ("Connection: upgrade", "Upgrade: websocket")

#: name, what follows the head, the body
CHUNKS = [
    ("one", b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
    ("several", b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", b"abc"),
    ("none", b"0\r\n\r\n", b""),
    ("hexadecimal", b"a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n", b"01234567890123456789a"),
    ("leading zeros", b"0003\r\nabc\r\n000\r\n\r\n", b"abc"),
    ("extensions", b'3;a;b=c;d="e f"\r\nabc\r\n0;x\r\n\r\n', b"abc"),
    ("empty lines in the body", b"8\r\n\r\n\r\n\r\n\r\n\r\n0\r\n\r\n", b"\r\n" * 4),
    ("an end in the body", b"7\r\n0\r\n\r\nxy\r\n0\r\n\r\n", b"0\r\n\r\nxy"),
    ("line feeds in the body", b"3\r\n\n\r\n\r\n0\r\n\r\n", b"\n\r\n"),
    ("trailers", b"3\r\nabc\r\n0\r\nX-T: t\r\nHost: b\r\nHost: c\r\n\r\n", b"abc"),
    ("trailer spoofing", b"0\r\nX-Forwarded-For: e\r\nCookie: e\r\nProxy: e\r\n\r\n", b""),
    ("trailer close", b"3\r\nabc\r\n0\r\nConnection: close\r\n\r\n", b"abc"),
    ("trailer upgrade", b"0\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", b""),
]

CASES = [
    *(
        Case(f"chunked: {name}", chunked(body) + NEXT, [unsized(wanted), next_])
        for name, body, wanted in CHUNKS
    ),
    Case("chunked, any case", post("Transfer-Encoding: Chunked ", body=b"0\r\n\r\n"),
         [unsized(b"")]),
    Case("chunked GET", get("Transfer-Encoding: chunked", body=b"1\r\nx\r\n0\r\n\r\n") + NEXT,
         [want(body=b"x", length=-1), next_]),
    Case("chunked and close", chunked(b"1\r\nx\r\n0\r\n\r\n", "Connection: close") + NEXT,
         [unsized(b"x", keep_alive=False)], closing=True),
    Case("chunked twice", chunked(b"1\r\nx\r\n0\r\n\r\n") * 2 + NEXT,
         [unsized(b"x"), unsized(b"x"), next_]),
    Case("sized", post("Content-Length: 3", body=b"abc") + NEXT, [sized(b"abc"), next_]),
    Case("sized GET", get("Content-Length: 1", body=b"x") + NEXT,
         [want(body=b"x", length=1, env={"CONTENT_LENGTH": "1"}), next_]),
    Case("sized, leading zeros", post("Content-Length: 003", body=b"abc") + NEXT,
         [sized(b"abc"), next_]),
    Case("sized, a request as its body", post(f"Content-Length: {len(NEXT)}", body=NEXT) + NEXT,
         [sized(NEXT), next_]),
    Case("sized, close, data", post("Content-Length: 1", "Connection: close", body=b"xyz"),
         [sized(b"x", keep_alive=False)], closing=True),
    Case("sized 1.0 keep-alive",
         message("POST / HTTP/1.0", HOST, "Connection: keep-alive", "Content-Length: 1", body=b"x")
         + NEXT, [sized(b"x", http="HTTP/1.0", keep_alive=True), next_]),
    Case("no length, no body", post() + NEXT, [want(method="POST"), next_]),
    Case("upgrade with a sized body", post(*UPGRADE, "Content-Length: 3", body=b"abc") + NEXT,
         [sized(b"abc"), next_]),
    Case("upgrade with chunks", chunked(b"1\r\nx\r\n0\r\nUpgrade: y\r\n\r\n", *UPGRADE) + NEXT,
         [unsized(b"x"), next_]),
    # Expectations (RFC 9110 section 10.1.1)
    Case("expect, sized", post("Expect: 100-continue", "Content-Length: 1", body=b"x"),
         [sized(b"x")], outbox=CONTINUE),
    Case("expect, body later", [post("Expect: 100-Continue", "Content-Length: 1"), b"x"],
         [sized(b"x")], outbox=CONTINUE),
    Case("expect, chunked", chunked(b"0\r\n\r\n", "Expect: 100-continue"), [unsized(b"")],
         outbox=CONTINUE),
    *(
        Case(f"expect: {value}", post(f"Expect: {value}", "Content-Length: 1", body=b"x"),
             [sized(b"x")], outbox=CONTINUE)
        for value in ("100-continue, 100-continue", "100-continue,", ",, 100-Continue")
    ),
    Case("expect nothing", post("Expect:", "Content-Length: 1", body=b"x"), [sized(b"x")]),
    Case("expect without a body", post("Expect: 100-continue", "Content-Length: 0"),
         [sized(b"")]),
    Case("expect in 1.0 ignored",
         message("POST / HTTP/1.0", HOST, "Expect: 100-continue", "Content-Length: 1", body=b"x"),
         [sized(b"x", http="HTTP/1.0")], closing=True),
    Case("expect something else", post("Expect: 200-ok", "Content-Length: 1"), refused="417"),
    Case("expect twice", post("Expect: 100-continue", "Expect: x", "Content-Length: 1"),
         refused="417"),
    Case("expect is answered once a request",
         post("Expect: 100-continue", "Content-Length: 1", body=b"x") * 2,
         [sized(b"x"), sized(b"x")], outbox=CONTINUE * 2),
    # A number of any length
    Case("length with thousands of zeros",
         post("Content-Length: " + "0" * 6000 + "3", body=b"abc") + NEXT,
         [sized(b"abc"), next_]),
    Case("length of zeros", post("Content-Length: " + "0" * 6000) + NEXT, [sized(b""), next_]),
    # The end of the connection
    Case("end in a sized body", post("Content-Length: 3", body=b"ab"),
         [sized(b"ab", announced=3, whole=False)], eof="middle of a request body"),
    Case("end before a sized body", post("Content-Length: 3"),
         [sized(b"", announced=3, whole=False)], eof="middle of a request body"),
    Case("end in a chunk", chunked(b"3\r\nab"), [unsized(b"ab", whole=False)],
         eof="middle of a request body"),
    Case("end after a chunk", chunked(b"2\r\nab\r\n"), [unsized(b"ab", whole=False)],
         eof="middle of a request body"),
    Case("end in the trailers", chunked(b"0\r\nX: y\r\n"), [unsized(b"", whole=False)],
         eof="middle of a request body"),
]  # fmt: skip
