"""The same request has the same environ, whichever way it came.

Every variable is compared.  What may differ stands in DIFFERENCES, with the reason.
"""

from fnmatch import fnmatchcase

import pytest

ABSENT = None
ANY = "{any}"
GATEWAY = "gateway/{any}"

HEADERS = [
    ("Accept", "text/html, */*;q=0.5"),
    ("Accept-Language", "tr, en;q=0.7"),
    ("Authorization", "Basic dXNlcjpzZWNyZXQ="),
    ("Cookie", "a=1; b=2"),
    ("Origin", "http://example.org:8080"),
    ("If-None-Match", '"tag"'),
    ("Referer", "http://example.org:8080/\xe9"),
    ("User-Agent", "interop/1.0"),
    ("X-Empty", ""),
    ("X-Request-ID", "42"),
]

#: What the application sees over plain HTTP, at the root.
EXPECTED = {
    "HTTP_ACCEPT": "text/html, */*;q=0.5",
    "HTTP_ACCEPT_LANGUAGE": "tr, en;q=0.7",
    "HTTP_AUTHORIZATION": "Basic dXNlcjpzZWNyZXQ=",
    "HTTP_COOKIE": "a=1; b=2",
    "HTTP_HOST": "example.org:8080",
    "HTTP_ORIGIN": "http://example.org:8080",
    "HTTP_IF_NONE_MATCH": '"tag"',
    "HTTP_REFERER": "http://example.org:8080/\xe9",
    "HTTP_USER_AGENT": "interop/1.0",
    "HTTP_X_APP": "environ",
    "HTTP_X_EMPTY": "",
    "HTTP_X_REQUEST_ID": "42",
    "QUERY_STRING": "x=1&y=%26&z=%C3%A9",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "PATH_INFO": "/a b/\xc3\xa9",
    "GATEWAY_INTERFACE": "CGI/1.1",
    "REMOTE_ADDR": "127.0.0.1",
    "REMOTE_PORT": "{any}",
    "wsgi.url_scheme": "http",
    "wsgi.version": [1, 0],
    "wsgi.multithread": True,
    "wsgi.multiprocess": True,
    "wsgi.run_once": False,
    "wsgi.input_terminated": True,
}

TARGET = "/a%20b/%C3%A9?x=1&y=%26&z=%C3%A9"

REQUESTS = {
    "get": ({}, {"REQUEST_METHOD": "GET", "body": ""}),
    "post": (
        {"method": "POST", "body": b"a=1&b=2", "headers": [("Content-Type", "text/x-form")]},
        {
            "REQUEST_METHOD": "POST",
            "CONTENT_LENGTH": "7",
            "CONTENT_TYPE": "text/x-form",
            "body": "a=1&b=2",
        },
    ),
}

