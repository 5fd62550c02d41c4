"""Configuration files: TOML, and Python as gunicorn has it.

A TOML file holds settings and nothing else: an unknown name is a mistake.  A
Python file is executed, by the manager, at the start and again at every
reload; it may hold anything, so what is no setting and no hook is reported, not
refused.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import sys
import sysconfig
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from gateway.gunicorn import NOT_USED, translate
from gateway.hooks import HOOKS, NO_HOOKS, Hooks
from gateway.kinds import SettingError

#: Files that are looked for, the one that counts first.
TOML_FILE = "gateway.toml"
PYTHON_FILE = "gateway.conf.py"
PROJECT_FILE = "pyproject.toml"

#: The name under which a configuration file is a module while it is executed and afterwards.
_MODULE = "__config__"

#: What a plain name in a Python file may hold to be taken for a mistake in a setting.
_PLAIN = (str, bytes, int, float, list, tuple, dict, set, frozenset)


@dataclass(frozen=True)
class Configuration:
    """What a file says: settings, hooks, and what the log should say of it once."""

    source: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    hooks: Hooks = NO_HOOKS
    notes: tuple[str, ...] = ()


def find(folder: Path, known: Collection[str]) -> Configuration:
    """Read the configuration file of ``folder``, if it has one.  Raises SettingError.

    gateway.toml counts before gateway.conf.py, and that before pyproject.toml.
    """
    present = [name for name in (TOML_FILE, PYTHON_FILE) if (folder / name).is_file()]
    if not present:
        project = (folder / PROJECT_FILE).is_file()
        return read(folder, PROJECT_FILE, known) if project else Configuration()
    found = read(folder, present[0], known)
    if len(present) == 1:
        return found
    note = f"{present[0]} is used, {present[1]} is not: -c says which one is meant"
    return replace(found, notes=(note, *found.notes))


def read(folder: Path, name: str, known: Collection[str]) -> Configuration:
    """Read one file; ``known`` are the names of all settings.  Raises SettingError."""
    path = folder / name
    if path.suffix == ".py":
        return _from_python(folder, path, name, known)
    return Configuration(name, _from_toml(path, known))


def _from_toml(path: Path, known: Collection[str]) -> Mapping[str, Any]:
    try:
        table = tomllib.loads(_content(path).decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingError("config", str(path), f"this is no TOML: {error}") from None
    if path.name == PROJECT_FILE:
        table = table.get("tool", {}).get("gateway", {})
        if not isinstance(table, dict):
            raise SettingError("tool.gateway", table, "a table of settings is allowed", str(path))
    for name in table:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"allowed are {', '.join(known)}"
            raise SettingError(name, table[name], f"there is no such setting; {hint}", str(path))
    return table


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingError("config", str(path), error.strerror or str(error)) from None


# Python


def _from_python(folder: Path, path: Path, source: str, known: Collection[str]) -> Configuration:
    # None is "as by default", as if the name were not there.
    names = {
        name: value
        for name, value in _execute(folder, path).items()
        if not (name.startswith("_") or value is None or isinstance(value, ModuleType))
    }
    values = {name: value for name, value in names.items() if name in known}
    functions = {name: value for name, value in names.items() if name in HOOKS}
    rest = {name: value for name, value in names.items() if name not in {*values, *functions}}
    translate(values, rest)
    unused = []
    for name, value in rest.items():
        if name in NOT_USED:
            if value:
                unused.append(f"{name} ({NOT_USED[name]})")
        elif isinstance(value, _PLAIN):
            unused.append(_unknown(name, known))
    notes = (f"not used of {source}: {', '.join(unused)}",) if unused else ()
    return Configuration(source, values, Hooks(functions, source), notes)


def _unknown(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, [*known, *HOOKS], 1, cutoff=0.8)
    return f"{name} (no setting; did you mean {near[0]}?)" if near else f"{name} (no setting)"


def _execute(folder: Path, path: Path) -> dict[str, Any]:
    """The names that a Python file defines.  Raises SettingError."""
    content = _content(path)
    module = ModuleType(_MODULE)
    module.__file__ = os.path.abspath(path)
    start = os.path.abspath(folder)
    if start not in sys.path:  # for the file's imports, and for those inside its hooks
        sys.path.insert(0, start)
    try:
        with _fresh_modules(), contextlib.chdir(start):
            sys.modules[_MODULE] = module
            exec(compile(content, module.__file__, "exec", dont_inherit=True), vars(module))  # noqa: S102
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it may do anything
        raise SettingError("config", str(path), _fault(error, module.__file__)) from None
    return vars(module)


def _fault(error: BaseException, file: str) -> str:
    """Where and why a file failed."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return f"line {error.lineno}: {type(error).__name__}: {error.msg}"
    line = 0
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == file:
            line = trace.tb_lineno
        trace = trace.tb_next
    reason = "it exits" if isinstance(error, SystemExit) else type(error).__name__
    text = f"{reason}: {error}" if str(error) else reason
    return f"line {line}: {text}" if line else text


#: Modules of the user's own that the file in use has imported.
_imported: set[str] = set()


@contextlib.contextmanager
def _fresh_modules() -> Iterator[None]:
    """Have the user's own modules that the file imports read again.

    New workers are forked from the manager: what it has imported they have too,
    and a reload would leave them with the old version of it.  If the file
    fails, all is as before.
    """
    old = {name: sys.modules.pop(name) for name in (*_imported, _MODULE) if name in sys.modules}
    before = set(sys.modules)
    importlib.invalidate_caches()
    try:
        yield
    except BaseException:
        for name in _own_modules(before) | {_MODULE}:
            sys.modules.pop(name, None)
        sys.modules.update(old)
        raise
    _imported.clear()
    _imported.update(_own_modules(before))


def _own_modules(before: Collection[str]) -> set[str]:
    """Modules imported since ``before`` that are neither Python's nor installed."""
    paths = sysconfig.get_paths()
    libraries = [paths[name] + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    found = set()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        if (
            name not in before
            and file.endswith(".py")
            and not file.startswith(tuple(libraries))
            and name.partition(".")[0] not in ("gateway", "protocols")
            and name != _MODULE
        ):
            found.add(name)
    return found
