"""What is fuzzed: each target is a function of bytes that raises if something is wrong.

The codecs are the installed ones; beside them stand what tells protocols apart, the
PROXY protocol's header, the variables of the CGI family, what makes an environ of them,
and the answers, of which every text is an application's.
"""

from __future__ import annotations

import logging
import random
import struct
import sys
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "protocols"))

from codec_harness import vectors
from codec_properties import check_all, cut, single_bytes

import protocols
from gateway.environ import BadVariables, CgiNormaliser, http_mounter
from gateway.service import _settler
from gateway.trust import FIELDS, Forwarding, Peers
from protocols import detect, fastcgi_records, scgi, speed, uwsgi
from protocols.cgi import body_length, drop_foreign, variables
from protocols.headers import BODYLESS
from protocols.http1_head import is_claim
from protocols.model import UNKNOWN, Limits, ProtocolError, Request
from protocols.proxy_protocol import VERSIONS, ProxyHeader

#: Between two parts of an input the requests of the first are answered.
ANSWERED = b"\n--answered--\n"

Check = Callable[[bytes], None]

NAMES = sorted(protocols.names())
CODECS = {name: protocols.codec_class(name) for name in NAMES}


def plain(error: Exception) -> str:
    """What is said of a refusal, which has to be one line for a person."""
    text = str(error)
    assert text
    assert text.isprintable()
    return text


def codec_target(name: str) -> Check:
    codec_class = CODECS[name]

    def check(data: bytes) -> None:
        check_all(codec_class, data.split(ANSWERED))

    return check


def codec_seeds(name: str) -> list[bytes]:
    return [ANSWERED.join(case.parts) for case in vectors(name).cases]


# The PROXY protocol's header: the first byte says which version is wanted.


def take_header(version: str, pieces: Sequence[bytes]) -> object:
    header = ProxyHeader(version)
    rest = b""
    for piece in pieces:
        if header.done:
            rest += piece
        elif piece:
            try:
                used = header.receive(piece)
            except ProtocolError as error:
                return plain(error)
            assert 0 <= used <= len(piece)
            assert header.done or used == len(piece)
            assert len(header._buffer) <= 1040
            rest += piece[used:]
    return header.announced, rest, header.done


def check_proxy_protocol(data: bytes) -> None:
    version, data = VERSIONS[1 + data[0] % 3] if data else "auto", data[1:]
    choices = random.Random(zlib.crc32(data))
    expected = take_header(version, [data])
    for pieces in (cut(data, [choices.randrange(2000)] * 2), single_bytes([data])[0]):
        assert take_header(version, pieces) == expected


def proxy_protocol_seeds() -> list[bytes]:
    from test_proxy_protocol import BAD, GOOD

    return [
        bytes([VERSIONS.index(version) - 1]) + data
        for version, data, _ in (*GOOD.values(), *BAD.values())
    ]


# Protocols told apart


def check_detect(data: bytes) -> None:
    """Whatever comes first: one plain line, and an answer of bytes."""
    for size in range(1, min(len(data), detect.FIRST_BYTES) + 1):
        first = data[:size]
        assert detect.by_first_byte(first[0]) in detect.CHOICES
        found = detect.identify(first)
        assert detect.identify(data[: detect.FIRST_BYTES]) is not None or found is None
        for protocol in (*NAMES, "tls"):
            told = detect.explain(first, protocol)
            assert (told is None) == (found in (None, protocol))
            if told is not None:
                reason, answer = told
                assert reason.isprintable()
                assert type(answer) is bytes


def detect_seeds() -> list[bytes]:
    found = [seed[:40] for name in NAMES for seed in codec_seeds(name)[:6]]
    return [*found, b"\x16\x03\x01\x02\0\x01", b"PRI * HTTP/2.0\r\n\r\n", b"PROXY UNKNOWN\r\n"]


# The compiled loops: what they do not leave to Python, they do as Python does

_LOOPS = (
    (speed.fastcgi_pairs, fastcgi_records, "fastcgi_pairs", fastcgi_records.decode_pairs),
    (speed.uwsgi_pairs, uwsgi, "uwsgi_pairs", uwsgi._pairs),
    (speed.scgi_pairs, scgi, "scgi_pairs", scgi._pairs),
)


def check_speed(data: bytes) -> None:
    for compiled, module, name, in_python in _LOOPS:
        found = compiled(data)
        if found is not None:
            setattr(module, name, lambda _: None)
            try:
                expected = in_python(data)
            finally:
                setattr(module, name, compiled)
            assert (found, [*found]) == (expected, [*expected])


