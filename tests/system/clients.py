"""Raw-socket clients for HTTP, FastCGI, SCGI and uwsgi: requests by hand, answers byte for byte.

A peer sends what it is told, however wrong, and tells how an answer ended:
``Answer.whole`` is true only if the client can be sure to have all of it.
Every wait has a timeout, so a test that waits for nothing fails.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator
from urllib.parse import unquote_to_bytes

TIMEOUT = 20.0

Address = tuple[str, int] | str
Headers = Iterable[tuple[str, str]]

BEGIN, ABORT, END, PARAMS, STDIN, STDOUT, STDERR, DATA = range(1, 9)
GET_VALUES, GET_VALUES_RESULT, UNKNOWN_TYPE = 9, 10, 11

EOF, RESET = "end of file", "reset"


class Answer:
    """One answer, as far as it came; ``fault`` says why it is not whole."""

    def __init__(self, status: int, headers: list[tuple[str, str]], head: bytes = b"") -> None:
        self.status = status
        self.headers = headers
        self.head = head
        self.body = b""
        self.fault = ""
        self.errors = b""  # FastCGI's STDERR
        self.protocol_status = -1  # FastCGI's END_REQUEST

    @property
    def whole(self) -> bool:
        return not self.fault

    def get(self, name: str) -> str | None:
        """The value of a header, joined with commas; None if there is none."""
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        return ", ".join(found) if found else None

    def __repr__(self) -> str:
        return f"<{self.status} {self.headers} {self.body[:200]!r} {self.fault}>"


class Peer:
    """A connection and what was received on it but not yet used."""

    protocol = ""

    def __init__(
        self,
        address: Address,
        *,
        timeout: float = TIMEOUT,
        receive_buffer: int = 0,
        source: str = "",
    ) -> None:
        """``source``: the address to connect from; all of 127.0.0.0/8 are this machine's."""
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.settimeout(timeout)
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if source:
            self.sock.bind((source, 0))
        self.sock.connect(address)
        self.buffer = bytearray()
        self.since = 0  # where the server's log was when this connection was opened
        self.ended = ""  # EOF or RESET once the server has closed

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def finish(self) -> None:
        """Say that nothing more is sent."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Leave with a TCP reset (on a unix socket: leave)."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def fill(self, size: int = 65536) -> bool:
        """Receive once; False at the end of the connection."""
        if self.ended:
            return False
        try:
            data = self.sock.recv(size)
        except (ConnectionResetError, BrokenPipeError):
            self.ended = RESET
            return False
        if not data:
            self.ended = EOF
        self.buffer += data
        return bool(data)

    def rest(self) -> bytes:
        """Everything until the server closes."""
        while self.fill():
            pass
        return self.take(len(self.buffer))

    def need(self, count: int) -> bool:
        while len(self.buffer) < count:
            if not self.fill():
                return False
        return True

    def take(self, count: int) -> bytes:
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        return data

    def until(self, mark: bytes) -> bytes | None:
        """Up to and with ``mark``; None if the connection ends before."""
        while (end := self.buffer.find(mark)) < 0:
            if not self.fill():
                return None
        return self.take(end + len(mark))

    # What every protocol has

    def start(self, target: str = "/", **request) -> None:
        """Send one request; see ``encode``."""
        self.send(self.encode(target, **request))

    def ask(self, target: str = "/", **request) -> Answer:
        """Send one request and read its whole answer."""
        self.start(target, **request)
        return self.answer(request.get("method", "GET"))

    def answer(self, method: str = "GET") -> Answer:
        """Read one whole answer."""
        answer = self.head(method)
        answer.body = b"".join(self.pieces(answer))
        return answer

    @staticmethod
    def encode(target: str = "/", **request) -> bytes:
        raise NotImplementedError

    def head(self, method: str = "GET") -> Answer:
        """Read the head of the next answer."""
        raise NotImplementedError

    def pieces(self, answer: Answer) -> Iterator[bytes]:
        """The body of ``answer`` as it arrives; sets ``answer.fault`` at its end."""
        raise NotImplementedError

    def sized(self, answer: Answer, length: int) -> Iterator[bytes]:
        while length:
            if not self.buffer and not self.fill():
                answer.fault = f"{length} bytes are missing"
                return
            data = self.take(min(length, len(self.buffer)))
            length -= len(data)
            yield data


def fields(block: bytes) -> list[tuple[str, str]]:
    lines = block.decode("latin-1").split("\r\n")
    return [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]


class Http(Peer):
    """HTTP/1.1."""

    protocol = "http"

    @staticmethod
    def encode(
        target: str = "/",
        *,
        method: str = "GET",
        headers: Headers = (),
        body: bytes = b"",
        chunked: bool = False,
        version: str = "HTTP/1.1",
        close: bool = False,
    ) -> bytes:
        head = f"{method} {target} {version}\r\nHost: localhost\r\n"
        for name, value in headers:
            head += f"{name}: {value}\r\n"
        if close:
            head += "Connection: close\r\n"
        if chunked:
            head += "Transfer-Encoding: chunked\r\n"
            body = b"".join(chunks(body))
        elif body or method in ("POST", "PUT"):
            head += f"Content-Length: {len(body)}\r\n"
        return head.encode("latin-1") + b"\r\n" + body

    def head(self, method: str = "GET") -> Answer:
        while True:
            block = self.until(b"\r\n\r\n")
            if block is None:
                raise ConnectionError(f"no answer but {self.ended}: {bytes(self.buffer)!r}")
            line, _, rest = block[:-4].partition(b"\r\n")
            version, code = line.split(b" ", 2)[:2]
            assert version == b"HTTP/1.1", line
            answer = Answer(int(code), fields(rest) if rest else [], block)
            if answer.status >= 200:
                break
        answer.length = 0 if method == "HEAD" or answer.status in (204, 304) else None
        return answer

    def pieces(self, answer: Answer) -> Iterator[bytes]:
        length = answer.length
        if length is None and answer.get("transfer-encoding") == "chunked":
            yield from self._chunks(answer)
            return
        if length is None and answer.get("content-length") is not None:
            length = int(answer.get("content-length"))
        if length is not None:
            yield from self.sized(answer, length)
            return
        while self.buffer or self.fill():
            yield self.take(len(self.buffer))
        if self.ended == RESET:
            answer.fault = RESET

    def _chunks(self, answer: Answer) -> Iterator[bytes]:
        while True:
            line = self.until(b"\r\n")
            if line is None:
                answer.fault = "the last chunk is missing"
                return
            size = int(line, 16)
            if not self.need(size + 2):
                answer.fault = "a chunk is cut"
                return
            data = self.take(size)
            assert self.take(2) == b"\r\n"
            if not size:
                return
            yield data

    def closed(self) -> bool:
        """Whether the server closes now, without another byte."""
        return self.rest() == b""


def chunks(body: bytes, size: int = 50_000) -> Iterator[bytes]:
    """The chunked coding of a body."""
    for start in range(0, len(body), size):
        piece = body[start : start + size]
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"


def variables(
    target: str,
    method: str = "GET",
    headers: Headers = (),
    length: int | None = 0,
    more: dict[str, str | None] | None = None,
) -> list[tuple[str, str]]:
    """What nginx's stock ``scgi_params`` send; ``more`` adds, replaces or (None) removes."""
    path, _, query = target.partition("?")
    pairs: dict[str, str | None] = {
        "CONTENT_LENGTH": "" if length is None else str(length),
        "SCGI": None,
        "REQUEST_METHOD": method,
        "REQUEST_URI": target,
        "DOCUMENT_URI": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REQUEST_SCHEME": "http",
        "REMOTE_ADDR": "192.0.2.1",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "HTTP_HOST": "localhost",
    }
    for name, value in headers:
        variable = name.upper().replace("-", "_")
        pairs[variable if variable == "CONTENT_TYPE" else "HTTP_" + variable] = value
    pairs |= more or {}
    return [(name, value) for name, value in pairs.items() if value is not None]


