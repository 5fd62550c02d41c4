"""One gateway with a real nginx before it, and every kind of client at once.

A kind is how a client reaches the application: HTTP straight to the gateway,
or HTTP to nginx, which speaks FastCGI or SCGI over a unix socket as the very
files of deploy/nginx say; with kept connections and without.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Self

from clients import Address
from processes import GATEWAY, TIMEOUT, Load, environment, wait_for

sys.path.append(str(Path(__file__).parents[1] / "interop"))

from front_ends import NGINX, Way, connect, free_port, program, site_configuration

KINDS = ("http-keep", "http-close", "fastcgi-keep", "fastcgi-close", "scgi-keep", "scgi-close")

#: Says which code answered, and in which process.  Read again at each import.
VERSIONED_APP = """
import os
import time

time.sleep({boot})

def app(environ, start_response):
    body = b"{version} %d" % os.getpid()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""

#: Takes 5 to 20 ms a request, and notes in the file "record" what it begins and ends, and where.
RECORDING_APP = """
import os
import random
import time

path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "record")
RECORD = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

def app(environ, start_response):
    what = f"{os.getpid()} {environ['REQUEST_URI']}\\n".encode()
    os.write(RECORD, b"begin " + what)
    time.sleep(random.uniform(0.005, 0.020))
    os.write(RECORD, b"end " + what)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
    return [b"ok"]
"""


def recorded(folder: Path) -> tuple[set[str], set[str]]:
    """What RECORDING_APP began, and what of that it never ended: process id and URI."""
    lines = [line.split(" ", 1) for line in (folder / "record").read_text().splitlines()]
    begun = {what for word, what in lines if word == "begin"}
    return begun, begun - {what for word, what in lines if word == "end"}


def versioned(version: object, boot: float = 0.0) -> str:
    """An application that calls itself ``version`` and takes ``boot`` seconds to import."""
    return VERSIONED_APP.format(version=version, boot=boot)


