"""Who may connect, and who is believed about a client: real peers on real sockets."""

import json
import os
import pwd
import re
import socket
import struct

import pytest
from clients import RESET, TIMEOUT, Http
from processes import GATEWAY, Gateway

from gateway.trust import FIELDS

APP = """
import json

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({k: v for k, v in environ.items() if isinstance(v, str)}).encode()]
"""

PROXY, STRANGER = "127.0.0.1", "127.0.0.2"  # both are this machine; only the first is trusted

CLAIMS = [
    ("X-Forwarded-For", "6.6.6.6, 192.0.2.1"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "example.org"),
    ("X-Forwarded-Port", "8443"),
    ("X-Forwarded-Prefix", "/shop"),
    ("X-Forwarded-User", "root"),
    ("x-fORWARDED-whatever-else", "1"),
    ("Forwarded", "for=192.0.2.7;host=evil"),
]
TAKEN_OVER = {
    "REMOTE_ADDR": "192.0.2.1",
    "wsgi.url_scheme": "https",
    "HTTPS": "on",
    "HTTP_HOST": "example.org:8443",
    "SERVER_NAME": "example.org",
    "SERVER_PORT": "8443",
    "SCRIPT_NAME": "/shop",
    "PATH_INFO": "/x",
    "HTTP_X_FORWARDED_USER": "root",
    "HTTP_X_FORWARDED_WHATEVER_ELSE": "1",
    "HTTP_FORWARDED": None,
    "REMOTE_PORT": None,
    "gateway.claims": None,
}


@pytest.fixture(scope="module")
def server(serve_module):
    return serve_module(APP, "--forwarded-headers", ",".join(FIELDS))


def asked(server, protocol="http", kind="tcp", *, target="/x", source=PROXY, by=None, **request):
    """The environ of one request; ``by`` is whom the front end calls its client."""
    options = {"source": source} if kind == "tcp" else {}
    if protocol == "http":
        assert by is None
    elif by is not None:
        request["more"] = {"REMOTE_ADDR": by}
    with server.connect(protocol, kind, **options) as peer:
        answer = peer.ask(target, **request)
    assert answer.status == 200, answer
    return json.loads(answer.body)


def named(environ, names):
    return {name: environ.get(name) for name in names}


# X-Forwarded-* and Forwarded


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_trusted_peer_is_believed(server, protocol, kind):
    """Over HTTP the peer is who connects; behind a front end it is the front end's client."""
    by = None if protocol == "http" else PROXY
    environ = asked(server, protocol, kind, by=by, headers=CLAIMS)
    assert named(environ, TAKEN_OVER) == TAKEN_OVER


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_what_a_front_end_only_passes_on_is_not_believed(server, protocol, kind):
    if protocol == "http":
        pytest.skip("here a front end speaks for itself")
    environ = asked(server, protocol, kind, by="192.0.2.9", headers=CLAIMS)
    assert [name for name in environ if "FORWARDED" in name] == []
    assert environ["REMOTE_ADDR"] == "192.0.2.9"
    assert environ["HTTP_HOST"] == "localhost"
    assert (environ["wsgi.url_scheme"], environ["SCRIPT_NAME"]) == ("http", "")
    assert "gateway.claims" not in environ


def test_a_strangers_word_is_dropped_and_that_is_logged_once(serve):
    server = serve(APP, protocols=["http"], kinds=["tcp"])
    for _ in range(3):
        environ = asked(server, source=STRANGER, headers=CLAIMS)
        assert [name for name in environ if "FORWARDED" in name] == []
        assert environ["REMOTE_ADDR"] == STRANGER
        assert environ["HTTP_HOST"] == "localhost"
        assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("", "/x")
        assert "gateway.claims" not in environ
    asked(server, target="/last")
    server.stop()
    lines = re.findall(r"\[INFO\] dropped .*", server.log)
    assert len(lines) == 1, server.log
    assert "X-Forwarded-For" in lines[0]
    assert f"from {STRANGER}, who is not in forwarded_allow_ips" in lines[0]


def test_a_request_without_such_fields_is_left_alone(server, protocol):
    environ = asked(server, protocol, headers=[("User-Agent", "HTTP_X_FORWARDED_FOR")])
    assert environ["REMOTE_ADDR"] == (PROXY if protocol == "http" else "192.0.2.1")
    assert environ["HTTP_USER_AGENT"] == "HTTP_X_FORWARDED_FOR"
    assert "gateway.claims" not in environ


