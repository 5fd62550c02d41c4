"""Workers that are replaced by count, age and size, while every kind of client asks."""

from __future__ import annotations

from time import monotonic

from fleet import Fleet, versioned
from processes import children, wait_for

REQUESTS = 20_000
MAX_REQUESTS = 200


def requests_a_second(serve, *options: str) -> tuple[float, int]:
    """What the service does, and how many processes took part; nothing may fail."""
    with Fleet(serve, versioned(0), "--workers", "2", *options) as fleet:
        with fleet.load() as load:
            load.reached(20)
            begun, before = monotonic(), load.answered
            wait_for(lambda: load.failed or load.answered >= before + REQUESTS, f"{REQUESTS}")
            rate = (load.answered - before) / (monotonic() - begun)
        workers = len(load.bodies)
        print(f"{' '.join(options) or 'as ever'}: {rate:.0f} a second, {workers} workers\n{load}")
        load.check()
        wait_for(lambda: len(children(fleet.server.process.pid)) == 2, "two workers")
        assert "cut off" not in fleet.server.log
        assert "does not leave" not in fleet.server.log
        return rate, workers


def test_max_requests(serve):
    plain, workers = requests_a_second(serve)
    assert workers == 2
    recycled, workers = requests_a_second(
        serve, "--max-requests", str(MAX_REQUESTS), "--max-requests-jitter", "20"
    )
    print(f"throughput with max_requests = {MAX_REQUESTS}: {100 * recycled / plain:.0f} %")
    # A worker goes on serving until the next one is ready, and so does more than it has to.
    assert workers > REQUESTS / MAX_REQUESTS / 10
    # 80 % is what it should be; a busy machine must not fail a test.
    assert recycled > plain / 2


def replaced(serve, app: str, *options: str) -> None:
    with Fleet(serve, app, "--workers", "2", *options) as fleet:
        with fleet.load() as load:
            wait_for(lambda: load.failed or len(load.bodies) >= 8, "six new workers")
            load.reached(10)
        print(f"{' '.join(options)}: {len(load.bodies)} workers\n{load}")
        load.check()
        wait_for(lambda: len(children(fleet.server.process.pid)) == 2, "two workers")
        assert "cut off" not in fleet.server.log


def test_max_worker_lifetime(serve):
    replaced(serve, versioned(0), "--max-worker-lifetime", "0.5")


LEAKING_APP = (
    versioned(0)
    + """
inner, leaks = app, []

def app(environ, start_response):
    leaks.append(b"x" * 1_000_000)
    return inner(environ, start_response)
"""
)


def test_max_worker_rss(serve):
    replaced(serve, LEAKING_APP, "--max-worker-rss", "150")
