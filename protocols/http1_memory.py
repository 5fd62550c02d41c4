"""Parts of heads that were judged before.

Most clients send the same fields with each of their requests, and ask for the
same few targets.  A request line, and the block of fields behind it, mean the
same whenever they come, so what came out of them once is copied instead of
parsed again.  Only what came twice is kept: what never comes back must not cost
more than its hash.
"""

from __future__ import annotations

from typing import Final

#: Bytes of a line, of a block and of a head, how many of each are kept, and how many hashes
#: of what came once.
_LARGEST_LINE: Final = 256
_LARGEST_BLOCK: Final = 2048
LARGEST_HEAD: Final = 2048
_MOST_KNOWN: Final = 256
_MOST_SEEN: Final = 1024

#: Methods that any reader of HTTP knows, with which fields have their plain meaning.
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def is_plain(method: str, target: str, version: str) -> bool:
    """Whether nothing else in a head depends on this request line (RFC 9112 section 3)."""
    return (
        version == "HTTP/1.1"
        and method in _METHODS
        and target[:1] == "/"
        and target.isascii()
        and target.isprintable()
    )


class Memory:
    """What is remembered for all connections with the same limits.

    ``lines``   the variables of a plain request line, with those of its path.
    ``blocks``  the environ of a block of fields behind a plain request line, in a
                request that keeps its connection; what all environs start with and
                what the line gave is in it too.
    ``last_blocks``  the same, in a request that is the last of its connection.
    ``heads``   the environ of a whole head, of a plain line and a remembered block: of a
                request with no body that keeps its connection and is no HEAD.
    ``last_heads``  the same, of a request that is the last of its connection.
    """

    __slots__ = ("_seen", "blocks", "heads", "last_blocks", "last_heads", "lines")

    def __init__(self) -> None:
        self.lines: dict[bytes, dict[str, str]] = {}
        self.blocks: dict[bytes, dict[str, str]] = {}
        self.last_blocks: dict[bytes, dict[str, str]] = {}
        self.heads: dict[bytes, dict[str, str]] = {}
        self.last_heads: dict[bytes, dict[str, str]] = {}
        self._seen: set[int] = set()

    def learn_line(self, line: bytes, start: dict[str, str]) -> None:
        """Keep what came out of ``line``, if it is not the first time that it came."""
        if len(line) <= _LARGEST_LINE and self._came_before(line):
            _keep(self.lines, line, start)

    def learn_block(self, block: bytes, environ: dict[str, str], *, keep_alive: bool) -> None:
        """The same for a block; one that frames or negotiates a body is not kept."""
        if (
            len(block) <= _LARGEST_BLOCK
            and "HTTP_TRANSFER_ENCODING" not in environ
            and "HTTP_EXPECT" not in environ
            and self._came_before(block)
        ):
            _keep(self.blocks if keep_alive else self.last_blocks, block, environ)

    def learn_head(self, head: bytes, environ: dict[str, str], *, keep_alive: bool) -> None:
        """The same for a whole head, which the caller has judged as above."""
        if len(head) <= LARGEST_HEAD and self._came_before(head):
            _keep(self.heads if keep_alive else self.last_heads, head, environ)

    def _came_before(self, part: bytes) -> bool:
        number = hash(part)
        if number in self._seen:
            return True
        if len(self._seen) >= _MOST_SEEN:
            self._seen.clear()
        self._seen.add(number)
        return False


def _keep(known: dict[bytes, dict[str, str]], part: bytes, environ: dict[str, str]) -> None:
    if len(known) >= _MOST_KNOWN:
        known.clear()
    known[part] = environ.copy()
