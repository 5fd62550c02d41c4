"""Reloads while every kind of client asks without a pause: nothing fails, nothing waits."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest
from fleet import Fleet, versioned
from front_ends import free_port
from processes import TIMEOUT, Load, children, environment, wait_for

#: Seconds that the application takes to import.
BOOT = 1.5
RELOADS = 10


def test_reloads_of_an_application_that_boots_slowly(serve):
    # One worker: the hardest case, for nobody else answers while the next one boots.
    with Fleet(serve, versioned(0, BOOT), "--graceful-timeout", "10") as fleet:
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
        print(f"{RELOADS} reloads, {BOOT} s to boot:\n{load}")
        load.check()
        assert load.latency < BOOT
        wait_for(lambda: len(children(fleet.server.process.pid)) == 1, "the old workers to leave")
        assert "cut off" not in fleet.server.log


@pytest.mark.skipif("GATEWAY_TEST_SECONDS" not in os.environ, reason="shown in long runs")
@pytest.mark.parametrize("keep", [True, False], ids=["http-keep", "http-close"])
def test_show_gunicorn(tmp_path, keep):
    print(f"gunicorn (gthread), 2 reloads:\n{gunicorn(tmp_path, keep=keep)}")


def gunicorn(folder, *, keep: bool) -> Load:
    """The same reloads of gunicorn; not judged, only shown."""
    (folder / "app.py").write_text(versioned(0, BOOT))
    port = free_port()
    log = folder / "gunicorn.log"
    with log.open("w") as file:
        words = ["app:app", "--bind", f"127.0.0.1:{port}", "--workers", "1"]
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
        wait_for(lambda: log.read_text().count("Booting worker") == 1, "gunicorn's start")
        with Load("http", ("127.0.0.1", port), keep=keep) as load:
            load.reached(20)
            for number in range(1, 3):
                process.send_signal(signal.SIGHUP)
                started = number + 1
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
            for number in range(1, 3):
                since = len(fleet.server.log)
                fleet.rewrite(versioned(number, BOOT))
                fleet.hup()
                steps = re.findall(r"worker \d+ (starts|is ready)", fleet.server.log[since:])
                # First the canary, then the others together.
                assert steps == ["starts", "is ready", "starts", "starts", "is ready", "is ready"]
                wait_for(lambda: len(children(fleet.server.process.pid)) == 3, "the old to leave")
                load.forget()
                load.reached(20)
                assert load.versions == {str(number)}
        print(f"2 reloads, {BOOT} s to boot, all at once:\n{load}")
        load.check()
        assert load.latency < BOOT
        wait_for(lambda: len(children(fleet.server.process.pid)) == 3, "the old workers to leave")


def test_reload_of_a_preloaded_application(serve):
    with Fleet(serve, versioned(0, BOOT), "--workers", "2", "--preload") as fleet:
        with fleet.load() as load:
            load.reached(20)
            for number in range(1, 3):
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
            assert load.versions == {"2"}
        print(f"2 reloads and a bad one, {BOOT} s to boot, preloaded:\n{load}")
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

#: A configuration whose hook looks at a new worker before it takes over.
CONFIGURATION = """
def ready(worker):
    {body}
"""

#: Configurations that let nothing start, and what ``gateway reload`` says of them.
BAD_CONFIGURATION = {
    CONFIGURATION.format(body="raise LookupError('no database')"): "LookupError: no database",
    CONFIGURATION.format(body="return False"): "ready",
    "workers = 'many'\n": "workers",
    "workers = \n": "gateway.conf.py",
}


def test_bad_code(serve):
    options = ("--workers", "2", "--startup-timeout", "3")
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


def test_bad_configuration(serve):
    options = ("--workers", "2", "-c", "gateway.conf.py")
    files = {"gateway.conf.py": CONFIGURATION.format(body="return None")}
    with Fleet(serve, versioned(0), *options, files=files) as fleet:
        configuration = fleet.server.folder / "gateway.conf.py"
        with fleet.load() as load:
            load.reached(20)
            for number, (text, reason) in enumerate(BAD_CONFIGURATION.items(), 1):
                fleet.rewrite(versioned("never"))
                configuration.write_text(text)
                refused(fleet, load, reason, str(number - 1))
                configuration.write_text(CONFIGURATION.format(body="return True"))
                accepted(fleet, load, str(number))
        print(f"{len(BAD_CONFIGURATION)} bad reloads, each with a good one after it:\n{load}")
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
    fleet.server.wait_for_log(re.escape(reason), since=since)
    load.forget()
    load.reached(10)
    assert load.versions == {version}
    assert {int(body.split()[1]) for body in load.bodies} <= workers


def accepted(fleet, load, version: str) -> None:
    fleet.rewrite(versioned(version))
    done = fleet.reload()
    assert done.returncode == 0, done.stderr
    # The old workers are told to leave; until they have, they answer what reaches them.
    wait_for(lambda: is_alone(load, version), f"version {version} alone to answer")


def is_alone(load, version: str) -> bool:
    load.forget()
    load.reached(10)
    return load.versions == {version}


def test_one_reload_after_another_without_waiting(serve):
    """What a later reload overtakes is given up; the last code is what serves in the end."""
    with Fleet(serve, versioned(0, 0.2), "--workers", "2") as fleet:
        with fleet.load() as load:
            load.reached(20)
            for number in range(1, 31):
                fleet.rewrite(versioned(number, 0.2))
                fleet.server.kill(signal.SIGHUP)
                load.reached(number % 7)
            wait_for(lambda: load.failed or "30" in load.versions, "the last code")
            done = fleet.reload()
            assert done.returncode == 0, done.stderr
            load.forget()
            load.reached(10)
            assert load.versions == {"30"}
        print(f"30 HUPs in a row:\n{load}")
        load.check()
        wait_for(lambda: len(children(fleet.server.process.pid)) == 2, "the others to leave")


#: Starts once, and then never again.
ONCE = """
try:
    open("once", "x").close()
except FileExistsError:
    raise RuntimeError("a second time") from None
"""


def test_code_that_starts_only_once(serve):
    """The canary lives, the next worker does not: the service goes on with what it has."""
    with Fleet(serve, versioned(0), "--workers", "3") as fleet:
        with fleet.load() as load:
            load.reached(20)
            fleet.rewrite(versioned(1) + ONCE)
            done = fleet.reload()
            assert done.returncode == 1
            assert "RuntimeError: a second time" in done.stderr
            load.forget()
            load.reached(50)
            accepted(fleet, load, "2")
        print(f"a reload that stops half-way, and a good one:\n{load}")
        load.check()
        wait_for(lambda: len(children(fleet.server.process.pid)) == 3, "the others to leave")
