"""The kept corpus holds, and what fuzzing looks for is found where it is."""

from __future__ import annotations

import sys
from pathlib import Path

import fuzz_corpus
import pytest

sys.path.append(str(Path(__file__).parents[1] / "protocols"))

from codec_properties import check_all
from fuzz_targets import TARGETS, check_answers

from protocols import headers
from protocols.builds import COMPILED
from protocols.http1 import Http1Codec
from protocols.scgi import ScgiCodec

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.mark.parametrize("target", TARGETS)
def test_the_kept_corpus(target):
    for data in fuzz_corpus.kept(target):
        TARGETS[target][0](data)


def test_the_corpus_is_small():
    assert {path.stem for path in fuzz_corpus.FOLDER.iterdir()} <= set(TARGETS)
    assert sum(path.stat().st_size for path in fuzz_corpus.FOLDER.iterdir()) < 100_000


class Raises(Http1Codec):
    def receive(self, data):
        if b"X" in data:
            raise ValueError(data)
        return super().receive(data)


class DependsOnCuts(Http1Codec):
    def receive(self, data):
        events = super().receive(data)
        for event in events:
            event.environ["QUERY_STRING"] = str(len(data))
        return events


class SearchesAgain(ScgiCodec):
    def receive(self, data):
        if self._buffer:
            self._buffer.find(b"never")
        return super().receive(data)


class Hoards(Http1Codec):
    def receive(self, data):
        self.hoard = [*getattr(self, "hoard", []), data * 5000]
        return super().receive(data)


class CannotAnswer(Http1Codec):
    def end(self, request):
        raise RuntimeError("no end")

    def reply(self, request, status, headers, data):
        raise RuntimeError("no reply")


@pytest.mark.parametrize(
    ("codec_class", "data", "error"),
    [
        (Raises, GET.replace(b"a", b"X"), ValueError),
        (DependsOnCuts, GET, AssertionError),
        (SearchesAgain, b"2990:" + b"x" * 2000, AssertionError),
        (Hoards, GET, AssertionError),
        (CannotAnswer, GET, RuntimeError),
    ],
)
def test_what_a_codec_breaks_is_found(codec_class, data, error):
    check_all(codec_class.__mro__[1], [data])
    with pytest.raises(error):
        check_all(codec_class, [data])


@pytest.mark.skipif(COMPILED, reason="what is compiled cannot be broken from here")
@pytest.mark.parametrize("kind", range(4))
def test_a_response_that_can_be_split_is_found(kind, monkeypatch):
    data = bytes([kind]) + b"\xfe\xfe".join([b"200 OK", b"X", b"a\r\nY: b", b""])
    check_answers(data)
    monkeypatch.setattr(headers, "_encoded", {})
    monkeypatch.setattr(headers, "_check_values", lambda *_: None)
    with pytest.raises(AssertionError):
        check_answers(data)
