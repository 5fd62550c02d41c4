"""A 60 KB head byte by byte and at once, through the live server, CPU with its system calls.

What reading a byte at a time costs any server is measured by the plainest one:
a loop of epoll and recv that throws the bytes away.  The client waits after
each byte long enough for the server to be alone with it.
"""

from __future__ import annotations

import select
import socket
import sys
import tempfile
import time
from statistics import median

from benchmarks.apps.hello import BODY
from benchmarks.payloads import PAYLOADS
from benchmarks.process import (
    LOAD_CORES,
    SERVER_CORES,
    connect,
    connects,
    cpu_seconds,
    on_cores,
    python,
    running,
)
from protocols import codec_class
from protocols.model import Limits

_APP = "benchmarks.apps.hello:app"
SIZE = 60_000
#: Below every server's default limit of one field line.
_FIELD = 7_500
_MOST = 4
_AT_ONCE = 1_000
_PAUSE = 20e-6


def run(rounds, _requests):
    """Yield lines of Markdown."""
    yield f"### A head of {SIZE // 1000} KB"
    yield ""
    yield (
        "| codec | at once ms | system calls, byte by byte ms | byte by byte ms "
        "| ratio | at most | | codec alone, µs a byte: 15 KB | 30 KB | 60 KB |"
    )
    yield "|---|---:|---:|---:|---:|---:|---|---:|---:|---:|"
    for name in PAYLOADS:
        found = []
        for number in range(rounds):
            sys.stderr.write(f"head round {number + 1}/{rounds}: {name}\n")
            found.append(_live(name))
        once, calls, bytewise = (median(column) for column in zip(*found, strict=True))
        ratio = median(c / (a + b) for a, b, c in found)
        alone = " | ".join(f"{_alone(name, size):.2f}" for size in (SIZE // 4, SIZE // 2, SIZE))
        yield (
            f"| {name} | {once * 1e3:.2f} | {calls * 1e3:.0f} | {bytewise * 1e3:.0f} "
            f"| {ratio:.2f} | {_MOST} | {'pass' if ratio < _MOST else '**fail**'} | {alone} |"
        )
    yield ""
    yield (
        "The ratio is byte by byte / (at once + system calls). Time a byte that does not grow "
        "with the head shows that nothing is searched twice."
    )
    yield ""


def payload(name, size):
    """A request whose head has about ``size`` bytes."""
    fields = {"Host": "localhost"}
    while size > 0:
        fields[f"X-Filler-{len(fields)}"] = "x" * min(size, _FIELD)
        size -= _FIELD
    return PAYLOADS[name](fields, "/")


def _live(name):
    data = payload(name, SIZE)
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        on_cores(LOAD_CORES),
    ):
        path = f"{folder}/app.sock"
        command = python("gateway", _APP, "--bind", f"{name}+unix:{path}", "--threads", 1)
        with running(command, SERVER_CORES, connects(path), folder) as pid:
            _send(path, data, 0)
            once = _charge(pid, lambda: [_send(path, data, 0) for _ in range(_AT_ONCE)])
            bytewise = _charge(pid, lambda: _send(path, data, _PAUSE))
        path = f"{folder}/plain.sock"
        command = python("benchmarks.head", path, len(data))
        with running(command, SERVER_CORES, connects(path), folder) as pid:
            calls = _charge(pid, lambda: _send(path, data, _PAUSE))
    return once / _AT_ONCE, calls, bytewise


def _charge(pid, work):
    time.sleep(0.1)
    before = cpu_seconds(pid)
    work()
    time.sleep(0.1)
    return cpu_seconds(pid) - before


def _send(path, data, pause):
    """One request on its own connection; with a pause, a byte at a time."""
    with connect(path) as sock:
        if pause:
            clock = time.perf_counter
            for number in range(len(data)):
                sock.send(data[number : number + 1])
                until = clock() + pause
                while clock() < until:
                    pass
        else:
            sock.sendall(data)
        sock.settimeout(10)
        answer = b""
        while BODY not in answer:
            piece = sock.recv(65536)
            if not piece:
                raise RuntimeError(f"no answer but {answer[:300]!r}")
            answer += piece


def _alone(name, size):
    """Microseconds a byte of the codec alone, best of three."""
    data = payload(name, size)
    pieces = [data[number : number + 1] for number in range(len(data))]
    best = None
    for _ in range(3):
        receive = codec_class(name)(Limits()).receive
        started = time.process_time_ns()
        events = [receive(piece) for piece in pieces]
        spent = time.process_time_ns() - started
        assert any(events)
        best = spent if best is None else min(best, spent)
    return best / len(data) / 1e3


def plain(path, size):
    """Read a connection's ``size`` bytes by epoll and recv, answer, close; again."""
    with socket.socket(socket.AF_UNIX) as listener, select.epoll() as poll:
        listener.bind(path)
        listener.listen()
        while True:
            sock = listener.accept()[0]
            sock.setblocking(False)
            poll.register(sock, select.EPOLLIN)
            seen = 0
            while seen < size:
                for _event in poll.poll():
                    data = sock.recv(65536)
                    seen += len(data) or size
            if data:
                sock.send(BODY)
            sock.close()


if __name__ == "__main__":
    plain(sys.argv[1], int(sys.argv[2]))
