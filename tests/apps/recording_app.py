"""Notes every request that it runs, by the unique ids in its URI: what the fuzzer serves.

Each request is one line in the file RECORD: the process, and the ids.  The answer holds the ids
and a digest of what the application saw; the first word of the path says how it is sent.
"""

import hashlib
import os
import re

RECORD = os.open(os.environ["RECORD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
FILE = os.environ["RECORD"] + ".page"
ID = re.compile(r"q[0-9a-f]{12}z")
#: More than any socket buffer takes at once.
LARGE = 400_000


def app(environ, start_response):
    ids = ID.findall(environ["REQUEST_URI"])
    os.write(RECORD, f"{os.getpid()} {' '.join(ids)}\n".encode())
    body = environ["wsgi.input"].read()
    path = environ["PATH_INFO"]
    said = "\n".join([environ["REQUEST_METHOD"], path, environ["QUERY_STRING"]])
    digest = hashlib.sha256(said.encode("latin-1") + body).hexdigest()[:16]
    text = f"{' '.join(ids)} {len(body)} {digest}\n".encode()
    headers = [("Content-Type", "text/plain")]
    way = path.split("/")[1:2]
    if way == ["file"]:
        start_response("200 OK", headers)
        return environ["wsgi.file_wrapper"](open(FILE, "rb"))
    if way == ["write"]:
        write = start_response("200 OK", headers)
        write(text)
        return [digest.encode()]
    if way == ["empty"]:
        start_response("204 No Content", headers)
        return []
    start_response("200 OK", headers)
    if way == ["stream"]:
        return (part + b" " for part in text.split(b" "))
    return [text + b"." * LARGE if way == ["large"] else text]
