"""Bodies in both directions: JSON, upload, download, generator, file."""

import json
import os
import tempfile
from functools import cache

MEGABYTE = 1 << 20
PIECE = bytes(16_384)
PIECES = 64
FILE_SIZE = 10 * MEGABYTE

_DOWNLOAD = bytes(MEGABYTE)
#: About 2 KB of JSON.
_RECORD = {
    "articles": [
        {"id": n, "title": f"Article number {n}", "tags": ["news", "python"], "score": n * 1.5}
        for n in range(25)
    ]
}
DOCUMENT = json.dumps(_RECORD).encode()


def _answer(start_response, kind, body):
    start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]


def document(_environ, start_response):
    return _answer(start_response, "application/json", json.dumps(_RECORD).encode())


def upload(environ, start_response):
    """Read the whole body; answer how long it was."""
    size = int(environ.get("CONTENT_LENGTH") or 0)
    seen = 0
    while seen < size:
        piece = environ["wsgi.input"].read(min(65_536, size - seen))
        if not piece:
            break
        seen += len(piece)
    return _answer(start_response, "text/plain", b"%d" % seen)


def download(environ, start_response):
    """One megabyte, or as many bytes as the query says."""
    body = _DOWNLOAD[: int(environ.get("QUERY_STRING") or MEGABYTE)]
    return _answer(start_response, "application/octet-stream", body)


def generator(_environ, start_response):
    """Pieces without a length: in HTTP/1.1 the server has to frame them."""
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return (PIECE for _ in range(PIECES))


@cache
def _file():
    """An open file without a name, left for the process to close."""
    descriptor, path = tempfile.mkstemp(prefix="bench-")
    os.truncate(descriptor, FILE_SIZE)
    os.unlink(path)
    return descriptor


def file(environ, start_response):
    """The file of an open descriptor by ``wsgi.file_wrapper``, by pieces where there is none."""
    start_response(
        "200 OK",
        [("Content-Type", "application/octet-stream"), ("Content-Length", str(FILE_SIZE))],
    )
    # Opened anew: every answer has an offset of its own.
    stream = open(f"/proc/self/fd/{_file()}", "rb")
    wrapper = environ.get("wsgi.file_wrapper")
    return wrapper(stream, 65_536) if wrapper else iter(lambda: stream.read(65_536), b"")
