"""More requests than threads: how long they wait, who is refused, and what does not run."""

from __future__ import annotations

import json
import re
from time import monotonic

import pytest
from clients import SINGLE, Gate
from conftest import APPS, PROTOCOLS
from processes import wait_for
from test_greedy import a_while

RULES = APPS / "rules_app.py"

#: Says what it serves, waits at a gate if it is asked to, and looks at its client.
APP = f"""
import sys
sys.path.insert(0, {str(APPS)!r})
from rules_app import name_of, wait_at

def app(environ, start_response):
    gone = environ["gateway.client_disconnected"]
    path, name = environ["PATH_INFO"], name_of(environ)
    sys.stderr.write(f"serves {{path}} {{name}}\\n")
    if path == "/waits":
        wait_at(environ)
    if path == "/looks":
        before = gone()
        wait_at(environ)
        while not gone():
            pass
        sys.stderr.write(f"saw {{name}} {{before}} {{type(before) is bool}}\\n")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [name.encode()]
"""


class Busy:
    """All threads of a server stand at a gate."""

    def __init__(self, server, count, name) -> None:
        self._gate = Gate(server.folder / f"{name}.gate")
        self.peers = [server.connect("http") for _ in range(count)]
        self._waiting = []
        for peer in self.peers:
            peer.start(f"/waits?{name}")
            self._waiting.append(self._gate.arrived())

    def let_go(self) -> None:
        for waiting in self._waiting:
            waiting.close()
        self._waiting.clear()

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.let_go()
        self._gate.__exit__()


@pytest.fixture(scope="module")
def hasty(serve_module):
    """Two threads, and a second to get one of them."""
    return serve_module(
        APP, "--threads", "2", "--queue-timeout", "1", "--timeout", "0",
        "--accesslog", "-", "--access-log-format", "json",
    )  # fmt: skip


def logged(server, target):
    """The access line of a request."""
    server.output.wait_for(re.escape(target))
    lines = [json.loads(line) for line in server.printed.splitlines()]
    (found,) = [line for line in lines if line["request"].split()[1] == target]
    return found


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_a_request_that_waits_too_long_for_a_thread_is_503(hasty, protocol, kind, name):
    """While every thread is still busy; and the application does not see it."""
    with Busy(hasty, 2, name) as busy:
        peer = hasty.connect(protocol, kind)
        peer.start(f"/late?{name}")
        answer = peer.answer()
        assert (answer.status, answer.whole) == (503, True)
        assert int(answer.get("retry-after")) > 0
        if protocol == "fastcgi":
            assert answer.protocol_status == 2  # FCGI_OVERLOADED
        busy.let_go()
        for one in busy.peers:
            assert one.answer().body == name.encode()
    if protocol not in SINGLE:
        assert peer.ask(f"/next?{name}").status == 200
    assert f"serves /late {name}" not in hasty.log
    line = logged(hasty, f"/late?{name}")
    assert line["status"] == 503
    assert line["queue_us"] > 1e6
    hasty.wait_for_log(r"GET /late\?\S+ from .*: refused with a 503 after \d\.\d s in the queue")


def test_what_waits_for_an_earlier_answer_does_not_wait_for_a_thread(hasty, name):
    """A pipelined request has its time from when its turn has come."""
    with Gate(hasty.folder / f"{name}.gate") as gate:
        peer = hasty.connect("http")
        peer.send(peer.encode(f"/waits?{name}") + peer.encode(f"/second?{name}"))
        waiting = gate.arrived()
        a_while(2.5)
        waiting.close()
        assert [peer.answer().status for _ in range(2)] == [200, 200]
    assert logged(hasty, f"/second?{name}")["queue_us"] < 1e6


def test_multiplexed_requests_are_refused_one_by_one(hasty, name):
    with Gate(hasty.folder / f"{name}.gate") as gate:
        peer = hasty.connect("fastcgi")
        for number in (1, 2):
            peer.send(peer.encode(f"/waits?{name}", number=number))
        waiting = [gate.arrived() for _ in range(2)]
        for number in (3, 4):
            peer.send(peer.encode(f"/late?{name}", number=number))
        for number in (3, 4):
            answer = peer.answer(number=number)
            assert (answer.status, answer.protocol_status) == (503, 2)
        for one in waiting:
            one.close()
        for number in (1, 2):
            assert peer.answer(number=number).body == name.encode()


