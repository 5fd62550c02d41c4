"""Where settings come from: all sources are read, and the strongest counts.

Weakest first: defaults, configuration file, environment, options in
``GATEWAY_CMD_ARGS``, command line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway import configfile
from gateway.hooks import NO_HOOKS, Hooks
from gateway.kinds import SettingError, Unfit, is_auto
from gateway.settings import Settings, kind_of

if TYPE_CHECKING:
    from ssl import SSLContext

PREFIX = "GATEWAY_"

#: The variable with further options, weaker than those on the command line.
CMD_ARGS = "GATEWAY_CMD_ARGS"


@dataclass(frozen=True)
class Resolved:
    """Settings, and which source set each of them; hooks, and what to log once.

    ``tls`` is what the settings about certificates stand for, once the files are read.
    """

    settings: Settings
    sources: dict[str, str]
    hooks: Hooks = NO_HOOKS
    notes: tuple[str, ...] = ()
    tls: SSLContext | None = None

    def lines(self) -> Iterator[str]:
        """One line a setting: name, value, source."""
        for item in fields(Settings):
            shown = _shown(item.name, getattr(self.settings, item.name))
            yield f"{item.name} = {shown}  ({self.sources[item.name]})"


def _shown(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name == "umask":
        return f"{value:04o}"
    return ",".join(value) if isinstance(value, tuple) else str(value)


def resolve(
    arguments: Mapping[str, Any],
    environ: Mapping[str, str],
    config: str | None = None,
    folder: str = "",
    options: Mapping[str, Any] | None = None,
) -> Resolved:
    """Read all sources; files are looked for from ``folder``.

    ``arguments`` are from the command line, ``options`` from GATEWAY_CMD_ARGS.
    Raises SettingError.
    """
    names = [item.name for item in fields(Settings)]
    place = Path(folder)
    found = (
        configfile.find(place, names) if config is None else configfile.read(place, config, names)
    )
    layers: list[tuple[str, Mapping[str, Any]]] = [
        ("environment", _conventions(environ)),
        (found.source, found.values),
        ("environment", _from_environ(environ)),
        (CMD_ARGS, options or {}),
        ("command line", arguments),
    ]
    values: dict[str, Any] = {}
    sources = dict.fromkeys(names, "default")
    for source, layer in layers:
        for name, value in layer.items():
            values[name] = _read(name, value, source)
            automatic = name == "workers" and is_auto(value)
            sources[name] = f"{source}: auto" if automatic else source
    settings = _bounded(Settings(**values))
    _check_together(settings, sources)
    return Resolved(settings, sources, found.hooks, found.notes)


def _read(name: str, value: Any, source: str) -> Any:
    kind = kind_of(name)
    try:
        return kind.read(value)
    except Unfit as error:
        raise SettingError(name, value, f"{error}; {kind.allowed}", source) from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise SettingError(name, value, kind.allowed, source) from None


def _bounded(settings: Settings) -> Settings:
    """What is switched off by 0 is bounded by the whole head that may come."""
    total = settings.limit_request_header_total
    return replace(
        settings,
        limit_request_line=settings.limit_request_line or total,
        limit_request_fields=settings.limit_request_fields or total,
        limit_request_field_size=settings.limit_request_field_size or total,
    )


def _check_together(settings: Settings, sources: Mapping[str, str]) -> None:
    """Settings that only make sense together.  Raises SettingError."""
    most = settings.workers_max
    if settings.process_manager == "dynamic" and 0 < most < settings.workers:
        raise SettingError(
            "workers_max",
            most,
            f"process_manager is dynamic, so at least `workers` ({settings.workers}) is allowed, "
            "or 0 for as many as that",
            sources["workers_max"],
        )
    for name in ("keyfile", "ca_certs", "ciphers"):
        if getattr(settings, name) and not settings.certfile:
            raise SettingError(name, getattr(settings, name), "it needs certfile", sources[name])
    if settings.cert_reqs != "none" and not (settings.certfile and settings.ca_certs):
        raise SettingError(
            "cert_reqs", settings.cert_reqs, "it needs certfile and ca_certs", sources["cert_reqs"]
        )


def _conventions(environ: Mapping[str, str]) -> dict[str, Any]:
    """What platforms set for every server: PORT and WEB_CONCURRENCY."""
    values: dict[str, Any] = {}
    if environ.get("PORT"):
        values["bind"] = (f"0.0.0.0:{environ['PORT']}",)
    if environ.get("WEB_CONCURRENCY"):
        values["workers"] = environ["WEB_CONCURRENCY"]
    return values


def _from_environ(environ: Mapping[str, str]) -> dict[str, Any]:
    names = {PREFIX + item.name.upper(): item.name for item in fields(Settings)}
    return {name: environ[key] for key, name in names.items() if key in environ}
