"""What an application gives is judged by the same rules whether they are compiled or not."""

from __future__ import annotations

import threading
from time import monotonic

import pytest
from test_watchdog import Bench

FIELDS = [("Content-Type", "text/plain")]


def answered(status="200 OK", headers=FIELDS, body=(b"x",), exc_info=None):
    """The first line of the answer, and what was logged."""

    def application(environ, start_response):
        del environ
        start_response(status, headers, exc_info)
        return list(body)

    bench = Bench(application)
    bench.seat.ident = threading.get_ident()
    bench.exchange().run(bench.seat, monotonic())
    return bench.wire.written[0].split(b"\r\n")[0], bench.problems


@pytest.mark.parametrize("headers", [FIELDS, tuple(FIELDS), iter(FIELDS)])
def test_any_iterable_of_fields(headers):
    assert answered(headers=headers) == (b"HTTP/1.1 200 OK", [])


def test_no_exception_in_exc_info():
    assert answered(exc_info=(None, None, None)) == (b"HTTP/1.1 200 OK", [])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"status": b"200 OK"}, "the status must be a str, not bytes"),
        ({"status": 200}, "the status must be a str, not int"),
        ({"body": ("x",)}, "the application must yield bytes, not str"),
        ({"body": (bytearray(b"x"),)}, "the application must yield bytes, not bytearray"),
    ],
)
def test_what_is_wrong_is_said_in_our_words(wrong, said):
    assert answered(**wrong) == (b"HTTP/1.1 500 Internal Server Error", [said])
