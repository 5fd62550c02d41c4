"""One worker process: the loop thread, the pool, and leaving without losing a request.

The loop accepts, reads, parses and closes.  With one thread the application
runs on the loop; with more, requests go to the pool by one queue and the pool
threads write their answers themselves.
"""

from __future__ import annotations

import atexit
import logging
import signal
import socket
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from queue import SimpleQueue
from time import monotonic, time
from typing import TYPE_CHECKING, Any
from wsgiref.handlers import format_date_time

from gateway.accesslog import AccessLog
from gateway.connection import Connection
from gateway.errorlog import ErrorStream, reopen
from gateway.handover import Handover
from gateway.loader import LoadError, load_from_settings
from gateway.poller import READ, make_poller
from gateway.scoreboard import Board
from gateway.service import Service
from gateway.settings import Settings
from gateway.sockets import Listener
from protocols.http1 import Http1Codec
from protocols.model import Codec

if TYPE_CHECKING:
    from gateway.hooks import Hooks

#: Exit codes of a worker.
EXIT_OK = 0
EXIT_LOAD = 3

#: What a worker tells its manager, a line each; after FAILED comes a text up to the end.
READY = b"ready\n"
FAILED = b"failed\n"

#: At most this long between two looks at the deadlines, seconds.
_TICK = 1.0

#: How long an idle connection may stay when the whole service stops, seconds.
_IDLE_AT_STOP = 1.0

#: A kept FastCGI connection that no other worker took is closed this long
#: before the time of a retiring worker is up, seconds.
_LAST_CALL = 2.0

#: How long accepting rests when descriptors run out, seconds.
_ACCEPT_REST = 1.0

#: Connections accepted in one turn: all that wait if there is no other worker.
_ACCEPT_ALONE = 64


