"""What arrives at the service manager's socket."""

import os
import re
import socket
import tempfile
import time
from contextlib import closing, suppress
from itertools import pairwise

import pytest

from gateway.systemd import Notifier


class Manager:
    """The receiving end, as systemd has it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind("\0" + name[1:] if name.startswith("@") else name)
        self.sock.setblocking(False)

    def close(self) -> None:
        self.sock.close()

    def messages(self) -> list[dict[str, str]]:
        """What has been said since the last time: assignments of each datagram."""
        found = []
        while True:
            try:
                text = self.sock.recv(4096).decode()
            except BlockingIOError:
                return found
            pairs = [line.split("=", 1) for line in text.split("\n")]
            assert len(dict(pairs)) == len(pairs), text
            found.append(dict(pairs))


def abstract_name() -> str:
    return f"@gateway-test-{os.getpid()}-{time.monotonic_ns()}"


@pytest.fixture(params=["path", "abstract"])
def manager(request):
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        name = f"{folder}/notify" if request.param == "path" else abstract_name()
        with closing(Manager(name)) as receiver:
            yield receiver


def notifier(manager, **more) -> Notifier:
    return Notifier({"NOTIFY_SOCKET": manager.name, **more})


def test_every_message(manager):
    told = notifier(manager)
    told.ready("2 workers")
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    told.reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    told.ready()
    told.status("3 workers")
    told.main_pid(4711)
    told.stopping()
    ready, reloading, again, status, main_pid, stopping = manager.messages()
    assert ready == {"READY": "1", "STATUS": "2 workers"}
    assert reloading.pop("RELOADING") == "1"
    assert before <= int(reloading.pop("MONOTONIC_USEC")) <= after
    assert reloading == {"STATUS": "Reloading"}
    assert again == {"READY": "1"}
    assert status == {"STATUS": "3 workers"}
    assert main_pid == {"MAINPID": "4711"}
    assert stopping == {"STOPPING": "1", "STATUS": "Stopping"}


def test_variables_are_taken_and_given_back(manager):
    environ = {
        "NOTIFY_SOCKET": manager.name,
        "WATCHDOG_USEC": "1000000",
        "WATCHDOG_PID": str(os.getpid()),
        "PATH": "/bin",
    }
    told = Notifier(environ)
    assert environ == {"PATH": "/bin"}
    told.restore(environ)
    # Whoever takes over has another process id, and still has to give signs of life.
    assert environ == {
        "NOTIFY_SOCKET": manager.name,
        "WATCHDOG_USEC": "1000000",
        "PATH": "/bin",
    }
    assert Notifier(environ).pause == 0.25


def test_nobody_to_tell():
    told = Notifier({"WATCHDOG_USEC": "1000000"})
    told.ready("x")
    told.reloading()
    told.stopping()
    told.status("x")
    told.main_pid(1)
    told.watchdog()
    assert told.pause is None
    environ = {}
    Notifier({}).restore(environ)
    assert environ == {}


@pytest.mark.parametrize(
    "name", ["/nowhere/at/all", "vsock:2:1234", "relative", "", "@", "/" * 200]
)
def test_a_socket_that_cannot_be_used_does_no_harm(name):
    told = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "1000000"})
    told.ready("x")
    told.watchdog()
    told.stopping()


@pytest.mark.parametrize(
    ("variables", "pause"),
    [
        ({"WATCHDOG_USEC": "20000000"}, 5.0),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": str(os.getpid())}, 5.0),
        ({"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_watchdog_is_on_only_for_us(manager, variables, pause):
    told = notifier(manager, **variables)
    assert told.pause == pause
    told.watchdog()
    assert manager.messages() == ([{"WATCHDOG": "1"}] if pause else [])


def test_a_sign_of_life_comes_in_half_the_time(manager, monkeypatch):
    told = notifier(manager, WATCHDOG_USEC="20000000")
    clock = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    signs = []
    while clock < 1100.0:
        told.watchdog()
        if manager.messages():
            signs.append(clock)
        clock += told.pause - 0.001
    gaps = [later - earlier for earlier, later in pairwise(signs)]
    assert signs[0] == 1000.0
    assert min(gaps) >= 10.0
    assert max(gaps) <= 15.0


def test_a_status_is_one_line_and_not_too_long(manager):
    told = notifier(manager)
    told.status("one\nREADY=1\nthree \udcff")
    told.ready("ä" * 4000)
    told.status("")
    status, ready, empty = manager.messages()
    assert status == {"STATUS": "one READY=1 three ?"}
    assert re.fullmatch("ä{1000,2000}", ready["STATUS"])
    assert empty == {"STATUS": " "}


def fill(manager) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect("\0" + manager.name[1:] if manager.name.startswith("@") else manager.name)
        with suppress(BlockingIOError):
            while True:
                sock.send(b"FULL=1")


def test_a_manager_that_does_not_read_is_told_later(manager):
    told = notifier(manager)
    fill(manager)
    told.ready("1 worker")
    for number in range(100):
        told.status(f"{number} requests")
    told.stopping()
    assert {tuple(message) for message in manager.messages()} == {("FULL",)}
    told.watchdog()
    # Of each kind the last word, in their order.
    assert manager.messages() == [
        {"READY": "1", "STATUS": "1 worker"},
        {"STATUS": "99 requests"},
        {"STOPPING": "1", "STATUS": "Stopping"},
    ]
    told.watchdog()
    assert manager.messages() == []


def test_signs_of_life_do_not_pile_up(manager, monkeypatch):
    told = notifier(manager, WATCHDOG_USEC="2000000")
    clock = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    fill(manager)
    told.ready("x")
    for _ in range(100):
        told.watchdog()
        clock += 1.0
    manager.messages()
    told.watchdog()
    assert manager.messages() == [{"READY": "1", "STATUS": "x"}, {"WATCHDOG": "1"}]


def test_no_descriptor_stays_open(manager):
    told = notifier(manager, WATCHDOG_USEC="2000000")
    before = os.listdir("/dev/fd")
    told.ready("x")
    told.watchdog()
    assert os.listdir("/dev/fd") == before


def test_a_manager_that_starts_again_is_found():
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        told = Notifier({"NOTIFY_SOCKET": f"{folder}/notify"})
        told.ready("x")  # nobody is there yet
        with closing(Manager(f"{folder}/notify")) as manager:
            told.status("y")
            assert manager.messages() == [{"READY": "1", "STATUS": "x"}, {"STATUS": "y"}]
