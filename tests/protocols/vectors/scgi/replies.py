"""SCGI: the bytes of answers: a CGI head with Status last, the body as it is."""

from codec_harness import Reply
from scgi_words import ask

GET = ask({"REQUEST_METHOD": "GET"})
HEAD = ask({"REQUEST_METHOD": "HEAD"})


def reply(name: str, request: bytes, wire: bytes, **more) -> Reply:
    return Reply(name, request, wire, keep_alive=False, closes=True, **more)


REPLIES = [
    reply("one shot", GET, b"X: y\r\nContent-Length: 3\r\nStatus: 200 OK\r\n\r\nabc",
          headers=[("X", "y")], data=b"abc"),
    reply("one shot, empty", GET, b"Content-Length: 0\r\nStatus: 200 OK\r\n\r\n"),
    reply("Status after Location", GET,
          b"Location: /x\r\nContent-Length: 0\r\nStatus: 302 Found\r\n\r\n",
          status="302 Found", headers=[("Location", "/x")]),
    reply("own length", GET, b"content-length: 3\r\nStatus: 200 OK\r\n\r\nabc",
          headers=[("content-length", "3")], data=b"abc"),
    reply("pieces", GET, b"Status: 200 OK\r\n\r\nabcd", pieces=[b"abc", b"", b"d"]),
    reply("pieces of known length", GET, b"Content-Length: 4\r\nStatus: 200 OK\r\n\r\nabcd",
          pieces=[b"abc", b"d"], length=4),
    reply("latin-1", GET, b"X: \xff\r\nContent-Length: 0\r\nStatus: 200 \xe9\r\n\r\n",
          status="200 \xe9", headers=[("X", "\xff")]),
    reply("HEAD", HEAD, b"Content-Length: 3\r\nStatus: 200 OK\r\n\r\n", data=b"abc"),
    reply("HEAD of nothing", HEAD, b"Status: 200 OK\r\n\r\n"),
    reply("204", GET, b"Status: 204 No Content\r\n\r\n", status="204 No Content",
          headers=[("Content-Length", "3")], data=b"abc"),
    reply("205", GET, b"Status: 205 Reset\r\n\r\n", status="205 Reset", pieces=[b"abc"]),
    reply("304", GET, b"Content-Length: 3\r\nStatus: 304 N\r\n\r\n", status="304 N",
          headers=[("Content-Length", "3")], data=b"abc"),
]  # fmt: skip
