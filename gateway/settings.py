"""Every setting: one frozen dataclass with name, type, default and help.

A setting is declared once, here; the command line, the ``GATEWAY_*``
environment, the configuration file and the reference are made from it.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway import kinds
from gateway.bounds import Bounds
from gateway.kinds import Kind, SettingError
from gateway.kinds import setting as _setting
from gateway.process import processors
from gateway.trust import FIELDS
from protocols.proxy_protocol import VERSIONS

__all__ = ["SettingError", "Settings", "kind_of"]


@dataclass(frozen=True)
class _Serving:
    """What is served, where, by how many and how long."""

    wsgi_app: str = _setting(
        "", kinds.text(), "The application: module:attr, module:factory() or path/to/file.py:attr."
    )
    bind: tuple[str, ...] = _setting(
        ("127.0.0.1:8000",),
        kinds.words(),
        "Where to listen: HOST:PORT, unix:PATH, fd://N or systemd, each with a protocol in front "
        "if it is not the one of --protocol (fastcgi+unix:/run/app.sock, http://127.0.0.1:8000). "
        "https is HTTP inside of TLS, for which certfile is needed. "
        "A unix socket takes ?mode=0660&owner=NAME&group=NAME. May be repeated.",
        "-b",
        value="ADDRESS",
    )
    protocol: str = _setting(
        "http",
        kinds.text(),
        "Protocol of binds that name none: http, fastcgi, scgi, uwsgi; auto: each peer's own, by "
        "its first byte, on unix sockets and loopback addresses only. cgi: no bind, one request "
        "from the environment and standard input, as a web server runs a CGI program.",
        value="NAME",
    )
    process_manager: str = _setting(
        "static",
        kinds.choice("static", "dynamic", "ondemand"),
        "static: always `workers` processes. dynamic: from `workers` up to `workers_max`, as "
        "requests wait. ondemand: none until a request comes, up to `workers_max`.",
        value="NAME",
    )
    workers: int = _setting(
        1,
        kinds.whole_number(1, 1024, auto=processors),
        "Number of worker processes; auto: as many as there are processors for gateway, by its "
        "CPU quota and affinity.",
        "-w",
        value="N",
    )
    workers_max: int = _setting(
        0,
        kinds.whole_number(0, 1024),
        "Worker processes at most, where process_manager lets them grow; 0: as many as `workers`.",
        value="N",
    )
    worker_idle_timeout: float = _setting(
        60.0,
        kinds.seconds(),
        "Seconds without a request after which a worker beyond the least number leaves.",
        value="SECONDS",
    )
    preload_app: bool = _setting(
        False,
        kinds.boolean(),
        "Load the application once, in a process that all workers are forked from, so that they "
        "share its memory (Linux).",
        "--preload",
    )
    threads: int = _setting(
        4,
        kinds.whole_number(1, 4096),
        "Threads of a worker that run the application; with 1 it runs on the loop itself.",
        value="N",
    )
    worker_connections: int = _setting(
        1000, kinds.whole_number(1), "Connections that a worker holds at most.", value="N"
    )
    queue_size: int = _setting(
        0,
        kinds.whole_number(0),
        "Requests that wait for a thread before a worker stops accepting; 0: twice the threads.",
        value="N",
    )
    queue_timeout: float = _setting(
        45.0,
        kinds.seconds(off=True),
        "Seconds that a request may wait for a thread before it is refused with a 503; 0: as long "
        "as it takes.",
        value="SECONDS",
    )
    backlog: int = _setting(
        2048, kinds.whole_number(1), "Connections that wait to be accepted.", value="N"
    )
    defer_accept: int = _setting(
        1,
        kinds.whole_number(0, 1),
        "Seconds for which a TCP connection that says nothing is not accepted (Linux): 1, or 0 to "
        "accept every connection at once.",
        value="SECONDS",
    )
    poller: str = _setting(
        "auto",
        kinds.choice("auto", "epoll", "selectors"),
        "How a worker waits for its sockets.",
        value="NAME",
    )
    script_name: str | None = _setting(
        None,
        kinds.script_name(),
        "Where the application is mounted (SCRIPT_NAME); / for the root whatever a front end "
        "says. Not set: a split made by the front end is trusted.",
        value="PATH",
    )
    path_info_source: str = _setting(
        "routed",
        kinds.choice("routed", "request_uri"),
        "PATH_INFO as the front end routed it, or in the client's own spelling. A front end that "
        "guards /admin never sees /admin/../public as /admin: an application that reads the "
        "client's spelling may.",
        value="NAME",
    )
    x_sendfile_root: str | None = _setting(
        None,
        kinds.folder(),
        "Folder within which a file that the application names in X-Sendfile, by an absolute "
        "path, is sent in place of the body. Not set: the field is passed on, to a front end "
        "that does this itself.",
        value="DIR",
    )
    allow_from: tuple[str, ...] = _setting(
        (),
        kinds.peers(users=True),
        "Who may connect: addresses, networks and * for TCP, user:NAME for unix sockets. Not "
        "set: HTTP serves everybody; FastCGI, SCGI and uwsgi over TCP serve this machine only "
        "(for FastCGI the variable FCGI_WEB_SERVER_ADDRS may say otherwise). A bind takes "
        "?allow=ADDRESSES for itself.",
        value="PEERS",
    )
    forwarded_allow_ips: tuple[str, ...] = _setting(
        ("127.0.0.1", "::1", "unix"),
        kinds.peers(),
        "Proxies that are believed about their clients: addresses, networks, unix for any peer "
        "on a unix socket, * for every peer. From others X-Forwarded-* and Forwarded are "
        "dropped. The peer is REMOTE_ADDR: behind FastCGI, SCGI and uwsgi the front end's own "
        "client.",
        value="PEERS",
    )
    forwarded_headers: tuple[str, ...] = _setting(
        ("x-forwarded-for", "x-forwarded-proto"),
        kinds.words(*FIELDS),
        "What is believed of a trusted proxy; the rest of these is dropped. Name only what the "
        "proxy sets or clears itself: anything else is a client's word.",
        value="NAMES",
    )
    proxy_protocol: str = _setting(
        "off",
        kinds.choice(*VERSIONS),
        "Version of the PROXY protocol header with which every connection must start; auto: "
        "either version. A bind takes ?proxy_protocol=VERSION for itself.",
        value="VERSION",
    )
    proxy_allow_ips: tuple[str, ...] = _setting(
        ("127.0.0.1", "::1", "unix"),
        kinds.peers(),
        "Who may send a PROXY protocol header, and so may connect where one is expected.",
        value="PEERS",
    )
    header_map: str = _setting(
        "drop",
        kinds.choice("drop", "refuse", "dangerous"),
        "HTTP field names with an underscore: dropped, refused with a 400, or passed on although "
        "as variables they cannot be told from names with a hyphen.",
        value="NAME",
    )
    certfile: str | None = _setting(
        None,
        kinds.text(),
        "PEM file with the certificate and, behind it, those of its issuers; a reload reads it "
        "and the key again. With it HTTP binds that name no protocol speak TLS; http:// in front "
        "of a bind keeps it plain.",
        value="FILE",
    )
    keyfile: str | None = _setting(
        None,
        kinds.text(),
        "PEM file with the private key, without a passphrase; not set: it is in certfile.",
        value="FILE",
    )
    ca_certs: str | None = _setting(
        None,
        kinds.text(),
        "PEM file with the certificates of those who may issue certificates of clients.",
        value="FILE",
    )
    cert_reqs: str = _setting(
        "none",
        kinds.verification(),
        "Certificates of clients: none: not asked for; optional: verified if there is one; "
        "required: without one there is no connection.",
        value="NAME",
    )
    ciphers: str | None = _setting(
        None,
        kinds.text(),
        "Cipher suites of TLS 1.2, as OpenSSL writes a list of them; not set: those with forward "
        "secrecy and authenticated encryption. Those of TLS 1.3 are always OpenSSL's own.",
        value="LIST",
    )
    fastcgi_multiplex_max: int = _setting(
        32,
        kinds.whole_number(1, 65535),
        "Requests at once on one FastCGI connection; 1 refuses multiplexing.",
        value="N",
    )
    fastcgi_roles: tuple[str, ...] = _setting(
        ("responder", "authorizer", "filter"),
        kinds.words("responder", "authorizer", "filter"),
        "FastCGI roles that are served.",
        value="ROLES",
    )
    fastcgi_stderr: bool = _setting(
        False, kinds.boolean(), "Send wsgi.errors to the front end too, as FCGI_STDERR."
    )
    graceful_timeout: float = _setting(
        30.0,
        kinds.seconds(off=True),
        "Seconds that a retiring worker has to finish.",
        value="SECONDS",
    )
    startup_timeout: float = _setting(
        60.0, kinds.seconds(), "Seconds in which a new worker must be ready.", value="SECONDS"
    )
    timeout: float = _setting(
        30.0,
        kinds.seconds(off=True),
        "Seconds that the application may take for a request, not counting the time in which a "
        "slow client is waited for; then it is interrupted and the client gets a 504. 0: no limit.",
        "-t",
        value="SECONDS",
    )
    slow_request_timeout: float = _setting(
        0.0,
        kinds.seconds(off=True),
        "Seconds after which a request is logged, with the stack of its thread; 0: never.",
        value="SECONDS",
    )
    worker_timeout: float = _setting(
        60.0,
        kinds.seconds(off=True),
        "Seconds without a sign of life after which a worker is replaced and killed; 0: never.",
        value="SECONDS",
    )
    max_requests: int = _setting(
        0, kinds.whole_number(0), "Requests after which a worker is replaced; 0: never.", value="N"
    )
    max_requests_jitter: int = _setting(
        0,
        kinds.whole_number(0),
        "At most so many requests are added to max_requests, at random for each worker.",
        value="N",
    )
    max_worker_lifetime: float = _setting(
        0.0,
        kinds.seconds(off=True),
        "Seconds after which a worker is replaced; 0: never.",
        value="SECONDS",
    )
    max_worker_rss: int = _setting(
        0,
        kinds.whole_number(0),
        "MiB of resident memory beyond which a worker is replaced; 0: no limit.",
        value="MIB",
    )
    reload_strategy: str = _setting(
        "rolling",
        kinds.choice("rolling", "all"),
        "How a reload goes on after its first new worker is ready: one by one, or all at once.",
        value="NAME",
    )


@dataclass(frozen=True)
class Settings(Bounds, _Serving):
    """The settings of one gateway; see ``help`` of each field for its meaning and unit.

    The fields of the last base come first.
    """

    accesslog: str | None = _setting(
        None, kinds.text(), "File of the access log; - is standard output.", value="FILE"
    )
    access_log_format: str = _setting(
        "combined",
        kinds.text(),
        'combined, json or a format such as %(h)s "%(r)s" %(s)s %(b)s %(D)s; see '
        "docs/reference/access-log.md.",
        value="FORMAT",
    )
    errorlog: str = _setting(
        "-", kinds.text(), "File of the error log; - is standard error.", value="FILE"
    )
    loglevel: str = _setting(
        "info",
        kinds.choice("debug", "info", "warning", "error", "critical"),
        "Level of the error log.",
        value="LEVEL",
    )
    pidfile: str | None = _setting(
        None, kinds.text(), "File for the manager's process id.", "-p", value="FILE"
    )
    control_socket: str | None = _setting(
        None,
        kinds.text(),
        "Unix socket on which `gateway reload` talks to the manager; not set: the pidfile's name "
        "with .ctl behind it, if there is a pidfile.",
        value="FILE",
    )
    user: str | None = _setting(
        None,
        kinds.account(),
        "User that the workers run as: a name or a number.",
        "-u",
        value="USER",
    )
    group: str | None = _setting(
        None,
        kinds.account(),
        "Group that the workers run as: a name or a number; not set: the main group of `user`.",
        "-g",
        value="GROUP",
    )
    umask: int | None = _setting(
        None,
        kinds.umask(),
        "Mask for the mode of files that are created; not set: as inherited.",
        "-m",
        value="MODE",
    )
    proc_name: str | None = _setting(
        None,
        kinds.text(),
        "What the process list calls the processes; not set: the application's name.",
        "-n",
        "--name",
        value="NAME",
    )
    raw_env: tuple[str, ...] = _setting(
        (),
        kinds.pairs(),
        "Environment variables for the application, as NAME=VALUE. May be repeated.",
        "-e",
        "--env",
        value="NAME=VALUE",
    )
    chdir: str | None = _setting(
        None,
        kinds.text(),
        "Folder to change to before the application is loaded; a reload follows symbolic links "
        "in it anew.",
        value="DIR",
    )
    pythonpath: tuple[str, ...] = _setting(
        (), kinds.words(), "Folders to put first on the module search path.", value="DIRS"
    )


def kind_of(name: str) -> Kind:
    """The kind of the setting ``name``."""
    kind = Settings.__dataclass_fields__[name].metadata["kind"]
    assert isinstance(kind, Kind)
    return kind
