"""What the service manager is told: sd_notify(3), without its library.

systemd hands a service the name of a datagram socket in NOTIFY_SOCKET and
reads assignments from it: the service is ready, reloads, stops, lives.  The
rule here: telling must never hurt the service.  Nothing raises, nothing waits;
what the socket does not take now is sent before the next message.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from contextlib import suppress

_NAMES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")

#: Bytes of a status text; systemd reads 4096 in all and then drops the whole message.
_STATUS_MAX = 2048


class Notifier:
    """Tells the service manager what becomes of this process; without one it does nothing.

    The variables are taken out of ``environ``, so that neither a worker nor
    what an application starts can speak for the service.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        self._variables = {name: environ.pop(name) for name in _NAMES if name in environ}
        self._address = _address(self._variables.get("NOTIFY_SOCKET", ""))
        #: What could not be sent yet, by the name of its first assignment: the last word counts.
        self._waiting: dict[str, bytes] = {}
        period = _watchdog_period(self._variables) if self._address else 0.0
        #: sd_watchdog_enabled(3) asks for a sign of life in half the time.
        self._interval = period / 2
        self._due = 0.0

    @property
    def pause(self) -> float | None:
        """Seconds at most between two calls of ``watchdog``; None: as many as one likes.

        Half the interval: a call just before a sign of life is due and the
        next one together take three quarters of what systemd allows.
        """
        return self._interval / 2 if self._interval else None

    def restore(self, environ: MutableMapping[str, str]) -> None:
        """Put the variables back, for the program that this process starts in its place.

        The watchdog is then the business of whichever process that will be,
        so WATCHDOG_PID stays away.
        """
        environ.update(self._variables)
        environ.pop("WATCHDOG_PID", None)

    def ready(self, status: str = "") -> None:
        """The service answers requests; also the end of a reload, good or bad."""
        self._send("READY=1", *_status(status))

    def reloading(self) -> None:
        """A reload begins; ``ready`` ends it.

        The time lets systemd (253 and later) tell this reload from an earlier one.
        """
        self._send(
            "RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", *_status("Reloading")
        )

    def stopping(self) -> None:
        """The service is about to end."""
        self._send("STOPPING=1", *_status("Stopping"))

    def status(self, text: str) -> None:
        """One line for ``systemctl status``."""
        self._send(*_status(text or " "))

    def main_pid(self, pid: int) -> None:
        """Another process is the service from now on; only the present one may say so."""
        self._send(f"MAINPID={pid}")

    def watchdog(self) -> None:
        """Give a sign of life if one is due, and send what could not be sent before."""
        if self._interval:
            now = time.monotonic()
            if now >= self._due:
                self._due = now + self._interval
                self._send("WATCHDOG=1")
                return
        if self._waiting:
            self._flush()

    def _send(self, *assignments: str) -> None:
        if not self._address:
            return
        name = assignments[0].partition("=")[0]
        self._waiting.pop(name, None)
        self._waiting[name] = "\n".join(assignments).encode("utf-8", "replace")
        self._flush()

    def _flush(self) -> None:
        """A socket for each time: none is left open that a worker could inherit or close."""
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(self._address)
            for name, message in list(self._waiting.items()):
                sock.send(message)
                del self._waiting[name]


def _address(text: str) -> str:
    """The socket's name as the system takes it; empty if there is none that we can use."""
    if text.startswith("@"):  # abstract: no file
        return "\0" + text[1:]
    # vsock: is how a virtual machine speaks to its host; not our case.
    return text if text.startswith("/") else ""


def _watchdog_period(variables: MutableMapping[str, str]) -> float:
    """Seconds after which systemd takes this process for dead; 0 if it does not care."""
    if variables.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0  # meant for a process that started us
    text = variables.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isascii() and text.isdigit() else 0.0


def _status(text: str) -> tuple[str, ...]:
    """An assignment is one line."""
    line = " ".join(text.split("\n")).encode("utf-8", "replace")[:_STATUS_MAX]
    return (f"STATUS={line.decode('utf-8', 'ignore')}",) if line else ()
