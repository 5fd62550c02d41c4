"""Running gateways in unusual ways, and looking at processes from outside."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Self

from clients import PEERS, SINGLE, Address

GATEWAY = [sys.executable, "-m", "gateway"]
TIMEOUT = 30.0

#: An application that says which process answered; /wait/NAME answers when a file NAME appears
#: beside it, and meanwhile there is NAME.started with the worker's process id.
WAITING_APP = """
import os
import time

FOLDER = os.path.dirname(os.path.abspath(__file__))
VERSION = "1"

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path.startswith("/wait/"):
        name = os.path.join(FOLDER, path[6:])
        with open(name + ".new", "w") as file:
            file.write(str(os.getpid()))
        os.rename(name + ".new", name + ".started")
        while not os.path.exists(name):
            time.sleep(0.005)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{VERSION} {os.getpid()}".encode()]
"""


def wait_for(condition: Callable[[], object], what: str, timeout: float = TIMEOUT):
    """Wait until ``condition`` gives something true, and return that."""
    deadline = monotonic() + timeout
    while not (found := condition()):
        assert monotonic() < deadline, f"waited {timeout} s in vain: {what}"
        sleep(0.005)
    return found


def is_read(sock: socket.socket) -> bool:
    """Whether the other end, on this machine, has read all that was sent."""
    if struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]:
        return False
    if sock.family == socket.AF_UNIX:
        return True
    ends = [f"{sock.getpeername()[1]:04X}", f"{sock.getsockname()[1]:04X}"]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()
        if [local[-4:], remote[-4:]] == ends:
            return int(queues.partition(":")[2], 16) == 0
    raise LookupError(f"no connection between the ports {ends}")


def environment(more: dict[str, str] | None = None) -> dict[str, str]:
    """Ours without what the gateway reads, but for the choice of the build."""
    known = ("PORT", "WEB_CONCURRENCY", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")
    kept = {
        name: value
        for name, value in os.environ.items()
        if name == "GATEWAY_PURE" or not (name.startswith("GATEWAY_") or name in known)
    }
    return kept | (more or {})


def run(
    *words: str,
    cwd: Path,
    env: dict[str, str] | None = None,
    timeout: float = TIMEOUT,
    user: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """``gateway WORDS`` that is expected to end by itself."""
    return subprocess.run(
        [*GATEWAY, *words],
        cwd=cwd,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        user=user,
    )


#: Reads [[words, folder, environment], ...] and prints [[exit code, output, errors], ...].  Each
#: command is a process of its own, forked after the imports, which cost more than all the rest.
_WARM = """
import json, os, sys, tempfile, traceback
import gateway.cli

def one(words, folder, environment):
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if pid == 0:
            code = 120
            try:
                os.chdir(folder)
                os.environ.clear()
                os.environ.update(environment)
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                sys.path[0] = folder
                gateway.cli.main(words)
            except SystemExit as error:
                code = error.code
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        texts = [os.pread(file.fileno(), 1 << 20, 0).decode() for file in (out, err)]
        return [code, *texts]

json.dump([one(*case) for case in json.load(sys.stdin)], sys.stdout)
"""


def run_many(
    cases: list[tuple[list[str], Path, dict[str, str]]],
) -> list[subprocess.CompletedProcess[str]]:
    """As ``run`` for many short commands: words, folder, environment."""
    done = subprocess.run(
        [sys.executable, "-c", _WARM],
        input=json.dumps([(words, str(cwd), environment(env)) for words, cwd, env in cases]),
        stdout=subprocess.PIPE,
        text=True,
        timeout=2 * TIMEOUT,
        check=True,
    )
    return [
        subprocess.CompletedProcess(words, code, out, errors)
        for (words, _, _), (code, out, errors) in zip(cases, json.loads(done.stdout), strict=True)
    ]


class Gateway:
    """A gateway that was started with descriptors, limits or words of its own."""

    def __init__(self, command: list[str], cwd: Path, **options) -> None:
        self._log = tempfile.TemporaryFile()
        options.setdefault("stdin", subprocess.DEVNULL)
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
            env=environment(options.pop("env", None)),
            start_new_session=True,
            **options,
        )

    @property
    def log(self) -> str:
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode("utf-8", "replace")

    def wait_for_log(self, text: str, count: int = 1) -> None:
        wait_for(
            lambda: self.log.count(text) >= count or self.process.poll() is not None,
            f"{text!r} in {self.log}",
        )
        assert self.log.count(text) >= count, self.log

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(TIMEOUT)

    def end(self) -> None:
        """Leave nothing behind, whatever state it is in."""
        if self.process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                self.stop(signal.SIGQUIT)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        print(f"the log of {self.process.pid}:\n{self.log[-8000:]}")
        self._log.close()


@contextmanager
def started(*words: str, cwd: Path, before: tuple[str, ...] = (), **options) -> Iterator[Gateway]:
    """``gateway WORDS``, ready; ``before`` is a command that executes it."""
    gateway = Gateway([*before, *GATEWAY, *words], cwd, **options)
    try:
        gateway.wait_for_log("is ready")
        yield gateway
    finally:
        gateway.end()


#: Executes its arguments with the sockets FDS (numbers, comma-separated) as descriptors 3, 4, ...
#: and with LISTEN_PID as systemd sets it.
_ACTIVATE = """
import fcntl, os, sys
sources = [fcntl.fcntl(int(n), fcntl.F_DUPFD, 100) for n in sys.argv[1].split(",")]
for number, source in enumerate(sources, 3):
    os.dup2(source, number)
    os.close(source)
os.environ["LISTEN_FDS"] = str(len(sources))
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


