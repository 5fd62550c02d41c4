"""Which build runs: the compiled modules, or the Python that they were made of.

``GATEWAY_PURE=1`` in the environment leaves out all that is compiled.  So does
a source tree in which a file is newer than what was compiled of it: who edits
Python there expects that it runs.
"""

from __future__ import annotations

import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, FileFinder, SourceFileLoader
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_HERE = Path(__file__).parent
_FOLDERS = (_HERE, _HERE.parent / "gateway")
#: Both packages' compiled code is in one library.
_LIBRARY = "compiled__mypyc"
_LOOPS = "pure Python but for some loops"


class _SourceFinder(MetaPathFinder):
    """Finds our modules' sources before anything compiled of them."""

    def __init__(self) -> None:
        loader = (SourceFileLoader, SOURCE_SUFFIXES)
        self._finders = {folder.name: FileFinder(str(folder), loader) for folder in _FOLDERS}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        del path, target
        package, dot, _ = fullname.partition(".")
        finder = self._finders.get(package) if dot else None
        return finder.find_spec(fullname) if finder else None


def _compiled(folder: Path, name: str = "*") -> list[Path]:
    return [path for suffix in EXTENSION_SUFFIXES[:1] for path in folder.glob(name + suffix)]


def _is_stale() -> bool:
    """Whether anything that is compiled is older than what it was compiled of."""
    compiled = [path for folder in _FOLDERS for path in _compiled(folder)]
    built = min(path.stat().st_mtime for path in compiled)
    names = [path.name.partition(".")[0] for path in compiled]
    sources = [
        path
        for folder in _FOLDERS
        for path in folder.iterdir()
        if path.suffix in (".c", ".h") or (path.suffix == ".py" and path.stem in names)
    ]
    return any(path.stat().st_mtime > built for path in sources)


def _choose() -> str:
    """What runs, for people."""
    if os.environ.get("GATEWAY_PURE", "") not in ("", "0") or not _compiled(_HERE):
        return "pure Python"
    if (_HERE.parent / "pyproject.toml").exists() and _is_stale():
        return "pure Python: what is compiled is older than its sources"
    return "compiled" if _compiled(_HERE, _LIBRARY) else _LOOPS


#: "compiled", or why not.
BUILD = _choose()
COMPILED = BUILD == "compiled"
#: Whether the loops in C may be used.
WANTED = BUILD in ("compiled", _LOOPS)

if not COMPILED:
    sys.meta_path.insert(0, _SourceFinder())
