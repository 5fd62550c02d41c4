"""What an application does to its worker, and what the worker tells of itself."""

from __future__ import annotations

import json
import os
import re
import signal

import pytest
from clients import SINGLE
from processes import Load, alive, children, wait_for

APP = """
import json
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import time

FOLDER = os.path.dirname(os.path.abspath(__file__))

def sockets():
    found = []
    for number in range(3, 256):
        try:
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                found.append(number)
        except OSError:
            pass
    return found

def report():
    with open(os.path.join(FOLDER, "sockets"), "w") as file:
        json.dump([sockets(), signal.getsignal(signal.SIGTERM) == signal.SIG_DFL], file)

def wait_for(name):
    while not os.path.exists(os.path.join(FOLDER, name)):
        time.sleep(0.005)

def status_of(pid):
    return str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode()

def streamed(environ, start_response):
    start_response("200 OK", [])
    yield b"before "
    pid = os.fork()
    yield b"child" if pid == 0 else b"after " + status_of(pid)

def app(environ, start_response):
    path = environ["PATH_INFO"]
    body = b"fine"
    if path == "/streamed":
        return streamed(environ, start_response)
    if path in ("/returns", "/raises", "/exits", "/writes"):
        pid = os.fork()
        if pid == 0 and path == "/raises":
            raise RuntimeError("in the child")
        if pid == 0 and path == "/exits":
            sys.exit(7)
        if pid == 0 and path == "/writes":
            start_response("200 OK", [])(b"the child speaks")
        body = b"child" if pid == 0 else status_of(pid)
    elif path == "/stays":
        if os.fork() == 0:
            report()
            wait_for("go")
            os._exit(0)
    elif path == "/tools":
        with multiprocessing.get_context("fork").Pool(1) as pool:
            body = str(pool.map(abs, [-3])[0]).encode()
        process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1e6,))
        process.start()
        process.terminate()
        process.join()
        body += b" %d " % process.exitcode
        body += subprocess.run([sys.executable, "-c", "print(4)"], stdout=subprocess.PIPE).stdout
    elif path == "/closes":
        os.closerange(3, 65536)
    elif path == "/environ":
        body = json.dumps([environ["wsgi.multithread"], environ["wsgi.multiprocess"]]).encode()
    elif path == "/wait":
        open(os.path.join(FOLDER, "waiting"), "w").close()
        wait_for("go")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]
"""

PATHS = [("returns", b"0"), ("raises", b"1"), ("exits", b"7"), ("writes", b"0")]


@pytest.fixture(scope="module")
def forking(serve_module, threads):
    return serve_module(APP, "--threads", threads)


@pytest.mark.parametrize(("path", "status"), [*PATHS, ("streamed", b"before after 0")])
def test_a_forked_child_that_returns_is_no_server(forking, protocol, path, status):
    server = forking
    peer = server.connect(protocol)
    answer = peer.ask(f"/{path}")
    assert (answer.status, answer.whole) == (200, True)
    assert answer.body.endswith(status)
    assert b"child" not in answer.body
    if protocol not in SINGLE:
        assert peer.ask("/").body == b"fine"
    else:
        assert server.ask(protocol).body == b"fine"
    assert len(server.workers) == 1


def test_a_forked_child_keeps_no_socket(serve, protocol, threads):
    server = serve(APP, "--threads", threads, protocols=[protocol])
    neighbour = server.connect(protocol)
    with server.connect(protocol) as peer:
        assert peer.ask("/stays", **({"close": True} if protocol not in SINGLE else {})).whole
        # The child lives, and yet the connection ends.
        assert peer.rest() == b""
    wait_for((server.folder / "sockets").exists, "the child's report")
    wait_for(lambda: (server.folder / "sockets").read_text().endswith("]"), "the whole of it")
    assert json.loads((server.folder / "sockets").read_text()) == [[], True]
    assert neighbour.ask("/").body == b"fine"
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == 0
    address = server.addresses[protocol, "tcp"]
    with pytest.raises(ConnectionRefusedError):
        type(neighbour)(address)
    (server.folder / "go").touch()


def test_tools_that_fork_go_on_working(serve, protocol, threads):
    server = serve(APP, "--threads", threads, protocols=[protocol])
    assert server.ask(protocol, "/tools").body == b"3 -15 4\n"
    assert server.ask(protocol).body == b"fine"


@pytest.mark.parametrize("where", ["-", "error.log"])
def test_an_application_that_closes_all_descriptors(serve, protocol, threads, where):
    server = serve(
        APP, "--threads", threads, "--errorlog", where, protocols=[protocol], wait=where == "-"
    )

    def log() -> str:
        path = server.folder / "error.log"
        return server.log if where == "-" else path.read_text() if path.exists() else ""

    wait_for(lambda: "is ready" in log(), "a worker")
    if where != "-":
        server.errors.text += log()
        server.wait_until_ready()
    with server.connect(protocol) as peer:
        peer.start("/closes")
        assert peer.rest() == b""
    wait_for(lambda: log().count("is ready") == 2, "another worker")
    assert server.ask(protocol).body == b"fine"
    assert log().count("the application has closed the server's descriptors") == 1
    assert "died with exit code 4" in log()
    assert "a fault of the server" not in log()


@pytest.mark.parametrize("jitter", ["0", "50"])
def test_max_requests_replaces_a_worker_without_a_loss(serve, threads, jitter):
    options = ("--max-requests", "100", "--max-requests-jitter", jitter, "--threads", threads)
    server = serve(APP, *options, protocols=["http"])
    with Load("http", server.addresses["http", "tcp"], keep=True, clients=4) as load:
        wait_for(lambda: len(server.workers) >= 4 or load.lost, "replacements")
    assert not load.lost
    reached = re.findall(r"is to be replaced: max_requests reached: (\d+)", server.log)
    assert len(reached) >= 3
    most = 100 + int(jitter)
    assert all(100 <= int(number) <= most for number in reached)
    if int(jitter):
        assert len(set(reached)) > 1


