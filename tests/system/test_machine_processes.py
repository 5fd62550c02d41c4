"""Processes, threads, memory and clocks that fail: what is lost, which is as little as can be."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import monotonic

import pytest
from clients import Http
from conftest import PROTOCOLS
from processes import (
    GATEWAY,
    WAITING_APP,
    Gateway,
    Load,
    alive,
    children,
    cpu_seconds,
    started,
    wait_for,
)

#: Executes a command as a user that has no other process, and may read everything all the same.
AS_ANOTHER = (
    *("setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups"),
    *("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"),
)

APP = """
import os

def app(environ, start_response):
    if environ["PATH_INFO"] == "/memory":
        return [bytes(1 << 40)]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % os.getpid()]
"""


needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"),
    reason="only root, with setpriv, can become a user without other processes",
)


def port_of(server) -> tuple[str, int]:
    (port,) = re.findall(r"http on 127\.0\.0\.1:(\d+)", server.log)
    return "127.0.0.1", int(port)


# Processes and threads


#: Executes its arguments with at most so many processes and threads of its user.
FEW = "import os, resource, sys; n = int(sys.argv[1]); "
FEW += "resource.setrlimit(resource.RLIMIT_NPROC, (n, 1000)); os.execv(sys.argv[2], sys.argv[2:])"


@needs_root
def test_a_fork_that_fails_is_tried_again_and_the_others_serve(tmp_path):
    """The manager, two workers with a thread and a watchdog each, and two that take the rest."""
    (tmp_path / "app.py").write_text(APP)
    others = [subprocess.Popen([*AS_ANOTHER, "sleep", "1000"]) for _ in range(2)]
    before = (*AS_ANOTHER, sys.executable, "-c", FEW, "7")
    words = ("app:app", "--bind", "127.0.0.1:0", "--workers", "2", "--threads", "1")
    try:
        with started(*words, cwd=tmp_path, before=before) as server:
            server.wait_for_log("is ready", 2)
            manager = server.process.pid
            workers = children(manager)
            with Load("http", port_of(server), keep=False) as load:
                server.process.send_signal(signal.SIGTTIN)
                server.wait_for_log("cannot start a worker: ", 2)
                spent = cpu_seconds(manager)
                server.wait_for_log("cannot start a worker: ", 5)
                assert cpu_seconds(manager) - spent < 0.5
                load.reached(50)
                for other in others:
                    other.kill()
                    other.wait()
                server.wait_for_log("is ready", 3)
                load.reached(50)
            assert not load.lost
            assert set(workers) < set(children(manager))
            assert server.stop() == 0
    finally:
        for other in others:
            other.kill()
            other.wait()


@needs_root
@pytest.mark.parametrize("most", [2, 5, 6, 7])
def test_a_worker_without_its_threads_is_none(tmp_path, most):
    """The manager, the worker, four threads and a watchdog: seven."""
    (tmp_path / "app.py").write_text(APP)
    words = [*GATEWAY, "app:app", "--bind", "127.0.0.1:0", "--threads", "4"]
    before = [*AS_ANOTHER, sys.executable, "-c", FEW, str(most)]
    server = Gateway([*before, *words], tmp_path)
    try:
        if most < 7:
            assert server.process.wait(20) == 3
            assert "cannot start: the system has no more threads: " in server.log
            assert "Traceback" not in server.log
        else:
            server.wait_for_log("is ready")
            with Load("http", port_of(server), keep=False) as load:
                load.reached(50)
            assert not load.lost
    finally:
        server.end()


# Memory


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_memory_that_runs_out_ends_one_request(serve, threads, protocol):
    """The application's own, and what a body of the application's size needs."""
    source = """
        import resource

        def app(environ, start_response):
            if environ["PATH_INFO"] == "/memory":
                return [bytes(1 << 40)]
            start_response("200 OK", [])
            body = environ["wsgi.input"].read()
            return [body * 400 if environ["PATH_INFO"] == "/many" else body]

        with open("/proc/self/statm") as file:
            size = int(file.read().split()[0]) * resource.getpagesize()
        limit = size + (2 << 30)  # each thread alone may reserve 64 MiB
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    """
    server = serve(source, "--threads", threads, "--body-buffer-size", "50000000")
    (worker,) = server.workers
    for kind in ("tcp", "unix"):
        for _ in range(3):
            assert server.connect(protocol, kind).ask("/memory").status == 500
            body = bytes(10_000_000)
            answer = server.connect(protocol, kind).ask("/many", method="POST", body=body)
            assert answer.status == 500
            assert server.connect(protocol, kind).ask("/", method="POST", body=b"x").body == b"x"
    assert server.workers == [worker]
    server.wait_for_log("MemoryError", 12)


# Standard descriptors


@pytest.mark.parametrize("words", [(), ("--accesslog", "-"), ("--preload",)])
def test_closed_standard_descriptors_are_nobodys_socket(tmp_path, words):
    """What prints must not print to a client."""
    (tmp_path / "app.py").write_text("""