def speed_seeds() -> list[bytes]:
    found = []
    for case in vectors("scgi").cases:
        for request in case.requests[:1]:
            texts = [text.encode("latin-1") for pair in request.environ.items() for text in pair]
            found.append(b"".join(text + b"\0" for text in texts))
            found.append(b"".join(struct.pack("<H", len(text)) + text for text in texts))
            short = [text[:127] for text in texts]
            pairs = zip(short[::2], short[1::2], strict=True)
            found.append(b"".join(bytes([len(a), len(b)]) + a + b for a, b in pairs))
    return found


# The variables of the CGI family, and the environ that is made of them


def split_pairs(data: bytes) -> tuple[list[str], list[str]]:
    texts = data.decode("latin-1").split("\0")
    return texts[:-1:2], texts[1::2]


def check_cgi(data: bytes) -> None:
    names, values = split_pairs(data)
    environ = variables(names, values)
    drop_foreign(environ)
    assert environ.keys() <= set(names)
    assert not environ.keys() & {"HTTP_PROXY", "HTTP_TRANSFER_ENCODING", "HTTP_CONTENT_LENGTH"}
    for name, value in environ.items():
        assert values[len(names) - 1 - names[::-1].index(name)] in value
    try:
        assert UNKNOWN <= body_length(environ) < 10**19
    except ValueError as error:
        plain(error)


def cgi_seeds() -> list[bytes]:
    requests = [case.requests[0].environ for case in vectors("scgi").cases if case.requests]
    blocks = ["".join(f"{name}\0{value}\0" for name, value in one.items()) for one in requests]
    blocks += [text + "CONTENT_LENGTH\0" + "-1\0HTTP_X\0a\0HTTP_X\0b\0" for text in blocks[:3]]
    return [block.encode("latin-1") for block in blocks]


_NOBODY = logging.Logger("fuzz", logging.CRITICAL)  # noqa: LOG001 - heard by nobody
_PARSED = {
    "REQUEST_METHOD": "GET",
    "REQUEST_URI": "/a/b?c",
    "PATH_INFO": "/a/b",
    "SCRIPT_NAME": "",
    "QUERY_STRING": "c",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "SERVER_NAME": "localhost",
    "SERVER_PORT": "80",
    "REMOTE_ADDR": "192.0.2.1",
    "wsgi.url_scheme": "http",
}
#: PEP 3333, "environ Variables": what must be there; and what the server itself needs.
_REQUIRED = _PARSED.keys() - {"REMOTE_ADDR"}
_MOUNTS = (None, "/a", "/")
_TRUSTED = (("*",), ("192.0.2.1", "unix", "10.0.0.0/8"), ("127.0.0.1",))


