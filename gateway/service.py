"""What all connections of one listening socket have in common."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway import __version__
from gateway.addresses import HTTPS
from gateway.environ import CgiNormaliser, Environ, Normaliser, http_mounter
from gateway.errorlog import ErrorStream
from gateway.filewrapper import FileWrapper
from gateway.guard import Guard, guard_for
from gateway.settings import Settings
from gateway.trust import Forwarding, Peers, unmapped
from protocols import codec_class
from protocols.detect import AUTO, CHOICES
from protocols.http1_head import is_claim
from protocols.model import CLAIMS, Codec, Limits

if TYPE_CHECKING:
    from logging import Logger
    from ssl import SSLContext

    from gateway.sockets import Listener

#: send(2): something follows at once.  Linux only.
_MORE: int = getattr(socket, "MSG_MORE", 0)

#: What is set for each request: a dictionary that has it from the start need not grow.
_EACH_SETS: dict[str, Any] = {
    "wsgi.input": None,
    "wsgi.url_scheme": "http",
    "RAW_URI": "",
    "gateway.client_disconnected": None,
}


def limits_of(settings: Settings, *, keep_alive: bool) -> Limits:
    """The bounds that the codecs know of."""
    return Limits(
        request_line=settings.limit_request_line,
        request_fields=settings.limit_request_fields,
        request_field_size=settings.limit_request_field_size,
        request_header_total=settings.limit_request_header_total,
        request_body=settings.limit_request_body,
        multiplex=settings.fastcgi_multiplex_max,
        connections=settings.worker_connections,
        roles=settings.fastcgi_roles,
        header_map=settings.header_map,
        keep_alive=keep_alive,
    )


def may_be_many(settings: Settings) -> bool:
    """Whether there may be more than one worker at a time."""
    if settings.process_manager == "static":
        return settings.workers > 1
    return max(settings.workers, settings.workers_max) > 1


@dataclass(frozen=True)
class Preloaded:
    """What a template has made before workers are forked from it.

    ``services`` are by listening descriptor.
    """

    application: Callable[..., Any]
    services: dict[int, Service]


class Service:
    """Codec, limits and the common part of the environ of one listening socket."""

    __slots__ = (
        "added",
        "base",
        "choices",
        "codec_class",
        "concurrent",
        "copies_errors",
        "guard",
        "is_unix",
        "keepalive",
        "last_flags",
        "limits",
        "listener",
        "normaliser",
        "origin",
        "peer",
        "protocol",
        "proxy_protocol",
        "searches_claims",
        "settle_claims",
        "slots",
        "tls",
    )

    def __init__(
        self,
        protocol: str,
        settings: Settings,
        log: Logger,
        listener: Listener | None = None,
        codec: type[Codec] | None = None,
    ) -> None:
        """``codec`` is given where the protocol has none that can be looked up."""
        #: The listening descriptor, the same in every worker.
        self.listener = -1 if listener is None else listener.sock.fileno()
        self.is_unix: bool = listener is not None and listener.is_unix
        #: By protocol, where the peer's first byte chooses it.  Until then a connection
        #: is HTTP's, which says nothing to a peer that says nothing.
        self.choices: dict[str, Service] | None = None
        if protocol == AUTO:
            self.choices = {name: Service(name, settings, log, listener) for name in CHOICES}
        self.protocol: str = protocol
        #: With which certificate it is inside of TLS; None: it is not.
        self.tls: SSLContext | None = None if listener is None else listener.context
        #: What the log calls a peer on a unix socket, which has no address.
        self.peer = f"a peer on {protocol if self.tls is None else HTTPS}"
        name = "http" if protocol == AUTO else protocol
        self.codec_class: type[Codec] = codec or codec_class(name)
        #: What the codec says of itself, and what follows: each connection asks.
        self.origin = self.codec_class.origin
        self.concurrent = self.codec_class.concurrent
        #: How many requests of one connection may run at once.
        self.slots = settings.fastcgi_multiplex_max if self.concurrent else 1
        #: Whether the front end gets a copy of ``wsgi.errors``.
        self.copies_errors = settings.fastcgi_stderr
        self.base: dict[str, Any] = {
            "GATEWAY_INTERFACE": "CGI/1.1",
            "wsgi.version": (1, 0),
            "wsgi.errors": ErrorStream(log),
            "wsgi.multithread": settings.threads > 1,
            "wsgi.multiprocess": may_be_many(settings),
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.input_terminated": True,
        }
        if self.codec_class.origin:
            self.base["SERVER_SOFTWARE"] = f"gateway/{__version__}"
            self.base |= _local_variables(listener)
            self.base["wsgi.url_scheme"] = "http"
            if self.tls is not None:
                self.base |= {"wsgi.url_scheme": "https", "HTTPS": "on"}
            #: Makes an environ of variables; None: they are one.
            self.normaliser: Normaliser | None = http_mounter(settings.script_name)
            self.keepalive = settings.keepalive
        else:
            self.normaliser = CgiNormaliser(settings.script_name, settings.path_info_source)
            self.keepalive = settings.fastcgi_keepalive
        self.limits = limits_of(settings, keep_alive=self.keepalive > 0)
        #: What is added to every environ, where the codec does not start with it.
        self.added: dict[str, Any] = self.base
        if self.codec_class.starts_with_base:
            self.limits.base, self.added = _EACH_SETS | self.base, {}
        forwarding = Forwarding(
            Peers(settings.forwarded_allow_ips),
            settings.forwarded_headers,
            mounts=settings.script_name is None,
            log=log,
        )
        #: Whether claims may be in any environ, or in those that are marked.
        self.searches_claims = not self.codec_class.marks_claims
        #: Believes or drops what an environ claims; raises BadVariables.
        self.settle_claims = _settler(forwarding)
        #: Of the send(2) of an answer that its connection ends with, see ``join_ends``.
        self.last_flags = 0
        own = "" if listener is None else listener.proxy_protocol
        #: Version of the PROXY protocol header that comes first, or "off".
        self.proxy_protocol: str = own or settings.proxy_protocol
        #: Who may connect; None: everybody.
        self.guard: Guard | None = None
        if listener is not None:
            self.guard = guard_for(
                protocol,
                settings,
                log,
                is_unix=self.is_unix,
                allow=listener.allow,
                proxied=self.proxy_protocol != "off",
            )

    def join_ends(self) -> None:
        """Send the last answer of a connection in one packet with its end, where that is TCP.

        For connections whose end comes in the same turn of the loop: the kernel holds the
        answer back until then, for 200 ms at most (tcp(7), TCP_CORK).
        """
        if not (self.is_unix or self.tls or self.codec_class.concurrent):
            self.last_flags = _MORE
        for service in (self.choices or {}).values():
            service.join_ends()


def services_of(
    listeners: Iterable[Listener], settings: Settings, log: Logger
) -> dict[int, Service]:
    """The services of listening sockets, by descriptor."""
    return {
        listener.sock.fileno(): Service(listener.protocol, settings, log, listener)
        for listener in listeners
    }


def _local_variables(listener: Listener | None) -> dict[str, str]:
    """What all connections of a socket have of SERVER_* and REMOTE_* (RFC 3875 section 4.1)."""
    if listener is None:
        return {}
    if listener.is_unix:
        port = "443" if listener.context else "80"
        return {"SERVER_NAME": "localhost", "SERVER_PORT": port, "REMOTE_ADDR": ""}
    local = listener.local_address()
    return {} if local is None else server_variables(local)


def server_variables(local: tuple[Any, ...]) -> dict[str, str]:
    """SERVER_* of a connection that has this address on our side."""
    return {"SERVER_NAME": unmapped(local[0]), "SERVER_PORT": str(local[1])}


def _settler(forwarding: Forwarding) -> Callable[[Environ], None]:
    """What is done with claims, in an environ that may have some."""
    apply = forwarding.apply

    def settle(environ: Environ) -> None:
        marked = environ.pop(CLAIMS, None) is not None
        if marked or any(map(is_claim, environ)):
            apply(environ)

    return settle