import os
import subprocess

def app(environ, start_response):
    for number in (1, 2):
        os.write(number, b"printed" * 1000)
    print("printed")
    subprocess.run(["sh", "-c", "echo printed; echo printed >&2; cat"], check=True)
    environ["wsgi.errors"].write("printed")
    start_response("200 OK", [("Content-Length", "2")])
    return [os.readlink("/proc/self/fd/0")[:1].encode() + b"k"]
""")
    command = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *GATEWAY, "app:app", *words]
    server = Gateway([*command, "--bind", "unix:sock"], tmp_path)
    try:
        wait_for(lambda: answers(tmp_path / "sock"), "an answer")
        with Http(str(tmp_path / "sock")) as peer:
            for _ in range(5):
                answer = peer.ask("/")
                assert (answer.body, answer.whole) == (b"/k", True)
            assert not peer.buffer
        names = {os.readlink(f"/proc/{server.process.pid}/fd/{number}") for number in range(3)}
        assert names == {"/dev/null"}
        assert server.stop() == 0
    finally:
        server.end()


def answers(path: Path) -> bool:
    try:
        with Http(str(path)) as peer:
            return peer.ask("/").status == 200
    except (FileNotFoundError, ConnectionRefusedError):
        return False


# Processes that stand still


@contextmanager
def frozen(pids):
    """As in a machine that is suspended, or a container that is paused."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def pass_time(seconds: float) -> None:
    begun = monotonic()
    wait_for(lambda: monotonic() - begun > seconds, "a while")


def test_time_in_which_a_worker_stood_still_is_not_a_requests(serve, threads):
    server = serve(WAITING_APP, "--threads", threads, "--timeout", "2", protocols=["http"])
    (worker,) = server.workers
    peer = server.connect("http")
    peer.start("/wait/x")
    wait_for((server.folder / "x.started").exists, "the request")
    for _ in range(2):
        with frozen([worker]):
            pass_time(5)
        pass_time(0.3)
    (server.folder / "x").touch()
    assert peer.answer().status == 200
    peer.start("/wait/y")
    assert peer.answer().status == 504  # time that passes counts as ever
    assert server.workers == [worker]


def test_what_came_meanwhile_is_read_before_it_is_late(serve, threads):
    """Heads and bodies that had begun: more of them than one look at the sockets tells of."""
    times = ("--client-header-timeout", "2", "--client-body-timeout", "2", "--keepalive", "2")
    server = serve(WAITING_APP, "--threads", threads, *times, protocols=["http", "scgi"])
    (worker,) = server.workers
    begun = []
    for protocol in ("http", "scgi"):
        for cut in (20, -1):
            for _ in range(100):
                peer = server.connect(protocol, "unix")
                request = peer.encode("/", method="POST", body=b"x" * 100)
                peer.send(request[:cut])
                begun.append((peer, request[cut:]))
    kept = [server.connect("http", "unix") for _ in range(100)]
    for peer in kept:
        assert peer.ask("/").status == 200
    with frozen([worker]):
        for peer, rest in begun:
            peer.send(rest)
        for peer in kept:
            peer.start("/")
        pass_time(5)
    lost = [peer for peer, _ in begun if peer.answer().status != 200]
    lost += [peer for peer in kept if peer.answer().status != 200]
    assert not lost


