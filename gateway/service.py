"""What all connections of one listening socket have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway import __version__
from gateway.environ import cgi_normaliser, http_mounter
from gateway.errorlog import ErrorStream
from gateway.filewrapper import FileWrapper
from gateway.settings import Settings
from protocols import codec_class
from protocols.detect import AUTO, CHOICES
from protocols.model import Codec, Limits

Normaliser = Callable[[dict[str, str]], None]


def limits_of(settings: Settings) -> Limits:
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
    )


def may_be_many(settings: Settings) -> bool:
    """Whether there may be more than one worker at a time."""
    if settings.process_manager == "static":
        return settings.workers > 1
    return max(settings.workers, settings.workers_max) > 1


class Service:
    """Codec, limits and the common part of the environ of one listening socket."""

    __slots__ = (
        "base",
        "choices",
        "codec_class",
        "keepalive",
        "limits",
        "listener",
        "normalise",
        "peer",
        "protocol",
    )

    def __init__(
        self,
        protocol: str,
        settings: Settings,
        errors: ErrorStream,
        listener: int = -1,
        codec: type[Codec] | None = None,
    ) -> None:
        """``codec`` is given where the protocol has none that can be looked up."""
        #: The listening descriptor, the same in every worker.
        self.listener = listener
        #: By protocol, where the peer's first byte chooses it.  Until then a connection
        #: is HTTP's, which says nothing to a peer that says nothing.
        self.choices: dict[str, Service] | None = None
        if protocol == AUTO:
            self.choices = {name: Service(name, settings, errors, listener) for name in CHOICES}
        self.protocol: str = protocol
        #: What the log calls a peer on a unix socket, which has no address.
        self.peer = f"a peer on {protocol}"
        name = "http" if protocol == AUTO else protocol
        self.codec_class: type[Codec] = codec or codec_class(name)
        self.limits = limits_of(settings)
        self.normalise: Normaliser | None
        self.base: dict[str, Any] = {
            "GATEWAY_INTERFACE": "CGI/1.1",
            "wsgi.version": (1, 0),
            "wsgi.errors": errors,
            "wsgi.multithread": settings.threads > 1,
            "wsgi.multiprocess": may_be_many(settings),
            "wsgi.run_once": False,
            "wsgi.file_wrapper": FileWrapper,
            "wsgi.input_terminated": True,
        }
        if self.codec_class.origin:
            self.base["SERVER_SOFTWARE"] = f"gateway/{__version__}"
            self.base["wsgi.url_scheme"] = "http"
            self.normalise = http_mounter(settings.script_name)
            self.keepalive = settings.keepalive
        else:
            self.normalise = cgi_normaliser(settings.script_name, settings.path_info_source)
            self.keepalive = settings.fastcgi_keepalive
