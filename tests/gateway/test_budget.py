"""What a worker keeps for all of its peers together, and how fast they have to be."""

import gc
import os
import socket
import threading
from io import BytesIO
from time import monotonic

import pytest
from test_output import Line, numbered, on_disk, short_sends

from gateway.body import Intake, Spool
from gateway.budget import Budget
from gateway.disconnects import TakesTooLittle
from gateway.output import NotKept, Output
from gateway.pace import Pace
from gateway.settings import Settings
from protocols.model import Body, Data, Request


@pytest.fixture
def budget():
    return Budget(memory=10_000, disk=100_000)


def is_whole(budget):
    """Everything was given back."""
    return (budget.memory.left, budget.disk.left, budget.unkept.left) == (
        budget.memory.size,
        budget.disk.size,
        budget.unkept.size,
    )


# Bodies


def test_bodies_beyond_the_memory_of_all_go_to_files(budget, tmp_path):
    spools = [Spool(6000, str(tmp_path), budget) for _ in range(3)]
    for spool in spools:
        for _ in range(5):
            spool.write(b"x" * 1000)
    files = [spool.finish() for spool in spools]
    assert [isinstance(file, BytesIO) for file in files] == [True, True, False]
    assert (budget.memory.left, budget.disk.left) == (0, 95_000)
    for file in files:
        assert file.read() == b"x" * 5000
        file.close()
        file.close()
    assert is_whole(budget)


def test_a_body_that_outgrows_memory_gives_it_back(budget, tmp_path):
    spool = Spool(6000, str(tmp_path), budget)
    spool.write(b"x" * 6000)
    assert budget.memory.left == 4000
    spool.write(b"x")
    assert (budget.memory.left, budget.disk.left) == (10_000, 93_999)
    spool.close()
    assert is_whole(budget)


@pytest.mark.parametrize("pieces", [10, 100])
def test_many_small_pieces_are_charged_once(budget, tmp_path, pieces):
    spool = Spool(6000, str(tmp_path), budget)
    for _ in range(pieces):
        spool.write(b"x" * 10)
    assert budget.memory.left == 10_000 - pieces * 10
    file = spool.finish()
    assert file.read() == b"x" * 10 * pieces
    file.close()
    assert is_whole(budget)


def test_bodies_beyond_the_files_of_all_are_refused(budget, tmp_path):
    kept = Spool(0, str(tmp_path), budget)
    kept.write(b"x" * 90_000)
    spool = Spool(0, str(tmp_path), budget)
    spool.write(b"x" * 10_000)
    with pytest.raises(OSError, match="worker_spool_size is used up"):
        spool.write(b"x")
    spool.close()
    assert budget.disk.left == 10_000
    kept.finish().close()
    assert is_whole(budget)


def test_what_is_forgotten_is_given_back(budget, tmp_path):
    """A Filter's data is the application's: nobody else closes it."""
    request = Request(1, {}, 4, b"", True)
    intake = Intake(request, Settings(body_spool_dir=str(tmp_path)), budget, 0.0)
    intake.take(Body(1, b"body", True))
    intake.take(Data(1, b"x" * 20_000, True))
    assert (intake.size, intake.arrived) == (4, 20_004)
    body = intake.finish()
    assert (budget.memory.left, budget.disk.left) == (9996, 80_000)
    del body, intake, request
    gc.collect()
    assert is_whole(budget)
    assert on_disk(tmp_path) == 0


# Answers


def test_answers_beyond_the_memory_of_all_go_to_files(budget, tmp_path):
    outputs = [Output(6000, str(tmp_path), budget) for _ in range(3)]
    for output in outputs:
        output.append(b"x" * 5000)
    assert (budget.memory.left, budget.disk.left) == (0, 95_000)
    for output in outputs:
        output.clear()
    assert is_whole(budget)


def test_what_is_sent_is_given_back(budget, tmp_path):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        output = Output(6000, str(tmp_path), budget)
        for size in (5000, 20_000, 1000, 30_000):
            output.append(numbered(size))
        while output.size:
            output.flush(ours)
            theirs.recv(1 << 20)
            while output.released:
                output.released.pop()()
        assert is_whole(budget)


@pytest.mark.parametrize("sent", [10, 400_000, 900_000])
def test_the_rest_of_a_piece_does_not_keep_all_of_it(sent):
    """What is counted is what is held, up to twice that."""
    data = numbered(1_000_000)
    output = Output(1 << 20, None, Budget())
    output.append(memoryview(data)[sent:])
    (rest,) = output._chunks
    assert rest == data[sent:]
    assert len(rest.obj) <= 2 * len(rest)


def test_what_is_left_of_a_piece_does_not_keep_all_of_it(pair):
    ours, theirs = pair
    output = Output(1 << 20, None, Budget())
    data = numbered(100_000)
    output.append(data)
    received = bytearray()
    while output.size:
        output.flush(ours)
        received += theirs.recv(1000)
        assert sum(len(rest.obj) for rest in output._chunks) <= 2 * output.size
    while len(received) < len(data):
        received += theirs.recv(100_000)
    assert received == data


