"""The WSGI bridge: one request through the application and back (PEP 3333)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from threading import get_ident
from time import monotonic
from typing import Any, Final

from gateway.answer import ABANDONED, LATE, Answer, ApplicationError, Overloaded
from gateway.disconnects import ClientDisconnected
from gateway.environ import BadVariables
from gateway.filewrapper import FileWrapper
from gateway.interrupts import Abandoned, RequestTimeout, withdraw
from gateway.scoreboard import BUSY, IDLE, Seat
from protocols.headers import encode_fields, status_code
from protocols.model import CLAIMS

_END: Final = object()


class _Buffered:
    """``wsgi.errors`` of one request, when the front end gets a copy of it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.parts: list[str] = []

    def write(self, text: str) -> int:
        self.parts.append(text)
        self._stream.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._stream.flush()


class Exchange(Answer):
    """One request in the application.

    Rules by which the watchdog may end it from outside:

    * ``in_app`` is true while the thread is in the application's code: the
      application itself, its iterable, its ``close`` and the hooks of a request.
      Nothing of the server's that matters happens while it is true.
    * Whenever the application gives control back, the thread first clears
      ``in_app`` and then looks at ``expired``; if that is set, ``_settle`` ends the
      request there and then.
    * The watchdog sets ``expired`` first, and later, holding ``seat.lock`` and only
      if ``in_app`` is true, sets the exception: once a request.
    """

    __slots__ = ("logged", "seat", "view")

    seat: Seat
    #: What the hooks of a request are shown, where there are hooks.
    view: Any
    #: Set by those hooks: the access log has its line.
    logged: bool

    def run(self, seat: Seat, since: float) -> None:
        """Call the application and send its answer; nothing that it raises escapes.

        ``since`` is when the request began to wait for this (monotonic).
        Raises Abandoned if the server has answered meanwhile.
        """
        worker = self.worker
        self.seat = seat
        self.clock = begun = monotonic()
        self.waited = begun - since
        if self.serial == worker.last_serial:
            worker.replacing.wear_out()
        body: Any = self.request.environ["wsgi.input"]
        try:
            self._call(seat)
        except ClientDisconnected as error:
            self._disconnected(error)
        except Overloaded:
            self._refuse()
        except BadVariables as error:
            worker.log.warning("%s: %s", self.connection.peer, error)
            self._answer("400 Bad Request", f"{error}\n".encode("latin-1", "replace"))
        except RequestTimeout:
            self._timed_out()
        except BaseException:  # noqa: BLE001 - SystemExit too ends this request and nothing else
            self._failed()
        finally:
            if self.iterable is not None and not self.deferred:
                self._close_iterable()
            body.close()
        if self.expired:
            self.check_abandoned()
        after = worker.after_request
        if after is not None:
            after(self, monotonic() - begun)
        seat.exchange = None
        seat.end(IDLE)

    def _call(self, seat: Seat) -> None:
        connection = self.connection
        environ: dict[str, Any] = self.request.environ
        self._complete(environ)
        environ["RAW_URI"] = uri = environ["REQUEST_URI"]
        if self.request.aborted:
            raise ClientDisconnected("aborted before it ran")
        if self.waited > LATE or self.worker.late:
            self._check_wanted()
        if connection.slots == 1:
            environ["gateway.client_disconnected"] = connection.client_disconnected
        else:
            gone = partial(connection.client_disconnected, self.request.stream)
            environ["gateway.client_disconnected"] = gone
        seat.exchange = self
        # As scoreboard.describe: the call itself would cost as much again.
        text = (
            f"{environ['REQUEST_METHOD']}\0{environ['SERVER_PROTOCOL']}\0"
            f"{environ.get('REMOTE_ADDR', '')}\0{connection.peer}\0"
            f"{connection.service.protocol}\0{uri}"
        )
        seat.begin(self.serial, self.clock, text.encode(), BUSY)
        if connection.service.copies_errors:
            buffered = environ["wsgi.errors"] = _Buffered(environ["wsgi.errors"])
            self.errors = buffered.parts
        self.in_app = True
        try:
            result = self.worker.application(environ, self.start_response)
        finally:
            self.in_app = False
            if self.expired:
                self._settle()
        kind = type(result)
        if (kind is list or kind is tuple) and not self.started:
            self._send_whole(result[0] if len(result) == 1 else b"".join(result))
        else:
            self._send_iterable(result)

    def _complete(self, environ: dict[str, Any]) -> None:
        """Make an environ of what the codec gave.  Raises BadVariables."""
        service = self.connection.service
        added = service.added
        if added:
            environ.update(added)
        own = self.connection.own
        if own:
            environ.update(own)
        normaliser = service.normaliser
        if normaliser is not None:
            normaliser.apply(environ)
        if CLAIMS in environ or service.searches_claims:
            service.settle_claims(environ)

    def _send_iterable(self, result: Any) -> None:
        self.iterable = result
        if type(result) is FileWrapper:
            if self._send_file(result):
                return
            # PEP 3333: of a longer file, no more than Content-Length is sent.
            result.left = self.request.remaining if self.started else self.announced
        self._send_pieces(result)

    def in_application(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call what is the application's.  Raises what that raises, or RequestTimeout."""
        self.in_app = True
        try:
            return function(*arguments)
        finally:
            self.in_app = False
            if self.expired:
                self._settle()

    # What the application calls

    # What comes from the application is Any: a compiled function would judge an annotation
    # by itself, before the rules here do, and say less.

    def start_response(
        self, status: Any, headers: Any, exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """Take the head (PEP 3333); what is wrong with it is raised here.

        It sends nothing and touches this request alone, so it counts as the
        application's code: an interruption in it does no harm.
        """
        if exc_info is not None:
            try:
                if self.started:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # no circular reference through the traceback
        elif self.status is not None:
            raise ApplicationError("start_response was called twice without exc_info")
        status_code(status)
        fields = encode_fields(headers)
        self.announced = fields.length
        # A subclass of str was judged by its content, so that is what is sent.
        self.status = status if type(status) is str else str.__str__(status)
        self.headers = fields
        return self.write

    def write(self, data: Any) -> None:
        """Send at once (PEP 3333, the ``write`` callable)."""
        if not isinstance(data, bytes):
            raise TypeError(f"write() takes bytes, not {type(data).__name__}")
        if get_ident() != self.seat.ident:
            # ``in_app`` speaks of the thread in the seat, which may be anywhere.
            raise ApplicationError("write() belongs to the thread that called the application")
        self.in_app = False
        try:
            if self.expired:
                self._settle()
            if self.seat.exchange is not self:
                raise ApplicationError("write() after the end of the request")
            if data and self._send(data):
                self._too_long()
                raise ApplicationError("write() of more than Content-Length announced")
        finally:
            self.in_app = True

    # The end

    def _send_pieces(self, pieces: Iterable[bytes]) -> None:
        request = self.request
        iterator = self.in_application(iter, pieces)
        while True:
            self.in_app = True
            try:
                piece = next(iterator, _END)
            finally:
                self.in_app = False
                if self.expired:
                    self._settle()
            if piece is _END:
                break
            if not isinstance(piece, bytes):
                raise TypeError(f"the application must yield bytes, not {type(piece).__name__}")
            if piece and self._send(piece):
                self._too_long()
                break
            if request.aborted:
                raise ClientDisconnected("aborted")
            if self.started and request.head_only:
                break
        self._finish()

    def _close_iterable(self) -> None:
        """PEP 3333: close() once, whatever happened, after the answer is out."""
        iterable, self.iterable = self.iterable, None
        try:
            if self.deferred:  # perhaps on the loop, while the thread in the seat finishes
                _close(iterable)
            else:
                self.in_application(_close, iterable)
        except RequestTimeout:
            return  # the watchdog has said so
        except BaseException:  # noqa: BLE001 - as for the application itself
            self._log_error("close() of the answer failed", traceback=True)
        if self.worker.is_fork:
            self._leave_fork()

    def file_sent(self) -> None:
        """The file is sent, or its client gone: its iterable can be closed."""
        self._close_iterable()

    def _failed(self) -> None:
        if self.deferred:
            return
        self._log_error("the application failed", traceback=True)
        if self.request.aborted:
            self._disconnected(ClientDisconnected("aborted"))
        elif self.started:
            self.connection.cut(self.request)
        else:
            self._answer("500 Internal Server Error", b"Internal Server Error\n")

    # Deadlines; see docs/decisions/0009-request-deadlines.md

    def _settle(self) -> None:
        """End the request where it comes back from the application too late.

        Always raises RequestTimeout.  On the way the exception of the watchdog may
        arrive: it ends the request just the same, and cannot come twice.
        Afterwards none can come: ``in_app`` is false, and who sets it holds the lock.
        """
        if self.worker.is_fork:
            self._leave_fork()
        lock = self.seat.lock
        try:
            lock.acquire()
            withdraw(self.seat.ident)
        except RequestTimeout:
            pass
        with suppress(RuntimeError):  # the exception came before the lock was ours
            lock.release()
        raise RequestTimeout

    def check_abandoned(self) -> None:
        """Raise Abandoned if the server has answered in the application's place."""
        with self.seat.lock:
            if self.expired == ABANDONED:
                raise Abandoned

    def _timed_out(self) -> None:
        try:
            self.check_abandoned()
        except Abandoned:
            return  # raised again at the end
        self._give_up()

    def _give_up(self) -> None:
        """Answer that there is no answer, or end the one that has begun."""
        request = self.request
        if self.deferred or request.ended:
            return
        if request.aborted:
            self._disconnected(ClientDisconnected("aborted"))
        elif self.started:
            self.connection.cut(request)
            request.aborted = True
        else:
            self._answer("504 Gateway Timeout", b"Gateway Timeout\n")

    def abandon(self) -> bool:
        """Answer in place of an application that does not come back (the watchdog's thread).

        False if it has come back.  Nothing here waits for the client.
        """
        seat = self.seat
        with seat.lock:
            if not self.in_app or seat.exchange is not self:
                return False
            self.expired = ABANDONED
            seat.exchange = None
            seat.end(IDLE)
        self._give_up()
        access = self.worker.access
        if access is not None and not getattr(self, "logged", False):
            access.log(self, monotonic() - self.clock)
        self.connection.abandoned(self.request)
        return True

    def _leave_fork(self) -> None:
        """A child that the application forked has come back: it is not a server.

        Nothing is sent, flushed or run: all that belongs to the parent.
        """
        error = sys.exc_info()[1]
        code = 0 if error is None else 1
        if isinstance(error, SystemExit):
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        os._exit(code & 0xFF)


def _close(iterable: Any) -> None:
    close = getattr(iterable, "close", None)
    if close is not None:
        close()
