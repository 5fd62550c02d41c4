"""The sockets of connections: native where those are built, else the standard library's."""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from protocols.builds import WANTED

if TYPE_CHECKING:
    from gateway._sockets import Socket

    #: The socket of one connection, non-blocking.
    Sock = socket.SocketType | Socket

#: Accepts on a listening descriptor: the connection and its peer's address, or None if
#: none waits.  Raises OSError.  None where it is not built.
accept: Callable[[int], tuple[Sock, Any] | None] | None = None

if WANTED:
    with suppress(ImportError):  # not Linux, or no compiler was there when this was installed
        from gateway import _sockets

        accept = _sockets.accept