def test_what_a_proxy_does_not_set_as_a_rule_is_not_believed_by_default(serve):
    """nginx and gunicorn's own example set -For and -Proto; the rest would be the client's."""
    server = serve(APP, protocols=["http"], kinds=["tcp"])
    for _ in range(2):
        environ = asked(server, headers=CLAIMS)
        assert environ["REMOTE_ADDR"] == "192.0.2.1"
        assert environ["wsgi.url_scheme"] == "https"
        assert (environ["HTTP_HOST"], environ["SERVER_NAME"]) == ("localhost", PROXY)
        assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("", "/x")
        for name in ("X_FORWARDED_HOST", "X_FORWARDED_PORT", "X_FORWARDED_PREFIX", "FORWARDED"):
            assert "HTTP_" + name not in environ
        environ = asked(server, headers=[("Forwarded", "for=192.0.2.7;host=evil;proto=https")])
        assert (environ["REMOTE_ADDR"], environ["HTTP_HOST"]) == (PROXY, "localhost")
    server.stop()
    (line,) = re.findall(r"\[INFO\] dropped .*", server.log)
    assert "X-Forwarded-Host" in line
    assert f"from {PROXY}: forwarded_headers does not name them; this is said once" in line


def test_nobody_is_believed(serve):
    server = serve(APP, "--forwarded-allow-ips", "", protocols=["http"])
    for kind in ("tcp", "unix"):
        environ = asked(server, kind=kind, headers=CLAIMS)
        assert environ["REMOTE_ADDR"] == ("" if kind == "unix" else PROXY)
        assert [name for name in environ if "FORWARDED" in name] == []


def test_ipv4_on_a_socket_for_both_is_ipv4(tmp_path):
    """As systemd makes them: there a peer's address is ::ffff:127.0.0.1."""
    (tmp_path / "app.py").write_text(APP)
    with socket.socket(socket.AF_INET6) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::ffff:127.0.0.1", 0))
        sock.listen()
        number, port = sock.fileno(), sock.getsockname()[1]
        words = ("--bind", f"fd://{number}", "--allow-from", PROXY)
        words += ("--forwarded-allow-ips", PROXY)
        server = Gateway([*GATEWAY, "app:app", *words], tmp_path, pass_fds=(number,))
        try:
            server.wait_for_log("is ready")
            with Http(("127.0.0.1", port)) as peer:
                environ = json.loads(peer.ask("/x").body)
                assert (environ["REMOTE_ADDR"], environ["SERVER_NAME"]) == (PROXY, PROXY)
                environ = json.loads(peer.ask("/x", headers=CLAIMS).body)
                assert environ["REMOTE_ADDR"] == "192.0.2.1"
            with Http(("127.0.0.1", port), source=STRANGER) as peer:
                assert peer.rest() == b""
        finally:
            server.end()


def test_repeated_fields_are_one_list(server):
    headers = [("X-Forwarded-For", "192.0.2.1"), ("X-Forwarded-For", "127.0.0.1")]
    assert asked(server, headers=headers)["REMOTE_ADDR"] == "192.0.2.1"


def test_who_is_trusted_is_set(serve):
    server = serve(
        APP,
        *("--forwarded-allow-ips", "127.0.0.2/31"),
        *("--forwarded-headers", "x-forwarded-for,forwarded"),
        protocols=["http"],
    )
    environ = asked(server, source=STRANGER, headers=CLAIMS)
    assert environ["REMOTE_ADDR"] == "192.0.2.1"
    assert environ["wsgi.url_scheme"] == "http"
    for name in ("PROTO", "HOST", "PORT", "PREFIX"):
        assert f"HTTP_X_FORWARDED_{name}" not in environ
    for source, kind in ((PROXY, "tcp"), (None, "unix")):
        environ = asked(server, "http", kind, source=source, headers=CLAIMS)
        assert environ["REMOTE_ADDR"] != "192.0.2.1"
        assert "HTTP_X_FORWARDED_FOR" not in environ


def test_the_prefix_does_not_count_beside_script_name(serve):
    server = serve(APP, "--script-name", "/app", protocols=["http", "scgi"], kinds=["tcp"])
    for protocol in ("http", "scgi"):
        by = None if protocol == "http" else PROXY
        environ = asked(server, protocol, target="/app/x", by=by, headers=CLAIMS)
        assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/app", "/x")


def test_the_access_log_has_the_client(serve):
    server = serve(APP, "--accesslog", "-", "--access-log-format", "from %(h)s", protocols=["http"])
    asked(server, headers=CLAIMS)
    server.output.wait_for("from 192.0.2.1\n")


# header_map

UNDERSCORES = [("X-User", "good"), ("X_User", "evil"), ("Content_Length", "5"), ("X_For", "x")]


