"""The whole environ behind lighttpd, HAProxy, Caddy, spawn-fcgi, mod_fcgid and CGI, and their ways.

What docs/reference/front-ends.md shows for every front end is checked by test_front_end_table.py.
"""

import contextlib
import os
import signal

import front_ends
import pytest
from front_ends import BOOTS, FILES, HOST, Site, Way, receive, running_servers
from matrix import pipe
from other_front_ends import OTHERS
from starting_front_ends import PURE, STARTING
from test_deploy_bodies import test_one_connection_many_requests as many_requests
from test_deploy_environ import ABSENT, ANY, GATEWAY, REQUESTS, unexpected
from test_deploy_paths import PATHS
from test_deploy_restart import connections, wait_until

AT_ROOT = [way for way in OTHERS if way.mount == "root"]

#: The ways where the environ differs, what the variables are there, why.
DIFFERENCES = [
    (
        "haproxy-http-tcp-* caddy-http-tcp-*",
        {"SERVER_NAME": "127.0.0.1", "SERVER_PORT": ANY, "SERVER_SOFTWARE": GATEWAY},
        "over HTTP the server is the gateway: its address is that of the bind",
    ),
    (
        "haproxy-http-unix-* caddy-http-unix-*",
        {
            "SERVER_NAME": "localhost",
            "SERVER_PORT": ANY,
            "SERVER_SOFTWARE": GATEWAY,
            "REMOTE_PORT": ABSENT,
        },
        "a unix socket has neither port nor address",
    ),
    (
        "haproxy-http-* caddy-*",
        {"HTTP_X_FORWARDED_FOR": "127.0.0.1", "HTTP_X_FORWARDED_PROTO": "http"},
        "only fields of the request can tell an HTTP back end of the client; Caddy always has them",
    ),
    (
        "lighttpd-* haproxy-fastcgi-* spawn-fcgi-*",
        {"SERVER_NAME": "example.org", "SERVER_PORT": "{port}"},
        "the name that the front end or the client has for it, the port that it listens on",
    ),
    (
        "caddy-fastcgi-* mod_*",
        {"SERVER_NAME": "example.org", "SERVER_PORT": "8080"},
        "both are the Host field's",
    ),
    ("lighttpd-*", {"SERVER_SOFTWARE": "lighttpd/{any}"}, "the server is lighttpd"),
    ("haproxy-fastcgi-*", {"SERVER_SOFTWARE": "HAProxy {any}"}, "the server is HAProxy"),
    ("caddy-fastcgi-*", {"SERVER_SOFTWARE": "Caddy/{any}"}, "the server is Caddy"),
    ("mod_*", {"SERVER_SOFTWARE": "Apache/{any}"}, "the server is Apache"),
    ("spawn-fcgi-*", {"SERVER_SOFTWARE": "nginx/{any}"}, "the server is nginx"),
    (
        "lighttpd-* haproxy-fastcgi-* caddy-fastcgi-* mod_* spawn-fcgi-*",
        {"DOCUMENT_ROOT": ANY},
        "an extension of CGI that all front ends send, left as it comes",
    ),
    (
        "lighttpd-* haproxy-fastcgi-* caddy-fastcgi-* mod_*",
        {"SCRIPT_FILENAME": ANY},
        "an extension of CGI, left as it comes",
    ),
    (
        "lighttpd-* caddy-fastcgi-* mod_* spawn-fcgi-*",
        {"REQUEST_SCHEME": "http"},
        "an extension of CGI, left as it comes",
    ),
    (
        "lighttpd-* caddy-fastcgi-* mod_*",
        {"PATH_TRANSLATED": ANY},
        "where PATH_INFO would be if it were a file",
    ),
    ("lighttpd-* mod_* spawn-fcgi-*", {"SERVER_ADDR": "127.0.0.1"}, "the address it used"),
    (
        "lighttpd-*",
        {"REDIRECT_STATUS": "200", "HTTP_X_EMPTY": ABSENT},
        "lighttpd passes no field that has an empty value",
    ),
    (
        "caddy-fastcgi-*",
        {"DOCUMENT_URI": "", "REMOTE_HOST": "127.0.0.1"},
        "Caddy's own, left as they come",
    ),
    (
        "mod_*",
        {
            "CONTEXT_DOCUMENT_ROOT": ANY,
            "CONTEXT_PREFIX": ANY,
            "PATH": ANY,
            "SERVER_ADMIN": ANY,
            "SERVER_SIGNATURE": "",
        },
        "what Apache gives every CGI program",
    ),
    (
        "mod_fcgid-*",
        {"wsgi.multithread": False, "wsgi.multiprocess": False},
        "app.fcgi starts one worker with one thread: mod_fcgid sends it one request at a time",
    ),
    (
        "*-cgi-pipe-*",
        {
            "LC_CTYPE": ANY,
            "OLDPWD": ANY,
            "PWD": ANY,
            "GATEWAY_PURE": "1" if PURE else ABSENT,
        },
        "the environment of the process is that of the request: what the shell and Python add",
    ),
    (
        "*-cgi-pipe-*",
        {"wsgi.multithread": False, "wsgi.multiprocess": True, "wsgi.run_once": True},
        "a process for each request",
    ),
    ("mod_cgi*", {"ap_trust_cgilike_cl": "1"}, "set by the file, for Apache"),
    (
        "spawn-fcgi-*",
        {"DOCUMENT_URI": "{prefix}/a b/\xc3\xa9", "REDIRECT_STATUS": "200"},
        "nginx's own",
    ),
]


