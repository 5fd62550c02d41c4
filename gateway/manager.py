"""The master process: fork, watch, replace, stop.

It binds the sockets and never imports the application, parses a request or
starts a thread.  A worker is replaced in one way only: its successor is
started, reports that it is ready, and then the old one retires.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from time import monotonic

from gateway.accesslog import AccessLog
from gateway.errorlog import reopen
from gateway.handover import Handover
from gateway.scoreboard import Board
from gateway.settings import Settings
from gateway.sockets import Listener
from gateway.worker import EXIT_LOAD, FAILED, READY, Worker

EXIT_OK = 0

#: A worker that dies this soon after its start counts as a failed start, seconds.
_SOON = 5.0
#: First and longest pause before a failed start is tried again, seconds.
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
#: What a worker may take beyond graceful_timeout to be gone, seconds.
_MERCY = 2.0

_SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGCHLD,
)


class _Child:
    """What the manager knows of one worker."""

    __slots__ = ("deadline", "generation", "message", "pid", "pipe", "ready", "retiring", "started")

    def __init__(self, pid: int, pipe: socket.socket, generation: int) -> None:
        self.pid = pid
        self.pipe = pipe
        self.generation = generation
        self.started = monotonic()
        self.ready = False
        self.retiring = False
        self.deadline = 0.0
        self.message = b""


class Manager:
    """Keeps ``workers`` workers alive on the given listeners."""

    def __init__(
        self,
        settings: Settings,
        listeners: list[Listener],
        log: logging.Logger,
        access: AccessLog | None,
        reread: Callable[[], Settings],
    ) -> None:
        self._settings = settings
        self._listeners = listeners
        self._log = log
        self._access = access
        self._reread = reread
        self._wanted = settings.workers
        self._children: dict[int, _Child] = {}
        self._generation = 1
        self._reloading = False
        #: What a reload that fails goes back to.
        self._before = (settings, settings.workers)
        self._was_ready = False
        self._failures = 0
        self._start_after = 0.0
        self._stopping = False
        self._stop_deadline = 0.0
        self._exit_code = EXIT_OK
        self._signals: list[int] = []
        self._handover = Handover()
        self._selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = socket.socketpair()

    def run(self) -> int:
        """Serve until told to stop; return the exit code.  In a worker it returns too."""
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, self._note)
        for listener in self._listeners:
            self._log.info("listening: %s", listener)
        while self._children or not self._stopping:
            self._balance()
            if not self._children and self._stopping:
                break
            self._wait()
            self._handle_signals()
            self._reap()
            self._check_deadlines()
        self._close()
        return self._exit_code

    def _note(self, number: int, _frame: object) -> None:
        self._signals.append(number)

    def _wait(self) -> None:
        pause = 1.0
        if self._start_after and not self._stopping:
            pause = min(pause, max(0.0, self._start_after - monotonic()))
        for key, _ in self._selector.select(pause):
            if key.fileobj is self._wake_reader:
                with suppress(BlockingIOError):
                    self._wake_reader.recv(4096)
            else:
                self._hear(key.data)

    def _hear(self, child: _Child) -> None:
        """A worker reports, or its end of the pipe closes."""
        try:
            data = child.pipe.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        child.message += data
        if not data:
            self._selector.unregister(child.pipe)
        elif child.message == READY:
            child.ready = self._was_ready = True
            self._log.info("worker %d is ready", child.pid)

    # Signals

    def _handle_signals(self) -> None:
        handlers: dict[int, Callable[[], None]] = {
            signal.SIGTERM: lambda: self._stop(signal.SIGTERM),
            signal.SIGINT: lambda: self._stop(signal.SIGQUIT),
            signal.SIGQUIT: lambda: self._stop(signal.SIGQUIT),
            signal.SIGHUP: self._reload,
            signal.SIGUSR1: self._reopen_logs,
            signal.SIGUSR2: lambda: self._log.warning("SIGUSR2 is ignored: HUP reloads"),
            signal.SIGTTIN: lambda: self._resize(1),
            signal.SIGTTOU: lambda: self._resize(-1),
        }
        while self._signals:
            handler = handlers.get(self._signals.pop(0))
            if handler is not None:
                handler()

    def _stop(self, number: signal.Signals) -> None:
        """TERM: finish, up to graceful_timeout.  INT, QUIT: at once."""
        quick = number == signal.SIGQUIT
        if not self._stopping:
            self._log.info("stopping%s", " at once" if quick else "")
            for listener in self._listeners:
                listener.close(unlink=True)
        self._stopping = True
        grace = _MERCY if quick else self._settings.graceful_timeout + _MERCY
        self._stop_deadline = monotonic() + grace
        for child in self._children.values():
            self._kill(child, number)

    def _reload(self) -> None:
        """HUP: new workers with new code and settings; the old serve until those are ready."""
        if self._stopping:
            return
        try:
            settings = self._reread()
        except Exception as error:  # noqa: BLE001 - a broken file must not end the service
            self._log.error("reload refused, the old settings stay: %s", error)
            return
        self._log.info("reloading")
        if not self._reloading:
            self._before = (self._settings, self._wanted)
        self._settings = settings
        self._wanted = self._settings.workers
        self._generation += 1
        self._reloading = True
        self._start_after = 0.0

    def _reopen_logs(self) -> None:
        reopen(self._log)
        if self._access is not None:
            try:
                self._access.reopen()
            except OSError as error:
                self._log.error("the access log cannot be reopened: %s", error)
        for child in self._children.values():
            self._kill(child, signal.SIGUSR1)

    def _resize(self, step: int) -> None:
        self._wanted = max(1, self._wanted + step)
        self._log.info("%d workers wanted", self._wanted)

    # Workers

    def _balance(self) -> None:
        """Start what is missing and retire what is too many."""
        if self._stopping:
            return
        serving = [child for child in self._children.values() if not child.retiring]
        fresh = [child for child in serving if child.generation == self._generation]
        stale = [child for child in serving if child.generation != self._generation]
        ready = [child for child in fresh if child.ready]
        if monotonic() >= self._start_after:
            self._start_after = 0.0
            missing = self._wanted - len(fresh)
            if stale:  # one at a time; the first is the canary
                missing = min(missing, 1) if len(ready) == len(fresh) else 0
            for _ in range(missing):
                if self._spawn():
                    return
        # Only workers that serve count; what a second reload overtook just goes.
        settled = [child for child in stale if child.ready]
        surplus = settled[: max(0, len(ready) + len(settled) - self._wanted)]
        for child in [child for child in stale if not child.ready] + surplus:
            self._retire(child)
        for child in ready[: max(0, len(fresh) - self._wanted)]:
            self._retire(child)
        if self._reloading and not stale and len(ready) >= self._wanted:
            self._reloading = False
            self._log.info("reloaded: %d workers", len(ready))

    def _retire(self, child: _Child) -> None:
        child.retiring = True
        child.deadline = monotonic() + self._settings.graceful_timeout + _MERCY
        self._kill(child, signal.SIGUSR2)

    def _kill(self, child: _Child, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(child.pid, number)

    def _spawn(self) -> bool:
        """Fork a worker; True in the child after it has served."""
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            return self._cannot_start(error)
        # Until the child has handlers of its own, its signals wait.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = os.fork()
        except OSError as error:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            ours.close()
            theirs.close()
            return self._cannot_start(error)
        if pid == 0:
            self._become_worker(ours, theirs)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        theirs.close()
        ours.setblocking(False)
        child = self._children[pid] = _Child(pid, ours, self._generation)
        self._selector.register(ours, selectors.EVENT_READ, child)
        self._log.info("worker %d starts", pid)
        return False

    def _cannot_start(self, error: OSError) -> bool:
        self._log.error("cannot start a worker: %s", error)
        self._start_after = monotonic() + _FIRST_PAUSE
        return False

    def _become_worker(self, ours: socket.socket, theirs: socket.socket) -> None:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            self._selector.close()
            self._wake_reader.close()
            self._wake_writer.close()
            ours.close()
            for child in self._children.values():
                child.pipe.close()
            settings = replace(self._settings, workers=self._wanted)
            worker = Worker(
                settings,
                self._listeners,
                theirs,
                self._log,
                self._access,
                self._handover,
                Board(settings.threads),
                None,
            )
            worker.take_signals()
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            code = worker.run()
        except BaseException:  # noqa: BLE001 - whatever it is, this process ends here
            self._log.critical("a worker failed", exc_info=True)
        finally:
            with suppress(BaseException):
                sys.stderr.flush()
            os._exit(code)

    def _reap(self) -> None:
        while self._children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._children.pop(pid, None)
            if child is not None:
                self._buried(child, status)

    def _buried(self, child: _Child, status: int) -> None:
        """Log how a worker ended and decide whether to go on."""
        if child.pipe.fileno() in self._selector.get_map():
            self._hear(child)
        with suppress(KeyError):
            self._selector.unregister(child.pipe)
        child.pipe.close()
        code = os.waitstatus_to_exitcode(status)
        if child.retiring or self._stopping:
            level = logging.INFO if code == 0 else logging.ERROR
            self._log.log(level, "worker %d left%s", child.pid, _how(code))
            return
        if child.ready:
            self._log.error("worker %d died%s", child.pid, _how(code))
            if monotonic() - child.started > _SOON:
                self._failures = 0
                return
        else:
            self._failed_start(child, code)
        self._failures += 1
        pause = min(_FIRST_PAUSE * 2 ** (self._failures - 1), _LONGEST_PAUSE)
        self._start_after = monotonic() + pause

    def _failed_start(self, child: _Child, code: int) -> None:
        reason = child.message.removeprefix(FAILED).decode("utf-8", "replace").rstrip()
        for line in (reason or f"it ended{_how(code)}").splitlines():
            self._log.error("worker %d cannot start: %s", child.pid, line)
        if not self._was_ready:
            if not self._stopping:
                self._exit_code = EXIT_LOAD
                self._stop(signal.SIGQUIT)
        elif self._reloading:
            self._abandon_reload()

    def _abandon_reload(self) -> None:
        """The new code does not start: the old workers are the current ones again."""
        if not any(child.generation != self._generation for child in self._children.values()):
            return
        self._reloading = False
        self._settings, self._wanted = self._before
        self._log.error("reload failed, the old workers go on serving")
        for child in self._children.values():
            child.generation = self._generation

    def _check_deadlines(self) -> None:
        now = monotonic()
        for child in list(self._children.values()):
            overdue = child.deadline and now > child.deadline
            if overdue or (self._stopping and now > self._stop_deadline):
                self._log.error("worker %d does not leave: killed", child.pid)
                self._kill(child, signal.SIGKILL)
            elif not child.ready and now - child.started > self._settings.startup_timeout:
                child.message = b"it was not ready within startup_timeout"
                self._kill(child, signal.SIGKILL)

    def _close(self) -> None:
        self._log.info("stopped")
        self._selector.close()


def _how(code: int) -> str:
    if code < 0:
        try:
            return f" by signal {signal.Signals(-code).name}"
        except ValueError:  # a real-time signal has no name
            return f" by signal {-code}"
    return f" with exit code {code}" if code else ""
