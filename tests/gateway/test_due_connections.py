"""Which connections the loop looks at each second: those at which something may be due."""

from __future__ import annotations

import socket

import pytest

from gateway.budget import Budget
from gateway.connection import Connection
from gateway.deadlines import due
from gateway.output import Output
from gateway.service import Service
from gateway.serving import Serving
from gateway.settings import Settings

NOW = 1000.0
SETTINGS = Settings(keepalive=20, fastcgi_keepalive=40, client_header_timeout=10)


@pytest.fixture
def connection():
    """One that was served and is kept, since this very moment."""
    ours, theirs = socket.socketpair()
    worker = Serving()
    worker.settings, worker.budget = SETTINGS, Budget()
    worker.now, worker.retiring, worker.connections = NOW, False, {}
    made = Connection(worker, Service("http", SETTINGS, None), ours, "peer", {})
    made.partial = False
    worker.connections[made.number] = made
    with ours, theirs:
        yield made


def is_due(connection: Connection, after: float = 0.0) -> bool:
    return due(connection.worker, NOW + after) == [connection]


def test_one_that_is_kept_is_due_when_its_time_is_up(connection):
    assert not is_due(connection, 19)
    assert is_due(connection, 21)


def test_one_that_has_begun_a_head_is_due_before(connection):
    connection.partial = True
    assert not is_due(connection, 9)
    assert is_due(connection, 11)


def test_one_whose_peer_does_not_take_an_answer_is_due(connection):
    connection.output = Output(0, None, Budget())
    assert not is_due(connection)
    connection.output.size = 1
    assert is_due(connection)


def test_one_whose_body_is_not_whole_is_due(connection):
    connection.intake[0] = object()
    assert is_due(connection)


def test_one_that_is_closing_is_due(connection):
    connection.linger_until = NOW + 30
    assert is_due(connection)


def test_all_are_due_in_a_worker_that_retires(connection):
    connection.worker.retiring = True
    assert is_due(connection)