@pytest.fixture(params=OTHERS, ids=str)
def site(request, servers):
    return servers.site(request.param)


@pytest.mark.parametrize("kind", REQUESTS)
def test_same_environ(site, kind):
    assert not unexpected(site, kind, DIFFERENCES)


@pytest.mark.parametrize("target", ["/../secret", "/x/../../secret", "/%2E%2E/secret"])
def test_dots_cannot_move_the_mount_point(site, target):
    """Above the mount the application is not called, or sees the dots for what they are."""
    answer = site.ask(target)
    if answer.all("X-Probe"):
        environ = answer.json()
        assert environ["SCRIPT_NAME"] == site.way.prefix
        # lighttpd goes no higher than the root of the site, and says so.
        at_root = site.way.server == "lighttpd" and site.way.mount == "root"
        assert environ["PATH_INFO"] == "/secret" if at_root else ".." in environ["PATH_INFO"]
    else:
        assert answer.status in {400, 403, 404}


def test_absolute_target_of_another_host(site):
    """Nobody may smuggle a Host that contradicts the request line."""
    answer = site.ask_raw(
        f"GET http://other.example{site.way.prefix}/x HTTP/1.1\r\nHost: {HOST}\r\n"
        "Connection: close\r\n\r\n"
    )
    if answer.status != 400:
        assert answer.json()["HTTP_HOST"] == "other.example"


def test_http_1_0(site):
    """Health checks speak it, and may leave out Host."""
    answer = site.ask_raw(f"GET {site.way.prefix}/x HTTP/1.0\r\n\r\n")
    assert (answer.status, answer.json()["PATH_INFO"]) == (200, "/x")


def test_upload_that_the_application_does_not_read(site):
    answer = site.ask(app="ignore", method="POST", body=b"x" * (3 << 20))
    assert (answer.status, answer.body) == (200, b"did not look")


@pytest.mark.parametrize(
    "way", [w for w in OTHERS if w.server == "lighttpd" and w not in STARTING], ids=str
)
def test_the_clients_own_spelling(servers, way):
    """With path_info_source=request_uri, what a front end tidies can be had too."""
    site = servers.site(way, "--path-info-source=request_uri")
    for target, spelt, _ in PATHS:
        environ = site.ask(target).json()
        assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == (way.prefix, spelt)


@pytest.mark.parametrize("way", [w for w in AT_ROOT if w not in STARTING], ids=str)
def test_200_requests_at_once(servers, way):
    site = servers.site(way)
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(site.send(f"/{number}")) for number in range(200)]
        for number, connection in enumerate(connections):
            assert receive(connection).json()["PATH_INFO"] == f"/{number}"


@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_kept_connections_wait_for_no_acknowledgement(servers, transport):
    """HAProxy keeps its FastCGI connections; a delayed acknowledgement would cost 40 ms each."""
    many_requests(servers.site(Way("haproxy", "fastcgi", transport, "root")))


@pytest.mark.parametrize("way", AT_ROOT, ids=str)
def test_a_field_that_looks_like_another(servers, way):
    """X_User never takes the place of X-User."""
    fields = [("X-User", "trusted"), ("X_User", "spoof"), ("X.User", "spoof")]
    user = servers.site(way).ask(headers=fields).json()["HTTP_X_USER"]
    # lighttpd makes one variable of the three. The gateway keeps all that come; of an environment
    # the last one does.
    joined = {"cgi": "spoof"}.get(way.protocol, "trusted,spoof,spoof")
    assert user == (joined if way.server == "lighttpd" else "trusted")


@pytest.mark.parametrize("way", AT_ROOT, ids=str)
def test_a_body_without_a_type(servers, way):
    """No front end calls it a form, which a framework would then read."""
    environ = servers.site(way).ask(method="POST", body=b"a=1").json()
    invented = "application/octet-stream" if str(way).startswith("caddy-fastcgi") else ABSENT
    assert environ.get("CONTENT_TYPE") == invented


