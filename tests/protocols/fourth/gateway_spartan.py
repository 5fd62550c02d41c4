"""Spartan (spartan.mozz.us): one line asks, one line answers.

The request is ``host path length CRLF`` and length bytes of body; the answer is a digit,
a meta text, CRLF and, after success, a body that ends with the connection.
"""

from __future__ import annotations

from typing import ClassVar
from urllib.parse import unquote_to_bytes

from protocols.headers import encode_fields, status_code
from protocols.model import Body, Codec, Event, Headers, Limits, ProtocolError, Request

_LINE, _BODY, _DONE = range(3)
_KINDS = {2: "2", 3: "3", 4: "4", 5: "5"}


def _refusal(reason: str) -> ProtocolError:
    return ProtocolError(reason, f"4 {reason}\r\n".encode("latin-1", "replace"))


class SpartanCodec(Codec):
    """One Spartan request; the connection closes after its answer."""

    origin: ClassVar[bool] = True

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._state = _LINE
        self._buffer = bytearray()
        self._searched = 0
        self._owed = 0

    def receive(self, data: bytes) -> list[Event]:
        """Return the request or a piece of its body; what follows is dropped."""
        try:
            if self._state == _LINE:
                return self._receive_line(data)
        except ProtocolError:
            self._finish()
            raise
        if self._state == _BODY:
            piece = self._take(data)
            return [Body(0, piece, self._state == _BODY)]
        return []

    def receive_eof(self) -> list[Event]:
        """Raise ProtocolError if the client left in the middle; a bare connect is silent."""
        cut = self._state == _BODY or (self._state == _LINE and self._buffer)
        self._finish()
        if cut:
            raise ProtocolError("the client left in the middle of a request")
        return []

    def _receive_line(self, data: bytes) -> list[Event]:
        buffer = self._buffer
        buffer += data
        end = buffer.find(b"\r\n", max(0, self._searched - 1))
        self._searched = len(buffer)
        if (end if end >= 0 else len(buffer) - 1) > self.limits.request_line:
            raise _refusal("the request line is too long")
        if end < 0:
            return []
        line, rest = bytes(buffer[:end]), bytes(buffer[end + 2 :])
        buffer.clear()
        try:
            host, path, digits = line.decode("ascii").split(" ")
        except ValueError:
            raise _refusal("the request line is malformed") from None
        if not (host and path.startswith("/") and digits.isdigit() and len(digits) < 19):
            raise _refusal("the request line is malformed")
        length = int(digits)
        if self.limits.request_body and length > self.limits.request_body:
            raise _refusal("the request body is too large")
        environ = {
            "REQUEST_METHOD": "POST" if length else "GET",
            "SERVER_PROTOCOL": "SPARTAN",
            "REQUEST_URI": path,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "QUERY_STRING": "",
            "CONTENT_LENGTH": str(length),
            "HTTP_HOST": host,
        }
        self._owed = length
        self._state = _BODY
        piece = self._take(rest)
        return [Request(0, environ, length, piece, self._state == _BODY, keep_alive=False)]

    def _take(self, data: bytes) -> bytes:
        piece = data[: self._owed]
        self._owed -= len(piece)
        if not self._owed:
            self._finish()
        return piece

    def _finish(self) -> None:
        self._state = _DONE
        self.closing = True

    def head(self, request: Request, status: str, headers: Headers, length: int) -> bytes:
        """Encode the one line: type on success, target of a redirect, else the reason."""
        code = status_code(status)
        encode_fields(headers)
        fields = {name.lower(): value for name, value in headers}
        kind = _KINDS.get(code // 100, "5")
        meta = status[4:]
        if kind == "2":
            meta = fields.get("content-type", "application/octet-stream")
        elif kind == "3":
            meta = fields.get("location", "/")
        request.head_only = kind != "2"
        request.until_close = True
        return f"{kind} {meta}\r\n".encode("latin-1")

    def body(self, request: Request, data: bytes) -> bytes:
        """Return the piece; only a success has a body."""
        return b"" if request.head_only else data

    def end(self, request: Request) -> bytes:
        """Nothing marks the end but the end of the connection."""
        request.ended = True
        return b""