def check_environ(data: bytes) -> None:
    """What a front end, or a client through it, says: a whole environ, or a plain refusal."""
    names, values = split_pairs(data[1:])
    said = variables(names, values)
    drop_foreign(said)
    kind = data[0] if data else 0
    mount, trusted = _MOUNTS[kind % 3], _TRUSTED[kind // 3 % 3]
    is_origin, source = kind & 64, ("routed", "request_uri")[kind >> 7]
    forwarding = Forwarding(Peers(trusted), FIELDS, mounts=mount is None, log=_NOBODY)
    if is_origin:
        environ = _PARSED | {name: said[name] for name in said if name.startswith("HTTP_")}
        normaliser = http_mounter(mount)
    else:
        environ = dict(said)
        normaliser = CgiNormaliser(mount, source)
    try:
        if normaliser is not None:
            normaliser.apply(environ)
        _settler(forwarding)(environ)
    except BadVariables as error:
        plain(error)
        if is_origin:
            raise
        return
    assert environ.keys() >= _REQUIRED
    assert environ["wsgi.url_scheme"] in ("http", "https")
    for text in environ.values():
        text.encode("latin-1")
    if trusted == _TRUSTED[2] and said.get("REMOTE_ADDR") != "127.0.0.1":
        assert not any(map(is_claim, environ))
        assert is_origin or environ.get("REMOTE_ADDR") == said.get("REMOTE_ADDR")


#: Claims of what stands behind the peer, in both dialects.
_CLAIMS = """\
REQUEST_METHOD GET REMOTE_ADDR 192.0.2.1 REQUEST_URI /a/../b%2f?c
HTTP_X_FORWARDED_FOR 10.0.0.1,[::1]:5 HTTP_X_FORWARDED_PROTO https
HTTP_X_FORWARDED_PREFIX /p HTTP_X_FORWARDED_HOST h:81 HTTP_FORWARDED \
for="[::1]:5";proto=https;host=a,for=unknown
"""


def environ_seeds() -> list[bytes]:
    words = [word.encode() + b"\0" for word in _CLAIMS.split()]
    blocks = [*cgi_seeds(), b"".join(words), b"".join(words[:6] + words[-2:])]
    return [bytes([kind]) + block for block in blocks for kind in (0, 3, 6, 64, 128)]


# Answers: every text in them is an application's

#: Between the parts of an input: status, names and values, body.
_PART = b"\xfe\xfe"


def check_answers(data: bytes) -> None:
    """What reaches the wire is what was asked for, in its place; or it is refused whole."""
    kind, *parts = data[:1] or b"\0", *data[1:].split(_PART)
    kind = kind[0]
    coding = ("latin-1", "utf-8")[kind >> 7]
    texts = [part.decode(coding, "surrogateescape") for part in parts]
    status, fields, body = texts[0], list(zip(texts[1::2], texts[2::2], strict=False)), parts[-1]
    name = NAMES[kind % len(NAMES)]
    codec = CODECS[name](Limits())
    request = Request(1, {}, keep_alive=not kind & 8)
    request.head_only, request.http10 = bool(kind & 16), bool(kind & 32)
    length = UNKNOWN if kind & 64 else len(body)
    try:
        wire = codec.head(request, status, fields, length)
    except (ValueError, TypeError) as error:
        plain(error)
        return
    for piece in cut(body, [len(body) // 2]):
        wire += codec.body(request, piece)
    wire += codec.end(request)
    code, found, content = read_answer(name, wire, request)
    assert code == status.encode("latin-1")
    bodyless = int(status[:3]) in BODYLESS
    sent = [
        (key.encode("latin-1"), value.encode("latin-1"))
        for key, value in fields
        if not (key.lower() == "content-length" and bodyless and status[:3] != "304")
    ]
    assert found[: len(sent)] == sent
    assert {key for key, _ in found[len(sent) :]} <= {
        b"Content-Length", b"Transfer-Encoding", b"Connection", b"Server", b"Date"
    }  # fmt: skip
    assert content == (b"" if request.head_only else body)


def read_answer(
    name: str, wire: bytes, request: Request
) -> tuple[bytes, list[tuple[bytes, bytes]], bytes]:
    """Status, fields and content, read as a peer of this protocol reads them."""
    if name == "fastcgi":
        wire = read_records(wire)
    head, mark, rest = wire.partition(b"\r\n\r\n")
    assert mark
    lines = head.split(b"\r\n")
    if name in ("http", "uwsgi"):
        version, _, code = lines.pop(0).partition(b" ")
        assert version == b"HTTP/1.1"
    else:
        word, _, code = lines.pop().partition(b": ")
        assert word == b"Status"
    assert not any(set(line) & set(b"\r\n\0") for line in (code, *lines))
    found = []
    for line in lines:
        key, colon, value = line.partition(b": ")
        assert colon
        found.append((key, value))
    if request.chunked and not request.head_only:
        rest = read_chunks(rest)
    return code, found, rest


def read_records(wire: bytes) -> bytes:
    """The content of FCGI_STDOUT; FCGI_END_REQUEST must be the last record."""
    content, at, kind = b"", 0, 0
    while at < len(wire):
        version, kind, number, length, padding = struct.unpack_from(">BBHHBx", wire, at)
        assert (version, number) == (1, 1)
        assert kind in (3, 6)
        if kind == 6:
            content += wire[at + 8 : at + 8 + length]
        at += 8 + length + padding
    assert kind == 3
    return content


def read_chunks(rest: bytes) -> bytes:
    content = b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        content += rest[:length]
        assert rest[length : length + 2] == b"\r\n"
        rest = rest[length + 2 :]
        if not length:
            assert not rest
            return content


def answers_seeds() -> list[bytes]:
    found = []
    for number, name in enumerate(NAMES):
        for reply in vectors(name).replies:
            texts = [reply.status, *(text for field in reply.headers for text in field)]
            body = b"".join(reply.pieces) if reply.pieces is not None else reply.data
            parts = [*(text.encode("latin-1") for text in texts), body[:200]]
            found += [bytes([number | more]) + _PART.join(parts) for more in (0, 64)]
    return found


Target = tuple[Check, Callable[[], list[bytes]]]

TARGETS: dict[str, Target] = {
    name: (codec_target(name), lambda name=name: codec_seeds(name)) for name in NAMES
}
TARGETS |= {
    "proxy_protocol": (check_proxy_protocol, proxy_protocol_seeds),
    "detect": (check_detect, detect_seeds),
    "speed": (check_speed, speed_seeds),
    "cgi": (check_cgi, cgi_seeds),
    "environ": (check_environ, environ_seeds),
    "answers": (check_answers, answers_seeds),
}
