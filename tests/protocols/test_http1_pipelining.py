"""What is made of many requests at once is bounded: a small head becomes large objects."""

from __future__ import annotations

import tracemalloc
from io import BytesIO

import pytest
from codec_harness import received

from protocols.http1 import Http1Codec
from protocols.model import Limits

#: As much as is ever read at once.
READ = 1 << 18

MOST_AT_ONCE = 32


def head(number, *fields):
    return b"\r\n".join((b"GET /%x HTTP/1.1" % number, b"Host:", *fields, b"", b""))


def tiny(number):
    return head(number % 2)


def different(number):
    return head(number)


def with_many_fields(number):
    return head(number, *(b"%c%c:%x" % (65 + at // 26, 65 + at % 26, number) for at in range(99)))


@pytest.mark.parametrize("make", [tiny, different, with_many_fields])
def test_objects_of_one_call_are_bounded(make):
    """Whatever the requests are: some hundred KiB, where all at once would be megabytes."""
    data = b"".join(map(make, range(READ // len(make(READ)))))
    codec = Http1Codec(Limits())
    tracemalloc.start()
    events = codec.receive(data)
    for event in events:
        event.environ["wsgi.input"] = BytesIO(event.body)  # as a driver does
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(events) == MOST_AT_ONCE
    assert data.endswith(codec.rest)
    assert held - len(codec.rest) < 400_000


def test_everything_is_decoded_in_the_end_and_in_order():
    data = b"".join(map(different, range(1000)))
    batches = list(received(Http1Codec(Limits()), data))
    assert max(map(len, batches)) == MOST_AT_ONCE
    paths = [event.environ["PATH_INFO"] for batch in batches for event in batch]
    assert paths == [f"/{number:x}" for number in range(1000)]


def test_nothing_is_put_off_behind_the_last_request():
    codec = Http1Codec(Limits())
    last = head(0, b"Connection: close")
    assert len(codec.receive(tiny(0) * (MOST_AT_ONCE - 1) + last + tiny(0))) == MOST_AT_ONCE
    assert (codec.rest, codec.closing) == (b"", True)
