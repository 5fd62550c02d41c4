"""The manager: how many workers there are, what they share, and what cannot break it."""

from __future__ import annotations

import os
import re
import signal
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic

import pytest
from conftest import PROTOCOLS
from processes import (
    TIMEOUT,
    WAITING_APP,
    Load,
    alive,
    children,
    memory,
    started,
    wait_for,
)

from gateway.control import ControlError, ask

#: A module of some size, as real applications have.
LARGE_APP = """
import os
LARGE = [f"{number} of a module that takes memory" for number in range(200_000)]
VERSION = "1"

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/touch":
        return [b"%d" % sum(map(len, LARGE))]
    return [f"{VERSION} {os.getpid()}".encode()]
"""


def workers_now(server) -> list[int]:
    return [pid for pid in children(server.process.pid) if pid in named(server, "worker")]


def named(server, kind: str) -> list[int]:
    return [int(pid) for pid in re.findall(rf"{kind} (\d+) starts", server.log)]


def begin(server, name: str, protocol: str = "http"):
    """A request that runs until the file ``name`` appears."""
    peer = server.connect(protocol)
    peer.start(f"/wait/{name}")
    return peer


def reload(server) -> tuple[bool, str]:
    return ask(f"{server.folder}/gateway.pid.ctl", "reload", TIMEOUT)


# How many


def serve_on_demand(serve, *options: str):
    server = serve(
        WAITING_APP,
        "--process-manager",
        "ondemand",
        "--workers-max",
        "2",
        "--worker-idle-timeout",
        "0.5",
        *options,
        kinds=["unix"],
        wait=False,
    )
    server.wait_for_log("listening: ", len(PROTOCOLS))
    server.wait_until_ready(0)
    return server


def test_ondemand_starts_a_worker_for_the_first_request_and_ends_idle_ones(serve, protocol):
    server = serve_on_demand(serve)
    for round_ in range(1, 3):
        assert not children(server.process.pid)
        with server.connect(protocol, "unix") as peer:
            assert peer.ask("/").status == 200
        server.wait_for_log(r"worker \d+ left", round_)
        wait_for(lambda: not children(server.process.pid), "no worker")
    assert len(server.workers) == 2


def test_ondemand_grows_while_requests_wait(serve):
    server = serve_on_demand(serve, "--threads", "1")
    with server.connect("http", "unix") as first, server.connect("http", "unix") as second:
        first.start("/wait/one")
        wait_for((server.folder / "one.started").exists, "the first request")
        second.start("/wait/two")
        wait_for((server.folder / "two.started").exists, "the second request, beside the first")
        (server.folder / "one").touch()
        (server.folder / "two").touch()
        server.wait_for_log(r"worker \d+ is ready", 2)  # said by the manager, who may be later
        assert {first.answer().body, second.answer().body} == {
            f"1 {pid}".encode() for pid in server.workers
        }
    wait_for(lambda: not children(server.process.pid), "no worker")


def test_ondemand_survives_code_that_does_not_start(serve):
    server = serve_on_demand(serve)
    good = (server.folder / "app.py").read_text()
    (server.folder / "app.py").write_text("raise RuntimeError('not yet')")
    peer = server.connect("http", "unix")
    peer.start("/")
    server.wait_for_log("RuntimeError: not yet")
    (server.folder / "app.py").write_text(good)
    assert peer.answer().status == 200


@pytest.mark.parametrize("threads", ["1", "2"])
def test_dynamic_follows_the_load(serve, threads):
    server = serve(
        WAITING_APP,
        "--process-manager",
        "dynamic",
        "--workers",
        "1",
        "--workers-max",
        "3",
        "--threads",
        threads,
        "--queue-size",
        "1",
        "--worker-idle-timeout",
        "0.5",
        protocols=["http"],
        kinds=["tcp"],
    )
    assert len(workers_now(server)) == 1
    # Each round is more than the workers before it can serve at once.
    names, peers = [], []
    for count in (2, 3):
        while len(workers_now(server)) < count:
            names.append(f"n{len(names)}")
            peers.append(begin(server, names[-1]))
            assert len(names) < 20, server.log
            with suppress(AssertionError):
                wait_for(lambda count=count: len(workers_now(server)) == count, "growth", 1.0)
        server.wait_for_log(r"worker \d+ is ready", count)
    for name, peer in zip(names, peers, strict=True):
        (server.folder / name).touch()
        assert peer.answer().status == 200
        peer.close()  # kept, it would have its worker wait for one more request
    wait_for(lambda: len(workers_now(server)) == 1, "the idle workers leave")
    assert server.ask().status == 200


