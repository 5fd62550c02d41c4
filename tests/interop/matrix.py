"""The table of docs/reference/front-ends.md: every check over every front end.

A check talks to the application at the end of one way.  It returns the differences that are
the front end's own doing, by the names that NOTES explains; whatever else is wrong is an
AssertionError.
"""

import contextlib
import hashlib
import http.client
import os
import random
import select
import socket
import tempfile
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

from front_ends import HOST, WAYS, receive
from other_front_ends import OTHERS
from surprises import SURPRISES
from test_deploy_paths import PATHS, QUERIES

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "front-ends.md"

LARGE = random.Random(1).randbytes(20 << 20)
DIGEST = f"{len(LARGE)} {hashlib.sha256(LARGE).hexdigest()}".encode()
MEDIUM = LARGE[: 300 << 10]

#: What a front end does by itself, and why nothing behind it can change that.
NOTES = {
    "tidied": "The front end joins slashes and resolves dots before it decides where a request "
    "goes, and the application gets the path that was judged. REQUEST_URI has the client's "
    "spelling; `path_info_source = request_uri` makes PATH_INFO of it.",
    "leading //": "Apache ignores `nocanon` where its own joining of slashes touched the match: "
    "a path that begins with `//` arrives joined.",
    "up to 4 kB": "A front end that starts the gateway itself maps the path to a file, which the "
    "system does for 4 kB at most; a longer one is a 403 of Apache, a 404 of lighttpd.",
    "200 acted on": "Apache takes `Location` with status 200 of a program that it has started for "
    "an order to itself (RFC 3875 section 6.2.2): it makes a new request of a local one, a 302 of "
    "any other. Every other status arrives.",
    "empty dropped": "lighttpd passes no field that has an empty value.",
    "_ kept": "lighttpd makes one variable of X-User and X_User. Both values arrive, joined by a "
    "comma, so a value that lighttpd itself has set cannot be replaced unseen; as CGI the later "
    "one replaces the other.",
    "comma": "The front end joins repeated fields by commas before anybody else can. "
    "Browsers send one Cookie field over HTTP/1.1; over HTTP/2, where they send more, it joins "
    "them with semicolons.",
    "411": "The protocol needs the length first and Apache does not wait for it.",
    "up to a buffer": "HAProxy needs the length first, and waits for the end of an upload only up "
    "to one buffer (`tune.bufsize`, 16 kB); then it answers 400.",
    "length needed": "An answer that breaks off is seen as such only if its length was announced. "
    "SCGI, uwsgi and CGI end an answer by closing, and closing a unix socket or a pipe is no "
    "reset; Caddy, mod_fcgid and mod_proxy_uwsgi do not tell an end from a reset either, lighttpd "
    "not always.",
}


def path(site):
    """Every byte of PATH_INFO, decoded exactly once."""
    found = set()
    for target, spelt, tidied in PATHS:
        answer = site.ask(target)
        if answer.status in {403, 404} and len(target) > 4096:
            found.add("up to 4 kB")
            continue
        environ = answer.json()
        assert environ["SCRIPT_NAME"] == site.way.prefix, target
        if environ["PATH_INFO"] != spelt:
            assert environ["PATH_INFO"] == tidied, target
            found.add("leading //" if target.startswith("//") else "tidied")
    return found - {"leading //"} if "tidied" in found else found


def query(site):
    """QUERY_STRING as the client wrote it, REQUEST_URI too."""
    for text in [*QUERIES, "x=1?y=2", "z=%2F~%7E"]:
        environ = site.ask(f"/a%20b?{text}").json()
        assert environ["REQUEST_URI"] == f"{site.way.prefix}/a%20b?{text}"
        assert environ["QUERY_STRING"] == text
    return set()


def headers(site):
    """Fields arrive byte for byte, and none that could be mistaken for something else."""
    sent = [
        ("Authorization", "Basic dXNlcjpzZWNyZXQ="),
        ("X-Two", "one"),
        ("X-Two", "two"),
        ("X-Latin", "caf\xe9"),
        ("X-Large", "v" * 7000),
        ("X-Empty", ""),
        ("X_Under_Score", "spoof"),
        ("Proxy", "http://evil.example/"),
        ("HTTPS", "on"),
        ("Script-Name", "/spoof"),
    ]
    environ = site.ask(headers=sent).json()
    assert environ["HTTP_AUTHORIZATION"] == "Basic dXNlcjpzZWNyZXQ="
    assert environ["HTTP_X_TWO"].replace(", ", ",") == "one,two"
    assert environ["HTTP_X_LATIN"] == "caf\xe9"
    assert environ["HTTP_X_LARGE"] == "v" * 7000
    assert environ["HTTP_HOST"] == HOST
    assert environ["SCRIPT_NAME"] == site.way.prefix
    assert environ["wsgi.url_scheme"] == "http"
    assert not {"HTTP_PROXY", "REMOTE_USER", "HTTPS"} & environ.keys()
    found = set()
    if environ.get("HTTP_X_EMPTY") is None:
        found.add("empty dropped")
    if "HTTP_X_UNDER_SCORE" in environ:
        found.add("_ kept")
    return found


