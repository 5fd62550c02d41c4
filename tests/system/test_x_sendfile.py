"""x_sendfile_root: a file that the application names is sent in place of its body."""

import json
import os
import re
import socket
import threading
from collections import Counter
from contextlib import suppress

import pytest
from conftest import numbered
from processes import wait_for
from test_wsgi_heads import follow

LARGE = numbered(3_000_000)

#: X-Path names the file, X-Status and X-Fields what else the application says.
APP = """
import json
import os

class Pieces:
    def __init__(self, environ, pieces):
        self.environ, self.pieces = environ, iter(pieces)

    def __iter__(self):
        return self.pieces

    def close(self):
        self.environ["wsgi.errors"].write(f"closed {self.environ['QUERY_STRING']}\\n")
        if self.environ["PATH_INFO"] == "/close-fails":
            raise RuntimeError("on purpose")

def head(environ):
    fields = json.loads(environ.get("HTTP_X_FIELDS", "[]"))
    paths = [environ["HTTP_X_PATH"]] if "HTTP_X_PATH" in environ else []
    fields += [("X-SendFile", path) for path in paths]
    return environ.get("HTTP_X_STATUS", "200 OK"), [tuple(field) for field in fields]

def app(environ, start_response):
    page = environ["PATH_INFO"]
    if page == "/pid":
        start_response("200 OK", [])
        return [b"%d" % os.getpid()]
    if page == "/lazy":
        return Pieces(environ, lazy(environ, start_response))
    write = start_response(*head(environ))
    if page == "/write":
        write(b"not for the client")
    if page == "/replaced":
        try:
            raise ValueError
        except ValueError as error:
            start_response("418 Other", [], (ValueError, error, None))
        return [b"other"]
    if page == "/fails":
        raise RuntimeError("on purpose")
    if page == "/list":
        return [b"not for the client"]
    return Pieces(environ, [b"not for ", b"the client"])

def lazy(environ, start_response):
    start_response(*head(environ))
    yield b"not for "
    yield b"the client"
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A folder to send from, called by a link's name, and things that must not be sent."""
    base = tmp_path_factory.mktemp("files")
    root = base / "root"
    (root / "a folder" / "below").mkdir(parents=True)
    (root / "small").write_bytes(b"small file")
    (root / "empty").write_bytes(b"")
    (root / "large").write_bytes(LARGE)
    (root / "a folder" / "below" / "100%41é").write_bytes(b"deep")
    (root / "secret").write_bytes(b"not readable")
    (base / "outside").write_bytes(b"outside")
    (base / "rooted").mkdir()
    (base / "rooted" / "file").write_bytes(b"outside")
    (base / "link").symlink_to(root)
    (root / "inwards").symlink_to(root / "small")
    (root / "relative").symlink_to("a folder")
    (root / "outwards").symlink_to(base / "outside")
    (root / "up").symlink_to(base)
    (root / "loop").symlink_to(root / "loop")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(root / "socket"))
    return base


@pytest.fixture(scope="module")
def server(serve_module, tree, threads):
    return serve_module(APP, "--threads", threads, "--x-sendfile-root", f"{tree}/link")


def ask(server, protocol, path, page="/pieces", method="GET", headers=(), **said):
    peer = server.connect(protocol)
    own = [("X-Path", str(path))] if path is not None else []
    own += [(f"X-{name.title()}", value) for name, value in said.items()]
    answer = peer.ask(page, method=method, headers=[*own, *headers])
    assert answer.whole
    assert answer.get("x-sendfile") is None
    assert b"not for the client" not in answer.body
    follow(server, peer)
    return answer


FILES = {
    "small": b"small file",
    "empty": b"",
    "large": LARGE,
    "inwards": b"small file",
    "a folder/below/100%41\xc3\xa9": b"deep",  # as it is on disk: nothing is decoded
    "relative/below/../below/100%41\xc3\xa9": b"deep",
    ".//small": b"small file",
}


@pytest.mark.parametrize("folder", ["root", "link"])
@pytest.mark.parametrize("name", FILES)
def test_a_file(server, tree, protocol, name, folder):
    answer = ask(server, protocol, f"{tree}/{folder}/{name}")
    assert (answer.status, answer.body) == (200, FILES[name])
    assert answer.get("content-length") == str(len(FILES[name]))
    assert answer.get("etag")
    assert answer.get("last-modified")