def test_ttin_and_ttou_move_the_upper_bound_of_a_dynamic_fleet(serve):
    server = serve(
        WAITING_APP,
        *("--process-manager", "dynamic", "--workers", "1", "--workers-max", "2"),
        *("--threads", "1"),
        protocols=["http"],
        kinds=["tcp"],
    )
    server.kill(signal.SIGTTIN)
    server.wait_for_log("workers wanted")
    peers = []
    for name in ("a", "b", "c"):
        peers.append(begin(server, name))
        wait_for((server.folder / f"{name}.started").exists, f"{name} runs")
        (server.folder / f"{name}.free").touch()
    assert len(workers_now(server)) == 3
    for name, peer in zip(("a", "b", "c"), peers, strict=True):
        (server.folder / name).touch()
        assert peer.answer().status == 200


# Preload


def test_preloaded_workers_share_memory_and_reload_brings_new_code(serve):
    pidfile = ["--pidfile", "gateway.pid"]
    plain = serve(LARGE_APP, "--workers", "2", protocols=["http"], kinds=["tcp"])
    shared = serve(
        LARGE_APP, "--workers", "2", "--preload", *pidfile, protocols=["http"], kinds=["tcp"]
    )
    for server in (plain, shared):
        with Load("http", server.addresses["http", "tcp"], keep=False, clients=4) as load:
            load.reached(50)
        assert not load.lost
    own = max(memory(pid) for pid in workers_now(shared))
    alone = min(memory(pid) for pid in workers_now(plain))
    print(f"private memory of a worker: {own >> 10} KiB preloaded, {alone >> 10} KiB not")
    assert own < alone / 2
    assert own < 6 << 20
    (old,) = named(shared, "template")
    (shared.folder / "app.py").write_text(LARGE_APP.replace('"1"', '"2"'))
    with Load("http", shared.addresses["http", "tcp"], keep=True) as load:
        assert reload(shared) == (True, "reloaded: 2 workers")
        load.forget_bodies()
        assert all(body.startswith(b"2 ") for body in load.bodies)
    assert not load.lost
    wait_for(lambda: not alive(old), "the template of the old code is gone")
    assert shared.stop(signal.SIGTERM) == 0


#: Notes in the file "asked" which process looks up protocols.
ASKING_APP = (
    LARGE_APP
    + """
import protocols

look_up = protocols.entry_points

def noted(**what):
    with open("asked", "a") as file:
        file.write(f"{os.getpid()}\\n")
    return look_up(**what)

protocols.entry_points = noted
"""
)


def test_what_workers_have_in_common_is_made_before_they_are_forked(serve):
    server = serve(ASKING_APP, "--workers", "2", "--preload", protocols=["http"], kinds=["tcp"])
    assert server.ask().status == 200
    (template,) = named(server, "template")
    assert set((server.folder / "asked").read_text().split()) == {str(template)}


def test_a_failed_reload_keeps_the_template_of_the_old_code(serve):
    server = serve(
        LARGE_APP, "--preload", "--pidfile", "gateway.pid", protocols=["http"], kinds=["tcp"]
    )
    (server.folder / "app.py").write_text("raise RuntimeError('a bad deploy')")
    ok, reason = reload(server)
    assert not ok
    assert "RuntimeError: a bad deploy" in reason
    # Without a template its successor would be of the broken code.
    (victim,) = workers_now(server)
    os.kill(victim, signal.SIGKILL)
    server.wait_for_log(r"worker \d+ is ready", 2)
    answer = server.ask()
    assert answer.status == 200
    assert answer.body.startswith(b"1 ")


def test_a_killed_template_takes_no_worker_with_it(serve):
    server = serve(LARGE_APP, "--preload", protocols=["http"], kinds=["tcp"])
    (template,) = named(server, "template")
    os.kill(template, signal.SIGKILL)
    server.wait_for_log(rf"template {template} died by signal SIGKILL")
    assert server.ask().status == 200
    (victim,) = workers_now(server)
    os.kill(victim, signal.SIGKILL)
    server.wait_for_log(r"template \d+ is ready", 2)
    server.wait_for_log(r"worker \d+ is ready", 2)
    assert server.ask().status == 200


