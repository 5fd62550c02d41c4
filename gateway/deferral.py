"""TCP connections that the kernel keeps to itself until their first bytes are there.

tcp(7), TCP_DEFER_ACCEPT: who accepts such a connection finds a request, and need not
wait for it.  One that says nothing is accepted when the time is over.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import monotonic, sleep
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gateway.sockets import Listener

_OPTION: Final[int | None] = getattr(socket, "TCP_DEFER_ACCEPT", None)

#: A second after its first packet the kernel greets a client again, and a little more.
_PATIENCE: Final = 1.25
_LOOK: Final = 0.02

#: TCP_SYN_RECV, as proc(5) has it in net/tcp, and where it has that.
_GREETED: Final = " 03 "
_TABLES: Final = ("/proc/net/tcp", "/proc/net/tcp6")


def defer(sock: socket.socket, seconds: int) -> bool:
    """Keep silent connections from ``accept`` for so long, 0: for no time; whether they are.

    Elsewhere than on Linux all connections are accepted at once.
    """
    if _OPTION is None:
        return False
    try:
        sock.setsockopt(socket.IPPROTO_TCP, _OPTION, seconds)
    except OSError:  # a kernel that is Linux by name only
        return False
    return seconds > 0


def end(listeners: Iterable[Listener], hurries: Callable[[], bool]) -> None:
    """Have ``accept`` give what says nothing too, before the listening sockets are closed.

    What the kernel still has then would never hear that the server is gone.  Waits
    until it has handed that over, a little more than a second at most, and not while
    ``hurries()``.  Somebody else has to accept meanwhile.
    """
    until = monotonic() + _PATIENCE
    ports = set()
    for listener in listeners:
        if listener.defers:
            listener.defers = defer(listener.sock, 0)
            ports.add(listener.sock.getsockname()[1])
    if not ports:
        return
    silent = _greeted(ports)
    while silent and monotonic() < until and not hurries():
        sleep(_LOOK)
        silent &= _greeted(ports)


def _greeted(ports: set[int]) -> set[tuple[str, str]]:
    """Both ends of the connections to these ports that the kernel has greeted, no more."""
    found = set()
    for path in _TABLES:
        with suppress(OSError), open(path, encoding="ascii") as table:
            for line in table:
                if _GREETED in line:  # or in another column; of many connections few are
                    own, other, state = line.split(maxsplit=4)[1:4]
                    if state == _GREETED.strip() and int(own.rpartition(":")[2], 16) in ports:
                        found.add((own, other))
    return found
