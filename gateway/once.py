"""CGI (RFC 3875): one request from the environment and standard input, and its answer.

A web server starts the program for each request.  There is no manager, no
worker and no loop; the request and its answer go through the same rules, the
same codec family and the same bridge to the application as any other.

Standard output belongs to the answer alone: it is moved away before the
application is loaded, so that what the application prints goes to the log.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from itertools import count
from logging import Logger
from threading import get_ident
from time import monotonic
from typing import IO, Any, BinaryIO, ClassVar

from gateway.accesslog import AccessLog
from gateway.answer import EXPIRED
from gateway.body import Spool
from gateway.budget import Budget
from gateway.carrier import Carrier
from gateway.disconnects import ClientDisconnected
from gateway.errorlog import open_error_log
from gateway.hooks import WorkerView
from gateway.kinds import SettingError
from gateway.loader import LoadError, load_from_settings
from gateway.process import apply_environment
from gateway.requesthooks import install
from gateway.scoreboard import Board
from gateway.service import Service
from gateway.serving import Serving
from gateway.settings import Settings
from gateway.sources import Resolved
from gateway.startup import change_folder
from gateway.wsgi import Exchange
from protocols.cgi import CgiCodec, body_length, drop_foreign, refusal_head
from protocols.model import UNKNOWN, Limits, Request

#: What ``--protocol`` and the logs call it.
CGI = "cgi"

EXIT_OK = 0
#: An answer that has begun could not be finished.
EXIT_CUT = 1
EXIT_LOAD = 3

#: Settings that say something about processes and sockets that there are not.
_NEEDS_A_SERVER = (
    *("bind", "user", "group", "preload_app", "pidfile", "control_socket", "certfile"),
)

_READ_SIZE = 1 << 16

_FAILURE = "500 Internal Server Error"


class BadRequest(Exception):
    """The request is not served; ``status`` is the answer."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class CgiAnswers(CgiCodec):
    """The answering half of the CGI family; there is nothing to receive."""

    raw_body: ClassVar[bool] = False  # files are read, not handed to a socket


def serve(resolved: Resolved) -> int:
    """Serve the request of this process's environment; return the exit code.

    Raises SettingError and OSError before anything is read or written.
    """
    settings = resolved.settings
    environ = _meta_variables(os.environb)
    _check_request(resolved, environ)
    # For urllib and its like a client's "Proxy:" must not name a proxy (httpoxy).
    os.environ.pop("HTTP_PROXY", None)
    if settings.umask is not None:
        os.umask(settings.umask)
    if settings.chdir is not None:
        change_folder(settings.chdir)
    apply_environment(settings.raw_env)
    log = open_error_log(settings.errorlog, settings.loglevel)
    access = None
    if settings.accesslog is not None:
        access = AccessLog(settings.accesslog, settings.access_log_format)
    source, target = _take_descriptors()
    connection = _Connection(target, settings, log)
    try:
        try:
            application = load_from_settings(settings)
        except BaseException as error:
            told = isinstance(error, LoadError)
            reason = f": {error}" if told else ""
            log.error("the application cannot be loaded%s", reason, exc_info=not told)
            connection.write(refusal_head(_FAILURE, "the application cannot be loaded"))
            return EXIT_LOAD
        try:
            request = _read_request(environ, source, settings)
        except BadRequest as error:
            log.warning("%s: %s", connection.peer, error)
            connection.write(refusal_head(error.status, str(error)))
            return EXIT_OK
        connection.run(request, application, resolved, access)
    except ClientDisconnected as error:
        log.debug("%s: %s", connection.peer, error)
    return EXIT_CUT if connection.is_cut else EXIT_OK


def check_settings(resolved: Resolved) -> None:
    """Raise SettingError for what only a server has a use for."""
    for name in _NEEDS_A_SERVER:
        if resolved.sources[name] != "default":
            value = getattr(resolved.settings, name)
            allowed = (
                "with protocol = cgi a web server starts the process, listens, speaks TLS and says "
                "as whom"
            )
            raise SettingError(name, value, allowed, resolved.sources[name])


def _check_request(resolved: Resolved, environ: Mapping[str, str]) -> None:
    if not environ.get("REQUEST_METHOD"):
        raise SettingError(
            "protocol",
            CGI,
            "a web server runs this, with the request in the environment: REQUEST_METHOD is "
            "missing there",
            resolved.sources["protocol"],
        )


def _meta_variables(environ: Mapping[bytes, bytes]) -> dict[str, str]:
    """The environment as native strings (PEP 3333)."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in environ.items()}


def _take_descriptors() -> tuple[int, int]:
    """Where the body comes from and the answer goes to, out of the application's way."""
    source, target = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return source, target


# The request


def _read_request(environ: dict[str, str], source: int, settings: Settings) -> Request:
    """The request with its whole body.  Raises BadRequest."""
    try:
        length = body_length(environ)
    except ValueError as error:
        raise BadRequest("400 Bad Request", str(error)) from None
    # RFC 3875 section 4.2: without CONTENT_LENGTH there is no body, and reading
    # might wait for ever.  A chunked body was decoded; its end is the end of the pipe.
    if length == UNKNOWN and "HTTP_TRANSFER_ENCODING" not in environ:
        length = 0
    drop_foreign(environ)
    found: dict[str, Any] = {**environ}
    # RFC 3875 section 4.1.5: not there is the same as empty, in a protocol whose
    # SCRIPT_NAME is always that of the program.
    found.setdefault("PATH_INFO", "")
    body, size = _read_body(source, length, settings)
    os.close(source)
    found["wsgi.input"] = body
    if length == UNKNOWN:
        found["CONTENT_LENGTH"] = str(size)
    request = Request(0, found, length, keep_alive=False)
    request.head_only = found["REQUEST_METHOD"] == "HEAD"
    return request


