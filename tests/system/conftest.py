"""``serve``: a real gateway process on real sockets, gone when its test is."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from itertools import count
from pathlib import Path
from textwrap import dedent
from time import monotonic

import pytest
from clients import PEERS, TIMEOUT, Address, Peer
from processes import GATEWAY, environment
from tls_peers import Authority, Https

START_TIMEOUT = 30.0
STOP_TIMEOUT = 20.0

PROTOCOLS = ("http", "fastcgi", "scgi", "uwsgi")
KINDS = ("tcp", "unix")

#: One-idea applications; importable here, so that tests can go through their tables.
APPS = Path(__file__).parents[1] / "apps"
sys.path.append(str(APPS))

#: What the log must never say: it is a bug, whatever the input.
FAULTS = ("a fault of the server", "a worker failed")


class Output:
    """What a process writes, gathered by a thread, so that a test can wait for a line."""

    def __init__(self, stream) -> None:
        self._stream = stream
        self._changed = threading.Condition()
        self.text = ""
        self.ended = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while data := os.read(self._stream.fileno(), 65536):
            with self._changed:
                self.text += data.decode("utf-8", "replace")
                self._changed.notify_all()
        with self._changed:
            self.ended = True
            self._changed.notify_all()
        self._stream.close()

    def wait_for(
        self, pattern: str, count: int = 1, timeout: float = TIMEOUT, since: int = 0
    ) -> list[str]:
        """Wait until the text from ``since`` on has ``count`` matches; return them."""
        deadline = monotonic() + timeout
        with self._changed:
            while True:
                found = re.findall(pattern, self.text[since:])
                if len(found) >= count:
                    return found
                left = deadline - monotonic()
                if self.ended or left <= 0:
                    raise AssertionError(f"no {pattern!r} ({count} times) in:\n{self.text}")
                self._changed.wait(left)

    def wait_for_end(self, timeout: float) -> bool:
        """Wait until nobody holds the other end: every process that wrote here is gone."""
        with self._changed:
            return self._changed.wait_for(lambda: self.ended, timeout)


class Server:
    """A running gateway.

    ``addresses[protocol, kind]`` are what it listens on (kind: tcp or unix),
    ``log`` and ``printed`` what it wrote to standard error and output.
    """

    def __init__(self, folder: Path, command: list[str], environment: dict[str, str]) -> None:
        self.folder = folder
        self.addresses: dict[tuple[str, str], Address] = {}
        self._peers: list[Peer] = []
        self._stopped = False
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self.errors = Output(self.process.stderr)
        self.output = Output(self.process.stdout)

    @property
    def log(self) -> str:
        return self.errors.text

    @property
    def printed(self) -> str:
        return self.output.text

    @property
    def workers(self) -> list[int]:
        """Process ids of all workers that ever were ready."""
        return [int(pid) for pid in re.findall(r"worker (\d+) is ready", self.log)]

    def wait_until_ready(self, workers: int = 1) -> None:
        self.errors.wait_for(r"worker \d+ is ready", workers, START_TIMEOUT)
        for line in re.findall(r"listening: (\S+ on \S+)", self.log):
            protocol, _, where = line.partition(" on ")
            if where.startswith("unix:"):
                self.addresses[protocol, "unix"] = where[5:]
            else:
                host, _, port = where.rpartition(":")
                self.addresses[protocol, "tcp"] = (host.strip("[]"), int(port))

    def wait_for_log(
        self, pattern: str, count: int = 1, timeout: float = TIMEOUT, since: int = 0
    ) -> list[str]:
        """Wait until the error log has ``count`` matches of the regular expression."""
        return self.errors.wait_for(pattern, count, timeout, since)

    def connect(self, protocol: str = "http", kind: str = "tcp", **options) -> Peer:
        """A client of ``protocol``, closed with the server."""
        since = len(self.log)
        peer = PEERS[protocol](self.addresses[protocol, kind], **options)
        peer.since = since
        self._peers.append(peer)
        return peer

    def ask(self, protocol: str = "http", target: str = "/", **request):
        """One request on a connection of its own."""
        with self.connect(protocol) as peer:
            return peer.ask(target, **request)

    def kill(self, number: int) -> None:
        """Signal the manager."""
        self.process.send_signal(number)

    def stop(self, number: int = signal.SIGQUIT, timeout: float = STOP_TIMEOUT) -> int:
        """Stop all of it and return the manager's exit code; no process is left behind."""
        for peer in self._peers:
            peer.close()
        self._stopped = True
        with suppress(ProcessLookupError):
            self.process.send_signal(number)
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = None
        gone = code is not None and self.errors.wait_for_end(timeout)
        if not gone:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.errors.wait_for_end(timeout)
        assert gone, f"the server did not stop:\n{self.log}"
        self.check()
        return code

    def check(self) -> None:
        """The server has shown no fault of its own."""
        for fault in FAULTS:
            assert fault not in self.log, self.log

    def cleanup(self) -> None:
        try:
            if not self._stopped:
                self.stop()
        finally:
            # pytest shows it where the test has failed.
            print(f"the log of {self.process.pid}:\n{self.log[-8000:]}")
            shutil.rmtree(self.folder, ignore_errors=True)


