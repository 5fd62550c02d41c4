"""USR2: another manager takes over the listening sockets, with whatever is installed by now.

The running manager forks and executes the same command line again.  Its
listening sockets, and the queue of FastCGI connections that change hands, keep
their descriptor numbers; what they are is told in one environment variable.
Both managers serve until the operator stops one of them: TERM to the old one
completes the upgrade, TERM to the new one takes it back.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
from collections.abc import MutableMapping, Sequence
from typing import Any

from gateway.control import Control
from gateway.handover import Handover
from gateway.pidfile import SUFFIX, Pidfile
from gateway.settings import Settings
from gateway.sockets import Listener, inherit

_VARIABLE = "GATEWAY_INHERITED"

#: The exit code that a shell gives a command that cannot be executed.
_CANNOT_EXECUTE = 126


class Succession:
    """The managers before and after this one, and what passes between them.

    ``folder`` is where the command line was given.  Raises BindError if an
    inherited descriptor is not what it is said to be.
    """

    def __init__(self, folder: str, environ: MutableMapping[str, str]) -> None:
        self._folder = folder
        self._pidfile: Pidfile | None = None
        self._control_name = ""
        #: Process id of the manager that started this one to be replaced by it, or 0.
        self._predecessor = 0
        #: Process id of the manager that this one started, or 0.
        self.successor = 0
        self.listeners: list[Listener] = []
        self.handover: Handover | None = None
        text = environ.pop(_VARIABLE, "")
        if text:
            self._inherit(json.loads(text))

    def _inherit(self, told: dict[str, Any]) -> None:
        self._predecessor = told["pid"]
        self.handover = Handover(*told["handover"])
        self.listeners = [
            Listener(inherit(item["fd"]), item["protocol"], item["path"], item["key"])
            for item in told["listeners"]
        ]

    @property
    def _pending(self) -> bool:
        """Whether the manager before this one still runs: it is our parent."""
        return self._predecessor != 0 and os.getppid() == self._predecessor

    @property
    def others_serve(self) -> bool:
        """Whether another manager serves on the same sockets."""
        return self.successor != 0 or self._pending

    def _suffix(self) -> str:
        return SUFFIX if self._predecessor else ""

    def write_pidfile(self, path: str) -> None:
        """Write the pidfile, beside that of the manager before this one.  Raises BindError."""
        self._pidfile = Pidfile(path + self._suffix())
        self._pidfile.write()

    def remove_pidfile(self) -> None:
        """Remove it, unless a successor is about to put its own in its place."""
        if self._pidfile is not None and not self.successor:
            self._pidfile.remove()

    def control_path(self, settings: Settings) -> str:
        """Where the control socket is to be; empty: nowhere."""
        if settings.control_socket:
            self._control_name = os.path.abspath(settings.control_socket)
        elif settings.pidfile:
            self._control_name = os.path.abspath(settings.pidfile) + ".ctl"
        return self._control_name and self._control_name + self._suffix()

    def promote(self, log: logging.Logger, control: Control | None) -> bool:
        """Take the place of the manager before this one, if it has gone just now."""
        if not self._predecessor or self._pending:
            return False
        log.info("manager %d is gone: this one has its place", self._predecessor)
        self._predecessor = 0
        try:
            if self._pidfile is not None:
                self._pidfile.move(self._pidfile.path.removesuffix(SUFFIX))
            if control is not None:
                control.move(self._control_name)
        except OSError as error:
            log.error("the pidfile or control socket cannot be renamed: %s", error)
        return True

    def start(
        self, listeners: Sequence[Listener], handover: Handover, environ: dict[str, str]
    ) -> int:
        """Fork and execute this command line again; return the process id.

        Raises OSError if there can be no process.
        """
        told = {
            "pid": os.getpid(),
            "handover": handover.numbers,
            "listeners": [
                {
                    "fd": listener.sock.fileno(),
                    "protocol": listener.protocol,
                    "path": listener.path,
                    "key": listener.key,
                }
                for listener in listeners
            ],
        }
        variables = {**environ, _VARIABLE: json.dumps(told)}
        numbers = [listener.sock.fileno() for listener in listeners] + handover.numbers
        pid = os.fork()
        if pid == 0:
            _execute(self._folder, numbers, variables)
        self.successor = pid
        return pid


def _execute(folder: str, numbers: Sequence[int], variables: dict[str, str]) -> None:
    try:
        signal.set_wakeup_fd(-1)
        os.chdir(folder)
        for number in numbers:
            os.set_inheritable(number, True)
        if "LISTEN_FDS" in variables:  # socket activation is for one process id
            variables["LISTEN_PID"] = str(os.getpid())
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], variables)  # noqa: S606
    except OSError as error:
        os.write(2, f"gateway: the new manager cannot be executed: {error}\n".encode())
    finally:
        os._exit(_CANNOT_EXECUTE)
