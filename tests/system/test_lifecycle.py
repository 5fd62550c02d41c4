"""The manager and its workers: started, watched, replaced and stopped, with requests counted."""

from __future__ import annotations

import os
import re
import signal
import socket
from time import monotonic

import pytest
from clients import Http
from processes import (
    TIMEOUT,
    WAITING_APP,
    Load,
    alive,
    children,
    cpu_seconds,
    descriptors,
    run,
    started,
    switches,
    threads_of,
    wait_for,
)

BROKEN_APP = "raise RuntimeError('this code is broken')\n"

#: Protocol, and whether the clients keep their connections.
CLIENTS = [("http", True), ("http", False), ("fastcgi", True), ("fastcgi", False), ("scgi", False)]
CLIENT_NAMES = [f"{protocol}-{'keep' if keep else 'close'}" for protocol, keep in CLIENTS]


def running(server) -> list[int]:
    """The workers that are there now."""
    return children(server.process.pid)


def versioned(number: int) -> str:
    return WAITING_APP.replace('VERSION = "1"', f'VERSION = "{number}"')


def waiting(server, name: str, protocol: str = "http"):
    """A request that runs until ``release``; the peer and the worker that serves it."""
    peer = server.connect(protocol)
    peer.start(f"/wait/{name}")
    mark = server.folder / f"{name}.started"
    wait_for(mark.exists, f"the request /wait/{name}")
    return peer, int(mark.read_text())


def release(server, name: str) -> None:
    (server.folder / name).touch()


# Starting


def test_workers_are_started_ahead_of_requests(serve):
    server = serve(WAITING_APP, "--workers", "3", protocols=["http"], kinds=["tcp"])
    assert sorted(running(server)) == sorted(server.workers)
    assert len(server.workers) == 3
    with Load("http", server.addresses["http", "tcp"], keep=False, clients=8) as load:
        wait_for(lambda: len(load.bodies) == 3, "an answer of every worker")
    assert not load.lost
    assert threads_of(server.process.pid) == 1, "the manager has no thread"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (BROKEN_APP, "RuntimeError: this code is broken"),
        ("def other(environ, start_response): ...\n", "it has other"),
        ("import sys\nsys.exit('not today')\n", "SystemExit: not today"),
        ("import os\nos._exit(7)\n", "it ended with exit code 7"),
        ("import os\nos.kill(os.getpid(), 9)\n", "it ended by signal SIGKILL"),
    ],
    ids=["raises", "no-attribute", "exits", "ends", "killed"],
)
def test_what_cannot_be_imported_ends_the_start_with_3(serve, source, expected):
    server = serve(source, "--workers", "2", protocols=["http"], wait=False)
    assert server.process.wait(TIMEOUT) == 3
    server.errors.wait_for_end(TIMEOUT)
    assert expected in server.log
    assert not (server.folder / "http.sock").exists()
    # Of two workers each may have tried once; nothing is tried again.
    assert server.log.count(" starts\n") <= 2


def test_startup_timeout(serve):
    begun = monotonic()
    server = serve(
        "import threading\nthreading.Event().wait()\n", "--startup-timeout", "0.5", wait=False
    )
    assert server.process.wait(TIMEOUT) == 3
    assert monotonic() - begun < 10
    server.errors.wait_for_end(TIMEOUT)
    assert "it was not ready within startup_timeout" in server.log


def test_pidfile(tmp_path):
    (tmp_path / "app.py").write_text(WAITING_APP)
    pidfile = tmp_path / "gateway.pid"
    pidfile.write_text("99999999999999999999\n")  # of nobody: replaced
    words = ("app:app", "--bind", "127.0.0.1:0", "--pidfile", str(pidfile))
    with started(*words, cwd=tmp_path) as first:
        assert pidfile.read_text() == f"{first.process.pid}\n"
        second = run(*words, cwd=tmp_path)
        assert second.returncode == 1
        assert second.stderr == (
            f"gateway: the pidfile {pidfile} belongs to running process {first.process.pid}\n"
        )
        assert pidfile.read_text() == f"{first.process.pid}\n"
        assert first.stop() == 0
        assert not pidfile.exists()
    with started(*words, cwd=tmp_path) as first:
        pidfile.write_text("1\n")  # another server's by now
        assert first.stop() == 0
        assert pidfile.read_text() == "1\n"


