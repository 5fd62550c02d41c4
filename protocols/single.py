"""One request a connection: what SCGI and uwsgi have in common.

A block of variables whose size stands at its start, then exactly
CONTENT_LENGTH bytes of body; the answer ends with the connection.  A protocol
says where its block starts and ends, and what is in it.
"""

from __future__ import annotations

from typing import ClassVar, Final

from protocols.cgi import CgiCodec
from protocols.model import Body, Event, Limits, ProtocolError, Request
from protocols.native import mypyc_attr

_HEAD: Final = 0
_BODY: Final = 1
_DONE: Final = 2


@mypyc_attr(allow_interpreted_subclasses=True)
class SingleRequestCodec(CgiCodec):
    """One request; the connection closes after its answer."""

    raw_body: ClassVar[bool] = True
    marks_claims: ClassVar[bool] = True
    starts_with_base: ClassVar[bool] = True
    #: What the log calls the block of variables.
    block: ClassVar[str] = "variables"

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._state = _HEAD
        self._buffer = bytearray()
        #: Where the block starts, and how many bytes there must be to decode it (0: not known).
        self._start = 0
        self._needed = 0
        self._request: Request | None = None
        self._received = 0

    def read_size(self, data: bytes) -> tuple[int, int]:
        """Where the block starts and ends in ``data``; (0, 0) if that is not known yet.

        Raises ProtocolError.
        """
        raise NotImplementedError

    def decode(self, block: bytes) -> Request:
        """The request of a whole block, without its body.  Raises ProtocolError."""
        raise NotImplementedError

    def whole(self, data: bytes) -> Request | None:
        """The request of a first read that is all of it; None if there is more to judge."""
        del data
        return None

    def open(self, environ: dict[str, str], length: int) -> Request:
        """The request, whose variables are known now."""
        request = Request(0, environ, length, b"", False, False)
        request.head_only = environ.get("REQUEST_METHOD") == "HEAD"
        return request

    def receive(self, data: bytes) -> list[Event]:
        """Return the request or a piece of its body; what follows is dropped."""
        if self._state == _HEAD:
            request = None if self._buffer else self.whole(data)
            if request is None:
                return self._receive_head(data)
            self._finish()
            return [request]
        if self._state == _BODY:
            piece = self._take(data)
            return [Body(0, piece, self._state == _BODY)]
        return []

    def owed(self) -> int:
        """What is missing of CONTENT_LENGTH bytes."""
        request = self._request
        return 0 if request is None or self._state != _BODY else request.length - self._received

    def arrived(self, count: int) -> bool:
        """The body is whole with the last of CONTENT_LENGTH bytes."""
        self._received += count
        if self.owed():
            return False
        self._finish()
        return True

    def receive_eof(self) -> list[Event]:
        """Raise ProtocolError if the peer left in the middle; a bare connect is silent."""
        state, self._state = self._state, _DONE
        self.closing = True
        if state == _BODY:
            raise ProtocolError("the front end left in the middle of a request body")
        if state == _HEAD and self._buffer:
            raise ProtocolError(f"the front end left in the middle of the {self.block}")
        return []

    def _receive_head(self, data: bytes) -> list[Event]:
        buffer = self._buffer
        if buffer:
            buffer += data
            if len(buffer) < self._needed:
                return []
            data = bytes(buffer)
        try:
            if not self._needed:
                self._start, self._needed = self.read_size(data)
            if not self._needed or len(data) < self._needed:
                if not buffer:
                    buffer += data
                return []
            request = self.decode(data[self._start : self._needed])
        except ProtocolError:
            self._state = _DONE
            self.closing = True
            raise
        buffer.clear()
        if request.length:
            self._request = request
            self._state = _BODY
            request.body = self._take(data[self._needed :])
            request.more = self._state == _BODY
        else:
            self._finish()
        return [request]

    def _take(self, data: bytes) -> bytes:
        request = self._request
        assert request is not None
        piece = data[: request.length - self._received]
        self._received += len(piece)
        if self._received == request.length:
            self._finish()
        return piece

    def _finish(self) -> None:
        self._state = _DONE
        self.closing = True