def test_field_names_with_an_underscore_are_dropped(server):
    environ = asked(server, headers=UNDERSCORES)
    assert environ["HTTP_X_USER"] == "good"
    assert "HTTP_X_FOR" not in environ


def test_or_the_request_is_refused(serve):
    server = serve(APP, "--header-map", "refuse", protocols=["http"], kinds=["tcp"])
    peer = server.connect("http")
    answer = peer.ask("/", headers=UNDERSCORES)
    assert (answer.status, answer.get("connection")) == (400, "close")
    assert b"the field name X_User has an underscore" in answer.body
    assert peer.closed()
    assert asked(server)["PATH_INFO"] == "/x"


def test_or_they_are_passed_on_but_never_as_framing(serve):
    server = serve(APP, "--header-map", "dangerous", protocols=["http"], kinds=["tcp"])
    headers = [*UNDERSCORES, ("Transfer_Encoding", "chunked"), ("X_Forwarded_For", "192.0.2.1")]
    environ = asked(server, headers=headers)
    assert environ["HTTP_X_USER"] == "good,evil"
    assert environ["HTTP_X_FOR"] == "x"
    assert environ["REMOTE_ADDR"] == "192.0.2.1"
    for name in ("CONTENT_LENGTH", "HTTP_CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"):
        assert name not in environ
    environ = asked(server, source=STRANGER, headers=headers)
    assert "HTTP_X_FORWARDED_FOR" not in environ


# Who may connect


def refused(server, protocol="http", kind="tcp", **options):
    """The connection is closed at once, without a word."""
    with server.connect(protocol, kind, **options) as peer:
        try:
            peer.start("/refused")
        except (BrokenPipeError, ConnectionResetError):
            return True
        return peer.rest() == b"" and peer.ended != ""


def test_only_the_addresses_that_are_named_may_connect(serve, protocol):
    server = serve(APP, "--allow-from", "127.0.0.0/31,::1", protocols=[protocol])
    assert asked(server, protocol)["PATH_INFO"] == "/x"
    assert refused(server, protocol, source=STRANGER)
    server.wait_for_log(rf"refused a connection of {STRANGER}: it is not in allow_from\n")
    # The rules for addresses say nothing about unix sockets: their files have a mode.
    assert asked(server, protocol, "unix")["PATH_INFO"] == "/x"
    assert asked(server, protocol)["PATH_INFO"] == "/x"


def test_a_bind_has_its_own_rule(serve):
    server = serve(
        APP,
        *("--allow-from", "127.0.0.9", "--bind", "http://127.0.0.1:0"),
        *("--bind", "scgi://127.0.0.1:0?allow=127.0.0.2,127.0.0.3"),
    )
    assert refused(server, "http", source=STRANGER)
    assert refused(server, "scgi", source=PROXY)
    assert asked(server, "scgi", source=STRANGER)["PATH_INFO"] == "/x"
    assert asked(server, "http", source="127.0.0.9")["PATH_INFO"] == "/x"


def test_refusals_do_not_fill_the_log(serve):
    server = serve(APP, "--allow-from", PROXY, protocols=["http"], kinds=["tcp"])
    for _ in range(50):
        assert refused(server, source=STRANGER)
    server.stop()
    # One a second at most: fewer lines than connections, however slow this machine is.
    assert 1 <= len(re.findall("refused a connection", server.log)) < 50


def test_web_servers_named_by_the_fastcgi_variable(serve):
    """FastCGI 1.0 section 3.2; other protocols do not know it."""
    server = serve(
        APP,
        protocols=["fastcgi", "scgi"],
        env={"FCGI_WEB_SERVER_ADDRS": "127.0.0.2, 127.0.0.3"},
    )
    assert refused(server, "fastcgi", source=PROXY)
    server.wait_for_log(f"of {PROXY}: it is not in the variable FCGI_WEB_SERVER_ADDRS")
    assert asked(server, "fastcgi", source=STRANGER)["PATH_INFO"] == "/x"
    assert asked(server, "fastcgi", "unix")["PATH_INFO"] == "/x"
    assert asked(server, "scgi", source=PROXY)["PATH_INFO"] == "/x"


def test_a_malformed_variable_lets_nobody_in(serve):
    server = serve(APP, protocols=["fastcgi"], env={"FCGI_WEB_SERVER_ADDRS": "localhost"})
    server.wait_for_log("FCGI_WEB_SERVER_ADDRS: 'localhost' is no address; it lets nobody in")
    assert refused(server, "fastcgi")


