"""FastCGI as nginx, Apache, lighttpd, Caddy, HAProxy and cgi-fcgi send it.

``captures/`` holds whole recorded connections; only names of folders of the recording
machine were replaced, by others of the same length.
"""

import struct
from pathlib import Path

from codec_captures import captures, environ_of
from codec_harness import Case, Seen
from fastcgi_words import BEGIN, DATA, GET_VALUES, PARAMS, RESULT, STDIN, answered, block


def records(data: bytes):
    """Type, id, content and the whole of each record."""
    at = 0
    while at < len(data):
        _, kind, number, length, padding, _ = struct.unpack_from(">BBHHBB", data, at)
        after = at + 8 + length + padding
        yield kind, number, data[at + 8 : at + 8 + length], data[at:after]
        at = after


def pairs(content: bytes):
    at = 0
    while at < len(content):
        sizes = []
        for _ in "nv":
            size = content[at]
            if size < 128:
                at += 1
            else:
                size = struct.unpack_from(">I", content, at)[0] & 0x7FFFFFFF
                at += 4
            sizes.append(size)
        name, value = content[at : at + sizes[0]], content[at + sizes[0] : at + sum(sizes)]
        yield name.decode("latin-1"), value.decode("latin-1")
        at += sum(sizes)


def case(name: str, data: bytes, notes: dict) -> Case:
    """One send a request, as a front end waits for the answer before it uses an id again."""
    sends, outbox, requests = [], b"", []
    for kind, number, content, raw in records(data):
        if kind == BEGIN and requests:
            sends.append(b"")
        sends = sends or [b""]
        sends[-1] += raw
        if kind == GET_VALUES:
            answers = {"FCGI_MAX_REQS": "32000", "FCGI_MPXS_CONNS": "1"}
            outbox += answered(RESULT, 0, block((key, answers[key]) for key, _ in pairs(content)))
        elif kind == BEGIN:
            keep = bool(content[2] & 1)
            requests.append((Seen({}, stream=number, keep_alive=keep), bytearray()))
        elif kind == PARAMS:
            requests[-1][1].extend(content)
        elif kind == STDIN:
            requests[-1][0].body += content
        else:
            assert kind < DATA
    recorded = []
    for seen, content in requests:
        sent = [list(item) for item in pairs(bytes(content))]
        recorded.append(sent)
        seen.environ = environ_of(sent)
        length = seen.environ.get("CONTENT_LENGTH", "")
        seen.length = int(length) if length not in ("", "-1") else -1
        seen.head_only = seen.environ["REQUEST_METHOD"] == "HEAD"
    # The recorder decoded the request that its notes are about: the same as this reader.
    assert notes["params"] in recorded
    return Case(f"capture: {name}", sends, [seen for seen, _ in requests], outbox=outbox)


CASES = [case(*capture) for capture in captures(Path(__file__).parent / "captures")]
