"""One connection of the fuzzer: how bytes are delivered, and what came back."""

from __future__ import annotations

import fcntl
import random
import re
import select
import socket
import ssl
import struct
import termios
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from time import monotonic, sleep

from live_server import BOUND, Bind

from protocols import detect
from protocols.detect import by_first_byte
from protocols.model import Abort, Codec, Limits, ProtocolError, Request
from protocols.proxy_protocol import ProxyHeader

_RESET = struct.pack("ii", 1, 0)
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_DATE = re.compile(rb"\r\nDate: [^\r\n]*")
#: Where a refusal starts; which of several faults it names may depend on the cuts.
_REFUSAL = re.compile(rb"(?:HTTP/1\.1|Status:) (?:400|408|411|413|414|417|431|501|505) ")


@dataclass
class Received:
    """What came back on one connection, and how it ended: end, reset or hang."""

    data: bytes = b""
    ended: str = "hang"


def open_to(bind: Bind, choices: random.Random) -> socket.socket:
    """A connection; over TCP from an address of its own, or ports would run out."""
    if isinstance(bind.address, str):
        sock = socket.socket(socket.AF_UNIX)
    else:
        sock = socket.socket()
        sock.bind((f"127.0.{choices.randint(1, 20)}.{choices.randint(1, 250)}", 0))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.settimeout(BOUND)
    sock.connect(bind.address)
    return sock


class Plain:
    """Bytes as they are."""

    def seal(self, data: bytes) -> bytes:
        return data

    def open(self, data: bytes) -> bytes:
        return data

    def goodbye(self) -> bytes:
        return b""


