"""Addresses of ``--bind``: parsed, not yet opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qsl

from gateway.trust import check_entry
from protocols.detect import AUTO
from protocols.proxy_protocol import VERSIONS

DEFAULT_PORT = 8000
DEFAULT_MODE = 0o660

_FORMS = (
    "allowed are HOST:PORT, [IPV6]:PORT, unix:PATH, fd://N and systemd, with PROTOCOL+ in front"
)

#: What stands in front of a bind for HTTP inside of TLS.
HTTPS = "https"

#: A peer that chooses its protocol may choose one in which it says who it is.
AUTO_ONLY_HERE = (
    "auto, for any protocol, is allowed on unix sockets and loopback addresses only "
    "(127.0.0.1, [::1], localhost)"
)


class AddressError(ValueError):
    """An address is malformed; the message says what is allowed."""


@dataclass(frozen=True)
class Address:
    """A parsed bind: protocol, kind (tcp, unix, fd, systemd) and what goes with it."""

    protocol: str
    kind: str
    host: str = ""
    port: int = 0
    path: str = ""
    number: int = 0
    mode: int = DEFAULT_MODE
    owner: str = ""
    group: str = ""
    backlog: int = 0
    allow: tuple[str, ...] = ()
    proxy_protocol: str = ""
    tls: bool = False

    @property
    def key(self) -> str:
        """The same text for the same place and protocol, whatever else may change.

        Whether TLS is around the protocol may.
        """
        where = f"{self.host}:{self.port}" if self.kind == "tcp" else self.path or str(self.number)
        return f"{self.protocol} {self.kind} {where}"


def parse_address(
    text: str, protocol: str, protocols: Sequence[str], *, certified: bool = False
) -> Address:
    """Parse one bind; ``protocol`` is that of binds that name none.

    ``certified``: there is a certificate, so that HTTP without a name is inside of TLS.
    Raises AddressError.
    """
    rest, _, query = text.partition("?")
    head, rest = _split_protocol(rest)
    tls = head == HTTPS or (certified and not head and protocol == "http")
    if head == HTTPS:
        head = "http"
        if not certified:
            raise AddressError("https needs certfile, the certificate of this server")
    protocol = head or protocol
    if protocol not in protocols:
        names = ", ".join((*protocols, HTTPS))
        raise AddressError(f"there is no protocol {protocol!r}; there are {names}")
    options = _options(query) | {"tls": tls}
    if rest.startswith("unix:"):
        return Address(protocol, "unix", path=_path(rest[5:]), **options)
    if rest.startswith("fd://"):
        if not (rest[5:].isdecimal() and len(rest) < 5 + 10):
            raise AddressError(f"fd:// takes a number; {_FORMS}")
        return Address(protocol, "fd", number=int(rest[5:]), **options)
    if rest == "systemd" or rest.startswith("systemd:"):
        return Address(protocol, "systemd", path=rest[8:], **options)
    host, port = _host_and_port(rest.removeprefix("tcp://"))
    if {"mode", "owner", "group"} & options.keys():
        raise AddressError("mode, owner and group are for unix:PATH only")
    if protocol == AUTO and not is_loopback(host):
        raise AddressError(f"{AUTO_ONLY_HERE}; name the protocol, such as http://{text}")
    return Address(protocol, "tcp", host=host, port=port, **options)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches this address; of names, only ``localhost`` is known."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _split_protocol(text: str) -> tuple[str, str]:
    """The protocol in front, or "", and the address."""
    if text == "systemd" or text.startswith("systemd:"):
        return "", text
    if "+" in text and not text.startswith(("unix:", "[")):
        head, _, rest = text.partition("+")
    elif "://" in text and not text.startswith(("fd://", "tcp://", "unix://")):
        head, _, rest = text.partition("://")
    else:
        return "", text
    return head, rest


def _path(text: str) -> str:
    path = text.removeprefix("//") if text.startswith("///") else text
    if not path or "\0" in path:
        raise AddressError(f"the path is missing or has a NUL in it; {_FORMS}")
    return path


def _options(query: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        try:
            if name == "mode":
                options[name] = _number(value, 8, 0o777)
            elif name == "backlog":
                options[name] = _number(value, 10, 1 << 30)
            elif name in ("owner", "group"):
                options[name] = value
            elif name == "allow":
                options[name] = _peers(value)
            elif name == "proxy_protocol":
                options[name] = _version(value)
            else:
                raise AddressError(
                    f"there is no option {name!r}; there are mode, owner, group, backlog, allow "
                    "and proxy_protocol"
                )
        except ValueError as error:
            if isinstance(error, AddressError):
                raise
            kind = "mode such as 0660" if name == "mode" else "number"
            raise AddressError(f"{name}={value} is no {kind}") from None
    return options


def _peers(text: str) -> tuple[str, ...]:
    entries = tuple(filter(None, (part.strip() for part in text.split(","))))
    if not entries:
        raise AddressError("allow= takes addresses, networks, * and user:NAME, with commas")
    for entry in entries:
        try:
            check_entry(entry, users=True)
        except ValueError as error:
            raise AddressError(f"allow={text}: {error}") from None
    return entries


def _version(text: str) -> str:
    if text not in VERSIONS:
        raise AddressError(f"proxy_protocol={text}: allowed are {', '.join(VERSIONS)}")
    return text


def _number(text: str, base: int, most: int) -> int:
    number = int(text, base)
    if not 0 <= number <= most:
        raise ValueError
    return number


def _host_and_port(text: str) -> tuple[str, int]:
    text = text.removesuffix("/")
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
        if not host or not bracket or (rest and rest == port):
            raise AddressError(f"an IPv6 address is written [::1]:8000; {_FORMS}")
    elif text.count(":") > 1:
        raise AddressError(f"an IPv6 address takes brackets; {_FORMS}")
    else:
        host, _, port = text.partition(":")
    if text.isdigit():
        raise AddressError(f"a port alone is written :{text}; {_FORMS}")
    if not port:
        port = str(DEFAULT_PORT)
    if not (port.isascii() and port.isdigit() and int(port) <= 65535) or not (host or text):
        raise AddressError(f"the port must be a number up to 65535; {_FORMS}")
    return host, int(port)
