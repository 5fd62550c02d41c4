"""X-Sendfile: a file that the application names is sent in place of its body.

Only where ``x_sendfile_root`` is set; otherwise the field goes out like any
other, to a front end that knows it.  It is WSGI in the middle: the application
is wrapped once, when it is loaded, so a gateway that does not do this pays
nothing, and the file is an ordinary ``wsgi.file_wrapper``.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from io import BytesIO, FileIO
from itertools import chain
from typing import TYPE_CHECKING, Any

from gateway.answer import ApplicationError
from gateway.filewrapper import FileWrapper
from gateway.representation import Fields, select

if TYPE_CHECKING:
    from gateway.wsgi import Exchange

_FIELD = "x-sendfile"

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: O_NONBLOCK: to open a FIFO waits for nobody.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

#: What says that a file is not there (EINVAL: a link was replaced while it was followed),
#: and that it is not given.
_MISSING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL})
_REFUSED = frozenset({errno.EACCES, errno.EPERM, errno.ENXIO, errno.EISDIR})

_PLAIN = [("Content-Type", "text/plain")]


class FileSender:
    """An application whose X-Sendfile is obeyed, within one folder."""

    def __init__(self, application: Callable[..., Any], root: str) -> None:
        self._application = application
        #: Symbolic links followed: the folder that the name means now.
        self._root = os.path.realpath(os.fsencode(root))

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Call the application (PEP 3333)."""
        head = _Head(start_response)
        result = self._application(environ, head.start_response)
        try:
            if not head.started:
                result = _Begun(result)
            if head.path is None:
                return result  # type: ignore[no-any-return]
            answer = self._answer(environ, head, start_response.__self__)
        except BaseException:
            _close(result)
            raise
        file = answer.filelike

        def close() -> None:
            with file:
                _close(result)

        answer.close = close
        return answer

    def _answer(self, environ: dict[str, Any], head: _Head, exchange: Exchange) -> FileWrapper:
        assert head.path is not None
        try:
            file = open_within(self._root, head.path.encode("latin-1"))
        except OSError as error:
            status = _status_for(error)
            if status is None:
                raise
            log = exchange.worker.log
            log.error("%s: X-Sendfile %r: %s", exchange.title(), head.path, error.strerror)
            text = f"{status[4:]}\n".encode()
            head.replace(status, [*_PLAIN, ("Content-Length", str(len(text)))])
            return FileWrapper(BytesIO(text))
        try:
            part = select(environ, head.status, head.fields, os.fstat(file.fileno()))
            head.replace(part.status, part.fields)
            if part.count:
                file.seek(part.start)
                return FileWrapper(file)
        except BaseException:
            file.close()
            raise
        file.close()
        return FileWrapper(BytesIO())


class _Head:
    """What the application said in its last call of start_response."""

    __slots__ = ("_start_response", "fields", "path", "started", "status")

    def __init__(self, start_response: Callable[..., Callable[[bytes], None]]) -> None:
        self._start_response = start_response
        self.started = False
        self.path: str | None = None
        self.status = ""
        self.fields: Fields = []

    def start_response(
        self, status: str, headers: Fields, exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """PEP 3333; X-Sendfile is taken out, whatever comes of it."""
        fields = list(headers)
        paths = [value for name, value in fields if str(name).lower() == _FIELD]
        if not paths:
            write = self._start_response(status, fields, exc_info)
            self.path = None
        elif len(paths) > 1:
            raise ApplicationError("X-Sendfile is given more than once")
        else:
            fields = [field for field in fields if str(field[0]).lower() != _FIELD]
            self._start_response(status, fields, exc_info)
            write = _discard
            self.path, self.status, self.fields = paths[0], status, fields
        self.started = True
        return write

    def replace(self, status: str, fields: Fields) -> None:
        """Put another head in the place of the application's, of which nothing is sent yet."""
        self._start_response(status, fields, (_ReplacedError, _ReplacedError(), None))


class _ReplacedError(Exception):
    """The reason that PEP 3333 wants for a second head."""


class _Begun:
    """An iterable whose first piece was made already, so that the head is known."""

    def __init__(self, iterable: Iterable[bytes]) -> None:
        rest = iter(iterable)
        self._pieces = chain([piece for piece in (next(rest, None),) if piece is not None], rest)
        self.close = lambda: _close(iterable)

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces


def open_within(root: bytes, path: bytes) -> FileIO:
    """Open a regular file for reading, if it lies within ``root`` once links are followed.

    What is opened is what was judged, even if somebody changes links meanwhile:
    the way down from ``root`` is walked again and follows none.  Raises OSError.
    """
    if not path.startswith(b"/") or b"\0" in path:
        raise OSError(errno.ENOENT, "it is no absolute path")
    real = os.path.realpath(path)
    if os.path.commonpath((root, real)) != root:
        raise OSError(errno.EACCES, "it is outside of x_sendfile_root")
    *folders, name = os.path.relpath(real, root).split(b"/")
    folder = os.open(root, _FOLDER)
    try:
        for step in folders:
            below = os.open(step, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = below
        file = FileIO(name, opener=lambda name, _: os.open(name, _FILE, dir_fd=folder))
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EACCES, "it is no regular file")
    return file


def _status_for(error: OSError) -> str | None:
    if error.errno in _MISSING:
        return "404 Not Found"
    return "403 Forbidden" if error.errno in _REFUSED else None


def _discard(data: bytes) -> None:
    """Take what the application writes in place of the file."""


def _close(iterable: Any) -> None:
    close = getattr(iterable, "close", None)
    if close is not None:
        close()
