"""What the compiler of the optional build (mypyc) is told; nothing else reads it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr
else:

    def mypyc_attr(**_attributes: Any) -> Callable[[type], type]:
        """Mark a class for the compiler; the class itself stays as it is."""
        return lambda marked: marked


__all__ = ["mypyc_attr"]
