"""The rules of environ.py: what front ends send, and the one environ that it means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.environ import (
    BadVariables,
    CgiNormaliser,
    below,
    decode_path,
    http_mounter,
    split_uri,
    tidy,
)

#: ``GET /a%20b/%C3%A9?x=1&y=%26`` as the front ends route it.
URI = "/a%20b/%C3%A9?x=1&y=%26"
PATH = "/a b/\xc3\xa9"
QUERY = {"QUERY_STRING": "x=1&y=%26"}
APP_URI, APP_PATH = "/app" + URI, "/app" + PATH


def normal(variables, mount=None, source="routed"):
    environ = {"REQUEST_METHOD": "GET", **variables}
    CgiNormaliser(mount, source).apply(environ)
    return environ


def paths(variables, mount=None, source="routed"):
    environ = normal(variables, mount, source)
    return environ["SCRIPT_NAME"], environ["PATH_INFO"]


#: Stock configurations at the root: SCRIPT_NAME, PATH_INFO and DOCUMENT_URI as they come.
AT_ROOT = {
    "nginx fastcgi": {"SCRIPT_NAME": PATH, "DOCUMENT_URI": PATH, **QUERY},
    "nginx scgi": {"DOCUMENT_URI": PATH, **QUERY},
    "Apache fcgi ProxyPass": {"SCRIPT_NAME": PATH, **QUERY},
    "Apache scgi ProxyPass": {"SCRIPT_NAME": PATH, "CONTENT_LENGTH": "0", **QUERY},
    "lighttpd fix-root": {"SCRIPT_NAME": "", "PATH_INFO": PATH, **QUERY},
    "HAProxy fcgi": {"SCRIPT_NAME": PATH},
    "HAProxy path-info": {"PATH_INFO": PATH},
    "Caddy fastcgi": {"SCRIPT_NAME": "", "PATH_INFO": PATH, "DOCUMENT_URI": "", **QUERY},
}
#: These split the path at its first segment, and only script_name = / can tell.
BOGUS_SPLIT = {
    "Apache fcgi SetHandler": {"SCRIPT_NAME": "/a b", "PATH_INFO": "/\xc3\xa9", **QUERY},
    "lighttpd /": {"SCRIPT_NAME": "/a b", "PATH_INFO": "/\xc3\xa9", **QUERY},
}
#: The same below /app.
AT_APP = {
    "nginx fastcgi": {"SCRIPT_NAME": APP_PATH, "DOCUMENT_URI": APP_PATH},
    "nginx scgi": {"DOCUMENT_URI": APP_PATH},
    "Apache ProxyPass": {"SCRIPT_NAME": APP_PATH},
    "HAProxy fcgi": {"SCRIPT_NAME": APP_PATH},
}
SPLIT_AT_APP = {
    "mod_fcgid Alias": {"SCRIPT_NAME": "/app", "PATH_INFO": PATH},
    "lighttpd /app": {"SCRIPT_NAME": "/app", "PATH_INFO": PATH},
    "HAProxy path-info": {"SCRIPT_NAME": "/app", "PATH_INFO": PATH},
    "scgi_param SCRIPT_NAME /app": {"SCRIPT_NAME": "/app", "DOCUMENT_URI": APP_PATH},
}


@pytest.mark.parametrize("front_end", AT_ROOT)
@pytest.mark.parametrize("mount", [None, "/", "/elsewhere"])
@pytest.mark.parametrize("source", ["routed", "request_uri"])
def test_stock_configuration_at_the_root(front_end, mount, source):
    environ = normal(AT_ROOT[front_end] | {"REQUEST_URI": URI}, mount, source)
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("", PATH)
    assert environ["QUERY_STRING"] == "x=1&y=%26"
    assert environ["REQUEST_URI"] == URI


@pytest.mark.parametrize("front_end", BOGUS_SPLIT)
def test_a_bogus_split_is_trusted_unless_script_name_says_otherwise(front_end):
    variables = BOGUS_SPLIT[front_end] | {"REQUEST_URI": URI}
    assert paths(variables) == ("/a b", "/\xc3\xa9")
    assert paths(variables, "/") == ("", PATH)


@pytest.mark.parametrize("front_end", AT_APP | SPLIT_AT_APP)
def test_configured_mount_point(front_end):
    variables = (AT_APP | SPLIT_AT_APP)[front_end] | {"REQUEST_URI": APP_URI}
    assert paths(variables, "/app") == ("/app", PATH)
    assert paths(variables, "/") == ("", APP_PATH)


@pytest.mark.parametrize("front_end", SPLIT_AT_APP)
def test_a_real_split_of_the_front_end_is_trusted(front_end):
    assert paths(SPLIT_AT_APP[front_end] | {"REQUEST_URI": APP_URI}) == ("/app", PATH)


@pytest.mark.parametrize("front_end", AT_APP)
def test_without_a_split_or_a_mount_point_the_whole_is_the_path(front_end):
    assert paths(AT_APP[front_end] | {"REQUEST_URI": APP_URI}) == ("", APP_PATH)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/app", ("/app", "")),
        ("/app/", ("/app", "/")),
        ("/app/x", ("/app", "/x")),
        ("/app//x", ("/app", "//x")),
        ("/application/x", ("", "/application/x")),
        ("/ap", ("", "/ap")),
        ("/", ("", "/")),
        ("/x/app/y", ("", "/x/app/y")),
        ("/APP/x", ("", "/APP/x")),
    ],
)
def test_the_mount_point_is_split_off_by_whole_segments(path, expected):
    assert paths({"DOCUMENT_URI": path, "REQUEST_URI": path}, "/app") == expected
    environ = {"SCRIPT_NAME": "", "PATH_INFO": path}
    http_mounter("/app").apply(environ)
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == expected


@pytest.mark.parametrize("mount", [None, "/"])
def test_at_the_root_http_needs_no_mounting(mount):
    assert http_mounter(mount) is None


@pytest.mark.parametrize(
    ("uri", "tidied", "routed", "spelt"),
    [
        # below the mount point the client's spelling is the same place
        ("/app//x/./y", "/app/x/y", "/x/y", "//x/./y"),
        ("/app/x/../y", "/app/y", "/y", "/x/../y"),
        ("/app/x/y/..", "/app/x/", "/x/", "/x/y/.."),
        ("/app/%78", "/app/x", "/x", "/x"),
        ("/app/a%2Fb", "/app/a/b", "/a/b", "/a/b"),
        # these must not move SCRIPT_NAME or climb out of it
        ("/a/../app/x", "/app/x", "/x", "/x"),
        ("/app/../app/x", "/app/x", "/x", "/x"),
        ("/app/x/../../app/y", "/app/y", "/y", "/y"),
        ("//app/x", "/app/x", "/x", "/x"),
        # the administrator rewrote it
        ("/app/old", "/app/new", "/new", "/new"),
        ("/pretty", "/app/x", "/x", "/x"),
        # a directory is not a file
        ("/app/x/", "/app/x", "/x", "/x"),
    ],
)
def test_path_info_source(uri, tidied, routed, spelt):
    for sent in (
        {"SCRIPT_NAME": tidied, "DOCUMENT_URI": tidied},
        {"DOCUMENT_URI": tidied},
        {"SCRIPT_NAME": "", "PATH_INFO": tidied},
    ):
        variables = sent | {"REQUEST_URI": uri}
        assert paths(variables, "/app") == ("/app", routed)
        assert paths(variables, "/app", "request_uri") == ("/app", spelt)


@pytest.mark.parametrize(
    ("uri", "tidied", "spelt"),
    [
        ("//a//b", "/a/b", "//a//b"),
        ("/x/../y", "/y", "/x/../y"),
        ("/../y", "/y", "/y"),
        ("/", "/", "/"),
        ("/a/", "/a/", "/a/"),
    ],
)
def test_path_info_source_at_the_root(uri, tidied, spelt):
    variables = {"SCRIPT_NAME": tidied, "DOCUMENT_URI": tidied, "REQUEST_URI": uri}
    assert paths(variables) == ("", tidied)
    assert paths(variables, None, "request_uri") == ("", spelt)


def test_the_split_follows_the_routed_path_and_not_the_spelling():
    """``/x/y/..`` must not move the split."""
    variables = {"SCRIPT_NAME": "/x", "DOCUMENT_URI": "/x/", "REQUEST_URI": "/x/y/.."}
    assert paths(variables) == ("/x", "/")
    variables = {"SCRIPT_NAME": "/app", "DOCUMENT_URI": "/application", "REQUEST_URI": "/app"}
    assert paths(variables) == ("", "/application")


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        # what is decoded is not decoded again
        ({"DOCUMENT_URI": "/100%/%41", "REQUEST_URI": "/100%25/%2541"}, ("", "/100%/%41")),
        ({"REQUEST_URI": "/100%25/%2541"}, ("", "/100%/%41")),
        # absolute-form, as Apache and old HAProxy keep it
        ({"REQUEST_URI": "http://other:8080/a%20b?q"}, ("", "/a b")),
        ({"REQUEST_URI": "http://other?q"}, ("", "/")),
        ({"SCRIPT_NAME": "/a b", "REQUEST_URI": "http://other/a%20b"}, ("", "/a b")),
        ({"REQUEST_URI": "/a?http://x/y"}, ("", "/a")),
        # SCRIPT_NAME alone, at the same place or elsewhere: it is the whole path
        ({"SCRIPT_NAME": "/x/y", "REQUEST_URI": "/x//y"}, ("", "/x/y")),
        ({"SCRIPT_NAME": "/rewritten", "REQUEST_URI": "/x"}, ("", "/rewritten")),
        # ... or a mount point above the path
        ({"SCRIPT_NAME": "/x", "REQUEST_URI": "/x/y"}, ("/x", "/y")),
        ({"SCRIPT_NAME": "/x", "REQUEST_URI": "/xy"}, ("", "/x")),
        # PEP 3333: the root is the empty string
        ({"SCRIPT_NAME": "/", "PATH_INFO": "x", "REQUEST_URI": "/x"}, ("", "/x")),
        ({"SCRIPT_NAME": "/", "PATH_INFO": "/x", "REQUEST_URI": "/x"}, ("", "/x")),
        ({"SCRIPT_NAME": "/", "REQUEST_URI": "/x"}, ("", "/x")),
        # an empty path where the client sent one
        ({"SCRIPT_NAME": "", "PATH_INFO": "", "REQUEST_URI": "/x"}, ("", "/x")),
        ({"SCRIPT_NAME": "/app", "PATH_INFO": "", "REQUEST_URI": "/app"}, ("/app", "")),
        # nothing but a path
        ({"PATH_INFO": "/only"}, ("", "/only")),
        ({"SCRIPT_NAME": "/only"}, ("", "/only")),
        ({}, ("", "")),
    ],
)
def test_paths_from_whatever_there_is(variables, expected):
    assert paths(variables) == expected


@pytest.mark.parametrize(
    ("variables", "uri"),
    [
        ({"PATH_INFO": "/a b/\xc3\xa9", "QUERY_STRING": "x=1"}, "/a%20b/%C3%A9?x=1"),
        ({"SCRIPT_NAME": "/app", "PATH_INFO": "/100%"}, "/app/100%25"),
        ({"PATH_INFO": "/x?y#z"}, "/x%3Fy%23z"),
        ({"PATH_INFO": "/x", "REQUEST_URI": ""}, "/x"),
    ],
)
def test_request_uri_is_rebuilt_where_none_is_sent(variables, uri):
    environ = normal(variables)
    assert environ["REQUEST_URI"] == uri
    assert decode_path(split_uri(uri)[0]) == environ["SCRIPT_NAME"] + environ["PATH_INFO"]


@pytest.mark.parametrize(
    ("variables", "query"),
    [
        ({"REQUEST_URI": "/x?a=%20"}, "a=%20"),
        ({"REQUEST_URI": "/x?"}, ""),
        ({"REQUEST_URI": "/x"}, ""),
        ({"REQUEST_URI": "/x?a?b"}, "a?b"),
        ({"REQUEST_URI": "/x?client", "QUERY_STRING": "rewritten"}, "rewritten"),
        ({"REQUEST_URI": "/x?client", "QUERY_STRING": ""}, ""),
        ({}, ""),
    ],
)
def test_query_string_is_as_sent_or_from_the_uri(variables, query):
    assert normal(variables)["QUERY_STRING"] == query


@pytest.mark.parametrize(
    ("variables", "scheme", "port"),
    [
        ({}, "http", "80"),
        ({"REQUEST_SCHEME": "https"}, "https", "443"),
        ({"REQUEST_SCHEME": "gopher"}, "http", "80"),
        *(({"HTTPS": word}, "https", "443") for word in ("on", "ON", "1", "true", "Yes", "https")),
        *(({"HTTPS": word}, "http", "80") for word in ("", "off", "0", "no")),
        ({"HTTPS": "off", "REQUEST_SCHEME": "https"}, "https", "443"),
        ({"HTTPS": "on", "REQUEST_SCHEME": "http", "SERVER_PORT": "8443"}, "https", "8443"),
        ({"HTTP_HTTPS": "on"}, "http", "80"),
    ],
)
def test_scheme_and_port(variables, scheme, port):
    environ = normal(variables)
    assert (environ["wsgi.url_scheme"], environ["SERVER_PORT"]) == (scheme, port)


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("example.org", "example.org"),
        ("example.org:8080", "example.org"),
        ("[2001:db8::1]:8080", "[2001:db8::1]"),
        ("[2001:db8::1]", "[2001:db8::1]"),
        ("2001:db8::1", "2001:db8::1"),
        ("", "localhost"),
        (None, "localhost"),
    ],
)
def test_server_name_has_no_port(sent, name):
    assert normal({} if sent is None else {"SERVER_NAME": sent})["SERVER_NAME"] == name


def test_server_protocol_is_kept_and_never_missing():
    assert normal({"SERVER_PROTOCOL": "HTTP/2.0"})["SERVER_PROTOCOL"] == "HTTP/2.0"
    assert normal({})["SERVER_PROTOCOL"] == "HTTP/1.0"


@pytest.mark.parametrize("name", ["AUTH_TYPE", "CONTENT_TYPE", "HTTPS", "REMOTE_USER"])
def test_empty_means_absent_where_front_ends_always_send_it(name):
    assert name not in normal({name: ""})
    assert normal({name: "x"})[name] == "x"


@pytest.mark.parametrize(
    ("method", "sent", "length"),
    [
        ("GET", "", None),
        ("GET", "0", None),
        ("HEAD", "0", None),
        ("POST", "-1", None),
        ("POST", "", None),
        ("POST", "0", "0"),
        ("GET", "5", "5"),
        ("POST", "5", "5"),
    ],
)
def test_content_length_says_something_or_is_absent(method, sent, length):
    environ = normal({"REQUEST_METHOD": method, "CONTENT_LENGTH": sent})
    assert environ.get("CONTENT_LENGTH") == length


@pytest.mark.parametrize("method", ["GE T", "GET\r\nX: y", "GET\0", "\xe9", "GET /", " GET"])
def test_a_method_that_is_no_token_is_refused(method):
    with pytest.raises(BadVariables, match="REQUEST_METHOD is no method"):
        normal({"REQUEST_METHOD": method})


@pytest.mark.parametrize("method", ["PROPFIND", "get", "X-PURGE", "M-SEARCH"])
def test_any_token_is_a_method(method):
    assert normal({"REQUEST_METHOD": method})["REQUEST_METHOD"] == method


@pytest.mark.parametrize("variables", [{"REQUEST_METHOD": ""}, {}])
def test_without_a_method_it_is_no_request(variables):
    with pytest.raises(BadVariables, match="REQUEST_METHOD is missing"):
        CgiNormaliser(None, "routed").apply(dict(variables))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "/"),
        ("", "/"),
        ("//", "/"),
        ("/a/./b", "/a/b"),
        ("/a//b/", "/a/b/"),
        ("/a/b/..", "/a/"),
        ("/a/.", "/a/"),
        ("/a/..", "/"),
        ("/..", None),
        ("/a/../..", None),
        ("/...", "/..."),
    ],
)
def test_tidy(path, expected):
    assert tidy(path) == expected


TEXT = st.text(st.sampled_from("/.a%2Fb?\xe9: "), max_size=12)
URIS = st.one_of(TEXT, TEXT.map("/".__add__), st.just("http://h/x"))


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "SCRIPT_NAME": TEXT,
            "PATH_INFO": TEXT,
            "DOCUMENT_URI": TEXT,
            "REQUEST_URI": URIS,
            "QUERY_STRING": TEXT,
            "SERVER_NAME": TEXT,
            "HTTPS": TEXT,
        },
    ),
    st.sampled_from([None, "/", "/a", "/a/b"]),
)
def test_any_variables_make_a_sound_environ(variables, mount):
    routed = normal(variables, mount)
    spelt = normal(variables, mount, "request_uri")
    for environ in (routed, spelt):
        assert all(type(value) is str for value in environ.values())
        script, info = environ["SCRIPT_NAME"], environ["PATH_INFO"]
        assert script != "/"
        if mount is not None:
            assert script in ("", mount.rstrip("/"))
            assert script == "" or info[:1] in ("", "/")
    assert spelt["SCRIPT_NAME"] == routed["SCRIPT_NAME"]
    assert spelt["PATH_INFO"] == routed["PATH_INFO"] or tidy(spelt["PATH_INFO"]) == tidy(
        routed["PATH_INFO"]
    )
    if mount not in (None, "/") and not routed["SCRIPT_NAME"]:
        assert not below(routed["PATH_INFO"], mount)
