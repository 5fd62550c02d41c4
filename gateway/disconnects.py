"""How an answer ends that does not arrive: what is raised where the application writes."""

from __future__ import annotations

from gateway.budget import NotKept


class ClientDisconnected(ConnectionError):
    """The peer is gone or takes too little; raised where the application writes."""


class TakesTooLittle(ClientDisconnected):
    """It is there, but does not read."""

    def __init__(self) -> None:
        super().__init__("the peer takes too little of its answer")


class AnswerLost(ClientDisconnected):
    """It is there and reads, but what waits for it cannot be kept."""


def disconnected(error: OSError) -> ClientDisconnected:
    """What the end of a connection by ``error`` means for its answer."""
    return (AnswerLost if isinstance(error, NotKept) else ClientDisconnected)(str(error))
