"""TLS as a function of bytes, without a server around it: any split, any order, bounded."""

import os
import random
import socket
import ssl
from contextlib import suppress
from types import SimpleNamespace

import pytest
from conftest import numbered
from test_wrong_protocol import ARRIVALS

from gateway.budget import Budget
from gateway.certificates import distinguished_name, load, reason_of
from gateway.disconnects import ClientDisconnected
from gateway.filerange import FileRange, FileTooShort
from gateway.poller import make_poller
from gateway.service import Service
from gateway.serving import Serving
from gateway.settings import Settings
from gateway.tls import SealedOutput, Tls, TlsConnection

DATA = numbered(100_000)


@pytest.fixture(scope="module")
def context(authority):
    certificate, key = authority.issue("bytes")
    return load(Settings(certfile=str(certificate), keyfile=str(key)), {})


class Client:
    """The other side, in memory too."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    def shake(self, data: bytes) -> bytes:
        """Go on with the handshake; what is to be sent."""
        self._incoming.write(data)
        with suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self._outgoing.read()

    def seal(self, data: bytes) -> bytes:
        for start in range(0, len(data), 1 << 14):
            self.tls.write(data[start : start + (1 << 14)])
        return self._outgoing.read()

    def open(self, data: bytes) -> bytes:
        self._incoming.write(data)
        pieces = []
        with suppress(ssl.SSLWantReadError):
            while piece := self.tls.read(1 << 16):
                pieces.append(piece)
        return b"".join(pieces)


def connected(context, authority, **attributes):
    """Both sides, after the handshake."""
    server, client = Tls(context), Client(authority.context(**attributes))
    data = client.shake(b"")
    while not server.established:
        assert server.open(data) == b""
        data = client.shake(server.outgoing())
    assert server.open(data) == b""
    return server, client


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_what_comes_in_does_not_depend_on_how_it_is_cut(context, authority, version):
    chosen = random.Random(1)
    for size in (1, 2, 3, 7, 1000, 16_384, 70_000, 1 << 20):
        server, client = connected(context, authority, maximum_version=version)
        sealed = client.seal(DATA)
        found = b""
        while sealed:
            count = size if size < 10 else chosen.randint(1, size)
            found += server.open(sealed[:count])
            sealed = sealed[count:]
        assert found == DATA
        assert (server.failure, server.ended) == (None, False)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_every_byte_of_a_handshake_matters(context, authority, version):
    """Whatever is changed: a failure or a wait, and never another exception or data."""
    chosen = random.Random(2)
    hello = Client(authority.context(maximum_version=version)).shake(b"")
    for at in range(len(hello)):
        changed = bytearray(hello)
        changed[at] ^= 1 << chosen.randrange(8)
        server = Tls(context)
        assert server.open(bytes(changed)) == b""
        if server.failure is not None:
            assert reason_of(server.failure)
            assert server.goodbye()[:1] in (b"", b"\x15")


def test_a_changed_record_is_a_failure_and_no_data(context, authority):
    chosen = random.Random(3)
    sealed_size = len(connected(context, authority)[1].seal(b"secret"))
    for at in range(sealed_size):
        server, client = connected(context, authority)
        sealed = bytearray(client.seal(b"secret"))
        sealed[at] ^= 1 << chosen.randrange(8)
        assert server.open(bytes(sealed)) == b""
        if at not in (3, 4):  # the length: it may wait for the rest of it
            assert server.failure is not None
            with pytest.raises(OSError):
                server.seal(b"an answer")


def test_what_was_whole_before_a_failure_is_there(context, authority):
    server, client = connected(context, authority)
    assert server.open(client.seal(b"whole") + b"\x17\3\3\0\x20" + bytes(32)) == b"whole"
    assert server.failure is not None
    assert server.outgoing()


def test_a_goodbye_ends_it_and_what_follows_is_nothing(context, authority):
    server, client = connected(context, authority)
    sealed = client.seal(b"last")
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.unwrap()
    assert server.open(sealed + client._outgoing.read() + b"garbage") == b"last"
    assert server.ended
    assert server.failure is None
    assert client.open(server.seal(b"answer")) == b"answer"


# The queue


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(20)
    with ours, theirs:
        yield ours, theirs


def read_all(output, ours, theirs, client):
    """Let the queue be sent to a peer that reads little by little."""
    found = b""
    while output.size:
        output.flush(ours)
        found += client.open(theirs.recv(10_000))
    ours.shutdown(socket.SHUT_WR)
    while data := theirs.recv(1 << 16):
        found += client.open(data)
    return found


@pytest.mark.parametrize("in_memory", [0, 1000, 1 << 20])
@pytest.mark.parametrize("count", [1, 1000, 65_536, 65_537, 1_000_000])
def test_a_file_is_sealed_as_it_is_taken(context, authority, pair, tmp_path, in_memory, count):
    server, client = connected(context, authority)
    path = tmp_path / "file"
    path.write_bytes(b"skipped" + numbered(count) + b"not sent")
    output = SealedOutput(in_memory, None, Budget(), server)
    released = []
    with path.open("rb") as file:
        output.append(b"head;")
        output.append_file(FileRange(file.fileno(), 7, count, lambda: released.append(1)))
        assert output.size >= count
        assert read_all(output, *pair, client) == b"head;" + numbered(count)
    assert output.size == 0
    assert len(output.released) == 1


def test_a_file_that_is_cut_is_noticed_and_let_go(context, authority, pair, tmp_path):
    server, client = connected(context, authority)
    path = tmp_path / "file"
    path.write_bytes(DATA)
    output = SealedOutput(1 << 20, None, Budget(), server)
    with path.open("rb") as file:
        output.append_file(FileRange(file.fileno(), 0, len(DATA) + 1, list))
        with pytest.raises(FileTooShort):
            read_all(output, *pair, client)
        output.clear()
    assert (output.size, output.released) == (0, [list])


def test_a_large_file_is_not_in_memory(context, authority, pair, tmp_path):
    server, _ = connected(context, authority)
    path = tmp_path / "file"
    path.touch()
    os.truncate(path, 1 << 30)
    output = SealedOutput(1 << 20, None, Budget(), server)
    with path.open("rb") as file:
        output.append_file(FileRange(file.fileno(), 0, 1 << 30))
        for _ in range(3):
            output.flush(pair[0])
        assert output._memory < 100_000
        assert output._file is None
        output.clear()


# The connection


class Observed(TlsConnection):
    """With room for what a test adds."""


class Place(Serving):
    """A worker, as far as a connection inside of TLS sees it."""

    def __init__(self, settings: Settings, lines: list[str]) -> None:
        self.settings = settings
        self.budget = Budget()
        self.now = 1.0
        self.retiring = False
        self.poller = make_poller("auto")
        self.log = SimpleNamespace(warning=lambda text, *values: lines.append(text % values))

    def hand_back(self, connection) -> None:
        """There is no loop."""


@pytest.fixture
def connection(context, pair):
    settings = Settings(response_buffer_size=1 << 30)
    lines = []
    worker = Place(settings, lines)
    service = Service("http", settings, None)
    service.tls = context
    made = Observed(worker, service, pair[0], "peer", {})
    made.lines = lines
    yield made
    worker.poller.close()


@pytest.mark.parametrize("name", [name for name in ARRIVALS if name != "tls"])
def test_what_is_no_tls_is_told_apart_byte_by_byte(connection, name):
    """It is refused as soon as it is known, and called nothing before."""
    for byte in ARRIVALS[name][1]:
        connection.receive(bytes((byte,)))
        if connection.closing:
            break
    (line,) = connection.lines
    assert line.startswith("peer: ")
    assert " arrived on a TLS bind: " in line


def test_the_first_request_has_its_own_time(connection, pair, authority):
    client = Client(authority.context())
    connection.worker.now = 2.0
    connection.receive(client.shake(b""))
    assert connection.since == 1.0
    connection.receive(client.shake(pair[1].recv(65536)))
    assert connection.tls.established
    assert connection.since == 2.0
    connection.worker.now = 3.0
    connection.receive(client.seal(b"GET / HT"))
    assert connection.since == 2.0
    assert connection.own["SSL_PROTOCOL"] == "TLSv1.3"


def test_a_peer_that_has_tls_speak_and_never_listens_is_dropped(connection):
    with connection.lock:
        while not connection.output.size:
            connection._say_sealed(b"x" * 27)
        for _ in range((1 << 16) // 27 - 1):
            connection._say_sealed(b"x" * 27)
        assert not connection.gone
        with pytest.raises(ClientDisconnected):
            connection._say_sealed(b"x" * 54)
    assert connection.gone
    assert connection.output.size == 0


def test_a_peer_that_listens_may_have_it_speak_for_ever(connection, pair):
    for _ in range(20_000):
        with connection.lock:
            connection._say_sealed(b"x" * 27)
        assert pair[1].recv(27)
    assert not connection.gone


# Names


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain", "plain"),
        (" a b ", "\\ a b\\ "),
        (" ", "\\ "),
        ("#1#", "\\#1#"),
        ('a,b+c"d<e>f;g\\h', 'a\\,b\\+c\\"d\\<e\\>f\\;g\\\\h'),
        ("a=b", "a=b"),
        ("a\nb\x00", "a\\0Ab\\00"),
        ("Zoë €", "Zoë €".encode().decode("latin-1")),
        ("", ""),
    ],
)
def test_values_of_a_name(value, written):
    assert distinguished_name(((("commonName", value),),)) == f"CN={written}"


def test_the_parts_of_a_name():
    name = (
        (("countryName", "XY"),),
        (("organizationName", "O"), ("1.2.3", "n")),
        (("emailAddress", "a@b"),),
    )
    assert distinguished_name(name) == "emailAddress=a@b,1.2.3=n+O=O,C=XY"
    assert distinguished_name(()) == ""
