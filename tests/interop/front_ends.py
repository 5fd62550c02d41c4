"""Boots real web servers with the files of deploy/ and the gateway behind them.

The files are used as they are; only what they call "yours to change" is replaced: the port that
is listened on and the address of the gateway.  Servers start when a test first asks for them,
are shared by all tests and are stopped by process id at the end.
"""

import contextlib
import grp
import http.client
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
DEPLOY = TESTS.parent / "deploy"
APPS = TESTS / "apps"

PROTOCOLS = ("http", "fastcgi", "scgi", "uwsgi")
TRANSPORTS = ("tcp", "unix")
MOUNTS = {"root": "", "prefix": "/app"}

SOCKET_IN_FILES = "unix:/run/gateway/app.sock"
ADDRESS_IN_FILES = {
    "http": "127.0.0.1:8000",
    "fastcgi": "127.0.0.1:9000",
    "scgi": "127.0.0.1:4000",
    "uwsgi": "127.0.0.1:3031",
}
#: What the files listen on, and how that is written with another port.
LISTEN_IN_FILES = {
    "nginx": {"listen 8080;": "listen 127.0.0.1:{};"},
    "apache": {
        "Listen 8080\n": "Listen 127.0.0.1:{}\n",
        "<VirtualHost *:8080>": "<VirtualHost *:{}>",
    },
}

#: How files that are not called ".conf" end.
SUFFIXES = {"haproxy": "cfg", "caddy": "caddyfile"}

#: The Host that raw requests name: the port of the files, not that of the test.
HOST = "example.org:8080"

NGINX = """\
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
    include {folder}/site.conf;
}}
"""

APACHE = """\
ServerRoot {folder}
ServerName localhost
DefaultRuntimeDir {folder}
PidFile {folder}/apache.pid
Mutex file:{folder} default
ErrorLog {folder}/error.log
{user}
{modules}
ServerLimit 1
ThreadsPerChild 64
MaxRequestWorkers 64
<Directory />
    Require all denied
</Directory>
<Directory /var/www/>
    Require all granted
</Directory>
Include {folder}/site.conf
"""

APACHE_MODULES = Path("/etc/apache2/mods-available")
#: What a fresh installation of Debian's package has enabled.
APACHE_DEFAULT_MODULES = (
    "access_compat alias auth_basic authn_core authn_file authz_core authz_host authz_user "
    "autoindex deflate dir env filter mime mpm_event negotiation reqtimeout setenvif"
).split()


@dataclass(frozen=True)
class Way:
    """One way from the client to the application."""

    server: str
    protocol: str
    transport: str
    mount: str

    def __str__(self):
        return f"{self.server}-{self.protocol}-{self.transport}-{self.mount}"

    @property
    def file(self):
        suffix = SUFFIXES.get(self.server, "conf")
        return DEPLOY / self.server / f"{self.protocol}-{self.transport}-{self.mount}.{suffix}"

    @property
    def prefix(self):
        return MOUNTS[self.mount]


FILES = [
    Way(server, protocol, transport, mount)
    for server in LISTEN_IN_FILES
    for protocol in PROTOCOLS
    for transport in TRANSPORTS
    for mount in MOUNTS
]
DIRECT = [Way("direct", "http", transport, mount) for transport in TRANSPORTS for mount in MOUNTS]
WAYS = DIRECT + FILES


@dataclass
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name):
        return [value for known, value in self.headers if known.lower() == name.lower()]

    def one(self, name):
        (value,) = self.all(name)
        return value

    def json(self):
        return json.loads(self.body)


@dataclass(frozen=True)
class Site:
    """Where a client finds the application at the end of one way."""

    way: Way
    address: tuple[str, int] | str

    @property
    def url(self):
        host, port = self.address
        return f"http://{host}:{port}{self.way.prefix}"

    def connect(self):
        return connect(self.address)

    def send(self, target="/", *, app="environ", method="GET", headers=(), body=b"", chunks=None):
        """Send a request, each byte as given, for ``target`` below the mount."""
        lines = [f"{method} {self.way.prefix + target or '/'} HTTP/1.1", f"Host: {HOST}"]
        lines += [f"X-App: {app}", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in headers]
        if chunks is not None:
            lines.append("Transfer-Encoding: chunked")
            body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""])
        elif body or method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        connection = self.connect()
        head = "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
        # A server may refuse before it has read everything; its answer tells.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(head)
            connection.sendall(body)
        return connection

    def ask_raw(self, request, method="GET"):
        with self.connect() as connection:
            connection.sendall(request.encode("latin-1"))
            return receive(connection, method)

    def ask(self, target="/", *, method="GET", **request):
        """Send a request and read the answer to its end."""
        with self.send(target, method=method, **request) as connection:
            return receive(connection, method)


