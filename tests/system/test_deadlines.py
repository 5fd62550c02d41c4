"""Requests that take too long, on every protocol, inline and in the pool.

Whatever one request does, its neighbours in the same worker are answered.
"""

from __future__ import annotations

import re
import signal
from textwrap import dedent

import pytest
from clients import SINGLE
from conftest import numbered
from processes import WAITING_APP, Load, alive, wait_for

#: /go/NAME answers once there is a file NAME; most other names are ways not to come back.
APP = """
import ctypes
import os
import threading
import time

HELD = threading.Lock()
HELD.acquire()
FOLDER = os.path.dirname(os.path.abspath(__file__))

def sleep():
    time.sleep(1e6)

def lock():
    open(os.path.join(FOLDER, "locked"), "w").close()
    HELD.acquire()

def read():
    os.read(os.pipe()[0], 1)

def loop():
    number = 0
    while True:
        number += 1

def catch():
    try:
        loop()
    except BaseException:
        return "an answer all the same"

def swallow():
    while True:
        try:
            loop()
        except BaseException:
            pass

def stream():
    while True:
        yield b"x"
        time.sleep(0.001)

def stream_that_hangs():
    yield b"x"
    sleep()

def count():
    for start in range(0, 20_000, 100):
        yield b"".join(b"%07d\\n" % number for number in range(start, start + 100))

class HangsAtTheEnd:
    def __iter__(self):
        return iter([b"all ", b"of it"])

    def close(self):
        sleep()

def app(environ, start_response):
    name = environ["PATH_INFO"].rpartition("/")[2]
    if environ["PATH_INFO"].startswith("/go/"):
        while not os.path.exists(os.path.join(FOLDER, name)):
            time.sleep(0.005)
    elif name == "written":
        start_response("200 OK", [])(b"some")
        loop()
    elif name in ("stream", "stream_that_hangs", "count"):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return globals()[name]()
    elif name == "close":
        start_response("200 OK", [("Content-Length", "9")])
        return HangsAtTheEnd()
    elif name:
        globals()[name]()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % os.getpid()]
"""

#: Ways that an exception ends, and ways that it does not reach.
ENDED = ["loop", "catch"]
STUCK = ["sleep", "lock", "read", "swallow"]

#: Long enough for a neighbour on a busy machine.
LIMIT = ("--timeout", "0.8")


def worker_of(answer) -> int:
    assert answer.status == 200
    return int(answer.body)


@pytest.mark.parametrize("way", ENDED)
def test_a_request_that_an_exception_ends_is_504(serve, protocol, threads, way):
    server = serve(APP, *LIMIT, "--threads", threads, "--accesslog", "-", protocols=[protocol])
    worker = worker_of(server.ask(protocol))
    keep = protocol not in SINGLE
    with Load(protocol, server.addresses[protocol, "unix"], keep=keep, clients=2) as load:
        with server.connect(protocol) as peer:
            answer = peer.ask(f"/{way}?x=1")
            assert (answer.status, answer.body, answer.whole) == (504, b"Gateway Timeout\n", True)
            if keep:  # the connection is sound
                assert worker_of(peer.ask("/")) == worker
        load.reached(10)
    assert not load.lost
    assert load.bodies == {b"%d" % worker}, "the worker stays"
    server.wait_for_log(rf"\[{worker}-\d+\] GET /{way}\?x=1 from .*: timeout after \d\.\d s")
    assert re.search(r'File ".*app.py", line \d+, in loop\n', server.log), "the stack is logged"
    server.output.wait_for(rf"GET /{way}\?x=1 HTTP/1.1. 504 ")
    assert "to be replaced" not in server.log


def test_threads_that_do_not_come_back_are_given_up(serve, protocol, threads):
    """As many as there are threads, at once: neighbours, and requests that wait, lose nothing."""
    server = serve(APP, *LIMIT, "--threads", threads, "--accesslog", "-", protocols=[protocol])
    worker = worker_of(server.ask(protocol))
    keep = protocol not in SINGLE
    with Load(protocol, server.addresses[protocol, "unix"], keep=keep, clients=2) as load:
        peers = [server.connect(protocol) for _ in STUCK]
        for peer, way in zip(peers, STUCK, strict=True):
            peer.start(f"/{way}")
        for peer in peers:
            answer = peer.answer()
            assert (answer.status, answer.whole) == (504, True)
            peer.close()
        server.wait_for_log(rf"worker {worker} is to be replaced: a request is stuck: GET /")
        server.wait_for_log(rf"worker {worker} left\n")
        load.forget_bodies()
        load.reached(10)
    assert not load.lost
    assert b"%d" % worker not in load.bodies
    for way in STUCK:
        stuck = rf"GET /{way} from \S.*: stuck, \d\.\d s so far: its thread is given up\n"
        server.wait_for_log(stuck + rf"(    .*\n)+?.*app.py.*in {way}")
        assert len(server.output.wait_for(rf"GET /{way} HTTP/1.1. 504 ")) == 1
    wait_for(
        lambda: len(re.findall("is to be replaced", server.log)) == len(set(server.workers)) - 1,
        "a new worker for each that is replaced",
    )


@pytest.fixture(scope="module")
def limited(serve_module, threads):
    return serve_module(APP, *LIMIT, "--threads", threads)


@pytest.mark.parametrize("way", ["stream", "stream_that_hangs", "written"])
def test_an_answer_that_has_begun_is_cut(limited, protocol, way):
    server, since = limited, len(limited.log)
    with server.connect(protocol) as peer:
        answer = peer.ask(f"/{way}")
        assert answer.status == 200
        assert answer.body.startswith(b"x" if way != "written" else b"some")
        assert not answer.whole
    server.wait_for_log(f"GET /{way} from .*: timeout after", since=since)
    assert server.ask(protocol).status == 200


