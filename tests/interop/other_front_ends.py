"""Boots lighttpd, HAProxy, Caddy, mod_fcgid and spawn-fcgi with the files of deploy/.

The last two start the gateway themselves; the address of the one that others use is not theirs.
"""

import contextlib
import os
import pwd
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from front_ends import (
    APACHE,
    APACHE_DEFAULT_MODULES,
    APACHE_MODULES,
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

#: Apache starts the gateway as its own user, whom a virtual environment may be hidden from.
READING_ALL = [
    *("setpriv", "--clear-groups", "--inh-caps=+dac_override", "--ambient-caps=+dac_override")
]

SOCKET = "/run/gateway/app.sock"
#: The programs of the virtual environment that runs these tests.
PROGRAMS = Path(sys.executable).parent

LIGHTTPD = """\
server.document-root = "/var/www/html"
server.bind = "127.0.0.1"
server.port = {port}
server.errorlog = "{folder}/error.log"
server.upload-dirs = ( "{folder}" )
{user}
# As Debian's package has it.
server.http-parseopts = (
  "header-strict"           => "enable",
  "host-strict"             => "enable",
  "host-normalize"          => "enable",
  "url-normalize-unreserved"=> "enable",
  "url-normalize-required"  => "enable",
  "url-ctrls-reject"        => "enable",
  "url-path-2f-decode"      => "enable",
  "url-path-dotseg-remove"  => "enable",
)
include "site.conf"
"""

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
    *(Way("mod_fcgid", "fastcgi", "unix", mount) for mount in MOUNTS),
    *ways("spawn-fcgi", ("fastcgi",)),
]


def backend_in(text, way, backend):
    """The gateway's address as ``text`` writes it, and what it is in this test."""
    if way.transport == "unix":
        return {SOCKET: backend}
    port = {"http": 8000, "fastcgi": 9000, "scgi": 4000}[way.protocol]
    return {text.format(port): text.format(backend[1])}


def lighttpd(servers, way, backend):
    binary, folder, port = program("lighttpd"), servers.new_folder(str(way)), free_port()
    listen = '$SERVER["socket"] == "{}:{}"'
    changes = {listen.format("", 8080): listen.format("127.0.0.1", port)}
    changes |= backend_in('"host" => "127.0.0.1", "port" => {},', way, backend)
    (folder / "site.conf").write_text(replaced(way.file, changes))
    group = web_group()
    user = f'server.username = "{group}"\nserver.groupname = "{group}"\n' if group else ""
    if group:
        shutil.chown(folder, group, group)
    main = LIGHTTPD.format(folder=folder, port=free_port(), user=user)
    (folder / "lighttpd.conf").write_text(main)
    command = [binary, "-D", "-f", folder / "lighttpd.conf"]
    return servers.start(str(way), command, folder, [("127.0.0.1", port)])


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


def mod_fcgid(servers, way, _backend):
    """Apache, whose process manager starts the gateway as often as it needs one."""
    binary, folder, port = program("apache2"), servers.new_folder(str(way)), free_port()
    if not (APACHE_MODULES / "fcgid.load").exists():
        program("libapache2-mod-fcgid")
    group = web_group()
    code = folder / "app"
    code.mkdir()
    starter = replaced(
        DEPLOY / "apache" / "app.fcgi",
        {
            "cd /srv/app ": f"cd {APPS} ",
            "/srv/app/venv/bin": str(PROGRAMS),
            " app:application": " interop_app:application",
            "--script-name /": f"--script-name {way.prefix or '/'}",
        },
    )
    (code / "app.fcgi").write_text(starter)
    (code / "app.fcgi").chmod(0o755)
    file = DEPLOY / "apache" / f"fcgid-{way.mount}.conf"
    site = replaced(
        file,
        {
            "Listen 8080\n": f"Listen 127.0.0.1:{port}\n",
            "<VirtualHost *:8080>": f"<VirtualHost *:{port}>",
            '"/srv/app': f'"{code}',
        },
    )
    # Where Debian's package keeps the sockets of the processes.
    sockets = folder / "fcgid"
    sockets.mkdir()
    if group:
        shutil.chown(sockets, group, group)
    site += f"FcgidIPCDir {sockets}\nFcgidProcessTableFile {folder}/fcgid_shm\n"
    (folder / "site.conf").write_text(site)
    (enabled,) = re.findall(r"(?m)^#\s+a2enmod (.*)$", site)
    modules = "\n".join(
        f"Include {path}"
        for name in (*APACHE_DEFAULT_MODULES, *enabled.split())
        for path in (APACHE_MODULES / f"{name}.load", APACHE_MODULES / f"{name}.conf")
        if path.exists()
    )
    user = f"User {group}\nGroup {group}" if group else ""
    main = APACHE.format(folder=folder, user=user, modules=modules)
    (folder / "apache.conf").write_text(main)
    command = [binary, "-f", folder / "apache.conf", "-DFOREGROUND"]
    if group and not readable_by(group):
        shutil.chown(folder, group, group)
        command = [*READING_ALL, f"--reuid={group}", f"--regid={group}", *command]
    return servers.start(str(way), command, folder, [("127.0.0.1", port)])


def readable_by(user):
    """Whether this user may run the gateway from where it is."""
    who = pwd.getpwnam(user)
    with contextlib.suppress(OSError):
        done = subprocess.run(
            [PROGRAMS / "gateway", "--version"],
            cwd=APPS,
            user=who.pw_uid,
            group=who.pw_gid,
            extra_groups=[],
            capture_output=True,
            check=False,
        )
        return done.returncode == 0
    return False


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
    "mod_fcgid": mod_fcgid,
    "spawn-fcgi": spawn_fcgi,
}