def change_files(monkeypatch, old, new):
    """What starts from now on has files of deploy/ with a line that they advise against."""
    as_it_is = front_ends.site_configuration

    def changed(way, port, backend):
        text = as_it_is(way, port, backend)
        assert old in text
        return text.replace(old, new)

    monkeypatch.setattr(front_ends, "site_configuration", changed)


def test_nginx_that_does_not_buffer_scgi_uploads(servers, monkeypatch):
    """The false length that nginx then sends (before February 2026) never cuts an upload short."""
    change_files(monkeypatch, "scgi_request_buffering on;", "scgi_request_buffering off;")
    way = Way("nginx", "scgi", "tcp", "root")
    backend = servers.gateway("root").addresses["scgi", "tcp"]
    site = Site(way, BOOTS["nginx"](servers, way, backend))
    head = f"POST / HTTP/1.1\r\nHost: {HOST}\r\nX-App: digest\r\nContent-Length: 500000\r\n\r\n"
    with site.connect() as connection:
        # The beginning of the body comes with the head: that is what nginx counts.
        connection.sendall(head.encode() + b"x" * 500)
        connection.sendall(b"x" * 499_500)
        answer = receive(connection)
    assert answer.status == 400 or answer.body.startswith(b"500000 ")


def test_apache_that_keeps_a_connection_for_each_of_its_threads(servers, monkeypatch):
    """Far more kept connections than threads of the gateway: all are served."""
    change_files(monkeypatch, "retry=0 ", "enablereuse=on retry=0 ")
    way = Way("apache", "fastcgi", "tcp", "root")
    option = "--fastcgi-keepalive=71"
    gateway = servers.gateway("root", option)
    address = gateway.addresses["fastcgi", "tcp"]
    site = Site(way, BOOTS["apache"](servers, way, address))
    for _ in range(2):
        with contextlib.ExitStack() as stack:
            asked = [stack.enter_context(site.send(f"/{number}")) for number in range(200)]
            for number, connection in enumerate(asked):
                assert receive(connection).json()["PATH_INFO"] == f"/{number}"
    assert len(connections(address)) > 8


SPOOFED = [
    ("X-Forwarded-For", "192.0.2.1"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "evil.example"),
    ("X-Forwarded-Port", "666"),
    ("X-Forwarded-Prefix", "/evil"),
    ("Forwarded", "for=192.0.2.1;proto=https;host=evil.example"),
]


@pytest.mark.parametrize(
    "way",
    [way for way in OTHERS + FILES if (way.protocol, way.mount) == ("http", "root")],
    ids=str,
)
def test_what_a_client_claims_of_itself_is_not_believed(servers, way):
    """The gateway believes its proxy, so the proxy must not pass on what a client says."""
    site = servers.site(way)
    claimed, plain = site.ask(headers=SPOOFED).json(), site.ask().json()
    for environ in (claimed, plain):
        environ.pop("REMOTE_PORT", None)
    assert claimed == plain
    assert claimed["REMOTE_ADDR"] == "127.0.0.1"


def test_mod_fcgid_starts_and_ends_the_gateway():
    """A gateway for each request at a time, none when Apache has stopped."""
    with running_servers() as own:
        site = own.site(Way("mod_fcgid", "fastcgi", "unix", "root"))
        first = site.ask().one("X-Probe")
        assert site.ask().one("X-Probe") == first
        request = pipe()
        with request as (name, go_on), site.send(f"/?pieces=2&pipe={name}", app="stream") as held:
            assert held.recv(1)
            second = site.ask().one("X-Probe")
            os.write(go_on, b"+")
            assert b"piece 1\n" in receive_all(held)
        assert second != first
    wait_until(lambda: not (is_alive(first) or is_alive(second)))


def receive_all(connection):
    data = b""
    while more := connection.recv(65536):
        data += more
    return data


def is_alive(pid):
    return os.path.exists(f"/proc/{pid}")


@pytest.mark.parametrize("transport", ["tcp", "unix"])
def test_gateway_under_spawn_fcgi(transport):
    """It speaks FastCGI on descriptor 0, reloads on it, and stops as asked."""
    with running_servers() as own:
        site = own.site(Way("spawn-fcgi", "fastcgi", transport, "root"))
        gateway, folder = next(
            (process, folder) for _, process, folder in own.processes if "spawn" in folder.name
        )
        old = {site.ask().one("X-Probe") for _ in range(5)}
        gateway.send_signal(signal.SIGHUP)
        wait_until(lambda: site.ask(method="POST", body=b"x").one("X-Probe") not in old)
        gateway.terminate()
        assert gateway.wait(20) == 0
        # spawn-fcgi and these tests connected and said nothing, as health checks do.
        log = (folder / "output.log").read_text()
        assert "fastcgi on" in log
        assert not [line for line in log.splitlines() if "[WARNING]" in line or "[ERROR]" in line]
