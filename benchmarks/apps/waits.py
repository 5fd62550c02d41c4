"""Time: sleeping without the interpreter's lock, computing with it."""

import time

from hello import BODY, HEADERS, STATUS


def _spin(seconds):
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


def sleep(_environ, start_response):
    time.sleep(0.02)
    start_response(STATUS, list(HEADERS))
    return [BODY]


def compute(environ, start_response):
    """One millisecond of CPU, or as many as the query says."""
    _spin(int(environ.get("QUERY_STRING") or 1) / 1000)
    start_response(STATUS, list(HEADERS))
    return [BODY]