def connect(address):
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM)
    connection.settimeout(30)
    try:
        connection.connect(address)
    except OSError:
        connection.close()
        raise
    return connection


def receive(connection, method="GET"):
    response = http.client.HTTPResponse(connection, method=method)
    response.begin()
    return Answer(response.status, response.getheaders(), response.read())


#: What has been given out: it may not be bound yet.
_ports = set()


def free_port():
    """Never the same again, nor one that the system gives to connections."""
    while True:
        port = random.randrange(10_000, 32_768)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _ports:
                _ports.add(port)
                return port


def program(*names):
    """The path of the first of these programs that is installed, or skip: never skip in CI."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    for name in names:
        if found := shutil.which(name, path=path):
            return found
    message = f"{names[0]} is not installed"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def apache_modules(names):
    """What loads these modules, as Debian has it; skip if one is not installed."""
    lines = []
    for name in names:
        if not (APACHE_MODULES / f"{name}.load").exists():
            program(f"libapache2-mod-{name}")
        files = (APACHE_MODULES / f"{name}.{suffix}" for suffix in ("load", "conf"))
        lines += [f"Include {file}" for file in files if file.exists()]
    return "\n".join(lines)


def web_group():
    """The group under which the web servers run and may use the gateway's sockets."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return grp.getgrnam("www-data").gr_name
    return grp.getgrgid(0).gr_name


def site_configuration(way, port, backend):
    """The file of deploy/ for this way, listening on ``port``, with ``backend`` as the gateway."""
    if way.transport == "unix":
        replacements = {SOCKET_IN_FILES: f"unix:{backend}"}
    else:
        replacements = {ADDRESS_IN_FILES[way.protocol]: f"127.0.0.1:{backend[1]}"}
    for old, new in LISTEN_IN_FILES[way.server].items():
        replacements[old] = new.format(port)
    return replaced(way.file, replacements)


def replaced(file, replacements):
    """The text of a file of deploy/ with what is yours to change replaced."""
    text = file.read_text()
    for old, new in replacements.items():
        directives = re.sub(r"(?m)^\s*#.*$", "", text)
        assert old in directives, f"{file.name} does not contain {old!r}"
        text = text.replace(old, new)
    return text


@dataclass
class Gateway:
    """A gateway and its binds: (protocol, transport) → address."""

    addresses: dict[tuple[str, str], tuple[str, int] | str]
    command: list[str]
    folder: Path
    process: subprocess.Popen | None = None


