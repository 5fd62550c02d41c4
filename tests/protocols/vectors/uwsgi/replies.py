"""uwsgi: the bytes of answers: an HTTP status line first, never chunks, the body as it is."""

from codec_harness import Reply
from uwsgi_words import ask

GET = ask({"REQUEST_METHOD": "GET"})
HEAD = ask({"REQUEST_METHOD": "HEAD"})
OK = b"HTTP/1.1 200 OK\r\n"


def reply(name: str, request: bytes, wire: bytes, **more) -> Reply:
    return Reply(name, request, wire, keep_alive=False, closes=True, **more)


REPLIES = [
    reply("one shot", GET, OK + b"X: y\r\nContent-Length: 3\r\n\r\nabc",
          headers=[("X", "y")], data=b"abc"),
    reply("one shot, empty", GET, OK + b"Content-Length: 0\r\n\r\n"),
    reply("Location", GET, b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
          status="302 Found", headers=[("Location", "/x")]),
    reply("own length", GET, OK + b"content-length: 3\r\n\r\nabc",
          headers=[("content-length", "3")], data=b"abc"),
    reply("pieces", GET, OK + b"\r\nabcd", pieces=[b"abc", b"", b"d"]),
    reply("pieces of known length", GET, OK + b"Content-Length: 4\r\n\r\nabcd",
          pieces=[b"abc", b"d"], length=4),
    reply("latin-1", GET, b"HTTP/1.1 200 \xe9\r\nX: \xff\r\nContent-Length: 0\r\n\r\n",
          status="200 \xe9", headers=[("X", "\xff")]),
    reply("HEAD", HEAD, OK + b"Content-Length: 3\r\n\r\n", data=b"abc"),
    reply("HEAD of nothing", HEAD, OK + b"\r\n"),
    reply("204", GET, b"HTTP/1.1 204 No Content\r\n\r\n", status="204 No Content",
          headers=[("Content-Length", "3")], data=b"abc"),
    reply("205", GET, b"HTTP/1.1 205 Reset\r\n\r\n", status="205 Reset", pieces=[b"abc"]),
    reply("304", GET, b"HTTP/1.1 304 N\r\nContent-Length: 3\r\n\r\n", status="304 N",
          headers=[("Content-Length", "3")], data=b"abc"),
]  # fmt: skip
