"""Addresses of ``--bind``: parsed, not yet opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

DEFAULT_PORT = 8000
DEFAULT_MODE = 0o660

_FORMS = (
    "allowed are HOST:PORT, [IPV6]:PORT, unix:PATH, fd://N and systemd, with PROTOCOL+ in front"
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


def parse_address(text: str, protocol: str, protocols: Sequence[str]) -> Address:
    """Parse one bind; ``protocol`` is that of binds that name none.

    Raises AddressError.
    """
    rest, _, query = text.partition("?")
    if rest == "systemd" or rest.startswith("systemd:"):
        head = ""
    elif "+" in rest and not rest.startswith(("unix:", "[")):
        head, _, rest = rest.partition("+")
    elif "://" in rest and not rest.startswith(("fd://", "tcp://", "unix://")):
        head, _, rest = rest.partition("://")
    else:
        head = ""
    protocol = head or protocol
    if protocol not in protocols:
        raise AddressError(f"there is no protocol {protocol!r}; there are {', '.join(protocols)}")
    options = _options(query)
    if rest.startswith("unix:"):
        path = rest[5:].removeprefix("//") if rest.startswith("unix:///") else rest[5:]
        if not path:
            raise AddressError(f"the path is missing; {_FORMS}")
        return Address(protocol, "unix", path=path, **options)
    if rest.startswith("fd://"):
        if not rest[5:].isdigit():
            raise AddressError(f"fd:// takes a number; {_FORMS}")
        return Address(protocol, "fd", number=int(rest[5:]), **options)
    if rest == "systemd" or rest.startswith("systemd:"):
        return Address(protocol, "systemd", path=rest[8:], **options)
    host, port = _host_and_port(rest.removeprefix("tcp://"))
    return Address(protocol, "tcp", host=host, port=port, **options)


def _options(query: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        try:
            if name == "mode":
                options[name] = int(value, 8)
            elif name == "backlog":
                options[name] = int(value)
            elif name in ("owner", "group"):
                options[name] = value
            else:
                raise AddressError(
                    f"there is no option {name!r}; there are mode, owner, group and backlog"
                )
        except ValueError as error:
            if isinstance(error, AddressError):
                raise
            raise AddressError(f"{name}={value} is no number") from None
    return options


def _host_and_port(text: str) -> tuple[str, int]:
    text = text.removesuffix("/")
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":")
    elif text.count(":") > 1:
        raise AddressError(f"an IPv6 address takes brackets; {_FORMS}")
    else:
        host, _, port = text.partition(":")
    if not port:
        port = str(DEFAULT_PORT)
    if not (port.isascii() and port.isdigit() and int(port) <= 65535) or not (host or text):
        raise AddressError(f"the port must be a number up to 65535; {_FORMS}")
    return host, int(port)
