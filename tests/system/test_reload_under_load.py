"""Reloads while every kind of client asks without a pause: nothing fails, nothing waits."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

from fleet import Fleet, versioned
from front_ends import free_port
from processes import TIMEOUT, Load, children, environment, wait_for

#: Seconds that the application takes to import.
BOOT = 1.5
RELOADS = 20


def test_reloads_of_an_application_that_boots_slowly(serve, tmp_path):
    options = ("--workers", "2", "--graceful-timeout", "10")
    with Fleet(serve, versioned(0, BOOT), *options) as fleet:
        with fleet.load() as load:
            load.reached(20)
            for number in range(1, RELOADS):
                fleet.rewrite(versioned(number, BOOT))
                fleet.hup()
            fleet.rewrite(versioned(RELOADS, BOOT))
            done = fleet.reload()
            assert done.returncode == 0, done.stderr
            load.forget()
            load.reached(20)
            assert load.versions == {str(RELOADS)}
        print(f"{RELOADS} reloads, {BOOT} s to boot, rolling:\n{load}")
        load.check()
        assert load.latency < BOOT
        wait_for(lambda: len(children(fleet.server.process.pid)) == 2, "the old workers to leave")
        assert "cut off" not in fleet.server.log
    for keep in (True, False):
        name = "http-keep" if keep else "http-close"
        print(f"gunicorn (gthread), 3 reloads:\n{name:14} {gunicorn(tmp_path, keep=keep)}")


def gunicorn(folder, *, keep: bool) -> Load:
    """The same reloads of gunicorn; not judged, only shown."""
    (folder / "app.py").write_text(versioned(0, BOOT))
    port = free_port()
    log = folder / "gunicorn.log"
    with log.open("w") as file:
        words = ["app:app", "--bind", f"127.0.0.1:{port}", "--workers", "2"]
        words += ["--worker-class", "gthread", "--threads", "4"]
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *words],
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    try:
        wait_for(lambda: log.read_text().count("Booting worker") == 2, "gunicorn's start")
        with Load("http", ("127.0.0.1", port), keep=keep) as load:
            load.reached(20)
            for number in range(1, 4):
                process.send_signal(signal.SIGHUP)
                started = 2 * number + 2
                wait_for(lambda n=started: log.read_text().count("Booting worker") >= n, "a reload")
                load.forget_bodies()
                load.reached(20)
    finally:
        process.terminate()
        process.wait(TIMEOUT)
    return load


def test_all_at_once(serve):
    options = ("--workers", "3", "--reload-strategy", "all")
    with Fleet(serve, versioned(0, BOOT), *options) as fleet:
        with fleet.load() as load:
            load.reached(20)
            for number in range(1, 4):
                since = len(fleet.server.log)
                fleet.rewrite(versioned(number, BOOT))
                fleet.hup()
                steps = re.findall(r"worker \d+ (starts|is ready)", fleet.server.log[since:])
                # First the canary, then the others together.
                assert steps == ["starts", "is ready", "starts", "starts", "is ready", "is ready"]
                load.forget()
                load.reached(20)
                assert load.versions == {str(number)}
        print(f"3 reloads, {BOOT} s to boot, all at once:\n{load}")
        load.check()
        assert load.latency < BOOT
        wait_for(lambda: len(children(fleet.server.process.pid)) == 3, "the old workers to leave")


def test_reload_of_a_preloaded_application(serve):
    with Fleet(serve, versioned(0, BOOT), "--workers", "2", "--preload") as fleet:
        with fleet.load() as load:
            load.reached(20)
            for number in range(1, 4):
                fleet.rewrite(versioned(number, BOOT))
                done = fleet.reload()
                assert done.returncode == 0, done.stderr
                load.forget()
                load.reached(20)
                assert load.versions == {str(number)}
            fleet.rewrite("raise RuntimeError('this code is broken')\n")
            done = fleet.reload()
            assert done.returncode == 1
            assert "RuntimeError: this code is broken" in done.stderr
            load.forget()
            load.reached(20)
            assert load.versions == {"3"}
        print(f"3 reloads and a bad one, {BOOT} s to boot, preloaded:\n{load}")
        load.check()
        assert load.latency < BOOT


#: Code that does not start, and what ``gateway reload`` says of it.
BAD_CODE = {
    "raise RuntimeError('this code is broken')\n": "RuntimeError: this code is broken",
    "def app(environ, start_response:\n": "SyntaxError",
    "import threading\nthreading.Event().wait()\n": "startup_timeout",
    "import os\nos._exit(7)\n": "exit code 7",
    "import sys\nsys.exit('not today')\n": "not today",
    "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n": "SIGSEGV",
    "def other(environ, start_response): ...\n": "other",
}


def test_bad_code(serve):
    options = ("--workers", "2", "--startup-timeout", "4")
    with Fleet(serve, versioned(0), *options) as fleet:
        with fleet.load() as load:
            load.reached(20)
            for number, (code, reason) in enumerate(BAD_CODE.items(), 1):
                fleet.rewrite(code)
                refused(fleet, load, reason, str(number - 1))
                accepted(fleet, load, str(number))
        print(f"{len(BAD_CODE)} bad reloads, each with a good one after it:\n{load}")
        load.check()
        wait_for(lambda: len(children(fleet.server.process.pid)) == 2, "the others to leave")


def refused(fleet, load, reason: str, version: str) -> None:
    """The reload fails, says why, and the workers of before go on."""
    workers = set(children(fleet.server.process.pid))
    since = len(fleet.server.log)
    done = fleet.reload()
    print(f"exit code {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    assert done.returncode == 1, done
    assert reason in done.stderr
    assert reason in fleet.server.log[since:]
    load.forget()
    load.reached(10)
    assert load.versions == {version}
    assert {int(body.split()[1]) for body in load.bodies} <= workers


def accepted(fleet, load, version: str) -> None:
    fleet.rewrite(versioned(version))
    done = fleet.reload()
    assert done.returncode == 0, done.stderr
    load.forget()
    load.reached(10)
    assert load.versions == {version}