def test_preload_reports_what_does_not_survive_a_fork(serve):
    server = serve(
        """
        import socket, threading
        pool = socket.socket()
        pool.bind(("127.0.0.1", 0))
        pool.listen()
        threading.Thread(target=threading.Event().wait, name="poller", daemon=True).start()
        def app(environ, start_response):
            start_response("200 OK", [])
            return [b"fine"]
        """,
        "--preload",
        protocols=["http"],
        kinds=["tcp"],
    )
    server.wait_for_log(r"the import left the thread 'poller' running")
    server.wait_for_log(r"the import left the socket \d+ \(\('127.0.0.1', \d+\)\) open")
    assert server.ask().body == b"fine"


@pytest.mark.parametrize(
    "source", ["raise RuntimeError('no')", "import os; os._exit(5)", "import sys; sys.exit('no')"]
)
def test_preloaded_code_that_does_not_start_ends_the_start_with_3(serve, source):
    server = serve(source, "--preload", protocols=["http"], wait=False)
    assert server.process.wait(TIMEOUT) == 3
    server.errors.wait_for_end(TIMEOUT)
    assert "cannot start" in server.log


def test_preloaded_workers_leave_with_a_killed_manager(serve):
    server = serve(LARGE_APP, "--preload", "--workers", "2", protocols=["http"], kinds=["tcp"])
    everyone = children(server.process.pid)
    assert len(everyone) == 3
    server.process.kill()
    wait_for(lambda: not any(map(alive, everyone)), "template and workers are gone")
    server.process.wait()


# What cannot break it


def test_a_worker_that_hangs_in_its_import_leaves_with_a_killed_manager(serve):
    server = serve(
        """
        import os, threading
        open("loading", "w").close()
        threading.Event().wait()
        """,
        protocols=["http"],
        kinds=["tcp"],
        wait=False,
    )
    wait_for((server.folder / "loading").exists, "the import")
    (worker,) = children(server.process.pid)
    server.process.kill()
    wait_for(lambda: not alive(worker), "the worker is gone")
    server.process.wait()


def test_orphans_are_reaped(serve):
    server = serve(
        """
        import os
        def app(environ, start_response):
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                orphan = os.fork()
                if orphan:
                    os.write(writer, b"%d" % orphan)
                os._exit(0)
            os.waitpid(child, 0)
            start_response("200 OK", [])
            return [os.read(reader, 100)]
        """,
        protocols=["http"],
        kinds=["tcp"],
    )
    orphans = [int(server.ask().body) for _ in range(10)]
    wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in orphans), "no zombie")
    assert len(server.workers) == 1


@pytest.mark.parametrize("call", ["os.setsid()", "os.setpgid(0, 0)", "os.nice(5)"])
def test_a_worker_that_changes_its_process_group_is_still_managed(serve, call):
    server = serve(
        f"""
        import os
        {call}
        def app(environ, start_response):
            start_response("200 OK", [])
            return [b"%d" % os.getpid()]
        """,
        protocols=["http"],
        kinds=["tcp"],
    )
    (first,) = server.workers
    assert server.ask().body == b"%d" % first
    server.kill(signal.SIGHUP)
    server.wait_for_log("reloaded")
    assert server.ask().body != b"%d" % first
    assert server.stop(signal.SIGTERM) == 0


def test_a_worker_that_closes_all_descriptors_is_replaced(serve, threads):
    server = serve(
        """
        import os
        def app(environ, start_response):
            if environ["PATH_INFO"] == "/close":
                os.closerange(3, 65536)
            start_response("200 OK", [])
            return [b"%d" % os.getpid()]
        """,
        "--threads",
        threads,
        protocols=["http"],
        kinds=["tcp"],
    )
    with server.connect() as peer, suppress(OSError, AssertionError):
        peer.ask("/close")
    server.wait_for_log(r"worker \d+ is ready", 2)
    assert server.ask().status == 200


def test_winch_rests_and_hup_goes_on(serve):
    server = serve(WAITING_APP, "--workers", "2", protocols=["http"], kinds=["tcp"])
    peer = begin(server, "one")
    wait_for((server.folder / "one.started").exists, "the request")
    server.kill(signal.SIGWINCH)
    server.wait_for_log(r"worker \d+ left")
    (server.folder / "one").touch()
    assert peer.answer().status == 200
    server.wait_for_log(r"worker \d+ left", 2)
    assert not children(server.process.pid)
    waiting = server.connect()
    waiting.start("/")  # in the backlog
    server.kill(signal.SIGHUP)
    assert waiting.answer().status == 200
    server.wait_for_log("reloaded: 2 workers")


