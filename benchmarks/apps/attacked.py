"""What is asked of a server that is under attack: a few bytes, many bytes, a body to read."""

from hello import BODY, STATUS

TEN_MEGABYTES = 10 << 20


def app(environ, start_response):
    environ["wsgi.input"].read()
    body = b"x" * TEN_MEGABYTES if environ["PATH_INFO"] == "/large" else BODY
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
    start_response(STATUS, headers)
    return [body]
