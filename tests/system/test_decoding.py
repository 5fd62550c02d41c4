"""A path is percent-decoded exactly once, whoever does it; a query never is."""

import json
from urllib.parse import quote, unquote_to_bytes

import pytest

APP = """
import json

NAMES = ("SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REQUEST_URI", "RAW_URI")

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps([environ[name] for name in NAMES]).encode()]
"""

#: What stands for a path below the mount point, and what it is once it is decoded.
PATHS = {
    "/plain": "/plain",
    "/a%20b+c": "/a b+c",
    "/%C3%A9": "/\xc3\xa9",
    # Encoded twice: the inner code stays.
    "/%2520": "/%20",
    "/%252e%252e/x": "/%2e%2e/x",
    "/%252F": "/%2F",
    "/%25252e": "/%252e",
    "/%25": "/%",
    "/%2541%41": "/%41A",
    "/%2500": "/%00",
    "/%250d%250aX": "/%0d%0aX",
    # What a second look would take for something else.
    "/a%2fb": "/a/b",
    "/a%5cb": "/a\\b",
    "/..%2f..%2fx": "/../../x",
    "/%2e%2e/x": "/../x",
    "/x/%2e/y": "/x/./y",
    "/%3fq": "/?q",
    "/%23f": "/#f",
    "/%3b": "/;",
    "/%00": "/\0",
    "/%0d%0aX:%20y": "/\r\nX: y",
    "/%7f%80": "/\x7f\x80",
    # No UTF-8, or more of it than needed: bytes are bytes (PEP 3333).
    "/%ff%fe": "/\xff\xfe",
    "/%c0%af": "/\xc0\xaf",
    "/%c0%ae%c0%ae/x": "/\xc0\xae\xc0\xae/x",
    "/%e0%80%af": "/\xe0\x80\xaf",
    "/%ed%a0%80": "/\xed\xa0\x80",
    "/%F4%90%80%80": "/\xf4\x90\x80\x80",
    # Nothing is tidied on the way.
    "//a///b": "//a///b",
    "/a/./b/../c": "/a/./b/../c",
}
QUERY = "a=%2525&b=%2f..%00&c=+%20%zz&d=?"


@pytest.fixture(scope="module")
def servers(serve_module):
    """By the mount point that is set, if one is."""
    return {
        "": serve_module(APP, "--forwarded-headers", "x-forwarded-prefix", kinds=["tcp"]),
        "/app": serve_module(APP, "--script-name", "/app", kinds=["tcp"]),
        "/a b": serve_module(APP, "--script-name", "/a b", kinds=["tcp"]),
        "request_uri": serve_module(APP, "--path-info-source", "request_uri", kinds=["tcp"]),
    }


def seen(server, protocol, target, **request):
    answer = server.ask(protocol, target, **request)
    assert answer.status == 200, answer
    return json.loads(answer.body)


def test_the_table_is_what_the_library_makes_of_it():
    for path, decoded in PATHS.items():
        assert unquote_to_bytes(path).decode("latin-1") == decoded


@pytest.mark.parametrize("path", PATHS)
def test_over_http(servers, path):
    target = f"{path}?{QUERY}"
    for host in ("", "http://localhost"):
        found = seen(servers[""], "http", host + target)
        assert found == ["", PATHS[path], QUERY, host + target, host + target]
    for mount, spelt in (("/app", "/app"), ("/app", "/%61p%70"), ("/a b", "/a%20b")):
        found = seen(servers[mount], "http", spelt + target)
        assert found == [mount, PATHS[path], QUERY, spelt + target, spelt + target]
    # Not the mount point, but what it would be after one decoding too many.
    for spelt, decoded in (("/%2561pp", "/%61pp"), ("/app%252f", "/app%2f")):
        found = seen(servers["/app"], "http", spelt + target)
        assert found[:2] == ["", decoded + PATHS[path]]


@pytest.mark.parametrize("path", PATHS)
def test_a_prefix_of_the_proxy(servers, path):
    target = f"{path}?{QUERY}"
    for prefix, decoded in (("/out", "/out"), ("/a%20b", "/a b"), ("/%2561", "/%61")):
        headers = [("X-Forwarded-Prefix", prefix)]
        found = seen(servers[""], "http", target, headers=headers)
        assert found[:2] == [decoded, PATHS[path]]
        found = seen(servers[""], "http", prefix + target, headers=headers)
        assert found[:2] == [decoded, PATHS[path]]


#: How front ends say where a request goes: they have decoded it, once.
WAYS = {
    "DOCUMENT_URI": lambda mount, path: {"DOCUMENT_URI": mount + path},
    "SCRIPT_NAME": lambda mount, path: {"DOCUMENT_URI": None, "SCRIPT_NAME": mount + path},
    "PATH_INFO": lambda mount, path: {
        "DOCUMENT_URI": None,
        "SCRIPT_NAME": mount,
        "PATH_INFO": path,
    },
    "REQUEST_URI alone": lambda _mount, _path: {"DOCUMENT_URI": None},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", PATHS)
def test_behind_a_front_end(servers, path, way):
    """What it decoded is not decoded again, and what nobody has decoded is, once."""
    decoded = PATHS[path]
    for protocol in ("fastcgi", "scgi", "uwsgi"):
        if protocol == "scgi" and "\0" in decoded and way != "REQUEST_URI alone":
            continue  # no header of SCGI can have it
        for mount in ("", "/app", "/a b"):
            target = f"{quote(mount)}{path}?{QUERY}"
            found = seen(servers[mount], protocol, target, more=WAYS[way](mount, decoded))
            assert found == [mount, decoded, QUERY, target, target]


@pytest.mark.parametrize("path", PATHS)
def test_the_clients_own_spelling_is_decoded_once_too(servers, path):
    """Where that is the same place as the front end's, which has tidied it."""
    for protocol in ("fastcgi", "scgi", "uwsgi"):
        found = seen(servers["request_uri"], protocol, path, more={"DOCUMENT_URI": "/front-end"})
        assert found[:2] == ["", "/front-end"]
        if protocol == "scgi" and "\0" in PATHS[path]:
            continue
        found = seen(servers["request_uri"], protocol, path, more={"DOCUMENT_URI": PATHS[path]})
        assert found[:2] == ["", PATHS[path]]


@pytest.mark.parametrize("path", ["/%", "/%4", "/%zz", "/%u002f", "/%%32%65", "/%-1"])
def test_what_is_no_code_is_no_path(servers, path):
    for mount in ("", "/app"):
        answer = servers[mount].ask("http", mount + path)
        assert answer.status == 400
    for protocol in ("fastcgi", "scgi", "uwsgi"):
        found = seen(servers[""], protocol, path, more={"DOCUMENT_URI": path})
        assert found[:2] == ["", path], "the front end's word"
