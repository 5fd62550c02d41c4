"""Sockets of connections and their locks: native where built, else the standard library's."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any

from protocols.builds import WANTED

if TYPE_CHECKING:
    from gateway._sockets import Socket

    #: The socket of one connection, non-blocking.
    Sock = socket.SocketType | Socket

#: Accepts on a listening descriptor: the connection and its peer's address, or None if
#: none waits.  Raises OSError.  None where it is not built.
accept: Callable[[int], tuple[Sock, Any] | None] | None = None

#: A lock that is held by ``with``, and in no other way.
Lock: Callable[[], AbstractContextManager[bool, None]] = threading.Lock

if WANTED:
    with suppress(ImportError):  # not Linux, or no compiler was there when this was installed
        from gateway import _sockets

        accept = _sockets.accept
        Lock = _sockets.Lock
