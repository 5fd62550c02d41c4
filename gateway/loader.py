"""From "module:attr" to the WSGI application, with errors that say what there is."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from gateway.settings import Settings
from gateway.xsendfile import FileSender

DEFAULT_ATTRIBUTES = ("application", "app")


class LoadError(Exception):
    """The application cannot be had; the message is for the user.

    An exception of the application's own code is not wrapped: its traceback is
    what helps.
    """


def load_application(target: str) -> Callable[..., Any]:
    """Import ``module:attr``, ``module:factory()`` or ``path/to/file.py:attr``.

    Without an attribute, ``application`` and then ``app`` are looked up.
    Raises LoadError, or whatever the imported code raises.
    """
    name, _, attribute = target.partition(":")
    if not name:
        raise LoadError(f"{target!r} names no module; it must look like module:attr")
    module = _load_file(Path(name)) if name.endswith(".py") else _load_module(name)
    found = _find(module, name, attribute.strip())
    if not callable(found):
        raise LoadError(f"{target!r} is a {type(found).__name__}, which cannot be called")
    return found  # type: ignore[no-any-return]


def load_from_settings(settings: Settings) -> Callable[..., Any]:
    """Load the application of ``settings``, from its folder and with its module search path.

    Raises as ``load_application``, and OSError if the folder is gone.
    """
    if settings.chdir is not None:
        os.chdir(settings.chdir)  # a reload may have found another one by the same name
    for folder in (*reversed(settings.pythonpath), os.getcwd()):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    application = load_application(settings.wsgi_app)
    if settings.x_sendfile_root is not None:
        return FileSender(application, settings.x_sendfile_root)
    return application


def _load_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(missing + "."):
            raise LoadError(
                f"there is no module {missing!r} (searched in {', '.join(sys.path)})"
            ) from None
        raise


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise LoadError(f"there is no file {str(path)!r}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise LoadError(f"{str(path)!r} is no Python file")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _find(module: ModuleType, name: str, attribute: str) -> Any:
    if not attribute:
        for default in DEFAULT_ATTRIBUTES:
            if hasattr(module, default):
                return getattr(module, default)
        raise LoadError(
            f"{name} has neither application nor app; it has {_callables(module)}: "
            f"name one, such as {name}:NAME"
        )
    is_factory = attribute.endswith("()")
    found: Any = module
    for part in attribute.removesuffix("()").split("."):
        if not hasattr(found, part):
            near = get_close_matches(part, dir(found), 1)
            hint = f"did you mean {near[0]}?" if near else f"it has {_callables(found)}"
            raise LoadError(f"{name} has no {part!r}; {hint}")
        found = getattr(found, part)
    if is_factory:
        if not callable(found):
            raise LoadError(f"{name}:{attribute} is a {type(found).__name__}, not a factory")
        return found()
    return found


def _callables(module: Any) -> str:
    names = [
        name for name, value in vars(module).items() if callable(value) and not name.startswith("_")
    ]
    return ", ".join(sorted(names)) or "nothing that can be called"
