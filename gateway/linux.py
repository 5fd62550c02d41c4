"""What only Linux offers, where nothing happens elsewhere; what the kernel knows of a socket."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct
import sys
import termios
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.accepted import Sock

#: linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

#: malloc.h of the GNU C library, and what it is told.  What is larger than the second goes
#: back to the kernel at once; of the rest so much is kept as the first says.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT = 8 << 20
_LARGE = 2 << 20
_ALLOCATOR = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")

#: linux/in.h and linux/in6.h.
_TRANSPARENT = {socket.AF_INET: (socket.IPPROTO_IP, 19), socket.AF_INET6: (socket.IPPROTO_IPV6, 75)}

#: linux/tcp.h: tcpi_last_data_recv in struct tcp_info, milliseconds.
_LAST_DATA = struct.Struct("=I")
_LAST_DATA_OFFSET = 52


def become_subreaper() -> bool:
    """Have orphans among our descendants become our children; True if they will.

    prctl(2), PR_SET_CHILD_SUBREAPER.
    """
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(on: bool) -> None:
    """Be killed when the parent ends, or no longer (prctl(2), PR_SET_PDEATHSIG)."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL if on else 0)


def keep_freed_memory() -> None:
    """Have memory that a body has left stay for the next one (mallopt(3)).

    Else the kernel takes it and gives it back, page by page, with every body.  Nothing is
    changed where the environment has something to say about it.
    """
    if not sys.platform.startswith("linux") or any(map(_is_of_allocator, os.environ)):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGE)
    mallopt(_M_TRIM_THRESHOLD, _KEPT)


def _is_of_allocator(name: str) -> bool:
    return name.startswith(_ALLOCATOR)


def unsent(sock: Sock) -> int:
    """Bytes that the kernel has taken for a socket and the peer has not (tcp(7), SIOCOUTQ)."""
    if not sys.platform.startswith("linux"):
        return 0
    try:
        if not isinstance(sock, socket.SocketType):
            return sock.unsent()
        answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    except OSError:
        return 0
    count: int = struct.unpack("i", answer)[0]
    return count


def is_transparent(sock: socket.socket) -> bool:
    """Whether a listening socket takes connections to others' addresses (ip(7), IP_TRANSPARENT)."""
    option = _TRANSPARENT.get(sock.family)
    if not sys.platform.startswith("linux") or option is None:
        return False
    return bool(sock.getsockopt(*option))


def has_unread(sock: Sock) -> bool:
    """Whether bytes have arrived at a socket that nobody has read (ioctl(2), FIONREAD).

    On any system: reading would tell as well, but mostly by an exception, which
    costs several times as much.
    """
    try:
        if not isinstance(sock, socket.SocketType):
            return sock.unread() > 0
        count = bytearray(4)
        fcntl.ioctl(sock.fileno(), termios.FIONREAD, count)
    except OSError:
        return False
    return any(count)


def _prctl(option: int, value: int) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) == 0)


def seconds_since_data(sock: Sock) -> float:
    """How long ago the last bytes of the peer arrived at a TCP socket; 0 where that is not known.

    Of a connection that has just been accepted: how long its request waits.
    """
    if sys.platform != "linux":
        return 0.0
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 64)
        return int(_LAST_DATA.unpack_from(info, _LAST_DATA_OFFSET)[0]) / 1000
    except (OSError, struct.error):
        return 0.0