@dataclass
class Servers:
    """Everything that runs for these tests."""

    folder: Path
    sites: dict[Way, Site] = field(default_factory=dict)
    gateways: dict[tuple, Gateway] = field(default_factory=dict)
    processes: list[tuple[str, subprocess.Popen, Path]] = field(default_factory=list)

    def site(self, way, *options):
        """The site at the end of ``way``; ``options`` go to the gateway."""
        key = (way, options)
        if key not in self.sites:
            addresses = self.gateway(way.mount, *options).addresses
            backend = addresses.get((way.protocol, way.transport))  # none: it starts its own
            self.sites[key] = Site(way, BOOTS[way.server](self, way, backend))
        return self.sites[key]

    def gateway(self, mount, *options):
        """One gateway for each mount, with a bind for each protocol and transport."""
        key = (mount, options)
        if key not in self.gateways:
            folder = self.new_folder("gateway")
            addresses, binds = {}, []
            for protocol in PROTOCOLS:
                addresses[protocol, "tcp"] = ("127.0.0.1", free_port())
                addresses[protocol, "unix"] = str(folder / f"{protocol}.sock")
                binds.append(f"--bind={protocol}://127.0.0.1:{addresses[protocol, 'tcp'][1]}")
                # As deploy/ advises: with the group of the web server, mode 0660 lets it in.
                query = f"?group={web_group()}" if web_group() else ""
                binds.append(f"--bind={protocol}+unix:{addresses[protocol, 'unix']}{query}")
            command = [sys.executable, "-m", "gateway", "interop_app:application", *binds]
            command += ["--workers=2", "--threads=4", f"--script-name={MOUNTS[mount]}", *options]
            gateway = self.gateways[key] = Gateway(addresses, command, folder)
            self.start_gateway(gateway)
        return self.gateways[key]

    def start_gateway(self, gateway):
        addresses = gateway.addresses.values()
        self.start("gateway", gateway.command, gateway.folder, addresses, cwd=APPS)
        gateway.process = self.processes[-1][1]

    def _direct(self, way, backend):
        return backend

    def _nginx(self, way, backend):
        binary, folder, port = program("nginx"), self.new_folder(str(way)), free_port()
        (folder / "site.conf").write_text(site_configuration(way, port, backend))
        for name in ("fastcgi_params", "scgi_params", "uwsgi_params"):
            (folder / name).symlink_to(Path("/etc/nginx") / name)
        group = web_group()
        user = f"user {group} {group};" if group else ""
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, user=user))
        command = [binary, "-p", folder, "-c", folder / "nginx.conf", "-e", folder / "error.log"]
        return self.start(str(way), command, folder, [("127.0.0.1", port)])

    def _apache(self, way, backend):
        binary, folder, port = program("apache2"), self.new_folder(str(way)), free_port()
        site = site_configuration(way, port, backend)
        (folder / "site.conf").write_text(site)
        # The modules that the file itself tells the reader to enable must do.
        (enabled,) = re.findall(r"(?m)^#\s+a2enmod (.*)$", site)
        modules = apache_modules([*APACHE_DEFAULT_MODULES, *enabled.split()])
        group = web_group()
        user = f"User {group}\nGroup {group}" if group else ""
        main = APACHE.format(folder=folder, user=user, modules=modules)
        (folder / "apache.conf").write_text(main)
        command = [binary, "-f", folder / "apache.conf", "-DFOREGROUND"]
        return self.start(str(way), command, folder, [("127.0.0.1", port)])

    def new_folder(self, name):
        folder = self.folder / f"{len(self.processes)}-{name}"
        folder.mkdir()
        return folder

    def start(self, name, command, folder, addresses: Iterable, **options):
        """Start a server, wait until it can be reached at all addresses, return the last."""
        log = folder / "output.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, **options
            )
        self.processes.append((name, process, folder))
        deadline = time.monotonic() + 20
        for address in addresses:
            while True:
                with contextlib.suppress(OSError), connect(address):
                    break
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.01)
                    pytest.fail(f"{name} ended with {process.returncode}:\n{self._logs(folder)}")
                if time.monotonic() > deadline:
                    pytest.fail(f"{name} cannot be reached at {address}:\n{self._logs(folder)}")
        return address

    def _logs(self, folder):
        return "\n".join(path.read_text("utf-8", "replace") for path in folder.glob("*.log"))

    def stop(self):
        """Stop all, front ends first; complain of a server that did not stop or had errors."""
        complaints = []
        for _, process, _ in reversed(self.processes):
            process.terminate()  # Nothing is sent to a process that has been waited for.
        for name, process, _ in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                complaints.append(f"{name} did not stop")
        for name, _, folder in self.processes:
            logs = self._logs(folder)
            failures = logs.count("Traceback (") - logs.count("RuntimeError: on purpose")
            if failures:
                complaints.append(f"the log of {name}:\n{logs[-5000:]}")
        assert not complaints, "\n\n".join(complaints)


#: How a front end is started: (servers, way, address of the gateway) → its own address.
BOOTS = {"direct": Servers._direct, "nginx": Servers._nginx, "apache": Servers._apache}


@contextlib.contextmanager
def running_servers():
    # Not below pytest's own folder: only root may enter that, and paths of sockets are short.
    folder = Path(tempfile.mkdtemp(prefix="gateway-"))
    folder.chmod(0o755)
    servers = Servers(folder)
    try:
        yield servers
    finally:
        try:
            servers.stop()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
