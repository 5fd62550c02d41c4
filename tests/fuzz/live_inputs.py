"""What the live server is sent: requests with unique ids, vectors, and mutations of both."""

from __future__ import annotations

import random
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "protocols"))
sys.path.append(str(Path(__file__).parents[1] / "system"))

import fuzz_corpus
from clients import PEERS, SINGLE, begin, encode_pairs, record, records, variables
from codec_harness import vectors
from fuzz_targets import ANSWERED

PROTOCOLS = ("http", "fastcgi", "scgi", "uwsgi")
ID = re.compile(rb"q[0-9a-f]{12}z")
WAYS = ("echo",) * 6 + ("stream", "write", "empty", "file", "large")
METHODS = ("GET", "GET", "GET", "POST", "POST", "PUT", "HEAD", "DELETE", "OPTIONS")
LONGEST = 6000
PARAMS, STDIN, ABORT = 4, 5, 2

#: Words of the protocols, put in anywhere.
WORDS = [
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\0", b":", b",", b" ", b"0\r\n\r\n", b"HTTP/1.0",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n",
    b"Expect: 100-continue\r\n", b"Host: b\r\n", b"Upgrade: x\r\nConnection: upgrade\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\x01\x02\0\x01\0\0\0\0", b"\x01\x05\0\x01\0\0\0\0",
    b"\x01\x09\0\0\0\0\0\0", b"\x01\x01\0\x02\0\x08\0\0\0\x01\x01\0\0\0\0\0", b"-1",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", b"\xff" * 4, b"\x16\x03\x01\x02\0", b"99999999",
    b"CONTENT_LENGTH\x005\0",
]  # fmt: skip

_V1 = (b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 443\r\n", b"PROXY UNKNOWN\r\n")
_V2 = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc6\x33\x64\x02\x12\x67\x01\xbb",
    b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
)


#: Headers of the PROXY protocol, by the version that a bind wants.
PROXIES = {"off": (b"",), "v1": _V1, "v2": _V2, "auto": _V1 + _V2}


@dataclass
class Input:
    """Bytes for one connection; ``clean`` if nothing is wrong with them."""

    protocol: str
    data: bytes
    clean: bool = True
    #: What is sent ahead of TLS, where there is TLS.
    before: bytes = b""
    #: Ids of requests whose answers hold them, where nothing is wrong.
    answered: set[bytes] = field(default_factory=set)

    def occurrences(self) -> dict[bytes, int]:
        """How often each id is in the data: it may run so often and no more."""
        found: dict[bytes, int] = {}
        for name in ID.findall(self.data):
            found[name] = found.get(name, 0) + 1
        return found


def material(protocol: str) -> list[bytes]:
    """What is known to be interesting to a codec."""
    parts = [part for case in vectors(protocol).cases for part in case.parts]
    kept = [part for data in fuzz_corpus.kept(protocol) for part in data.split(ANSWERED)]
    return [part for part in parts + kept if 0 < len(part) <= LONGEST]


class Inputs:
    """Makes inputs of random numbers."""

    def __init__(self) -> None:
        self._material = {protocol: material(protocol) for protocol in PROTOCOLS}

    def make(
        self, choices: random.Random, protocol: str, version: str, *, tls: bool = False
    ) -> Input:
        """An input for a bind of this protocol, and of this version of the PROXY protocol."""
        made = self._requests(choices, protocol)
        kind = choices.random()
        if kind < 0.15:
            data = choices.choice(self._material[protocol])
            made = Input(protocol, data if kind < 0.07 else made.data + data, clean=False)
        elif kind < 0.2:
            made = self._requests(choices, choices.choice(PROTOCOLS))
            made.clean = made.clean and made.protocol == protocol
        header = choices.choice(PROXIES[version])
        if tls:
            made.before = header
        else:
            made.data = header + made.data
        if choices.random() < 0.6:
            made.clean = False
            for _ in range(choices.randint(1, 4)):
                made.data = self.mutated(choices, made)
        made.data = made.data or b"x"
        return made

    def _requests(self, choices: random.Random, protocol: str) -> Input:
        made = Input(protocol, b"")
        count = 1 if protocol in SINGLE else choices.choice((1, 1, 2, 3, 8))
        pieces = []
        for number in range(1, count + 1):
            name = b"q%012xz" % choices.getrandbits(48)
            way, method = choices.choice(WAYS), choices.choice(METHODS)
            if way not in ("empty", "file") and method != "HEAD":
                made.answered.add(name)
            pieces.append(_request(choices, protocol, number, f"/{way}/{name.decode()}", method))
        if protocol == "fastcgi" and choices.random() < 0.5:
            made.data = b"".join(interleaved(choices, pieces))
        else:
            made.data = b"".join(b"".join(piece) for piece in pieces)
        return made

    def mutated(self, choices: random.Random, made: Input) -> bytes:
        """The data, changed in one way."""
        data = bytearray(made.data)
        at = choices.randint(0, len(data))
        size = choices.choice((1, 2, 8, 30, 200))
        match choices.randrange(8):
            case 0 if at < len(data):
                data[at] ^= 1 << choices.randrange(8)
            case 1:
                del data[at : at + size]
            case 2:
                data[at:at] = choices.choice(WORDS)
            case 3:
                data[at:at] = data[max(0, at - size) : at]
            case 4:
                data[at : at + size] = choices.randbytes(choices.choice((1, 2, size)))
            case 5:
                del data[at:]
            case 6:
                data[at:at] = choices.choice(self._material[choices.choice(PROTOCOLS)])
            case 7 if at < len(data):
                data[at] = choices.choice(b"\0\x01\xff09 :,\r\n\x80")
        return bytes(data)


def _request(
    choices: random.Random, protocol: str, number: int, target: str, method: str
) -> list[bytes]:
    """A request; of FastCGI its records."""
    size = choices.choice((0, 1, 30, 3000, 20_000)) if method in ("POST", "PUT") else 0
    body = choices.randbytes(size)
    if protocol != "fastcgi":
        more: dict = {}
        if protocol == "http":
            expects = body and choices.random() < 0.2
            more = {"chunked": bool(body) and choices.random() < 0.4}
            more["headers"] = [("Expect", "100-continue")] if expects else []
        return [PEERS[protocol].encode(target, method=method, body=body, **more)]
    pairs = variables(target, method, (), None if choices.random() < 0.2 else len(body))
    parts = [begin(number, keep=True)]
    block = encode_pairs(pairs)
    cut = choices.randrange(len(block))
    parts += [record(PARAMS, number, piece, 3) for piece in (block[:cut], block[cut:]) if piece]
    parts.append(record(PARAMS, number))
    if body:
        parts.append(record(STDIN, number, body, choices.randrange(8)))
    return [*parts, records(STDIN, number, b"")]


def interleaved(choices: random.Random, pieces: list[list[bytes]]) -> list[bytes]:
    """The records of several requests, each in its order."""
    left = [list(piece) for piece in pieces]
    merged = []
    while left:
        one = choices.choice(left)
        merged.append(one.pop(0))
        left = [piece for piece in left if piece]
    return merged
