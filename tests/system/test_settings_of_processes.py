"""Settings of processes: whom they run as, what they are called, what they find around them."""

from __future__ import annotations

import grp
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from clients import Http
from processes import TIMEOUT, children, run, started, wait_for

#: Tells what the worker is, and what it was when the application was imported.
APP = """
import json
import os

AT_IMPORT = dict(os.environ)

def app(environ, start_response):
    mask = os.umask(0)
    os.umask(mask)
    name = environ["PATH_INFO"].strip("/")
    if name:
        open(name, "w").close()
    start_response("200 OK", [("Content-Type", "application/json")])
    found = {
        "pid": os.getpid(),
        "environ": AT_IMPORT,
        "uids": os.getresuid(),
        "gids": os.getresgid(),
        "groups": sorted(os.getgroups()),
        "umask": mask,
    }
    return [json.dumps(found).encode()]
"""
SOCKET = "app.sock"
WORDS = ("app", "--bind", f"unix:{SOCKET}")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def user_and_group() -> tuple[str, str]:
    """A user, and a group that is not its own."""
    user = pwd.getpwnam("nobody")
    other = next(group for group in grp.getgrall() if group.gr_gid not in (0, user.pw_gid))
    return user.pw_name, other.gr_name


@pytest.fixture
def folder():
    """A folder with the application that any user may enter."""
    path = Path(tempfile.mkdtemp(prefix="gw-"))
    path.chmod(0o755)
    (path / "app.py").write_text(APP)
    yield path
    shutil.rmtree(path)


def asked(folder: Path, target: str = "/") -> dict:
    with Http(str(folder / SOCKET)) as peer:
        answer = peer.ask(target)
    assert answer.status == 200, answer
    return json.loads(answer.body)


def name_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def owner(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_uid, found.st_gid


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# user and group


@needs_root
@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["worker", "template"])
def test_workers_are_the_user_and_cannot_go_back(folder, options):
    user, group = user_and_group()
    entry = pwd.getpwnam(user)
    number = grp.getgrnam(group).gr_gid
    for words, gid in (
        (("--user", user), entry.pw_gid),
        (("-u", str(entry.pw_uid)), entry.pw_gid),
        (("-u", user, "-g", group), number),
        (("-u", str(entry.pw_uid), "--group", str(number)), number),
        # A number that no user has.
        (("-u", "54321", "-g", str(number)), number),
    ):
        with started(*WORDS, *words, *options, cwd=folder) as server:
            found = asked(folder)
            uid = 54321 if "54321" in words else entry.pw_uid
            assert found["uids"] == [uid] * 3
            assert found["gids"] == [gid] * 3
            assert found["groups"] == [gid]
            status = Path(f"/proc/{found['pid']}/status").read_text()
            assert [line.split()[1] for line in status.splitlines() if line[:6] == "CapEff"] == [
                "0" * 16
            ]
            # The manager stays what it is.
            assert os.stat(f"/proc/{server.process.pid}").st_uid == 0
            assert owner(folder / SOCKET) == (uid, gid)
            assert server.stop() == 0


@needs_root
def test_a_group_alone_changes_nothing_else(folder):
    group = user_and_group()[1]
    number = grp.getgrnam(group).gr_gid
    with started(*WORDS, "--group", group, cwd=folder):
        found = asked(folder)
        assert (found["uids"], found["gids"], found["groups"]) == ([0] * 3, [number] * 3, [number])
        assert owner(folder / SOCKET) == (0, number)


@needs_root
def test_a_bind_that_names_its_owner_keeps_it(folder):
    user, group = user_and_group()
    words = ("app", "--bind", f"unix:{SOCKET}?mode=0640&group={group}", "--user", user)
    with started(*words, cwd=folder):
        asked(folder)
        assert owner(folder / SOCKET) == (0, grp.getgrnam(group).gr_gid)
        assert mode(folder / SOCKET) == 0o640


@needs_root
def test_logs_belong_to_the_user_also_when_they_are_opened_again(folder):
    """The folder does not: no worker could make a file in it."""
    user = user_and_group()[0]
    entry = pwd.getpwnam(user)
    logs = folder / "logs"
    logs.mkdir(mode=0o755)
    words = ("--accesslog", "logs/access", "--errorlog", "logs/error", "--user", user)
    files = [logs / "access", logs / "error"]
    server = subprocess.Popen(
        [sys.executable, "-m", "gateway", *WORDS, *words], cwd=folder, start_new_session=True
    )
    try:
        wait_for(lambda: files[1].exists() and "is ready" in files[1].read_text(), "a worker")
        for turn in range(2):
            asked(folder)
            with Http(str(folder / SOCKET)) as peer:
                peer.send(b"nonsense\r\n\r\n")  # the worker logs it
                peer.until(b"\r\n\r\n")
            wait_for(lambda: files[0].read_text().count("GET / HTTP/1.1") == 1, "an access")
            wait_for(lambda: "malformed" in files[1].read_text(), files[1].read_text())
            for file in files:
                assert owner(file) == (entry.pw_uid, entry.pw_gid)
            if turn == 0:
                for file in files:
                    file.rename(f"{file}.1")
                server.send_signal(signal.SIGUSR1)
                wait_for(lambda: all(file.exists() for file in files), "new files")
                # A worker has its own descriptor of it.
                worker = asked(folder, "/?worker")["pid"]  # not counted: its line may come late
                wait_for(
                    lambda worker=worker: str(files[0]) in map(os.readlink, _links(worker)),
                    "the worker to follow",
                )
                (logs / "access").write_text("")
    finally:
        server.send_signal(signal.SIGTERM)
        assert server.wait(TIMEOUT) == 0