class Loads:
    """A load of each kind, all at the same time.

    They POST: a GET that fails on a kept connection is sent again by nginx, which would hide it.
    """

    def __init__(
        self,
        addresses: dict[str, Address],
        kinds: tuple[str, ...] = KINDS,
        *,
        clients: int = 2,
        target: str | Callable[[], str] = "/",
        method: str = "POST",
    ) -> None:
        self.of = {
            kind: Load(
                "http",
                addresses[kind.partition("-")[0]],
                keep=kind.endswith("-keep"),
                clients=clients,
                target=target,
                races=kind == "http-keep",
                method=method,
                body=b"x" * 100 if method == "POST" else b"",
            )
            for kind in kinds
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.finish()

    def finish(self) -> None:
        """Let every client end with the request that it is at."""
        for load in self.of.values():
            load.stop()
        for load in self.of.values():
            load.finish()

    @property
    def answered(self) -> int:
        return sum(load.answered for load in self.of.values())

    @property
    def latency(self) -> float:
        """The longest that any answer took, seconds."""
        return max(load.latency for load in self.of.values())

    @property
    def refused(self) -> int:
        return sum(load.refused for load in self.of.values())

    @property
    def failed(self) -> list[str]:
        """What went wrong, of all kinds."""
        return [f"{kind}: {what}" for kind, load in self.of.items() for what in load.lost] + [
            f"{kind}: {name}"
            for kind, load in self.of.items()
            for name in ["refused"] * load.refused + ["raced"] * load.raced
        ]

    @property
    def unanswered(self) -> dict[str, float]:
        """Targets of requests that got no answer, or not 200, and when they began."""
        return {target: at for load in self.of.values() for target, at in load.unanswered.items()}

    @property
    def bodies(self) -> set[bytes]:
        return set().union(*(load.bodies for load in self.of.values()))

    @property
    def versions(self) -> set[str]:
        """Of the code that answered."""
        return {body.split()[0].decode() for body in self.bodies}

    def forget(self) -> None:
        """Have only answers to requests from now on in ``bodies``."""
        for load in self.of.values():
            load.forget_bodies()

    def reached(self, wanted: int, *, despite_failures: bool = False) -> None:
        """Wait for so many more answers of every kind."""
        goals = {kind: load.answered + wanted for kind, load in self.of.items()}

        def there() -> bool:
            if self.failed and not despite_failures:
                return True
            return all(self.of[kind].answered >= goals[kind] for kind in goals)

        wait_for(there, f"{wanted} more answers of every kind")

    def check(self) -> None:
        """Nothing failed."""
        failed = self.failed
        assert not failed, f"{len(failed)} requests failed, such as {failed[:5]}\n{self}"

    def __str__(self) -> str:
        lines = [f"{kind:14} {load}" for kind, load in self.of.items()]
        total = f"{self.answered} answered, {len(self.failed)} failed, longest {self.latency:.3f} s"
        return "\n".join([*lines, f"{'all':14} {total}"])


class Nginx:
    """nginx with the sites of deploy/nginx for FastCGI and SCGI, both over a unix socket."""

    def __init__(self, sockets: dict[str, str]) -> None:
        binary = program("nginx")
        self.folder = Path(tempfile.mkdtemp(prefix="gw-nginx-"))
        self.addresses: dict[str, Address] = {}
        sites = []
        for protocol, path in sockets.items():
            port = free_port()
            self.addresses[protocol] = ("127.0.0.1", port)
            sites.append(site_configuration(Way("nginx", protocol, "unix", "root"), port, path))
        (self.folder / "site.conf").write_text("\n".join(sites))
        for name in ("fastcgi_params", "scgi_params"):
            (self.folder / name).symlink_to(Path("/etc/nginx") / name)
        # The sockets are for their owner alone: nginx is the same user.
        user = "user root root;" if os.geteuid() == 0 else ""
        (self.folder / "nginx.conf").write_text(NGINX.format(folder=self.folder, user=user))
        self.process = subprocess.Popen(
            [binary, "-p", self.folder, "-c", "nginx.conf", "-e", "error.log"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            for address in self.addresses.values():
                wait_for(lambda address=address: self._answers(address), "nginx")
        except BaseException:
            self.stop()
            raise

    def _answers(self, address: Address) -> bool:
        assert self.process.poll() is None, self.log
        with suppress(OSError), connect(address):
            return True
        return False

    @property
    def log(self) -> str:
        with suppress(FileNotFoundError):
            return (self.folder / "error.log").read_text("utf-8", "replace")
        return ""

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(TIMEOUT)
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)


class Fleet:
    """A gateway that ``serve`` starts, with HTTP on TCP and nginx before its other sockets.

    ``options`` and ``more`` are those of ``serve``.
    """

    def __init__(self, serve, app: str, *options: str, **more) -> None:
        self.pidfile = Path(tempfile.mkdtemp(prefix="gw-pid-")) / "gateway.pid"
        # Two versions in one second may be of one size: nothing compiled is to be trusted.
        env = {"PYTHONDONTWRITEBYTECODE": "1"} | more.pop("env", {})
        words = ("--pidfile", str(self.pidfile), *options)
        self.server = serve(app, *words, env=env, **more)
        paths = {name: self.server.addresses[name, "unix"] for name in ("fastcgi", "scgi")}
        self.nginx = Nginx(paths)
        self.addresses = {"http": self.server.addresses["http", "tcp"], **self.nginx.addresses}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            print(f"nginx's log:\n{self.nginx.log[-3000:]}")
            print(f"the gateway's log:\n{self.server.log[-6000:]}")
        self.nginx.stop()
        shutil.rmtree(self.pidfile.parent, ignore_errors=True)

    def load(
        self,
        kinds: tuple[str, ...] = KINDS,
        *,
        clients: int = 2,
        target: str | Callable[[], str] = "/",
    ) -> Loads:
        """Clients of every kind, ``clients`` of each."""
        return Loads(self.addresses, kinds, clients=clients, target=target)

    def rewrite(self, source: str) -> None:
        """Other code for whatever is imported from now on."""
        path = self.server.folder / "app.py"
        path.with_suffix(".new").write_text(source)
        path.with_suffix(".new").rename(path)

    def reload(self) -> subprocess.CompletedProcess[str]:
        """``gateway reload``, with its outcome."""
        return subprocess.run(
            [*GATEWAY, "reload", "--pidfile", str(self.pidfile)],
            cwd=self.server.folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=2 * TIMEOUT,
            check=False,
        )

    def hup(self) -> None:
        """HUP, and wait until the workers are replaced."""
        done = len(_reloaded(self.server.log))
        self.server.kill(signal.SIGHUP)
        wait_for(lambda: len(_reloaded(self.server.log)) > done, "the reload")


def _reloaded(log: str) -> list[str]:
    return [line for line in log.splitlines() if "reloaded: " in line]


def unique(prefix: str = "/") -> Callable[[], str]:
    """A function that gives every request a URI of its own."""
    numbers = count(1)
    return lambda: f"{prefix}{next(numbers)}"


def settled(look: Callable[[], object], seconds: float, what: str) -> object:
    """Wait until ``look`` has given the same for so many seconds; return it."""
    seen, since = look(), monotonic()

    def same() -> bool:
        nonlocal seen, since
        now = look()
        if now != seen:
            seen, since = now, monotonic()
        return monotonic() - since >= seconds

    wait_for(same, what)
    return seen
