"""HTTP/1.1: the bytes of answers (RFC 9112 sections 4, 6, 7 and 9; RFC 9110 section 8.6)."""

from codec_harness import Reply
from http_words import HOST, get, message

GET = get()
HEAD = message("HEAD / HTTP/1.1", HOST)
CLOSE = get("Connection: close")
OLD = message("GET / HTTP/1.0")
OLD_KEPT = message("GET / HTTP/1.0", "Connection: keep-alive")
OLD_HEAD = message("HEAD / HTTP/1.0", "Connection: keep-alive")
TYPE = [("Content-Type", "text/plain")]


def wire(*lines: str, body: bytes = b"", status: str = "200 OK") -> bytes:
    """``lines`` follow the status; Server comes before what frames the body."""
    return message(f"HTTP/1.1 {status}", *lines, body=body)


OURS = "Server: gateway"

REPLIES = [
    Reply("one shot", GET, wire("Content-Type: text/plain", OURS, "Content-Length: 3", body=b"abc"),
          headers=TYPE, data=b"abc"),
    Reply("one shot, empty", GET, wire(OURS, "Content-Length: 0")),
    Reply("own length", GET, wire("content-length: 3", OURS, body=b"abc"),
          headers=[("content-length", "3")], data=b"abc"),
    Reply("own Date and Server", GET, wire("date: x", "server: y", "Content-Length: 0"),
          headers=[("date", "x"), ("server", "y")]),
    Reply("repeated headers keep their order", GET,
          wire("Set-Cookie: a=1", "X: y", "Set-Cookie: b=2", OURS, "Content-Length: 0"),
          headers=[("Set-Cookie", "a=1"), ("X", "y"), ("Set-Cookie", "b=2")]),
    Reply("latin-1", GET, wire("X: caf\xe9\tx", OURS, "Content-Length: 0", status="200 Caf\xe9"),
          status="200 Caf\xe9", headers=[("X", "caf\xe9\tx")]),
    Reply("no reason phrase", GET, wire(OURS, "Content-Length: 0", status="299 "),
          status="299 "),
    Reply("chunks", GET,
          wire(OURS, "Transfer-Encoding: chunked",
               body=b"3\r\nabc\r\na\r\n0123456789\r\n0\r\n\r\n"),
          pieces=[b"abc", b"", b"0123456789"]),
    Reply("chunks of nothing", GET, wire(OURS, "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
          pieces=[]),
    Reply("pieces of known length", GET, wire(OURS, "Content-Length: 5", body=b"abcde"),
          pieces=[b"ab", b"", b"cde"], length=5),
    Reply("own length wins", GET, wire("Content-Length: 5", OURS, body=b"abcde"),
          headers=[("Content-Length", "5")], pieces=[b"ab", b"cde"], length=7),
    Reply("close asked for", CLOSE, wire(OURS, "Content-Length: 1", "Connection: close", body=b"x"),
          data=b"x", closes=True),
    Reply("close decided here", GET,
          wire(OURS, "Content-Length: 1", "Connection: close", body=b"x"),
          data=b"x", keep_alive=False, closes=True),
    Reply("chunks and close", CLOSE,
          wire(OURS, "Transfer-Encoding: chunked", "Connection: close",
               body=b"1\r\nx\r\n0\r\n\r\n"),
          pieces=[b"x"], closes=True),
    # HTTP/1.0 knows no chunks: the end of the connection ends the body.
    Reply("1.0", OLD, wire(OURS, "Content-Length: 1", "Connection: close", body=b"x"),
          data=b"x", closes=True),
    Reply("1.0 until close", OLD, wire(OURS, "Connection: close", body=b"xy"),
          pieces=[b"x", b"y"], closes=True),
    Reply("1.0 kept", OLD_KEPT,
          wire(OURS, "Content-Length: 1", "Connection: keep-alive", body=b"x"),
          data=b"x"),
    Reply("1.0 kept, unknown length", OLD_KEPT, wire(OURS, "Connection: close", body=b"x"),
          pieces=[b"x"], closes=True),
    Reply("1.0 kept, HEAD", OLD_HEAD, wire(OURS, "Connection: keep-alive"), pieces=[b"x"]),
    # No body: HEAD, 204, 205, 304
    Reply("HEAD", HEAD, wire(OURS, "Content-Length: 3"), data=b"abc"),
    Reply("HEAD of nothing", HEAD, wire(OURS)),
    Reply("HEAD, own length", HEAD, wire("Content-Length: 7", OURS),
          headers=[("Content-Length", "7")]),
    Reply("HEAD, unknown length", HEAD, wire(OURS), pieces=[b"abc"]),
    Reply("204", GET, wire("X: y", OURS, status="204 No Content"), status="204 No Content",
          headers=[("X", "y"), ("Content-Length", "3")], data=b"abc"),
    Reply("204 in pieces", GET, wire(OURS, status="204 No Content"), status="204 No Content",
          pieces=[b"abc"]),
    Reply("205", GET, wire(OURS, "Content-Length: 0", status="205 Reset Content"),
          status="205 Reset Content", headers=[("Content-Length", "3")], data=b"abc"),
    Reply("304", GET, wire("ETag: x", OURS, status="304 Not Modified"),
          status="304 Not Modified", headers=[("ETag", "x")]),
    Reply("304 tells the length", GET, wire("Content-Length: 3", OURS, status="304 Not Modified"),
          status="304 Not Modified", headers=[("Content-Length", "3")], data=b"abc"),
    Reply("304, close", CLOSE, wire(OURS, "Connection: close", status="304 X"), status="304 X",
          pieces=[], closes=True),
]  # fmt: skip
