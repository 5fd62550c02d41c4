"""Load over keep-alive connections: wrk, or a small client of our own where it is missing.

wrk runs for whole seconds, so the number of requests wanted is turned into
seconds at the rate of the warm-up; what counts is wrk's own total.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass

from benchmarks.app import BODY
from benchmarks.process import LOAD_CORES, connect, cpu_seconds, machine_seconds, on_cores, python

CONNECTIONS = 64
REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
_MOST_SECONDS = 10
_SETTLE = 0.1


@dataclass
class Load:
    """What a generator saw, and what the measured processes spent meanwhile.

    ``elsewhere`` is how many cores others than us kept busy.
    """

    requests: int
    errors: int
    seconds: float
    cpu: float = 0.0
    elsewhere: float = 0.0

    @property
    def microseconds(self):
        return self.cpu / max(1, self.requests) * 1e6

    @property
    def rate(self):
        return self.requests / self.seconds


def measure(pid, port, requests, connections=CONNECTIONS):
    """Warm up, then load the port and charge the process tree of ``pid``."""
    warm = generate(port, requests // 4, 0, connections)
    time.sleep(_SETTLE)
    started, all_before, before = time.monotonic(), _not_ours(), cpu_seconds(pid)
    load = generate(port, requests, warm.rate, connections)
    time.sleep(_SETTLE)
    load.cpu = cpu_seconds(pid) - before
    load.elsewhere = max(0, _not_ours() - all_before) / (time.monotonic() - started)
    load.errors += warm.errors
    return load


def _not_ours():
    """CPU seconds that all cores gave to others than us and what we started."""
    return machine_seconds() - cpu_seconds(os.getpid())


def generate(port, requests, rate, connections):
    """About ``requests`` requests; ``rate`` is what to expect a second, 0 if unknown."""
    with on_cores(LOAD_CORES):
        if shutil.which("wrk"):
            seconds = min(_MOST_SECONDS, max(1, round(requests / rate))) if rate else 1
            return _wrk(port, seconds, connections)
        return _own(port, requests, connections)


def _wrk(port, seconds, connections):
    threads = min(len(LOAD_CORES), connections)
    command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s"]
    output = subprocess.run(
        [*command, f"http://127.0.0.1:{port}/"],
        check=True, capture_output=True, text=True, timeout=seconds + 30,
    ).stdout  # fmt: skip
    total = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m)", output)
    if total is None:
        raise RuntimeError(f"wrk says: {output}")
    unit = {"ms": 0.001, "s": 1, "m": 60}[total[3]]
    errors = 0
    sockets = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", output)
    if sockets:
        errors += sum(map(int, sockets.groups()))
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    if bad:
        errors += int(bad[1])
    return Load(int(total[1]), errors, float(total[2]) * unit)


def _own(port, requests, connections):
    """One process of our own client for each core of the load."""
    count = min(len(LOAD_CORES), connections)
    command = python("benchmarks.load", port, requests // count, connections // count)
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(count)]
    try:
        parts = [json.loads(process.communicate(timeout=300)[0]) for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
    done, errors, seconds = zip(*parts, strict=True)
    return Load(sum(done), sum(errors), max(seconds))


def client(port, requests, connections):
    """Send ``requests`` over ``connections`` by epoll; return (answers, errors, seconds)."""
    poll = select.epoll()
    sockets = {}
    partial = {}
    done = errors = 0
    to_send = requests

    def begin(sock=None):
        nonlocal to_send
        if to_send <= 0:
            return
        to_send -= 1
        if sock is None:
            sock = connect(("127.0.0.1", port))
            sockets[sock.fileno()] = sock
            poll.register(sock, select.EPOLLIN)
        partial[sock.fileno()] = b""
        sock.send(REQUEST)

    started = time.perf_counter()
    for _ in range(connections):
        begin()
    while done + errors < requests:
        events = poll.poll(10)
        if not events:
            errors += requests - done - errors
            break
        for number, _event in events:
            sock = sockets[number]
            try:
                data = sock.recv(65536)
            except ConnectionError:
                data = b""
            if not data:
                errors += number in partial
                partial.pop(number, None)
                del sockets[number]
                poll.unregister(sock)
                sock.close()
                begin()
                continue
            data = partial.get(number, b"") + data
            if not data.endswith(BODY):
                partial[number] = data
                continue
            partial.pop(number, None)
            if data.startswith(b"HTTP/1.1 200"):
                done += 1
            else:
                errors += 1
            if b"\r\nConnection: close\r\n" not in data:
                begin(sock)
    seconds = time.perf_counter() - started
    for sock in sockets.values():
        sock.close()
    return done, errors, seconds


if __name__ == "__main__":
    sys.stdout.write(json.dumps(client(*map(int, sys.argv[1:]))))
