"""Another manager on the same sockets: USR2 and systemd, while every kind of client asks."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import contextmanager, suppress
from pathlib import Path

from fleet import Fleet, Loads, Nginx, versioned
from processes import activated, alive, children, wait_for


@contextmanager
def upgraded(fleet: Fleet):
    """USR2; yields the new manager's process id once it serves.  It is gone in the end."""
    successor = Path(f"{fleet.pidfile}.2")
    old = fleet.server.process.pid
    ready = len(fleet.server.workers)
    fleet.server.kill(signal.SIGUSR2)
    # Its own pidfile in the end; until the old one has gone, the name has a 2 more.
    new = wait_for(lambda: read(successor), "the new manager's pidfile")
    try:
        assert new != old
        assert read(fleet.pidfile) == old
        fleet.server.wait_for_log(r"worker \d+ is ready", ready + 2)
        yield new
    finally:
        with suppress(ProcessLookupError):
            os.kill(new, signal.SIGQUIT)
        wait_for(lambda: not alive(new), "the end of the new manager")


def read(pidfile: Path) -> int:
    with suppress(FileNotFoundError, ValueError):
        return int(pidfile.read_text())
    return 0


def both_serve(load: Loads, versions: set[str]) -> None:
    load.forget()
    wait_for(lambda: load.failed or load.versions == versions, f"answers of {versions}")


def one_serves(load: Loads, version: str) -> None:
    load.forget()
    load.reached(10)
    assert load.versions == {version}


def test_usr2_winch_term(serve):
    with Fleet(serve, versioned("old"), "--workers", "2") as fleet:
        old = fleet.server.process
        with fleet.load() as load:
            load.reached(20)
            fleet.rewrite(versioned("new"))
            with upgraded(fleet) as new:
                both_serve(load, {"old", "new"})
                old.send_signal(signal.SIGWINCH)
                wait_for(lambda: len(workers(old.pid, new)) == 0, "the old workers to leave")
                one_serves(load, "new")
                assert old.poll() is None, "it waits in case that it is needed again"
                old.send_signal(signal.SIGTERM)
                assert old.wait(20) == 0
                wait_for(lambda: read(fleet.pidfile) == new, "the pidfile to move on")
                assert not Path(f"{fleet.pidfile}.2").exists()
                one_serves(load, "new")
                # It is a manager as any other now.
                fleet.rewrite(versioned("newer"))
                done = fleet.reload()
                assert done.returncode == 0, done.stderr
                one_serves(load, "newer")
                load.finish()
                print(f"USR2, WINCH, TERM and a reload:\n{load}")
                load.check()
                os.kill(new, signal.SIGTERM)
                wait_for(lambda: not alive(new), "the end of the new manager")
        assert not fleet.pidfile.exists()
        assert not Path(fleet.server.addresses["scgi", "unix"]).exists()


def test_usr2_and_term_at_once(serve):
    """Without WINCH: the old manager leaves, and its workers with it."""
    with Fleet(serve, versioned("old"), "--workers", "2") as fleet:
        with fleet.load() as load:
            load.reached(20)
            fleet.rewrite(versioned("new"))
            with upgraded(fleet) as new:
                fleet.server.kill(signal.SIGTERM)
                assert fleet.server.process.wait(20) == 0
                wait_for(lambda: read(fleet.pidfile) == new, "the pidfile to move on")
                one_serves(load, "new")
                load.finish()
        print(f"USR2 and TERM:\n{load}")
        load.check()


