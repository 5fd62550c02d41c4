"""CPU microseconds per request of each codec alone: bytes in, request, bytes out."""

from __future__ import annotations

import time

from benchmarks.apps.hello import BODY, HEADERS, STATUS
from benchmarks.payloads import PAYLOADS
from protocols import codec_class
from protocols.model import Limits

_MINIMAL = {"Host": "127.0.0.1"}


def run(rounds, requests):
    """Yield lines of Markdown."""
    yield "### Codecs alone"
    yield ""
    yield "| codec | request | bytes | receive µs | reply µs | together µs |"
    yield "|---|---|---:|---:|---:|---:|"
    for name, payload in PAYLOADS.items():
        for kind, data in (("browser's", payload()), ("smallest", payload(_MINIMAL, "/"))):
            codec = codec_class(name)
            both = min(_microseconds(codec, data, requests, True) for _ in range(rounds))
            receive = min(_microseconds(codec, data, requests, False) for _ in range(rounds))
            yield (
                f"| {name} | {kind} | {len(data)} | {receive:.2f} | {both - receive:.2f} "
                f"| {both:.2f} |"
            )
    yield ""


def _microseconds(codec_type, data, requests, answers):
    """One connection of keep-alive requests, or a codec for each where it closes."""
    limits = Limits()
    codec = codec_type(limits)
    started = time.process_time_ns()
    for _ in range(requests):
        if codec.closing:
            codec = codec_type(limits)
        (request,) = codec.receive(data)
        if answers:
            codec.reply(request, STATUS, HEADERS, BODY)
        else:
            request.ended = True
    return (time.process_time_ns() - started) / requests / 1000
