"""The access log: one line a request, in a format that is compiled once."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from time import localtime, strftime, time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from gateway.environ import text_of

if TYPE_CHECKING:
    from gateway.scoreboard import LostRequest
    from gateway.wsgi import Exchange

COMBINED = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'

_JSON_TYPES = frozenset({str, int, float, bool, type(None)})
_ATOM = re.compile(r"%\(([^)]*)\)s")

#: Status of a request that never got an answer.
_NO_STATUS = "-"

Line = tuple["Exchange", float, float]
Getter = Callable[["Exchange", float, float], Any]


class FormatError(ValueError):
    """The format names something that there is not."""


def _environ(name: str) -> Getter:
    return lambda exchange, _end, _took: exchange.request.environ.get(name)


def _request_line(exchange: Exchange, _end: float, _took: float) -> str:
    get = exchange.request.environ.get
    words = get("REQUEST_METHOD", "-"), get("REQUEST_URI", "-"), get("SERVER_PROTOCOL", "-")
    try:
        return " ".join(words)
    except TypeError:
        return " ".join(map(text_of, words))


def _time(_exchange: Exchange, end: float, _took: float) -> str:
    return strftime("[%d/%b/%Y:%H:%M:%S %z]", localtime(end))


def _status(exchange: Exchange, _end: float, _took: float) -> int | None:
    status = exchange.status
    if status is None:
        return None if exchange.request.aborted else 500
    return None if status == _NO_STATUS else int(status[:3])


def _queue(exchange: Exchange, _end: float, _took: float) -> int | None:
    waited = exchange.waited
    return None if waited is None else int(waited * 1e6)


def _user(exchange: Exchange, _end: float, _took: float) -> str | None:
    return exchange.request.environ.get("REMOTE_USER")


#: Atoms as gunicorn has them, and the name of each in JSON ("" for aliases).
_ATOMS: dict[str, tuple[str, Getter]] = {
    "h": ("remote_addr", _environ("REMOTE_ADDR")),
    "l": ("", lambda _exchange, _end, _took: None),
    "u": ("remote_user", _user),
    "t": ("time", _time),
    "r": ("request", _request_line),
    "m": ("method", _environ("REQUEST_METHOD")),
    "U": ("path", _environ("PATH_INFO")),
    "q": ("query", _environ("QUERY_STRING")),
    "H": ("server_protocol", _environ("SERVER_PROTOCOL")),
    "s": ("status", _status),
    "B": ("bytes", lambda exchange, _end, _took: exchange.sent),
    "b": ("", lambda exchange, _end, _took: exchange.sent or None),
    "f": ("referer", _environ("HTTP_REFERER")),
    "a": ("user_agent", _environ("HTTP_USER_AGENT")),
    "T": ("", lambda _exchange, _end, took: int(took)),
    "M": ("", lambda _exchange, _end, took: int(took * 1e3)),
    "D": ("duration_us", lambda _exchange, _end, took: int(took * 1e6)),
    "Q": ("queue_us", _queue),
    "L": ("", lambda _exchange, _end, took: f"{took:.6f}"),
    "p": ("pid", lambda exchange, _end, _took: int(exchange.identity().partition("-")[0])),
    "P": ("protocol", lambda exchange, _end, _took: exchange.connection.service.protocol),
    "i": ("id", lambda exchange, _end, _took: exchange.identity()),
    "x": ("aborted", lambda exchange, _end, _took: exchange.request.aborted),
}


def _getter(atom: str) -> Getter:
    if atom in _ATOMS:
        return _ATOMS[atom][1]
    if atom.startswith("{") and atom.endswith("}i"):
        return _environ("HTTP_" + atom[1:-2].upper().replace("-", "_"))
    if atom.startswith("{") and atom.endswith("}e"):
        return _environ(atom[1:-2])
    if atom.startswith("{") and atom.endswith("}o"):
        return _response_header(atom[1:-2].lower())
    raise FormatError(
        f"%({atom})s is no field of the access log; there are "
        f"{', '.join(f'%({name})s' for name in _ATOMS)} and %({{name}}i)s, %({{name}}o)s, "
        "%({name}e)s"
    )


def _response_header(name: str) -> Getter:
    def get(exchange: Exchange, _end: float, _took: float) -> str | None:
        for key, value in exchange.headers:
            if key.lower() == name:
                return value
        return None

    return get


def _escaped(value: Any) -> str:
    """Text for a line that a peer must not be able to break or forge."""
    if value is None:
        return "-"
    text = value if type(value) is str else text_of(value)
    if not text:
        return "-"
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join(
        char if " " <= char <= "~" and char not in '"\\' else _hex(char) for char in text
    )


def _hex(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogatepass"))


def compile_format(text: str) -> Callable[[Exchange, float, float], str]:
    """The function that makes a line, without its end.  Raises FormatError."""
    if text == "json":
        return _json_line
    pieces = _ATOM.split(COMBINED if text == "combined" else text)
    literals = [piece.replace("%%", "%") for piece in pieces[::2]]
    for literal in pieces[::2]:
        if "%(" in literal:
            raise FormatError(f"{literal!r} is not closed: a field looks like %(h)s")
    getters = [_getter(atom) for atom in pieces[1::2]]

    def line(exchange: Exchange, end: float, took: float) -> str:
        parts = [literals[0]]
        for getter, literal in zip(getters, literals[1:], strict=True):
            parts.append(_escaped(getter(exchange, end, took)))
            parts.append(literal)
        return "".join(parts)

    return line


def _json_line(exchange: Exchange, end: float, took: float) -> str:
    found = {name: getter(exchange, end, took) for name, getter in _ATOMS.values() if name}
    for name, value in found.items():
        if type(value) not in _JSON_TYPES:
            found[name] = text_of(value)
    return json.dumps(found)


def _stand_in(lost: LostRequest, pid: int) -> Any:
    """What a line needs of a request, as far as it is known of one whose worker died."""
    path, _, query = lost.uri.partition("?")
    environ = {
        "REMOTE_ADDR": lost.remote_addr,
        "REQUEST_METHOD": lost.method,
        "REQUEST_URI": lost.uri,
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": lost.server_protocol,
    }
    return SimpleNamespace(
        request=SimpleNamespace(environ=environ, aborted=True),
        connection=SimpleNamespace(service=SimpleNamespace(protocol=lost.protocol)),
        status=_NO_STATUS,
        sent=None,
        waited=None,
        headers=[],
        identity=lambda: f"{pid}-{lost.serial}",
    )


class AccessLog:
    """One file, appended to by all workers, a whole line at a time."""

    def __init__(self, path: str, text: str, own: Callable[[str], None] | None = None) -> None:
        """``own`` says whose a file is that was opened.  Raises FormatError and OSError."""
        self._own = own
        self._line = compile_format(text)
        #: What a line must have for a reader to tell an aborted request.
        self._mark = "" if text == "json" or "%(x)s" in text else " aborted"
        self._path = path if path == "-" else os.path.abspath(path)  # whatever chdir follows
        self._number = -1
        self.reopen()

    def reopen(self) -> None:
        """Open the file anew: it may have been moved away.  Raises OSError."""
        if self._path == "-":
            self._number = sys.stdout.fileno()
            return
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        number = os.open(self._path, flags, 0o640)
        if self._own is not None:
            self._own(self._path)
        if self._number == -1:
            self._number = number
        else:  # atomic for threads that are writing
            os.dup2(number, self._number, inheritable=False)
            os.close(number)

    def log(self, exchange: Exchange, took: float) -> None:
        """Write the line of a finished request; a full disk ends no request."""
        self._write(self._line(exchange, time(), took))

    def log_cut(self, exchange: Exchange, took: float) -> None:
        """Write the line of a request whose answer has begun and does not become whole."""
        exchange.request.aborted = True
        self._write(self._line(exchange, time(), took) + self._mark)

    def log_lost(self, lost: LostRequest, pid: int, now: float) -> None:
        """Write the line of a request that worker ``pid`` did not live to answer.

        ``now`` is monotonic, in seconds.
        """
        self._write(self._line(_stand_in(lost, pid), time(), now - lost.started) + self._mark)

    def _write(self, line: str) -> None:
        with suppress(OSError):
            os.write(self._number, (line + "\n").encode("utf-8", "backslashreplace"))
