"""Whom the gateway believes about a client: pure functions over dictionaries."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.trust import (
    FIELDS,
    Forwarding,
    Peers,
    check_entry,
    elements_from_right,
    hop_address,
    read_element,
)

PROXY = "10.0.0.1"
TRUSTED = ("10.0.0.0/8", "fd00::/8", "unix")

BASE = {
    "REQUEST_METHOD": "GET",
    "REMOTE_ADDR": PROXY,
    "REMOTE_PORT": "4711",
    "HTTP_HOST": "backend:8000",
    "SERVER_NAME": "127.0.0.1",
    "SERVER_PORT": "8000",
    "SCRIPT_NAME": "",
    "PATH_INFO": "/x/y",
    "wsgi.url_scheme": "http",
}


def variable(name):
    return "HTTP_" + name.upper().replace("-", "_")


def apply(headers, entries=TRUSTED, fields=FIELDS, *, mounts=True, **more):
    environ = BASE | {variable(name): value for name, value in headers.items()} | more
    log = logging.Logger("test")  # noqa: LOG001 - one of its own
    lines = []
    log.addHandler(handler := logging.Handler())
    handler.emit = lambda record: lines.append(record.getMessage())
    Forwarding(Peers(entries), fields, mounts=mounts, log=log).apply(environ)
    environ["log"] = lines
    return environ


def changed(environ):
    """What is not as in BASE, without the fields themselves."""
    names = {name for name in environ.keys() | BASE.keys() if "FORWARDED" not in name} - {"log"}
    return {name: environ.get(name) for name in names if environ.get(name) != BASE.get(name)}


# Peers


@pytest.mark.parametrize(
    ("entry", "address", "inside"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("127.0.0.0/8", "127.255.0.2", True),
        ("10.1.0.0/16", "10.2.0.1", False),
        ("10.1.0.0/16", "::ffff:10.1.2.3", True),
        ("::ffff:10.1.0.0/112", "10.1.2.3", True),
        ("::ffff:10.1.0.0/112", "::ffff:10.2.2.3", False),
        ("::ffff:10.1.2.3", "10.1.2.3", True),
        ("::1", "::1", True),
        ("::1", "0:0:0:0:0:0:0:1", True),
        ("fe80::/10", "fe80::1%eth0", True),
        ("fd00::/8", "10.0.0.1", False),
        ("0.0.0.0/0", "::1", False),
        ("*", "192.0.2.1", True),
        ("*", "nonsense", True),
        ("0.0.0.0/0", "nonsense", False),
        ("0.0.0.0/0", "", False),
        ("unix", "127.0.0.1", False),
        ("user:root", "127.0.0.1", False),
    ],
)
def test_peers(entry, address, inside):
    peers = Peers([entry])
    assert (address in peers) is inside
    assert (address in peers) is inside, "as it was remembered"


def test_unix_peers_are_named_by_unix_and_by_everybody():
    assert Peers(["unix"]).unix
    assert Peers(["*"]).unix
    assert not Peers(["0.0.0.0/0", "::/0"]).unix


def test_what_is_remembered_is_bounded():
    peers = Peers(["10.0.0.0/8"])
    for number in range(5000):
        assert (f"11.0.{number >> 8}.{number & 255}" in peers) is False
    assert len(peers._verdicts) <= 1024


@pytest.mark.parametrize("entry", ["10.0.0.1", "10.0.0.0/8", "::1", "2001:db8::/32", "*", "unix"])
def test_a_good_entry(entry):
    check_entry(entry)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("localhost", "'localhost' is no address"),
        ("10.0.0.1/8", "10.0.0.1/8 is no network: 10.0.0.0/8 is"),
        ("10.0.0.256", "is no address"),
        ("10.0.0.0/33", "is no address"),
        ("", "is no address"),
        ("user:root", "is no address"),
    ],
)
def test_a_bad_entry_is_explained(entry, words):
    with pytest.raises(ValueError, match=words):
        check_entry(entry)


def test_users_are_for_those_who_may_connect():
    check_entry("user:www-data", users=True)
    for entry in ("user:", "unix"):
        with pytest.raises(ValueError):
            check_entry(entry, users=True)


# Who is believed

ALL_CLAIMS = {
    "X-Forwarded-For": "192.0.2.1",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "example.org",
    "X-Forwarded-Port": "444",
    "X-Forwarded-Prefix": "/app",
    "X-Forwarded-User": "root",
    "X-Forwarded-Anything-At-All": "1",
    "Forwarded": "for=192.0.2.7;proto=https;host=evil",
}


@pytest.mark.parametrize("peer", ["192.0.2.9", "", "unix:", "nonsense", "::ffff:192.0.2.9"])
def test_nothing_of_it_is_left_from_a_peer_that_is_not_trusted(peer):
    environ = apply(ALL_CLAIMS, entries=["10.0.0.0/8"], REMOTE_ADDR=peer)
    assert [name for name in environ if "FORWARDED" in name] == []
    assert changed(environ) == {"REMOTE_ADDR": peer}


def test_nor_from_one_without_an_address():
    environ = BASE | {"HTTP_X_FORWARDED_FOR": "192.0.2.1"}
    del environ["REMOTE_ADDR"]
    log = logging.Logger("test")  # noqa: LOG001
    Forwarding(Peers(["unix", "0.0.0.0/0"]), FIELDS, mounts=True, log=log).apply(environ)
    assert "HTTP_X_FORWARDED_FOR" not in environ
    assert "REMOTE_ADDR" not in environ


def test_a_name_that_only_looks_alike_stays():
    environ = apply(
        {"X-Forward-For": "1", "Forwarded-For": "2"}, entries=[], REMOTE_ADDR="192.0.2.9"
    )
    assert environ["HTTP_X_FORWARD_FOR"] == "1"
    assert environ["HTTP_FORWARDED_FOR"] == "2"
    assert environ["log"] == []


def test_the_log_says_once_what_was_dropped_and_from_whom():
    log = logging.Logger("test")  # noqa: LOG001
    lines = []
    log.addHandler(handler := logging.Handler())
    handler.emit = lambda record: lines.append((record.levelname, record.getMessage()))
    forwarding = Forwarding(Peers([]), FIELDS, mounts=True, log=log)
    for _ in range(3):
        forwarding.apply(BASE | {"HTTP_X_FORWARDED_FOR": "1", "HTTP_FORWARDED": "for=1"})
    assert lines == [
        (
            "INFO",
            "dropped X-Forwarded-For, Forwarded of a request from 10.0.0.1, "  # noqa: ISC004
            "who is not in forwarded_allow_ips; this is said once",
        )
    ]


def test_the_log_says_once_what_a_proxy_may_not_say():
    environ = apply(ALL_CLAIMS, fields=["x-forwarded-for"])
    (line,) = environ["log"]
    assert line == (
        "dropped Forwarded, X-Forwarded-Host, X-Forwarded-Port, X-Forwarded-Prefix, "
        "X-Forwarded-Proto of a request from 10.0.0.1: forwarded_headers does not name them; "
        "this is said once"
    )


@pytest.mark.parametrize("peer", [PROXY, "", "unix:", "fd00::1", "::ffff:10.9.9.9"])
def test_a_trusted_peer_is_believed_and_its_other_fields_stay(peer):
    environ = apply(ALL_CLAIMS, REMOTE_ADDR=peer)
    assert changed(environ) == {
        "REMOTE_ADDR": "192.0.2.1",
        "REMOTE_PORT": None,
        "wsgi.url_scheme": "https",
        "HTTPS": "on",
        "HTTP_HOST": "example.org:444",
        "SERVER_NAME": "example.org",
        "SERVER_PORT": "444",
        "SCRIPT_NAME": "/app",
    }
    assert environ["HTTP_X_FORWARDED_USER"] == "root"
    assert environ["HTTP_X_FORWARDED_FOR"] == "192.0.2.1"
    assert "HTTP_FORWARDED" not in environ, "X-Forwarded-* counts where both are there"


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_that_is_not_believed_is_dropped_from_everybody(name):
    headers = {name: ALL_CLAIMS[{field.lower(): field for field in ALL_CLAIMS}[name]]}
    alone = apply(headers, fields=[field for field in FIELDS if field != name])
    assert changed(alone) == {}
    assert variable(name) not in alone
    assert changed(apply(headers)) != {}, "and it counts where it is believed"


# Which hop

HOPS = {
    # X-Forwarded-For: REMOTE_ADDR
    "192.0.2.1": "192.0.2.1",
    "192.0.2.1, 10.0.0.2": "192.0.2.1",
    "192.0.2.1,10.0.0.2 ,\t10.0.0.3": "192.0.2.1",
    "6.6.6.6, 192.0.2.1, 10.0.0.2": "192.0.2.1",
    "10.6.6.6, 192.0.2.1, 10.0.0.2": "192.0.2.1",
    "10.0.0.4, 10.0.0.3, 10.0.0.2": "10.0.0.4",
    "10.0.0.4": "10.0.0.4",
    "192.0.2.1:4711": "192.0.2.1",
    "192.0.2.1:0, 10.0.0.2:80": "192.0.2.1",
    "2001:db8::1": "2001:db8::1",
    "2001:DB8:0::1": "2001:db8::1",
    "[2001:db8::1]": "2001:db8::1",
    "[2001:db8::1]:443": "2001:db8::1",
    '"[2001:db8::1]:443"': "2001:db8::1",
    "2001:db8::1, fd00::5": "2001:db8::1",
    "::ffff:192.0.2.1": "192.0.2.1",
    "192.0.2.1, ::ffff:10.0.0.2": "192.0.2.1",
    "fe80::1%eth0": "fe80::1",
    "192.0.2.1, , 10.0.0.2,": "192.0.2.1",
    "192.0.2.1, unix:": "192.0.2.1",
    "unix:": PROXY,
    "": PROXY,
    ",": PROXY,
    # What is no address ends the walk: what stands left of it is nobody's word.
    "192.0.2.1, unknown": PROXY,
    "192.0.2.1, unknown, 10.0.0.2": "10.0.0.2",
    "192.0.2.1, 10.0.0.2.3": PROXY,
    "192.0.2.1:port": PROXY,
    "192.0.2.1:99999": PROXY,
    "[192.0.2.1": PROXY,
    "[2001:db8::1]443": PROXY,
    "[2001:db8::1]:": PROXY,
    "0192.0.2.1": PROXY,
    "\u0661.2.3.4": PROXY,
    "localhost": PROXY,
    "<script>": PROXY,
    "192.0.2.1 10.0.0.2": PROXY,
}


@pytest.mark.parametrize("value", HOPS)
def test_the_client_is_the_right_most_hop_that_is_not_trusted(value):
    environ = apply({"X-Forwarded-For": value})
    assert environ["REMOTE_ADDR"] == HOPS[value]
    assert environ.get("REMOTE_PORT") == ("4711" if HOPS[value] == PROXY else None)


def test_everybody_names_no_hop():
    """``*`` believes whoever connects, not whom a stranger says that it forwards for."""
    environ = apply({"X-Forwarded-For": "6.6.6.6, 192.0.2.1"}, entries=["*"], REMOTE_ADDR="8.8.8.8")
    assert environ["REMOTE_ADDR"] == "192.0.2.1"
    environ = apply({"X-Forwarded-For": "6.6.6.6, 192.0.2.1, 10.0.0.7"}, entries=["*", "10.0.0.7"])
    assert environ["REMOTE_ADDR"] == "192.0.2.1"


FORWARDED = {
    # Forwarded: REMOTE_ADDR, scheme, Host
    "for=192.0.2.1": ("192.0.2.1", "http", "backend:8000"),
    "For=192.0.2.1;PROTO=https;Host=a.example": ("192.0.2.1", "https", "a.example"),
    'for="192.0.2.1:4711" ; proto="https"': ("192.0.2.1", "https", "backend:8000"),
    'for="[2001:db8::1]:443";host="a.example:444"': ("2001:db8::1", "http", "a.example:444"),
    'for="[2001:db8::1]:_x"': ("2001:db8::1", "http", "backend:8000"),
    "for=192.0.2.1;proto=https, for=10.0.0.2;proto=http;host=b": (
        "192.0.2.1",
        "https",
        "backend:8000",
    ),
    "for=6.6.6.6;host=evil, for=192.0.2.1": ("192.0.2.1", "http", "backend:8000"),
    "for=10.0.0.3;host=a.example,for=10.0.0.2": ("10.0.0.3", "http", "a.example"),
    # A proxy that hides its client is still believed about the rest.
    "for=_hidden;proto=https": (PROXY, "https", "backend:8000"),
    "for=unknown;host=a.example, for=10.0.0.2": ("10.0.0.2", "http", "a.example"),
    "proto=https;host=a.example": (PROXY, "https", "a.example"),
    "by=10.0.0.1;for=192.0.2.1;secret=x": ("192.0.2.1", "http", "backend:8000"),
    # A client cannot swallow what its proxy added.
    'for="evil, for=192.0.2.1;proto=https': ("192.0.2.1", "https", "backend:8000"),
    'for="6.6.6.6;host="evil, for=192.0.2.1': ("192.0.2.1", "http", "backend:8000"),
    # Malformed: nobody's word.
    "for=192.0.2.1;for=192.0.2.2": (PROXY, "http", "backend:8000"),
    'for="192.0.2.1\\"";proto=https': (PROXY, "http", "backend:8000"),
    "for": (PROXY, "http", "backend:8000"),
    'for="";proto=https': (PROXY, "http", "backend:8000"),
    "": (PROXY, "http", "backend:8000"),
    "for=192.0.2.1 proto=https": (PROXY, "http", "backend:8000"),
    "for=192.0.2.1;proto=gopher;host=a b": ("192.0.2.1", "http", "backend:8000"),
}


@pytest.mark.parametrize("value", FORWARDED)
def test_forwarded_of_rfc_7239(value):
    environ = apply({"Forwarded": value})
    found = environ["REMOTE_ADDR"], environ["wsgi.url_scheme"], environ["HTTP_HOST"]
    assert found == FORWARDED[value]


def test_elements_are_read_from_the_right_and_quoted_commas_do_not_part_them():
    assert list(elements_from_right('for="a,b";by=c, for=d')) == [" for=d", 'for="a,b";by=c']
    assert list(elements_from_right("")) == [""]
    assert read_element(' for="a,b" ;By=c') == {"for": "a,b", "by": "c"}


# What is believed of the hop

SERVERS = [
    # headers: scheme, HTTP_HOST, SERVER_NAME, SERVER_PORT
    ({"Proto": "https"}, ("https", "backend:8000", "127.0.0.1", "8000")),
    ({"Proto": "HTTPS", "Host": "a.example"}, ("https", "a.example", "a.example", "443")),
    ({"Proto": "wss", "Host": "a.example"}, ("https", "a.example", "a.example", "443")),
    ({"Host": "a.example"}, ("http", "a.example", "a.example", "80")),
    ({"Host": "a.example:81"}, ("http", "a.example:81", "a.example", "81")),
    ({"Host": "[2001:db8::1]:81"}, ("http", "[2001:db8::1]:81", "[2001:db8::1]", "81")),
    ({"Host": "[2001:db8::1]"}, ("http", "[2001:db8::1]", "[2001:db8::1]", "80")),
    ({"Host": "a.example", "Port": "8443"}, ("http", "a.example:8443", "a.example", "8443")),
    ({"Host": "a.example", "Port": "80"}, ("http", "a.example", "a.example", "80")),
    ({"Host": "a.example:81", "Port": "82"}, ("http", "a.example:81", "a.example", "82")),
    ({"Port": "443", "Proto": "https"}, ("https", "backend:8000", "127.0.0.1", "443")),
    ({"Proto": "gopher"}, ("http", "backend:8000", "127.0.0.1", "8000")),
    ({"Proto": ""}, ("http", "backend:8000", "127.0.0.1", "8000")),
    ({"Host": "a b"}, ("http", "backend:8000", "127.0.0.1", "8000")),
    ({"Host": "a/b"}, ("http", "backend:8000", "127.0.0.1", "8000")),
    ({"Host": "u@a.example"}, ("http", "backend:8000", "127.0.0.1", "8000")),
    ({"Host": ":80"}, ("http", "backend:8000", "127.0.0.1", "8000")),
    ({"Host": ""}, ("http", "backend:8000", "127.0.0.1", "8000")),
    ({"Port": "0"}, ("http", "backend:8000", "127.0.0.1", "8000")),
    ({"Port": "65536"}, ("http", "backend:8000", "127.0.0.1", "8000")),
    ({"Port": "0" * 6 + "65536"}, ("http", "backend:8000", "127.0.0.1", "8000")),
    ({"Port": "0" * 5000 + "1"}, ("http", "backend:8000", "127.0.0.1", "8000")),
    ({"Port": "00443"}, ("http", "backend:8000", "127.0.0.1", "443")),
    ({"Host": "a.example:65536"}, ("http", "backend:8000", "127.0.0.1", "8000")),
    ({"Host": "a.example:" + "9" * 5000}, ("http", "backend:8000", "127.0.0.1", "8000")),
    ({"Host": "a.example:"}, ("http", "a.example:", "a.example", "80")),
    ({"Port": "_http"}, ("http", "backend:8000", "127.0.0.1", "8000")),
    ({"Port": "8\u0660"}, ("http", "backend:8000", "127.0.0.1", "8000")),
    # Of a list only the last value is known to be of a trusted proxy, however many hops
    # there are: the client chooses how many values stand before it.
    (
        {"For": "192.0.2.1, 10.0.0.2", "Proto": "https, http", "Host": "evil, b.example"},
        ("http", "b.example", "b.example", "80"),
    ),
    (
        {"For": "6.6.6.6, 192.0.2.1", "Proto": "https, http", "Host": "evil, b.example"},
        ("http", "b.example", "b.example", "80"),
    ),
    (
        {"For": "192.0.2.1, 10.0.0.2", "Proto": "https", "Host": "a.example"},
        ("https", "a.example", "a.example", "443"),
    ),
    ({"Host": "evil, b.example"}, ("http", "b.example", "b.example", "80")),
]


@pytest.mark.parametrize(("headers", "expected"), SERVERS)
def test_scheme_host_and_port_agree(headers, expected):
    environ = apply({"X-Forwarded-" + name: value for name, value in headers.items()})
    names = ("wsgi.url_scheme", "HTTP_HOST", "SERVER_NAME", "SERVER_PORT")
    assert tuple(environ[name] for name in names) == expected
    assert environ.get("HTTPS") == ("on" if expected[0] == "https" else None)


def test_a_client_that_came_without_tls_is_not_made_https_by_tls_behind_the_proxy():
    secure = {"HTTPS": "on", "wsgi.url_scheme": "https", "REQUEST_SCHEME": "https"}
    environ = apply({"X-Forwarded-Proto": "http"}, **secure)
    assert environ["wsgi.url_scheme"] == environ["REQUEST_SCHEME"] == "http"
    assert "HTTPS" not in environ


def test_what_is_known_only_of_the_neighbour_goes_with_its_address():
    environ = apply(
        {"X-Forwarded-For": "192.0.2.1"}, REMOTE_HOST="proxy.example", REMOTE_IDENT="proxy"
    )
    assert not {"REMOTE_PORT", "REMOTE_HOST", "REMOTE_IDENT"} & environ.keys()


PREFIXES = [
    # prefix, SCRIPT_NAME and PATH_INFO before: after
    ("/app", "", "/app/x", "/app", "/x"),
    ("/app", "", "/app", "/app", ""),
    ("/app/", "", "/app/x", "/app", "/x"),
    ("/app", "", "/x", "/app", "/x"),
    ("/app", "", "/application", "/app", "/application"),
    ("/a/b", "", "/a/b/c", "/a/b", "/c"),
    ("/a%20b", "", "/a b/c", "/a b", "/c"),
    ("/a%2520b", "", "/x", "/a%20b", "/x"),
    ("/out", "/app", "/x", "/out/app", "/x"),
    ("/out", "/out/app", "/x", "/out/app", "/x"),
    ("/out/app", "/out", "/app/x", "/out/app", "/x"),
    ("/", "", "/x", "", "/x"),
    ("", "", "/x", "", "/x"),
    ("app", "", "/app/x", "", "/app/x"),
    ("//evil.example", "", "/x", "", "/x"),
    ("/a//b", "", "/x", "", "/x"),
    ("/a/../b", "", "/x", "", "/x"),
    ("/a/%2e%2e/b", "", "/x", "", "/x"),
    ("/a?b", "", "/x", "", "/x"),
    ("/a%0d%0ab", "", "/x", "", "/x"),
    ("/a\\b", "", "/x", "", "/x"),
    ("/a%zz", "", "/x", "", "/x"),
    ("/evil, /app", "", "/app/x", "/app", "/x"),
]


@pytest.mark.parametrize(("prefix", "script", "info", "script_after", "info_after"), PREFIXES)
def test_the_prefix_is_split_off_or_put_in_front(prefix, script, info, script_after, info_after):
    environ = apply({"X-Forwarded-Prefix": prefix}, SCRIPT_NAME=script, PATH_INFO=info)
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == (script_after, info_after)


def test_the_prefix_does_not_count_where_the_mount_point_is_set():
    environ = apply({"X-Forwarded-Prefix": "/app"}, mounts=False, PATH_INFO="/app/x")
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("", "/app/x")


def test_a_long_list_with_an_open_quotation_mark_costs_no_quadratic_time():
    """Each of these was a look at all that stands right of it."""
    text = "," * 1_000_000 + '"'
    assert list(elements_from_right(text)) == []


# Whatever comes

TEXT = st.text(st.characters(max_codepoint=255), max_size=60) | st.lists(
    st.sampled_from(
        ["192.0.2.1", "10.0.0.2", "[::1]:80", "for=", "proto=https", '"', ",", ";", "\\", ":", "/"]
    ),
    max_size=9,
).map("".join)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(ALL_CLAIMS, TEXT)), st.booleans())
def test_any_text_is_taken_or_left_and_nothing_is_injected(headers, trusted):
    environ = apply(headers, REMOTE_ADDR=PROXY if trusted else "192.0.2.9")
    for name in ("REMOTE_ADDR", "HTTP_HOST", "SERVER_NAME", "SERVER_PORT"):
        assert environ[name]
        assert not set(environ[name]) & set(' \t\r\n\0,"\\/<>@')
    assert environ["SCRIPT_NAME"][:1] in ("", "/")
    assert not environ["SCRIPT_NAME"].startswith("//")
    if not trusted:
        assert changed(environ) == {"REMOTE_ADDR": "192.0.2.9"}


@given(TEXT)
def test_an_address_of_a_hop_is_one(text):
    address = hop_address(text)
    assert address is None or address == "" or hop_address(address) == address
