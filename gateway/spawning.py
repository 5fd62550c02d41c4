"""Forking: a worker, a template, or a worker by way of a template."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

from gateway import forkguard
from gateway.accesslog import AccessLog
from gateway.child import Child, Generation
from gateway.handover import Handover
from gateway.hooks import ServerView, WorkerView
from gateway.linux import keep_freed_memory
from gateway.loader import load_from_settings
from gateway.preload import request_worker, serve_as_template
from gateway.process import (
    allow_descriptors,
    apply_environment,
    drop_privileges,
    set_title,
)
from gateway.scoreboard import Board
from gateway.service import Preloaded, Service, services_of
from gateway.settings import Settings
from gateway.sockets import Listener
from gateway.worker import Worker

#: Descriptors of a worker that are no connection's: sockets, logs, the application's files.
_OTHER_FILES = 256

#: What a manager listens to; blocked while a child has no handlers of its own.
SIGNALS = (*forkguard.SIGNALS, signal.SIGCHLD)


class Spawner:
    """What every child gets from the manager.

    ``disown`` closes, in a child, what is the manager's alone.
    """

    def __init__(
        self,
        listeners: Sequence[Listener],
        log: logging.Logger,
        access: AccessLog | None,
        handover: Handover,
        disown: Callable[[], None],
    ) -> None:
        self._listeners = listeners
        #: In words, also when they are closed.
        self._addresses = [str(listener) for listener in listeners]
        self._log = log
        self._access = access
        self._handover = handover
        self._disown = disown
        self._numbers = 0
        self._manager = os.getpid()

    def server_view(self, generation: Generation) -> ServerView:
        """What hooks get as ``server``, in the manager and in workers."""
        return ServerView(self._manager, self._log, generation.settings, self._addresses)

    def worker_view(self, generation: Generation, number: int, pid: int) -> WorkerView:
        """What hooks get as ``worker``."""
        return WorkerView(pid, self._log, generation.settings, number, self._manager)

    def start_worker(self, generation: Generation, wanted: int) -> Child:
        """Fork a worker, through the generation's template if it has one.

        Raises OSError, and what the hook ``pre_fork`` raises.
        """
        self._numbers += 1
        number = self._numbers
        generation.hooks.call(
            "pre_fork",
            self.server_view(generation),
            self.worker_view(generation, number, 0),
        )
        settings = replace(generation.settings, workers=max(1, wanted))
        board = Board(settings.threads)
        try:
            ours, theirs = socket.socketpair()
        except OSError:
            board.close()
            raise
        child = Child(number, ours, generation, board)
        with theirs:
            try:
                if generation.template is not None:
                    descriptors = [theirs.fileno(), board.descriptor()]
                    request_worker(generation.template.pipe, descriptors, number)
                else:
                    become = partial(self._become_worker, generation, settings, number)
                    child.pid = self._fork(ours, lambda: become(theirs, board, None))
            except OSError:
                ours.close()
                board.close()
                raise
        ours.setblocking(False)
        return child

    def start_template(self, generation: Generation, wanted: int) -> Child:
        """Fork the process that loads the application for all workers.  Raises OSError."""
        settings = replace(generation.settings, workers=max(1, wanted))
        ours, theirs = socket.socketpair()
        child = Child(0, ours, generation, None)

        def become() -> None:
            set_title("template", settings.proc_name or settings.wsgi_app)
            apply_environment(settings.raw_env)
            drop_privileges(settings.user, settings.group)
            code = serve_as_template(
                theirs,
                lambda: self._preload(generation, settings),
                partial(self._become_preloaded, generation, settings),
                self._log,
            )
            _leave(code)

        with theirs:
            try:
                child.pid = self._fork(ours, become)
            except OSError:
                ours.close()
                raise
        ours.setblocking(False)
        return child

    def _fork(self, ours: socket.socket, become: Callable[[], None]) -> int:
        # Until the child has handlers of its own, its signals wait.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                try:
                    signal.set_wakeup_fd(-1)
                    for number in SIGNALS:
                        signal.signal(number, signal.SIG_DFL)
                    self._disown()
                    ours.close()
                    become()
                except BaseException:  # noqa: BLE001 - whatever it is, this process ends here
                    self._log.critical("a worker failed", exc_info=True)
                finally:
                    _leave(1)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        return pid

    def _preload(self, generation: Generation, settings: Settings) -> Preloaded:
        application = load_from_settings(settings)
        keep_freed_memory()
        return Preloaded(application, self._services(generation, settings))

    def _services(self, generation: Generation, settings: Settings) -> dict[int, Service]:
        for listener in self._listeners:
            listener.context = generation.tls if listener.tls else None
        return services_of(self._listeners, settings, self._log)

    def _become_preloaded(
        self,
        generation: Generation,
        settings: Settings,
        preloaded: Preloaded,
        descriptors: list[int],
        number: int,
    ) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        pipe = socket.socket(fileno=descriptors[0])
        pipe.sendall(b"pid %d\n" % os.getpid())
        board = Board.attach(descriptors[1], settings.threads)
        self._become_worker(generation, settings, number, pipe, board, preloaded)

    def _become_worker(
        self,
        generation: Generation,
        settings: Settings,
        number: int,
        pipe: socket.socket,
        board: Board,
        preloaded: Preloaded | None,
    ) -> None:
        try:
            set_title("worker", settings.proc_name or settings.wsgi_app)
            view = self.worker_view(generation, number, os.getpid())
            apply_environment(settings.raw_env)
            generation.hooks.call("post_fork", self.server_view(generation), view)
            if preloaded is None:  # else the template has done it
                drop_privileges(settings.user, settings.group)
        except BaseException:  # noqa: BLE001 - a hook may raise anything
            with suppress(OSError):
                text = traceback.format_exc()
                pipe.sendall(b"failed\n" + text.encode("utf-8", "backslashreplace"))
            _leave(1)
        services = preloaded.services if preloaded else self._services(generation, settings)
        # Each connection may need a temporary file.
        allow_descriptors(2 * settings.worker_connections + _OTHER_FILES)
        worker = Worker(
            settings,
            list(self._listeners),
            services,
            pipe,
            self._log,
            self._access,
            self._handover,
            board,
            generation.hooks,
            preloaded.application if preloaded else None,
            view,
        )
        worker.take_signals()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        _leave(worker.run())


def _leave(code: int) -> None:
    with suppress(BaseException):
        sys.stderr.flush()
    os._exit(code)
