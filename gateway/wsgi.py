"""The WSGI bridge: one request through the application and back (PEP 3333)."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from io import BufferedRandom, BufferedReader, BytesIO, FileIO
from tempfile import _TemporaryFileWrapper
from time import perf_counter
from typing import TYPE_CHECKING, Any

from gateway.channel import ClientDisconnected
from gateway.environ import BadVariables
from gateway.output import FileRange
from protocols.headers import encode_fields, status_code
from protocols.model import UNKNOWN, Request

if TYPE_CHECKING:
    from types import TracebackType

    from gateway.connection import Connection

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType]

_BLOCK_SIZE = 1 << 18


class ApplicationError(Exception):
    """The application broke PEP 3333; the message says how."""


class FileWrapper:
    """``wsgi.file_wrapper``: sent with sendfile where that is possible."""

    def __init__(self, filelike: Any, block_size: int = _BLOCK_SIZE) -> None:
        self.filelike = filelike
        self.block_size = block_size
        self.left = UNKNOWN
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        data: bytes = self.filelike.read(self.block_size) if self.left else b""
        if self.left != UNKNOWN:
            data = data[: self.left]
            self.left -= len(data)
        if not data:
            raise StopIteration
        return data

    def file_range(self) -> FileRange | None:
        """What is left of a regular file, or None if it is none.

        Only Python's own binary files: others may have a descriptor too, but
        what they read is not what it holds (gzip).
        """
        file = self.filelike
        if type(file) is _TemporaryFileWrapper:
            file = file.file
        raw = file.raw if type(file) in (BufferedReader, BufferedRandom) else file
        if type(raw) is not FileIO:
            return None
        try:
            number = file.fileno()
            info = os.fstat(number)
            if not stat.S_ISREG(info.st_mode):
                return None
            offset = file.tell()
        except (AttributeError, OSError, ValueError):
            return None
        return FileRange(number, offset, max(0, info.st_size - offset))


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


class Exchange:
    """One request and its answer."""

    __slots__ = (
        "announced",
        "codec",
        "connection",
        "deferred",
        "errors",
        "headers",
        "iterable",
        "request",
        "sent",
        "serial",
        "started",
        "status",
        "worker",
    )

    def __init__(self, connection: Connection, request: Request) -> None:
        self.connection = connection
        self.codec = connection.codec
        self.worker = connection.worker
        self.request: Request = request
        self.status: str | None = None
        self.headers: list[tuple[str, str]] = []
        self.announced = UNKNOWN  # by the application, in Content-Length
        self.iterable: Any = None
        self.started = False  # the head is out
        self.deferred = False  # the loop sends a file and then finishes
        self.sent: int = 0
        self.serial = next(connection.worker.serial)
        self.errors: _Buffered | None = None

    def run(self) -> None:
        """Call the application and send its answer; nothing that it raises escapes."""
        access = self.worker.access
        begun = perf_counter() if access is not None else 0.0
        request = self.request
        body: Any = request.environ["wsgi.input"]
        try:
            self._call()
        except ClientDisconnected as error:
            self._disconnected(error)
        except BadVariables as error:
            self.worker.log.warning("%s: %s", self.connection.peer, error)
            self._answer("400 Bad Request", f"{error}\n".encode("latin-1", "replace"))
        except BaseException:  # noqa: BLE001 - SystemExit too ends this request and nothing else
            self._failed()
        finally:
            if self.iterable is not None and not self.deferred:
                self._close_iterable()
            if type(body) is not BytesIO:
                body.close()
        if access is not None:
            access.log(self, perf_counter() - begun)

    def _call(self) -> None:
        connection = self.connection
        environ: dict[str, Any] = self.request.environ
        environ.update(connection.base)
        normalise = connection.service.normalise
        if normalise is not None:
            normalise(environ)
        environ["RAW_URI"] = environ["REQUEST_URI"]
        if self.request.aborted:
            raise ClientDisconnected("aborted before it ran")
        if connection.settings.fastcgi_stderr:
            self.errors = environ["wsgi.errors"] = _Buffered(environ["wsgi.errors"])
        result = self.worker.application(environ, self.start_response)
        kind = type(result)
        if (kind is list or kind is tuple) and not self.started:
            self._send_whole(result[0] if len(result) == 1 else b"".join(result))
            return
        self.iterable = result
        if kind is FileWrapper:
            if self._send_file(result):
                return
            # PEP 3333: of a longer file, no more than Content-Length is sent.
            result.left = self.request.remaining if self.started else self.announced
        self._send_pieces(result)

    # What the application calls

    def start_response(
        self,
        status: str,
        headers: list[tuple[str, str]],
        exc_info: ExcInfo | None = None,
    ) -> Callable[[bytes], None]:
        """Take the head (PEP 3333); what is wrong with it is raised here."""
        if exc_info is not None:
            try:
                if self.started:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # no circular reference through the traceback
        elif self.status is not None:
            raise ApplicationError("start_response was called twice without exc_info")
        status_code(status)
        fields = list(headers)
        self.announced = encode_fields(fields).length
        # A subclass of str was judged by its content, so that is what is sent.
        self.status = status if type(status) is str else str.__str__(status)
        self.headers = fields
        return self.write

    def write(self, data: bytes) -> None:
        """Send at once (PEP 3333, the ``write`` callable)."""
        if not isinstance(data, bytes):
            raise TypeError(f"write() takes bytes, not {type(data).__name__}")
        if data and self._send(data):
            self._too_long()
            raise ApplicationError("write() of more than Content-Length announced")

    # Sending

    def _send_whole(self, data: bytes) -> None:
        """A body that is whole: one head with its length, one send."""
        status = self._checked_status()
        if not isinstance(data, bytes):
            raise TypeError(f"the application must yield bytes, not {type(data).__name__}")
        request = self.request
        declared = self.announced
        if self.errors is not None or not (
            declared == UNKNOWN or declared == len(data) or request.head_only
        ):
            if data and self._send(data, len(data)):
                self._too_long()
            self._finish()
            return
        reply = self.codec.reply(request, status, self.headers, data)
        self.started = True
        self.sent = 0 if request.head_only else len(data)
        self.connection.write(reply)

    def _send_pieces(self, pieces: Iterable[bytes]) -> None:
        request = self.request
        for piece in pieces:
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

    def _send_file(self, wrapper: FileWrapper) -> bool:
        """Let the loop send the file; False if it has to be iterated."""
        request = self.request
        if self.started or request.head_only or not self.codec.raw_body:
            return False
        piece = wrapper.file_range()
        if piece is None:
            return False
        status = self._checked_status()
        declared = self.announced
        if declared > piece.count or not piece.count:
            return False
        if declared != UNKNOWN:
            piece.count = declared
        head = self.codec.head(request, status, self.headers, piece.count)
        if request.head_only or request.chunked:  # a 304, say
            self.started = True
            self.connection.write(head + self.codec.end(request))
            return True
        self.started = True
        self.sent = piece.count
        self.deferred = True
        piece.release = self._file_sent
        request.ended = True
        self.connection.write_file(head, piece)
        return True

    def _file_sent(self) -> None:
        """The file is sent, or its client gone: its iterable can be closed."""
        self._close_iterable()

    def _send(self, piece: bytes, length: int = UNKNOWN) -> bool:
        """Send a piece, with the head before the first; True if it was too long and was cut."""
        request = self.request
        out = b""
        if not self.started:
            out = self.codec.head(request, self._checked_status(), self.headers, length)
            self.started = True
        owed = request.remaining
        too_long = UNKNOWN != owed < len(piece) and not request.head_only
        if too_long:
            piece = piece[:owed]
        out += self.codec.body(request, piece)
        if not request.head_only:
            self.sent += len(piece)
        if out:
            self.connection.write(out)
        return too_long

    def _finish(self) -> None:
        """End the answer, or cut it if it is shorter than announced."""
        request = self.request
        out = b""
        if not self.started:
            out = self.codec.head(request, self._checked_status(), self.headers, 0)
            self.started = True
        if request.remaining > 0 and not request.head_only:
            if out:
                self.connection.write(out)
            self._log_error(f"the answer is {request.remaining} bytes shorter than announced")
            self.connection.cut(request)
            return
        if self.errors is not None and self.errors.parts:
            out += self.codec.errors(request, "".join(self.errors.parts))
        self.connection.write(out + self.codec.end(request))

    def _checked_status(self) -> str:
        if self.status is None:
            raise ApplicationError("the application answered without calling start_response")
        self._say_goodbye()
        return self.status

    def _say_goodbye(self) -> None:
        """A worker that leaves says so in every head that it still sends."""
        if self.worker.retiring and self.worker.is_last_answer(self.codec):
            self.request.keep_alive = False

    # Failing

    def _too_long(self) -> None:
        """RFC 9112 section 6.3: what follows would be taken for another answer."""
        self._log_error("the answer is longer than its Content-Length")
        self.request.keep_alive = False
        self.connection.closing = True

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

    def _answer(self, status: str, body: bytes) -> None:
        self.status = status
        self.headers = [("Content-Type", "text/plain; charset=utf-8")]
        self._say_goodbye()
        try:
            reply = self.codec.reply(self.request, status, self.headers, body)
            self.started = True
            self.sent = len(body)
            self.connection.write(reply)
        except ClientDisconnected as error:
            self._disconnected(error)

    def _disconnected(self, error: ClientDisconnected) -> None:
        self.request.aborted = True
        if self.codec.concurrent and not self.connection.gone:
            # FastCGI section 5.4: an aborted request still ends with END_REQUEST.
            try:
                self.connection.write(self.codec.end(self.request))
            except ClientDisconnected:
                return
        self.worker.log.debug("%s: %s", self.connection.peer, error)

    def _close_iterable(self) -> None:
        """PEP 3333: close() once, whatever happened, after the answer is out."""
        iterable, self.iterable = self.iterable, None
        try:
            close = getattr(iterable, "close", None)
            if close is not None:
                close()
        except BaseException:  # noqa: BLE001 - as for the application itself
            self._log_error("close() of the answer failed", traceback=True)

    def identity(self) -> str:
        """The request's id, as the logs give it."""
        return f"{os.getpid()}-{self.serial}"

    def _log_error(self, text: str, *, traceback: bool = False) -> None:
        environ = self.request.environ
        self.worker.log.error(
            "[%s] %s %s from %s: %s",
            self.identity(),
            environ.get("REQUEST_METHOD", "-"),
            environ.get("REQUEST_URI", "-"),
            self.connection.peer,
            text,
            exc_info=sys.exc_info() if traceback else None,
        )
