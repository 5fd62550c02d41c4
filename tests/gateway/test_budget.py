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
from gateway.budget import Budget, NotKept
from gateway.disconnects import TakesTooLittle
from gateway.output import Output
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


def land(spool, length, data, most=10**6):
    """Have ``data`` come past ``write``, as from a socket; return the widest room for it."""
    widest = 0
    while data:
        room = spool.room(length)
        widest = max(widest, len(room))
        count = min(len(room), len(data), most)
        room[:count] = data[:count]
        room.release()
        spool.fill(count)
        data = data[count:]
    return widest


@pytest.mark.parametrize("most", [1, 700, 10**6])
def test_a_body_of_known_length_is_read_where_it_stays(tmp_path, most):
    budget = Budget(memory=100_000, disk=0)
    body = numbered(90_000)
    spool = Spool(90_000, str(tmp_path), budget)
    spool.write(body[:4095])
    assert not spool.takes_room(90_000)
    spool.write(body[4095:4096])
    assert spool.takes_room(90_000)
    land(spool, 90_000, body[4096:], most)
    assert budget.memory.left == 10_000
    file = spool.finish()
    assert file.read() is file.getvalue()  # not a copy
    assert (file.getvalue(), spool.size) == (body, 90_000)
    file.close()
    assert is_whole(budget)


def test_who_announces_much_has_no_more_than_a_multiple_of_what_it_sends(tmp_path):
    budget = Budget(memory=1 << 40, disk=0)
    length = 1 << 30
    spool = Spool(length, str(tmp_path), budget)
    spool.write(bytes(4095))
    assert not spool.takes_room(length)
    spool.write(bytes(1))
    assert len(spool.room(length)) == 15 * 4096
    assert budget.memory.size - budget.memory.left == 16 * 4096
    assert land(spool, length, bytes(15 * 4096)) == 15 * 4096
    assert budget.memory.size - budget.memory.left == 16 * 4096
    assert len(spool.room(length)) == 15 * 16 * 4096
    spool.close()
    assert is_whole(budget)


def test_a_body_of_known_length_that_has_no_room_in_memory_goes_to_a_file(tmp_path):
    """At the start, and when others have taken what it needs to go on."""
    body = numbered(200_000)
    for taken, kept in ((90_000, 4096), (20_000, 12_500)):
        budget = Budget(memory=100_000, disk=1 << 20)
        spool = Spool(200_000, str(tmp_path), budget)
        assert budget.memory.take(taken)
        spool.write(body[:4096])
        land(spool, 200_000, body[4096:kept])
        assert budget.memory.left == 100_000 - taken - kept
        land(spool, 200_000, body[kept:])
        assert (budget.memory.left, budget.disk.left) == (100_000 - taken, (1 << 20) - 200_000)
        file = spool.finish()
        assert file.read() == body
        file.close()
        budget.memory.give_back(taken)
        assert is_whole(budget)


def test_memory_that_others_give_back_meanwhile_is_used(tmp_path):
    body = numbered(80_000)
    budget = Budget(memory=100_000, disk=0)
    spool = Spool(80_000, str(tmp_path), budget)
    assert budget.memory.take(90_000)
    spool.write(body[:4096])
    land(spool, 80_000, body[4096:5000], most=100)
    budget.memory.give_back(90_000)
    land(spool, 80_000, body[5000:70_000], most=9000)
    spool.write(body[70_000:])  # as it may come too
    assert spool.finish().read() == body


def test_a_body_that_is_longer_than_memory_may_have_is_read_on_its_way_to_the_file(tmp_path):
    budget = Budget(memory=100_000, disk=1 << 20)
    body = numbered(900_000)
    spool = Spool(10_000, str(tmp_path), budget)
    spool.write(body[:10_000])
    assert not spool.takes_room(len(body))
    spool.write(body[10_000:10_001])
    assert spool.takes_room(len(body))
    assert land(spool, len(body), body[10_001:-1]) <= 1 << 18
    assert len(spool.room(len(body))) == 1
    land(spool, len(body), body[-1:])
    assert budget.memory.left == 100_000
    assert spool.finish().read() == body
    spool.close()
    assert is_whole(budget)


def test_a_body_that_is_given_up_gives_its_memory_back(tmp_path):
    budget = Budget(memory=100_000, disk=0)
    spool = Spool(90_000, str(tmp_path), budget)
    spool.write(bytes(5000))
    assert len(spool.room(80_000)) == 75_000
    spool.close()
    assert is_whole(budget)


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
