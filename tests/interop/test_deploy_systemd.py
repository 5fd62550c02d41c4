"""The units of deploy/systemd: understood by systemd, and their command lines do what they say.

No systemd is needed for the second half: the test is the service manager, with the sockets of
gateway.socket, a notification socket and the commands of gateway.service as they stand there.
"""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from front_ends import DEPLOY, SOCKET_IN_FILES

SYSTEM_TESTS = Path(__file__).parents[1] / "system"
sys.path.append(str(SYSTEM_TESTS))

from clients import PEERS  # noqa: E402
from processes import GATEWAY, TIMEOUT, activated, environment, wait_for  # noqa: E402

UNITS = DEPLOY / "systemd"
PROGRAM = "/srv/app/venv/bin/gateway"
RUNTIME = "/run/gateway"

APP = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"VERSION"]
"""


def settings(name: str) -> dict[str, list[str]]:
    """The assignments of a unit: name to values, in their order."""
    found: dict[str, list[str]] = {}
    text = (UNITS / name).read_text().replace("\\\n", " ")
    for line in text.splitlines():
        if line and not line.startswith(("#", "[")):
            key, equals, value = line.partition("=")
            assert equals, line
            found.setdefault(key, []).append(value)
    return found


def seconds(name: str) -> float:
    return float(settings("gateway.service")[name][-1])


class Systemd:
    """What systemd does with the two units, in a folder of the test's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder  # in place of /run
        self.application = folder / "srv"
        self.application.mkdir()
        self.service = settings("gateway.service")
        self.told: list[dict[str, str]] = []
        (self.runtime,) = self.service["RuntimeDirectory"]
        (folder / self.runtime).mkdir(parents=True)
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(folder / "notify"))
        self.notify.setblocking(False)
        unit = settings("gateway.socket")
        self.sockets = {}
        for name, path in zip(unit["FileDescriptorName"], unit["ListenStream"], strict=True):
            assert f"unix:{path}" == SOCKET_IN_FILES, "deploy/nginx connects somewhere else"
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.bind(self._moved(path))
            sock.listen(int(unit["Backlog"][0]))
            self.sockets[name] = sock
        self.gateway = None

    def _moved(self, text: str) -> str:
        return text.replace(RUNTIME, str(self.folder / "gateway"))

    def command(self, key: str) -> list[str]:
        (line,) = self.service[key]
        program, *words = shlex.split(self._moved(line))
        assert program == PROGRAM
        return words

    @property
    def address(self) -> str:
        (sock,) = self.sockets.values()
        return sock.getsockname()

    def write(self, version: str) -> None:
        (self.application / "app.py").write_text(APP.replace("VERSION", version))

    def start(self) -> None:
        self.told.clear()
        env = dict(line.split("=", 1) for line in self.service["Environment"])
        env["NOTIFY_SOCKET"] = str(self.folder / "notify")
        env["WATCHDOG_USEC"] = str(int(seconds("WatchdogSec") * 1e6))
        env["PYTHONDONTWRITEBYTECODE"] = "1"
        words = self.command("ExecStart")
        self.gateway = activated(*words, cwd=self.application, sockets=self.sockets, env=env)

    def reload(self) -> subprocess.CompletedProcess[str]:
        self.told.clear()
        return subprocess.run(
            [*GATEWAY, *self.command("ExecReload")],
            cwd=self.application,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )

    def heard(self, name: str) -> dict[str, str]:
        """Wait for the message that begins with this assignment."""

        def look():
            try:
                text = self.notify.recv(4096).decode()
                self.told.append(dict(line.split("=", 1) for line in text.splitlines()))
            except BlockingIOError:
                assert self.gateway.process.poll() is None or name == "STOPPING", self.gateway.log
            return next((message for message in self.told if next(iter(message)) == name), None)

        return wait_for(look, f"{name}, and not only {self.told}")

    def ask(self) -> str:
        with PEERS["fastcgi"](self.address) as peer:
            answer = peer.ask()
            assert answer.status == 200
            return answer.body.decode()

    def close(self) -> None:
        if self.gateway is not None:
            self.gateway.end()
        for sock in [self.notify, *self.sockets.values()]:
            sock.close()


@pytest.fixture
def systemd(tmp_path_factory):
    # The path of a socket may have 107 bytes.
    manager = Systemd(tmp_path_factory.mktemp("sd"))
    try:
        yield manager
    finally:
        manager.close()


