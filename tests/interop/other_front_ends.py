"""Boots lighttpd, HAProxy, Caddy and spawn-fcgi with the files of deploy/.

The last one starts the gateway itself; the address of the one that others use is not its own.
"""

import os
import shutil

import pytest
from front_ends import (
    APPS,
    BOOTS,
    DEPLOY,
    MOUNTS,
    TRANSPORTS,
    Way,
    free_port,
    program,
    replaced,
    web_group,
)
from starting_front_ends import PROGRAMS, STARTING, lighttpd_cgi, start_lighttpd

SOCKET = "/run/gateway/app.sock"
CADDY = """\
{
	admin off
}
import site.caddyfile
"""


def ways(server, protocols):
    return [
        Way(server, protocol, transport, mount)
        for protocol in protocols
        for transport in TRANSPORTS
        for mount in MOUNTS
    ]


OTHERS = [
    *ways("lighttpd", ("fastcgi", "scgi")),
    *ways("haproxy", ("http", "fastcgi")),
    *ways("caddy", ("http", "fastcgi")),
    *STARTING,
    *ways("spawn-fcgi", ("fastcgi",)),
]


def backend_in(text, way, backend):
    """The gateway's address as ``text`` writes it, and what it is in this test."""
    if way.transport == "unix":
        return {SOCKET: backend}
    port = {"http": 8000, "fastcgi": 9000, "scgi": 4000}[way.protocol]
    return {text.format(port): text.format(backend[1])}


def lighttpd(servers, way, backend):
    if way.protocol == "cgi":
        return lighttpd_cgi(servers, way)
    folder, port = servers.new_folder(str(way)), free_port()
    listen = '$SERVER["socket"] == "{}:{}"'
    changes = {listen.format("", 8080): listen.format("127.0.0.1", port)}
    changes |= backend_in('"host" => "127.0.0.1", "port" => {},', way, backend)
    return start_lighttpd(servers, way, folder, replaced(way.file, changes), port)


def haproxy(servers, way, backend):
    binary, folder, port = program("haproxy"), servers.new_folder(str(way)), free_port()
    # One thread: each has connections of its own, and tests count them.
    changes = {"\nglobal\n": "\nglobal\n    nbthread 1\n"}
    changes |= {"bind :8080\n": f"bind 127.0.0.1:{port}\n"}
    changes |= backend_in("127.0.0.1:{}", way, backend)
    group = web_group()
    for name in ("user", "group"):
        changes[f"    {name} haproxy\n"] = f"    {name} {group}\n" if group else ""
    (folder / "haproxy.cfg").write_text(replaced(way.file, changes))
    command = [binary, "-db", "-f", folder / "haproxy.cfg"]
    return servers.start(str(way), command, folder, [("127.0.0.1", port)])


def caddy(servers, way, backend):
    if not (binary := shutil.which("caddy")):
        pytest.skip("caddy is not installed: not every distribution has it")
    folder, port = servers.new_folder(str(way)), free_port()
    changes = {":8080 {\n": f":{port} {{\n\tbind 127.0.0.1\n"}
    changes |= backend_in("127.0.0.1:{}", way, backend)
    (folder / "site.caddyfile").write_text(replaced(way.file, changes))
    (folder / "Caddyfile").write_text(CADDY)
    group = web_group()
    who = {"user": group, "group": group, "extra_groups": []} if group else {}
    if group:
        shutil.chown(folder, group, group)
    command = [binary, "run", "--adapter", "caddyfile", "--config", folder / "Caddyfile"]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    return servers.start(
        str(way), command, folder, [("127.0.0.1", port)], env=environment, cwd=folder, **who
    )


def spawn_fcgi(servers, way, _backend):
    """The gateway on spawn-fcgi's socket, and nginx with its own file before it."""
    program("spawn-fcgi")
    folder = servers.new_folder(str(way))
    address = str(folder / "app.sock") if way.transport == "unix" else ("127.0.0.1", free_port())
    changes = {
        "-d /srv/app ": f"-d {APPS} ",
        "/srv/app/venv/bin": str(PROGRAMS),
        " app:application": f" interop_app:application --script-name={way.prefix}",
        " -u app -g app ": " ",  # the user of the tests, who can read them
    }
    if way.transport == "unix":
        group = web_group()
        owner = f"-U {group} -G {group}" if group else ""
        changes |= {SOCKET: address, "-U app -G www-data": owner}
    else:
        changes["-p 9000"] = f"-p {address[1]}"
    (folder / "start.sh").write_text(
        replaced(DEPLOY / "spawn-fcgi" / f"{way.transport}.sh", changes)
    )
    servers.start("gateway", ["sh", folder / "start.sh"], folder, [address])
    return BOOTS["nginx"](servers, Way("nginx", way.protocol, way.transport, way.mount), address)


BOOTS |= {
    "lighttpd": lighttpd,
    "haproxy": haproxy,
    "caddy": caddy,
    "spawn-fcgi": spawn_fcgi,
}
