"""wrk, sending the bytes of a request as they are, on the cores of the load."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path

from benchmarks.process import LOAD_CORES, connect, on_cores

_SCRIPT = str(Path(__file__).resolve().parent / "wrk.lua")
#: wrk has a line of its own for it; longer than any answer here.
_TIMEOUT = "20s"


@dataclass
class Load:
    """What wrk saw; times in seconds."""

    requests: int
    errors: int
    seconds: float
    p50: float
    p99: float
    longest: float


def missing():
    """Why there is no load here; None if there is."""
    return None if shutil.which("wrk") else "wrk is missing (apt-get install wrk)"


def generate(port, request, connections, seconds):
    """Load 127.0.0.1:``port`` with copies of ``request`` for so many whole seconds."""
    with background(port, request, connections, seconds) as process:
        output = process.communicate(timeout=seconds + 60)[0]
    if process.returncode:
        raise RuntimeError(f"wrk ends with {process.returncode}: {output}")
    return parse(output)


@contextmanager
def background(port, request, connections, seconds):
    """wrk while the block runs; it is ended with the block."""
    threads = min(len(LOAD_CORES), connections)
    with tempfile.NamedTemporaryFile(prefix="bench-request-") as file:
        file.write(request)
        file.flush()
        command = [
            "wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout", _TIMEOUT,
            "-s", _SCRIPT, f"http://127.0.0.1:{port}/", "--", file.name,
        ]  # fmt: skip
        with on_cores(LOAD_CORES):
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            process.stdout.close()


def parse(output):
    """The line of JSON that the script prints last."""
    lines = [line for line in output.splitlines() if line.startswith("{")]
    if not lines:
        raise RuntimeError(f"wrk says: {output}")
    found = json.loads(lines[-1])
    return Load(
        found["requests"],
        found["errors"],
        found["microseconds"] / 1e6,
        *(found[name] / 1e6 for name in ("p50", "p99", "longest")),
    )


def ask(port, request, times=1):
    """Send the request so many times, on one connection as long as it is kept; the last body."""
    body = b""
    while times > 0:
        with connect(("127.0.0.1", port)) as sock:
            sock.settimeout(20)
            while times > 0:
                times -= 1
                sock.sendall(request)
                with HTTPResponse(sock) as answer:
                    answer.begin()
                    body = answer.read()
                    if answer.status != 200:
                        raise RuntimeError(f"answers {answer.status}: {body[:200]!r}")
                    if answer.will_close:
                        break
    return body
