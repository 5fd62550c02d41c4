"""13 bytes, a type and a length: what is left is the server."""

BODY = b"Hello, world!"
STATUS = "200 OK"
HEADERS = [("Content-Type", "text/plain"), ("Content-Length", "13")]


def app(_environ, start_response):
    start_response(STATUS, list(HEADERS))
    return [BODY]