#: The ways where it differs, what the variables are there, why.
DIFFERENCES = [
    (
        "direct-http-tcp-*",
        {"SERVER_NAME": "127.0.0.1", "SERVER_PORT": "{port}", "SERVER_SOFTWARE": GATEWAY},
        "there is no front end: the server is the gateway, its address that of the bind",
    ),
    (
        "direct-http-unix-*",
        {
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "SERVER_SOFTWARE": GATEWAY,
            "REMOTE_ADDR": "",
            "REMOTE_PORT": ABSENT,
        },
        "a unix socket has neither port nor address, and the peer of HTTP is all that is known",
    ),
    (
        "nginx-http-unix-* apache-http-unix-*",
        {
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "8080",
            "SERVER_SOFTWARE": GATEWAY,
            "REMOTE_PORT": ABSENT,
        },
        "address and port come from the front end's X-Forwarded-For and Host, and no more is known",
    ),
    (
        "nginx-http-tcp-* apache-http-tcp-*",
        {"SERVER_NAME": "127.0.0.1", "SERVER_PORT": ANY, "SERVER_SOFTWARE": GATEWAY},
        "over HTTP the server is the gateway: its address is that of the bind",
    ),
    (
        "nginx-http-* apache-http-*",
        {"HTTP_X_FORWARDED_FOR": "127.0.0.1", "HTTP_X_FORWARDED_PROTO": "http"},
        "only fields of the request can tell an HTTP back end of the client",
    ),
    (
        "nginx-fastcgi-* nginx-scgi-* nginx-uwsgi-*",
        {"SERVER_NAME": "example.org", "SERVER_PORT": "{port}"},
        "nginx sends its server_name and the port it listens on",
    ),
    (
        "apache-fastcgi-* apache-scgi-* apache-uwsgi-*",
        {"SERVER_NAME": "example.org", "SERVER_PORT": "8080"},
        "Apache takes both from the Host field (UseCanonicalName Off)",
    ),
    ("nginx-fastcgi-*", {"SERVER_SOFTWARE": "nginx/{any}"}, "the server is nginx"),
    (
        "nginx-scgi-* nginx-uwsgi-*",
        {"SERVER_SOFTWARE": ABSENT},
        "nginx's scgi_params and uwsgi_params do not have it",
    ),
    (
        "apache-fastcgi-* apache-scgi-* apache-uwsgi-*",
        {"SERVER_SOFTWARE": "Apache/{any}"},
        "the server is Apache",
    ),
    (
        "nginx-fastcgi-* nginx-scgi-* nginx-uwsgi-* apache-fastcgi-* apache-scgi-* apache-uwsgi-*",
        {"REQUEST_SCHEME": "http", "DOCUMENT_ROOT": ANY},
        "extensions of CGI that all front ends send, left as they come",
    ),
    (
        "nginx-fastcgi-* nginx-scgi-*",
        {"DOCUMENT_URI": "{prefix}/a b/\xc3\xa9"},
        "nginx's own name for the path",
    ),
    (
        "nginx-fastcgi-*",
        {"SERVER_ADDR": "127.0.0.1", "REDIRECT_STATUS": "200"},
        "nginx's fastcgi_params have them, the scgi_params do not",
    ),
    (
        "apache-fastcgi-* apache-scgi-* apache-uwsgi-*",
        {
            "CONTEXT_DOCUMENT_ROOT": ANY,
            "CONTEXT_PREFIX": "",
            "PATH": ANY,
            "SCRIPT_FILENAME": ANY,
            "SERVER_ADDR": "127.0.0.1",
            "SERVER_ADMIN": ANY,
            "SERVER_SIGNATURE": "",
        },
        "what Apache gives every CGI program",
    ),
    ("apache-scgi-*", {"ap_trust_cgilike_cl": "1"}, "set by the file, for Apache"),
]


def matches(value, expected, site):
    if not isinstance(expected, str) or not isinstance(value, str):
        return value == expected
    port = "" if isinstance(site.address, str) else str(site.address[1])
    known = expected.replace("{port}", port).replace("{prefix}", site.way.prefix)
    start, any_, end = known.partition("{any}")
    return value.startswith(start) and value.endswith(end) and (any_ or value == known)


def unexpected(site, kind, differences):
    """Every variable that is not as it should be: what it is and what it should be."""
    request, body_variables = REQUESTS[kind]
    request = request | {"headers": HEADERS + request.get("headers", [])}
    uri = site.way.prefix + TARGET
    expected = EXPECTED | body_variables
    expected |= {"SCRIPT_NAME": site.way.prefix, "REQUEST_URI": uri, "RAW_URI": uri}
    for ways, values, _ in differences:
        if any(fnmatchcase(str(site.way), pattern) for pattern in ways.split()):
            expected |= values
    environ = site.ask(TARGET, **request).json()
    return {
        name: (environ.get(name, ABSENT), expected.get(name, ABSENT))
        for name in environ.keys() | expected.keys()
        if not matches(environ.get(name, ABSENT), expected.get(name, ABSENT), site)
    }


@pytest.mark.parametrize("kind", REQUESTS)
def test_same_environ(site, kind):
    assert not unexpected(site, kind, DIFFERENCES)
