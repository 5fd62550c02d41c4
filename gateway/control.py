"""The manager's control socket: a word in, the outcome out.

A client sends one line with a command; the answer is one line ``ok`` or
``failed`` and a text up to the end of the connection, which may take as long as
the command does.  The socket's file mode (0600) says who may ask.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
from collections.abc import Callable
from contextlib import suppress

from gateway.sockets import BindError, remove_stale

_MOST_COMMAND = 256
_BACKLOG = 16
_OK = "ok"
_FAILED = "failed"

#: Clients at once; more wait in the backlog's place.
_MOST_CLIENTS = 64


class ControlError(Exception):
    """Nobody answers on a control socket; the message is for the user."""


class Client:
    """One connection that waits for the outcome of its command."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = b""

    def fileno(self) -> int:
        """The descriptor to wait on."""
        return self.sock.fileno()

    def tell(self, ok: bool, text: str) -> None:
        """Answer and close.  A client that went away is no concern."""
        with suppress(OSError):
            self.sock.settimeout(1.0)
            answer = f"{_OK if ok else _FAILED}\n{text}\n"
            self.sock.sendall(answer.encode("utf-8", "backslashreplace"))
        self.close()

    def close(self) -> None:
        """Close without an answer."""
        self.sock.close()


class Control:
    """The listening end, in the manager's selector.

    ``run(command, client)`` is called for each whole line; whoever gets the
    client answers it in time.
    """

    def __init__(
        self,
        path: str,
        selector: selectors.BaseSelector,
        run: Callable[[str, Client], None],
        log: logging.Logger,
    ) -> None:
        self.path = path
        self._selector = selector
        self._run = run
        self._sock: socket.socket | None = None
        self._clients: set[Client] = set()
        try:
            self._sock = _listen(path)
        except (OSError, BindError) as error:
            # A read-only folder is a reason to do without, not to stop.
            log.warning("no control socket at %s: %s", path, error)
            return
        selector.register(self._sock, selectors.EVENT_READ, self._accept)

    def move(self, path: str) -> None:
        """Be reachable under another name.  Raises OSError."""
        if self._sock is not None:
            os.rename(self.path, path)
        self.path = path

    def close(self, *, unlink: bool) -> None:
        """Close all of it; ``unlink``: the file goes too."""
        for client in self._clients:
            client.close()
        self._clients.clear()
        if self._sock is not None:
            self._sock.close()
            self._sock = None
            if unlink:
                with suppress(OSError):
                    os.unlink(self.path)

    def _accept(self) -> None:
        assert self._sock is not None
        try:
            sock, _ = self._sock.accept()
        except OSError:
            return
        if len(self._clients) >= _MOST_CLIENTS:
            Client(sock).tell(False, "too many ask at once")
            return
        sock.setblocking(False)
        client = Client(sock)
        self._clients.add(client)
        self._selector.register(sock, selectors.EVENT_READ, lambda: self._read(client))

    def _read(self, client: Client) -> None:
        try:
            data = client.sock.recv(_MOST_COMMAND)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        client.received += data
        if data and b"\n" not in client.received and len(client.received) < _MOST_COMMAND:
            return
        self._selector.unregister(client.sock)
        self._clients.discard(client)
        if not data:
            client.close()
            return
        self._run(client.received.partition(b"\n")[0].decode("utf-8", "replace").strip(), client)


def _listen(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        remove_stale(path)
        umask = os.umask(0o177)
        try:
            sock.bind(path)
        finally:
            os.umask(umask)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def ask(path: str, command: str, timeout: float) -> tuple[bool, str]:
    """Send ``command`` and wait up to ``timeout`` seconds for its outcome.

    Returns whether it succeeded, and the text that goes with it.  Raises
    ControlError.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout)
        answer = b""
        try:
            sock.connect(path)
            sock.sendall(f"{command}\n".encode())
            while data := sock.recv(65536):
                answer += data
        except TimeoutError:
            raise ControlError(f"no outcome of {command} within {timeout:g} seconds") from None
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ControlError(f"no gateway answers on {path}: {reason}") from None
    word, _, text = answer.decode("utf-8", "replace").partition("\n")
    if word not in (_OK, _FAILED):
        raise ControlError(f"the gateway on {path} ended before the outcome of {command}")
    return word == _OK, text.rstrip("\n")