def cookies(site):
    """Two Cookie fields are one HTTP_COOKIE."""
    environ = site.ask(headers=[("Cookie", "a=1"), ("Cookie", "b=2")]).json()
    if environ["HTTP_COOKIE"] == "a=1, b=2":
        return {"comma"}
    assert environ["HTTP_COOKIE"] == "a=1; b=2"
    return set()


def upload(site):
    """20 MB, by digest."""
    assert site.ask(app="digest", method="POST", body=LARGE).body == DIGEST
    return set()


def download(site):
    """20 MB, by digest."""
    answer = site.ask(f"/?size={len(LARGE)}", app="download")
    assert len(answer.body) == len(LARGE)
    assert answer.one("X-SHA256") == hashlib.sha256(answer.body).hexdigest()
    return set()


def chunked(site):
    """Uploads of unknown length, small and larger than any buffer."""
    found = set()
    for data in (LARGE[:3000], MEDIUM):
        chunks = [data[start : start + 7000] for start in range(0, len(data), 7000)]
        answer = site.ask(app="digest", method="POST", chunks=chunks)
        if answer.status == 411:
            found.add("411")
        elif answer.status == 400 and data is MEDIUM:
            found.add("up to a buffer")
        else:
            assert answer.body == f"{len(data)} {hashlib.sha256(data).hexdigest()}".encode()
    return found


def no_content(site):
    """HEAD, 204 and 304 have no body, and what follows on the connection is the next answer."""
    client = http.client.HTTPConnection("127.0.0.1")
    client.sock = site.connect()
    requests = [("HEAD", 200), ("GET", 204), ("GET", 304), ("HEAD", 404), ("GET", 200)]
    with contextlib.closing(client):
        for method, code in requests:
            fields = {"Host": HOST, "X-App": "status"}
            client.request(method, f"{site.way.prefix}/?code={code}", headers=fields)
            response = client.getresponse()
            text = b"this is 200\n" if (method, code) == ("GET", 200) else b""
            assert (response.status, response.read()) == (code, text)
            assert response.getheader("X-Probe") == str(code)
    return set()


def redirects(site):
    """Location with every status, local and absolute."""
    found = set()
    for code in (200, 201, 301, 302, 303, 307, 308):
        for location in ("/elsewhere?code=204", "http://other.example/%20"):
            answer = site.ask(f"/?code={code}&location={quote(location)}", app="status")
            if code == 200 and answer.status in {204, 302}:
                found.add("200 acted on")
                continue
            assert (answer.status, answer.one("Location")) == (code, location)
            assert answer.body == f"this is {code}\n".encode()
    return found


