"""What a worker does when it, or a thread of it, has had its time."""

from __future__ import annotations

import logging
import os
import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.worker import Worker
    from gateway.wsgi import Exchange

#: The exit code of a worker that cannot go on.
EXIT_BROKEN = 4

_MOST_REASON = 200


class Replacing:
    """Asks the manager for a successor, and finds a substitute for a thread."""

    def __init__(self, worker: Worker, pipe: socket.socket) -> None:
        self._worker = worker
        self._pipe = pipe
        self._asked = False

    def wear_out(self) -> None:
        """The request that begins is the last but for those until a successor is there."""
        self._ask_for_successor(f"max_requests reached: {self._worker.last_serial}")

    def _ask_for_successor(self, reason: str) -> None:
        """Tell the manager, once; serve until it says otherwise.  From any thread."""
        if self._asked:
            return
        self._asked = True
        text = "".join(char if char.isprintable() else "?" for char in reason[:_MOST_REASON])
        with suppress(OSError):
            self._pipe.sendall(b"replace %b\n" % text.encode("utf-8", "backslashreplace"))

    def replace_thread(self, exchange: Exchange) -> None:
        """The thread of ``exchange`` is stuck: have another serve in its place."""
        worker = self._worker
        environ = exchange.request.environ
        method, uri = environ.get("REQUEST_METHOD", "-"), environ.get("REQUEST_URI", "-")
        self._ask_for_successor(f"a request is stuck: {method} {uri}")
        if worker.pool is not None:
            worker.pool.gave_up()
            return
        seat = worker.seats.take()
        try:
            if seat is None:
                raise RuntimeError("no seat is left")  # noqa: TRY301 - one way out
            threading.Thread(target=worker.go_on, args=(seat,), daemon=True).start()
        except RuntimeError as error:
            worker.log.critical("nobody can take over from a stuck thread: %s", error)
            logging.shutdown()
            os._exit(EXIT_BROKEN)
