"""Clients that are slow on purpose, all at once, in one process; see ``benchmarks.attack``.

    python -m benchmarks.attackers PORT LORIS SILENT TRICKLES

LORIS connections send a head, a byte every few seconds; SILENT ask for a large answer and never
read; TRICKLES send a body, a byte a second.  Whoever is closed by the server comes again.  Prints
a line when all have begun; at the end of its input, what became of them, as JSON.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

from benchmarks.process import allow_descriptors

READY = "ready"
#: Seconds from one look at all of them to the next; a loris sends in every fifth.
_TICK = 1.0
_LORIS_TICKS = 5
#: They come from so many addresses, none of which is that of an honest client.
_ADDRESSES = 100
#: Connections that are opened before there is a look at what became of them.
_AT_ONCE = 64
_GONE = select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP


@dataclass(frozen=True)
class Kind:
    """``begins`` is sent first, then a byte every ``ticks`` (0: nothing more)."""

    begins: bytes
    ticks: int = 0
    reads: bool = True


LORIS = Kind(b"GET / HTTP/1.1\r\nHost: a\r\nX-A: ", _LORIS_TICKS)
SILENT = Kind(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n", reads=False)
TRICKLE = Kind(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n", 1)


class Attack:
    """All connections, and what became of them."""

    def __init__(self, port, counts):
        self._port = port
        self._poll = select.epoll()
        self._begun = {}  # descriptor to (socket, kind)
        self._opening = {}
        self._wanted = deque(kind for kind, count in counts.items() for _ in range(count))
        self._next = 0
        self.opened = 0
        self.closed = 0

    def run(self, until):
        """Go on until there is something to read, or the end, at descriptor ``until``."""
        self._poll.register(until, select.EPOLLIN)
        told = False
        ticks = 0
        tick = time.monotonic()
        while True:
            self._open()
            for number, events in self._poll.poll(max(0.0, tick - time.monotonic())):
                if number == until:
                    return
                self._event(number, events)
            if not told and not (self._wanted or self._opening):
                told = True
                print(READY, flush=True)
            if time.monotonic() >= tick:
                tick += _TICK
                ticks += 1
                self._drip(ticks)

    @property
    def held(self):
        return len(self._begun)

    def _open(self):
        while self._wanted and len(self._opening) < _AT_ONCE:
            kind = self._wanted.popleft()
            sock = socket.socket()
            sock.setblocking(False)
            if not kind.reads:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            self._next += 1
            sock.bind((f"127.0.1.{1 + self._next % _ADDRESSES}", 0))
            sock.connect_ex(("127.0.0.1", self._port))
            self._opening[sock.fileno()] = sock, kind
            self._poll.register(sock.fileno(), select.EPOLLOUT)

    def _event(self, number, events):
        if number in self._opening:
            sock, kind = self._opening.pop(number)
            self._begin(sock, kind)
        elif events & _GONE or self._is_answered(number):
            sock, kind = self._begun.pop(number)
            self._poll.unregister(number)
            sock.close()
            self.closed += 1
            self._wanted.append(kind)

    def _begin(self, sock, kind):
        number = sock.fileno()
        self._begun[number] = sock, kind
        self.opened += 1
        with suppress(OSError):  # it is closed already: the next event says so
            sock.send(kind.begins)
        self._poll.modify(number, _GONE | (select.EPOLLIN if kind.reads else 0))

    def _is_answered(self, number):
        """Who is told that it is too slow has been found out."""
        sock, _ = self._begun[number]
        try:
            sock.recv(4096)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    def _drip(self, ticks):
        for sock, kind in self._begun.values():
            if kind.ticks and ticks % kind.ticks == 0:
                with suppress(OSError):
                    sock.send(b"x")


def main(arguments):
    port, *counts = map(int, arguments)
    allow_descriptors(sum(counts) + 100)
    attack = Attack(port, dict(zip((LORIS, SILENT, TRICKLE), counts, strict=True)))
    attack.run(sys.stdin.fileno())
    found = {"held": attack.held, "opened": attack.opened, "closed": attack.closed}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