def cgi_head(block: bytes) -> Answer:
    headers = fields(block[:-4])
    status = [value for name, value in headers if name == "Status"]
    assert len(status) == 1, headers
    return Answer(int(status[0][:3]), [item for item in headers if item[0] != "Status"], block)


class Scgi(Peer):
    """SCGI: one request a connection."""

    protocol = "scgi"

    @staticmethod
    def encode(
        target: str = "/",
        *,
        method: str = "GET",
        headers: Headers = (),
        body: bytes = b"",
        more: dict[str, str | None] | None = None,
    ) -> bytes:
        pairs = variables(target, method, headers, len(body), {"SCGI": "1"} | (more or {}))
        return netstring(pairs) + body

    def head(self, method: str = "GET") -> Answer:
        block = self.until(b"\r\n\r\n")
        if block is None:
            raise ConnectionError(f"no answer but {self.ended}: {bytes(self.buffer)!r}")
        answer = cgi_head(block)
        answer.bodyless = method == "HEAD" or answer.status in (204, 304)
        return answer

    def pieces(self, answer: Answer) -> Iterator[bytes]:
        size = 0
        while self.buffer or self.fill():
            data = self.take(len(self.buffer))
            size += len(data)
            yield data
        length = answer.get("content-length")
        if self.ended == RESET:
            answer.fault = RESET
        elif length is not None and size != int(length) and not answer.bodyless:
            answer.fault = f"{size} bytes of {length}"


