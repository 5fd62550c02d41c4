"""SCGI to requests and back.

One request a connection: a netstring of NUL-ended names and values, then
exactly CONTENT_LENGTH bytes of body (SCGI specification, python.ca/scgi).
The netstring is judged strictly: its length without leading zeros, its comma,
CONTENT_LENGTH first, ``SCGI`` equal to ``1``.
"""

from __future__ import annotations

from typing import ClassVar

from protocols.cgi import CgiCodec, is_length, refusal_head, variables
from protocols.model import Body, Event, Limits, ProtocolError, Request

_HEAD, _BODY, _DONE = range(3)
_COLON = 58
_ZERO = 48


def _refusal(status: str, reason: str) -> ProtocolError:
    return ProtocolError(f"{status[:3]} {reason}", refusal_head(status, reason))


class ScgiCodec(CgiCodec):
    """One SCGI request; the connection closes after its answer."""

    raw_body: ClassVar[bool] = True

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._state = _HEAD
        self._buffer = bytearray()
        self._needed = 0
        self._start = 0
        self._request: Request | None = None
        self._received = 0

    def receive(self, data: bytes) -> list[Event]:
        """Return the request or a piece of its body; what follows is dropped."""
        if self._state == _HEAD:
            return self._receive_head(data)
        if self._state == _BODY:
            piece = self._take(data)
            return [Body(0, piece, self._state == _BODY)]
        return []

    def receive_eof(self) -> list[Event]:
        """Raise ProtocolError if the peer left in the middle; a bare connect is silent."""
        state, self._state = self._state, _DONE
        self.closing = True
        if state == _BODY:
            raise ProtocolError("the front end left in the middle of a request body")
        if state == _HEAD and self._buffer:
            raise ProtocolError("the front end left in the middle of the SCGI headers")
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
                self._read_length(data)
            if not self._needed or len(data) < self._needed:
                if not buffer:
                    buffer += data
                return []
            request = self._decode(data[self._start : self._needed])
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

    def _read_length(self, data: bytes) -> None:
        """Find where the netstring starts and ends."""
        limit = self.limits.request_header_total
        most = len(str(limit)) + 1
        colon = data.find(b":", 0, most)
        digits = data[: colon if colon >= 0 else most]
        if not digits.isdigit() or (digits[0] == _ZERO and len(digits) > 1):
            raise _refusal("400 Bad Request", "the SCGI netstring has no valid length")
        if int(digits) > limit or (colon < 0 and len(digits) == most):
            raise _refusal("431 Request Header Fields Too Large", "the SCGI headers are too large")
        if colon >= 0:
            self._start = colon + 1
            self._needed = self._start + int(digits) + 1

    def _decode(self, head: bytes) -> Request:
        if head[-1:] != b",":
            raise _refusal("400 Bad Request", "the SCGI netstring does not end with a comma")
        parts = head[:-1].decode("latin-1").split("\0")
        names, values = parts[:-1:2], parts[1::2]
        if len(parts) % 2 == 0 or parts[-1]:
            raise _refusal("400 Bad Request", "the SCGI headers are not pairs ended by NUL")
        if names[:1] != ["CONTENT_LENGTH"]:
            raise _refusal("400 Bad Request", "the first SCGI header must be CONTENT_LENGTH")
        if not is_length(values[0]) or names.count(names[0]) != 1:
            raise _refusal("400 Bad Request", "CONTENT_LENGTH must be there once, as digits")
        if "" in names:
            raise _refusal("400 Bad Request", "an SCGI header has an empty name")
        length = int(values[0])
        if "HTTP_CONTENT_LENGTH" in names:
            self._check_false_length(length, values[names.index("HTTP_CONTENT_LENGTH")])
        environ = variables(names, values)
        if environ.pop("SCGI", None) != "1":
            raise _refusal("400 Bad Request", "the header SCGI must be 1")
        environ["CONTENT_LENGTH"] = str(length)
        if self.limits.request_body and length > self.limits.request_body:
            raise _refusal("413 Content Too Large", "the request body is too large")
        request = Request(0, environ, length, b"", False, False)
        request.head_only = environ.get("REQUEST_METHOD") == "HEAD"
        return request

    def _check_false_length(self, length: int, announced: str) -> None:
        """Refuse a length that nginx made up.

        With ``scgi_request_buffering off``, nginx before February 2026 sends as
        CONTENT_LENGTH what had arrived by then: the rest would be lost silently.
        """
        if is_length(announced) and 0 < length < int(announced):
            raise _refusal(
                "400 Bad Request",
                f"CONTENT_LENGTH is {length} but the client announced {int(announced)}: "
                "set scgi_request_buffering on in nginx",
            )

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