#: ctypes.PyDLL calls without releasing the GIL: as C code does that forgets to.
HOLDING_APP = """
import ctypes, os, time
def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/hold":
        ctypes.PyDLL(None).sleep(600)
    start_response("200 OK", [])
    return [b"%d" % os.getpid()]
"""


def test_a_worker_that_holds_the_gil_is_replaced_and_names_its_request(serve, threads):
    server = serve(
        HOLDING_APP,
        *("--threads", threads, "--worker-timeout", "1"),
        *("--accesslog", "access.log"),
        protocols=["http"],
        kinds=["tcp"],
    )
    (silent,) = server.workers
    peer = server.connect()
    peer.start("/hold?name=me")
    server.wait_for_log(rf"worker {silent} gave no sign of life for worker_timeout \(1 s\)")
    server.wait_for_log(rf"worker {silent} left by signal SIGABRT")
    # The successor was ready before.
    ready = f"worker {server.workers[1]} is ready"
    assert server.log.index(ready) < server.log.index("is aborted")
    assert "in app\n" in server.log, "the stack"
    server.wait_for_log(rf"GET /hold\?name=me from 127.0.0.1:\d+: lost after .* worker {silent}")
    assert server.ask().status == 200
    access = Path(server.folder, "access.log")
    aborted = partial(re.search, r"/hold\?name=me.* aborted\n")
    wait_for(lambda: aborted(access.read_text()), "the line in the access log")


# Commands


def test_an_unknown_command_and_a_socket_that_is_not_there(serve, tmp_path):
    server = serve(WAITING_APP, "--pidfile", "gateway.pid", protocols=["http"], kinds=["tcp"])
    path = f"{server.folder}/gateway.pid.ctl"
    assert os.stat(path).st_mode & 0o777 == 0o600
    ok, text = ask(path, "rejoice", TIMEOUT)
    assert not ok
    assert text == "there is no command 'rejoice'; there is reload"
    with pytest.raises(ControlError, match=r"no gateway answers on .*: no such file"):
        ask(str(tmp_path / "none"), "reload", TIMEOUT)
    server.stop(signal.SIGTERM)
    assert not os.path.exists(path)


def test_a_reload_that_a_stop_overtakes_has_an_outcome(serve):
    server = serve(WAITING_APP, "--pidfile", "gateway.pid", protocols=["http"], kinds=["tcp"])
    (server.folder / "app.py").write_text("import threading; threading.Event().wait()")
    with pytest.raises(ControlError, match=r"no outcome of reload within 0\.2 seconds"):
        ask(f"{server.folder}/gateway.pid.ctl", "reload", 0.2)
    begun = monotonic()
    assert server.stop(signal.SIGTERM) == 0
    assert monotonic() - begun < TIMEOUT


def test_a_reload_says_what_it_does_not_change(serve):
    server = serve(
        WAITING_APP,
        protocols=["http"],
        kinds=["tcp"],
        files={"gateway.toml": "threads = 2\nloglevel = 'info'\n"},
    )
    (server.folder / "gateway.toml").write_text("threads = 3\nloglevel = 'debug'\numask = 7\n")
    server.kill(signal.SIGHUP)
    server.wait_for_log("a reload does not change loglevel, umask: upgrade .USR2. or restart")
    server.wait_for_log("reloaded: 1 workers")


def test_no_control_socket_is_no_reason_to_stop(tmp_path):
    (tmp_path / "app.py").write_text(WAITING_APP)
    words = ("app:app", "--bind", "127.0.0.1:0", "--control-socket", "missing/control")
    with started(*words, cwd=tmp_path) as gateway:
        assert "no control socket at " in gateway.log
        assert gateway.stop() == 0


@pytest.mark.parametrize("fault", ["raise RuntimeError('not so')", "import sys; sys.exit('no')"])
def test_a_hook_that_fails_before_the_fork_ends_a_reload_and_not_the_service(serve, fault):
    conf = "def pre_fork(server, worker):\n    {}\n"
    server = serve(
        WAITING_APP,
        *("--config", "conf.py", "--pidfile", "gateway.pid"),
        protocols=["http"],
        kinds=["tcp"],
        files={"conf.py": conf.format("pass")},
    )
    (server.folder / "conf.py").write_text(conf.format(fault))
    ok, reason = reload(server)
    assert not ok
    assert "not so" in reason or "SystemExit: no" in reason
    assert server.ask().status == 200
    (server.folder / "conf.py").write_text(conf.format("pass"))
    assert reload(server) == (True, "reloaded: 1 workers")