def test_pidfile_of_a_dead_process_is_replaced(tmp_path):
    (tmp_path / "app.py").write_text(WAITING_APP)
    pidfile = tmp_path / "gateway.pid"
    words = ("app:app", "--bind", "127.0.0.1:0", "--pidfile", str(pidfile))
    with started(*words, cwd=tmp_path) as killed:
        killed.stop(signal.SIGKILL)
        assert pidfile.read_text() == f"{killed.process.pid}\n"
        with started(*words, cwd=tmp_path) as second:
            assert pidfile.read_text() == f"{second.process.pid}\n"


# Watching


def test_killed_worker_is_replaced_and_others_go_on(serve):
    server = serve(WAITING_APP, "--workers", "2", protocols=["http"])
    peer, busy = waiting(server, "one")
    (victim,) = set(running(server)) - {busy}
    os.kill(victim, signal.SIGKILL)
    server.wait_for_log(f"worker {victim} died by signal SIGKILL")
    server.wait_for_log(r"worker \d+ is ready", 3)
    release(server, "one")
    assert peer.answer().body == b"1 %d" % busy
    assert len(running(server)) == 2
    with Load("http", server.addresses["http", "tcp"], keep=False) as load:
        wait_for(lambda: len(load.bodies) == 2, "an answer of both workers")
    assert not load.lost
    # It goes back to sleep: about one look a second.
    before = switches(server.process.pid), cpu_seconds(server.process.pid)
    begun = monotonic()
    wait_for(lambda: monotonic() - begun > 1.5, "a while")
    assert switches(server.process.pid) - before[0] <= 6
    assert cpu_seconds(server.process.pid) - before[1] <= 0.2


def test_crash_loop_is_slowed_down(serve):
    dies_soon = """
    import os, threading
    threading.Timer(0.5, os._exit, [9]).start()
    def app(environ, start_response): ...
    """
    begun = monotonic()
    server = serve(dies_soon, protocols=["http"])
    server.wait_for_log(r"worker \d+ starts", 4)
    # Pauses of 0.5, 1 and 2 seconds.
    assert monotonic() - begun > 3.4
    server.wait_for_log("died with exit code 9", 3)
    assert cpu_seconds(server.process.pid) < 2
    begun = monotonic()
    assert server.stop(signal.SIGTERM) == 0
    assert monotonic() - begun < 5


def test_ttin_and_ttou_change_the_number_of_workers(serve):
    server = serve(WAITING_APP, "--workers", "1", protocols=["http"])
    for count in (2, 3):
        server.kill(signal.SIGTTIN)
        server.wait_for_log(r"worker \d+ is ready", count)
    assert len(running(server)) == 3
    peer, _ = waiting(server, "one")
    with Load("http", server.addresses["http", "tcp"], keep=True) as load:
        load.reached(50)
        server.kill(signal.SIGTTOU)
        server.wait_for_log("2 workers wanted", 2)
        server.kill(signal.SIGTTOU)
        server.wait_for_log("1 workers wanted")
        server.kill(signal.SIGTTOU)  # never below one
        server.wait_for_log("1 workers wanted", 2)
        release(server, "one")
        assert peer.answer().status == 200
        peer.close()  # the answer may be older than the word to leave, which is for the next one
        wait_for(lambda: len(running(server)) == 1, "one worker")
        load.reached(50)
    print(load)
    assert not load.lost
    assert not load.raced


# Stopping


