"""What the bridge to the application needs of that which carries a request's answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from protocols.model import Codec, Request
from protocols.native import mypyc_attr

if TYPE_CHECKING:
    from gateway.filerange import FileRange
    from gateway.service import Service
    from gateway.serving import Serving
    from gateway.settings import Settings


@mypyc_attr(allow_interpreted_subclasses=True)
class Carrier:
    """A connection, or what stands for one where a process serves one request.

    ``codec``     what frames answers.
    ``service``   what all connections of its bind have in common.
    ``own``       what is in the environ of its requests beside what is in all of the service.
    ``peer``      what the logs call the peer.
    ``slots``     how many of its requests may run at once.
    ``gone``      nothing can be sent any more.
    ``closing``   nothing more is read; it closes when all is answered.
    ``send_flags``  what the next ``send`` is told of it (send(2)).
    ``wrote``     when the last piece of an answer was written (monotonic); 0: none was.
    """

    __slots__ = (
        "closing",
        "codec",
        "gone",
        "own",
        "peer",
        "send_flags",
        "service",
        "settings",
        "slots",
        "worker",
        "wrote",
    )

    worker: Serving
    settings: Settings
    service: Service
    codec: Codec
    own: Mapping[str, Any]
    peer: str
    slots: int
    gone: bool
    closing: bool
    send_flags: int
    wrote: float

    def write(
        self, data: bytes, rest: bytes = b"", tail: bytes = b"", *, wait: bool = False
    ) -> float:
        """Send all three; returns for how many seconds that waited.  Raises ClientDisconnected."""
        raise NotImplementedError

    def write_parts(self, parts: list[Any]) -> None:
        """Send what is bytes and views of bytes.  Raises ClientDisconnected."""
        self.write(b"".join(parts))

    def write_file(self, head: bytes, piece: FileRange, tail: bytes = b"") -> None:
        """Send ``head``, a range of a file and ``tail``.  Raises ClientDisconnected."""
        raise NotImplementedError

    def has_framed_file(self) -> bool:
        """Whether a file waits to go out in records; without a lock."""
        return False

    def cut(self, request: Request) -> None:
        """End a started answer so that the peer can tell that it is not whole."""
        raise NotImplementedError

    def has_left(self) -> bool:
        """Whether the peer has closed the connection."""
        raise NotImplementedError

    def client_disconnected(self, stream: int = 0) -> bool:
        """Whether nobody waits for the answer to request ``stream``."""
        raise NotImplementedError

    def abandoned(self, request: Request) -> None:
        """The server has answered in place of the thread that serves ``request``."""
        raise NotImplementedError
