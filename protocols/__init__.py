"""Wire codecs: bytes in, requests out, and back; found by entry point.

A codec is a class derived from :class:`protocols.model.Codec`, registered under
``[project.entry-points."gateway.protocols"]``.  None is imported before it is
asked for.
"""

from __future__ import annotations

from importlib.metadata import entry_points

import protocols.builds  # noqa: F401 - first: it decides where the others come from
from protocols.model import Codec

GROUP = "gateway.protocols"


def names() -> list[str]:
    """The names of the installed protocols, sorted."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def codec_class(name: str) -> type[Codec]:
    """The codec of a protocol.

    Raises LookupError if no installed package provides it and TypeError if
    what it provides is no codec.
    """
    for point in entry_points(group=GROUP):
        if point.name == name:
            found = point.load()
            if not (isinstance(found, type) and issubclass(found, Codec)):
                raise TypeError(f"the protocol {name!r} is no Codec: {point.value}")
            return found
    raise LookupError(f"there is no protocol {name!r}; there are {', '.join(names())}")
