"""Listening sockets: create, inherit, replace a stale one, clean up."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import socket
import stat
from collections.abc import Callable, Mapping, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from gateway import accepted
from gateway.addresses import AUTO_ONLY_HERE, HTTPS, Address, is_loopback
from gateway.deferral import defer
from gateway.linux import is_transparent
from protocols.detect import AUTO

if TYPE_CHECKING:
    from ssl import SSLContext

    from gateway.accepted import Sock

SYSTEMD_FIRST_FD = 3

_STREAM = int(socket.SOCK_STREAM)

#: What listen(2) takes; the kernel cuts it to net.core.somaxconn.
_MOST_BACKLOG = (1 << 31) - 1


class BindError(Exception):
    """A socket cannot be had; the message is one line for the user."""


class Listener:
    """A listening socket and the protocol spoken on it."""

    __slots__ = (
        "_family",
        "allow",
        "context",
        "defers",
        "inode",
        "is_unix",
        "key",
        "path",
        "protocol",
        "proxy_protocol",
        "sock",
        "tls",
    )

    def __init__(self, sock: socket.socket, protocol: str, path: str = "", key: str = "") -> None:
        self.sock = sock
        self.protocol = protocol
        self.path = path
        #: Whether we have the kernel keep silent connections (see deferral.py).
        self.defers = False
        #: Which bind it belongs to; the same for the manager that follows.
        self.key = key
        #: The bind's own settings; empty: those of all binds.
        self.allow: tuple[str, ...] = ()
        self.proxy_protocol = ""
        #: Whether the protocol is inside of TLS, and with which certificate in this process.
        self.tls = False
        self.context: SSLContext | None = None
        self.inode = os.stat(path).st_ino if path and os.path.exists(path) else 0
        self._family = int(sock.family)
        self.is_unix = sock.family == socket.AF_UNIX

    def accept(self) -> tuple[Sock, Any] | None:
        """A waiting connection, non-blocking, and its peer's address; None if none waits.

        Raises OSError.  The wrapper around ``accept`` in the standard library
        asks for family, type and timeout each time; a connection of one
        request feels that.
        """
        if accepted.accept is not None:
            return accepted.accept(self.sock.fileno())
        try:
            number, address = self.sock._accept()  # type: ignore[attr-defined]  # noqa: SLF001
        except BlockingIOError:
            return None
        sock = socket.SocketType(self._family, _STREAM, 0, number)
        sock.setblocking(False)
        return sock, address

    def local_address(self) -> tuple[Any, ...] | None:
        """The address of our side of all its connections; None if they may differ."""
        if self.is_unix or is_transparent(self.sock):
            return None
        address: tuple[Any, ...] = self.sock.getsockname()
        return None if ip_address(address[0].partition("%")[0]).is_unspecified else address

    def __str__(self) -> str:
        return f"{HTTPS if self.tls else self.protocol} on {describe(self.sock)}"

    def close(self, *, unlink: bool) -> None:
        """Close; remove the socket file if it is ours and still the one we made."""
        self.sock.close()
        if unlink and self.path:
            try:
                if os.stat(self.path).st_ino == self.inode:
                    os.unlink(self.path)
            except OSError:
                pass  # somebody removed it before: what was wanted


def describe(sock: socket.socket) -> str:
    """The address of a socket as people write it."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        text = os.fsdecode(name)
        return f"unix:{'@' + text[1:] if text.startswith(chr(0)) else text}"
    if sock.family == socket.AF_INET6:
        return f"[{name[0]}]:{name[1]}"
    return f"{name[0]}:{name[1]}"


def open_listeners(
    addresses: Sequence[Address],
    backlog: int,
    inherited: Sequence[Listener] = (),
    defer_accept: int = 0,
) -> list[Listener]:
    """Listen on every address; ``inherited`` are used where they are the same.

    Those that somebody else has opened, systemd say, defer what he wants deferred.

    Raises BindError; then nothing that was opened here stays open.
    """
    listeners: list[Listener] = []
    opened: list[Listener] = []
    try:
        for number, address in enumerate(addresses):
            # Port 0 may be bound twice.
            before = sum(other.key == address.key for other in addresses[:number])
            key = f"{address.key} {before}"
            same = [listener for listener in inherited if listener.key == key]
            if not same:
                same = _open(address, min(address.backlog or backlog, _MOST_BACKLOG))
                opened += same
                check_reach(same)
            for listener in same:
                if address.kind == "tcp":
                    listener.defers = defer(listener.sock, defer_accept)
                listener.key = key
                listener.allow = address.allow
                listener.proxy_protocol = address.proxy_protocol
                listener.tls = address.tls
            listeners += same
    except BaseException:
        for listener in opened:
            listener.close(unlink=True)
        raise
    for listener in inherited:
        if listener not in listeners:
            listener.close(unlink=False)
    return listeners


def check_reach(listeners: Sequence[Listener]) -> None:
    """Raise BindError where ``auto`` would be spoken with other machines."""
    for listener in listeners:
        if listener.protocol == AUTO and not listener.is_unix:
            host = listener.sock.getsockname()[0]
            if not is_loopback(host):
                raise BindError(f"cannot listen on {describe(listener.sock)}: {AUTO_ONLY_HERE}")