class Serve:
    """Starts gateways; see the fixture ``serve``."""

    def __init__(self) -> None:
        self.servers: list[Server] = []

    def __call__(
        self,
        app: str | Path,
        *options: str,
        protocols=PROTOCOLS,
        kinds=KINDS,
        files: dict[str, str] | None = None,
        env: dict[str, str] | None = None,
        wait: bool = True,
    ) -> Server:
        """Serve ``app``: the source of a module with ``app``, or the path of one.

        Without ``--bind`` among the options it listens for every protocol on
        TCP and on a unix socket.  ``files`` are written beside the
        application; with ``wait=False`` the process may end as it likes.
        """
        folder = Path(tempfile.mkdtemp(prefix="gw-"))
        target = "app:app"
        if isinstance(app, Path):
            target = f"{app}:app"
        else:
            (folder / "app.py").write_text(dedent(app), encoding="utf-8")
        for name, text in (files or {}).items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        words = [*GATEWAY, target, *options]
        if "--bind" not in options:
            for protocol in protocols:
                for kind in kinds:
                    where = "127.0.0.1:0" if kind == "tcp" else f"unix:{folder}/{protocol}.sock"
                    words += ["--bind", f"{protocol}+{where}"]
        server = Server(folder, words, environment(env))
        self.servers.append(server)
        if wait:
            workers = int(options[options.index("--workers") + 1]) if "--workers" in options else 1
            server.wait_until_ready(workers)
        return server

    def stop(self) -> None:
        """Stop everything, whatever happens to any of it."""
        failures = []
        for server in reversed(self.servers):
            try:
                server.cleanup()
            except Exception as error:
                failures.append(error)
        self.servers.clear()
        if failures:
            raise failures[0]


@pytest.fixture
def serve():
    """``serve(app, *options)`` starts a gateway for this test."""
    start = Serve()
    try:
        yield start
    finally:
        start.stop()


@pytest.fixture(scope="module")
def serve_module():
    """As ``serve``, for all tests of a module."""
    start = Serve()
    try:
        yield start
    finally:
        start.stop()


@pytest.fixture(params=PROTOCOLS)
def protocol(request) -> str:
    """Every protocol in turn."""
    return request.param


@pytest.fixture(params=["1", "4"], ids=["inline", "pool"], scope="module")
def threads(request) -> str:
    """The application on the loop, and in a pool."""
    return request.param


@pytest.fixture(params=["1", "4"], ids=["inline", "pool"], scope="session")
def threads_of_rules(request) -> str:
    return request.param


@pytest.fixture(scope="session")
def rules_server(threads_of_rules):
    start = Serve()
    try:
        server = start(APPS / "rules_app.py", "--threads", threads_of_rules)
        for file, size in ("empty", 0), ("small", 100), ("large", 5_000_000):
            (server.folder / file).write_bytes(numbered(size))
        yield server
    finally:
        start.stop()


@pytest.fixture
def rules(rules_server):
    """``tests/apps/rules_app.py`` with one worker, which has to survive every test."""
    yield rules_server
    rules_server.check()
    assert rules_server.process.poll() is None
    assert len(rules_server.workers) == 1, rules_server.log


def numbered(size: int) -> bytes:
    """Bytes of which each part is different, so that a lost or doubled one shows."""
    return b"".join(b"%07d\n" % number for number in range(size // 8 + 1))[:size]


_names = count(1)


@pytest.fixture
def name() -> str:
    """A name that no other test uses."""
    return f"n{next(_names)}"


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """Who issues certificates for these tests; clients trust it if nothing else is said."""
    made = Authority(tmp_path_factory.mktemp("certificates"))
    Https.default = made.context()
    return made


@pytest.fixture(scope="session")
def certified(authority) -> tuple[str, ...]:
    """Options that give a gateway a certificate for localhost."""
    certificate, key = authority.issue("server")
    return ("--certfile", str(certificate), "--keyfile", str(key))