@pytest.mark.parametrize("name", ["small", "large"])
def test_head(server, tree, protocol, name):
    answer = ask(server, protocol, f"{tree}/root/{name}", method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.get("content-length") == str(len(FILES[name]))


@pytest.mark.parametrize("page", ["/list", "/pieces", "/lazy", "/write"])
def test_however_the_application_answers(server, tree, protocol, name, page):
    since = len(server.log)
    fields = json.dumps([["Content-Type", "text/x-own"], ["Content-Length", "18"]])
    answer = ask(server, protocol, f"{tree}/root/small", f"{page}?{name}", fields=fields)
    assert (answer.status, answer.body) == (200, b"small file")
    assert answer.get("content-type") == "text/x-own"
    assert answer.get("content-length") == "10"
    if page != "/list":
        server.wait_for_log(rf"closed {name}\n", since=since)
        assert server.log.count(f"closed {name}\n") == 1


def test_a_close_that_fails(server, tree, protocol, name):
    answer = ask(server, protocol, f"{tree}/root/small", f"/close-fails?{name}")
    assert (answer.status, answer.body) == (200, b"small file")
    server.wait_for_log(rf"closed {name}\n")


@pytest.mark.parametrize("page", ["/list", "/pieces", "/lazy", "/write"])
def test_without_the_field_nothing_changes(server, protocol, page):
    peer = server.connect(protocol)
    answer = peer.ask(page)
    twice = 2 if page == "/write" else 1
    assert (answer.status, answer.body, answer.whole) == (200, b"not for the client" * twice, True)
    follow(server, peer)


def test_a_head_that_is_replaced(server, tree, protocol):
    answer = ask(server, protocol, f"{tree}/root/small", "/replaced")
    assert (answer.status, answer.body) == (418, b"other")


def test_an_application_that_fails(server, tree, protocol):
    answer = ask(server, protocol, f"{tree}/root/small", "/fails")
    assert (answer.status, answer.body) == (500, b"Internal Server Error\n")


REFUSED = [
    # path, status, reason
    ("{}/root/nothing", 404, "No such file or directory"),
    ("{}/root/small/below", 404, "Not a directory"),
    ("{}/root/loop", 404, "Too many levels of symbolic links"),
    ("{}/root/" + "x" * 300, 404, "File name too long"),
    ("{}/root/small%00", 404, "No such file or directory"),
    ("root/small", 404, "no absolute path"),
    ("", 404, "no absolute path"),
    ("{}/outside", 403, "outside of x_sendfile_root"),
    ("{}/rooted/file", 403, "outside of x_sendfile_root"),
    ("{}/root/../outside", 403, "outside of x_sendfile_root"),
    ("{}/root/%2e%2e/outside", 404, "No such file or directory"),
    ("{}/root/outwards", 403, "outside of x_sendfile_root"),
    ("{}/root/up/outside", 403, "outside of x_sendfile_root"),
    ("/etc/passwd", 403, "outside of x_sendfile_root"),
    ("/proc/self/environ", 403, "outside of x_sendfile_root"),
    ("{}/root", 403, "Is a directory"),
    ("{}/root/a folder", 403, "Is a directory"),
    ("{}/root/fifo", 403, "no regular file"),
    ("{}/root/socket", 403, "No such device or address"),
]


@pytest.mark.parametrize(("path", "status", "reason"), REFUSED, ids=[case[0] for case in REFUSED])
def test_a_path_that_is_refused(server, tree, protocol, name, path, status, reason):
    fields = json.dumps([["Cache-Control", "max-age=31536000"], ["Content-Length", "18"]])
    answer = ask(server, protocol, path.format(tree), f"/pieces?{name}", fields=fields)
    assert answer.status == status
    assert answer.body in (b"Not Found\n", b"Forbidden\n")
    assert answer.get("cache-control") is None
    server.wait_for_log(rf"\?{name} from .*X-Sendfile '.*': .*{reason}\n")
    server.wait_for_log(rf"closed {name}\n")
    head = ask(server, protocol, path.format(tree), method="HEAD")
    assert (head.status, head.body) == (status, b"")


def test_two_files_are_none(server, tree, protocol):
    fields = json.dumps([["x-sendfile", f"{tree}/root/small"]])
    answer = ask(server, protocol, f"{tree}/root/large", fields=fields)
    assert (answer.status, answer.body) == (500, b"Internal Server Error\n")


def test_a_path_that_is_no_header_value(server, protocol, name):
    """PEP 3333: the bytes of the path, as latin-1."""
    fields = json.dumps([["X-Sendfile", "/\u20ac"]])
    answer = ask(server, protocol, None, f"/pieces?{name}", fields=fields)
    assert (answer.status, answer.body) == (500, b"Internal Server Error\n")
    server.wait_for_log(rf"closed {name}\n")


def test_a_path_with_a_null(server, tree, protocol):
    fields = json.dumps([["X-Sendfile", f"{tree}/root/small\0"]])
    assert ask(server, protocol, None, fields=fields).status == 404


def test_a_range_and_a_precondition(server, tree, protocol):
    path = f"{tree}/root/large"
    part = ask(server, protocol, path, headers=[("Range", "bytes=1000000-1000099")])
    assert (part.status, part.body) == (206, LARGE[1_000_000:1_000_100])
    assert part.get("content-range") == "bytes 1000000-1000099/3000000"
    assert part.get("content-length") == "100"
    rest = ask(server, protocol, path, headers=[("Range", "bytes=1000000-")])
    assert (rest.status, rest.body) == (206, LARGE[1_000_000:])
    none = ask(server, protocol, path, headers=[("Range", "bytes=3000000-")])
    assert (none.status, none.body) == (416, b"")
    same = ask(server, protocol, path, headers=[("If-None-Match", part.get("etag"))])
    assert (same.status, same.body) == (304, b"")


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_an_answer_without_content(server, tree, protocol, status):
    answer = ask(server, protocol, f"{tree}/root/small", status=status)
    assert (answer.status, answer.body) == (int(status[:3]), b"")


def test_a_page_for_an_error(server, tree, protocol):
    answer = ask(server, protocol, f"{tree}/root/small", status="404 Nothing Here")
    assert (answer.status, answer.body) == (404, b"small file")


def test_no_file_stays_open(server, tree, protocol):
    for name in ("small", "empty", "large", "fifo", "up/outside"):
        path = f"{tree}/root/{name}"
        ask(server, protocol, path)
        ask(server, protocol, path, method="HEAD")
        ask(server, protocol, path, headers=[("If-None-Match", "*")])
    (worker,) = server.workers
    wait_for(lambda: not open_below(tree, worker), "the files are closed")


def open_below(folder, pid):
    links = [f"/proc/{pid}/fd/{number}" for number in os.listdir(f"/proc/{pid}/fd")]
    found = []
    for link in links:
        with suppress(FileNotFoundError):
            found.append(os.readlink(link))
    return [name for name in found if name.startswith(str(folder))]


def test_a_client_that_leaves(server, tree, protocol, name):
    peer = server.connect(protocol, receive_buffer=4096)
    headers = [("X-Path", f"{tree}/root/large")]
    peer.start(f"/pieces?{name}", headers=headers)
    peer.head()
    peer.reset()
    server.wait_for_log(rf"closed {name}\n")


def test_links_that_change_meanwhile_lead_nowhere(server, tree, name):
    """What is opened is what was judged."""
    folder, kept, link = (tree / "root" / f"{name}-{part}" for part in range(3))
    folder.mkdir()
    (folder / "file").write_bytes(b"inside")
    link.symlink_to(tree / "rooted")
    stop = threading.Event()

    def change():
        while not stop.is_set():
            os.rename(folder, kept)
            os.rename(link, folder)
            os.rename(folder, link)
            os.rename(kept, folder)

    changing = threading.Thread(target=change)
    changing.start()
    answers = Counter()
    try:
        with server.connect() as peer:
            headers = [("X-Path", str(folder / "file"))]
            while answers[200] < 50 or answers.total() < 1000:
                answer = peer.ask("/pieces", headers=headers)
                answers[answer.status] += 1
                assert answer.body in (b"inside", b"Not Found\n", b"Forbidden\n")
    finally:
        stop.set()
        changing.join()


@pytest.mark.parametrize(
    ("value", "reason"),
    [("relative", "an absolute path is allowed"), ("/nothing/there", "there is no such folder")],
)
def test_a_folder_that_cannot_be(serve, value, reason):
    server = serve(APP, "--x-sendfile-root", value, wait=False)
    assert server.process.wait(30) == 2
    assert server.errors.wait_for_end(10)
    assert re.search(rf"x_sendfile_root.*{value}.*{reason}", server.log)


@pytest.fixture(scope="module")
def without(serve_module):
    return serve_module(APP)


@pytest.mark.parametrize("name", ["X-Sendfile", "X-Accel-Redirect"])
def test_without_the_setting_the_field_is_passed_on(without, protocol, tree, name):
    server = without
    fields = json.dumps([[name, f"{tree}/root/small"]])
    answer = server.ask(protocol, "/pieces", headers=[("X-Fields", fields)])
    assert answer.get(name) == f"{tree}/root/small"
    assert answer.body == b"not for the client"


@pytest.fixture(scope="module")
def flask(serve_module, tree):
    return serve_module(
        f"""
        from flask import Flask, send_file

        app = Flask(__name__)
        app.config["USE_X_SENDFILE"] = True

        @app.get("/")
        def index():
            return send_file("{tree}/root/large", "text/x-own", True, "name.txt")
        """,
        f"--x-sendfile-root={tree}/root",
    )


@pytest.mark.parametrize("asked", [None, "bytes=10-19"])
def test_flask(flask, protocol, asked):
    """With USE_X_SENDFILE its send_file leaves the file to the server."""
    answer = flask.ask(protocol, headers=[("Range", asked)] if asked else ())
    assert answer.status == (206 if asked else 200)
    assert answer.body == (LARGE[10:20] if asked else LARGE)
    assert answer.get("content-type") == "text/x-own; charset=utf-8"
    assert answer.get("content-disposition") == "attachment; filename=name.txt"
    assert answer.get("x-sendfile") is None
