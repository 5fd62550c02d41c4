"""Waiting for sockets: epoll, or whatever ``selectors`` has where there is no epoll.

Both are level-triggered and report ``(descriptor, events)``.
"""

from __future__ import annotations

import select
import selectors
from contextlib import suppress
from typing import Final

READ: Final = 1
WRITE: Final = 4

#: A signal or another thread ends the wait at once; this bounds it all the same.
_MOST_EVENTS: Final = 256


class EpollPoller:
    """Linux; a shared listening socket wakes one worker only."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self.register = self._epoll.register
        self.modify = self._epoll.modify
        self.unregister = self._epoll.unregister

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        """Wait up to ``timeout`` seconds."""
        return self._epoll.poll(timeout, _MOST_EVENTS)

    def register_listener(self, number: int) -> None:
        """Wait for connections on a socket that other workers wait on too."""
        self._epoll.register(number, READ | select.EPOLLEXCLUSIVE)

    def close(self) -> None:
        self._epoll.close()


class SelectorsPoller:
    """Everywhere else (kqueue, poll)."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def register(self, number: int, events: int) -> None:
        if events:
            self._selector.register(number, _to_selectors(events))

    def modify(self, number: int, events: int) -> None:
        """Unlike ``selectors``, take 0 for waiting on nothing."""
        self.unregister(number)
        self.register(number, events)

    def unregister(self, number: int) -> None:
        with suppress(KeyError):
            self._selector.unregister(number)

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        """Wait up to ``timeout`` seconds."""
        return [
            (
                key.fd,
                (READ if events & selectors.EVENT_READ else 0)
                | (WRITE if events & selectors.EVENT_WRITE else 0),
            )
            for key, events in self._selector.select(timeout)
        ]

    def register_listener(self, number: int) -> None:
        self.register(number, READ)

    def close(self) -> None:
        self._selector.close()


def _to_selectors(events: int) -> int:
    return (selectors.EVENT_READ if events & READ else 0) | (
        selectors.EVENT_WRITE if events & WRITE else 0
    )


Poller = EpollPoller | SelectorsPoller


def make_poller(name: str) -> Poller:
    """``auto`` takes epoll where there is one; ``epoll`` raises OSError where there is none."""
    if name == "selectors" or (name == "auto" and not hasattr(select, "epoll")):
        return SelectorsPoller()
    if not hasattr(select, "epoll"):
        raise OSError("this system has no epoll")
    return EpollPoller()