def _read_body(source: int, length: int, settings: Settings) -> tuple[BinaryIO | IO[bytes], int]:
    """Exactly ``length`` bytes, or all there are.  Raises BadRequest."""
    limit = settings.limit_request_body
    if limit and length > limit:
        raise BadRequest("413 Content Too Large", "the request body is too large")
    spool = Spool(settings.body_buffer_size, settings.body_spool_dir, Budget())
    try:
        _fill(spool, source, length, limit)
        return spool.finish(), spool.size
    except OSError as error:
        raise BadRequest(
            "507 Insufficient Storage", f"the request body cannot be kept: {error}"
        ) from None


def _fill(spool: Spool, source: int, length: int, limit: int) -> None:
    while length == UNKNOWN or spool.size < length:
        wanted = _READ_SIZE if length == UNKNOWN else min(_READ_SIZE, length - spool.size)
        data = os.read(source, wanted)
        if not data:
            break
        spool.write(data)
        if limit and spool.size > limit:
            raise BadRequest("413 Content Too Large", "the request body is too large")
    if spool.size < length:
        raise BadRequest("400 Bad Request", "the client left in the middle of the request body")


# The answer


class _Connection(Carrier):
    """What the bridge needs of a connection: here two descriptors and one request."""

    def __init__(self, target: int, settings: Settings, log: Logger) -> None:
        self._target = target
        self._log = log
        self.settings = settings
        self.codec = CgiAnswers(Limits())
        # As for any other of the family, but for what is said of the process.
        self.service = Service(CGI, settings, log, codec=CgiAnswers)
        self.own = {
            "wsgi.multithread": False,
            "wsgi.multiprocess": True,
            "wsgi.run_once": True,
        }
        self.peer = "the web server"
        self.gone = False
        self.slots = 1
        self.send_flags = 0
        self.wrote = 0.0
        self.closing = False
        self.is_cut = False
        self._is_writing = False

    def run(
        self,
        request: Request,
        application: Callable[..., Any],
        resolved: Resolved,
        access: AccessLog | None,
    ) -> None:
        """Call the application and send its answer."""
        seat = Board(1).seat(0)
        seat.ident = get_ident()
        self.worker = place = Serving()
        place.access = access
        place.after_request = None if access is None else access.log
        place.application = application
        place.hooks = resolved.hooks
        place.is_fork = False
        place.last_serial = 0
        place.late = False
        place.log = self._log
        place.retiring = False
        place.next_serial = count(1).__next__
        place.view = WorkerView(os.getpid(), self._log, self.settings, 0)
        install(place)
        exchange = Exchange(self, request)
        signal.signal(signal.SIGTERM, partial(self._on_term, request))
        os.register_at_fork(after_in_child=partial(self._let_go, exchange))
        exchange.run(seat, monotonic())

    def _on_term(self, request: Request, *_: object) -> None:
        """The web server's word that the request is over.

        Before the end of the answer it means that the client has gone: the
        application is told, and cleans up.  After it, web servers say so to every
        process that still runs: what the application does then is its own affair.
        """
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        answered = request.ended or request.remaining == 0
        if self._is_writing or not answered:
            raise ClientDisconnected("the web server ended the request")

    def _let_go(self, exchange: Exchange) -> None:
        """In a child that the application forks: it must not send a second answer."""
        self.worker.is_fork = True
        exchange.expired = EXPIRED
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with suppress(OSError):
            os.close(self._target)

    def write(
        self, data: bytes, rest: bytes = b"", tail: bytes = b"", *, wait: bool = False
    ) -> float:
        """Send all of it; the seconds to excuse are none.  Raises ClientDisconnected."""
        del wait  # there is nobody else to serve
        if self.gone:
            raise ClientDisconnected("the peer is gone")
        self._is_writing = True
        try:
            for piece in (data, rest, tail):
                self._write_all(memoryview(piece))
        except OSError as error:
            self.gone = True
            raise ClientDisconnected(str(error)) from None
        self._is_writing = False
        return 0.0

    def _write_all(self, rest: memoryview) -> None:
        while rest:
            try:
                rest = rest[os.write(self._target, rest) :]
            except BlockingIOError:
                select.select([], [self._target], [])

    def has_left(self) -> bool:
        """Whether the web server has closed its end."""
        poll = select.poll()
        poll.register(self._target, 0)  # POLLERR comes unasked
        return self.gone or bool(poll.poll(0))

    def client_disconnected(self, stream: int = 0) -> bool:
        """Whether nobody waits for the answer."""
        del stream  # there is one request
        return self.has_left()

    def cut(self, request: Request) -> None:
        """A started answer ends here; the exit code says so."""
        del request
        self.is_cut = True
        self.closing = True
