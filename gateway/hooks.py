"""Functions of the user's that are called at fixed moments, and what they are shown.

Names and arguments are gunicorn's, so that its configuration files go on
working; ``ready`` is our own.  Hooks see views, never the server's own objects:
a view carries what there is to know, takes attributes that a hook sets on it,
and nothing that is done to it reaches the server.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from gateway.environ import Environ, rebuilt_uri, split_uri
from gateway.kinds import SettingError

Hook = Callable[..., Any]

#: Every hook and its arguments; docs/reference/hooks.md says when each is called.
HOOKS: dict[str, tuple[str, ...]] = {
    "on_starting": ("server",),
    "on_reload": ("server",),
    "when_ready": ("server",),
    "pre_fork": ("server", "worker"),
    "post_fork": ("server", "worker"),
    "post_worker_init": ("worker",),
    "ready": ("worker",),
    "worker_exit": ("server", "worker"),
    "child_exit": ("server", "worker"),
    "pre_request": ("worker", "req"),
    "post_request": ("worker", "req", "environ", "resp"),
    "on_exit": ("server",),
    "pre_exec": ("server",),
    "nworkers_changed": ("server", "new", "old"),
}


class Hooks:
    """The hooks of one configuration."""

    def __init__(self, functions: Mapping[str, Hook], source: str = "") -> None:
        """``source`` is the file they are from.  Raises SettingError."""
        self._functions = {
            name: _fitting(name, function, source) for name, function in functions.items()
        }

    def get(self, name: str) -> Hook | None:
        """The hook, to be called with the arguments in ``HOOKS``, or None."""
        return self._functions.get(name)

    def call(self, name: str, *arguments: Any) -> Any:
        """Call the hook if there is one; what it raises is the caller's to judge."""
        function = self._functions.get(name)
        return None if function is None else function(*arguments)


def _fitting(name: str, function: Hook, source: str) -> Hook:
    """The hook as it is called here.  Raises SettingError."""
    wanted = HOOKS[name]
    allowed = f"a function that is called with ({', '.join(wanted)}) is allowed"
    if not callable(function):
        raise SettingError(name, function, allowed, source)
    if inspect.iscoroutinefunction(function):
        raise SettingError(name, function, f"{allowed}; this one is async", source)
    try:
        signature = inspect.signature(function)
    except ValueError:  # a builtin that does not tell
        return function
    if _takes(signature, len(wanted)):
        return function
    if name == "post_request":  # older forms of it, which gunicorn takes too
        for count in (3, 2):
            if _takes(signature, count):
                return lambda *arguments: function(*arguments[:count])
    raise SettingError(name, f"{name}{signature}", allowed, source)


def _takes(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


NO_HOOKS = Hooks({})


class ServerView:
    """The manager: ``server`` of a hook."""

    def __init__(self, pid: int, log: logging.Logger, cfg: Any, address: Sequence[str]) -> None:
        self.pid = pid
        self.log = log
        #: The settings, as attributes.
        self.cfg = cfg
        #: What is listened on, as the log shows it.
        self.address = list(address)


class WorkerView:
    """A worker: ``worker`` of a hook.  ``age`` numbers the workers from 1 on."""

    def __init__(
        self, pid: int, log: logging.Logger, cfg: Any, age: int, ppid: int | None = None
    ) -> None:
        #: 0 as long as it has not been forked.
        self.pid = pid
        self.log = log
        self.cfg = cfg
        self.age = age
        self.ppid = os.getppid() if ppid is None else ppid


class RequestView:
    """A request: ``req`` of a hook.  The same object comes to pre_request and post_request.

    It reads the WSGI environ, so that what no hook asks for costs nothing.
    """

    def __init__(self, environ: Environ) -> None:
        self._environ = environ

    @property
    def method(self) -> str:
        return self._environ.get("REQUEST_METHOD", "")

    @property
    def uri(self) -> str:
        """The target as the client spelled it."""
        return self._environ.get("REQUEST_URI") or rebuilt_uri(self._environ)

    @property
    def path(self) -> str:
        """The path of the target, still encoded, mount point and all."""
        return split_uri(self.uri)[0]

    @property
    def query(self) -> str:
        return self._environ.get("QUERY_STRING", "")

    @property
    def version(self) -> tuple[int, int]:
        """Version of HTTP, such as (1, 1)."""
        major, _, minor = self._environ.get("SERVER_PROTOCOL", "").rpartition("/")[2].partition(".")
        return (int(major), int(minor or 0)) if major.isdigit() else (1, 0)

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Name and value of each header field; names in capitals, with dashes."""
        found = []
        for key, value in self._environ.items():
            if key.startswith("HTTP_"):
                found.append((key[5:].replace("_", "-"), value))
            elif key in ("CONTENT_TYPE", "CONTENT_LENGTH") and value:
                found.append((key.replace("_", "-"), value))
        return found


class ResponseView:
    """An answer: ``resp`` of a hook."""

    def __init__(self, status: str, headers: Iterable[tuple[str, str]], sent: int) -> None:
        #: Such as "200 OK"; empty if the application gave none.
        self.status = status
        self.headers = list(headers)
        #: Bytes of the body that were sent.
        self.sent = sent

    @property
    def status_code(self) -> int:
        """0 if the application gave none."""
        code = self.status[:3]
        return int(code) if code.isdigit() else 0
