"""No thread is free: every front end passes on the 503, and FCGI_OVERLOADED does not confuse it."""

import os
from contextlib import ExitStack

import pytest
from front_ends import WAYS, Site, Way
from matrix import pipe
from other_front_ends import OTHERS

THREADS = 2
OPTIONS = ("--workers=1", f"--threads={THREADS}", "--queue-timeout=1")
#: Front ends that start the gateway themselves have it with their own options.
OVERLOADED = [way for way in WAYS + OTHERS if (way.transport, way.mount) == ("tcp", "root")]
OVERLOADED = [way for way in OVERLOADED if way.server not in ("fcgid", "spawn-fcgi")]


@pytest.mark.parametrize("way", OVERLOADED, ids=str)
def test_a_503_comes_through(servers, way):
    site, gateway = servers.site(way, *OPTIONS), servers.gateway(way.mount, *OPTIONS)
    straight = Site(Way("direct", "http", "tcp", "root"), gateway.addresses["http", "tcp"])
    with ExitStack() as stack, pipe() as (name, go_on):
        busy = [
            stack.enter_context(straight.send(f"/?pieces=2&pipe={name}", app="stream"))
            for _ in range(THREADS)
        ]
        for connection in busy:
            connection.recv(65536)
        answer = site.ask("/")
        assert answer.status == 503
        assert int(answer.one("Retry-After")) > 0
        assert b"too many requests" in answer.body
        os.write(go_on, b"+" * THREADS)
    assert site.ask("/").status == 200
