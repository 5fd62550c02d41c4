"""A reload under way: what it replaces, and who waits for its outcome."""

from __future__ import annotations

from gateway.child import Generation
from gateway.control import Client
from gateway.scaling import Scaling


class Reloading:
    """Begins with HUP or a command; ends well, or with a reason."""

    def __init__(self) -> None:
        self.active = False
        #: What a reload that fails goes back to.
        self.generation: Generation | None = None
        self.scaling: Scaling | None = None
        self._clients: list[Client] = []

    def begin(self, generation: Generation, scaling: Scaling, client: Client | None) -> None:
        """Remember what there is; a reload that overtakes another goes back as far as that."""
        if not self.active:
            self.generation, self.scaling = generation, scaling
        self.active = True
        if client is not None:
            self._clients.append(client)

    def succeed(self, text: str) -> None:
        """All workers run the new code."""
        self._end(True, text)

    def fail(self, reason: str) -> None:
        """The new code does not start."""
        self._end(False, reason)

    def _end(self, ok: bool, text: str) -> None:
        self.active = False
        self.generation = self.scaling = None
        clients, self._clients = self._clients, []
        for client in clients:
            client.tell(ok, text)

    def disown(self) -> None:
        """In a child: close what waits for the manager's answer."""
        for client in self._clients:
            client.close()