@pytest.mark.parametrize(("protocol", "keep"), CLIENTS, ids=CLIENT_NAMES)
def test_term_answers_every_accepted_request(serve, protocol, keep, threads):
    server = serve(
        WAITING_APP, "--workers", "2", "--threads", threads, protocols=[protocol], kinds=["unix"]
    )
    with Load(protocol, server.addresses[protocol, "unix"], keep=keep) as load:
        load.reached(100)
        server.kill(signal.SIGTERM)
        assert server.process.wait(TIMEOUT) == 0
    print(f"TERM, {protocol}, threads {threads}: {load}")
    assert not load.lost
    if protocol == "http":
        assert not load.raced
    assert not (server.folder / f"{protocol}.sock").exists()
    assert "cut off" not in server.log


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_term_answers_what_waits_in_the_backlog(serve, kind, protocol):
    """The one worker is busy on its loop: nothing that arrives meanwhile is accepted yet."""
    server = serve(WAITING_APP, "--threads", "1", protocols=[protocol], kinds=[kind])
    peer = server.connect(protocol, kind)
    peer.start("/wait/one")
    wait_for((server.folder / "one.started").exists, "the first request")
    peers = [server.connect(protocol, kind) for _ in range(20)]
    for other in peers:
        other.start("/")
    server.kill(signal.SIGTERM)
    server.wait_for_log("stopping")
    release(server, "one")
    answers = [other.answer() for other in (peer, *peers)]
    assert [answer.status for answer in answers] == [200] * 21
    assert server.process.wait(TIMEOUT) == 0


def test_term_lets_a_running_request_finish_and_idle_ones_go(serve, threads):
    server = serve(WAITING_APP, "--workers", "2", "--threads", threads, protocols=["http"])
    idle = server.connect()
    assert idle.ask().status == 200
    peer, _ = waiting(server, "one")
    server.kill(signal.SIGTERM)
    server.wait_for_log("stopping")
    # The other worker leaves, with its idle connection if that is there.
    server.wait_for_log(r"worker \d+ left")
    assert server.process.poll() is None
    release(server, "one")
    answer = peer.answer()
    assert answer.status == 200
    assert answer.get("connection") == "close"
    begun = monotonic()
    assert server.process.wait(TIMEOUT) == 0
    assert monotonic() - begun < 5, "an idle connection held the stop up"
    assert idle.closed()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT], ids=["INT", "QUIT"])
def test_int_and_quit_are_quick(serve, number, threads):
    server = serve(WAITING_APP, "--workers", "2", "--threads", threads, protocols=["http"])
    workers = running(server)
    waiting(server, "never")
    begun = monotonic()
    server.kill(number)
    assert server.process.wait(TIMEOUT) == 0
    assert monotonic() - begun < 8, "graceful_timeout was waited for"
    assert not any(alive(pid) for pid in workers)
    assert not (server.folder / "http.sock").exists()


def test_a_second_signal_makes_a_stop_quick(serve):
    server = serve(WAITING_APP, protocols=["http"])
    waiting(server, "never")
    server.kill(signal.SIGTERM)
    server.wait_for_log("stopping")
    begun = monotonic()
    server.kill(signal.SIGQUIT)
    assert server.process.wait(TIMEOUT) == 0
    assert monotonic() - begun < 8


def test_a_worker_that_cannot_finish_is_cut_off_after_graceful_timeout(serve, threads):
    server = serve(WAITING_APP, "--threads", threads, "--graceful-timeout", "0.5")
    peer, worker = waiting(server, "never")
    begun = monotonic()
    server.kill(signal.SIGTERM)
    assert server.process.wait(TIMEOUT) == 0
    assert monotonic() - begun < 10
    assert not alive(worker)
    server.errors.wait_for_end(TIMEOUT)
    assert re.search(r"GET /wait/never from \S+: cut off after graceful_timeout, ", server.log)
    assert f"worker {worker} left" in server.log
    with pytest.raises(ConnectionError):
        peer.answer()


# Replacing


