"""SCGI to requests and back.

One request a connection: a netstring of NUL-ended names and values, then
exactly CONTENT_LENGTH bytes of body (SCGI specification, python.ca/scgi).
The netstring is judged strictly: its length without leading zeros, its comma,
CONTENT_LENGTH first, ``SCGI`` equal to ``1``.
"""

from __future__ import annotations

from typing import ClassVar, Final

from protocols.cgi import FOREIGN, drop_foreign, is_cut_short, is_length, refusal_head, variables
from protocols.model import CLAIM_MARK, CLAIMS, ProtocolError, Request
from protocols.native import mypyc_attr
from protocols.single import SingleRequestCodec
from protocols.speed import scgi_pairs, scgi_request

_ZERO: Final = 48


def _refusal(status: str, reason: str) -> ProtocolError:
    return ProtocolError(f"{status[:3]} {reason}", refusal_head(status, reason))


@mypyc_attr(allow_interpreted_subclasses=True)
class ScgiCodec(SingleRequestCodec):
    """One SCGI request; the connection closes after its answer."""

    block: ClassVar[str] = "SCGI headers"

    def read_size(self, data: bytes) -> tuple[int, int]:
        """Where the netstring starts and ends."""
        limit = self.limits.request_header_total
        most = len(str(limit)) + 1
        colon = data.find(b":", 0, most)
        digits = data[: colon if colon >= 0 else most]
        if not digits.isdigit() or (digits[0] == _ZERO and len(digits) > 1):
            raise _refusal("400 Bad Request", "the SCGI netstring has no valid length")
        if int(digits) > limit or (colon < 0 and len(digits) == most):
            raise _refusal("431 Request Header Fields Too Large", "the SCGI headers are too large")
        if colon < 0:
            return 0, 0
        return colon + 1, colon + 1 + int(digits) + 1

    def whole(self, data: bytes) -> Request | None:
        """A request without a body."""
        limits = self.limits
        environ = scgi_request(data, FOREIGN, limits.base)
        if environ is None or "" in environ or len(data) > limits.request_header_total:
            return None
        return self.open(environ, 0)

    def decode(self, block: bytes) -> Request:
        """The request of a netstring and its comma."""
        if block[-1:] != b",":
            raise _refusal("400 Bad Request", "the SCGI netstring does not end with a comma")
        environ = scgi_pairs(block[:-1])
        if environ is None:
            environ = _pairs(block[:-1])
        if next(iter(environ), "") != "CONTENT_LENGTH":
            raise _refusal("400 Bad Request", "the first SCGI header must be CONTENT_LENGTH")
        if not is_length(environ["CONTENT_LENGTH"]):
            raise _refusal("400 Bad Request", "CONTENT_LENGTH must be there once, as digits")
        if "" in environ:
            raise _refusal("400 Bad Request", "an SCGI header has an empty name")
        length = int(environ["CONTENT_LENGTH"])
        if "HTTP_CONTENT_LENGTH" in environ:
            self._check_false_length(length, environ["HTTP_CONTENT_LENGTH"])
        drop_foreign(environ)
        if block.find(CLAIM_MARK) >= 0:
            environ[CLAIMS] = ""
        if environ.pop("SCGI", None) != "1":
            raise _refusal("400 Bad Request", "the header SCGI must be 1")
        environ["CONTENT_LENGTH"] = str(length)
        if self.limits.request_body and length > self.limits.request_body:
            raise _refusal("413 Content Too Large", "the request body is too large")
        environ.update(self.limits.base)
        return self.open(environ, length)

    def _check_false_length(self, length: int, announced: str) -> None:
        """Refuse a length that nginx made up.

        With ``scgi_request_buffering off``, nginx before February 2026 sends as
        CONTENT_LENGTH what had arrived by then: the rest would be lost silently.
        """
        if is_cut_short(length, announced):
            raise _refusal(
                "400 Bad Request",
                f"CONTENT_LENGTH is {length} but the client announced {int(announced)}: "
                "set scgi_request_buffering on in nginx",
            )


def _pairs(text: bytes) -> dict[str, str]:
    """What is between the netstring's colon and its comma.  Raises ProtocolError."""
    parts = text.decode("latin-1").split("\0")
    names, values = parts[:-1:2], parts[1::2]
    if len(parts) % 2 == 0 or parts[-1]:
        raise _refusal("400 Bad Request", "the SCGI headers are not pairs ended by NUL")
    if names.count("CONTENT_LENGTH") > 1:
        raise _refusal("400 Bad Request", "CONTENT_LENGTH must be there once, as digits")
    return variables(names, values)
