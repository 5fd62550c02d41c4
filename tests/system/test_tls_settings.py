"""Certificates from files: at the start, at a reload, at an upgrade, and who may read them."""

import os
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest
from clients import TIMEOUT
from processes import Load, activated, run, run_many, started, wait_for
from test_settings_of_processes import AS_NOBODY
from tls_peers import Authority, Https

APP = """
import os

def app(environ, start_response):
    start_response("200 OK", [])
    return [f"{environ['wsgi.url_scheme']} {os.getpid()}".encode()]
"""


@pytest.fixture
def pair(authority, tmp_path):
    """A certificate and its key, which the test may change."""
    for name, path in zip(("own.pem", "own.key"), authority.issue("own"), strict=True):
        shutil.copy(path, tmp_path / name)
    return tmp_path / "own.pem", tmp_path / "own.key"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def serial(server, protocol="https"):
    """Of the certificate that a new connection gets."""
    with server.connect(protocol) as peer:
        assert peer.ask("/").status == 200
        return int(peer.sock.getpeercert()["serialNumber"], 16)


def renewed(authority, pair):
    """Another certificate in the place of this one; its serial number."""
    certificate, key = authority.issue("renewed")
    shutil.copy(certificate, pair[0])
    shutil.copy(key, pair[1])
    return int(authority.text(certificate, "-serial").split("=")[1], 16)


def address(log):
    """Of the first TLS bind."""
    return ("127.0.0.1", int(log.partition("https on 127.0.0.1:")[2].split()[0]))


# What speaks TLS


@pytest.mark.parametrize(
    ("bind", "protocol"),
    [
        ("127.0.0.1:0", "https"),
        ("tcp://127.0.0.1:0", "https"),
        ("https://127.0.0.1:0", "https"),
        ("https+127.0.0.1:0", "https"),
        ("unix:s.sock", "https"),
        ("https+unix:s.sock", "https"),
        ("http://127.0.0.1:0", "http"),
        ("http+unix:s.sock", "http"),
        ("fastcgi://127.0.0.1:0", "fastcgi"),
        ("auto://127.0.0.1:0", "auto"),
    ],
)
def test_which_binds_speak_tls(serve, certified, bind, protocol):
    server = serve(APP, *certified, "--bind", bind)
    ((name, kind),) = server.addresses
    assert name == protocol
    told = "certfile is set, but no bind speaks TLS" in server.log
    assert told is (protocol != "https")
    if "unix" in bind:
        server.addresses[name, kind] = str(server.folder / "s.sock")
    if name in ("https", "http"):
        with server.connect(name, kind) as peer:
            assert peer.ask("/").body.startswith(name.encode() + b" ")


def test_sockets_of_systemd_speak_tls(folder, pair, authority):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        gateway = activated(
            "app:app", "--certfile", str(pair[0]), "--keyfile", str(pair[1]),
            cwd=folder, sockets={"web": listener},
        )  # fmt: skip
        try:
            gateway.wait_for_log("is ready")
            with Https(listener.getsockname(), context=authority.context()) as peer:
                assert peer.ask("/").body.startswith(b"https ")
        finally:
            gateway.end()


def test_one_file_may_have_both(serve, pair):
    both = pair[0].with_name("both.pem")
    both.write_bytes(pair[0].read_bytes() + pair[1].read_bytes())
    server = serve(APP, "--certfile", str(both), "--bind", "127.0.0.1:0")
    assert server.ask("https", "/").status == 200


def test_settings_of_a_gunicorn_file(folder, pair, authority):
    (folder / "gunicorn.conf.py").write_text(
        f"import ssl\nbind = '127.0.0.1:0'\ncertfile = {str(pair[0])!r}\n"
        f"keyfile = {str(pair[1])!r}\nca_certs = {str(authority.certificate)!r}\n"
        "cert_reqs = ssl.CERT_OPTIONAL\nciphers = 'ECDHE+AES256'\n"
        "ssl_version = 5\ndo_handshake_on_connect = True\nsuppress_ragged_eofs = True\n"
    )
    with started("app:app", "-c", "gunicorn.conf.py", cwd=folder) as gateway:
        for name in ("ssl_version", "do_handshake_on_connect", "suppress_ragged_eofs"):
            assert f"{name} (" in gateway.log
        assert "certfile (" not in gateway.log
        context = authority.context(maximum_version=ssl.TLSVersion.TLSv1_2)
        with Https(address(gateway.log), context=context) as peer:
            assert peer.ask("/").status == 200
            assert "AES256" in peer.sock.cipher()[0]
        context.set_ciphers("ECDHE+AES128")
        with pytest.raises(ssl.SSLError, match=r"(?i)handshake.failure"):
            Https(address(gateway.log), context=context)


