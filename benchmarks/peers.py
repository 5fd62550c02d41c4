"""The servers that are compared: what each can do, and the command line that makes it do it."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks import fronts

APPS = str(Path(__file__).resolve().parent / "apps")
_FLOOR = str(Path(__file__).resolve().parent / "floor.c")
_HOSTS = str(Path(__file__).resolve().parent / "hosts.py")

ALL_PROTOCOLS = ("http", "fastcgi", "scgi", "uwsgi")


@dataclass(frozen=True)
class Wanted:
    """How a server shall serve; an address is HOST:PORT or unix:PATH."""

    app: str = "hello:app"
    protocol: str = "http"
    address: str = ""
    threads: int = 1
    workers: int = 1
    #: Connections that are open at once.
    room: int = 1000
    preload: bool = False
    #: Where it may write.
    folder: str = ""

    @property
    def unix(self):
        """The path, if it is a unix socket."""
        return self.address[5:] if self.address.startswith("unix:") else None


@dataclass(frozen=True)
class Peer:
    """``command(environment, wanted)`` is an argument list; ``package`` is pip's name."""

    name: str
    package: str
    command: object
    protocols: tuple[str, ...] = ("http",)
    unix: bool = True
    threads: bool = True
    workers: bool = False
    #: An answer without a length ends with its connection.
    chunks: bool = True
    environ: tuple[tuple[str, str], ...] = ()

    def can(self, scenario):
        return (
            scenario.protocol in self.protocols
            and (self.unix or scenario.transport != "unix")
            and (self.threads or scenario.threads == 1)
            and (self.workers or scenario.workers == 1)
        )


def _gateway(environment, wanted):
    bind = f"{wanted.protocol}+{wanted.address}?mode=0666"
    if not wanted.unix:
        bind = f"{wanted.protocol}://{wanted.address}"
    return [
        environment.program("gateway"), wanted.app, "--bind", bind,
        "--workers", wanted.workers, "--threads", wanted.threads,
        "--worker-connections", wanted.room,
        *(["--preload-app"] if wanted.preload else []),
    ]  # fmt: skip


def _granian(environment, wanted):
    host, _, port = wanted.address.rpartition(":")
    where = ["--uds", wanted.unix] if wanted.unix else ["--host", host, "--port", port]
    return [
        environment.program("granian"), "--interface", "wsgi", "--http", "1", "--no-ws", *where,
        "--workers", wanted.workers, "--blocking-threads", wanted.threads,
        "--backlog", max(2048, wanted.room), "--backpressure", max(2048, wanted.room), wanted.app,
    ]  # fmt: skip


def _gunicorn(worker_class):
    def command(environment, wanted):
        return [
            environment.program("gunicorn"), "--bind", wanted.address, "--umask", "0",
            "--workers", wanted.workers, "--worker-class", worker_class,
            "--threads", wanted.threads, "--keep-alive", "75", "--no-control-socket",
            "--worker-connections", wanted.room, "--protocol", wanted.protocol,
            *(["--preload"] if wanted.preload else []), wanted.app,
        ]  # fmt: skip

    return command


def _uwsgi(environment, wanted):
    """Its HTTP socket keeps no connection and does not say so: a header does, for the client."""
    sockets = {"uwsgi": "--socket"}
    return [
        environment.program("uwsgi"), "--home", str(Path(environment.bin).parent),
        sockets.get(wanted.protocol, f"--{wanted.protocol}-socket"),
        wanted.unix or wanted.address, "--chmod-socket=666", "--listen", "2048",
        "--module", wanted.app, "--need-app", "--disable-logging", "--master",
        "--processes", wanted.workers,
        *(["--threads", wanted.threads] if wanted.threads > 1 else []),
        *([] if wanted.preload or wanted.workers == 1 else ["--lazy-apps"]),
        *(["--add-header", "Connection: close"] if wanted.protocol == "http" else []),
    ]  # fmt: skip


def _hosted(name):
    """A server that ``hosts.py`` calls."""

    def command(environment, wanted):
        function = f"{name}_{wanted.protocol}" if name == "flup" else name
        words = [function, wanted.app, wanted.address, wanted.threads]
        return [environment.python, "-P", _HOSTS, *words]

    return command


def _floor(environment, wanted):
    return [environment.program("floor"), wanted.address.rpartition(":")[2]]


def _floor_nginx(_environment, wanted):
    return fronts.constant(wanted.address, wanted.folder)


PEERS = {
    peer.name: peer
    for peer in (
        Peer("gateway", "", _gateway, ALL_PROTOCOLS, workers=True),
        Peer(
            "gateway-pure", "", _gateway, ALL_PROTOCOLS, workers=True,
            environ=(("GATEWAY_PURE", "1"),),
        ),
        Peer("bjoern", "bjoern", _hosted("bjoern"), threads=False),
        Peer("fastwsgi", "fastwsgi", _hosted("fastwsgi"), unix=False, threads=False),
        Peer("granian", "granian", _granian, workers=True),
        Peer("uwsgi", "uwsgi", _uwsgi, ALL_PROTOCOLS, workers=True, chunks=False),
        Peer("waitress", "waitress", _hosted("waitress")),
        Peer("cheroot", "cheroot", _hosted("cheroot")),
        Peer(
            "gunicorn-sync", "gunicorn", _gunicorn("sync"), ("http", "uwsgi"), threads=False,
            workers=True,
        ),
        Peer("gunicorn-gthread", "gunicorn", _gunicorn("gthread"), ("http", "uwsgi"), workers=True),
        Peer("flup", "flup", _hosted("flup"), ("fastcgi", "scgi")),
        Peer("floor-c", "", _floor, unix=False, threads=False),
        Peer("floor-nginx", "", _floor_nginx, unix=False, threads=False),
    )
}  # fmt: skip

OURS = ("gateway", "gateway-pure")
#: They run no Python, and answer a constant: nothing can be below.
FLOORS = ("floor-c", "floor-nginx")


def build_floor(environment):
    """Compile the plainest loop; say in ``environment.missing`` why not."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        environment.missing["floor-c"] = "needs a C compiler (apt-get install gcc)"
        return
    command = [compiler, "-O2", "-o", environment.program("floor"), _FLOOR]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        environment.missing["floor-c"] = f"does not compile: {done.stderr.strip()[:200]}"