class Uwsgi(Scgi):
    """The uwsgi protocol: one request a connection, and an answer that begins as HTTP's do."""

    protocol = "uwsgi"

    @staticmethod
    def encode(
        target: str = "/",
        *,
        method: str = "GET",
        headers: Headers = (),
        body: bytes = b"",
        more: dict[str, str | None] | None = None,
    ) -> bytes:
        return packet(variables(target, method, headers, len(body), more)) + body

    def head(self, method: str = "GET") -> Answer:
        block = self.until(b"\r\n\r\n")
        if block is None:
            raise ConnectionError(f"no answer but {self.ended}: {bytes(self.buffer)!r}")
        line, _, rest = block[:-4].partition(b"\r\n")
        version, code = line.split(b" ", 2)[:2]
        assert version == b"HTTP/1.1", line
        answer = Answer(int(code), fields(rest) if rest else [], block)
        answer.bodyless = method == "HEAD" or answer.status in (204, 304)
        return answer


def packet(pairs: Iterable[tuple[str, str]], modifier1: int = 0, modifier2: int = 0) -> bytes:
    """The header and the variables of a uwsgi request."""
    texts = [text.encode("latin-1") for pair in pairs for text in pair]
    block = b"".join(struct.pack("<H", len(text)) + text for text in texts)
    return struct.pack("<BHB", modifier1, len(block), modifier2) + block


def netstring(pairs: Iterable[tuple[str, str]]) -> bytes:
    """The headers of an SCGI request."""
    block = "".join(f"{name}\0{value}\0" for name, value in pairs).encode("latin-1")
    return b"%d:%b," % (len(block), block)