def test_the_service_says_what_becomes_of_it(systemd):
    systemd.write("one")
    systemd.start()
    ready = systemd.heard("READY")
    assert ready["STATUS"]
    assert systemd.ask() == "one"  # the first request after READY=1 is answered
    assert systemd.heard("WATCHDOG") == {"WATCHDOG": "1"}
    # For the shared folder of the web server's socket nothing is asked.
    assert sorted(os.listdir(systemd.folder / "gateway")) == ["app.sock", "manager"]
    pidfile = systemd.folder / systemd.runtime / "gateway.pid"
    assert pidfile.read_text() == f"{systemd.gateway.process.pid}\n"

    systemd.write("two")
    done = systemd.reload()
    assert done.returncode == 0, done.stderr
    assert systemd.heard("RELOADING")["MONOTONIC_USEC"].isdecimal()
    systemd.heard("READY")
    assert [next(iter(message)) for message in systemd.told if "WATCHDOG" not in message] == [
        "RELOADING",
        "READY",
    ]
    assert systemd.ask() == "two"

    (systemd.application / "app.py").write_text("raise RuntimeError('this code is broken')\n")
    done = systemd.reload()
    assert done.returncode == 1
    assert "RuntimeError: this code is broken" in done.stderr
    systemd.heard("RELOADING")
    assert "failed" in systemd.heard("READY")["STATUS"]
    assert systemd.ask() == "two"

    systemd.told.clear()
    assert systemd.gateway.stop(signal.SIGTERM) == 0
    systemd.heard("STOPPING")
    assert not pidfile.exists()


def test_the_sockets_outlive_the_service(systemd):
    systemd.write("one")
    systemd.start()
    systemd.heard("READY")
    assert systemd.gateway.stop(signal.SIGTERM) == 0
    with PEERS["fastcgi"](systemd.address) as peer:
        peer.start("/")  # while nobody serves
        systemd.write("two")
        systemd.gateway.end()
        systemd.start()
        assert peer.answer().body == b"two"


def test_neither_worker_nor_application_can_speak_for_the_service(systemd):
    (systemd.application / "app.py").write_text(
        "import os\n" + APP.replace('b"VERSION"', '" ".join(sorted(os.environ)).encode()')
    )
    systemd.start()
    systemd.heard("READY")
    seen = systemd.ask().split()
    assert "PATH" in seen
    assert not [name for name in seen if name.startswith(("NOTIFY_", "WATCHDOG_"))]


def test_an_application_that_cannot_be_loaded(systemd):
    systemd.write("one")
    (systemd.application / "app.py").write_text("raise RuntimeError('this code is broken')\n")
    systemd.start()
    assert systemd.gateway.process.wait(TIMEOUT) == 3, systemd.gateway.log
    assert "READY" not in {next(iter(message)) for message in systemd.told}
    # 2 is never tried again, 3 may be better the next time: a database that starts meanwhile.
    assert systemd.service["RestartPreventExitStatus"] == ["2"]


def test_times_fit_together(systemd):
    words = systemd.command("ExecStart")
    graceful_timeout = float(words[words.index("--graceful-timeout") + 1])
    assert seconds("TimeoutStopSec") >= graceful_timeout + 5
    assert seconds("TimeoutStartSec") > 60  # startup_timeout


def verified(tmp_path: Path, *names: str) -> subprocess.CompletedProcess[str]:
    """``systemd-analyze verify`` of the units, with a program that exists."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    for name in names:
        text = (UNITS / name).read_text().replace(PROGRAM, "/bin/true")
        (tmp_path / name).write_text(text)
    return subprocess.run(
        [analyze, "verify", *(str(tmp_path / name) for name in names)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


def test_systemd_understands_the_units(tmp_path):
    done = verified(tmp_path, "gateway.service", "gateway.socket")
    # What it says about units of this machine is not ours.
    ours = [line for line in done.stderr.splitlines() if "gateway." in line]
    assert not ours
    assert done.returncode == 0, done.stderr


def test_the_service_is_hardened(tmp_path):
    verified(tmp_path, "gateway.service", "gateway.socket")
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", str(tmp_path / "gateway.service")],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze rates no files (it is older than 250)")
    exposure = re.search(r"Overall exposure level for gateway.service: ([\d.]+)", done.stdout)
    assert exposure, done.stderr
    print(exposure.group())
    assert float(exposure.group(1)) <= 2.0
