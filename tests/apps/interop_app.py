"""The application behind every server of tests/interop: the header X-App names which.

By a header and not by the path, so that each of them sees SCRIPT_NAME and PATH_INFO exactly as
the gateway made them.  Arguments come in the query string.
"""

import hashlib
import json
import os
import random
import select
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from urllib.parse import parse_qs
from wsgiref.validate import validator

sys.path.insert(0, str(Path(__file__).parent))

CHUNK = 64 * 1024


def arguments(environ):
    return {name: values[-1] for name, values in parse_qs(environ["QUERY_STRING"]).items()}


def environ_as_json(environ, start_response):
    """Every variable that is text, and what the others say of themselves."""
    seen = {name: value for name, value in environ.items() if isinstance(value, (str, bool))}
    seen["wsgi.version"] = list(environ["wsgi.version"])
    seen["body"] = environ["wsgi.input"].read().decode("latin-1")
    data = json.dumps(seen).encode()
    headers = [("Content-Type", "application/json"), ("X-Probe", str(os.getpid()))]
    start_response("200 OK", headers)
    return [data]


def digest(environ, start_response):
    """The size and the SHA-256 of the upload, read to its end: no length needed."""
    total, sha = 0, hashlib.sha256()
    while data := environ["wsgi.input"].read(CHUNK):
        total += len(data)
        sha.update(data)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{total} {sha.hexdigest()}".encode()]


def ignore(_environ, start_response):
    """An answer that leaves the upload unread."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"did not look"]


def download(environ, start_response):
    """?size=N bytes in pieces; &length=1 announces them."""
    query = arguments(environ)
    data = random.Random(2).randbytes(int(query["size"]))
    headers = [
        ("Content-Type", "application/octet-stream"),
        ("X-SHA256", hashlib.sha256(data).hexdigest()),
    ]
    if query.get("length"):
        headers.append(("Content-Length", str(len(data))))
    start_response("200 OK", headers)
    return (data[start : start + CHUNK] for start in range(0, len(data), CHUNK))


def file(environ, start_response):
    """A temporary file of ?size=N bytes from ?start=N on, by wsgi.file_wrapper."""
    query = arguments(environ)
    start, size = int(query.get("start", 0)), int(query["size"])
    data = random.Random(3).randbytes(size)
    file = tempfile.TemporaryFile()
    file.write(data)
    file.seek(start)
    headers = [
        ("Content-Type", "application/octet-stream"),
        ("X-SHA256", hashlib.sha256(data[start:]).hexdigest()),
    ]
    if query.get("length"):
        headers.append(("Content-Length", str(size - start)))
    start_response("200 OK", headers)
    return environ["wsgi.file_wrapper"](file)


def status(environ, start_response):
    """?code=N, with an entity where the status has one; &location=… too."""
    query = arguments(environ)
    code = int(query["code"])
    headers = [("X-Probe", str(code))]
    if "location" in query:
        headers.append(("Location", query["location"]))
    data = b"" if code in {204, 304} else f"this is {code}\n".encode()
    if data:
        headers += [("Content-Type", "text/plain"), ("Content-Length", str(len(data)))]
    start_response(f"{code} As Asked", headers)
    return [data]


def answer_headers(environ, start_response):
    """Two cookies and one header of ?size=N bytes."""
    size = int(arguments(environ)["size"])
    headers = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Set-Cookie", "a=1; Path=/; HttpOnly"),
        ("Set-Cookie", "b=2; Expires=Thu, 01 Jan 2099 00:00:00 GMT"),
        ("X-Large", "v" * size),
        ("X-Latin", "caf\xe9"),
    ]
    start_response("200 OK", headers)
    return [b"look at the headers"]


def stream(environ, start_response):
    """Pieces, each after the client has seen the one before: it says so in the pipe ?pipe=…"""
    query = arguments(environ)
    pipe = os.open(query["pipe"], os.O_RDWR)

    def pieces():
        try:
            for number in range(int(query["pieces"])):
                if number:
                    ready, _, _ = select.select([pipe], [], [], 20)
                    if not ready or os.read(pipe, 1) != b"+":
                        break
                yield f"piece {number}\n".encode()
        finally:
            os.close(pipe)

    headers = [("Content-Type", "text/plain"), ("X-Accel-Buffering", "no")]
    start_response("200 OK", headers)
    return pieces()


def endless(environ, start_response):
    """Pieces without end; "closed" goes to the pipe ?pipe=… when nobody wants any more."""
    pipe = os.open(arguments(environ)["pipe"], os.O_RDWR)

    def pieces():
        try:
            while True:
                yield b"x" * CHUNK
        finally:
            os.write(pipe, b"closed")
            os.close(pipe)

    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Accel-Buffering", "no")])
    return pieces()


def broken(environ, start_response):
    """Fails before the head; with ?after=N, N bytes after it, of ten times as many announced."""
    after = int(arguments(environ).get("after", 0))
    if after:
        headers = [("Content-Type", "text/plain")]
        if arguments(environ).get("length"):
            headers.append(("Content-Length", str(10 * after)))
        start_response("200 OK", headers)
        yield b"x" * after
    raise RuntimeError("on purpose")


def written(_environ, start_response):
    """The write() callable of PEP 3333, then an iterable."""
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write(b"by write, ")
    return [b"by return"]


def validated_environ(environ, start_response):
    """For the validator, which wants exactly one argument to read()."""
    data = environ["wsgi.input"].read(CHUNK)
    text = f"{environ['SCRIPT_NAME']}|{environ['PATH_INFO']}|{len(data)}".encode("latin-1")
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))])
    return [text]


def framework(module, name):
    """Imported when it is first asked for: as a CGI program this starts for each request."""

    def imported(environ, start_response):
        return getattr(import_module(module), name)(environ, start_response)

    return imported


def named_file(environ, start_response):
    """?field=NAME&value=PATH: a file for the front end to send, with a type and a cookie."""
    query = arguments(environ)
    headers = [
        ("Content-Type", "text/x-own"),
        ("Set-Cookie", "a=1"),
        (query["field"], query["value"]),
    ]
    start_response("200 OK", headers)
    return [b""]


APPS = {
    "broken": broken,
    "digest": digest,
    "django": framework("django_app", "application"),
    "download": download,
    "endless": endless,
    "environ": environ_as_json,
    "file": file,
    "flask": framework("flask_app", "app"),
    "headers": answer_headers,
    "named file": named_file,
    "ignore": ignore,
    "status": status,
    "stream": stream,
    "validated": validator(validated_environ),
    "written": written,
}


def application(environ, start_response):
    return APPS[environ.get("HTTP_X_APP", "environ")](environ, start_response)