class Worker:
    """Serves the application on inherited listening sockets until told to leave."""

    def __init__(
        self,
        settings: Settings,
        listeners: list[Listener],
        pipe: socket.socket,
        log: logging.Logger,
        access: AccessLog | None,
        handover: Handover,
        board: Board,
        hooks: Hooks | None,
        application: Callable[..., Any] | None = None,
        number: int = 0,
    ) -> None:
        """``application``: loaded already.  ``number``: workers count from 1, for the hooks."""
        self.settings = settings
        self.board = board
        self.hooks = hooks
        self.number = number
        self.log = log
        self.access = access
        self.application: Callable[..., Any] = application or _no_application
        self._is_loaded = application is not None
        self.serial = count(1)
        self.retiring = False
        self.now = monotonic()
        self.poller = make_poller(settings.poller)
        #: Connections with something to do, or None where the loop does it all.
        self.queue: SimpleQueue[Connection] | None = SimpleQueue() if settings.threads > 1 else None
        self._listeners = {listener.sock.fileno(): listener for listener in listeners}
        self._pipe = pipe
        self._handover = handover
        self._connections: dict[int, Connection] = {}
        self._handed_back: deque[Connection] = deque()
        self._services: dict[int, Service] = {}
        self._queue_size = settings.queue_size or 2 * settings.threads
        self._accepting = False
        self._accept_after = 0.0
        self._accept_at_once = 1
        self._accept_most = _ACCEPT_ALONE if settings.workers == 1 else 1
        self._stopping = False
        self._stop_now = False
        self._deadline = 0.0
        self._idle_until = 0.0
        self._second = 0
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._main_thread = threading.get_ident()

    # Life

    def run(self) -> int:
        """Load the application, serve, and return the exit code."""
        try:
            if not self._is_loaded:
                self.application = load_from_settings(self.settings)
        except BaseException as error:  # noqa: BLE001 - SystemExit in user code too
            text = str(error) if isinstance(error, LoadError) else traceback.format_exc()
            with suppress(OSError):
                self._pipe.sendall(FAILED + text.encode("utf-8", "backslashreplace"))
            return EXIT_LOAD
        errors = ErrorStream(self.log)
        for number in self._listeners:
            protocol = self._listeners[number].protocol
            self._services[number] = Service(protocol, self.settings, errors, number)
        self.poller.register(self._wake_reader.fileno(), READ)
        self.poller.register(self._pipe.fileno(), READ)
        self._start_pool()
        self._set_accepting(True)
        with suppress(OSError):
            self._pipe.sendall(READY)
        self._loop()
        self._leave()
        return EXIT_OK

    def take_signals(self) -> None:
        """Replace the manager's handlers; before that, signals are blocked."""
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGINT, self._on_quit)
        signal.signal(signal.SIGQUIT, self._on_quit)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, self._on_usr1)
        signal.signal(signal.SIGUSR2, self._on_usr2)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for name in (signal.SIGTTIN, signal.SIGTTOU, signal.SIGWINCH, signal.SIGPIPE):
            signal.signal(name, signal.SIG_IGN)

    def _on_term(self, *_: object) -> None:
        self._retire(stopping=True)

    def _on_usr2(self, *_: object) -> None:
        """The manager's word that a successor is ready."""
        self._retire(stopping=False)

    def _on_quit(self, *_: object) -> None:
        self._stop_now = True

    def _on_usr1(self, *_: object) -> None:
        reopen(self.log)
        if self.access is not None:
            try:
                self.access.reopen()
            except OSError as error:
                self.log.error("the access log cannot be reopened: %s", error)

    def _retire(self, *, stopping: bool) -> None:
        """Answer what there is and leave.

        When the service goes on in other workers, a kept connection may wait
        for its last answer as long as ``graceful_timeout`` lets it.
        """
        if self._stopping:
            return
        now = monotonic()
        self._deadline = self._deadline or now + self.settings.graceful_timeout
        self._stopping = stopping
        self._idle_until = now + _IDLE_AT_STOP if stopping else self._deadline
        self.retiring = True  # last: threads read the others once they see it

    def is_last_answer(self, codec: Codec) -> bool:
        """Whether an answer of a retiring worker ends its connection.

        HTTP says so in the answer.  FastCGI cannot; its connections go to
        another worker instead, while there is one.
        """
        return codec.origin or self._stopping or self.now >= self._deadline - _LAST_CALL

    def give_away(self, connection: Connection) -> bool:
        """Hand an idle connection to another worker; False if it has to stay."""
        return not self._stopping and self._handover.give(
            connection.service.listener, connection.number
        )

    def may_drop_idle(self, now: float) -> bool:
        """Whether an idle connection is to be closed before its time."""
        return self.retiring and now >= self._idle_until

    # The loop

    def _loop(self) -> None:
        poll = self.poller.poll
        connections = self._connections
        next_sweep = monotonic() + _TICK
        while not self._stop_now:
            events = poll(0 if self._handed_back else _TICK)
            self.now = now = monotonic()
            wall = int(time())
            if wall != self._second:
                self._second = wall
                Http1Codec.date = f"Date: {format_date_time(wall)}\r\n"
            self._handle(events)
            if monotonic() - now > _TICK:
                self._excuse(events)
            while self._handed_back:
                connection = self._handed_back.popleft()
                self._guarded(connection, connection.settle)
            if not self._accepting or self.retiring:
                self._review_accepting(now)
            if now >= next_sweep or self._stopping:
                next_sweep = now + _TICK
                self._sweep(now)
            if self.retiring and (not connections or now >= self._deadline):
                break

    def _sweep(self, now: float) -> None:
        for connection in list(self._connections.values()):
            self._guarded(connection, partial(connection.sweep, now))

    def _handle(self, events: list[tuple[int, int]]) -> None:
        connections = self._connections
        for number, mask in events:
            connection = connections.get(number)
            if connection is None:
                self._other_event(number)
                continue
            try:
                if mask == READ:
                    connection.readable()
                else:
                    connection.on_event(mask)
            except Exception:  # noqa: BLE001 - logged there
                self._fault(connection)

    def _guarded(self, connection: Connection, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception:  # noqa: BLE001 - logged there
            self._fault(connection)

    def _fault(self, connection: Connection) -> None:
        """A fault of ours ends the connection that it met, not the worker."""
        fault = sys.exc_info()
        self.log.critical("%s: a fault of the server", connection.peer, exc_info=fault)
        try:
            connection.lose()
        except Exception:
            self.log.critical("%s: and another", connection.peer, exc_info=True)

    def _excuse(self, events: list[tuple[int, int]]) -> None:
        """An application held the loop: its connections were not idle meanwhile."""
        self.now = monotonic()
        for number, _ in events:
            connection = self._connections.get(number)
            if connection is not None:
                connection.since = self.now

    def _other_event(self, number: int) -> None:
        if number in self._listeners:
            self._accept(number)
        elif number == self._handover.fileno():
            self._take_over()
        elif number == self._wake_reader.fileno():
            with suppress(BlockingIOError):
                self._wake_reader.recv(4096)
        elif number == self._pipe.fileno():
            # Only the end of the manager is heard here: finish and leave.
            self.poller.unregister(number)
            self.log.warning("the manager is gone: leaving")
            self._retire(stopping=True)

    def hand_back(self, connection: Connection) -> None:
        """Have the loop look at a connection; from any thread."""
        self._handed_back.append(connection)
        if threading.get_ident() != self._main_thread:
            self.wake()

    def wake(self) -> None:
        """End the loop's wait."""
        with suppress(BlockingIOError):  # full: it is awake already
            self._wake_writer.send(b"\0")

    def forget(self, connection: Connection) -> None:
        """A connection closes."""
        if connection.interest != -1:
            self.poller.unregister(connection.number)
        del self._connections[connection.number]

    # Accepting

    def _has_room(self) -> bool:
        if len(self._connections) >= self.settings.worker_connections:
            return False
        return self.queue is None or self.queue.qsize() < self._queue_size

    def _review_accepting(self, now: float) -> None:
        if self.retiring:
            if self._listeners:
                self._stop_listening()
        elif now >= self._accept_after and self._has_room():
            self._set_accepting(True)

    def _set_accepting(self, on: bool) -> None:
        if on != self._accepting:
            self._accepting = on
            for number in (*self._listeners, self._handover.fileno()):
                if on:
                    self.poller.register_listener(number)
                else:
                    self.poller.unregister(number)

    def _stop_listening(self) -> None:
        """Accept what the kernel has already greeted, then close our copies.

        While other workers go on, the backlog is theirs.
        """
        if self._stopping:
            for number in self._listeners:
                self._accept_at_once = self.settings.backlog
                self._accept(number)
            while self._take_over():
                pass
        self._set_accepting(False)
        for listener in self._listeners.values():
            listener.close(unlink=False)
        self._listeners.clear()

    def _accept(self, number: int) -> None:
        """Accept as many as waited last time, twice as many if all of those came."""
        listener = self._listeners[number]
        for _ in range(self._accept_at_once):
            if not self.retiring and not self._has_room():
                self._set_accepting(False)
                return
            try:
                sock, address = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                self._accept_at_once = 1
                return
            except OSError as error:
                # Out of descriptors or memory: the connection stays in the
                # backlog; trying again at once would spin.
                self.log.error("cannot accept on %s: %s", listener, error)
                self._accept_after = self.now + _ACCEPT_REST
                self._set_accepting(False)
                return
            connection = self._connection(listener, sock, address)
            self._guarded(connection, connection.open)
        self._accept_at_once = min(self._accept_at_once * 2, self._accept_most)

    def _take_over(self) -> bool:
        """Go on with a connection of a worker that retires; False if there is none."""
        taken = self._handover.take()
        if taken is None:
            return False
        number, sock, address = taken
        connection = self._connection(self._listeners[number], sock, address)
        self._guarded(connection, connection.resume)
        return True

    def _connection(self, listener: Listener, sock: socket.SocketType, address: Any) -> Connection:
        service = self._services[listener.sock.fileno()]
        base = service.base
        peer = service.peer if listener.is_unix else f"{address[0]}:{address[1]}"
        if service.codec_class.origin:
            base = base | _addresses(sock, listener.is_unix, address)
        connection = Connection(self, service, sock, peer, base)
        self._connections[connection.number] = connection
        return connection

    # The pool

    def _start_pool(self) -> None:
        if self.queue is None:
            return
        for number in range(self.settings.threads):
            threading.Thread(target=self._serve, name=f"gateway-{number}", daemon=True).start()

    def _serve(self) -> None:
        queue = self.queue
        assert queue is not None
        while True:
            connection = queue.get()
            try:
                connection.work()
            except Exception:
                # A fault of ours: without this line the thread would be lost.
                self.log.critical("a fault of the server", exc_info=True)
                connection.lose_from_thread()
            if not self._accepting and queue.qsize() < self._queue_size:
                self.wake()

    def _leave(self) -> None:
        """Close what is left, run what the application registered, and be gone.

        ``os._exit`` follows: a thread that the application left behind must not
        keep a worker that has nothing more to do.
        """
        left = list(self._connections.values())
        for connection in left:
            if connection.active and not self._stop_now:
                self.log.error(
                    "%s: cut off after graceful_timeout, %d requests unanswered",
                    connection.peer,
                    connection.active,
                )
        atexit._run_exitfuncs()  # noqa: SLF001 - the only way to run them before os._exit
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        logging.shutdown()


def _addresses(sock: socket.SocketType, is_unix: bool, address: Any) -> dict[str, str]:
    """SERVER_* and REMOTE_* of a connection (RFC 3875 section 4.1)."""
    if is_unix:
        return {"SERVER_NAME": "localhost", "SERVER_PORT": "80", "REMOTE_ADDR": ""}
    local = sock.getsockname()
    return {
        "SERVER_NAME": local[0],
        "SERVER_PORT": str(local[1]),
        "REMOTE_ADDR": address[0],
        "REMOTE_PORT": str(address[1]),
    }


def _no_application(*_: object) -> Any:
    raise RuntimeError("the application is not loaded")
