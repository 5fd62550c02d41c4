"""FastCGI: the bytes of answers (sections 3.3, 5.3 and 5.5): Status last, records of 8n."""

from codec_harness import Reply
from fastcgi_words import STDOUT, answered, ask, end

GET = ask({"REQUEST_METHOD": "GET"}, number=3)
HEAD = ask({"REQUEST_METHOD": "HEAD"}, number=3)
CLOSE = ask({"REQUEST_METHOD": "GET"}, number=3, flags=0)
LARGE = bytes(range(256)) * 600


def out(*contents: bytes) -> bytes:
    """Records of STDOUT, its end, and the end of the request."""
    return b"".join(answered(STDOUT, 3, part) for part in contents) + answered(STDOUT, 3) + end(3)


REPLIES = [
    Reply("one shot", GET,
          out(b"Content-Type: text/plain\r\nContent-Length: 3\r\nStatus: 200 OK\r\n\r\nabc"),
          headers=[("Content-Type", "text/plain")], data=b"abc"),
    Reply("one shot, empty", GET, out(b"Content-Length: 0\r\nStatus: 200 OK\r\n\r\n")),
    Reply("no keep", CLOSE, out(b"Content-Length: 0\r\nStatus: 200 OK\r\n\r\n"),
          keep_alive=False, closes=True),
    Reply("Status after Location", GET,
          out(b"Location: /x\r\nContent-Length: 0\r\nStatus: 301 Moved\r\n\r\n"),
          status="301 Moved", headers=[("Location", "/x")]),
    Reply("own length", GET, out(b"Content-Length: 3\r\nStatus: 200 OK\r\n\r\nabc"),
          headers=[("Content-Length", "3")], data=b"abc"),
    Reply("own Date and Server", GET,
          out(b"Date: x\r\nServer: y\r\nContent-Length: 0\r\nStatus: 200 OK\r\n\r\n"),
          headers=[("Date", "x"), ("Server", "y")]),
    Reply("latin-1", GET, out(b"X: caf\xe9\r\nContent-Length: 0\r\nStatus: 200 Caf\xe9\r\n\r\n"),
          status="200 Caf\xe9", headers=[("X", "caf\xe9")]),
    Reply("pieces", GET, out(b"Status: 200 OK\r\n\r\n", b"abc", b"12345678"),
          pieces=[b"abc", b"", b"12345678"]),
    Reply("pieces of known length", GET,
          out(b"Content-Length: 5\r\nStatus: 200 OK\r\n\r\n", b"ab", b"cde"),
          pieces=[b"ab", b"cde"], length=5),
    Reply("more than a record", GET,
          out(b"Status: 200 OK\r\n\r\n", LARGE[:65528], LARGE[65528:131056], LARGE[131056:]),
          pieces=[LARGE]),
    Reply("one record and not a byte more", GET, out(b"Status: 200 OK\r\n\r\n", LARGE[:65528]),
          pieces=[LARGE[:65528]]),
    Reply("one byte more than a record", GET,
          out(b"Status: 200 OK\r\n\r\n", LARGE[:65528], LARGE[65528:65529]),
          pieces=[LARGE[:65529]]),
    Reply("HEAD", HEAD, out(b"Content-Length: 3\r\nStatus: 200 OK\r\n\r\n"), data=b"abc"),
    Reply("HEAD of nothing", HEAD, out(b"Status: 200 OK\r\n\r\n")),
    Reply("HEAD in pieces", HEAD, out(b"Status: 200 OK\r\n\r\n"), pieces=[b"abc"]),
    Reply("204", GET, out(b"X: y\r\nStatus: 204 No Content\r\n\r\n"), status="204 No Content",
          headers=[("X", "y"), ("Content-Length", "3")], data=b"abc"),
    Reply("205", GET, out(b"Status: 205 Reset\r\n\r\n"), status="205 Reset", data=b"abc"),
    Reply("304", GET, out(b"Content-Length: 3\r\nStatus: 304 Not Modified\r\n\r\n"),
          status="304 Not Modified", headers=[("Content-Length", "3")], data=b"abc"),
]  # fmt: skip
