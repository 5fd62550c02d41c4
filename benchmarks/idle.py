"""1,000 idle keep-alive connections beside 8 busy clients: errors, memory, requests/s."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from statistics import median

from benchmarks.app import BODY
from benchmarks.load import REQUEST, measure
from benchmarks.peers import gateway, granian, gunicorn
from benchmarks.process import allow_descriptors, connect, memory_bytes

IDLE = 1000
BUSY = 8
_ROOM = str(IDLE + 100)

PEERS = [
    gateway("http", 1, "--worker-connections", _ROOM),
    gateway("http", 4, "--worker-connections", _ROOM),
    granian(),
    gunicorn("gthread", 4, "--worker-connections", _ROOM),
]


def run(rounds, requests):
    """Yield lines of Markdown."""
    allow_descriptors(IDLE * 2)
    yield f"### {IDLE:,} idle keep-alive connections beside {BUSY} busy clients"
    yield ""
    yield (
        "| server | memory a connection | errors of the idle | errors of the busy "
        "| requests/s with idle | without | CPU µs/request with idle | without |"
    )
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for peer in PEERS:
        found = []
        for number in range(rounds):
            sys.stderr.write(f"idle round {number + 1}/{rounds}: {peer.name}\n")
            with peer.serving() as (pid, port):
                found.append(_one(pid, port, requests))
        memory, errors, alone, beside = zip(*found, strict=True)
        yield (
            f"| {peer.name} | {median(memory):,.0f} bytes | {sum(errors)} "
            f"| {sum(load.errors for load in beside)} "
            f"| {median(load.rate for load in beside):,.0f} "
            f"| {median(load.rate for load in alone):,.0f} "
            f"| {median(load.microseconds for load in beside):.1f} "
            f"| {median(load.microseconds for load in alone):.1f} |"
        )
    yield ""
    yield (
        "Memory is the growth of the process tree's proportional set size divided by the "
        "connections, each of which had one answer before; the kernel's part is not in it."
    )
    yield ""


def _one(pid, port, requests):
    alone = measure(pid, port, requests, BUSY)
    before = memory_bytes(pid)
    with ExitStack() as stack:
        idle = [stack.enter_context(connect(("127.0.0.1", port))) for _ in range(IDLE)]
        errors = sum(not _asks(sock) for sock in idle)
        time.sleep(0.2)
        grown = memory_bytes(pid) - before
        beside = measure(pid, port, requests, BUSY)
        errors += sum(not _asks(sock) for sock in idle)
    return grown / IDLE, errors, alone, beside


def _asks(sock):
    """Whether the connection gets an answer."""
    sock.settimeout(5)
    data = b""
    try:
        sock.sendall(REQUEST)
        while not data.endswith(BODY):
            piece = sock.recv(4096)
            if not piece:
                return False
            data += piece
    except OSError:
        return False
    return data.startswith(b"HTTP/1.1 200")