def test_without_queue_timeout_a_request_waits(serve, name):
    server = serve(APP, "--threads", "2", "--queue-timeout", "0", protocols=["http"])
    with Busy(server, 2, name) as busy:
        peer = server.connect("http")
        peer.start(f"/late?{name}")
        a_while(2.5)
        busy.let_go()
        assert peer.answer().body == name.encode()


@pytest.mark.parametrize("threads", ["1", "2"])
def test_time_in_the_backlog_counts(serve, threads, name):
    """Nobody has accepted the connection yet: the kernel knows when the request arrived."""
    server = serve(
        APP, "--threads", threads, "--queue-size", "1", "--queue-timeout", "2",
        "--timeout", "0", "--accesslog", "-", "--access-log-format", "json", protocols=["http"],
    )  # fmt: skip
    with Busy(server, int(threads), name) as busy:
        first = server.connect("http")  # fills the queue, where there is one
        first.start(f"/first?{name}")
        late = server.connect("http")
        late.start(f"/late?{name}")
        a_while(2.5)
        busy.let_go()
        assert late.answer().status == 503
    assert logged(server, f"/late?{name}")["queue_us"] > 2e6
    assert server.ask("http", f"/next?{name}").status == 200


# Nobody waits for the answer any more


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize("leave", ["close", "reset"])
def test_a_request_whose_client_has_gone_does_not_run(serve, threads, leave, name):
    options = ("--threads", threads, "--timeout", "0", "--queue-size", "50")
    server = serve(APP, *options, "--accesslog", "-", "--access-log-format", "json")
    with Busy(server, int(threads), name) as busy:
        stays = []
        for protocol in PROTOCOLS:
            for kind in ("tcp", "unix"):
                peer = server.connect(protocol, kind)
                peer.start(f"/never?{protocol}-{kind}")
                if leave == "close":
                    peer.close()
                else:
                    peer.reset()
                stays.append(server.connect(protocol, kind))
                stays[-1].start(f"/stays?{protocol}-{kind}")
        a_while(1.5)
        busy.let_go()
        for peer in stays:
            assert peer.answer().status == 200
    wait_for(lambda: server.printed.count("GET /stays") == 8, "the last line")
    assert len(server.wait_for_log("serves /stays", 8)) == 8
    assert "serves /never" not in server.log
    lines = [json.loads(line) for line in server.printed.splitlines() if "/never" in line]
    for line in lines:  # some are never read at all
        assert (line["status"], line["aborted"]) == (None, True)


@pytest.fixture(scope="module")
def looking(serve_module, threads):
    return serve_module(APP, "--threads", threads)


@pytest.mark.parametrize("kind", ["tcp", "unix"])
@pytest.mark.parametrize("leave", ["close", "reset"])
def test_the_application_can_see_that_its_client_has_gone(looking, protocol, kind, leave, name):
    with Gate(looking.folder / f"{name}.gate") as gate:
        peer = looking.connect(protocol, kind)
        peer.start(f"/looks?{name}")
        waiting = gate.arrived()
        getattr(peer, leave)()
        waiting.close()
        looking.wait_for_log(f"saw {name} False True\n")
    assert looking.ask(protocol, "/next").status == 200


def test_an_abort_is_seen_while_the_connection_stays(serve, name):
    server = serve(APP, "--threads", "2", protocols=["fastcgi"])
    with Gate(server.folder / f"{name}.gate") as gate:
        peer = server.connect("fastcgi")
        peer.start(f"/looks?{name}")
        waiting = gate.arrived()
        peer.abort(1)
        waiting.close()
        server.wait_for_log(f"saw {name} False True\n")
        assert peer.ask("/next", number=2).status == 200


# What the logs say


def test_how_long_a_request_waited_is_in_the_logs(serve, protocol, name):
    server = serve(
        APP, "--threads", "2", "--slow-request-timeout", "0.2",
        "--accesslog", "-", "--access-log-format", "%(r)s waited %(Q)s",
    )  # fmt: skip
    with Busy(server, 2, name) as busy, Gate(server.folder / f"{name}2.gate") as gate:
        peer = server.connect(protocol)
        peer.start(f"/waits?{name}2")
        begun = monotonic()
        a_while(0.6)
        busy.let_go()
        waiting = gate.arrived()
        server.wait_for_log(rf"GET /waits\?{name}2 from .*: slow, .* after \d\.\d s in the queue")
        waiting.close()
        assert peer.answer().status == 200
    (waited,) = server.output.wait_for(rf"GET /waits\?{name}2 \S+ waited (\d+)")
    assert 0.5 < int(waited) / 1e6 < monotonic() - begun
