"""nginx and Apache before a server: their configuration, and what is missing for it."""

from __future__ import annotations

import os
import pwd
import shutil
from pathlib import Path

#: What nginx's own scgi_params, uwsgi_params and fastcgi_params pass on.
_PARAMS = """
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
_MORE_PARAMS = {
    "uwsgi": "CONTENT_LENGTH $content_length\nPATH_INFO $document_uri",
    "scgi": "SCGI 1\nPATH_INFO $document_uri",
    "fastcgi": """
CONTENT_LENGTH $content_length
SCRIPT_NAME ""
PATH_INFO $document_uri
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
    client_body_temp_path {folder}/temp;
    proxy_temp_path {folder}/temp;
    fastcgi_temp_path {folder}/temp;
    uwsgi_temp_path {folder}/temp;
    scgi_temp_path {folder}/temp;
    {before}
    server {{
        listen 127.0.0.1:{port} backlog=2048;
        server_name localhost;
        location / {{
            {location}
        }}
    }}
}}
"""
_NGINX_UPSTREAM = """
    upstream app {{
        server {server} max_fails=0;
        {kept}
    }}
"""
_KEPT = "keepalive 64; keepalive_requests 1000000000;"
#: SCGI and uwsgi close after each answer.
_NGINX_KEEPS = {
    "http": 'proxy_http_version 1.1; proxy_set_header Connection "";',
    "fastcgi": "fastcgi_keep_conn on;",
}

_APACHE_MODULES = Path("/usr/lib/apache2/modules")
_APACHE_SCHEMES = {"http": "http", "fastcgi": "fcgi", "scgi": "scgi", "uwsgi": "uwsgi"}
_APACHE_PROXY = {"http": "proxy_http", "fastcgi": "proxy_fcgi"}
_APACHE = """
ServerRoot {folder}
ServerName localhost
DefaultRuntimeDir {folder}
PidFile {folder}/apache.pid
Mutex file:{folder} default
ErrorLog {folder}/apache.log
LogLevel crit
{user}
{modules}
Listen 127.0.0.1:{port}
StartServers 1
ServerLimit 1
ThreadLimit 128
ThreadsPerChild 128
MaxRequestWorkers 128
KeepAlive On
MaxKeepAliveRequests 0
ProxyPass "/" "{target}" retry=0 {kept}
"""


def missing(name, protocol=None):
    """Why the front end cannot be used here; None if it can."""
    program = {"nginx": "nginx", "apache": "apache2"}[name]
    if not shutil.which(program):
        return f"{program} is missing (apt-get install {program})"
    if name == "apache" and protocol:
        module = _APACHE_MODULES / f"mod_{_apache_module(protocol)}.so"
        if not module.exists():
            return f"{module} is missing"
    return None


def command(name, protocol, address, port, folder):
    """Write the configuration; return the argument list that serves it on ``port``."""
    write = {"nginx": _nginx, "apache": _apache}[name]
    return write(protocol, address, port, folder)


def constant(address, folder):
    """nginx that answers by itself, always the same."""
    port = address.rpartition(":")[2]
    location = 'default_type text/plain; return 200 "Hello, world!";'
    return _run_nginx(_NGINX.format(folder=folder, before="", location=location, port=port), folder)


def _nginx(protocol, address, port, folder):
    kind = "proxy" if protocol == "http" else protocol
    keeps = _NGINX_KEEPS.get(protocol, "")
    before = _NGINX_UPSTREAM.format(server=address, kept=_KEPT if keeps else "")
    lines = "" if protocol == "http" else _PARAMS + _MORE_PARAMS[protocol]
    location = "".join(f"{protocol}_param {line};\n" for line in lines.split("\n") if line)
    location += f"{kind}_pass {'http://' if protocol == 'http' else ''}app; {keeps}"
    text = _NGINX.format(folder=folder, before=before, location=location, port=port)
    return _run_nginx(text, folder)


def _run_nginx(text, folder):
    config = Path(folder) / "nginx.conf"
    config.write_text(text)
    return ["nginx", "-p", folder, "-c", str(config), "-e", f"{folder}/nginx.log"]


def _apache(protocol, address, port, folder):
    scheme = _APACHE_SCHEMES[protocol]
    target = f"{scheme}://{address}/"
    if address.startswith("unix:"):
        target = f"{address}|{scheme}://localhost/"
    names = ["mpm_event", "authz_core", "proxy", _apache_module(protocol)]
    user = ""
    if os.geteuid() == 0:  # it serves nothing as root
        user = f"User {pwd.getpwnam('www-data').pw_name}"
    config = Path(folder) / "apache.conf"
    config.write_text(
        _APACHE.format(
            folder=folder,
            port=port,
            target=target,
            user=user,
            modules="\n".join(f"LoadModule {x}_module {_APACHE_MODULES}/mod_{x}.so" for x in names),
            kept="enablereuse=on" if protocol == "fastcgi" else "",
        )
    )
    return ["apache2", "-f", str(config), "-DFOREGROUND"]


def _apache_module(protocol):
    return _APACHE_PROXY.get(protocol, f"proxy_{protocol}")
