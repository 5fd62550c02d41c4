"""One FastCGI request while it arrives."""

from __future__ import annotations

from protocols.cgi import drop_foreign
from protocols.fastcgi_records import decode_pairs
from protocols.model import CLAIM_MARK, CLAIMS, UNKNOWN, Request


def variables_of(block: bytes) -> dict[str, str]:
    """The variables of a whole PARAMS stream.  Raises ValueError."""
    environ = decode_pairs(block)
    drop_foreign(environ)
    if CLAIM_MARK in block:
        environ[CLAIMS] = ""
    return environ


class Stream:
    """One request while it arrives."""

    __slots__ = (
        "data_done",
        "data_length",
        "data_received",
        "fresh",
        "keep",
        "params",
        "received",
        "request",
        "role",
        "size",
        "stdin_done",
    )

    def __init__(self, role: str, keep: bool) -> None:
        self.role = role
        self.keep = keep
        self.params: list[bytes] = []
        self.size = 0
        self.request: Request | None = None
        self.received = 0
        self.stdin_done = role == "authorizer"  # section 6.3: it gets no body
        self.data_length = UNKNOWN
        self.data_received = 0
        self.data_done = role != "filter"
        self.fresh = False

    @property
    def arriving(self) -> bool:
        """Whether records of this request are still due."""
        request = self.request
        if request is None:
            return True
        return not (request.ended or (self.stdin_done and self.data_done))

    def open(self, number: int, environ: dict[str, str], length: int, body: bytes) -> Request:
        """The request, whose variables are known now."""
        self.request = request = Request(number, environ, length, body, False, self.keep)
        request.head_only = environ.get("REQUEST_METHOD") == "HEAD"
        return request
