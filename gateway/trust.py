"""Whom a gateway believes when somebody speaks for a client, and what then changes.

A proxy tells of its client in X-Forwarded-* or in Forwarded (RFC 7239).  Anybody
can write these fields, so they count only from a peer named by
``forwarded_allow_ips``; from anybody else they never reach the application.  Each
proxy adds to the right of what it got: lists are read from the right, as far as
those who wrote them are trusted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TYPE_CHECKING

from gateway.environ import Environ, below, decode_path
from protocols.http1_head import BAD_ESCAPE, is_claim, is_host

if TYPE_CHECKING:
    import logging

Address = IPv4Address | IPv6Address

EVERYBODY, UNIX, USER = "*", "unix", "user:"

#: What is known of addresses is kept for so many of them: peers choose them.
_MOST_VERDICTS = 1024

FIELDS = (
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "forwarded",
)
_PREFIX = "HTTP_X_FORWARDED_"
_FORWARDED = "HTTP_FORWARDED"
_FOR, _PROTO, _HOST, _PORT, _MOUNT = (
    _PREFIX + name for name in ("FOR", "PROTO", "HOST", "PORT", "PREFIX")
)
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
_DEFAULT_PORTS = {"http": "80", "https": "443"}

#: A port; its length is bounded because peers choose it and int() takes no text of any length.
_PORT_NUMBER = re.compile("[0-9]{1,5}")
#: IPv4 inside of IPv6: how a socket for both shows a peer (RFC 4291 section 2.5.5.2).
_MAPPED = "::ffff:"
_MAPPED_BITS = 96

#: What nginx calls a client on a unix socket; here such a client's address is empty.
_NGINX_UNIX = "unix:"

#: Variables about the neighbour's connection, false once REMOTE_ADDR is the client's.
_OF_THE_NEIGHBOUR = ("REMOTE_PORT", "REMOTE_HOST", "REMOTE_IDENT")


def check_entry(entry: str, *, users: bool = False) -> None:
    """Raise ValueError, with what is wrong, unless this names peers."""
    if entry in (EVERYBODY, UNIX) and not (users and entry == UNIX):
        return
    if users and entry.startswith(USER) and len(entry) > len(USER):
        return
    try:
        ip_network(entry)
    except ValueError:
        try:
            network = ip_network(entry, strict=False)
        except ValueError:
            raise ValueError(f"{entry!r} is no address") from None
        raise ValueError(f"{entry} is no network: {network} is") from None


def read_address(text: str) -> Address | None:
    """An address as a peer has it: IPv4 inside of IPv6 is IPv4, no zone; None if it is none."""
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def unmapped(text: str) -> str:
    """An address of a socket; IPv4 inside of IPv6 is IPv4."""
    return str(read_address(text) or text) if text.startswith(_MAPPED) else text


@cache
def _network(entry: str) -> IPv4Network | IPv6Network:
    network = ip_network(entry)
    if isinstance(network, IPv6Network) and network.prefixlen >= _MAPPED_BITS:
        start = network.network_address.ipv4_mapped
        if start is not None:
            return IPv4Network((start, network.prefixlen - _MAPPED_BITS))
    return network


class Peers:
    """Addresses and networks; what is asked once is remembered."""

    def __init__(self, entries: Iterable[str]) -> None:
        """``entries`` have passed ``check_entry``."""
        entries = tuple(entries)
        self.everybody = EVERYBODY in entries
        self.unix = self.everybody or UNIX in entries
        self._networks = [
            _network(entry)
            for entry in entries
            if entry not in (EVERYBODY, UNIX) and not entry.startswith(USER)
        ]
        self._verdicts: dict[str, bool] = {}

    def __contains__(self, address: str) -> bool:
        """Whether this address is one of them, or everybody is."""
        return self.everybody or self.named(address)

    def named(self, address: str) -> bool:
        """Whether one of the entries names this address; ``*`` names none."""
        verdict = self._verdicts.get(address)
        if verdict is None:
            parsed = read_address(address)
            verdict = parsed is not None and any(parsed in network for network in self._networks)
            if len(self._verdicts) >= _MOST_VERDICTS:
                self._verdicts.clear()
            self._verdicts[address] = verdict
        return verdict


def hop_address(text: str) -> str | None:
    """The address of one hop, without brackets and port; None if it is no address."""
    text = text.strip(" \t").strip('"')
    if text == _NGINX_UNIX:
        return ""
    if text.startswith("["):
        text, bracket, port = text[1:].partition("]")
        if not bracket or (port and not is_port(port[1:], port[:1])):
            return None
    elif text.count(":") == 1:
        text, _, port = text.partition(":")
        if not is_port(port):
            return None
    address = read_address(text)
    return None if address is None else str(address)


def is_port(text: str, mark: str = ":") -> bool:
    """A port, or what RFC 7239 section 6 lets stand for one."""
    if text.startswith("_"):
        return mark == ":"
    return mark == ":" and _PORT_NUMBER.fullmatch(text) is not None and int(text) <= 65535


def elements_from_right(text: str) -> Iterator[str]:
    """The elements of a Forwarded field, the last one first.

    From the right, so that a quotation mark which a client left open cannot
    swallow what a proxy added behind it.
    """
    end = start = len(text)
    quotes = 0
    while start >= 0:
        comma = text.rfind(",", 0, start)
        quotes += text.count('"', comma + 1, start)
        start = comma
        if quotes % 2 == 0:
            yield text[start + 1 : end]
            end = start


def read_element(element: str) -> dict[str, str] | None:
    """The parameters of an element, by lower-case name; None if it is malformed."""
    pairs: dict[str, str] = {}
    for part in element.split(";"):
        name, equals, value = part.strip(" \t").partition("=")
        if value[:1] == '"':
            value = value[1:-1] if len(value) > 1 and value[-1] == '"' else ""
        if not equals or not value or '"' in value or "\\" in value or name.lower() in pairs:
            return None
        pairs[name.lower()] = value
    return pairs


class Forwarding:
    """Applies or drops what an environ says of a client behind its peer."""

    def __init__(
        self, peers: Peers, fields: Iterable[str], *, mounts: bool, log: logging.Logger
    ) -> None:
        """``fields`` are believed; ``mounts``: X-Forwarded-Prefix may set SCRIPT_NAME."""
        self._peers = peers
        known = frozenset(_variable(name) for name in FIELDS)
        self._unbelieved = known - frozenset(_variable(name) for name in fields)
        self._mounts = mounts
        self._log = log
        self._told: set[str] = set()

    def apply(self, environ: Environ) -> None:
        """Take over what a trusted peer says; forget what anybody else says."""
        peer = environ.get("REMOTE_ADDR")
        if not self._trusts(peer):
            names = [name for name in environ if is_claim(name)]
            self._drop(environ, names, peer, ", who is not in forwarded_allow_ips")
            return
        names = sorted(self._unbelieved.intersection(environ))
        if names:
            self._drop(environ, names, peer, ": forwarded_headers does not name them")
        if any(name in environ for name in (_FOR, _PROTO, _HOST, _PORT, _MOUNT)):
            environ.pop(_FORWARDED, None)
            self._take_fields(environ)
        elif _FORWARDED in environ:
            self._take_forwarded(environ)

    def _trusts(self, peer: str | None) -> bool:
        if peer in ("", _NGINX_UNIX):
            return self._peers.unix
        return self._peers.everybody if peer is None else peer in self._peers

    def _drop(self, environ: Environ, names: list[str], peer: str | None, why: str) -> None:
        for name in names:
            del environ[name]
        if names and why not in self._told:
            self._told.add(why)
            self._log.info(
                "dropped %s of a request from %s%s; this is said once",
                ", ".join(name[5:].replace("_", "-").title() for name in names[:8]),
                peer or "an unknown address",
                why,
            )

    def _client(self, hops: Iterable[str | None]) -> str | None:
        """The address of the client; None if no hop gives one.

        That is the first hop, from the right, that is not trusted to tell of
        another.
        """
        known = None
        for hop in hops:
            if hop == "" and self._peers.unix:
                continue
            if not hop:
                break
            known = hop
            if not self._peers.named(hop):
                break
        return known

    def _take_fields(self, environ: Environ) -> None:
        if _FOR in environ:
            _set_client(environ, self._client(map(hop_address, reversed(_items(environ[_FOR])))))
        _set_server(environ, *(_last(environ, name) for name in (_PROTO, _HOST, _PORT)))
        prefix = _last(environ, _MOUNT) if self._mounts else None
        if prefix:
            _set_prefix(environ, prefix)

    def _take_forwarded(self, environ: Environ) -> None:
        taken: dict[str, str] = {}

        def hops() -> Iterator[str | None]:
            for element in elements_from_right(environ[_FORWARDED]):
                pairs = read_element(element)
                taken.clear()
                taken.update(pairs or {})
                yield hop_address(taken.get("for", ""))

        _set_client(environ, self._client(hops()))
        _set_server(environ, taken.get("proto"), taken.get("host"), None)


def _variable(name: str) -> str:
    return "HTTP_" + name.upper().replace("-", "_")


def _items(text: str) -> list[str]:
    """The items of a list; empty ones do not count (RFC 9110 section 5.6.1.2)."""
    return [item for item in (part.strip(" \t") for part in text.split(",")) if item]


def _last(environ: Environ, name: str) -> str | None:
    """Of a list only the last value is known to be of a trusted proxy."""
    items = _items(environ.get(name, ""))
    return items[-1] if items else None


def _set_client(environ: Environ, address: str | None) -> None:
    if address is not None and address != environ.get("REMOTE_ADDR"):
        environ["REMOTE_ADDR"] = address
        for name in _OF_THE_NEIGHBOUR:
            environ.pop(name, None)


def _set_server(environ: Environ, proto: str | None, host: str | None, port: str | None) -> None:
    """wsgi.url_scheme, HTTPS, HTTP_HOST, SERVER_NAME and SERVER_PORT as the client knows them."""
    scheme = _SCHEMES.get(proto.lower()) if proto else None
    if host is not None and not _is_public_host(host):
        host = None
    if port is not None:
        port = str(int(port)) if _is_number_of_port(port) else None
    if scheme == host == port:
        return  # all are None
    if scheme is not None:
        environ["wsgi.url_scheme"] = scheme
        if "REQUEST_SCHEME" in environ:
            environ["REQUEST_SCHEME"] = scheme
        if scheme == "https":
            environ["HTTPS"] = "on"
        else:
            environ.pop("HTTPS", None)
    default = _DEFAULT_PORTS[environ["wsgi.url_scheme"]]
    if host is not None:
        name, own_port = split_host(host)
        environ["HTTP_HOST"] = host
        environ["SERVER_NAME"] = name
        if port is not None and not own_port and port != default:
            environ["HTTP_HOST"] = f"{name}:{port}"
    else:
        own_port = split_host(environ.get("HTTP_HOST", ""))[1]
    environ["SERVER_PORT"] = port or own_port or default


def _is_number_of_port(text: str) -> bool:
    return is_port(text) and text.isdigit() and int(text) > 0


def _is_public_host(host: str) -> bool:
    name, port = split_host(host)
    return name[:1] not in ("", ":") and is_host(host) and (not port or _is_number_of_port(port))


def split_host(host: str) -> tuple[str, str]:
    """Name and port of a Host; an IPv6 address keeps its brackets."""
    name, _, port = host.rpartition(":")
    if not name or not (port.isdigit() or not port) or (host[:1] == "[" and name[-1:] != "]"):
        return host, ""
    return name, port


def _set_prefix(environ: Environ, prefix: str) -> None:
    """SCRIPT_NAME from what a proxy says that the application is mounted at.

    It is split off where the path begins with it; else the proxy has taken it off.
    """
    if BAD_ESCAPE.search(prefix):
        return
    prefix = decode_path(prefix).rstrip("/")
    segments = prefix.split("/")[1:]
    if prefix[:1] != "/" or not all(segments) or not {".", ".."}.isdisjoint(segments):
        return
    if any(char < " " or char in "?#\\\x7f" for char in prefix):
        return
    script, info = environ["SCRIPT_NAME"], environ["PATH_INFO"]
    if below(script, prefix):
        return
    if below(script + info, prefix):
        environ["SCRIPT_NAME"] = prefix
        environ["PATH_INFO"] = (script + info)[len(prefix) :]
    else:
        environ["SCRIPT_NAME"] = prefix + script
