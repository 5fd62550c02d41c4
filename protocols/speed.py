"""The compiled inner loops, where they are built; see ``_speed.c``.

Each of them gives None for what it leaves to the codec, which does it in
Python; without the module that is everything.  ``GATEWAY_PURE=1`` in the
environment leaves the module out.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from protocols.builds import WANTED

#: Number, flags, variables without the foreign names, body.
WholeRequest = tuple[int, int, dict[str, str], bytes]
Pairs = Callable[[bytes], dict[str, str] | None]


def _not_compiled(block: bytes) -> None:
    del block


def _no_request(data: bytes, foreign: frozenset[str], base: dict[str, Any] | None = None) -> None:
    del data, foreign, base


def _no_variables(data: bytes, base: dict[str, Any] | None = None) -> None:
    del data, base


def _no_answer(number: int, head: bytes, data: bytes) -> None:
    del number, head, data


fastcgi_answer: Callable[[int, bytes, bytes], bytes | None] = _no_answer
fastcgi_request: Callable[[bytes, frozenset[str], dict[str, Any]], WholeRequest | None] = (
    _no_request
)
scgi_request: Callable[[bytes, frozenset[str], dict[str, Any]], dict[str, str] | None] = _no_request
uwsgi_request: Callable[[bytes, dict[str, Any]], dict[str, str] | None] = _no_variables
fastcgi_pairs: Pairs = _not_compiled
scgi_pairs: Pairs = _not_compiled
uwsgi_pairs: Pairs = _not_compiled

if WANTED:
    with suppress(ImportError):  # no compiler was there when this was installed
        from protocols import _speed

        fastcgi_answer = _speed.fastcgi_answer
        fastcgi_request = _speed.fastcgi_request
        fastcgi_pairs = _speed.fastcgi_pairs
        scgi_request = _speed.scgi_request
        uwsgi_request = _speed.uwsgi_request
        scgi_pairs = _speed.scgi_pairs
        uwsgi_pairs = _speed.uwsgi_pairs

#: Whether they are there.
COMPILED: Final = fastcgi_pairs is not _not_compiled