def test_workers_that_stood_still_with_their_manager_are_not_dead(serve):
    server = serve(WAITING_APP, "--workers", "2", "--worker-timeout", "2", protocols=["http"])
    everybody = [server.process.pid, *server.workers]
    peer = server.connect("http")
    peer.start("/wait/x")
    wait_for((server.folder / "x.started").exists, "the request")
    for _ in range(3):
        with frozen(everybody):
            pass_time(5)
        pass_time(0.5)
    (server.folder / "x").touch()
    assert peer.answer().status == 200
    assert "no sign of life" not in server.log
    assert sorted(children(server.process.pid)) == sorted(server.workers)
    assert len(server.workers) == 2


def test_a_worker_that_stands_still_alone_is_replaced_and_nobody_waits(serve):
    server = serve(WAITING_APP, "--workers", "2", "--worker-timeout", "2", protocols=["http"])
    first, second = server.workers
    os.kill(first, signal.SIGSTOP)
    with Load("http", server.addresses["http", "tcp"], keep=False) as load:
        server.wait_for_log(f"worker {first} gave no sign of life")
        wait_for(lambda: not alive(first), "its end")
        load.reached(50)
    assert not load.lost
    assert alive(second)


# Clocks


#: Put in front of every other module: the clock on the wall is wrong by what a file says.
CLOCK = """
import os
import time

real = time.time
path = os.path.join(os.path.dirname(__file__), "offset")

def shifted():
    with open(path) as file:
        return real() + float(file.read() or 0)

time.time = shifted
"""


@pytest.mark.parametrize("offset", [86_400 * 400, -86_400 * 400, 3600, -3600])
def test_a_clock_that_jumps_ends_nothing(serve, threads, tmp_path, offset):
    """No deadline is on the wall: not of requests, idle connections, workers or restarts."""
    (tmp_path / "sitecustomize.py").write_text(CLOCK)
    (tmp_path / "offset").write_text("0")
    times = ("--timeout", "5", "--keepalive", "5", "--worker-timeout", "5", "--send-timeout", "5")
    times += ("--client-header-timeout", "5", "--client-body-timeout", "5")
    times += ("--max-worker-lifetime", "100", "--graceful-timeout", "5")
    server = serve(
        WAITING_APP, "--threads", threads, "--workers", "2", *times,
        env={"PYTHONPATH": str(tmp_path)}, protocols=["http", "fastcgi"],
    )  # fmt: skip
    workers = server.workers
    waiting, partial = server.connect("http"), server.connect("http")
    kept = [server.connect(protocol) for protocol in ("http", "fastcgi")]
    for peer in kept:
        assert peer.ask("/").status == 200
    if threads == "1":
        kept = []  # the request that waits may be in their worker
    waiting.start("/wait/x")
    partial.send(b"GET / HTTP/1.1\r\n")
    wait_for((server.folder / "x.started").exists, "the request")
    (tmp_path / "new").write_text(str(offset))
    (tmp_path / "new").rename(tmp_path / "offset")
    pass_time(3)
    for peer in kept:
        assert peer.ask("/").status == 200
    (server.folder / "x").touch()
    assert waiting.answer().status == 200
    partial.send(b"Host: a\r\n\r\n")
    assert partial.answer().status == 200
    answer = partial.ask("/")
    said = parsedate_to_datetime(answer.get("Date"))
    expected = datetime.now(UTC) + timedelta(seconds=offset)
    assert abs(said - expected) < timedelta(seconds=60)
    assert server.workers == workers
    assert server.stop(signal.SIGTERM) == 0
