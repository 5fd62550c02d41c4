"""Ending a request from outside of the thread that serves it.

An exception that is set for a thread arrives between any two of its
instructions.  It must only ever arrive in the application's code: in the
server's it could leave half a record on a connection that several requests
share.  How that is kept is written where it is done, in ``gateway/wsgi.py``,
and argued in docs/decisions/0009-request-deadlines.md.
"""

from __future__ import annotations

try:
    import ctypes

    _set_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc
except (ImportError, AttributeError):  # pragma: no cover - a Python without ctypes
    _set_exception = None  # type: ignore[assignment]


class RequestTimeout(BaseException):
    """The request took longer than ``timeout``; raised in the application's code.

    Not an Exception, so that an ``except Exception`` of a framework lets it
    pass.  Whoever catches it meets it again when the application returns.
    """


class Abandoned(BaseException):
    """The server has answered in the application's place.

    Raised in the thread that comes back too late: it touches nothing of the
    connection, which may serve another request or be closed by now.
    """


def interrupt(ident: int) -> bool:
    """Raise RequestTimeout in a thread; False if this Python cannot."""
    if _set_exception is None:
        return False
    return bool(_set_exception(ctypes.c_ulong(ident), ctypes.py_object(RequestTimeout)))


def withdraw(ident: int) -> None:
    """Take back what ``interrupt`` has set, if it has not arrived yet."""
    if _set_exception is not None:
        _set_exception(ctypes.c_ulong(ident), None)