def test_a_stream_waits_when_memory_holds_much_of_what_the_disk_did_not_take(pair, tmp_path):
    """Half of that is for whole answers, which cannot wait."""
    budget = Budget(memory=0, disk=0)
    budget.unkept.left = budget.unkept.size = 1_000_000
    line = Line(pair[0], budget, body_spool_dir=str(tmp_path))
    assert line.write(numbered(400_000), wait=True) == 0.0
    received = bytearray()

    def read() -> None:
        while len(received) < 600_000:
            received.extend(pair[1].recv(1 << 16))

    reader = threading.Thread(target=read)
    reader.start()
    line.write(numbered(200_000), wait=True)
    assert budget.unkept.left >= 500_000
    while not line.flush():
        pass
    reader.join(20)
    assert received == numbered(400_000) + numbered(200_000)
    assert is_whole(budget)


def test_beyond_the_files_of_all_memory_is_the_last_resort(tmp_path):
    budget = Budget(memory=0, disk=50_000)
    budget.unkept.left = budget.unkept.size = 20_000
    output = Output(6000, str(tmp_path), budget)
    output.append(bytes(50_000))
    output.append(bytes(20_000))
    assert output.unkept == 20_000
    assert "worker_spool_size is used up" in output.trouble
    with pytest.raises(NotKept):
        output.append(b"x")
    output.clear()
    assert is_whole(budget)


def test_a_large_answer_in_many_files_is_given_back_file_by_file(tmp_path):
    budget = Budget(memory=0)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        output = Output(0, str(tmp_path), budget)
        for _ in range(40):
            output.append(bytes(1 << 20))
        assert budget.disk.size - budget.disk.left == 40 << 20
        while output.size > 1 << 20:
            output.flush(ours)
            theirs.recv(1 << 20)
        while output.released:
            output.released.pop()()
        assert budget.disk.size - budget.disk.left == 8 << 20
        output.clear()
        while output.released:
            output.released.pop()()
        assert is_whole(budget)
        assert len(os.listdir(tmp_path)) == 0


# Waiting for a reader


pair = pytest.fixture(short_sends)


def test_a_reader_that_takes_nothing_while_requests_wait_is_given_up_soon(pair):
    line = Line(pair[0], awaited=True, response_buffer_size=1000)
    begun = monotonic()
    with pytest.raises(TakesTooLittle):
        line.write(numbered(1_000_000), wait=True)
    assert monotonic() - begun < 10  # send_timeout is 60
    assert line.output.size == 0


def test_a_reader_that_takes_something_while_requests_wait_is_waited_for_by_the_spool(pair):
    line = Line(pair[0], response_buffer_size=100_000)
    data = numbered(3_000_000)
    received, stopped = bytearray(), threading.Event()

    def read() -> None:
        while len(received) < len(data):
            received.extend(pair[1].recv(20_000))
            stopped.wait(0.005)

    reader = threading.Thread(target=read)
    reader.start()
    line.awaited = True
    line.write(data[:2_900_000], wait=True)
    assert line.output.size > 1_000_000
    line.write(data[2_900_000:], wait=True)
    assert not line.gone
    stopped.set()
    while not line.flush():
        pass
    reader.join(20)
    assert received == data


def write_pieces(line, count):
    for _ in range(count):
        line.write(bytes(50_000), wait=True)


def test_without_room_in_the_spool_a_slow_reader_makes_way(pair, tmp_path):
    budget = Budget(memory=10_000, disk=300_000)
    line = Line(pair[0], budget, response_buffer_size=100_000, body_spool_dir=str(tmp_path))
    line.awaited = True
    stopped = threading.Event()

    def sip() -> None:
        while not stopped.wait(0.05) and pair[1].recv(100):
            pass

    reader = threading.Thread(target=sip)
    reader.start()
    try:
        with pytest.raises(TakesTooLittle):
            write_pieces(line, 100)
    finally:
        stopped.set()
        reader.join()
    assert is_whole(budget)


# Pace


def test_a_peer_lags_that_moves_nothing_or_too_little():
    pace = Pace(0, 100.0)
    assert not pace.lags(0, 110.0, 10.0, 500)
    assert pace.lags(0, 110.1, 10.0, 500)
    pace = Pace(0, 100.0)
    assert not pace.lags(4000, 109.0, 10.0, 500)
    assert pace.lags(4999, 110.1, 10.0, 500)


def test_each_period_counts_for_itself():
    pace = Pace(0, 100.0)
    assert not pace.lags(1_000_000, 110.1, 10.0, 500)
    assert not pace.lags(1_000_001, 115.0, 10.0, 500)
    assert pace.lags(1_000_002, 120.2, 10.0, 500)


def test_any_rate_is_enough_without_a_least_one():
    pace = Pace(0, 100.0)
    for second in range(1, 100):
        assert not pace.lags(second, 100.0 + second, 10.0, 0)
    assert pace.lags(99, 300.0, 10.0, 0)
