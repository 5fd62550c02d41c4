"""Clients that behave, in a process of their own; see ``benchmarks.attack``.

    python -m benchmarks.honest PORT CLIENTS SECONDS

Each asks, waits for the answer, rests for a moment and asks again; after some requests it comes
with a new connection, whose making counts too.  Prints what they saw, as JSON; times in seconds.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from contextlib import suppress

_REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
_STATUS = b"HTTP/1.1 200 OK\r\n"
_BODY = b"Hello, world!"
#: Requests of one connection, and the rest between two, seconds.
_OF_ONE = 10
_REST = 0.005
_TIMEOUT = 20.0


class Client(threading.Thread):
    """``times`` are those of right answers; whatever else happens is an error."""

    def __init__(self, port, until):
        super().__init__()
        self._address = ("127.0.0.1", port)
        self._until = until
        self.times = []
        self.errors = []

    def run(self):
        while time.monotonic() < self._until:
            with suppress(OSError), socket.socket() as sock:
                sock.settimeout(_TIMEOUT)
                self._visit(sock)

    def _visit(self, sock):
        for count in range(_OF_ONE):
            begun = time.perf_counter()
            try:
                if count == 0:
                    sock.connect(self._address)
                _ask(sock)
            except OSError as error:
                self.errors.append(repr(error))
                raise
            self.times.append(time.perf_counter() - begun)
            time.sleep(_REST)
            if time.monotonic() > self._until:
                return


def _ask(sock):
    sock.sendall(_REQUEST)
    answer = b""
    while not answer.endswith(_BODY):
        piece = sock.recv(4096)
        if not piece:
            raise ConnectionError("closed without a whole answer")
        answer += piece
    if not answer.startswith(_STATUS):
        raise ConnectionError(f"answers {answer[:40]!r}")


def summary(times, errors):
    """Answers, errors, and of the times the median, the 99th percentile and the longest."""
    times = sorted(times)
    found = {"answers": len(times), "errors": len(errors), "examples": sorted(set(errors))[:3]}
    if times:
        found |= {
            "p50": times[len(times) // 2],
            "p99": times[len(times) * 99 // 100],
            "longest": times[-1],
        }
    return found


def main(arguments):
    port, count, seconds = int(arguments[0]), int(arguments[1]), float(arguments[2])
    until = time.monotonic() + seconds
    clients = [Client(port, until) for _ in range(count)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    times = [one for client in clients for one in client.times]
    errors = [one for client in clients for one in client.errors]
    print(json.dumps(summary(times, errors)))


if __name__ == "__main__":
    main(sys.argv[1:])
