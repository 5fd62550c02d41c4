"""Accepting connections: from the listening sockets, and from workers that retire."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from gateway.connection import Connection
from gateway.crowd import Crowd
from gateway.deadlines import make_room
from gateway.errorlog import Sparing
from gateway.handover import Handover
from gateway.linux import seconds_since_data
from gateway.proxied import ProxiedConnection
from gateway.receiving import NOTHING
from gateway.service import Service, may_be_many, server_variables
from gateway.shortage import Shortage
from gateway.sockets import Listener
from gateway.trust import unmapped

if TYPE_CHECKING:
    from gateway.accepted import Sock
    from gateway.guard import Guard
    from gateway.worker import Worker

#: How long accepting rests when descriptors run out, seconds.
_REST = 1.0

#: Between two looks for connections to part with, if there were none; seconds.
_LOOK = 0.1

#: Connections accepted in one turn: all that wait if there is no other worker.
_MOST_ALONE = 64


#: Who was accepted later than this after its request arrived had to wait; seconds.
_BEHIND = 0.05


class Acceptor:
    """Opens connections while there is room for them; on the loop's thread only."""

    def __init__(
        self,
        worker: Worker,
        listeners: list[Listener],
        services: dict[int, Service],
        handover: Handover,
    ) -> None:
        self._worker = worker
        self._handover = handover
        self.listeners = {listener.sock.fileno(): listener for listener in listeners}
        self._services = services
        if worker.pool is None and worker.hooks.get("post_request") is None:
            for service in self._services.values():
                service.join_ends()
        self._kinds = {number: _kind(service) for number, service in self._services.items()}
        self._connections: dict[int, Connection] = worker.connections
        self._most_connections: int = worker.settings.worker_connections
        self.accepting = False
        self._not_before = 0.0
        self._shortage = Shortage(worker.log)
        self.crowd = Crowd(worker.settings, worker.log)
        self._lines = Sparing(worker.log)
        self._next_look = 0.0
        #: Connections may wait since accepting was stopped.
        self._behind = False
        self._at_once: int = 1
        self._most = 1 if may_be_many(worker.settings) else _MOST_ALONE

    def numbers(self) -> list[int]:
        """The descriptors that it waits on."""
        return [*self.listeners, self._handover.fileno()]

    def event(self, number: int) -> bool:
        """Something waits at a descriptor; False if that is none of these."""
        if number in self.listeners:
            if self.accepting:  # not since an earlier event of this turn
                self._accept(number)
        elif number == self._handover.fileno():
            self._take_over()
        else:
            return False
        return True

    def review(self, now: float) -> None:
        """Accept again when there is room, and no more when the worker retires."""
        if self._worker.retiring:
            if self.listeners:
                self._stop()
        elif not self.accepting and now >= self._not_before:
            if self.is_full and now >= self._next_look:
                self._make_room(now)
            if self._has_room():
                self.set_accepting(True)

    def set_accepting(self, on: bool) -> None:
        if on != self.accepting:
            self.accepting = on
            poller = self._worker.poller
            for number in self.numbers():
                if on:
                    poller.register_listener(number)
                else:
                    poller.unregister(number)

    def give(self, connection: Connection) -> bool:
        """Hand a connection to another worker; False if it has to stay."""
        return self._handover.give(connection.service.listener, connection.number)

    @property
    def is_full(self) -> bool:
        """Whether there are as many connections as there may be."""
        return len(self._connections) >= self._most_connections

    def _make_room(self, now: float) -> None:
        """Somebody may wait: part with connections of which there is nothing to lose."""
        freed = make_room(self._worker, now)
        if not freed:
            self._next_look = now + _LOOK
            return
        self._lines.warn(
            "worker_connections (%d) is reached: %d connections that did not ask for anything "
            "are closed, the oldest first",
            self._worker.settings.worker_connections,
            freed,
        )

    def _has_room(self) -> bool:
        if self.is_full or (self._shortage.begun and self._shortage.lasts()):
            return False
        pool = self._worker.pool
        return pool is None or bool(pool.has_room())

    def _stop(self) -> None:
        """Accept what the kernel has already greeted, then close our copies.

        While other workers go on, the backlog is theirs.
        """
        waiting: list[tuple[Service, Sock, Any]] = []
        if self._worker.stopping:
            # All of them first, then serve: a client that has its answer comes back, and with one
            # thread there would be no end while requests are served in between.
            for number, listener in self.listeners.items():
                with suppress(OSError):
                    for _ in range(self._worker.settings.backlog):
                        accepted = listener.accept()
                        if accepted is None:
                            break
                        waiting.append((self._services[number], *accepted))
            while self._take_over():
                pass
        self.set_accepting(False)
        for listener in self.listeners.values():
            listener.close(unlink=False)
        self.listeners.clear()
        for service, sock, address in waiting:
            self._open(service, sock, address)

    def _accept(self, number: int) -> None:
        """Accept as many as waited last time, twice as many if all of those came."""
        worker = self._worker
        listener = self.listeners[number]
        service = self._services[number]
        for _ in range(self._at_once):
            if not worker.retiring and not self._has_room():
                self._behind = True
                self.set_accepting(False)
                return
            try:
                accepted = listener.accept()
            except (InterruptedError, ConnectionAbortedError):
                accepted = None
            except OSError as error:
                # Out of descriptors or memory: the connection stays in the
                # backlog; trying again at once would spin.
                self._shortage.begin(f"cannot accept on {listener}: {error}")
                self._not_before = worker.now + _REST
                self.set_accepting(False)
                return
            if accepted is None:
                self._at_once = 1
                return
            sock, address = accepted
            if sock.fileno() > self._shortage.highest:
                self._shortage.look_at(sock.fileno())
            self._open(service, sock, address)
        self._at_once = min(self._at_once * 2, self._most)

    def _open(self, service: Service, sock: Sock, address: Any) -> None:
        connection = self._connection(service, sock, address, service.guard)
        if connection is None:
            return
        worker = self._worker
        is_counted = self.crowd.limit and not service.is_unix and service.proxy_protocol == "off"
        if is_counted and not self.crowd.admits(connection, address[0]):
            connection.close()
            return
        if (self._behind or worker.late) and not service.is_unix:
            waited = seconds_since_data(sock)
            self._behind = waited > _BEHIND
            worker.since = worker.now - waited
        try:  # as Worker.guarded, whose calls cost more than what it guards from
            connection.open()
        except Exception:  # noqa: BLE001 - logged there
            worker.fault(connection)
        worker.since = worker.now

    def _take_over(self) -> bool:
        """Go on with a connection of a worker that retires; False if there is none."""
        taken = self._handover.take()
        if taken is None:
            return False
        number, sock, address = taken
        service = self._services.get(number)
        if service is None:  # of a manager with other binds, see succession.py
            sock.close()
            return True
        connection = self._connection(service, sock, address, None)
        if connection is not None:
            self._worker.guarded(connection, connection.resume)
        return True

    def _connection(
        self, service: Service, sock: Sock, address: Any, guard: Guard | None
    ) -> Connection | None:
        """None if it may not be, or met a fault of ours, which is nobody else's loss."""
        peer = service.peer if service.is_unix else f"{address[0]}:{address[1]}"
        try:
            if guard is not None and not guard.admits(sock, address):
                sock.close()
                return None
            own = _addresses(service, sock, address)
            kind = self._kinds[service.listener]
            if kind is Connection:  # by its name: so the call is compiled too
                connection = Connection(self._worker, service, sock, peer, own)
            else:
                connection = kind(self._worker, service, sock, peer, own)
        except Exception:
            self._worker.log.critical("%s: a fault of the server", peer, exc_info=True)
            sock.close()
            return None
        self._connections[connection.number] = connection
        return connection


def _kind(service: Service) -> type[Connection]:
    """What its connections are, by what comes before the protocol."""
    if service.tls is None:
        return Connection if service.proxy_protocol == "off" else ProxiedConnection
    from gateway.tls import TlsConnection  # noqa: PLC0415 - OpenSSL only where it is used

    return TlsConnection


def _addresses(service: Service, sock: Sock, address: Any) -> Mapping[str, str]:
    """SERVER_* and REMOTE_* of a connection (RFC 3875 section 4.1) that others do not share."""
    if service.is_unix or not service.codec_class.origin:
        return NOTHING
    host: str = address[0]
    if host.startswith(":"):  # else nothing is to be looked at
        host = unmapped(host)
    remote = {"REMOTE_ADDR": host, "REMOTE_PORT": str(address[1])}
    if "SERVER_NAME" in service.base:
        return remote
    return server_variables(sock.getsockname()) | remote