class Tls(Plain):
    """The client's end of TLS on a connection whose first bytes are ``before``."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    def hello(self) -> bytes:
        """What the handshake begins with."""
        with suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
        return self._outgoing.read()

    def handshake(self, sock: socket.socket, before: bytes) -> None:
        """All of it.  Raises OSError."""
        sock.sendall(before + self.hello())
        while True:
            data = sock.recv(65536)
            if not data:
                raise ConnectionError("the server ended the handshake")
            self._incoming.write(data)
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                sock.sendall(self._outgoing.read())
                continue
            sock.sendall(self._outgoing.read())
            return

    def seal(self, data: bytes) -> bytes:
        self._tls.write(data)
        return self._outgoing.read()

    def open(self, data: bytes) -> bytes:
        self._incoming.write(data)
        opened = b""
        with suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            while piece := self._tls.read(1 << 16):
                opened += piece
        return opened

    def goodbye(self) -> bytes:
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        return self._outgoing.read()


def deliver(sock: socket.socket, pieces: Sequence[bytes], end: Plain, *, slowly: bool) -> Received:
    """Send all, say that it was all, and read to the end; neither waits for the other."""
    got = Received()
    sock.setblocking(False)
    poll = select.poll()
    left = [end.seal(piece) for piece in pieces if piece]
    poll.register(sock, select.POLLIN | select.POLLOUT)
    quiet_since = monotonic()
    said_all = broken = False
    while monotonic() - quiet_since < BOUND:
        for _, events in poll.poll(1000):
            try:
                if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
                    data = sock.recv(1 << 20)
                    if not data:
                        got.ended = "reset" if broken else "end"
                        return got
                    got.data += end.open(data)
                    quiet_since = monotonic()
                if left and events & select.POLLOUT:
                    left[0] = left[0][sock.send(left[0]) :]
                    quiet_since = monotonic()
                    if not left[0]:
                        left.pop(0)
                        if slowly and left:
                            _let_it_read(sock)
            except BlockingIOError:
                pass
            except BrokenPipeError:
                broken = True  # a reset after its end; what has arrived is still to be read
                left.clear()
            except (ConnectionError, ssl.SSLError):
                got.ended = "reset"
                return got
        if not left and not said_all:
            said_all = True
            with suppress(OSError):
                sock.send(end.goodbye())
            poll.modify(sock, select.POLLIN)
            with suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
    return got


def _let_it_read(sock: socket.socket) -> None:
    """Have the server read what was sent before the next piece follows."""
    if sock.family == socket.AF_UNIX:
        for _ in range(20):
            queued = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0" * 4))[0]
            if not queued:
                break
            sleep(0.0002)
    sleep(0.0005)


def leave(sock: socket.socket, data: bytes, choices: random.Random) -> None:
    """Send a part, perhaps read some, and go, in one of the ways that peers have."""
    part = data[: choices.choice((0, len(data), choices.randint(0, len(data))))]
    with suppress(OSError):
        sock.settimeout(0.5)
        sock.sendall(part)
        if choices.random() < 0.3:
            sock.shutdown(socket.SHUT_WR)
        if choices.random() < 0.5:
            sleep(choices.choice((0, 0.001, 0.01, 0.05)))
        if choices.random() < 0.3:
            sock.settimeout(0.05)
            sock.recv(choices.choice((1, 100, 65536)))
        if choices.random() < 0.5:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def random_cuts(data: bytes, choices: random.Random) -> list[bytes]:
    """Pieces: a few, many, or single bytes around one place."""
    size = len(data)
    kind = choices.random()
    if kind < 0.2:
        at = choices.randint(0, size)
        edges = range(max(0, at - 10), min(size, at + 10))
    else:
        edges = [choices.randint(0, size) for _ in range(2 if kind < 0.6 else 9)]
    ends = sorted({0, size, *edges})
    return [data[a:b] for a, b in pairwise(ends)]


# What can be compared


def comparable(bind: Bind, data: bytes, codecs: dict[str, type[Codec]]) -> str:
    """The protocol of answers that do not depend on cuts or on time; else nothing.

    What depends on them is a protocol that is not the bind's, FastCGI records of a
    request that are not due (whether it is answered already decides what they mean), a
    number that a FastCGI peer uses again without waiting for its answer (section 3.3), and
    requests beside one after which the connection is to be closed (section 5.1).
    """
    if bind.version != "off" and not bind.tls:
        header = ProxyHeader(bind.version)
        try:
            data = data[header.receive(data) :]
        except ProtocolError:
            return bind.protocol
        if not data:
            return bind.protocol
    protocol = by_first_byte(data[0]) if bind.protocol == "auto" else bind.protocol
    if detect.identify(data[: detect.FIRST_BYTES]) not in (None, protocol):
        return ""
    if protocol == "fastcgi":
        codec = codecs[protocol]
        begun = [[text for text in said if text[:1] == b"\1"] for said in streams(data).values()]
        if any(len(one) > 1 for one in begun):
            return ""
        last = any(not text[3:4] or not text[3] & 1 for one in begun for text in one)
        if last and sum(map(len, begun)) > 1:
            return ""
        if _seen(codec, data, at_once=True) != _seen(codec, data, at_once=False):
            return ""
    return protocol


def _seen(codec_class: type[Codec], data: bytes, *, at_once: bool) -> object:
    """What a FastCGI codec makes of ``data`` if requests are answered at once, or late."""
    codec = codec_class(Limits())
    seen: list[str] = []
    refused = False
    running: dict[int, Request] = {}
    for piece in [data[at : at + 1] for at in range(len(data))] if at_once else [data]:
        try:
            events = codec.receive(piece)
        except ProtocolError as error:
            events, refused = error.events, True
        for event in events:
            if type(event) is Request:
                running[event.stream] = event
                seen.append(repr(event.environ))
            if type(event) is Abort:
                return id(codec)  # it may have run or not
            if not getattr(event, "more", False) and at_once:
                running[event.stream].ended = True
    return sorted(seen), refused, codec.closing, len(codec.outbox)


def differ(protocol: str, one: Received, other: Received) -> bool:
    """Whether two answers to the same bytes are not the same."""
    if "reset" in (one.ended, other.ended):
        return False  # what had arrived by then is a matter of chance
    first, second = (essence(protocol, got.data) for got in (one, other))
    return first != second


def essence(protocol: str, data: bytes) -> object:
    """What was said, without what may differ."""
    if protocol == "fastcgi":
        return streams(data)
    data = _DATE.sub(b"", data.replace(CONTINUE, b""))  # if the body came at once, there is none
    refusals = list(_REFUSAL.finditer(data))
    if refusals:  # SCGI's status stands behind what depends on it, and there is one answer
        return data[: refusals[-1].start()] if protocol == "http" else b"", "refused"
    return data


def streams(data: bytes) -> dict[int, list[bytes]]:
    """What was said of each FastCGI request; several are answered in any order."""
    found: dict[int, list[bytes]] = {}
    at = 0
    while at + 8 <= len(data):
        _, kind, number, length, padding, _ = struct.unpack_from(">BBHHBB", data, at)
        content = data[at + 8 : at + 8 + length]
        said = found.setdefault(number, [])
        if said and kind == 6 and said[-1][:1] == b"\6":
            said[-1] += content
        else:
            said.append(bytes([kind]) + content)
        at += 8 + length + padding
    for said in found.values():
        for index, text in enumerate(said):
            refusal = _REFUSAL.search(text)
            if refusal:
                said[index] = b"refused"
    return found