def activated(
    *words: str,
    cwd: Path,
    sockets: dict[str, socket.socket],
    env: dict[str, str] | None = None,
    command: tuple[str, ...] = tuple(GATEWAY),
) -> Gateway:
    """``gateway WORDS`` as systemd starts it, with named listening sockets."""
    numbers = [sock.fileno() for sock in sockets.values()]
    before = [sys.executable, "-c", _ACTIVATE, ",".join(map(str, numbers))]
    names = {"LISTEN_FDNAMES": ":".join(sockets)}
    return Gateway(
        [*before, *command, *words], cwd, env=names | (env or {}), pass_fds=tuple(numbers)
    )


# Processes from outside (proc(5))


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def opened(pid: int) -> list[str]:
    """What the descriptors of a process are, as far as they are open long enough to tell."""
    names = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            names.append(os.readlink(f"/proc/{pid}/fd/{number}"))
    return names


def threads_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def cpu_seconds(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def switches(pid: int) -> int:
    """How often the process went to sleep: its wake-ups."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("voluntary_ctxt_switches:"):
            return int(line.split()[1])
    raise AssertionError("no context switches in proc")


def memory(pid: int) -> int:
    """Bytes of private memory."""
    total = 0
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(("Private_Clean:", "Private_Dirty:")):
            total += int(line.split()[1]) * 1024
    return total


def peak_memory(pid: int) -> int:
    """The most bytes of memory that the process has had at once."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM in proc")


class Load:
    """Clients that ask, each as soon as it has its answer, and what became of their requests.

    ``lost`` are requests that a server had taken and did not answer whole, or answered wrong;
    ``raced`` are those on a kept connection that the server closed without a byte of an answer
    while the request was under way (a client tries these again; with ``races=False`` they are
    lost); ``refused`` found no listener.  ``latency`` is the longest that an answer took, with its
    connection, in seconds.  ``target`` may be a function that gives each request its own, and
    ``unanswered`` has those that came to nothing, with the time at which they began.
    """

    def __init__(
        self,
        protocol: str,
        address: Address,
        *,
        keep: bool,
        clients: int = 4,
        target: str | Callable[[], str] = "/",
        races: bool = True,
        method: str = "GET",
        body: bytes = b"",
    ) -> None:
        self.answered = 0
        self.raced = 0
        self.refused = 0
        self.lost: list[str] = []
        self.bodies: set[bytes] = set()
        self.latency = 0.0
        self.unanswered: dict[str, float] = {}
        self._protocol = protocol
        self._address = address
        self._closes = not keep or protocol in SINGLE
        self._request = {"close": True} if not keep and protocol not in SINGLE else {}
        self._request |= {"method": method, "body": body}
        self._target = target if callable(target) else lambda: target
        self._races = races
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._answered = [0] * clients
        self._threads = [
            threading.Thread(target=self._run, args=(number,), daemon=True)
            for number in range(clients)
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def reached(self, count: int) -> None:
        """Wait for so many more answers."""
        wanted = self.answered + count
        wait_for(lambda: self.answered >= wanted or self.lost, f"{wanted} answers")

    def forget_bodies(self) -> None:
        """Have only answers to requests from now on in ``bodies``, of every client."""
        for _ in range(2):
            with self._lock:
                self.bodies.clear()
                before = list(self._answered)
            wait_for(
                lambda before=before: all(map(int.__lt__, before, self._answered)) or self.lost,
                "an answer for every client",
            )

    def stop(self) -> None:
        """Have the clients end with the request that they are at; ``finish`` waits for that."""
        self._stop.set()

    def finish(self) -> None:
        self.stop()
        for thread in self._threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive(), "a client hangs"

    def __str__(self) -> str:
        return (
            f"{self.answered} answered, {len(self.lost)} lost, {self.raced} raced, "
            f"{self.refused} refused, longest {self.latency:.3f} s"
        )

    def _run(self, number: int) -> None:
        peer = None
        while not self._stop.is_set():
            if peer is not None and _is_readable(peer.sock):
                # Closed while it was idle: a front end too looks before it uses one again.
                peer.close()
                peer = None
            used = peer is not None
            target = self._target()
            begun = monotonic()
            try:
                if peer is None:
                    peer = PEERS[self._protocol](self._address)
            except (ConnectionRefusedError, FileNotFoundError):
                with self._lock:
                    self.refused += 1
                self._stop.wait(0.005)
                continue
            except OSError as error:
                self._lose(target, begun, f"connect: {error!r}")
                continue
            try:
                answer = peer.ask(target, **self._request)
            except (OSError, AssertionError) as error:
                cut = isinstance(error, ConnectionError) and not peer.buffer
                if used and cut and self._races:
                    with self._lock:
                        self.raced += 1
                        self.unanswered[target] = begun
                else:
                    self._lose(
                        target, begun, f"{'kept' if used else 'fresh'} connection: {error!r}"
                    )
                peer.close()
                peer = None
                continue
            if answer.status != 200 or not answer.whole:
                self._lose(target, begun, repr(answer))
            with self._lock:
                self.latency = max(self.latency, monotonic() - begun)
                self.answered += 1
                self._answered[number] += 1
                self.bodies.add(answer.body)
            if self._closes or (answer.get("connection") or "").lower() == "close":
                peer.close()
                peer = None
        if peer is not None:
            peer.close()

    def _lose(self, target: str, begun: float, what: str) -> None:
        with self._lock:
            self.lost.append(f"{target}: {what}")
            self.unanswered[target] = begun
        self._stop.wait(0.005)


def _is_readable(sock: socket.socket) -> bool:
    poll = select.poll()  # select() takes no descriptor above 1023
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
