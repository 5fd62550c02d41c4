"""The common request model: what every codec produces and every driver consumes.

The lingua franca is the dictionary of CGI meta-variables (RFC 3875 section 4.1)
as native latin-1 ``str``, the very dictionary that PEP 3333 calls ``environ``.

Rules of this module and of every codec:

* No socket, clock, thread, log or settings; only bytes in, events and bytes out.
* All state of a reply lives on its :class:`Request`, none on the codec, so that
  replying (perhaps in a pool thread) and receiving share nothing mutable.
* :class:`ProtocolError` is the only exception that ``receive`` and
  ``receive_eof`` raise, whatever the bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Final

from protocols.native import mypyc_attr

#: Name and value of each field; of ``protocols.headers.Fields`` too.
Headers = Iterable[tuple[str, str]]

#: Length of a request body or of an answer that nobody announced.
UNKNOWN: Final = -1

#: The status of an answer to a request that there is no room for.
UNAVAILABLE: Final = "503 Service Unavailable"

#: Key of an environ that speaks for somebody behind the peer (HTTP_X_FORWARDED_*,
#: HTTP_FORWARDED): whether that is believed is for the driver to decide.
CLAIMS: Final = "gateway.claims"
#: What is in the bytes of every block of variables that has one of those.
CLAIM_MARK: Final = b"_FORWARDED"


class Limits:
    """Bounds on what one peer may send; sizes in bytes, 0 means no bound where noted.

    ``request_line``, ``request_fields`` and ``request_field_size`` bound the
    HTTP request line, the number of its header fields and each field line.
    ``request_header_total`` bounds the whole head: the HTTP head, the FastCGI
    PARAMS stream, the SCGI netstring.  ``request_body`` bounds a body (0: none).
    ``multiplex`` is the number of FastCGI requests served at once on one
    connection; ``connections`` is what FCGI_MAX_CONNS reports.
    ``keep_alive`` is False where a connection ends with its first answer.
    ``header_map`` says what becomes of HTTP field names with ``_``: drop, refuse
    (the request) or dangerous (they become variables).
    ``base`` is what the environs of codecs that say ``starts_with_base`` start with.
    ``memory`` is for the codecs with these limits: what they remember of other connections.
    """

    __slots__ = (
        "base",
        "connections",
        "header_map",
        "keep_alive",
        "memory",
        "multiplex",
        "request_body",
        "request_field_size",
        "request_fields",
        "request_header_total",
        "request_line",
        "roles",
    )

    def __init__(
        self,
        *,
        request_line: int = 8190,
        request_fields: int = 100,
        request_field_size: int = 8190,
        request_header_total: int = 65536,
        request_body: int = 1 << 30,
        multiplex: int = 32,
        connections: int = 1000,
        roles: Iterable[str] = ("responder", "authorizer", "filter"),
        header_map: str = "drop",
        keep_alive: bool = True,
    ) -> None:
        self.request_line = request_line
        self.request_fields = request_fields
        self.request_field_size = request_field_size
        self.request_header_total = request_header_total
        self.request_body = request_body
        self.multiplex = multiplex
        self.connections = connections
        self.roles = frozenset(roles)
        self.header_map = header_map
        self.keep_alive = keep_alive
        self.base: dict[str, Any] = {}
        self.memory: Any = None


class Request:
    """One request and the state of its reply.

    ``stream``      number of the request on its connection (FastCGI's request id).
    ``environ``     CGI meta-variables, latin-1 ``str``.
    ``length``      announced length of the body, or ``UNKNOWN``.
    ``body``        the part of the body that came with the head.
    ``more``        whether more of the body follows in :class:`Body` events.
    ``keep_alive``  whether the connection goes on after this reply; the driver
                    may clear it until the head is out.
    ``head_only``   the answer has no body bytes (HEAD; set by ``head`` for 204, 304).
    ``chunked``     the reply's body is framed in chunks (HTTP/1.1).
    ``until_close`` the end of the connection is the end of the reply's body.
    ``remaining``   bytes of the reply's body still owed, or ``UNKNOWN``.
    ``ended``       the reply is complete: ``end`` was called.
    ``aborted``     the peer no longer wants the answer (set by the driver).
    ``http10``      the peer speaks HTTP/1.0.
    """

    __slots__ = (
        "aborted",
        "body",
        "chunked",
        "ended",
        "environ",
        "head_only",
        "http10",
        "keep_alive",
        "length",
        "more",
        "remaining",
        "stream",
        "until_close",
    )

    def __init__(
        self,
        stream: int,
        environ: dict[str, Any],
        length: int = 0,
        body: bytes = b"",
        more: bool = False,
        keep_alive: bool = True,
    ) -> None:
        self.stream = stream
        self.environ = environ
        self.length = length
        self.body = body
        self.more = more
        self.keep_alive = keep_alive
        self.head_only = False
        self.chunked = False
        self.until_close = False
        self.remaining = UNKNOWN
        self.ended = False
        self.http10 = False
        self.aborted = False

    def __eq__(self, other: object) -> bool:
        if type(other) is not Request:
            return NotImplemented
        return (
            self.stream == other.stream
            and self.environ == other.environ
            and self.length == other.length
            and self.body == other.body
            and self.more == other.more
            and self.keep_alive == other.keep_alive
            and self.head_only == other.head_only
            and self.http10 == other.http10
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return (
            f"Request({self.stream}, {self.environ!r}, length={self.length}, body={self.body!r}, "
            f"more={self.more}, keep_alive={self.keep_alive})"
        )


class Body:
    """A further piece of the body of request ``stream``; ``more`` is False on the last."""

    __slots__ = ("data", "more", "stream")

    def __init__(self, stream: int, data: bytes, more: bool) -> None:
        self.stream = stream
        self.data = data
        self.more = more

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return (self.stream, self.data, self.more) == (
            other.stream,
            other.data,
            other.more,
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.stream}, {self.data!r}, more={self.more})"


class Data(Body):
    """A piece of FastCGI's FCGI_DATA stream (Filter role), kept apart from the body."""

    __slots__ = ()


class Abort:
    """The peer no longer wants the answer to request ``stream``."""

    __slots__ = ("stream",)

    def __init__(self, stream: int) -> None:
        self.stream = stream

    def __eq__(self, other: object) -> bool:
        if type(other) is not Abort:
            return NotImplemented
        return self.stream == other.stream

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Abort({self.stream})"


class Interim:
    """What is said at once to the peer of request ``stream``, in turn with the answers.

    An interim response of HTTP (RFC 9110 section 15.2): it stands before its
    request, so that it cannot overtake the answer of another nor come too late.
    """

    __slots__ = ("data", "stream")

    def __init__(self, stream: int, data: bytes) -> None:
        self.stream = stream
        self.data = data

    def __eq__(self, other: object) -> bool:
        if type(other) is not Interim:
            return NotImplemented
        return (self.stream, self.data) == (other.stream, other.data)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Interim({self.stream}, {self.data!r})"


Event = Request | Body | Abort | Interim


class ProtocolError(Exception):
    """The peer broke the protocol; the connection cannot go on.

    ``reason`` is one line for the log, ``reply`` what may still be said on the
    wire before closing, and ``events`` what came before the error in the same
    buffer and still has to be served.
    """

    def __init__(self, reason: str, reply: bytes = b"") -> None:
        super().__init__(reason)
        self.reason = reason
        self.reply = reply
        self.events: list[Event] = []


@mypyc_attr(allow_interpreted_subclasses=True)
class Codec:
    """One protocol on one connection: bytes to events, replies to bytes.

    ``receive`` takes a whole buffer and returns coarse events; pausing means
    not calling it.  Where a small buffer could become a great many events, ``rest``
    is what it has put off: the driver takes it from there and has it received when
    those events have had their turn, before anything else.  ``outbox`` holds what
    the protocol itself must say (FCGI_GET_VALUES_RESULT, a refusal of one stream):
    the driver sends and clears it, and logs and clears ``refusals``, the reasons of
    what it refuses there.  ``closing`` is set when nothing more will be read: close once
    the output is flushed.
    """

    #: Whether the peer is the client itself, which needs Date and Server (RFC 9110).
    origin: ClassVar[bool] = False
    #: Whether several requests of one connection may be answered at once.
    concurrent: ClassVar[bool] = False
    #: Whether every environ that has claims is marked with the key ``CLAIMS``; if
    #: not, the driver looks for them itself.
    marks_claims: ClassVar[bool] = False
    #: Whether its environs start with ``limits.base``; if not, the driver adds that.
    starts_with_base: ClassVar[bool] = False
    #: Whether raw body bytes may follow ``head`` unframed when ``remaining`` is known.
    raw_body: ClassVar[bool] = True
    #: Whether a file may go out in pieces of ``most_framed`` bytes between their ``edges``.
    frames_files: ClassVar[bool] = False
    #: The largest piece that ``edges`` frames; 0: it frames none.
    most_framed: ClassVar[int] = 0

    #: Bytes that ``receive`` has put off.
    rest: bytes = b""

    outbox: bytes
    refusals: list[str]
    closing: bool
    limits: Limits

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.outbox = b""
        self.refusals = []
        self.closing = False

    def receive(self, data: bytes) -> list[Event]:
        """Return the events in ``data``; ``data`` is not empty.

        Raises ProtocolError.
        """
        raise NotImplementedError

    def owed(self) -> int:
        """How many bytes of a body come next, as they are and before anything else; 0: unknown.

        The driver may have so many put straight where the body is kept, and say so
        with ``arrived``; ``receive`` sees none of them.
        """
        return 0

    def arrived(self, count: int) -> bool:
        """``count`` of the bytes that were owed are here; True if the body is whole."""
        raise NotImplementedError

    def receive_eof(self) -> list[Event]:
        """The peer sends no more.  Raises ProtocolError if that cuts a request off."""
        raise NotImplementedError

    def is_between_requests(self) -> bool:
        """Whether a new codec could go on with the connection: nothing is begun on it."""
        return False

    def close(self) -> None:
        """The connection is closed: let go of what refers back to the codec."""

    def head(self, request: Request, status: str, headers: Headers, length: int) -> bytes:
        """Encode the head of a reply and settle its framing on ``request``.

        ``length`` is the body's length where it is known, else ``UNKNOWN``; a
        Content-Length among ``headers`` wins.  Raises ValueError or TypeError
        for a status or header that must not reach the wire.
        """
        raise NotImplementedError

    def body(self, request: Request, data: bytes) -> bytes:
        """Frame a piece of the reply's body; empty for an empty piece."""
        raise NotImplementedError

    def edges(self, request: Request, size: int) -> tuple[bytes, bytes]:
        """What stands before and behind a piece of ``size`` bytes, which is not copied.

        As ``body``, for 1 to ``most_framed`` bytes of a reply that has content
        (not ``head_only``).
        """
        raise NotImplementedError

    def end(self, request: Request) -> bytes:
        """Encode the end of a complete reply."""
        raise NotImplementedError

    def reply(self, request: Request, status: str, headers: Headers, data: bytes) -> bytes:
        """Encode a whole reply at once; ``data`` must fit what ``head`` announces."""
        return (
            self.head(request, status, headers, len(data))
            + self.body(request, data)
            + self.end(request)
        )

    def overloaded(self, request: Request, headers: Headers, data: bytes) -> bytes:
        """Encode a whole 503 to a request that found no room."""
        return self.reply(request, UNAVAILABLE, headers, data)

    def errors(self, request: Request, text: str) -> bytes:
        """Frame what the application wrote to ``wsgi.errors``, where the peer takes it."""
        del request, text
        return b""

    def timed_out(self) -> bytes:
        """What may be said to a peer that did not finish its request in time."""
        return b""

    def resets_to_cut(self, request: Request) -> bool:
        """Whether only a reset can tell the peer that this started reply is incomplete."""
        del request
        return True
