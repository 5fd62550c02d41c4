"""The template: a process that loads the application once and forks workers.

The manager stays free of the application's code.  A worker is forked twice:
its parent in between ends at once, so that the manager, which takes in orphans
(prctl(2), PR_SET_CHILD_SUBREAPER), becomes its parent and learns how it ends.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import stat
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from gateway.errorlog import reopen
from gateway.loader import LoadError

#: What the manager sends with the descriptors of a new worker's pipe and board.
_FORK = b"fork\n"

_IGNORED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR2,
    signal.SIGWINCH,
    signal.SIGTTIN,
    signal.SIGTTOU,
)

#: How often a worker looks whether its parent in between has ended, seconds.
_ADOPTION_POLL = 0.001

_Loaded = TypeVar("_Loaded")


def request_worker(pipe: socket.socket, descriptors: list[int], number: int) -> None:
    """The manager's side: have the template fork worker ``number``.  Raises OSError."""
    socket.send_fds(pipe, [b"%d " % number + _FORK], descriptors)


def serve_as_template(
    pipe: socket.socket,
    load: Callable[[], _Loaded],
    become_worker: Callable[[_Loaded, list[int], int], None],
    log: logging.Logger,
) -> int:
    """Load the application and fork workers until the manager closes ``pipe``.

    ``become_worker(loaded, descriptors, number)``, with what ``load`` returned, runs
    in a new process and does not return.  Returns the exit code of the template.
    """
    for number in _IGNORED:  # a handler, unlike SIG_IGN, is not inherited by what is executed
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGUSR1, lambda *_: reopen(log))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    before = _sockets()
    try:
        loaded = load()
    except BaseException as error:  # noqa: BLE001 - SystemExit in user code too
        text = str(error) if isinstance(error, LoadError) else traceback.format_exc()
        with suppress(OSError):
            pipe.sendall(b"failed\n" + text.encode("utf-8", "backslashreplace"))
        return 3
    for hazard in _hazards(before):
        log.warning("preload_app: the import left %s", hazard)
    # Collected now and never looked at again: the collector would write to
    # every page that the workers share.
    gc.collect()
    gc.freeze()
    pipe.sendall(b"ready\n")
    while True:
        message, descriptors, _, _ = socket.recv_fds(pipe, 64, 2)
        if not message:
            return 0
        _fork_worker(pipe, loaded, become_worker, list(descriptors), int(message.split()[0]))
        for descriptor in descriptors:
            os.close(descriptor)


def _fork_worker(
    pipe: socket.socket,
    loaded: _Loaded,
    become_worker: Callable[[_Loaded, list[int], int], None],
    descriptors: list[int],
    number: int,
) -> None:
    between = os.fork()
    if between:
        os.waitpid(between, 0)
        return
    code = 1
    try:
        between = os.getpid()
        if os.fork():
            code = 0
            return
        pipe.close()
        while os.getppid() == between:
            time.sleep(_ADOPTION_POLL)
        become_worker(loaded, descriptors, number)
    except BaseException:  # noqa: BLE001 - whatever it is, this process ends here
        traceback.print_exc()
    finally:
        os._exit(code)


def _hazards(before: dict[int, str]) -> list[str]:
    """Threads and sockets that the application's import left, in words."""
    found = [
        f"the thread {thread.name!r} running: it does not exist in the workers"
        for thread in threading.enumerate()
        if thread is not threading.main_thread()
    ]
    foreign = _threads() - threading.active_count()
    if foreign > 0:
        found.append(f"{foreign} threads of native code running: they do not exist in the workers")
    found += [
        f"the socket {number} ({name}) open: all workers share it"
        for number, name in _sockets().items()
        if before.get(number) != name
    ]
    return found


def _threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 0


def _sockets() -> dict[int, str]:
    """Open sockets and where they lead."""
    found: dict[int, str] = {}
    try:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        return found
    for number in numbers:
        try:
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
            with socket.socket(fileno=os.dup(number)) as sock:
                found[number] = _ends(sock)
        except OSError:
            continue  # the listing's own descriptor, or no socket that Python knows
    return found


def _ends(sock: socket.socket) -> str:
    name = sock.getsockname()
    try:
        return f"{name} to {sock.getpeername()}"
    except OSError:
        return str(name)


def supported() -> bool:
    """Whether orphans become the manager's children here."""
    return sys.platform.startswith("linux")