def test_users_may_connect_to_a_unix_socket_by_their_name(serve, protocol):
    me = pwd.getpwuid(os.getuid()).pw_name
    server = serve(APP, "--allow-from", f"user:{me}", protocols=[protocol])
    assert asked(server, protocol, "unix")["PATH_INFO"] == "/x"
    assert asked(server, protocol)["PATH_INFO"] == "/x"
    other = serve(APP, "--allow-from", f"user:{os.getuid() + 1}", protocols=[protocol])
    assert refused(other, protocol, "unix")
    other.wait_for_log(
        f"connection of user {os.getuid()} on a unix socket: it is not in allow_from"
    )
    assert asked(other, protocol)["PATH_INFO"] == "/x"


BAD = {
    "forwarded_allow_ips": ("--forwarded-allow-ips", "localhost", "'localhost' is no address"),
    "host bits": ("--proxy-allow-ips", "10.0.0.1/8", "is no network: 10.0.0.0/8 is"),
    "allow_from": ("--allow-from", "user:no-such-user-here", "there is no user no-such-user-here"),
    "unix": ("--allow-from", "unix", "user:NAME for peers on unix sockets"),
    "bind": ("--bind", "scgi://127.0.0.1:0?allow=10.0.0.1/8", "10.0.0.0/8 is"),
    "bind without": ("--bind", "scgi://127.0.0.1:0?allow=", "allow= takes addresses"),
    "bind's version": ("--bind", "127.0.0.1:0?proxy_protocol=v3", "allowed are off, v1, v2, auto"),
    "proxy_protocol": ("--proxy-protocol", "v3", "allowed are off, v1, v2, auto"),
    "forwarded_headers": ("--forwarded-headers", "x-real-ip", "one or more of x-forwarded-for"),
    "header_map": ("--header-map", "keep", "allowed are drop, refuse, dangerous"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_rule_that_is_none_is_exit_2_and_explained(serve, case):
    option, value, words = BAD[case]
    server = serve(APP, option, value, wait=False, protocols=["http"], kinds=["unix"])
    assert server.process.wait(TIMEOUT) == 2
    assert server.errors.wait_for_end(TIMEOUT)
    assert words in server.log
    assert repr(value) in server.log
    assert "Traceback" not in server.log


# The PROXY protocol

V1 = b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 443\r\n"
MARK = b"\r\n\r\n\0\r\nQUIT\n"
ADDRESSES = bytes((192, 0, 2, 1, 198, 51, 100, 2)) + struct.pack(">HH", 4711, 443)
V2 = MARK + struct.pack(">BBH", 0x21, 0x11, 12) + ADDRESSES
V2_TLS = MARK + struct.pack(">BBH", 0x21, 0x11, 20) + ADDRESSES + b"\x20\0\x05\x01\0\0\0\0"
LOCAL = MARK + struct.pack(">BBH", 0x20, 0, 0)
ANNOUNCED = {
    "REMOTE_ADDR": "192.0.2.1",
    "REMOTE_PORT": "4711",
    "SERVER_NAME": "198.51.100.2",
    "SERVER_PORT": "443",
    "wsgi.url_scheme": "http",
}


@pytest.fixture(scope="module")
def proxied(serve_module):
    return serve_module(APP, "--proxy-protocol", "auto")


def announced(server, header, protocol="http", kind="tcp", *, piecewise=False):
    """The environs of two requests on one connection that starts with ``header``."""
    with server.connect(protocol, kind) as peer:
        data = header + peer.encode("/x")
        pieces = [bytes([byte]) for byte in data] if piecewise else [data]
        for piece in pieces:
            peer.send(piece)
        found = [json.loads(peer.answer().body)]
        if protocol in ("http", "fastcgi"):
            found.append(json.loads(peer.ask("/x").body))
    return found


@pytest.mark.parametrize("piecewise", [False, True], ids=["whole", "byte by byte"])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("header", [V1, V2], ids=["v1", "v2"])
def test_the_addresses_are_those_of_the_clients_connection(proxied, header, kind, piecewise):
    for environ in announced(proxied, header, "http", kind, piecewise=piecewise):
        assert named(environ, ANNOUNCED) == ANNOUNCED


def test_a_client_that_spoke_tls_with_the_balancer_is_https(proxied):
    for environ in announced(proxied, V2_TLS):
        assert (environ["wsgi.url_scheme"], environ["HTTPS"]) == ("https", "on")


def test_ipv4_inside_of_ipv6_is_announced_as_ipv4(proxied):
    header = b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 4711 443\r\n"
    for environ in announced(proxied, header):
        assert named(environ, ANNOUNCED) == ANNOUNCED


@pytest.mark.parametrize("header", [LOCAL, b"PROXY UNKNOWN\r\n"], ids=["LOCAL", "UNKNOWN"])
def test_the_balancers_own_connections_keep_their_addresses(proxied, header):
    for environ in announced(proxied, header):
        assert environ["REMOTE_ADDR"] == PROXY
        assert environ["SERVER_PORT"] == str(proxied.addresses["http", "tcp"][1])


def test_every_protocol_takes_the_header(proxied, protocol):
    for header in (V1, V2):
        for environ in announced(proxied, header, protocol, piecewise=header is V1):
            assert environ["PATH_INFO"] == "/x"
            assert environ["REMOTE_ADDR"] == "192.0.2.1"


def test_the_announced_client_is_the_one_to_judge(proxied):
    """The balancer is trusted to announce; what its client says of others is not believed."""
    with proxied.connect("http") as peer:
        peer.send(V1)
        environ = json.loads(peer.ask("/x", headers=CLAIMS).body)
    assert environ["REMOTE_ADDR"] == "192.0.2.1"
    assert [name for name in environ if "FORWARDED" in name] == []


MALFORMED = {
    "no header": (Http.encode("/refused"), "starts with no PROXY protocol header"),
    "one bad byte": (b"PROXX", "starts with no PROXY protocol header"),
    "a bad address": (V1.replace(b"192.0.2.1", b"192.0.2.x"), "an address is none of TCP4"),
    "a bad command": (V2.replace(b"\x21\x11", b"\x2f\x11"), "version and command 0x2f"),
    "too long": (MARK + struct.pack(">BBH", 0x21, 0x11, 60000), "at most 1024"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_missing_or_malformed_header_closes_with_one_line(proxied, case):
    data, words = MALFORMED[case]
    with proxied.connect("http") as peer:
        peer.send(data)
        assert peer.rest() == b""
        port = peer.sock.getsockname()[1]
        proxied.wait_for_log(rf"127\.0\.0\.1:{port}: .*{words}.*\n", since=peer.since)
        assert announced(proxied, V1)
        assert proxied.log[peer.since :].count(f"127.0.0.1:{port}: ") == 1


def test_a_connection_without_a_byte_is_closed_silently(proxied):
    with proxied.connect("http") as peer:
        peer.finish()
        assert peer.rest() == b""
        assert announced(proxied, V1)
        assert f":{peer.sock.getsockname()[1]}: " not in proxied.log


def test_a_header_that_is_cut_off_is_one_line(proxied):
    with proxied.connect("http") as peer:
        peer.send(V1[:20])
        peer.finish()
        assert peer.rest() == b""
        port = peer.sock.getsockname()[1]
        proxied.wait_for_log(rf"127\.0\.0\.1:{port}: left in the middle of a PROXY header\n")


def test_a_header_that_does_not_come_is_not_waited_for_for_ever(serve):
    server = serve(
        *(APP, "--proxy-protocol", "v2", "--client-header-timeout", "0.2"),
        protocols=["http"],
        kinds=["tcp"],
    )
    with server.connect("http") as peer:
        peer.send(V2[:10])
        assert peer.rest() == b""


def test_only_the_version_that_is_set_is_taken(serve):
    server = serve(
        *(APP, "--bind", "http://127.0.0.1:0?proxy_protocol=v2", "--bind", "scgi://127.0.0.1:0"),
    )
    assert announced(server, V2)[0]["REMOTE_ADDR"] == "192.0.2.1"
    with server.connect("http") as peer:
        peer.send(V1)
        assert peer.rest() == b""
    assert asked(server, "scgi")["PATH_INFO"] == "/x"


def test_who_may_not_announce_may_not_connect(serve):
    server = serve(APP, "--proxy-protocol", "v1", protocols=["http"])
    assert refused(server, source=STRANGER)
    server.wait_for_log(f"connection of {STRANGER}: it is not in proxy_allow_ips")
    assert announced(server, V1, "http", "unix")[0]["REMOTE_ADDR"] == "192.0.2.1"
    other = serve(
        *(APP, "--proxy-protocol", "v1", "--proxy-allow-ips", STRANGER), protocols=["http"]
    )
    assert refused(other, "http", "unix")
    other.wait_for_log("proxy_allow_ips does not name unix")
    with other.connect("http", source=STRANGER) as peer:
        peer.send(V1)
        assert json.loads(peer.ask("/x").body)["REMOTE_ADDR"] == "192.0.2.1"


def test_without_the_setting_a_header_is_no_http(server):
    with server.connect("http") as peer:
        peer.send(V1 + peer.encode("/refused"))
        assert b"192.0.2.1" not in peer.rest()
        assert peer.ended != RESET
