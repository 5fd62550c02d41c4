"""gateway --protocol cgi: one request from the environment and standard input (RFC 3875)."""

import os
import re
import signal
import subprocess
from email.parser import BytesHeaderParser

import pytest
from processes import GATEWAY, TIMEOUT, environment, wait_for

VARIABLES = {
    "GATEWAY_INTERFACE": "CGI/1.1",
    "PATH_INFO": "/x",
    "QUERY_STRING": "",
    "REMOTE_ADDR": "192.0.2.1",
    "REQUEST_METHOD": "GET",
    "REQUEST_URI": "/x",
    "SCRIPT_NAME": "",
    "SERVER_NAME": "example.org",
    "SERVER_PORT": "80",
    "SERVER_PROTOCOL": "HTTP/1.1",
}

APP = """
import os
import sys

FOLDER = os.path.dirname(os.path.abspath(__file__))

class Pieces:
    def __init__(self, environ, pieces):
        self.errors, self.pieces = environ["wsgi.errors"], iter(pieces)

    def __iter__(self):
        return self.pieces

    def close(self):
        self.errors.write("close begins\\n")
        wait("close")
        self.errors.write("close ends\\n")

def wait(name):
    if os.path.exists(name):
        with open(name + ".reached", "w"):
            pass
        with open(name) as pipe:
            pipe.read()

def app(environ, start_response):
    page = environ["PATH_INFO"].rpartition("/")[2]
    return globals()[page](environ, start_response)

def say(environ, start_response, text=""):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [text.encode()]

def x(environ, start_response):
    print("said by print()")
    names = "wsgi.multithread", "wsgi.multiprocess", "wsgi.run_once", "SCRIPT_NAME", "PATH_INFO"
    return say(environ, start_response, repr([environ[name] for name in names]))

def body(environ, start_response):
    data = environ["wsgi.input"].read()
    return say(environ, start_response, repr([len(data), environ.get("CONTENT_LENGTH")]))

def proxy(environ, start_response):
    return say(environ, start_response, repr(["HTTP_PROXY" in d for d in (environ, os.environ)]))

def fields(environ, start_response):
    return say(environ, start_response, repr([name for name in environ if name[:5] == "HTTP_"]))

def status(environ, start_response):
    start_response(environ["QUERY_STRING"].replace("+", " "), [("X-Probe", "1")])
    return [b"entity"]

def late(environ, start_response):
    start_response("200 OK", [("Content-Length", "100")])
    yield b"begun"
    raise RuntimeError("on purpose")

def early(environ, start_response):
    raise RuntimeError("on purpose")

def leave(environ, start_response):
    sys.exit(7)

def slow(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    return Pieces(environ, slow_pieces())

def slow_pieces():
    wait("before")
    yield b"piece"

def endless(environ, start_response):
    start_response("200 OK", [])
    return Pieces(environ, iter(lambda: b"x" * 65536, None))

def file(environ, start_response):
    start_response("200 OK", [])
    return environ["wsgi.file_wrapper"](open(os.path.join(FOLDER, "app.py"), "rb"))

def sendfile(environ, start_response):
    start_response("200 OK", [("X-Sendfile", os.path.join(FOLDER, "app.py"))])
    return [b"not for the client"]

def fork(environ, start_response):
    if os.fork() == 0:
        return say(environ, start_response, "from the child")
    os.wait()
    return say(environ, start_response, "from the parent")
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


class Answer:
    """What a run of the program gave."""

    def __init__(self, done):
        self.code, self.errors = done.returncode, done.stderr.decode()
        self.head, _, self.body = done.stdout.partition(b"\r\n\r\n")
        self.fields = BytesHeaderParser().parsebytes(self.head)

    @property
    def status(self):
        return self.fields["Status"]


def ask(folder, target="x", *options, body=b"", **variables):
    done = subprocess.run(
        [*GATEWAY, "app:app", "--protocol", "cgi", *options],
        cwd=folder,
        env=environment(VARIABLES | {"PATH_INFO": f"/{target}"} | variables),
        input=body,
        capture_output=True,
        timeout=TIMEOUT,
        check=False,
    )
    return Answer(done)


def start(folder, target):
    return subprocess.Popen(
        [*GATEWAY, "app:app", "--protocol", "cgi"],
        cwd=folder,
        env=environment(VARIABLES | {"PATH_INFO": f"/{target}"}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_an_answer(folder):
    """Standard output has the answer and nothing else, standard error what the log says."""
    answer = ask(folder)
    assert (answer.code, answer.status) == (0, "200 OK")
    assert answer.head.endswith(b"\r\nStatus: 200 OK")  # last: for HAProxy and its like
    assert answer.body == b"[False, True, True, '', '/x']"
    assert answer.fields["Content-Length"] == str(len(answer.body))
    assert "said by print()" in answer.errors


def test_below_a_mount_point(folder):
    variables = {"SCRIPT_NAME": "/app", "REQUEST_URI": "/app/x"}
    assert ask(folder, "x", "--script-name=/app", **variables).body.endswith(b"'/app', '/x']")
    assert ask(folder, **variables).body.endswith(b"'/app', '/x']")


def test_no_path_info_is_an_empty_one(folder):
    """RFC 3875 section 4.1.5: SCRIPT_NAME is always that of the program."""
    variables = environment(VARIABLES | {"SCRIPT_NAME": "/app/x", "REQUEST_URI": "/app/x"})
    del variables["PATH_INFO"]
    (folder / "app.py").write_text(APP.replace('environ["PATH_INFO"].rpart', '"x".rpart'))
    words = [*GATEWAY, "app:app", "--protocol", "cgi"]
    done = subprocess.run(words, cwd=folder, env=variables, capture_output=True, check=True)
    assert done.stdout.endswith(b"'/app/x', '']")


@pytest.mark.parametrize("status", ["204+No+Content", "304+Not+Modified", "HEAD"])
def test_an_answer_without_content(folder, status):
    variables = {"QUERY_STRING": status}
    if status == "HEAD":
        variables = {"QUERY_STRING": "200+OK", "REQUEST_METHOD": "HEAD"}
    answer = ask(folder, "status", **variables)
    assert answer.status == variables["QUERY_STRING"].replace("+", " ")
    assert (answer.body, answer.fields["X-Probe"]) == (b"", "1")


@pytest.mark.parametrize("size", [0, 5, 3_000_000])
def test_a_body_of_known_length(folder, size):
    answer = ask(
        folder, "body", body=b"x" * size + b"more", REQUEST_METHOD="POST", CONTENT_LENGTH=str(size)
    )
    assert answer.body == repr([size, str(size)]).encode()


def test_a_body_of_unknown_length_ends_with_the_pipe(folder):
    chunked = {"REQUEST_METHOD": "POST", "HTTP_TRANSFER_ENCODING": "chunked"}
    assert ask(folder, "body", body=b"x" * 100_000, **chunked).body == b"[100000, '100000']"


def test_no_length_is_no_body(folder):
    """RFC 3875 section 4.2: reading on might wait for ever."""
    assert ask(folder, "body", body=b"ignored", REQUEST_METHOD="POST").body == b"[0, None]"


@pytest.mark.parametrize(
    ("status", "options", "variables"),
    [
        ("400 Bad Request", (), {"CONTENT_LENGTH": "100"}),
        ("400 Bad Request", (), {"CONTENT_LENGTH": "many"}),
        ("413 Content Too Large", ("--limit-request-body=4",), {"CONTENT_LENGTH": "5"}),
        ("413 Content Too Large", ("--limit-request-body=4",), {"HTTP_TRANSFER_ENCODING": "x"}),
    ],
    ids=["cut short", "no number", "too large", "too large, unannounced"],
)
def test_a_body_that_is_refused(folder, status, options, variables):
    answer = ask(folder, "body", *options, body=b"12345", REQUEST_METHOD="POST", **variables)
    assert (answer.code, answer.status) == (0, status)
    assert "[WARNING] the web server: " in answer.errors


@pytest.mark.parametrize("size", [1100, 20_000, 200_000])
def test_a_body_that_the_disk_does_not_take(folder, size):
    """However late it shows: a small rest is written only when the body is whole."""
    app = """