@pytest.mark.parametrize(("protocol", "keep"), CLIENTS, ids=CLIENT_NAMES)
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_hup_replaces_all_workers_and_loses_nothing(serve, protocol, keep, kind):
    # A kept FastCGI connection may hold its old worker up for that long.
    options = ("--workers", "2", "--graceful-timeout", "5")
    server = serve(WAITING_APP, *options, protocols=[protocol], kinds=[kind])
    with Load(protocol, server.addresses[protocol, kind], keep=keep) as load:
        load.reached(50)
        for number in (2, 3):
            # A new size as well: the compiled file is told by size and second.
            (server.folder / "app.py").write_text(versioned(number) + "\n" * number)
            server.kill(signal.SIGHUP)
            server.wait_for_log("reloaded: 2 workers", number - 1)
            wait_for(lambda: len(running(server)) == 2, "the old workers to leave")
            load.forget_bodies()
            load.reached(50)
            assert {body.split()[0] for body in load.bodies} == {b"%d" % number}
    print(f"2 HUPs, {protocol} on {kind}: {load}")
    assert not load.lost
    assert not load.refused
    if protocol == "http":
        assert not load.raced


def test_an_old_worker_leaves_only_when_a_new_one_is_ready(serve):
    server = serve(WAITING_APP, "--workers", "2", protocols=["http"])
    server.kill(signal.SIGHUP)
    server.wait_for_log("reloaded: 2 workers")
    server.wait_for_log(r"worker \d+ left", 2)
    capacity = 0
    lowest = []
    for what in re.findall(r"worker \d+ (is ready|left)", server.log):
        capacity += 1 if what == "is ready" else -1
        lowest.append(capacity)
    assert min(lowest[1:]) == 2, server.log


def test_hup_lets_a_running_request_finish(serve, threads):
    server = serve(WAITING_APP, "--threads", threads, protocols=["http"])
    idle = server.connect()
    assert idle.ask().status == 200
    peer, old = waiting(server, "one")
    server.kill(signal.SIGHUP)
    server.wait_for_log("reloaded: 1 workers")
    assert int(server.ask().body.split()[1]) != old
    assert alive(old)
    release(server, "one")
    answer = peer.answer()
    assert answer.body == b"1 %d" % old
    assert answer.get("connection") == "close"
    # A kept connection gets one more answer, of the old worker, and is then closed.
    answer = idle.ask()
    assert (answer.status, answer.get("connection")) == (200, "close")
    assert answer.body == b"1 %d" % old
    wait_for(lambda: not alive(old), "the old worker to leave")


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_hup_resets_no_connection_that_waits_to_be_accepted(serve, kind):
    server = serve(WAITING_APP, "--threads", "1", protocols=["http"], kinds=[kind])
    peer = server.connect("http", kind)
    peer.start("/wait/one")
    wait_for((server.folder / "one.started").exists, "the first request")
    peers = [server.connect("http", kind) for _ in range(50)]
    for other in peers:
        other.start("/")
    server.kill(signal.SIGHUP)
    answers = [other.answer() for other in peers]  # of the new worker: the old is busy
    release(server, "one")
    assert {answer.status for answer in (*answers, peer.answer())} == {200}
    server.wait_for_log(r"worker \d+ is ready", 2)
    assert {int(answer.body.split()[1]) for answer in answers} == {server.workers[1]}


def test_hup_with_broken_code_keeps_the_old_workers(serve):
    server = serve(WAITING_APP, "--workers", "2", protocols=["http"])
    old = sorted(running(server))
    source = server.folder / "app.py"
    with Load("http", server.addresses["http", "tcp"], keep=False) as load:
        load.reached(20)
        source.write_text(BROKEN_APP)
        server.kill(signal.SIGHUP)
        server.wait_for_log("reload failed, the old workers go on serving")
        assert "RuntimeError: this code is broken" in server.log
        assert 'File "' in server.log
        wait_for(lambda: sorted(running(server)) == old, "only the old workers")
        load.reached(20)
        source.write_text(versioned(2) + "# longer\n")
        server.kill(signal.SIGHUP)
        server.wait_for_log("reloaded: 2 workers")
        wait_for(lambda: len(running(server)) == 2, "the old workers to leave")
        load.forget_bodies()
        assert {body.split()[0] for body in load.bodies} == {b"2"}
    print(load)
    assert not load.lost