def test_an_answer_that_is_out_stays_whole_if_its_close_hangs(serve, protocol, threads):
    server = serve(APP, *LIMIT, "--threads", threads, "--accesslog", "-", protocols=[protocol])
    with server.connect(protocol) as peer:
        answer = peer.ask("/close")
        assert (answer.status, answer.body, answer.whole) == (200, b"all of it", True)
        if protocol not in SINGLE:
            assert peer.ask("/").status == 200
    server.wait_for_log("GET /close from .*: stuck")
    server.output.wait_for("GET /close HTTP/1.1. 200 9 ")


def test_requests_of_one_connection_lose_nothing_by_a_neighbour(serve, threads):
    """FastCGI, multiplexed: an exception must not arrive in the middle of a record."""
    server = serve(APP, *LIMIT, "--threads", threads, protocols=["fastcgi"])
    ways = ["sleep", "loop", "stream", "swallow"]
    # On a unix socket: elsewhere the reset that cuts ``stream`` may overtake what is not read yet.
    with server.connect("fastcgi", "unix") as peer:
        # ``stream`` closes the connection for what comes later; what is there is answered.
        numbers = dict(enumerate([*ways, "count", "count", ""], 1))
        whole = b"".join(peer.encode(f"/{way}", number=number) for number, way in numbers.items())
        peer.send(whole)
        answers = {}
        for number, way in numbers.items():
            answers[way, number] = peer.answer(number=number)
    for (way, _), answer in answers.items():
        if way == "count":
            assert (answer.body, answer.whole) == (numbered(160_000), True)
        elif way == "stream":
            assert not answer.whole
        else:
            assert (answer.status, answer.whole) == (200 if not way else 504, True)


def test_the_connection_of_a_request_that_was_given_up_goes_on(serve, threads):
    server = serve(APP, *LIMIT, "--threads", threads, protocols=["fastcgi"])
    with server.connect("fastcgi") as peer:
        peer.start("/sleep", number=1)
        if threads != "1":
            assert peer.ask("/", number=2).status == 200
        assert peer.answer(number=1).status == 504
        for number in (1, 2, 3):
            assert peer.ask("/count", number=number).whole


def test_a_slow_request_is_logged_once_with_its_stack(serve, protocol, threads):
    server = serve(APP, "--slow-request-timeout", "0.2", "--threads", threads, protocols=[protocol])
    with server.connect(protocol) as peer:
        peer.start("/go/on?a=b")
        (found,) = server.wait_for_log(
            r"\[WARNING\] \[\d+-\d+\] GET /go/on\?a=b from \S.*: slow, 0\.\d s so far\n"
            r'(?:    .*\n)+?.*File ".*app.py", line (\d+), in app'
        )
        line = dedent(APP).splitlines()[int(found) - 1]
        assert "os.path.exists" in line or "time.sleep" in line
        with server.connect(protocol) as other:
            other.start("/go/on")  # inline it waits for the first
            (server.folder / "on").touch()
            assert peer.answer().status == other.answer().status == 200
    assert len(re.findall(r"/go/on\?a=b .*slow", server.log)) == 1
    assert "timeout after" not in server.log


def test_the_time_of_a_slow_client_does_not_count(serve, protocol):
    small = ("--response-buffer-size", "20000", "--body-buffer-size", "10000")
    server = serve(APP, *LIMIT, *small, "--threads", "4", protocols=[protocol])
    slow = server.connect(protocol, "unix", receive_buffer=4096)
    slow.start("/count")
    head = slow.head()
    # Another request, begun later, passes its deadline twice over.
    for _ in range(2):
        assert server.ask(protocol, "/loop").status == 504
    body = b"".join(slow.pieces(head))
    assert (len(body), head.whole) == (160_000, True)
    assert "GET /count" not in server.log


@pytest.mark.parametrize("end", ["TERM", "the manager is killed"])
def test_what_graceful_timeout_cuts_off_is_named_request_by_request(serve, protocol, threads, end):
    options = ("--timeout", "0", "--graceful-timeout", "0.5", "--threads", threads)
    server = serve(WAITING_APP, *options, "--accesslog", "-", protocols=[protocol])
    (worker,) = server.workers
    names = ["never"] if threads == "1" else ["never", "no", "nor-this"]
    for name in names:
        server.connect(protocol).start(f"/wait/{name}")
        wait_for((server.folder / f"{name}.started").exists, f"the request {name}")
    server.kill(signal.SIGTERM if end == "TERM" else signal.SIGKILL)
    server.process.wait(20)
    assert server.errors.wait_for_end(20)
    assert server.output.wait_for_end(20)
    wait_for(lambda: not alive(worker), "the worker to be gone")
    for name in names:
        line = rf"GET /wait/{name} from \S.*: cut off after graceful_timeout, \d\.\d s old\n"
        assert len(re.findall(line, server.log)) == 1, server.log
        line = rf'"GET /wait/{name} HTTP/1.1" - - .* aborted\n'
        assert len(re.findall(line, server.printed)) == 1, server.printed


def test_a_worker_stuck_in_c_obeys_a_signal_in_time(serve, protocol):
    """The main thread is in no Python code: another has to read the signal."""
    server = serve(APP, "--timeout", "0", "--graceful-timeout", "0.5", "--threads", "1")
    server.connect(protocol).start("/lock")
    wait_for((server.folder / "locked").exists, "the request")
    server.kill(signal.SIGTERM)
    assert server.process.wait(20) == 0
    assert "GET /lock from" in server.log
    assert "killed" not in server.log
