"""The scoreboard: what another process reads of a worker, also when that is gone."""

import os
import signal
import threading

import pytest

from gateway.scoreboard import BUSY, IDLE, Board, describe

TEXT = describe("GET", "HTTP/1.1", "192.0.2.1", "192.0.2.1:5", "http", "/a?b=1")


@pytest.fixture
def board():
    made = Board(2)
    yield made
    made.close()


def test_a_new_board_is_empty(board):
    assert (board.beat, board.busy_since, board.last_active) == (0.0, 0.0, 0.0)
    assert (board.requests, board.busy, board.lost(1.0)) == (0, 0, [])


def test_numbers_of_the_worker(board):
    board.beat, board.busy_since, board.last_active = 1.5, 2.5, 3.5
    assert (board.beat, board.busy_since, board.last_active) == (1.5, 2.5, 3.5)
    assert board.lost(0.0) == []


def test_a_request_is_there_until_it_ends(board):
    first, second = board.seat(0), board.seat(1)
    first.begin(7, 10.0, TEXT, BUSY)
    assert board.busy == 1
    (lost,) = board.lost(12.5)
    assert lost._asdict() == {
        "serial": 7,
        "started": 10.0,
        "age": 2.5,
        "method": "GET",
        "uri": "/a?b=1",
        "server_protocol": "HTTP/1.1",
        "remote_addr": "192.0.2.1",
        "peer": "192.0.2.1:5",
        "protocol": "http",
    }
    second.begin(6, 9.0, TEXT, BUSY)
    assert [item.serial for item in board.lost(0.0)] == [6, 7]
    first.end(IDLE)
    assert [item.serial for item in board.lost(0.0)] == [6]
    second.end(IDLE)
    assert (board.busy, board.lost(0.0), board.requests) == (0, [], 7)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("/" + "x" * 5000, "/" + "x" * 950),
        ("/\xe9\xff", "/\xe9\xff"),
        ("/a\0b", "/a\0b"),
        ("", "-"),
        ("/" + "\xe9" * 800, None),  # cut in the middle of a character
    ],
)
def test_any_uri(board, uri, shown):
    board.seat(0).begin(1, 1.0, describe("GET", "HTTP/1.1", "", "", "http", uri), BUSY)
    (lost,) = board.lost(1.0)
    if shown is None:
        assert lost.uri.startswith("/\xe9\xe9")
    elif len(uri) > 2000:
        assert lost.uri.startswith(shown)
    else:
        assert lost.uri == shown
    assert (lost.method, lost.peer, lost.remote_addr) == ("GET", "-", "")
    assert board.seat(1).index == 1
    assert board.busy == 1  # the neighbour's record is untouched


def test_a_part_that_fills_the_record_leaves_the_others_empty(board):
    board.seat(0).begin(1, 1.0, describe("X" * 2000, "P", "a", "p", "http", "/"), BUSY)
    (lost,) = board.lost(1.0)
    assert lost.method == "X" * 1000
    assert (lost.uri, lost.protocol) == ("-", "-")


def test_there_are_seats_for_substitutes(board):
    assert board.seats >= 4
    board.seat(board.seats - 1).begin(3, 1.0, TEXT, BUSY)
    assert [item.serial for item in board.lost(1.0)] == [3]
    for wrong in (-1, board.seats):
        with pytest.raises(IndexError):
            board.seat(wrong)


def test_it_outlives_a_killed_process(board):
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        board.seat(1).begin(9, 4.0, TEXT, BUSY)
        board.beat = 5.0
        os.write(writer, b".")
        threading.Event().wait()
    assert os.read(reader, 1) == b"."
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(reader)
    os.close(writer)
    assert [(item.serial, item.uri) for item in board.lost(5.0)] == [(9, "/a?b=1")]
    assert board.beat == 5.0


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs memfd_create")
def test_another_process_attaches_by_the_descriptor(board):
    other = Board.attach(os.dup(board.descriptor()), 2)
    other.seat(0).begin(4, 1.0, TEXT, BUSY)
    other.beat = 2.0
    other.close()
    assert [item.serial for item in board.lost(1.0)] == [4]
    assert board.beat == 2.0


def test_closing_gives_the_descriptor_back():
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    board = Board(1)
    board.seat(0).end(IDLE)
    board.close()
    board.close()
    assert board.descriptor() == -1
    if before:
        assert len(os.listdir("/proc/self/fd")) == before