def test_hup_with_code_that_does_not_get_ready_keeps_the_old_workers(serve):
    server = serve(WAITING_APP, "--startup-timeout", "1", protocols=["http"])
    old = running(server)
    (server.folder / "app.py").write_text("import threading\nthreading.Event().wait()\n")
    server.kill(signal.SIGHUP)
    server.wait_for_log("reload failed, the old workers go on serving")
    wait_for(lambda: running(server) == old, "only the old worker")
    assert "it was not ready within startup_timeout" in server.log
    assert int(server.ask().body.split()[1]) == old[0]


def test_a_failed_reload_brings_its_settings_to_nothing(serve):
    """The number of workers of the new settings is not filled up with the broken code."""
    server = serve(WAITING_APP, protocols=["http"], files={"gateway.toml": "workers = 1\n"})
    (server.folder / "gateway.toml").write_text("workers = 3\n")
    (server.folder / "app.py").write_text(BROKEN_APP)
    server.kill(signal.SIGHUP)
    server.wait_for_log("reload failed")
    before = server.log.count(" starts\n")
    begun = monotonic()
    wait_for(lambda: monotonic() - begun > 1.2, "a while")
    assert server.log.count(" starts\n") == before
    assert len(running(server)) == 1


def test_hup_reads_the_configuration_again(serve):
    server = serve(
        WAITING_APP,
        protocols=["http"],
        # chdir leads away from the folder of gateway.toml.
        files={"gateway.toml": 'workers = 2\nchdir = "/"\n'},
    )
    server.wait_for_log("is ready", 2)
    config = server.folder / "gateway.toml"
    config.write_text(config.read_text().replace("workers = 2", "workers = 3"))
    server.kill(signal.SIGHUP)
    server.wait_for_log("reloaded: 3 workers")
    wait_for(lambda: len(running(server)) == 3, "three workers")
    broken = {"workers": "workers = 'many'\n", "worker": "worker = 3\n", "config": "a = = 3\n"}
    for count, (named, text) in enumerate(broken.items(), 1):
        config.write_text(text)
        server.kill(signal.SIGHUP)
        said = server.wait_for_log(r"reload refused, the old settings stay: (\S+) is", count)
        assert said[-1] == named
    assert len(running(server)) == 3
    assert server.ask().status == 200


def test_usr1_reopens_the_logs_of_all_workers(serve):
    server = serve(
        WAITING_APP,
        "--workers",
        "2",
        "--accesslog",
        "access.log",
        "--errorlog",
        "error.log",
        protocols=["http"],
        wait=False,
    )
    folder = server.folder
    error, access = folder / "error.log", folder / "access.log"
    wait_for(lambda: error.exists() and error.read_text().count("is ready") == 2, "two workers")
    (address,) = re.findall(r"127\.0\.0\.1:(\d+)", error.read_text())
    where = ("127.0.0.1", int(address))
    # A connection each, so that both workers come to serve: kept ones may all be of one.
    with Load("http", where, keep=False, clients=6) as load:
        wait_for(lambda: len(load.bodies) == 2, "an answer of both workers")
        access.rename(folder / "access.1")
        error.rename(folder / "error.1")
        server.kill(signal.SIGUSR1)
        wait_for(access.exists, "the new access log")
        wait_for(error.exists, "the new error log")
        pids = {body.split()[1].decode() for body in load.bodies}

        def moved() -> bool:
            """No process has the old files open."""
            for pid in (server.process.pid, *running(server)):
                for name in os.listdir(f"/proc/{pid}/fd"):
                    try:
                        target = os.readlink(f"/proc/{pid}/fd/{name}")
                    except FileNotFoundError:
                        continue
                    if target.endswith(("access.1", "error.1")):
                        return False
            return True

        wait_for(moved, "all processes to let go of the old files")
        load.reached(100)
    assert len(pids) == 2
    assert not load.lost

    def lines() -> int:
        return sum(file.read_text().count("\n") for file in (access, folder / "access.1"))

    wait_for(lambda: lines() == load.answered, "a line for every request")
    os.kill(running(server)[0], signal.SIGKILL)
    wait_for(lambda: "died by signal SIGKILL" in error.read_text(), "a line of the manager")
    assert "died" not in (folder / "error.1").read_text()


