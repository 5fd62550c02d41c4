"""Front ends that speak TLS to the gateway, with a certificate of their own."""

import hashlib
import json
import os
import signal
import subprocess
from contextlib import contextmanager, suppress

import pytest
from clients import Http
from conftest import APPS, numbered
from fleet import NGINX, connect, free_port, program
from processes import TIMEOUT, Load, wait_for

RULES = APPS / "rules_app.py"

NGINX_SITE = """
upstream gateway {{ server 127.0.0.1:{backend}; keepalive 8; }}
server {{
    listen 127.0.0.1:{port};
    client_max_body_size 0;
    location / {{
        proxy_pass https://gateway;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $http_host;
        proxy_ssl_verify on;
        proxy_ssl_name localhost;
        proxy_ssl_trusted_certificate {authority};
        proxy_ssl_certificate {certificate};
        proxy_ssl_certificate_key {key};
    }}
}}
"""

HAPROXY = """
global
    log stderr local0 warning
defaults
    mode http
    timeout client 30s
    timeout server 30s
    timeout connect 10s
frontend web
    bind 127.0.0.1:{port}
    default_backend gateway
backend gateway
    server one 127.0.0.1:{backend} send-proxy-v2 ssl verify required ca-file {authority} verifyhost localhost crt {both}
"""  # noqa: E501 - one server is one line


@contextmanager
def front_end(name, folder, authority, backend):
    """The address of nginx or HAProxy in front of the TLS bind at port ``backend``."""
    binary = program(name)
    certificate, key = authority.issue("front", extension="extendedKeyUsage=clientAuth")
    both = folder / "both.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    values = {
        "port": free_port(), "backend": backend, "authority": authority.certificate,
        "certificate": certificate, "key": key, "both": both,
    }  # fmt: skip
    if name == "nginx":
        user = "user root root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, user=user))
        (folder / "site.conf").write_text(NGINX_SITE.format(**values))
        command = [binary, "-p", folder, "-c", "nginx.conf", "-e", "error.log"]
    else:
        (folder / "haproxy.cfg").write_text(HAPROXY.format(**values))
        command = [binary, "-f", folder / "haproxy.cfg"]
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    address = ("127.0.0.1", values["port"])

    def answers():
        assert process.poll() is None, (folder / "said").read_text()
        with suppress(OSError), connect(address):
            return True
        return False

    try:
        wait_for(answers, name)
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(TIMEOUT)


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
def test_behind_a_front_end(serve, certified, authority, tmp_path, name, threads):
    options = ["--cert-reqs", "required", "--ca-certs", str(authority.certificate)]
    if name == "haproxy":
        options += ["--proxy-protocol", "v2"]
    server = serve(RULES, "--threads", threads, *certified, *options, protocols=("https",))
    for file, size in ("empty", 0), ("small", 100), ("large", 5_000_000):
        (server.folder / file).write_bytes(numbered(size))
    backend = server.addresses["https", "tcp"][1]
    body = numbered(20_000_000)
    with front_end(name, tmp_path, authority, backend) as address:
        with Http(address) as peer:
            environ = json.loads(peer.ask("/environ").body)
            assert environ["wsgi.url_scheme"] == "'https'"
            assert environ["SSL_CLIENT_VERIFY"] == "'SUCCESS'"
            if name == "haproxy":  # it says who its client is
                assert environ["REMOTE_PORT"] == repr(str(peer.sock.getsockname()[1]))
            for chunked in (False, True):
                answer = peer.ask("/echo", method="POST", body=body, chunked=chunked)
                assert answer.whole
                assert hashlib.sha256(answer.body).digest() == hashlib.sha256(body).digest()
            for page, size in ("large", 5_000_000), ("small", 100), ("empty", 0):
                assert peer.ask(f"/file-{page}?x").body == numbered(size)
            assert peer.ask("/environ", method="HEAD").status == 200
            assert peer.ask("/file-not-modified?x").status == 304
        with Load("http", address, keep=True, target="/pid", races=False) as load:
            load.reached(200)
        assert not load.lost
        server.kill(signal.SIGHUP)
        with Load("http", address, keep=True, target="/pid", method="POST", body=b"x") as load:
            server.wait_for_log("reloaded: 1 workers")
            load.reached(100)
        assert not load.lost
    server.check()
    assert "handshake failed" not in server.log