def _open(address: Address, backlog: int) -> list[Listener]:
    if address.kind == "unix":
        return [_open_unix(address, backlog)]
    if address.kind == "fd":
        return [Listener(inherit(address.number), address.protocol)]
    if address.kind == "systemd":
        numbers = systemd_descriptors(os.environ, address.path)
        if not numbers:
            raise BindError(
                f"systemd handed over no socket{' named ' + address.path if address.path else ''} "
                "(LISTEN_FDS, LISTEN_PID)"
            )
        return [Listener(inherit(number), address.protocol) for number in numbers]
    return _open_tcp(address, backlog)


def _open_tcp(address: Address, backlog: int) -> list[Listener]:
    where = f"{address.host or '*'}:{address.port}"
    try:
        found = socket.getaddrinfo(
            address.host or None,
            address.port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "that is no host name"
        raise BindError(f"cannot listen on {where}: {reason}") from None
    if not address.host:
        found = [item for item in found if item[0] == socket.AF_INET]
    listeners: list[Listener] = []
    for family, kind, proto, _, target in dict.fromkeys(found):
        sock = socket.socket(family, kind, proto)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(target)
            # Inherited by what is accepted: without it a kept FastCGI
            # connection costs 44 ms a request (Nagle against delayed ACK).
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.listen(backlog)
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            for listener in listeners:
                listener.close(unlink=False)
            raise BindError(f"cannot listen on {where}: {_reason(error)}") from None
        listeners.append(Listener(sock, address.protocol))
        if address.port == 0:
            break
    return listeners


def _reason(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the address is in use"
    return (error.strerror or str(error)).lower()


def _open_unix(address: Address, backlog: int) -> Listener:
    abstract = address.path.startswith("@")
    path = "\0" + address.path[1:] if abstract else os.path.abspath(address.path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made = False
    try:
        if not abstract:
            remove_stale(path)
        # The file must never be more open than asked for, not even for a moment.
        umask = os.umask(0o777 & ~address.mode)
        try:
            sock.bind(path)
        finally:
            os.umask(umask)
        made = not abstract
        if made:
            _own(path, address)
        sock.listen(backlog)
        sock.setblocking(False)
    except (OSError, BindError) as error:
        sock.close()
        if made:
            os.unlink(path)
        if isinstance(error, BindError):
            raise
        raise BindError(f"cannot listen on unix:{address.path}: {_reason(error)}") from None
    return Listener(sock, address.protocol, "" if abstract else path)


def remove_stale(path: str) -> None:
    """Remove a socket file that nobody listens on; never a live one, never another file."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise BindError(f"cannot listen on unix:{path}: there is a file that is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # its backlog is full: very much alive
    raise BindError(f"cannot listen on unix:{path}: another server listens there")


def _own(path: str, address: Address) -> None:
    try:
        owner = _number(address.owner, lambda name: pwd.getpwnam(name).pw_uid)
        group = _number(address.group, lambda name: grp.getgrnam(name).gr_gid)
    except KeyError as error:
        raise BindError(f"cannot listen on unix:{path}: {error.args[0]}") from None
    if owner != -1 or group != -1:
        os.chown(path, owner, group)
    os.chmod(path, address.mode)


def _number(name: str, look_up: Callable[[str], int]) -> int:
    if not name:
        return -1
    return int(name) if name.isdigit() else look_up(name)


def is_listening(number: int) -> bool:
    """Whether a descriptor is a listening stream socket."""
    try:
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            return False
        with socket.socket(fileno=os.dup(number)) as sock:
            return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except (OSError, OverflowError):
        return False


def inherit(number: int) -> socket.socket:
    """Take over an inherited listening socket.  Raises BindError."""
    if not is_listening(number):
        raise BindError(f"descriptor {number} is no listening socket")
    sock = socket.socket(fileno=number)
    sock.setblocking(False)
    sock.set_inheritable(False)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def systemd_descriptors(environ: Mapping[str, str], name: str = "") -> list[int]:
    """Descriptors passed by socket activation (sd_listen_fds(3)), by name if one is given."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = environ.get("LISTEN_FDS", "")
    numbers = range(SYSTEMD_FIRST_FD, SYSTEMD_FIRST_FD + (int(count) if count.isdigit() else 0))
    if not name:
        return list(numbers)
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    return [number for number, known in zip(numbers, names, strict=False) if known == name]


def inherited_addresses(protocol: str, *, chosen: bool, certified: bool = False) -> list[Address]:
    """What to listen on when no bind is given: systemd's sockets, or descriptor 0.

    Descriptor 0 is where spawn-fcgi and mod_fcgid put the socket of a FastCGI
    application (FastCGI specification section 2.2), so it speaks FastCGI unless
    a protocol was chosen.  ``certified``: HTTP is inside of TLS.
    """
    if systemd_descriptors(os.environ):
        return [Address(protocol, "systemd", tls=certified and protocol == "http")]
    if is_listening(0):
        protocol = protocol if chosen else "fastcgi"
        return [Address(protocol, "fd", tls=certified and protocol == "http")]
    return []
