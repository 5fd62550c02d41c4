"""Path, query and header fields of a request arrive right behind every file of deploy/."""

import pytest


def latin(text):
    """What PEP 3333 makes of text that travels as UTF-8."""
    return text.encode().decode("latin-1")


#: Target below the mount, PATH_INFO as the client spelt it, PATH_INFO as a front end tidies it.
PATHS = [
    ("/", "/", "/"),
    ("/a", "/a", "/a"),
    ("/a/", "/a/", "/a/"),
    ("/a%20b/%C3%A9", latin("/a b/é"), latin("/a b/é")),
    ("/%ff%80", "/\xff\x80", "/\xff\x80"),
    ("/%25/%2541", "/%/%41", "/%/%41"),
    ("/a+b;c=1,2:@&=$!~*'()", "/a+b;c=1,2:@&=$!~*'()", "/a+b;c=1,2:@&=$!~*'()"),
    ("/a%2Bb%3Bc", "/a+b;c", "/a+b;c"),
    ("/a%3Fb%23c", "/a?b#c", "/a?b#c"),
    ("/a%2Fb", "/a/b", "/a/b"),
    ("/a%2F%2Fb", "/a//b", "/a/b"),
    ("//a///b//", "//a///b//", "/a/b/"),
    ("/x/./y", "/x/./y", "/x/y"),
    ("/x/../y", "/x/../y", "/y"),
    ("/x/%2E%2E/y", "/x/../y", "/y"),
    ("/x/y/..", "/x/y/..", "/x/"),
    ("/app/app", "/app/app", "/app/app"),
    ("/" + "long/" * 1000, "/" + "long/" * 1000, "/" + "long/" * 1000),
]

QUERIES = ["", "x", "x=1&y=%26", "a=b?c=/d//e/../f", "%20+%C3%A9;%00", "a=%252F&&="]


def tidies(way, target):
    """Whether the gateway hears of the path only as the front end has routed it."""
    if way.server == "apache" and way.mount == "root" and target.startswith("//"):
        return True  # Apache ignores "nocanon" where its own merging of slashes touched the match.
    return way.protocol != "http"


@pytest.mark.parametrize(
    ("target", "spelt", "tidied"), PATHS, ids=[target[:24] for target, _, _ in PATHS]
)
def test_path(site, target, spelt, tidied):
    environ = site.ask(target).json()
    assert environ["SCRIPT_NAME"] == site.way.prefix
    assert environ["PATH_INFO"] == (tidied if tidies(site.way, target) else spelt)
    assert environ["QUERY_STRING"] == ""
    if site.way.protocol != "http" or not tidies(site.way, target):
        assert environ["REQUEST_URI"] == environ["RAW_URI"] == site.way.prefix + target


def test_the_clients_own_spelling(site, servers):
    """With path_info_source=request_uri, every way agrees to the byte."""
    site = servers.site(site.way, "--path-info-source=request_uri")
    for target, spelt, tidied in PATHS:
        lost = site.way.protocol == "http" and tidies(site.way, target)
        environ = site.ask(target).json()
        assert environ["SCRIPT_NAME"] == site.way.prefix
        assert environ["PATH_INFO"] == (tidied if lost else spelt)


@pytest.mark.parametrize("query", QUERIES)
def test_query(site, query):
    environ = site.ask(f"/a%20b?{query}").json()
    assert environ["QUERY_STRING"] == query
    assert environ["PATH_INFO"] == "/a b"
    assert environ["REQUEST_URI"] == f"{site.way.prefix}/a%20b?{query}"


@pytest.mark.parametrize("query", ["", "?x=1"])
def test_exactly_the_mount_point(site_below_prefix, query):
    environ = site_below_prefix.ask(query).json()
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/app", "")
    assert environ["QUERY_STRING"] == query[1:]