def test_taken_back(serve):
    """The old workers are gone already; HUP to the old manager brings them back."""
    with Fleet(serve, versioned("old"), "--workers", "2") as fleet:
        old = fleet.server.process.pid
        with fleet.load() as load:
            load.reached(20)
            fleet.rewrite(versioned("new"))
            with upgraded(fleet) as new:
                fleet.server.kill(signal.SIGWINCH)
                wait_for(lambda: len(workers(old, new)) == 0, "the old workers to leave")
                one_serves(load, "new")
                fleet.rewrite(versioned("old again"))
                ready = len(fleet.server.workers)
                fleet.server.kill(signal.SIGHUP)
                fleet.server.wait_for_log(r"worker \d+ is ready", ready + 2)
                os.kill(new, signal.SIGTERM)
                wait_for(lambda: not alive(new), "the end of the new manager")
                one_serves(load, "old")
                wait_for(lambda: not Path(f"{fleet.pidfile}.2").exists(), "its pidfile to go")
                assert read(fleet.pidfile) == old
                assert Path(fleet.server.addresses["scgi", "unix"]).exists()
            # And the same again, to the end.
            fleet.rewrite(versioned("newer"))
            with upgraded(fleet) as new:
                fleet.server.kill(signal.SIGTERM)
                assert fleet.server.process.wait(20) == 0
                one_serves(load, "newer")
                load.finish()
        print(f"USR2, WINCH, HUP, TERM to the new one, USR2, TERM to the old one:\n{load}")
        load.check()


def test_new_code_that_does_not_start(serve):
    with Fleet(serve, versioned("old"), "--workers", "2") as fleet:
        old = fleet.server.process.pid
        workers_before = set(children(old))
        with fleet.load() as load:
            load.reached(20)
            for _ in range(2):
                since = len(fleet.server.log)
                fleet.rewrite("raise RuntimeError('this code is broken')\n")
                fleet.server.kill(signal.SIGUSR2)
                fleet.server.wait_for_log("RuntimeError: this code is broken", since=since)
                wait_for(lambda: set(children(old)) == workers_before, "the new manager to end")
                wait_for(lambda: not Path(f"{fleet.pidfile}.2").exists(), "its pidfile to go")
                assert read(fleet.pidfile) == old
                one_serves(load, "old")
            # It can still be upgraded, and reloaded.
            fleet.rewrite(versioned("new"))
            done = fleet.reload()
            assert done.returncode == 0, done.stderr
            one_serves(load, "new")
        print(f"USR2 with broken code, twice, and a reload:\n{load}")
        load.check()


def workers(manager: int, *others: int) -> set[int]:
    return set(children(manager)) - set(others)


def test_systemd_keeps_the_sockets(tmp_path):
    """Stopped and started on sockets that are never closed: what arrives meanwhile waits.

    The clients GET: when a service stops, nobody takes over nginx's kept FastCGI connections, and
    only what nginx may send again survives the end of one (docs/decisions, 6).
    """
    (tmp_path / "app.py").write_text(versioned(0))
    sockets = {}
    for name in ("http", "fastcgi", "scgi"):
        family = socket.AF_INET if name == "http" else socket.AF_UNIX
        sockets[name] = socket.socket(family, socket.SOCK_STREAM)
        address = ("127.0.0.1", 0) if name == "http" else str(tmp_path / f"{name}.sock")
        sockets[name].bind(address)
        sockets[name].listen(1024)
    words = [f"--bind={name}+systemd:{name}" for name in sockets]

    def start(number: int):
        (tmp_path / "app.py").write_text(versioned(number))
        env = {"PYTHONDONTWRITEBYTECODE": "1"}
        return activated("app:app", "--workers=2", *words, cwd=tmp_path, sockets=sockets, env=env)

    nginx = gateway = None
    try:
        nginx = Nginx({name: sockets[name].getsockname() for name in ("fastcgi", "scgi")})
        addresses = {"http": sockets["http"].getsockname(), **nginx.addresses}
        gateway = start(0)
        with Loads(addresses, clients=2, method="GET") as load:
            load.reached(20)
            for number in range(1, 4):
                assert gateway.stop() == 0
                gateway.end()
                gateway = start(number)
                load.forget()
                load.reached(20)
                assert load.versions == {str(number)}
        print(f"stopped and started 3 times:\n{load}")
        # A kept HTTP connection may close just as its next request is sent.
        assert not load.refused
        assert not [what for each in load.of.values() for what in each.lost], nginx.log
    finally:
        if gateway is not None:
            gateway.end()
        if nginx is not None:
            nginx.stop()
        for sock in sockets.values():
            sock.close()