class FastCgi(Peer):
    """FastCGI; requests are told apart by ``number``."""

    protocol = "fastcgi"

    def __init__(self, address: Address, **options) -> None:
        super().__init__(address, **options)
        #: Records that were read while another request's were wanted.
        self._waiting: dict[int, list[tuple[int, bytes]]] = {}
        self._reading = 1

    @staticmethod
    def encode(
        target: str = "/",
        *,
        number: int = 1,
        method: str = "GET",
        headers: Headers = (),
        body: bytes = b"",
        chunked: bool = False,
        role: int = 1,
        keep: bool = True,
        close: bool = False,
        more: dict[str, str | None] | None = None,
    ) -> bytes:
        """``chunked`` announces no length, as front ends do that do not know it."""
        pairs = variables(target, method, headers, None if chunked else len(body), more)
        return (
            begin(number, role, keep=keep and not close)
            + records(PARAMS, number, encode_pairs(pairs))
            + records(STDIN, number, body)
        )

    def start(self, target: str = "/", **request) -> None:
        self._reading = request.get("number", 1)
        super().start(target, **request)

    def abort(self, number: int) -> None:
        """The front end no longer wants the answer."""
        self.send(record(ABORT, number))

    def record(self) -> tuple[int, int, bytes] | None:
        """The next record: type, request id, content; None at the end."""
        if not self.need(8):
            return None
        version, kind, number, length, padding = struct.unpack(">BBHHBx", self.buffer[:8])
        assert version == 1
        if not self.need(8 + length + padding):
            return None
        content = self.take(8 + length + padding)[8 : 8 + length]
        return kind, number, content

    def record_of(self, number: int) -> tuple[int, bytes] | None:
        """The next record of one request."""
        if self._waiting.get(number):
            return self._waiting[number].pop(0)
        while (found := self.record()) is not None:
            kind, other, content = found
            if other == number:
                return kind, content
            self._waiting.setdefault(other, []).append((kind, content))
        return None

    def head(self, method: str = "GET", number: int | None = None) -> Answer:
        number = self._reading if number is None else number
        data, errors = b"", b""
        while b"\r\n\r\n" not in data:
            found = self.record_of(number)
            if found is None:
                raise ConnectionError(f"no answer but {self.ended}: {data!r}")
            kind, content = found
            assert kind in (STDOUT, STDERR), f"{found} after {data!r}"
            if kind == STDOUT:
                data += content
            else:
                errors += content
        block, mark, rest = data.partition(b"\r\n\r\n")
        answer = cgi_head(block + mark)
        answer.number = number
        answer.first = rest
        answer.errors = errors
        return answer

    def pieces(self, answer: Answer) -> Iterator[bytes]:
        size = len(answer.first)
        if answer.first:
            yield answer.first
        while True:
            found = self.record_of(answer.number)
            if found is None:
                answer.fault = f"END_REQUEST is missing: {self.ended}"
                return
            kind, content = found
            if kind == END:
                app_status, answer.protocol_status = struct.unpack(">IB3x", content)
                assert app_status == 0
                return
            if kind == STDERR:
                answer.errors += content
            elif content:
                size += len(content)
                yield content

    def answer(self, method: str = "GET", number: int | None = None) -> Answer:
        answer = self.head(method, number)
        answer.body = b"".join(self.pieces(answer))
        return answer


def record(kind: int, number: int, content: bytes = b"", padding: int = 0) -> bytes:
    """One FastCGI record."""
    head = struct.pack(">BBHHBx", 1, kind, number, len(content), padding)
    return head + content + b"\0" * padding


def records(kind: int, number: int, data: bytes) -> bytes:
    """A whole FastCGI stream, with its end."""
    parts = [
        record(kind, number, data[start : start + 65535]) for start in range(0, len(data), 65535)
    ]
    return b"".join(parts) + record(kind, number)


def begin(number: int, role: int = 1, *, keep: bool = True) -> bytes:
    return record(BEGIN, number, struct.pack(">HB5x", role, int(keep)))


def encode_pairs(pairs: Iterable[tuple[str, str]]) -> bytes:
    """FastCGI name-value pairs."""
    data = b""
    for pair in pairs:
        name, value = (text.encode("latin-1") for text in pair)
        for text in (name, value):
            size = len(text)
            data += bytes((size,)) if size < 128 else struct.pack(">I", size | 1 << 31)
        data += name + value
    return data


PEERS: dict[str, type[Peer]] = {
    "http": Http,
    "fastcgi": FastCgi,
    "scgi": Scgi,
    "uwsgi": Uwsgi,
}

#: One request a connection, and only with a length.
SINGLE = ("scgi", "uwsgi")


class Gate:
    """Where an application waits until the test lets it go on; see ``rules_app.wait_at``."""

    def __init__(self, path) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._listener.settimeout(TIMEOUT)

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def arrived(self) -> socket.socket:
        """Wait until the application stands at the gate; close what this returns to open it."""
        waiting, _ = self._listener.accept()
        return waiting

    def pass_one(self) -> None:
        """Wait for the application and let it go on."""
        self.arrived().close()