def test_a_longer_name_is_not_below_the_mount_point(site_below_prefix):
    """/application does not belong to /app."""
    answer = site_below_prefix.ask("lication")
    if site_below_prefix.way.server == "direct":
        environ = answer.json()
        assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("", "/application")
    else:
        assert answer.status == 404
        assert not answer.all("X-Probe")


@pytest.mark.parametrize("target", ["/../secret", "/x/../../secret", "/%2E%2E/secret"])
def test_dots_cannot_move_the_mount_point(site, target):
    """Above the mount the application is not called, or sees the dots for what they are."""
    answer = site.ask(target)
    if answer.all("X-Probe"):
        environ = answer.json()
        assert environ["SCRIPT_NAME"] == site.way.prefix
        assert ".." in environ["PATH_INFO"]
    else:
        assert answer.status in {400, 403, 404}


def test_repeated_fields(site):
    headers = [("Cookie", "a=1"), ("X-Two", "one"), ("Cookie", "b=2"), ("X-Two", "two")]
    environ = site.ask(headers=headers).json()
    # Apache joins every repeated field with a comma, before anybody else can.
    cookies = {"apache": "a=1, b=2"}.get(site.way.server, "a=1; b=2")
    assert environ["HTTP_COOKIE"] == cookies
    assert environ["HTTP_X_TWO"].replace(", ", ",") == "one,two"


def test_fields_arrive_or_do_not(site):
    headers = [
        ("Authorization", "Basic dXNlcjpzZWNyZXQ="),
        ("X-Latin", "caf\xe9"),
        ("X-Empty", ""),
        ("X_Under_Score", "spoof"),
        ("Proxy", "http://evil.example/"),
        ("HTTPS", "on"),
        ("Script-Name", "/spoof"),
        ("Connection", "X-Latin-2"),
        ("TE", "trailers"),
    ]
    environ = site.ask(headers=headers).json()
    assert environ["HTTP_AUTHORIZATION"] == "Basic dXNlcjpzZWNyZXQ="
    assert environ["HTTP_X_LATIN"] == "caf\xe9"
    assert environ["HTTP_X_EMPTY"] == ""
    assert environ["wsgi.url_scheme"] == "http"
    assert environ["SCRIPT_NAME"] == site.way.prefix
    unwanted = {"HTTP_X_UNDER_SCORE", "HTTP_PROXY", "HTTP_CONNECTION", "HTTP_TE", "HTTPS"}
    assert not unwanted & environ.keys()


def test_a_user_whom_nobody_has_checked_is_no_user(site):
    environ = site.ask(headers=[("Authorization", "Basic dXNlcjpzZWNyZXQ=")]).json()
    assert "REMOTE_USER" not in environ


def test_large_head(site):
    cookie, value = "c=" + "x" * 6000, "v" * 7000
    environ = site.ask(
        "/" + "p" * 3000 + "?" + "q" * 3000, headers=[("Cookie", cookie), ("X-Large", value)]
    ).json()
    assert environ["HTTP_COOKIE"] == cookie
    assert environ["HTTP_X_LARGE"] == value
    assert (len(environ["PATH_INFO"]), len(environ["QUERY_STRING"])) == (3001, 3000)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"])
def test_method(site, method):
    assert site.ask(method=method).json()["REQUEST_METHOD"] == method


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_body_where_none_is_usual(site, method):
    environ = site.ask(method=method, body=b"unusual").json()
    assert (environ["body"], environ["CONTENT_LENGTH"]) == ("unusual", "7")


def test_absolute_target_of_another_host(site):
    """Nobody may smuggle a Host that contradicts the request line."""
    answer = site.ask_raw(
        f"GET http://other.example{site.way.prefix}/x HTTP/1.1\r\nHost: example.org:8080\r\n"
        "Connection: close\r\n\r\n"
    )
    if site.way.server == "direct":
        assert answer.status == 400
        return
    environ = answer.json()
    assert environ["HTTP_HOST"] == "other.example"
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == (site.way.prefix, "/x")
