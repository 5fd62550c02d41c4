"""What a child that the application forks must not keep: our sockets, and our loop.

``subprocess`` does not come by here (its children execute at once), children of
``multiprocessing`` and of ``os.fork`` do.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from gateway.answer import EXPIRED

if TYPE_CHECKING:
    from gateway.worker import Worker

#: Signals that mean something else to a manager or a worker than to any other process.
SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGWINCH,
)


#: The masks of threads that are about to fork.
_masks = threading.local()


def guard(worker: Worker) -> None:
    """Have children that the application forks let go of what is the worker's."""
    os.register_at_fork(
        before=partial(_hold_signals, worker),
        after_in_parent=partial(_release_signals, worker),
        after_in_child=partial(_let_go, worker),
    )


def _hold_signals(worker: Worker) -> None:
    """A signal to the child must wait until it has handlers of its own.

    Ours would swallow it, and tell it to the parent by the wake-up pair.
    """
    if not worker.is_fork:
        _masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _release_signals(worker: Worker) -> None:
    if not worker.is_fork:
        signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)


def _let_go(worker: Worker) -> None:
    """In the child."""
    if worker.is_fork:
        return
    worker.is_fork = True
    ident = threading.get_ident()
    for seat in worker.seats.taken:
        if seat.ident == ident and seat.exchange is not None:
            # Where it comes back into the server's code it ends; see Exchange._settle.
            seat.exchange.expired = EXPIRED
    worker.let_go()
    with suppress(ValueError):  # not the main thread, on systems where that stays the old one
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            if worker.orders.is_own_handler(signal.getsignal(number)):
                signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)