def _links(pid: int) -> list[str]:
    return [f"/proc/{pid}/fd/{name}" for name in os.listdir(f"/proc/{pid}/fd")]


def test_a_user_that_there_is_not(folder):
    for words, expected in (
        (("--user", "nosuchuser"), "user is 'nosuchuser': there is no such user"),
        (("--group", "nosuchgroup"), "group is 'nosuchgroup': there is no such group"),
        (("--user", "54321"), "user is '54321': no user has this number, so `group` must be set"),
    ):
        done = run(*WORDS, *words, cwd=folder)
        assert done.returncode == 2
        assert expected in done.stderr
        assert done.stderr.count("\n") == 1
        assert not (folder / SOCKET).exists()


#: Becomes another user after the imports: the interpreter may be where only root can read it.
AS_NOBODY = """
import os, pwd, sys
import encodings.idna, gateway.cli
entry = pwd.getpwnam("nobody")
os.setgroups([])
os.setgid(entry.pw_gid)
os.setuid(entry.pw_uid)
gateway.cli.main(sys.argv[1:])
"""


@needs_root
def test_another_user_needs_root(folder):
    def run_as_nobody(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", AS_NOBODY, "app", "--bind", "127.0.0.1:0", *words]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

    done = run_as_nobody("--user", "root")
    expected = "only root can run workers as another user, and this process is nobody"
    assert (done.returncode, done.stderr) == (2, f"gateway: user is 'root': {expected}\n")
    # To become who one is already needs nothing.
    done = run_as_nobody("--user", "nobody", "--check-config")
    assert done.returncode == 0, done.stderr


# umask


@pytest.mark.parametrize("mask", ["027", "0o077", "0"])
def test_umask(folder, mask):
    with started(*WORDS, "-m", mask, "--pidfile", "pid", cwd=folder):
        assert asked(folder, "/made")["umask"] == int(mask, 8)
        assert mode(folder / "made") == 0o666 & ~int(mask, 8)
        assert mode(folder / "pid") == 0o666 & ~int(mask, 8)
        # A socket's mode is a setting of its own.
        assert mode(folder / SOCKET) == 0o660


# raw_env


def test_raw_env_is_there_before_the_import(folder):
    words = ("-e", "FIRST=1", "--env", "SECOND=a=b,c")
    with started(*WORDS, *words, cwd=folder, env={"FIRST": "0"}):
        environ = asked(folder)["environ"]
        assert (environ["FIRST"], environ["SECOND"]) == ("1", "a=b,c")


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["worker", "template"])
def test_a_reload_brings_another_raw_env(folder, options):
    file = folder / "gateway.toml"
    file.write_text('raw_env = ["NAME=old"]\n')
    with started(*WORDS, *options, cwd=folder) as server:
        assert asked(folder)["environ"]["NAME"] == "old"
        file.write_text('raw_env = ["NAME=new"]\n')
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("reloaded: 1 workers")
        assert asked(folder)["environ"]["NAME"] == "new"


def test_raw_env_sets_nothing_of_the_gateway(folder):
    """A reload reads the environment that the gateway was started with."""
    (folder / "gateway.toml").write_text('raw_env = ["GATEWAY_WORKERS=0"]\n')
    with started(*WORDS, cwd=folder) as server:
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("reloaded: 1 workers")


def test_check_config_imports_with_raw_env(folder):
    (folder / "needy.py").write_text("import os\nos.environ['NEEDED']\n" + APP)
    assert run("needy", "--check-config", cwd=folder).returncode == 3
    assert run("needy", "--check-config", "-e", "NEEDED=1", cwd=folder).returncode == 0


# proc_name


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("words", "names"),
    [
        ((), ("app master", "app worker")),
        (("-n", "shop"), ("shop master", "shop worker")),
        (("--name", "a very long name"), ("a very l master", "a very l worker")),
    ],
)
def test_proc_name(folder, words, names):
    try:
        import setproctitle  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("setproctitle replaces the whole command line")
    with started(*WORDS, *words, cwd=folder) as server:
        pid = server.process.pid
        assert (name_of(pid), *map(name_of, children(pid))) == names


# Where the application is


def test_a_reload_follows_the_link_that_a_deploy_moves(folder):
    """The same command line, in the folder by its name, loads what the name means now."""
    for name in ("one", "two"):
        release = folder / name
        release.mkdir()
        (release / "site_of_release.py").write_text(
            APP.replace("dict(os.environ)", f"{{'RELEASE': '{name}'}}")
        )
    (folder / "current").symlink_to("one")
    current = folder / "current"
    words = ("site_of_release", "--bind", f"unix:{folder}/{SOCKET}")
    with started(*words, cwd=current, env={"PWD": str(current)}) as server:
        assert asked(folder)["environ"]["RELEASE"] == "one"
        (folder / "next").symlink_to("two")
        (folder / "next").rename(current)
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("reloaded: 1 workers")
        assert asked(folder)["environ"]["RELEASE"] == "two"
        # A worker that replaces another one runs what that one ran.
        current.unlink()
        os.kill(children(server.process.pid)[0], signal.SIGKILL)
        server.wait_for_log("is ready", 3)
        assert asked(folder)["environ"]["RELEASE"] == "two"
