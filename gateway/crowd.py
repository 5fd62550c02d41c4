"""How many connections each client has with one worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.errorlog import Sparing
from gateway.trust import Peers

if TYPE_CHECKING:
    from logging import Logger

    from gateway.connection import Connection
    from gateway.settings import Settings


class Crowd:
    """Counts connections by address, up to ``limit_conn`` of each; on the loop's thread only.

    Trusted proxies are not counted: they have many clients.  Neither are peers on
    unix sockets, which have no address, nor front ends that speak another protocol
    than HTTP.
    """

    def __init__(self, settings: Settings, log: Logger) -> None:
        self.limit = settings.limit_conn
        self._proxies = Peers(settings.forwarded_allow_ips)
        self._lines = Sparing(log)
        self._counts: dict[str, int] = {}

    def admits(self, connection: Connection, address: str) -> bool:
        """Whether its client may have this connection too; then it is counted."""
        if not self.limit or not connection.codec.origin or address in self._proxies:
            return True
        count = self._counts.get(address, 0)
        if count >= self.limit:
            self._lines.warn(
                "refused a connection of %s: it has %d already (limit_conn)", address, count
            )
            return False
        self._counts[address] = count + 1
        connection.counted = address
        return True

    def leave(self, connection: Connection) -> None:
        """A connection that was counted closes."""
        address = connection.counted
        count = self._counts.pop(address) - 1
        if count:
            self._counts[address] = count