def test_workers_leave_when_the_manager_is_killed(serve, threads):
    server = serve(WAITING_APP, "--workers", "2", "--threads", threads, protocols=["http"])
    workers = running(server)
    peer, _ = waiting(server, "one")
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    release(server, "one")
    assert peer.answer().status == 200
    wait_for(lambda: not any(alive(pid) for pid in workers), "the workers to leave")
    server.wait_for_log("the manager is gone: leaving", 2)
    assert server.errors.wait_for_end(TIMEOUT)


def test_workers_that_are_still_loading_leave_when_the_manager_is_killed(serve):
    slow = """
    import os, time
    open("loading", "w").close()
    while not os.path.exists("go"):
        time.sleep(0.005)
    def app(environ, start_response): ...
    """
    server = serve(slow, protocols=["http"], wait=False)
    wait_for((server.folder / "loading").exists, "the import to begin")
    (worker,) = running(server)
    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait()
    (server.folder / "go").touch()
    wait_for(lambda: not alive(worker), "the worker to leave")
    assert server.errors.wait_for_end(TIMEOUT)


# Leaks


def test_fifty_reloads_leak_nothing(serve):
    server = serve(WAITING_APP, protocols=["http"], kinds=["unix"])
    manager = server.process.pid
    server.kill(signal.SIGHUP)
    server.wait_for_log("reloaded")
    wait_for(lambda: len(running(server)) == 1, "one worker")
    # Of the worker that has just left the manager may still have something open: never less.
    before = descriptors(manager), threads_of(manager), descriptors(running(server)[0])
    with Load("http", server.addresses["http", "unix"], keep=False, clients=2) as load:
        for number in range(50):
            server.kill(signal.SIGHUP)
            server.wait_for_log("reloaded", number + 2)
    wait_for(lambda: len(running(server)) == 1, "one worker")
    worker = running(server)[0]

    def more():
        now = descriptors(manager), threads_of(manager), descriptors(worker)
        return any(map(int.__gt__, now, before))

    wait_for(lambda: not more(), "no more descriptors than before")
    print(f"50 HUPs, http on unix: {load}")
    assert not load.lost
    assert not load.refused


def test_a_burst_of_reloads_ends_with_the_right_number(serve):
    server = serve(WAITING_APP, "--workers", "2", protocols=["http"])
    with Load("http", server.addresses["http", "tcp"], keep=False, clients=2) as load:
        for _ in range(10):
            server.kill(signal.SIGHUP)
            load.reached(1)
        server.wait_for_log("reloaded: 2 workers")
        wait_for(lambda: len(running(server)) == 2, "two workers")
        load.reached(10)
    assert not load.lost


def test_two_thousand_connections_leak_nothing(serve, threads):
    server = serve(WAITING_APP, "--threads", threads, protocols=["http", "fastcgi"])
    (worker,) = running(server)
    assert server.ask().status == server.ask("fastcgi").status == 200
    settled = descriptors(worker)
    address = server.addresses["http", "tcp"]
    fastcgi = server.addresses["fastcgi", "tcp"]
    half_requests = [b"", b"GET / HT", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab"]
    for number in range(2000):
        way = number % 5
        if way == 0:
            with Http(address) as peer:
                assert peer.ask().status == 200
            continue
        sock = socket.create_connection(fastcgi if way == 4 else address)
        if way == 4:
            sock.sendall(b"\1\1\0\1\0\x08\0\0\0\1\1\0\0\0\0\0\1\4\0\1\0\x20\0\0abc")
        else:
            sock.sendall(half_requests[way - 1])
        if number % 2:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
    wait_for(lambda: descriptors(worker) <= settled, "the worker to close what is gone")
    assert threads_of(worker) == (2 if threads == "1" else 6), "the watchdog, and no more"
    assert server.ask().status == 200
    assert "Traceback" not in server.log
