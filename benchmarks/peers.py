"""The servers that are compared: one context manager each, yielding (pid, port of the load)."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path

from benchmarks.app import BODY
from benchmarks.process import (
    LOAD_CORES,
    SERVER_CORES,
    connects,
    free_port,
    python,
    running,
)

APP = "benchmarks.app:app"

#: What nginx's own scgi_params and fastcgi_params pass on.
_BOTH = """
QUERY_STRING $query_string
REQUEST_METHOD $request_method
CONTENT_TYPE $content_type
REQUEST_URI $request_uri
DOCUMENT_URI $document_uri
DOCUMENT_ROOT $document_root
SERVER_PROTOCOL $server_protocol
REQUEST_SCHEME $scheme
REMOTE_ADDR $remote_addr
REMOTE_PORT $remote_port
SERVER_PORT $server_port
SERVER_NAME $server_name
"""
_PARAMS = {
    "scgi": _BOTH + "SCGI 1",
    "fastcgi": _BOTH
    + """
CONTENT_LENGTH $content_length
SCRIPT_NAME $fastcgi_script_name
GATEWAY_INTERFACE CGI/1.1
SERVER_SOFTWARE nginx/$nginx_version
SERVER_ADDR $server_addr
REDIRECT_STATUS 200
""",
}

_NGINX = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    {temporary}
    upstream app {{
        server unix:{path} max_fails=0;
        {keepalive}
    }}
    server {{
        listen 127.0.0.1:{port};
        server_name localhost;
        location / {{
            {params}
            {kind}_pass app;
            {keep}
        }}
    }}
}}
"""


@dataclass
class Peer:
    """A server of a scenario; ``{port}`` or ``{path}`` in its arguments is where it listens."""

    name: str
    protocol: str
    module: str
    arguments: list[str] = field(default_factory=list)

    @contextmanager
    def serving(self):
        """Yield the server's pid and the TCP port that takes HTTP."""
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            port = free_port()
            path = f"{folder}/app.sock"
            arguments = [x.format(port=port, path=path) for x in self.arguments]
            address = ("127.0.0.1", port) if self.protocol == "http" else path
            command = python(self.module, *arguments)
            with running(command, SERVER_CORES, connects(address), folder) as pid:
                if self.protocol == "http":
                    _check(port, folder)
                    yield pid, port
                else:
                    with _nginx(self.protocol, path, folder) as front:
                        _check(front, folder)
                        yield pid, front


def _check(port, folder):
    """Only a server that answers the application's bytes is worth a measurement."""
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/")
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != 200 or body != BODY:
        logs = "\n".join(x.read_text(errors="replace")[-1000:] for x in Path(folder).glob("*log"))
        raise RuntimeError(f"wrong answer: {answer.status} {body[:200]!r}\n{logs}")


@contextmanager
def _nginx(protocol, path, folder):
    keepalive = keep = ""
    if protocol == "fastcgi":
        keepalive = "keepalive 64; keepalive_requests 1000000000;"
        keep = "fastcgi_keep_conn on;"
    port = free_port()
    config = Path(folder) / "nginx.conf"
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    params = "".join(f"{protocol}_param {x};\n" for x in _PARAMS[protocol].split("\n") if x)
    temporary = "".join(f"{x}_temp_path {folder}/temp;" for x in kinds)
    config.write_text(
        _NGINX.format(
            folder=folder,
            path=path,
            port=port,
            kind=protocol,
            keepalive=keepalive,
            keep=keep,
            temporary=temporary,
            params=params,
        )
    )
    command = ["nginx", "-p", folder, "-c", str(config), "-e", f"{folder}/nginx.log"]
    with running(command, LOAD_CORES, connects(("127.0.0.1", port)), folder):
        yield port


def _threads(count):
    return "1 thread" if count == 1 else f"{count} threads"


def gateway(protocol, threads, *more):
    bind = "127.0.0.1:{port}" if protocol == "http" else f"{protocol}+unix:{{path}}?mode=0666"
    return Peer(
        f"gateway, {_threads(threads)}", protocol, "gateway",
        [APP, "--bind", bind, "--workers", "1", "--threads", str(threads), *more],
    )  # fmt: skip


def granian():
    return Peer(
        "granian, 1 blocking thread", "http", "granian",
        ["--interface", "wsgi", "--host", "127.0.0.1", "--port", "{port}", "--workers", "1",
         "--blocking-threads", "1", APP],
    )  # fmt: skip


def gunicorn(worker, threads, *more):
    name = f"gunicorn {worker}" + (f", {_threads(threads)}" if worker == "gthread" else "")
    return Peer(
        name, "http", "gunicorn",
        ["--bind", "127.0.0.1:{port}", "--workers", "1", "--worker-class", worker,
         "--threads", str(threads), "--keep-alive", "75", *more, APP],
    )  # fmt: skip


def flup(protocol, *, log=True):
    """flup as it comes; for SCGI that logs every request, which ``log=False`` turns off."""
    name = "flup" if log else "flup, its log off"
    words = [protocol, "{path}"] if log else [protocol, "{path}", "quiet"]
    return Peer(name, protocol, "benchmarks.flup_server", words)
