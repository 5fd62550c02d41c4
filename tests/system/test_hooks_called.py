"""Hooks of a running gateway: when they are called, with what, and what becomes of their faults."""

from __future__ import annotations

import json
import signal
from textwrap import dedent

import pytest
from clients import Http
from processes import children, run, started, wait_for

from gateway.hooks import HOOKS

APP = """
def app(environ, start_response):
    start_response("201 Made", [("Content-Type", "text/plain"), ("X-Name", "value")])
    return [b"hello"]
"""
SOCKET = "app.sock"

#: Every hook appends a line: its name, the process, the arguments that are numbers, notes.
RECORDING = """
    import json
    import os

    FILE = os.path.join(os.path.dirname(__file__), "calls")

    bind = "unix:app.sock"

    def record(name, *arguments, **more):
        pids = [it if isinstance(it, int) else it.pid for it in arguments]
        line = json.dumps({"name": name, "pid": os.getpid(), "given": pids, **more}) + "\\n"
        with open(FILE, "a") as file:
            file.write(line)

    def on_starting(server): record("on_starting", server, address=server.address)
    def on_reload(server): record("on_reload", server)
    def when_ready(server): record("when_ready", server, workers=server.cfg.workers)
    def pre_fork(server, worker): record("pre_fork", server, worker, age=worker.age)
    def post_fork(server, worker): record("post_fork", server, worker, age=worker.age)
    def post_worker_init(worker): record("post_worker_init", worker)
    def ready(worker): record("ready", worker, timeout=worker.cfg.timeout)
    def worker_exit(server, worker): record("worker_exit", server, worker)
    def child_exit(server, worker): record("child_exit", server, worker, age=worker.age)
    def on_exit(server): record("on_exit", server)
    def nworkers_changed(server, new, old): record("nworkers_changed", server, new, old)
    def pre_exec(server): record("pre_exec", server)

    def pre_request(worker, req):
        req.remembered = "before"
        record("pre_request", worker, method=req.method, uri=req.uri, path=req.path,
               query=req.query, version=req.version, headers=req.headers)

    def post_request(worker, req, environ, resp):
        record("post_request", worker, remembered=req.remembered, status=resp.status,
               code=resp.status_code, headers=resp.headers, sent=resp.sent,
               environ=environ["REQUEST_METHOD"])
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def configured(folder, *texts: str) -> None:
    (folder / "gateway.conf.py").write_text("".join(dedent(text) for text in texts))


def calls(folder, name: str = "") -> list[dict]:
    """What was recorded so far, of one hook or of all."""
    path = folder / "calls"
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [call for call in found if name in ("", call["name"])]


def answer(folder, target: str = "/"):
    with Http(str(folder / SOCKET)) as peer:
        return peer.ask(target)


# When, where and with what

START = ["pre_fork", "post_fork", "post_worker_init", "ready"]
END = ["worker_exit", "child_exit"]


def test_hooks_are_called_in_order_each_in_its_process(folder):
    configured(folder, RECORDING)
    with started("app", "--pidfile", "pid", cwd=folder) as server:
        wait_for(lambda: calls(folder, "when_ready"), "when_ready")
        manager = server.process.pid
        (first,) = children(manager)
        assert answer(folder).status == 201
        wait_for(lambda: calls(folder, "post_request"), "post_request")
        assert run("reload", "--pidfile", "pid", cwd=folder).returncode == 0
        server.wait_for_log(f"worker {first} left")
        (second,) = children(manager)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait() == 0
    found = calls(folder)
    assert [call["name"] for call in found] == [
        "on_starting",
        *START,
        "when_ready",
        "pre_request",
        "post_request",
        "on_reload",
        *START,
        *END,
        *END,
        "on_exit",
    ]
    in_worker = {"post_fork", "post_worker_init", "ready", "worker_exit"}
    in_worker |= {"pre_request", "post_request"}
    workers = [call["pid"] for call in found if call["name"] in in_worker]
    assert workers == [first] * 5 + [second] * 3 + [first, second]
    for call in found:
        name = call["name"]
        if name not in in_worker:
            assert call["pid"] == manager, call
        # The process ids of what it was given are those of manager and worker.
        if name != "post_fork":
            worker = {"pre_fork": 0, "child_exit": call["given"][-1]}.get(name, call["pid"])
            by_name = {"server": manager, "worker": worker}
            given = [by_name[argument] for argument in HOOKS[name] if argument in by_name]
            assert call["given"] == given, call
    assert [call["given"][1] for call in calls(folder, "child_exit")] == [first, second]
    for name in ("pre_fork", "post_fork", "child_exit"):
        assert [call["age"] for call in calls(folder, name)] == [1, 2]
    assert found[0]["address"] == [f"http on unix:{folder}/{SOCKET}"]
    assert calls(folder, "when_ready")[0]["workers"] == 1
    assert calls(folder, "ready")[0]["timeout"] == 30.0


def test_when_ready_waits_for_all_workers_and_comes_once(folder):
    configured(folder, RECORDING)
    with started("app", "--workers", "3", cwd=folder) as server:
        wait_for(lambda: calls(folder, "when_ready"), "when_ready")
        assert len(calls(folder, "ready")) == 3
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("reloaded: 3 workers")
        assert len(calls(folder, "when_ready")) == 1


def test_a_preloaded_worker_has_its_hooks_too(folder):
    configured(folder, RECORDING)
    with started("app", "--preload", cwd=folder) as server:
        answer(folder)
        wait_for(lambda: calls(folder, "post_request"), "post_request")
        assert server.stop() == 0
    names = [call["name"] for call in calls(folder)]
    requests = ["pre_request", "post_request"]
    assert sorted(names) == sorted(
        ["on_starting", *START, "when_ready", *requests, *END, "on_exit"]
    )
    worker = calls(folder, "post_fork")[0]["pid"]
    assert {call["pid"] for call in calls(folder, "pre_request")} == {worker}
    assert calls(folder, "child_exit")[0]["given"][1] == worker


def test_the_number_of_workers_changes(folder):
    configured(folder, RECORDING)
    with started("app", cwd=folder) as server:
        server.process.send_signal(signal.SIGTTIN)
        wait_for(lambda: calls(folder, "nworkers_changed"), "nworkers_changed")
        manager = server.process.pid
        assert calls(folder, "nworkers_changed")[0]["given"] == [manager, 2, 1]
        server.process.send_signal(signal.SIGTTOU)
        wait_for(lambda: len(calls(folder, "nworkers_changed")) == 2, "nworkers_changed again")
        assert calls(folder, "nworkers_changed")[1]["given"] == [manager, 1, 2]


# Requests


def test_request_and_answer_as_hooks_see_them(serve, protocol, threads):
    text = dedent(RECORDING).replace('bind = "unix:app.sock"', "")
    server = serve(APP, "--threads", threads, files={"gateway.conf.py": text})
    folder = server.folder
    headers = [("X-Asked-By", "10.0.0.1"), ("Content-Type", "text/plain")]
    found = server.ask(protocol, "/a%20b?x=1&y", method="POST", headers=headers, body=b"some")
    assert (found.status, found.body) == (201, b"hello")
    wait_for(lambda: calls(folder, "post_request"), "post_request")
    (before,), (after,) = calls(folder, "pre_request"), calls(folder, "post_request")
    assert (before["method"], before["uri"], before["path"], before["query"]) == (
        "POST",
        "/a%20b?x=1&y",
        "/a%20b",
        "x=1&y",
    )
    assert before["version"] == [1, 1]
    seen = dict(before["headers"])
    assert seen["X-ASKED-BY"] == "10.0.0.1"
    assert seen["CONTENT-TYPE"] == "text/plain"
    assert seen["CONTENT-LENGTH"] == "4"
    assert after["remembered"] == "before"
    assert (after["status"], after["code"], after["environ"]) == ("201 Made", 201, "POST")
    assert ["X-Name", "value"] in after["headers"]
    assert after["sent"] == 5


def test_each_request_of_a_kept_connection_has_its_hooks(folder):
    configured(folder, RECORDING)
    with started("app", cwd=folder):
        with Http(str(folder / SOCKET)) as peer:
            for number in range(3):
                assert peer.ask(f"/{number}").status == 201
        wait_for(lambda: len(calls(folder, "post_request")) == 3, "post_request")
        assert [call["uri"] for call in calls(folder, "pre_request")] == ["/0", "/1", "/2"]


# Faults of hooks

BIND = 'bind = "unix:app.sock"\n'
RAISES = "def {name}(*arguments):\n    raise {error}('on purpose')\n"


@pytest.mark.parametrize("error", ["ValueError", "SystemExit"])
@pytest.mark.parametrize("name", ["on_starting", "post_fork", "post_worker_init", "ready"])
def test_a_hook_that_fails_at_the_start_ends_it(folder, name, error):
    configured(folder, BIND, RAISES.format(name=name, error=error))
    done = run("app", cwd=folder)
    assert done.returncode == 3, done.stderr
    assert f"{error}: on purpose" in done.stderr
    assert "gateway.conf.py" in done.stderr
    assert not (folder / SOCKET).exists()


def test_ready_says_no(folder):
    configured(folder, BIND, "def ready(worker):\n    return False\n")
    done = run("app", cwd=folder)
    assert done.returncode == 3
    assert "cannot start: the hook ready returned False" in done.stderr


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def ready(worker):\n    return False\n", "the hook ready returned False"),
        (RAISES.format(name="ready", error="ValueError"), "ValueError: on purpose"),
        (RAISES.format(name="post_worker_init", error="SystemExit"), "SystemExit: on purpose"),
        (RAISES.format(name="post_fork", error="ValueError"), "ValueError: on purpose"),
    ],
)
def test_a_hook_that_fails_at_a_reload_leaves_the_old_workers(folder, text, reason):
    configured(folder, BIND)
    with started("app", "--pidfile", "pid", cwd=folder) as server:
        before = children(server.process.pid)
        configured(folder, BIND, text)
        done = run("reload", "--pidfile", "pid", cwd=folder)
        assert done.returncode == 1
        assert reason in done.stderr
        server.wait_for_log("the old workers go on serving")
        assert answer(folder).status == 201
        assert children(server.process.pid) == before
        configured(folder, BIND)
        assert run("reload", "--pidfile", "pid", cwd=folder).returncode == 0


@pytest.mark.parametrize("error", ["ValueError", "SystemExit"])
def test_other_hooks_that_fail_stop_nothing(folder, error):
    names = ["when_ready", "on_reload", "worker_exit", "child_exit", "nworkers_changed", "on_exit"]
    names += ["pre_exec", "post_request"]
    configured(folder, BIND, *(RAISES.format(name=name, error=error) for name in names))
    with started("app", cwd=folder) as server:
        server.wait_for_log("the hook when_ready failed")
        for _ in range(2):
            assert answer(folder).status == 201
        server.wait_for_log("the hook post_request failed", 2)
        server.process.send_signal(signal.SIGTTIN)
        server.wait_for_log("the hook nworkers_changed failed")
        server.wait_for_log("is ready", 2)
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("the hook on_reload failed")
        server.wait_for_log("reloaded: 1 workers")
        server.wait_for_log("the hook worker_exit failed", 2)
        server.wait_for_log("the hook child_exit failed", 2)
        # A new manager is not started: that is what the hook is for.
        server.process.send_signal(signal.SIGUSR2)
        server.wait_for_log("the hook pre_exec failed")
        assert answer(folder).status == 201
        assert server.stop() == 0
        server.wait_for_log("the hook on_exit failed")
        assert "starts beside this one" not in server.log
        assert server.log.count(f"{error}: on purpose") >= len(names)


@pytest.mark.parametrize("error", ["ValueError", "SystemExit"])
@pytest.mark.parametrize("count", ["1", "4"])
def test_pre_request_that_fails_is_a_fault_of_the_application(folder, error, count):
    text = """
    def pre_request(worker, req):
        if req.path == "/bad":
            raise {error}("on purpose")
    """
    configured(folder, BIND, text.format(error=error))
    with started("app", "--threads", count, cwd=folder) as server:
        with Http(str(folder / SOCKET)) as peer:
            assert peer.ask("/good").status == 201
        assert answer(folder, "/bad").status == 500
        assert answer(folder, "/good").status == 201
        assert f"{error}: on purpose" in server.log
        assert server.log.count("is ready") == 1
