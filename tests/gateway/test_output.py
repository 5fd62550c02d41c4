"""What waits for a slow reader: order, limits, files, full disks, readers that go."""

import os
import socket
import threading
from functools import partial
from itertools import cycle
from types import SimpleNamespace

import pytest
from test_body import full_disk

from gateway.budget import Allowance, Budget, NotKept
from gateway.channel import Channel
from gateway.disconnects import AnswerLost, ClientDisconnected
from gateway.filerange import FileRange, FramedRange
from gateway.output import Output
from gateway.serving import Serving
from gateway.settings import Settings
from protocols.model import Request


def short_sends():
    """Sockets that take little at once."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    ours.setblocking(False)
    theirs.settimeout(20)
    with ours, theirs:
        yield ours, theirs


pair = pytest.fixture(short_sends)


def numbered(size):
    return b"".join(b"%07d\n" % number for number in range(size // 8 + 1))[:size]


def drain(output, pair):
    """Flush and read in turns until nothing is left."""
    ours, theirs = pair
    received = bytearray()
    while output.size:
        output.flush(ours)
        received += theirs.recv(1 << 20)
    theirs.settimeout(0)
    try:
        while data := theirs.recv(1 << 20):
            received += data
    except BlockingIOError:
        pass
    return bytes(received)


@pytest.mark.parametrize("in_memory", [0, 1, 5000, 1 << 20])
@pytest.mark.parametrize("sizes", [(1,), (7, 10_000), (3000, 1, 0, 200_000), (1,) * 500])
def test_pieces_arrive_in_order(pair, tmp_path, in_memory, sizes):
    output = Output(in_memory, str(tmp_path), Budget())
    data, pieces = numbered(sum(sizes)), []
    for size in sizes:
        pieces.append(data[sum(map(len, pieces)) :][:size])
    for piece in pieces:
        output.append(piece)
    assert output.size == len(data)
    assert drain(output, pair) == data
    assert output.size == 0
    assert os.listdir(tmp_path) == []


def test_pieces_that_come_while_it_is_sent_keep_their_place(pair, tmp_path):
    """Some in memory, some in the file, and an empty queue in between."""
    ours, theirs = pair
    output = Output(3000, str(tmp_path), Budget())
    expected, received = bytearray(), bytearray()
    for number, size in zip(range(400), cycle((100, 5000, 1, 2999, 70_000)), strict=False):
        piece = bytes([number % 256]) * size
        expected += piece
        output.append(piece)
        output.flush(ours)
        received += theirs.recv(1 << 20)
        if number % 50 == 0:
            while output.size:
                output.flush(ours)
                received += theirs.recv(1 << 20)
    assert received + drain(output, pair) == expected


def test_files_of_the_application_are_sent_and_let_go_once(pair, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(numbered(300_000))
    released = []
    with path.open("rb") as file:
        output = Output(1000, None, Budget())
        output.append(b"head ")
        for name, offset, count in (("a", 0, 300_000), ("b", 100, 50)):
            piece = FileRange(file.fileno(), offset, count, lambda name=name: released.append(name))
            output.append_file(piece)
        output.append(b" tail")
        assert output.size == 300_060
        data = drain(output, pair)
    assert data == b"head " + numbered(300_000) + numbered(150)[100:] + b" tail"
    for release in output.released:
        release()
    assert released == ["a", "b"]


def edges(size):
    """Around a record: its size, and a dot for each byte by which it is odd."""
    return b"<%d:" % size, b"." * (size % 2) + b">"


def records_of(data, most):
    pieces = [data[at : at + most] for at in range(0, len(data), most)]
    return b"".join(b"".join((edges(len(p))[0], p, edges(len(p))[1])) for p in pieces)


@pytest.mark.parametrize("most", [1000, 65_528])
def test_a_file_goes_out_in_records(pair, tmp_path, most):
    path = tmp_path / "file"
    path.write_bytes(numbered(300_000))
    released, expected = [], b""
    with path.open("rb") as file:
        output = Output(1000, None, Budget())
        for name, count in (("a", 299_900), ("b", 1), ("c", most), ("d", most + 1)):
            plain = FileRange(file.fileno(), 7, count, lambda name=name: released.append(name))
            output.append(b"head ")
            output.append_file(FramedRange(plain, Request(1, {}), most, edges, list))
            output.append(b"tail")
            expected += b"head " + records_of(numbered(300_000)[7 : 7 + count], most) + b"tail"
        assert output.waiting == 4 * 9
        assert drain(output, pair) == expected
    assert (output.size, output.waiting) == (0, 0)
    for release in output.released:
        release()
    assert released == ["a", "b", "c", "d"]


def test_a_file_that_nobody_wants_ends_with_its_record(pair, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(numbered(3_000_000))
    released = []
    with path.open("rb") as file:
        output = Output(1000, None, Budget())
        for stream in (1, 2, 3):
            plain = FileRange(file.fileno(), 0, 3_000_000, lambda n=stream: released.append(n))
            output.append_file(FramedRange(plain, Request(stream, {}), 2001, edges, list))
            output.append(b"tail")
        output.flush(pair[0])
        output.end_file(1)
        output.end_file(3)
        data = drain(output, pair)
    first, second, rest = data.split(b"tail")[:3]
    whole = records_of(numbered(3_000_000), 2001)
    assert 0 < len(first) < len(whole)
    assert first == whole[: len(first)]
    assert first.endswith(b".>")
    assert (second, rest) == (whole, b"")
    for release in output.released:
        release()
    assert released == [1, 2, 3]
    assert (output.size, output.waiting) == (0, 0)


def test_a_file_in_records_that_was_cut_is_an_error_and_is_let_go(pair, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    said = []
    with path.open("rb") as file:
        output = Output(1000, None, Budget())
        plain = FileRange(file.fileno(), 0, 200, partial(said.append, "let go"))
        cut = partial(said.append, "cut")
        bars = partial(FramedRange, plain, Request(1, {}), 64, lambda size: (b"<%d>" % size, b"|"))
        output.append_file(bars(cut))
        with pytest.raises(OSError, match="cut while it was sent"):
            drain(output, pair)
        output.clear()
    for release in output.released:
        release()
    assert said == ["cut", "let go"]
    assert (output.size, output.waiting) == (0, 0)


def test_a_file_that_was_cut_is_an_error(pair, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    with path.open("rb") as file:
        output = Output(1000, None, Budget())
        output.append_file(FileRange(file.fileno(), 0, 200))
        with pytest.raises(OSError, match="cut while it was sent"):
            drain(output, pair)


def test_clear_lets_go_of_everything(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    released = []
    before = len(os.listdir("/proc/self/fd"))
    output = Output(10, str(tmp_path), Budget())
    with path.open("rb") as file:
        output.append(b"x" * 100)
        output.append_file(FileRange(file.fileno(), 0, 100, lambda: released.append(1)))
        output.append(b"x" * 100)
        output.clear()
        assert output.size == 0
    assert len(output.released) == 1
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def small():
    """A budget with 50,000 bytes to keep in memory in place of the disk."""
    budget = Budget()
    budget.unkept = Allowance(50_000)
    return budget


def test_what_a_full_disk_does_not_take_is_kept_in_memory(pair, tmp_path, small):
    data = numbered(140_000)
    for _ in range(2):  # what was sent may be kept again
        output = Output(1000, str(tmp_path), small)
        with full_disk(100_000):
            for start, end in ((0, 1000), (1000, 91_000), (91_000, 116_000), (116_000, 140_000)):
                output.append(data[start:end])
            assert "too large" in output.trouble
        assert not small.unkept.take(2000)
        assert drain(output, pair) == data
    output = Output(1000, str(tmp_path), small)
    with full_disk(0):
        output.append(data[:50_000])
    output.clear()
    assert small.unkept.take(50_000)


def test_a_full_disk_and_full_memory_are_an_error(pair, tmp_path, small):
    """What was queued before is sent."""
    output = Output(1000, str(tmp_path), small)
    output.append(numbered(1000))
    with full_disk(100_000):
        output.append(numbered(90_000))
        with pytest.raises(NotKept, match="the answer cannot be kept"):
            output.append(numbered(50_001))
    assert drain(output, pair) == numbered(1000) + numbered(90_000)
    assert small.unkept.take(50_000)


def test_an_endless_answer_takes_a_bounded_file(pair, tmp_path):
    """The queue is never empty, and what was sent does not stay on the disk."""
    ours, theirs = pair
    output = Output(1000, str(tmp_path), Budget())
    piece = numbered(1 << 20)
    expected, received = 0, 0
    for _ in range(100):
        output.append(piece)
        expected += len(piece)
        while output.size > 2 << 20:
            output.flush(ours)
            received += len(theirs.recv(1 << 20))
            while output.released:
                output.released.pop()()
        assert output.size
        assert on_disk(tmp_path) <= 40 << 20
    assert received + len(drain(output, pair)) == expected


def on_disk(folder):
    """Bytes of deleted files that this process holds open there."""
    size = 0
    for number in os.listdir("/proc/self/fd"):
        try:
            if os.readlink(f"/proc/self/fd/{number}").startswith(str(folder)):
                size += os.stat(f"/proc/self/fd/{number}").st_size
        except FileNotFoundError:  # the listing's own descriptor
            continue
    return size


class Place(Serving):
    """A worker that has no thread to send what is held back."""

    def __init__(self):
        self.streams = SimpleNamespace(hold=lambda _: False)


class Line(Channel):
    """A channel whose loop is the test."""

    def __init__(self, sock, budget=None, *, awaited=False, **settings):
        super().__init__(sock, Settings(**settings), budget or Budget())
        self.worker = Place()
        self.awaited = awaited
        self.asked = 0
        self.trouble = []

    def send_later(self):
        self.asked += 1

    def is_awaited(self):
        return self.awaited

    def cannot_spool(self):
        self.trouble.append(self.output.trouble)
        self.output.trouble = ""


def test_what_the_socket_takes_is_sent_at_once(pair):
    line = Line(pair[0])
    line.write(b"small")
    assert pair[1].recv(100) == b"small"
    assert line.asked == 0


def test_what_the_socket_does_not_take_waits_for_the_loop(pair):
    line = Line(pair[0])
    data = numbered(300_000)
    line.write(data)
    line.write(b"more")
    assert line.asked == 2
    received = bytearray()
    while not line.flush():
        received += pair[1].recv(1 << 20)
    while len(received) < 300_004:
        received += pair[1].recv(1 << 20)
    assert received == data + b"more"


class Stingy:
    """A socket that takes so many bytes at once and no more until the loop is asked."""

    def __init__(self, sock, takes):
        self.sock = sock
        self.takes = takes

    def sendmsg(self, pieces):
        takes, self.takes = self.takes, 0
        if not takes:
            raise BlockingIOError
        return self.sock.send(b"".join(pieces)[:takes])


@pytest.mark.parametrize("takes", [0, 1, 5, 6, 7, 1000, 20_005, 20_006, 20_007, 20_008])
def test_a_framed_piece_is_cut_anywhere(pair, takes):
    parts = (b"4e20\r\n", numbered(20_000), b"\r\n")
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    line = Line(Stingy(pair[0], takes))
    line.write(*parts)
    assert line.output.size == 20_008 - takes
    line.sock = pair[0]
    line.write(*parts)  # behind what waits, if anything does
    while line.output.size:
        line.flush()
    pair[0].shutdown(socket.SHUT_WR)
    with pair[1].makefile("rb") as file:
        assert file.read() == b"".join(parts) * 2


@pytest.mark.parametrize("takes", [0, 1, 7, 8, 9, 10_000, 30_007, 30_008, 30_009, 30_016, 60_018])
def test_a_body_in_records_is_cut_anywhere(pair, takes):
    view = memoryview(numbered(60_000))
    parts = [b"header0\n", view[:30_000], b"", b"header1\n", view[30_000:], b"", b"\0\0"]
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    line = Line(Stingy(pair[0], takes))
    line.write_parts(parts)
    assert line.output.size == 60_018 - takes
    assert line.asked == (takes != 60_018)
    line.sock = pair[0]
    line.write_parts(parts)  # behind what waits, if anything does
    while line.output.size:
        line.flush()
    pair[0].shutdown(socket.SHUT_WR)
    with pair[1].makefile("rb") as file:
        assert file.read() == b"".join(parts) * 2


def test_more_parts_than_the_kernel_takes_at_once(pair):
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    line = Line(pair[0])
    line.write_parts([b"%05d" % number for number in range(3000)])
    while line.output.size:
        line.flush()
    line.write_parts([b"the end"])
    assert line.output.size == 0
    pair[0].shutdown(socket.SHUT_WR)
    with pair[1].makefile("rb") as file:
        assert file.read() == b"".join(b"%05d" % number for number in range(3000)) + b"the end"


def test_parts_for_a_peer_that_has_gone(pair):
    line = Line(pair[0])
    pair[1].close()
    for _ in range(2):
        with pytest.raises(ClientDisconnected):
            line.write_parts([b"a", b"b"])
    assert line.gone


def test_a_producer_waits_for_a_slow_reader(pair):
    line = Line(pair[0], response_buffer_size=100_000, body_buffer_size=10_000)
    data = numbered(2_000_000)
    received = bytearray()

    def read():
        while piece := pair[1].recv(5000):
            received.extend(piece)

    reader = threading.Thread(target=read)
    reader.start()
    for start in range(0, len(data), 50_000):
        line.write(data[start : start + 50_000], wait=True)
        assert line.output.size <= 100_000
    while not line.flush():
        pass
    pair[0].close()
    reader.join(20)
    assert received == data


def test_a_reader_that_takes_nothing_is_given_up(pair):
    line = Line(pair[0], response_buffer_size=1000, send_timeout=0.05)
    with pytest.raises(ClientDisconnected, match="takes too little"):
        line.write(numbered(1_000_000), wait=True)
    assert line.gone
    assert line.output.size == 0
    with pytest.raises(ClientDisconnected):
        line.write(b"more")
    with pytest.raises(ClientDisconnected):
        line.flush()


def test_a_peer_that_has_gone_is_told_once_and_files_are_let_go(pair, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    released = []
    line = Line(pair[0])
    pair[1].close()
    with path.open("rb") as file:
        for _ in range(2):
            piece = FileRange(file.fileno(), 0, 100, lambda: released.append(1))
            with pytest.raises(ClientDisconnected):
                line.write_file(b"head", piece)
            line.release()
    assert line.gone
    assert released == [1, 1]


def test_a_full_disk_is_said_and_the_answer_goes_on(pair, tmp_path):
    line = Line(pair[0], body_buffer_size=0, body_spool_dir=str(tmp_path))
    with full_disk(1000):
        line.write(numbered(1_000_000))
        line.write(numbered(1000))
    assert line.trouble == ["[Errno 27] File too large"]
    assert drain(line.output, pair) == numbered(1_000_000) + numbered(1000)


def test_a_full_disk_and_full_memory_end_the_answer(pair, tmp_path, small):
    line = Line(pair[0], small, body_buffer_size=0, body_spool_dir=str(tmp_path))
    with full_disk(1000), pytest.raises(AnswerLost, match="too large"):
        line.write(numbered(1_000_000))
    assert line.gone


def test_a_full_disk_and_full_memory_let_go_of_a_file(pair, tmp_path, small):
    line = Line(pair[0], small, body_buffer_size=0, body_spool_dir=str(tmp_path))
    released = []
    piece = FileRange(0, 0, 100, lambda: released.append(1))
    with full_disk(1000):
        line.write(numbered(45_000))
        with pytest.raises(AnswerLost, match="too large"):
            line.write_file(numbered(50_000), piece)
    line.release()
    assert released == [1]
    assert small.unkept.take(50_000)


@pytest.mark.parametrize("in_memory", [0, 1 << 20])
def test_tiny_pieces_are_joined(in_memory):
    """A million pieces of four bytes must not be a million objects."""
    output = Output(in_memory, None, Budget())
    for number in range(10_000):
        output.append(b"%04d" % number)
    assert len(output._chunks) <= 11
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        received = b""
        while output.size:
            output.flush(ours)
            received += theirs.recv(1 << 20)
    assert received == b"".join(b"%04d" % number for number in range(10_000))
