"""Boots the front ends that start the gateway themselves: mod_fcgid, mod_cgid, mod_cgi, lighttpd.

They need no address of it; what they start is the program of deploy/, which starts the
application of these tests.
"""

import contextlib
import os
import pwd
import re
import shutil
import subprocess
import sys
from pathlib import Path

from front_ends import (
    APACHE,
    APACHE_DEFAULT_MODULES,
    APPS,
    BOOTS,
    DEPLOY,
    MOUNTS,
    Way,
    apache_modules,
    free_port,
    program,
    replaced,
    web_group,
)

#: The web server starts the gateway as its own user, whom a virtual environment may be hidden from.
READING_ALL = [
    *("setpriv", "--clear-groups", "--inh-caps=+dac_override", "--ambient-caps=+dac_override")
]

#: The programs of the virtual environment that runs these tests.
PROGRAMS = Path(sys.executable).parent

#: The web server's environment does not say which build is tested.
PURE = "env GATEWAY_PURE=1 " if os.environ.get("GATEWAY_PURE") == "1" else ""

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

#: The ways of CGI: one process a request, no connection that is kept or shared.
CGI_WAYS = [
    Way(server, "cgi", "pipe", mount)
    for server in ("mod_cgid", "mod_cgi", "lighttpd")
    for mount in MOUNTS
]
STARTING = [*(Way("mod_fcgid", "fastcgi", "unix", mount) for mount in MOUNTS), *CGI_WAYS]


def mod_fcgid(servers, way, _backend):
    """Apache, whose process manager starts the gateway as often as it needs one."""
    folder = servers.new_folder(str(way))
    group = web_group()
    # Where Debian's package keeps the sockets of the processes.
    sockets = folder / "fcgid"
    sockets.mkdir()
    if group:
        shutil.chown(sockets, group, group)
    own = f"FcgidIPCDir {sockets}\nFcgidProcessTableFile {folder}/fcgid_shm\n"
    site = DEPLOY / "apache" / f"fcgid-{way.mount}.conf"
    return _apache(servers, way, folder, site, own=own)


def mod_cgid(servers, way, _backend):
    """Apache with threads, whose daemon starts the gateway for each request."""
    folder = servers.new_folder(str(way))
    site = DEPLOY / "apache" / f"cgi-{way.mount}.conf"
    return _apache(servers, way, folder, site, own=f"ScriptSock {folder}/cgisock\n")


def mod_cgi(servers, way, _backend):
    """Apache without threads, which starts the gateway for each request itself."""
    site = DEPLOY / "apache" / f"cgi-{way.mount}.conf"
    others = {"mpm_event": "mpm_prefork", "cgid": "cgi"}
    return _apache(servers, way, servers.new_folder(str(way)), site, others)


def _apache(servers, way, folder, site, others=(), own=""):
    """``others``: modules in place of those of Debian and of the file; ``own``: more settings."""
    binary, port = program("apache2"), free_port()
    code = starter(folder, way)
    text = replaced(
        site,
        {
            "Listen 8080\n": f"Listen 127.0.0.1:{port}\n",
            "<VirtualHost *:8080>": f"<VirtualHost *:{port}>",
            '"/srv/app': f'"{code}',
        },
    )
    (folder / "site.conf").write_text(text + own)
    (enabled,) = re.findall(r"(?m)^#\s+a2enmod (.*)$", text)
    names = [*APACHE_DEFAULT_MODULES, *enabled.split()]
    for old in others:
        names[names.index(old)] = others[old]
    group = web_group()
    user = f"User {group}\nGroup {group}" if group else ""
    main = APACHE.format(folder=folder, user=user, modules=apache_modules(names))
    if "mpm_prefork" in names:
        main = main.replace("ServerLimit 1\nThreadsPerChild 64\n", "ServerLimit 64\n")
    (folder / "apache.conf").write_text(main)
    command = [binary, "-f", folder / "apache.conf", "-DFOREGROUND"]
    command = [*as_reader(folder), *command]
    return servers.start(str(way), command, folder, [("127.0.0.1", port)])


def lighttpd_cgi(servers, way):
    """Lighttpd, which starts the gateway for each request."""
    folder, port = servers.new_folder(str(way)), free_port()
    changes = {
        '$SERVER["socket"] == ":8080"': f'$SERVER["socket"] == "127.0.0.1:{port}"',
        '"/srv/app/': f'"{starter(folder, way)}/',
    }
    site = replaced(DEPLOY / "lighttpd" / f"cgi-{way.mount}.conf", changes)
    before = as_reader(folder)
    return start_lighttpd(servers, way, folder, site, port, before=before)


def start_lighttpd(servers, way, folder, site, port, before=()):
    """``before``: what starts it as the user that it runs as, if it cannot change to that."""
    binary, group = program("lighttpd"), web_group()
    (folder / "site.conf").write_text(site)
    user = ""
    if group:
        shutil.chown(folder, group, group)
        if not before:
            user = f'server.username = "{group}"\nserver.groupname = "{group}"\n'
    main = LIGHTTPD.format(folder=folder, port=free_port(), user=user)
    (folder / "lighttpd.conf").write_text(main)
    command = [*before, binary, "-D", "-f", folder / "lighttpd.conf"]
    return servers.start(str(way), command, folder, [("127.0.0.1", port)])


def starter(folder, way):
    """A folder with the program of deploy/ that starts the gateway, for these tests."""
    name = "cgi/app.cgi" if way.protocol == "cgi" else "apache/app.fcgi"
    code = folder / "app"
    code.mkdir()
    file = code / Path(name).name
    text = replaced(
        DEPLOY / name,
        {
            "cd /srv/app ": f"cd {APPS} ",
            "exec /srv/app/venv/bin": f"exec {PURE}{PROGRAMS}",
            " app:application": " interop_app:application",
            "--script-name /": f"--script-name {way.prefix or '/'}",
        },
    )
    file.write_text(text)
    file.chmod(0o755)
    return code


def as_reader(folder):
    """What starts a web server as a user who can read this virtual environment, if need be."""
    group = web_group()
    if not group or readable_by(group):
        return []
    shutil.chown(folder, group, group)
    return [*READING_ALL, f"--reuid={group}", f"--regid={group}"]


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


BOOTS |= {"mod_fcgid": mod_fcgid, "mod_cgid": mod_cgid, "mod_cgi": mod_cgi}
