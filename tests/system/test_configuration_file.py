"""Python configuration files of a running gateway: start, reload, and what the log says."""

from __future__ import annotations

import signal
from textwrap import dedent

import pytest
from clients import Http
from processes import run, started

APP = """
import os

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [os.environ.get("VERSION", "none").encode()]
"""
SOCKET = "app.sock"

GUNICORN = """
    import multiprocessing
    import os

    bind = "unix:app.sock"
    cores = multiprocessing.cpu_count()
    workers = min(2, cores * 2 + 1)
    worker_class = "gthread"
    worker_tmp_dir = "/dev/shm"
    threads = 2
    timeout = 120
    keepalive = 5
    daemon = False
    accesslog = "access.log"
    errorlog = "-"
    loglevel = "info"
    raw_env = [f"VERSION={os.environ.get('NEXT', 'first')}"]

    def on_starting(server):
        server.log.info("Starting on %s", ", ".join(server.address))

    def post_fork(server, worker):
        server.log.info("Worker spawned (pid: %s)", worker.pid)

    def worker_abort(worker):
        worker.log.info("worker received SIGABRT signal")
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def answer(folder) -> bytes:
    with Http(str(folder / SOCKET)) as peer:
        return peer.ask().body


@pytest.mark.parametrize("name", ["gunicorn.conf.py", "gateway.conf.py"])
def test_an_ordinary_file_is_accepted_and_reported_once(folder, name):
    (folder / name).write_text(dedent(GUNICORN))
    words = ("-c", name) if name == "gunicorn.conf.py" else ()
    with started("app", *words, cwd=folder) as server:
        server.wait_for_log("is ready", 2)
        assert answer(folder) == b"first"
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("reloaded: 2 workers")
        assert server.log.count("Starting on http on unix:") == 1
        assert server.log.count("Worker spawned (pid: ") == 4
        (note,) = [line for line in server.log.splitlines() if "not used of" in line]
        for expected in ("cores", "worker_class", "worker_tmp_dir", "worker_abort"):
            assert f" {expected} (" in note
        assert server.stop() == 0
    assert (folder / "access.log").read_text().count("GET / HTTP/1.1") == 1


def test_check_config_reports_it_too(folder):
    (folder / "gunicorn.conf.py").write_text(dedent(GUNICORN))
    done = run("app", "-c", "gunicorn.conf.py", "--check-config", cwd=folder)
    assert (done.returncode, done.stdout) == (0, "the configuration is good\n")
    assert done.stderr.startswith("gateway: not used of gunicorn.conf.py: cores (no setting), ")
    assert done.stderr.count("\n") == 1


def test_a_file_that_fails_ends_the_start(folder):
    (folder / "gateway.conf.py").write_text("workers = 2\n\nworkers = nothing\n")
    done = run("app", cwd=folder)
    assert done.returncode == 2
    assert done.stderr.startswith(f"gateway: config is '{folder}/gateway.conf.py': line 3: NameErr")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("workers =", "line 1: SyntaxError"),
        ("import sys\nsys.exit(0)", "line 2: it exits"),
        ("workers = 'many'", "workers is 'many'"),
        ("bind = 'nonsense://'", "bind is 'nonsense://'"),
        ("user = 'nosuchuser'", "there is no such user"),
        ("chdir = 'nowhere'", "chdir is 'nowhere'"),
        (None, "No such file or directory"),
    ],
)
def test_a_reload_with_a_bad_file_is_refused(folder, text, reason):
    file = folder / "conf.py"
    file.write_text("raw_env = ['VERSION=1']\n")
    words = ("app", "-c", "conf.py", "--bind", f"unix:{SOCKET}", "--pidfile", "pid")
    if text is not None and text.startswith("bind"):
        words = (*words[:3], "--pidfile", "pid")
        file.write_text(f"raw_env = ['VERSION=1']\nbind = 'unix:{SOCKET}'\n")
    good = file.read_text()
    with started(*words, cwd=folder) as server:
        if text is None:
            file.unlink()
        else:
            file.write_text(text + "\n")
        done = run("reload", "--pidfile", "pid", cwd=folder)
        assert done.returncode == 1
        assert "refused, the old settings stay: " in done.stderr
        assert reason in done.stderr
        assert done.stdout == ""
        assert f"reload {done.stderr.removeprefix('gateway: ')}" in server.log
        assert answer(folder) == b"1"
        # Once it is put right, all is well.
        file.write_text(good.replace("VERSION=1", "VERSION=2"))
        done = run("reload", "--pidfile", "pid", cwd=folder)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert done.stdout.startswith("reloaded: 1 worker")
        assert answer(folder) == b"2"


def test_a_reload_brings_other_hooks(folder):
    file = folder / "gateway.conf.py"
    text = """
    bind = "unix:app.sock"

    def post_fork(server, worker):
        server.log.info("this is {name}")
    """
    file.write_text(dedent(text.replace("{name}", "one")))
    with started("app", cwd=folder) as server:
        assert "this is one" in server.log
        file.write_text(dedent(text.replace("{name}", "two")))
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("reloaded: 1 workers")
        assert server.log.count("this is one") == 1
        assert server.log.count("this is two") == 1


def test_two_files_and_which_of_them_is_used(folder):
    (folder / "gateway.toml").write_text(f'bind = "unix:{SOCKET}"\n')
    (folder / "gateway.conf.py").write_text("bind = 'unix:other.sock'\n")
    with started("app", cwd=folder) as server:
        assert "gateway.toml is used, gateway.conf.py is not" in server.log
        assert answer(folder) == b"none"