def test_a_crash_leaves_all_stacks_in_the_log(serve, protocol, threads):
    server = serve(APP, "--threads", threads, "--errorlog", "error.log", wait=False)
    path = server.folder / "error.log"
    wait_for(lambda: path.exists() and "is ready" in path.read_text(), "a worker")
    server.errors.text += path.read_text()
    server.wait_until_ready()
    (worker,) = server.workers
    # The log is moved away, and with it what crashes write to.
    path.rename(server.folder / "old.log")
    server.kill(signal.SIGUSR1)
    folder = f"/proc/{worker}/fd"
    wait_for(
        lambda: (
            [os.readlink(f"{folder}/{name}") for name in os.listdir(folder)].count(str(path)) == 2
        ),
        "the worker to have the new log, and its end for crashes",
    )
    server.connect(protocol).start("/wait")
    wait_for((server.folder / "waiting").exists, "the request")
    os.kill(worker, signal.SIGABRT)
    lost = r"\[\d+-\d+\] GET /wait from .*: lost after"
    wait_for(lambda: re.search(lost, path.read_text()), "the end, and the request")
    text = path.read_text()
    assert "died by signal SIGABRT" in text
    assert "Fatal Python error: Aborted" in text
    assert re.search(r'File ".*app.py", line \d+ in wait_for', text)
    (server.folder / "go").touch()


@pytest.mark.parametrize(
    ("options", "many"),
    [
        ((), False),
        (("--workers", "2"), True),
        (("--process-manager", "dynamic", "--workers-max", "3"), True),
        (("--process-manager", "ondemand", "--workers-max", "2"), True),
    ],
)
def test_the_environ_says_whether_there_may_be_other_processes(serve, options, many):
    server = serve(APP, *options, protocols=["http"], kinds=["tcp"], wait=False)
    server.errors.wait_for("listening: http", timeout=30)
    found = re.search(r"http on (127.0.0.1):(\d+)", server.log)
    server.addresses["http", "tcp"] = (found[1], int(found[2]))
    assert json.loads(server.ask("http", "/environ").body) == [True, many]


HOOKS = """
def say(text):
    print(f"hook {text}\\n", end="", flush=True)

def post_worker_init(worker):
    say(f"post_worker_init {worker.pid > 1}")
    worker.mark = "marked"

def ready(worker):
    say(f"ready {worker.mark}")

def pre_request(worker, req):
    req.mark = 1
    say(f"pre_request {worker.mark} {req.method} {req.path}")
    if req.path == "/refused":
        raise ValueError("not this one")
    if req.path == "/pre":
        while True:
            pass

def post_request(worker, req, environ, resp):
    say(f"post_request {req.mark} {environ['PATH_INFO']} {resp.status_code} {resp.sent}")
    if req.path == "/post":
        raise SystemExit("no")
    if req.path == "/hangs":
        import time
        time.sleep(1e6)

def worker_exit(server, worker):
    say(f"worker_exit {worker.mark}")
"""


def test_hooks_of_a_worker(serve, protocol, threads):
    options = ("--threads", threads, "-c", "conf.py", "--timeout", "0.4", "--accesslog", "-")
    server = serve(APP, *options, protocols=[protocol], files={"conf.py": HOOKS})
    assert server.ask(protocol, "/x").status == 200
    assert server.ask(protocol, "/refused").status == 500
    assert server.ask(protocol, "/post").status == 200
    assert server.ask(protocol, "/pre").status == 504
    server.output.wait_for(r"hook post_request 1 /pre 504 16\n")
    with server.connect(protocol) as peer:
        assert peer.ask("/hangs").status == 200
        if protocol not in SINGLE:
            assert peer.ask("/x").status == 200
    server.wait_for_log(r"/hangs from .*: stuck")
    assert server.ask(protocol, "/x").status == 200
    assert server.stop(signal.SIGTERM) == 0
    printed = server.printed
    expected = [
        r"hook post_worker_init True\n",
        r"hook ready marked\n",
        r"hook pre_request marked GET /x\n",
        r"hook post_request 1 /x 200 4\n",
        r"hook post_request 1 /refused 500 \d+\n",
        r"hook worker_exit marked\n",
    ]
    for line in expected:
        assert re.search(line, printed), printed
    assert len(re.findall('"GET /hangs HTTP/1.1" 200', printed)) == 1
    assert "GET /post from" in server.log
    assert "the hook post_request failed" in server.log


@pytest.mark.parametrize("name", ["ready", "post_worker_init"])
def test_a_hook_can_refuse_a_worker(serve, name):
    text = {
        "ready": "def ready(worker): return False",
        "post_worker_init": "def post_worker_init(worker): raise ValueError('no database')",
    }
    server = serve(APP, "-c", "conf.py", files={"conf.py": text[name]}, wait=False)
    assert server.process.wait(20) == 3
    server.errors.wait_for_end(20)
    wanted = "the hook ready returned False" if name == "ready" else "no database"
    assert wanted in server.log


def test_a_worker_whose_manager_is_gone_leaves(serve, threads):
    server = serve(APP, "--threads", threads)
    (worker,) = children(server.process.pid)
    server.kill(signal.SIGKILL)
    server.process.wait(20)
    wait_for(lambda: not alive(worker), "the worker to leave")
