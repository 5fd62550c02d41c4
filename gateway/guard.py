"""Who may connect: judged right after the accept, before a byte is read."""

from __future__ import annotations

import os
import pwd
import socket
import struct
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from gateway.errorlog import Sparing
from gateway.trust import USER, Peers, check_entry

if TYPE_CHECKING:
    import logging

    from gateway.accepted import Sock
    from gateway.settings import Settings

#: The one protocol whose peers may be anybody: those of the others are front ends,
#: which are trusted with every variable.
_OPEN = "http"
_THIS_MACHINE = ("127.0.0.0/8", "::1")

#: FastCGI 1.0 section 3.2: addresses of web servers that may connect.
FASTCGI_ADDRESSES = "FCGI_WEB_SERVER_ADDRS"


def user_number(name: str) -> int:
    """The number of a user.  Raises ValueError if there is none of that name."""
    if name.isdecimal():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise ValueError(f"there is no user {name}") from None


def peer_user(sock: Sock) -> int | None:
    """The user of the process at the other end of a unix socket; None if that is not known."""
    try:
        if hasattr(socket, "SO_PEERCRED"):  # Linux: struct ucred
            data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            return int(struct.unpack("3i", data)[1])
        if hasattr(socket, "LOCAL_PEERCRED"):  # the BSDs and macOS: struct xucred
            data = sock.getsockopt(0, socket.LOCAL_PEERCRED, 256)
            return int(struct.unpack_from("2I", data)[1])
    except (OSError, struct.error):
        return None
    return None


class Guard:
    """The rules of one bind; None of them means that nobody is kept out."""

    def __init__(self, log: logging.Logger, *, is_unix: bool) -> None:
        self._lines = Sparing(log)
        self._is_unix = is_unix
        #: A rule says by address or user whether to let in, and which setting it is.
        self._rules: list[tuple[Callable[[Any], bool], str]] = []

    @property
    def needed(self) -> bool:
        """Whether there is any rule."""
        return bool(self._rules)

    def add(self, admits: Callable[[Any], bool], setting: str) -> None:
        self._rules.append((admits, setting))

    def admits(self, sock: Sock, address: Any) -> bool:
        """Whether this peer may connect; if not, that is logged, once a second at most."""
        who = peer_user(sock) if self._is_unix else address[0]
        for rule, setting in self._rules:
            if not rule(who):
                self._say(who, setting)
                return False
        return True

    def _say(self, who: Any, setting: str) -> None:
        peer = f"user {who} on a unix socket" if self._is_unix else who
        self._lines.warn("refused a connection of %s: %s", peer, setting)


def guard_for(
    protocol: str,
    settings: Settings,
    log: logging.Logger,
    *,
    is_unix: bool,
    allow: Iterable[str] = (),
    proxied: bool = False,
) -> Guard | None:
    """The guard of a bind; None if everybody may connect.

    ``allow`` is the bind's own rule; ``proxied``: a PROXY protocol header comes first.
    """
    guard = Guard(log, is_unix=is_unix)
    entries = tuple(allow) or settings.allow_from
    users = frozenset(
        user_number(entry[len(USER) :]) for entry in entries if entry.startswith(USER)
    )
    addresses = [entry for entry in entries if not entry.startswith(USER)]
    if is_unix:
        if users:
            guard.add(users.__contains__, "it is not in allow_from")
        if proxied and not Peers(settings.proxy_allow_ips).unix:
            guard.add(lambda _: False, "proxy_allow_ips does not name unix")
        return guard if guard.needed else None
    web_servers = os.environ.get(FASTCGI_ADDRESSES, "") if protocol == "fastcgi" else ""
    if addresses:
        guard.add(Peers(addresses).__contains__, "it is not in allow_from")
    elif protocol != _OPEN and not web_servers:
        reason = f"it is not in allow_from, by which {protocol} over TCP is for this machine"
        guard.add(Peers(_THIS_MACHINE).__contains__, reason)
    if web_servers:
        reason = f"it is not in the variable {FASTCGI_ADDRESSES}"
        guard.add(Peers(_read_addresses(web_servers, log)).__contains__, reason)
    if proxied:
        guard.add(Peers(settings.proxy_allow_ips).__contains__, "it is not in proxy_allow_ips")
    return guard if guard.needed else None


def _read_addresses(text: str, log: logging.Logger) -> list[str]:
    """What the variable names; a word that is no address lets nobody in."""
    found = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        try:
            check_entry(word)
            found.append(word)
        except ValueError as error:
            log.error("the variable %s: %s; it lets nobody in", FASTCGI_ADDRESSES, error)
    return found
