"""The master process: signals, commands, and the loop that watches the workers.

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
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, sleep

from gateway import deferral
from gateway.accesslog import AccessLog
from gateway.burial import how
from gateway.child import Generation
from gateway.control import Client, Control
from gateway.errorlog import reopen
from gateway.fleet import EXIT_LOAD, MERCY, Fleet
from gateway.handover import Handover
from gateway.linux import become_subreaper
from gateway.process import set_title
from gateway.scaling import PRESSURE
from gateway.settings import Settings
from gateway.sockets import Listener
from gateway.sources import Resolved
from gateway.spawning import SIGNALS, Spawner
from gateway.succession import Succession
from gateway.systemd import Notifier

EXIT_OK = 0

#: Settings that a reload does not change, each tied to what the manager has open.
_FIXED = (
    *("bind", "protocol", "backlog", "accesslog", "access_log_format", "errorlog", "loglevel"),
    *("pidfile", "control_socket", "chdir", "umask", "defer_accept"),
)

#: How long it takes at most to notice what nothing reports, seconds.
_TICK = 1.0


class Manager:
    """Keeps a fleet of workers on the given listeners."""

    def __init__(
        self,
        resolved: Resolved,
        listeners: list[Listener],
        log: logging.Logger,
        access: AccessLog | None,
        reread: Callable[[], Resolved],
        succession: Succession,
    ) -> None:
        self._listeners = listeners
        self._log = log
        self._access = access
        self._reread = reread
        self._succession = succession
        self._handover = succession.handover or Handover()
        self._notifier = Notifier(os.environ)
        self._exit_code = EXIT_OK
        self._signals: list[int] = []
        self._selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._control: Control | None = None
        self._spawner = Spawner(listeners, log, access, self._handover, self._disown)
        self._fleet = Fleet(
            Generation(1, resolved.settings, resolved.hooks, tls=resolved.tls),
            self._spawner,
            listeners,
            self._selector,
            log,
            access,
            self._news,
            self._hook,
        )

    def run(self) -> int:
        """Serve until told to stop; return the exit code."""
        fleet = self._fleet
        settings = fleet.generation.settings
        set_title("master", settings.proc_name or settings.wsgi_app)
        become_subreaper()
        self._take_signals()
        path = self._succession.control_path(settings)
        if path:
            self._control = Control(path, self._selector, self._command, self._log)
        for listener in self._listeners:
            self._log.info("listening: %s", listener)
        if not self._server_hook("on_starting"):
            self._exit_code = EXIT_LOAD
            self._stop(signal.SIGQUIT)
        while fleet.children or not fleet.stopping:
            try:
                self._turn()
            except Exception:  # noqa: BLE001 - logged, and tried again
                # A fault of ours must not take the service down with it.
                self._log.critical("a fault of the server", exc_info=True)
                sleep(_TICK)
        self._server_hook("on_exit")
        self._log.info("stopped")
        self._close()
        return self._exit_code

    def _turn(self) -> None:
        self._fleet.balance()
        self._wait()
        self._handle_signals()
        self._reap()
        self._fleet.review()
        self._notifier.watchdog()
        if self._succession.promote(self._log, self._control):
            self._notifier.ready("Serving")

    def _take_signals(self) -> None:
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ, self._drain)
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, lambda number, _: self._signals.append(number))

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            self._wake_reader.recv(4096)

    def _wait(self) -> None:
        fleet = self._fleet
        pause = PRESSURE if fleet.scaling.varies and fleet.workers() else _TICK
        pause = min(pause, self._notifier.pause or pause)
        if fleet.start_after and not fleet.stopping:
            pause = min(pause, max(0.0, fleet.start_after - monotonic()))
        for key, _ in self._selector.select(pause):
            if key.fd in self._selector.get_map():  # not closed by one before it
                key.data()

    def _reap(self) -> None:
        """Also orphans, which nobody else would (prctl(2), PR_SET_CHILD_SUBREAPER)."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            if pid == self._succession.successor:
                self._succession.successor = 0
                self._log.error("manager %d ended%s: this one goes on", pid, how(code))
            else:
                self._fleet.reaped(pid, code)

    # Hooks and news

    def _hook(self, generation: Generation, name: str, *arguments: object) -> bool:
        """Call a hook; False if it failed, which is logged."""
        try:
            generation.hooks.call(name, *arguments)
        except BaseException:  # noqa: BLE001 - SystemExit of a hook must not end the service
            self._log.error("the hook %s failed", name, exc_info=True)
            return False
        return True

    def _server_hook(self, name: str, *arguments: object) -> bool:
        generation = self._fleet.generation
        return self._hook(generation, name, self._spawner.server_view(generation), *arguments)

    def _news(self, kind: str, text: str) -> None:
        """What becomes of the fleet."""
        if kind == "failed":
            self._exit_code = EXIT_LOAD
            self._stop(signal.SIGQUIT)
        elif kind == "abandoned":
            self._notifier.ready("Serving; the last reload failed")
        else:
            if kind == "settled":
                self._server_hook("when_ready")
            self._notifier.ready(f"Serving, {text}")

    # Signals and commands

    def _handle_signals(self) -> None:
        handlers: dict[int, Callable[[], None]] = {
            signal.SIGTERM: lambda: self._stop(signal.SIGTERM),
            signal.SIGINT: lambda: self._stop(signal.SIGQUIT),
            signal.SIGQUIT: lambda: self._stop(signal.SIGQUIT),
            signal.SIGHUP: self._reload,
            signal.SIGUSR1: self._reopen_logs,
            signal.SIGUSR2: self._start_successor,
            signal.SIGWINCH: self._rest,
            signal.SIGTTIN: lambda: self._resize(1),
            signal.SIGTTOU: lambda: self._resize(-1),
        }
        while self._signals:
            handler = handlers.get(self._signals.pop(0))
            if handler is not None:
                handler()

    def _command(self, command: str, client: Client) -> None:
        """A line on the control socket."""
        if command == "reload":
            self._reload(client)
        else:
            client.tell(False, f"there is no command {command!r}; there is reload")

    def _stop(self, number: signal.Signals) -> None:
        """TERM: finish, up to graceful_timeout.  INT, QUIT: at once."""
        fleet = self._fleet
        quick = number == signal.SIGQUIT
        goes_on = self._succession.others_serve
        if not fleet.stopping:
            self._log.info("stopping%s", " at once" if quick else "")
            if self._succession.successor:
                self._notifier.main_pid(self._succession.successor)
            else:
                self._notifier.stopping()
        if goes_on and not quick:
            number = signal.SIGUSR2  # connections pass to the others' workers
        elif not goes_on and not fleet.stopping:
            deferral.end(self._listeners, lambda: bool(self._signals))
        # Before the workers take what is in the backlog: nothing may come after it.
        fleet.close_listeners(unlink=not goes_on)
        grace = MERCY if quick else fleet.generation.settings.graceful_timeout + MERCY
        fleet.stop(number, grace)
        fleet.reloading.fail("the service stops")

    def _reload(self, client: Client | None = None) -> None:
        """HUP: new workers with new code and settings; the old serve until those are ready."""
        fleet = self._fleet
        if fleet.stopping:
            if client is not None:
                client.tell(False, "the service stops")
            return
        try:
            resolved = self._reread()
        except Exception as error:  # noqa: BLE001 - a broken file must not end the service
            self._log.error("reload refused, the old settings stay: %s", error)
            if client is not None:
                client.tell(False, f"refused, the old settings stay: {error}")
            return
        changed = _changed(fleet.generation.settings, resolved.settings)
        if changed:
            names = ", ".join(changed)
            self._log.warning("a reload does not change %s: upgrade (USR2) or restart", names)
        self._log.info("reloading")
        self._notifier.reloading()
        fleet.reloading.begin(fleet.generation, fleet.scaling, client)
        number = fleet.generation.number + 1
        tls = resolved.tls or fleet.generation.tls  # the binds need it, and stay what they are
        fleet.renew(Generation(number, resolved.settings, resolved.hooks, tls=tls))
        self._server_hook("on_reload")

    def _reopen_logs(self) -> None:
        reopen(self._log)
        if self._access is not None:
            try:
                self._access.reopen()
            except OSError as error:
                self._log.error("the access log cannot be reopened: %s", error)
        for child in self._fleet.children:
            self._fleet.kill(child, signal.SIGUSR1)

    def _resize(self, step: int) -> None:
        scaling = self._fleet.scaling
        before = scaling.wanted
        scaling.resize(step)
        self._log.info("%d workers wanted", scaling.wanted)
        self._server_hook("nworkers_changed", scaling.wanted, before)

    def _rest(self) -> None:
        """WINCH: the workers leave, the manager stays; HUP brings them back."""
        if _on_terminal():
            return  # the window of its terminal was resized
        self._log.info("resting: the workers leave, HUP starts new ones")
        self._fleet.rest(others_serve=self._succession.others_serve)

    def _start_successor(self) -> None:
        """USR2: another manager, with this one's sockets and whatever code there is by now."""
        if self._fleet.stopping or self._succession.others_serve:
            self._log.warning("SIGUSR2 is ignored: another manager serves beside this one")
            return
        if not self._server_hook("pre_exec"):
            return
        variables = dict(os.environ)
        self._notifier.restore(variables)
        try:
            pid = self._succession.start(self._listeners, self._handover, variables)
        except OSError as error:
            self._log.error("the new manager cannot be started: %s", error)
            return
        self._log.info("manager %d starts beside this one", pid)

    # Closing

    def _disown(self) -> None:
        """In a child: close what is the manager's alone."""
        self._selector.close()
        self._wake_reader.close()
        self._wake_writer.close()
        self._fleet.reloading.disown()
        if self._control is not None:
            self._control.close(unlink=False)
        for child in self._fleet.children:
            child.close()

    def _close(self) -> None:
        if self._control is not None:
            self._control.close(unlink=not self._succession.successor)
        self._selector.close()


def _changed(old: Settings, new: Settings) -> list[str]:
    """The settings that differ and should not."""
    names = [name for name in _FIXED if getattr(old, name) != getattr(new, name)]
    if bool(old.certfile) != bool(new.certfile):  # else it is another certificate
        names.append("certfile")
    return names


def _on_terminal() -> bool:
    """Whether this process is in the foreground of a terminal."""
    try:
        number = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(number) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(number)