def test_paths_are_those_of_chdir(folder, pair):
    (folder / "site").mkdir()
    shutil.move(folder / "app.py", folder / "site" / "app.py")
    shutil.move(pair[0], folder / "site" / "own.pem")
    words = ["--chdir", "site", "--certfile", "own.pem", "--keyfile", str(pair[1])]
    done = run("app:app", *words, "--check-config", cwd=folder)
    assert (done.returncode, done.stdout) == (0, "the configuration is good\n"), done.stderr
    with (
        started("app:app", *words, "--bind", "127.0.0.1:0", cwd=folder) as gateway,
        Https(address(gateway.log)) as peer,
    ):
        assert peer.ask("/").status == 200


# What is wrong with them


def _corrupted(path: Path) -> None:
    lines = path.read_text().splitlines()
    lines[2] = lines[2][::-1]
    path.write_text("\n".join(lines) + "\n")


def _with_passphrase(path: Path) -> None:
    out = path.with_suffix(".new")
    Authority._openssl("pkey", "-in", path, "-aes256", "-passout", "pass:secret", "-out", out)
    out.rename(path)


WRONG = {
    "no certificate": (["--certfile", "none.pem"], None,
                       "certfile is 'none.pem' (from command line): No such file or directory"),
    "a folder": (["--certfile", "."], None, "certfile is '.' (from command line): Is a directory"),
    "no key": (["--certfile", "own.pem", "--keyfile", "none.key"], None, "keyfile is 'none.key'"),
    "no key within": (["--certfile", "own.pem"], None,
                      "certfile is 'own.pem' (from command line): a private key in PEM form is"),
    "the other way round": (["--certfile", "own.key", "--keyfile", "own.pem"], None,
                            "a certificate in PEM form is missing in it"),
    "another key": (["--certfile", "own.pem", "--keyfile", "server.key"], None,
                    "(from command line): the private key is not that of the certificate"),
    "a broken certificate": (["--certfile", "own.pem", "--keyfile", "own.key"],
                             lambda folder: _corrupted(folder / "own.pem"),
                             "certfile is 'own.pem' (from command line): "),
    "a passphrase": (["--certfile", "own.pem", "--keyfile", "own.key"],
                     lambda folder: _with_passphrase(folder / "own.key"),
                     "the private key has a passphrase, which nobody would give"),
    "no authority": (["--certfile", "own.pem", "--keyfile", "own.key", "--ca-certs", "none"], None,
                     "ca_certs is 'none' (from command line): No such file or directory"),
    "an authority that is none": (
        ["--certfile", "own.pem", "--keyfile", "own.key", "--ca-certs", "own.key"], None,
        "ca_certs is 'own.key' (from command line): a certificate in PEM form is missing in it"),
    "nobody who could verify": (
        ["--certfile", "own.pem", "--keyfile", "own.key", "--cert-reqs", "required"], None,
        "cert_reqs is 'required' (from command line): it needs certfile and ca_certs"),
    "a number": (["--certfile", "own.pem", "--keyfile", "own.key", "--cert-reqs", "3"], None,
                 "cert_reqs is '3' (from command line): allowed are none, optional, required"),
    "ciphers": (["--certfile", "own.pem", "--keyfile", "own.key", "--ciphers", "ROT13"], None,
                "ciphers is 'ROT13' (from command line): OpenSSL knows none of these"),
    "a key alone": (["--keyfile", "own.key"], None,
                    "keyfile is 'own.key' (from command line): it needs certfile"),
    "https alone": (["--bind", "https://127.0.0.1:0"], None,
                    "bind is 'https://127.0.0.1:0' (from command line): https needs certfile"),
    "cgi": (["--certfile", "own.pem", "--keyfile", "own.key", "--protocol", "cgi"], None,
            "certfile is 'own.pem' (from command line): with protocol = cgi a web server"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_one_line(folder, pair, authority, case):
    words, change, message = WRONG[case]
    shutil.copy(authority.issue("server")[1], folder / "server.key")
    if change is not None:
        change(folder)
    checks = ([], ["--check-config"])[: 1 + (case != "cgi")]
    for done in run_many([(["app:app", *words, *check], folder, {}) for check in checks]):
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith("gateway: ")
        assert done.stderr.count("\n") == 1
        assert message in done.stderr
    assert not pair[0].exists() or pair[0].stat().st_size


def test_a_list_of_clients_that_nobody_is_compared_with(serve, certified, authority):
    server = serve(APP, *certified, "--ca-certs", str(authority.certificate), "--bind", "[::1]:0",
                   "--bind", "127.0.0.1:0")  # fmt: skip
    assert "ca_certs is set, but cert_reqs is none" in server.log


# Reload and upgrade


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["forked", "preloaded"])
def test_a_reload_reads_the_certificate_again(serve, authority, pair, preload):
    options = ("--workers", "2", "--certfile", str(pair[0]), "--keyfile", str(pair[1]))
    server = serve(APP, *options, *preload, protocols=("https", "http"))
    before = serial(server)
    kept = server.connect("https")
    assert kept.ask("/").status == 200
    expected = renewed(authority, pair)
    assert serial(server) == before != expected  # until somebody says so
    server.kill(signal.SIGHUP)
    server.wait_for_log("reloaded: 2 workers")
    server.wait_for_log(r"worker \d+ left", 1)
    for _ in range(8):
        assert serial(server) in (before, expected)
    wait_for(lambda: serial(server) == expected, "the new certificate")
    answer = kept.ask("/")  # the old worker still owes it one
    assert answer.status == 200
    assert answer.get("connection") == "close"
    wait_for(lambda: len(set(_pids(server))) == 2, "both new workers")
    assert {serial(server) for _ in range(8)} == {expected}
    assert server.ask("http", "/").body.startswith(b"http ")


def _pids(server):
    return [server.ask("https", "/").body for _ in range(8)]


def test_a_reload_with_a_bad_certificate_is_refused(serve, authority, pair):
    """Nothing changes, as often as it is tried; a good one then counts."""
    server = serve(
        APP, "--certfile", str(pair[0]), "--keyfile", str(pair[1]),
        "--pidfile", "gateway.pid", protocols=("https",),
    )  # fmt: skip
    before, whole = serial(server), pair[0].read_bytes()
    workers = len(server.workers)
    other = authority.issue("other")[0].read_bytes()
    for content, reason in (
        (None, "No such file or directory"),
        (b"", "a certificate in PEM form is missing in it"),
        (whole[:200], "certfile is "),
        (other, "the private key is not that of the certificate"),
    ):
        if content is None:
            pair[0].unlink()
        else:
            pair[0].write_bytes(content)
        since = len(server.log)
        done = run("reload", "--pidfile", "gateway.pid", cwd=server.folder)
        assert done.returncode == 1
        assert reason in done.stderr
        server.wait_for_log(f"reload refused, the old settings stay: .*{reason}", since=since)
        assert serial(server) == before
    assert len(server.workers) == workers
    expected = renewed(authority, pair)
    assert run("reload", "--pidfile", "gateway.pid", cwd=server.folder).returncode == 0
    wait_for(lambda: serial(server) == expected, "the new certificate")


def test_a_certificate_that_comes_or_goes_waits_for_an_upgrade(serve, pair):
    with_it = f"certfile = '{pair[0]}'\nkeyfile = '{pair[1]}'\n"
    for first, then, protocol in ((with_it, "", "https"), ("", with_it, "http")):
        server = serve(
            APP, "-c", "g.toml", "--bind", "127.0.0.1:0", files={"g.toml": first}
        )  # fmt: skip
        (server.folder / "g.toml").write_text(then)
        server.kill(signal.SIGHUP)
        server.wait_for_log("a reload does not change certfile: upgrade")
        server.wait_for_log("reloaded: 1 workers")
        assert server.ask(protocol, "/").body.startswith(protocol.encode() + b" ")


def test_an_upgrade_takes_the_sockets_and_reads_the_certificate_again(serve, authority, pair):
    server = serve(
        APP, "--certfile", str(pair[0]), "--keyfile", str(pair[1]), protocols=("https", "http")
    )
    expected = renewed(authority, pair)
    since = len(server.log)
    server.kill(signal.SIGUSR2)
    server.wait_for_log(r"worker \d+ is ready", since=since)
    (successor,) = server.wait_for_log(r"manager (\d+) starts beside this one", since=since)
    server.kill(signal.SIGTERM)
    try:
        wait_for(lambda: server.process.poll() is not None, "the end of the old manager")
        for _ in range(4):
            assert serial(server) == expected
        assert server.ask("http", "/").body.startswith(b"http ")
    finally:
        os.kill(int(successor), signal.SIGTERM)
        assert server.errors.wait_for_end(TIMEOUT)


@pytest.mark.parametrize("keep", [True, False], ids=["kept", "closed"])
@pytest.mark.parametrize("threads", ["1", "4"], ids=["inline", "pool"])
def test_reloads_under_load_lose_nothing(serve, certified, keep, threads):
    server = serve(
        APP, "--workers", "2", "--threads", threads, *certified, protocols=("https",)
    )  # fmt: skip
    with Load("https", server.addresses["https", "tcp"], keep=keep) as load:
        for count in range(1, 4):
            load.reached(50)
            server.kill(signal.SIGHUP)
            server.wait_for_log("reloaded: 2 workers", count)
        load.reached(50)
    assert not load.lost
    assert not load.refused


@pytest.mark.parametrize("threads", ["1", "4"], ids=["inline", "pool"])
def test_a_stop_answers_what_was_asked(serve, certified, threads):
    server = serve(APP, "--threads", threads, *certified, protocols=("https",))
    with Load("https", server.addresses["https", "tcp"], keep=False) as load:
        load.reached(100)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(TIMEOUT) == 0
    assert not [what for what in load.lost if "connect" not in what and "handshake" not in what]


# Rank


def let_all_in(folder):
    """Into this folder, and into those above it that only its owner may enter."""
    for place in takewhile(
        lambda place: not place.stat().st_mode & 0o001, [folder, *folder.parents]
    ):
        place.chmod(0o755)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["forked", "preloaded"])
