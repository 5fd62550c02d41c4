"""Connections that start with a PROXY protocol header, before anything else."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway.connection import Connection
from gateway.service import server_variables
from gateway.trust import unmapped
from protocols.model import ProtocolError
from protocols.proxy_protocol import Announced, ProxyHeader

if TYPE_CHECKING:
    from gateway.accepted import Sock
    from gateway.service import Service
    from gateway.serving import Serving

#: More than a header; what is not one of its bytes stays with the kernel.
_PEEK_SIZE = 2048


class ProxiedConnection(Connection):
    """Takes the header from the socket, and not a byte of what follows it."""

    __slots__ = ("header",)

    def __init__(
        self,
        worker: Serving,
        service: Service,
        sock: Sock,
        peer: str,
        own: Mapping[str, Any],
    ) -> None:
        super().__init__(worker, service, sock, peer, own)
        version = service.proxy_protocol
        #: None once it is read, or will not come.
        self.header: ProxyHeader | None = None if version == "off" else ProxyHeader(version)

    def resume(self) -> None:
        """The worker before has read the header."""
        self.header = None
        super().resume()

    def readable(self) -> None:
        """Read the header first."""
        if self.header is None or self.linger_until or self._read_header(self.header):
            super().readable()

    def _read_header(self, header: ProxyHeader) -> bool:
        """Whether to go on with what follows the header: the protocol, or the end."""
        try:
            data = self.sock.recv(_PEEK_SIZE, socket.MSG_PEEK)
            if not data:
                if header.begun:
                    self.worker.log.info("%s: left in the middle of a PROXY header", self.peer)
                return True
            self.sock.recv(header.receive(data))
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            self.lose()
            return False
        except ProtocolError as error:
            self.worker.log.warning("%s: %s", self.peer, error.reason)
            self.header = None
            self.stop_reading()
            self.settle()
            return False
        if header.done:
            self.header = None
            if header.announced is not None:
                self._take_addresses(header.announced)
        return header.done and not self.closed

    def _take_addresses(self, announced: Announced) -> None:
        """The connection is its client's from here on."""
        self.peer = f"{announced.source}:{announced.source_port} through {self.peer}"
        if not self.codec.origin:
            return  # the front end says who its client is
        own = {
            "REMOTE_ADDR": unmapped(announced.source),
            "REMOTE_PORT": str(announced.source_port),
            **server_variables((announced.destination, announced.destination_port)),
        }
        if announced.tls:
            own |= {"wsgi.url_scheme": "https", "HTTPS": "on"}
        self.own = own
        if not self.worker.acceptor.crowd.admits(self, announced.source):
            self.close()

    def _hand_over(self) -> None:
        """Not before the header: the next worker would not wait for one."""
        if self.header is None:
            super()._hand_over()
