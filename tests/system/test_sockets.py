"""What can be listened on, who owns it, and what is refused."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from clients import PEERS, Http
from processes import GATEWAY, TIMEOUT, Gateway, environment, run, run_many, started

APP = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['SERVER_NAME']} {environ['SERVER_PORT']} {environ['REMOTE_ADDR']}".encode()]
"""

#: Executes its arguments with the sockets FDS (numbers, comma-separated) as descriptors 3, 4, ...
#: and with LISTEN_PID as systemd sets it.
ACTIVATE = """
import fcntl, os, sys
sources = [fcntl.fcntl(int(n), fcntl.F_DUPFD, 100) for n in sys.argv[1].split(",")]
for number, source in enumerate(sources, 3):
    os.dup2(source, number)
    os.close(source)
os.environ["LISTEN_FDS"] = str(len(sources))
os.environ["LISTEN_PID"] = os.environ.get("PRETENDED_PID") or str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def listening(kind: int = socket.AF_INET, address=("127.0.0.1", 0)) -> socket.socket:
    sock = socket.socket(kind, socket.SOCK_STREAM)
    sock.bind(address)
    sock.listen(16)
    return sock


def answers(protocol: str, address) -> bool:
    with PEERS[protocol](address) as peer:
        return peer.ask().status == 200


# TCP


def test_several_binds_each_with_its_own_protocol(serve):
    folder = "socket-folder"
    server = serve(
        APP + f"\nimport os\nos.makedirs({folder!r}, exist_ok=True)\n",
        "--protocol",
        "scgi",
        "--bind",
        "http://127.0.0.1:0",
        "--bind",
        "fastcgi+127.0.0.1:0",
        "--bind",
        "127.0.0.1:0",  # plain: --protocol
        "--bind",
        "unix:plain.sock",
        "--bind",
        "http+unix:http.sock",
        "--bind",
        "fastcgi+tcp://127.0.0.1:0",
    )
    assert len(server.log.split("listening: ")) == 7
    for (protocol, _), address in server.addresses.items():
        assert answers(protocol, address), (protocol, address)
    assert answers("scgi", str(server.folder / "plain.sock"))
    assert answers("http", str(server.folder / "http.sock"))


def test_ipv6(serve):
    try:
        listening(socket.AF_INET6, ("::1", 0)).close()
    except OSError:
        pytest.skip("this system has no IPv6")
    server = serve(APP, "--bind", "http+[::1]:0")
    host, port = server.addresses["http", "tcp"]
    assert host == "::1"
    with socket.create_connection((host, port), TIMEOUT) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: [::1]\r\nConnection: close\r\n\r\n")
        data = b"".join(iter(lambda: sock.recv(4096), b""))
    assert data.endswith(f"\r\n\r\n::1 {port} ::1".encode())


def test_localhost_by_name(serve):
    server = serve(APP, "--bind", "http+localhost:0")
    assert b" 127.0.0.1" in server.ask().body or server.addresses["http", "tcp"][0] == "::1"


def test_tcp_has_no_delay_for_small_answers(serve):
    """A kept FastCGI connection: Nagle against delayed acknowledgement costs 40 ms a request."""
    from time import monotonic

    server = serve(APP, protocols=["fastcgi"], kinds=["tcp"])
    with server.connect("fastcgi") as peer:
        peer.ask()
        times = []
        for _ in range(20):
            begun = monotonic()
            assert peer.ask().status == 200
            times.append(monotonic() - begun)
    assert sorted(times)[10] < 0.03


# Unix sockets


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_unix_socket_is_for_owner_and_group_by_default(serve):
    server = serve(APP, protocols=["http"], kinds=["unix"])
    assert mode_of(server.folder / "http.sock") == 0o660


def test_umask_does_not_matter(folder):
    words = ("app:app", "--bind", "unix:a.sock", "--bind", "unix:b.sock?mode=0666")
    with started(*words, cwd=folder, umask=0o077):
        assert mode_of(folder / "a.sock") == 0o660
        assert mode_of(folder / "b.sock") == 0o666


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_unix_socket_with_mode_and_owner(serve):
    server = serve(APP, "--bind", "http+unix:a.sock?mode=0666&owner=www-data&group=daemon")
    info = (server.folder / "a.sock").stat()
    assert stat.S_IMODE(info.st_mode) == 0o666
    assert info.st_uid == pwd.getpwnam("www-data").pw_uid
    assert info.st_gid == grp.getgrnam("daemon").gr_gid
    assert answers("http", str(server.folder / "a.sock"))


@pytest.mark.parametrize("what", ["owner", "group"])
def test_unknown_owner(folder, what):
    done = run("app:app", "--bind", f"unix:a.sock?{what}=nobody-at-all", cwd=folder)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "nobody-at-all" in done.stderr
    assert not (folder / "a.sock").exists()


def test_abstract_unix_socket(serve):
    name = f"gateway-test-{os.getpid()}"
    server = serve(APP, "--bind", f"fastcgi+unix:@{name}")
    assert f"listening: fastcgi on unix:@{name}" in server.log
    assert answers("fastcgi", f"\0{name}")
    assert not (server.folder / f"@{name}").exists()


def test_path_forms(serve):
    server = serve(APP, "--bind", "http+unix:relative.sock")
    assert answers("http", str(server.folder / "relative.sock"))
    path = server.folder / "absolute.sock"
    serve(APP, "--bind", f"http+unix://{path}")
    assert answers("http", str(path))


def test_stale_socket_is_replaced(folder):
    words = ("app:app", "--bind", "unix:a.sock")
    with started(*words, cwd=folder) as first:
        os.killpg(first.process.pid, signal.SIGKILL)
        first.process.wait()
        assert (folder / "a.sock").is_socket()
        with started(*words, cwd=folder):
            assert answers("http", str(folder / "a.sock"))
        assert not (folder / "a.sock").exists()


@pytest.mark.parametrize("full", [False, True], ids=["", "backlog-full"])
def test_live_socket_is_never_replaced(folder, full):
    path = str(folder / "a.sock")
    with closing(socket.socket(socket.AF_UNIX)) as owner:
        owner.bind(path)
        owner.listen(0)
        peers = []
        while full:
            peer = socket.socket(socket.AF_UNIX)
            peer.setblocking(False)
            peers.append(peer)
            try:
                peer.connect(path)
            except BlockingIOError:
                break
        inode = os.stat(path).st_ino
        done = run("app:app", "--bind", f"unix:{path}", cwd=folder)
        assert done.returncode == 1
        assert (
            done.stderr == f"gateway: cannot listen on unix:{path}: another server listens there\n"
        )
        assert os.stat(path).st_ino == inode
        for peer in peers:
            peer.close()


def test_a_file_that_is_no_socket_is_never_replaced(folder):
    (folder / "a.sock").write_text("precious")
    done = run("app:app", "--bind", "unix:a.sock", cwd=folder)
    assert done.returncode == 1
    assert "there is a file that is no socket" in done.stderr
    assert (folder / "a.sock").read_text() == "precious"


def test_socket_of_another_server_stays_when_ours_stops(folder):
    words = ("app:app", "--bind", "unix:a.sock")
    path = folder / "a.sock"
    with started(*words, cwd=folder) as first:
        path.unlink()
        with started(*words, cwd=folder) as second:
            assert first.stop() == 0
            assert path.is_socket()
            assert answers("http", str(path))
            assert second.stop() == 0
            assert not path.exists()


def test_a_failed_start_leaves_no_socket_behind(folder):
    with closing(listening()) as taken:
        port = taken.getsockname()[1]
        done = run("app:app", "--bind", "unix:a.sock", "--bind", f"127.0.0.1:{port}", cwd=folder)
    assert done.returncode == 1
    assert not (folder / "a.sock").exists()


# Inherited sockets


def test_fd(folder):
    with closing(listening()) as tcp, closing(listening(socket.AF_UNIX, str(folder / "s"))) as unix:
        words = ("--bind", f"fd://{tcp.fileno()}", "--bind", f"scgi+fd://{unix.fileno()}")
        descriptors = (tcp.fileno(), unix.fileno())
        with started("app:app", *words, cwd=folder, pass_fds=descriptors) as server:
            assert answers("http", tcp.getsockname())
            assert answers("scgi", unix.getsockname())
            assert server.stop() == 0
        # Not ours: neither removed nor closed, and what comes now waits for the next server.
        assert (folder / "s").is_socket()
        with Http(tcp.getsockname()) as early:
            early.start()
            with started("app:app", *words, cwd=folder, pass_fds=descriptors):
                assert early.answer().status == 200


def test_fd_that_is_no_listening_socket(folder):
    with open(os.devnull) as file:
        done = Gateway(
            [*GATEWAY, "app:app", "--bind", f"fd://{file.fileno()}"],
            folder,
            pass_fds=(file.fileno(),),
        )
        assert done.process.wait(TIMEOUT) == 1
        assert done.log == f"gateway: descriptor {file.fileno()} is no listening socket\n"
        done.end()


def test_descriptor_0_that_listens_speaks_fastcgi(folder):
    """As spawn-fcgi and Apache start an application (FastCGI 1.0 section 2.2)."""
    with closing(listening(socket.AF_UNIX, str(folder / "s"))) as unix:
        with started("app:app", cwd=folder, stdin=unix):
            assert answers("fastcgi", unix.getsockname())
        with started("app:app", "--protocol", "scgi", cwd=folder, stdin=unix):
            assert answers("scgi", unix.getsockname())
        # What is said wins.
        with started("app:app", "--bind", "http+unix:other", cwd=folder, stdin=unix):
            assert answers("http", str(folder / "other"))


def activated(*sockets: socket.socket, **options) -> dict:
    numbers = ",".join(str(sock.fileno()) for sock in sockets)
    return {
        "before": (sys.executable, "-c", ACTIVATE, numbers),
        # 3 and 4 are inheritable already: dup2 made them so in ACTIVATE.
        "pass_fds": tuple(sock.fileno() for sock in sockets),
        **options,
    }


def test_systemd_sockets(folder):
    with closing(listening()) as one, closing(listening()) as two:
        env = {"LISTEN_FDNAMES": "web:fcgi"}
        # By name, each with its own protocol.
        words = ("--bind", "systemd:web", "--bind", "fastcgi+systemd:fcgi")
        with started("app:app", *words, cwd=folder, **activated(one, two, env=env)) as server:
            assert answers("http", one.getsockname())
            assert answers("fastcgi", two.getsockname())
            assert server.stop() == 0
        # All of them, without a word.
        with started("app:app", "--protocol", "scgi", cwd=folder, **activated(one, two)):
            assert answers("scgi", one.getsockname())
            assert answers("scgi", two.getsockname())
        with started("app:app", "--bind", "systemd", cwd=folder, **activated(one, two)):
            assert answers("http", two.getsockname())


def test_systemd_names_that_were_not_passed(folder):
    with closing(listening()) as one:
        options = activated(one, env={"LISTEN_FDNAMES": "web"})
        before = options.pop("before")
        server = Gateway(
            [*before, *GATEWAY, "app:app", "--bind", "systemd:fcgi"], folder, **options
        )
        assert server.process.wait(TIMEOUT) == 1
        assert "systemd handed over no socket named fcgi" in server.log
        assert server.log.count("\n") == 1
        server.end()


def test_systemd_sockets_of_another_process_are_not_taken(folder):
    with closing(listening()) as one:
        options = activated(one, env={"PRETENDED_PID": "1"})
        before = options.pop("before")
        server = Gateway([*before, *GATEWAY, "app:app", "--bind", "systemd"], folder, **options)
        assert server.process.wait(TIMEOUT) == 1
        assert "systemd handed over no socket" in server.log
        server.end()


# What is refused

MALFORMED = [
    ("8000", "a port alone is written :8000"),
    ("127.0.0.1:http", "the port must be a number"),
    ("127.0.0.1:65536", "the port must be a number"),
    ("127.0.0.1:-1", "the port must be a number"),
    ("127.0.0.1:80:90", "an IPv6 address takes brackets"),
    ("::1", "an IPv6 address takes brackets"),
    ("[::1", "an IPv6 address is written [::1]:8000"),
    ("[::1]8000", "an IPv6 address is written [::1]:8000"),
    ("[]:8000", "an IPv6 address is written [::1]:8000"),
    ("unix:", "the path is missing"),
    ("fd://", "fd:// takes a number"),
    ("fd://three", "fd:// takes a number"),
    ("fd://99999999999999999999", "fd:// takes a number"),
    ("gopher+127.0.0.1:70", "there is no protocol 'gopher'; there are fastcgi, http, scgi"),
    ("https://127.0.0.1:443", "https needs certfile"),
    ("ftp://127.0.0.1:443", "there is no protocol 'ftp'"),
    ("unix:a?mode=rw", "mode=rw is no mode such as 0660"),
    ("unix:a?mode=-1", "mode=-1 is no mode such as 0660"),
    ("unix:a?mode=7777777", "mode=7777777 is no mode such as 0660"),
    ("unix:a?colour=red", "there is no option 'colour'; there are mode, owner, "),
    ("127.0.0.1:0?backlog=many", "backlog=many is no number"),
    ("127.0.0.1:0?backlog=99999999999999", "backlog=99999999999999 is no number"),
    ("127.0.0.1:0?mode=0660", "mode, owner and group are for unix:PATH only"),
]


@pytest.fixture(scope="module")
def refusals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refused")
    (folder / "app.py").write_text(APP)
    done = run_many([(["app:app", "--bind", text], folder, {}) for text, _ in MALFORMED])
    return dict(zip(MALFORMED, done, strict=True))


@pytest.mark.parametrize("case", MALFORMED, ids=[repr(text) for text, _ in MALFORMED])
def test_malformed_address(refusals, case):
    text, allowed = case
    done = refusals[case]
    assert done.returncode == 2
    assert done.stderr.startswith(f"gateway: bind is {text!r} (from command line): ")
    assert allowed in done.stderr
    assert done.stderr.count("\n") == 1
    assert not done.stdout


def test_address_in_use(folder):
    with closing(listening()) as taken:
        port = taken.getsockname()[1]
        done = run("app:app", "--bind", f"127.0.0.1:{port}", cwd=folder)
    assert done.returncode == 1
    assert done.stderr == f"gateway: cannot listen on 127.0.0.1:{port}: the address is in use\n"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("unix:/nowhere/at/all.sock", "no such file or directory"),
        ("unix:" + "a" * 120, "af_unix path too long"),
        ("192.0.2.1:0", "cannot assign requested address"),
        ("a..b:80", "that is no host name"),
    ],
)
def test_address_that_cannot_be_had(folder, address, reason):
    done = run("app:app", "--bind", address, cwd=folder)
    assert done.returncode == 1
    assert done.stderr.startswith("gateway: cannot listen on ")
    assert done.stderr.endswith(f": {reason}\n")
    assert done.stderr.count("\n") == 1


def test_no_permission(folder):
    words = [*GATEWAY, "app:app", "--bind", "unix:a.sock"]
    if os.geteuid() == 0:
        # Root without its capabilities is an owner as any other.
        if shutil.which("setpriv") is None:
            pytest.skip("setpriv is missing")
        words = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *words]
    folder.chmod(0o555)
    try:
        done = subprocess.run(
            words,
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    finally:
        folder.chmod(0o755)
    assert done.returncode == 1
    assert done.stderr == "gateway: cannot listen on unix:a.sock: permission denied\n"


def test_port_is_free_again_at_once(folder):
    """SO_REUSEADDR: connections in TIME_WAIT do not keep the next server from starting."""
    with closing(listening()) as probe:
        port = probe.getsockname()[1]
    words = ("app:app", "--bind", f"127.0.0.1:{port}")
    for _ in range(2):
        with started(*words, cwd=folder) as server:
            with Http(("127.0.0.1", port)) as peer:
                assert peer.ask(close=True).status == 200
                assert peer.closed()
            assert server.stop() == 0


def test_listening_sockets_are_not_inherited_by_programs_the_application_starts(serve):
    source = """
    import os, subprocess
    def app(environ, start_response):
        out = subprocess.run(["ls", "-l", "/proc/self/fd"], close_fds=False, capture_output=True)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [out.stdout]
    """
    server = serve(source)
    assert b"socket:" not in server.ask().body