def test_a_key_that_only_root_may_read(folder, pair, preload):
    """The manager reads it, at the start and at a reload; the workers have no need to."""
    nobody = pwd.getpwnam("nobody")
    let_all_in(folder)
    pair[0].chmod(0o600)
    pair[1].chmod(0o600)
    (folder / "app.py").write_text(APP.replace("os.getpid()", "os.geteuid()"))
    words = ("--user", "nobody", "--certfile", "own.pem", "--keyfile", "own.key", *preload)
    with started("app:app", *words, "--bind", "127.0.0.1:0", cwd=folder) as gateway:
        for count in (1, 2):
            with Https(address(gateway.log)) as peer:
                assert peer.ask("/").body == f"https {nobody.pw_uid}".encode()
            gateway.process.send_signal(signal.SIGHUP)
            gateway.wait_for_log("reloaded: ", count)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_key_that_may_not_be_read_is_said(folder, pair):
    let_all_in(folder)
    pair[1].chmod(0o600)
    words = ("app:app", "--certfile", "own.pem", "--keyfile", "own.key", "--check-config")
    command = [sys.executable, "-c", "import ssl\n" + AS_NOBODY, *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "keyfile is 'own.key' (from command line): Permission denied" in done.stderr


def test_openssl_is_not_loaded_where_it_is_not_used():
    code = "import sys, gateway.cli, gateway.manager; sys.exit('ssl' in sys.modules)"
    assert os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-c", code]) == 0