@contextlib.contextmanager
def pipe():
    """A pipe that the application opens by name; ours is the descriptor."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        name = os.path.join(folder, "pipe")
        os.mkfifo(name)
        os.chmod(name, 0o666)  # mod_fcgid's gateway is another user
        descriptor = os.open(name, os.O_RDWR)
        try:
            yield name, descriptor
        finally:
            os.close(descriptor)


def streaming(site):
    """The application makes a piece only after the client has got the one before."""
    with pipe() as (name, go_on), site.send(f"/?pieces=4&pipe={name}", app="stream") as connection:
        received = b""
        for number in range(4):
            while f"piece {number}\n".encode() not in received:
                data = connection.recv(65536)
                assert data, received
                received += data
            os.write(go_on, b"+")
    return set()


def client_abort(site):
    """An application that goes on producing is closed when its client has left."""
    with pipe() as (name, closed):
        with site.send(f"/?pipe={name}", app="endless") as connection:
            assert connection.recv(1000)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        assert select.select([closed], [], [], 20)[0], "the application was not closed"
    assert site.ask("/after").json()["PATH_INFO"] == "/after"
    return set()


#: Whether these find the reset or the end of the data first is chance; the page has the worse.
BY_CHANCE = {("lighttpd", "fastcgi"), ("lighttpd", "scgi"), ("apache", "uwsgi")}


def cut_answer(site):
    """An answer that breaks off in the middle does not look whole to the client."""
    assert looks_cut(site, length="1")
    if (site.way.server, site.way.protocol) in BY_CHANCE:
        return {"length needed"}
    return set() if all(looks_cut(site) for _ in range(20)) else {"length needed"}


def looks_cut(site, length=""):
    """Whether the client of one such answer sees that it is not whole."""
    with site.send(f"/?after=100000&length={length}", app="broken") as connection:
        try:
            answer = receive(connection)
        except (http.client.HTTPException, OSError):
            return True
    # A front end that held the answer back may also refuse it whole.
    return answer.status == 502


def prefix(site):
    """The same below /app, and nothing that only begins like it."""
    for target, info in [("", ""), ("/", "/"), ("/x%20y/", "/x y/"), ("/app/x", "/app/x")]:
        environ = site.ask(f"{target}?x=1").json()
        assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/app", info)
        assert environ["QUERY_STRING"] == "x=1"
    answer = site.ask("lication")
    if site.way.server == "direct":
        assert answer.json()["PATH_INFO"] == "/application"
    else:
        assert (answer.status, answer.all("X-Probe")) == (404, [])
    return set()


CHECKS = {
    "path": path,
    "query": query,
    "headers": headers,
    "two cookies": cookies,
    "20 MB up": upload,
    "20 MB down": download,
    "chunked": chunked,
    "HEAD 204 304": no_content,
    "redirects": redirects,
    "streaming": streaming,
    "client abort": client_abort,
    "cut answer": cut_answer,
    "prefix": prefix,
}

#: One line each: a way at the root of a site.
ROWS = [way for way in WAYS + OTHERS if not way.prefix]

NAMES = {"direct": "none", "apache": "Apache", "haproxy": "HAProxy", "caddy": "Caddy"} | {
    "spawn-fcgi": "nginx and spawn-fcgi",
    "mod_cgid": "Apache, mod_cgid",
    "mod_cgi": "Apache, mod_cgi",
}
PROTOCOL_NAMES = {"http": "HTTP", "fastcgi": "FastCGI", "scgi": "SCGI", "cgi": "CGI"}

HEAD = """# Front ends

What an application gets behind each front end, with the files of [deploy](../../deploy) as they are. `python tools/front_end_table.py` writes this page from a run over all of them, and the tests fail when a run gives anything else.

`✓`: exactly as over plain HTTP without a front end. Everything else is the front end's own doing and is explained below, and so is what they do that nobody expects.
"""  # noqa: E501 - a paragraph of Markdown is one line

CHECKED = {name: (check.__doc__ or "").strip() for name, check in CHECKS.items()}


def row(servers, way):
    """The line of the table for one way, measured."""
    cells = [NAMES.get(way.server, way.server)]
    cells += [PROTOCOL_NAMES.get(way.protocol, way.protocol), way.transport]
    for name, check in CHECKS.items():
        site = servers.site(replace(way, mount="prefix") if check is prefix else way)
        try:
            found = check(site)
        except Exception as error:
            error.add_note(f"{name}: {way}")
            raise
        assert found <= NOTES.keys()
        cells.append(", ".join(_marked(note) for note in NOTES if note in found) or "✓")
    return _line(cells)


def _marked(note):
    return f"{note} ({list(NOTES).index(note) + 1})"


def _shown_by(tests):
    return ", ".join(test if test in CHECKS else f"`{test}`" for test in tests)


def _line(cells):
    return "| " + " | ".join(cells) + " |"


def page(rows):
    """The whole page around the lines of the table."""
    titles = ["front end", "protocol", "over", *CHECKS]
    lines = [HEAD, _line(titles), _line("---" for _ in titles), *rows, ""]
    lines += [f"{number}. **{note}**: {why}" for number, (note, why) in enumerate(NOTES.items(), 1)]
    lines += ["", "## What is checked", ""]
    lines += [f"- **{name}**: {what}" for name, what in CHECKED.items()]
    lines += ["", "## Surprises", "", _line(["what happens", "what is done about it", "shown by"])]
    lines += [_line(["---"] * 3)]
    lines += [_line([what, done, _shown_by(tests)]) for what, done, tests in SURPRISES]
    return "\n".join(lines) + "\n"