import resource
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
"""
    (folder / "app.py").write_text(app + APP)
    variables = {"REQUEST_METHOD": "POST", "CONTENT_LENGTH": str(size)}
    answer = ask(folder, "body", "--body-buffer-size=10", body=b"x" * size, **variables)
    assert (answer.code, answer.status) == (0, "507 Insufficient Storage")
    assert "the request body cannot be kept: " in answer.errors


@pytest.mark.parametrize("page", ["early", "leave", "nonsense", "status"])
def test_an_application_that_fails_before_the_head(folder, page):
    answer = ask(folder, page, QUERY_STRING="nonsense")
    assert (answer.code, answer.status) == (0, "500 Internal Server Error")
    assert "the application failed" in answer.errors
    assert b"X-Probe" not in answer.head


def test_an_application_that_fails_after_the_head(folder):
    answer = ask(folder, "late")
    assert (answer.code, answer.status, answer.body) == (1, "200 OK", b"begun")
    assert "RuntimeError: on purpose" in answer.errors


def test_a_file(folder):
    assert ask(folder, "file").body == APP.encode()


def test_a_file_by_x_sendfile(folder):
    answer = ask(folder, "sendfile", f"--x-sendfile-root={folder}")
    assert (answer.status, answer.body) == ("200 OK", APP.encode())
    assert answer.fields["X-Sendfile"] is None


def test_a_child_of_the_application_sends_no_answer(folder):
    answer = ask(folder, "fork")
    assert answer.body == b"from the parent"
    assert answer.head.count(b"Status:") == 1


def test_a_client_names_no_proxy(folder):
    assert ask(folder, "proxy", HTTP_PROXY="http://evil.example/").body == b"[False, False]"


def test_what_concerns_the_web_servers_connection_stays_there(folder):
    names = ("CONNECTION", "CONTENT_LENGTH", "CONTENT_TYPE", "TE", "TRANSFER_ENCODING", "UPGRADE")
    sent = {f"HTTP_{name}": "chunked" for name in names} | {"HTTP_X_A": "1"}
    assert ask(folder, "fields", CONTENT_LENGTH="0", **sent).body == b"['HTTP_X_A']"


def test_the_access_log(folder):
    ask(folder, "x", "--accesslog=access.log")
    (line,) = (folder / "access.log").read_text().splitlines()
    assert re.fullmatch(r'192\.0\.2\.1 - - \[.*\] "GET /x HTTP/1.1" 200 29 ".*" ".*"', line)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import nothing_of_that_name", "nothing_of_that_name"),
        ("x = 1", "nothing that can be called"),
    ],
)
def test_an_application_that_cannot_be_loaded(folder, code, said):
    (folder / "app.py").write_text(code)
    answer = ask(folder)
    assert (answer.code, answer.status) == (3, "500 Internal Server Error")
    assert said in answer.errors
    assert said not in answer.body.decode()


@pytest.mark.parametrize(
    ("option", "variables", "said"),
    [
        ("--bind=127.0.0.1:0", {}, "bind"),
        ("--preload", {}, "preload_app"),
        ("--certfile=missing.pem", {}, "certfile is 'missing.pem'"),
        ("--keyfile=missing.pem", {}, "keyfile is 'missing.pem'"),
        ("--cert-reqs=required", {}, "cert_reqs is 'required'"),
        ("--workers=nought", {}, "workers"),
        ("--threads=4", {"REQUEST_METHOD": ""}, "REQUEST_METHOD is missing"),
    ],
)
def test_a_wrong_setting(folder, option, variables, said):
    answer = ask(folder, "x", option, **variables)
    assert (answer.code, answer.head) == (2, b"")
    assert said in answer.errors
    assert "Traceback" not in answer.errors


@pytest.mark.parametrize("option", ["--bind=127.0.0.1:0", "--certfile=missing.pem"])
def test_a_check_of_the_settings_says_the_same(folder, option):
    answer = ask(folder, "x", option, "--check-config")
    assert (answer.code, answer.head) == (2, b"")
    assert "with protocol = cgi" in answer.errors


def test_a_client_that_leaves(folder):
    process = start(folder, "endless")
    assert process.stdout.read(1000)
    process.stdout.close()
    with process.stderr:
        errors = process.stderr.read().decode()
    assert process.wait(TIMEOUT) == 0
    assert errors.count("close ends\n") == 1
    assert "Traceback" not in errors


def test_term_before_the_end_of_the_answer(folder):
    """As Apache and lighttpd tell that the client has gone: the application cleans up."""
    os.mkfifo(folder / "before")
    process = start(folder, "slow")
    wait_for((folder / "before.reached").exists, "the application waits")
    process.send_signal(signal.SIGTERM)
    output, errors = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, output) == (0, b"")
    assert b"close ends\n" in errors
    assert b"Traceback" not in errors


def test_term_after_the_end_of_the_answer(folder):
    """As they tell every program that still runs: it finishes what it does."""
    os.mkfifo(folder / "close")
    process = start(folder, "slow")
    wait_for((folder / "close.reached").exists, "the application waits in close()")
    process.send_signal(signal.SIGTERM)
    with open(folder / "close", "w"):
        pass
    output, errors = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, output.endswith(b"\r\n\r\npiece")) == (0, True)
    assert b"close ends\n" in errors
    assert b"Traceback" not in errors


def test_a_second_term_ends_it(folder):
    os.mkfifo(folder / "close")
    process = start(folder, "slow")
    wait_for((folder / "close.reached").exists, "the application waits in close()")
    process.send_signal(signal.SIGTERM)
    wait_for(lambda: not _catches(process.pid, signal.SIGTERM), "the first was taken")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=TIMEOUT)
    assert process.returncode == -signal.SIGTERM


def _catches(pid, number):
    with open(f"/proc/{pid}/status") as file:
        (caught,) = re.findall(r"(?m)^SigCgt:\s+(\w+)$", file.read())
    return int(caught, 16) >> (number - 1) & 1
