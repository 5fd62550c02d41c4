"""Writes docs/reference/settings.md: python tools/settings_reference.py."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from gateway.settings import Settings, kind_of
from gateway.sources import PREFIX

TARGET = Path(__file__).parent.parent / "docs" / "reference" / "settings.md"

HEAD = """# Settings

Each setting is an option on the command line, a variable in the environment and a name in a configuration file. Weakest first:

1. the default;
2. `PORT` and `WEB_CONCURRENCY` of the environment: `bind` (on all interfaces) and `workers`;
3. one configuration file: the one that `-c` names, or the first of `gateway.toml`, `gateway.conf.py` and `pyproject.toml` (its table `[tool.gateway]`) in the folder where gateway is started;
4. the variables `GATEWAY_…` of the environment;
5. options in the variable `GATEWAY_CMD_ARGS`;
6. the command line.

`gateway --print-config` says which of them set what.

A TOML file holds settings; an unknown name in it is an error. A file whose name ends in `.py` is Python, executed at the start and at every reload: settings are its global names (`None` is the default), functions with the names of [hooks](hooks.md) are hooks, and anything else is ignored, or named once in the log if it looks like a setting. A gunicorn.conf.py is such a file ([how to move from gunicorn](../how-to/from-gunicorn.md)).

Sockets handed over by systemd (`LISTEN_FDS`), or a listening socket on descriptor 0, are used when no `bind` is given; descriptor 0 speaks FastCGI unless a protocol is chosen.

With `user` or `group`, a manager that runs as root stays what it is and its workers become that user: the groups of a user's name are taken along, and nothing is left to go back with. Log files, and unix sockets whose bind names no owner and no group, are given to that user and group, also when USR1 opens new files; pidfile and control socket stay root's.
"""  # noqa: E501 - a paragraph of Markdown is one line


def reference() -> str:
    """The whole page."""
    sections = [_section(item.name, item.default) for item in fields(Settings)]
    return "\n".join([HEAD, *sections])


def _section(name: str, default: object) -> str:
    metadata = Settings.__dataclass_fields__[name].metadata
    option = "APP" if name == "wsgi_app" else "--" + name.replace("_", "-")
    options = ", ".join(f"`{flag}`" for flag in (*metadata["flags"], option))
    shown = ",".join(default) if isinstance(default, tuple) else default
    value = "none" if shown in (None, "") else f"`{str(shown).lower()}`"
    return (
        f"## {name}\n\n{metadata['help']}\n\n"
        f"- option: {options}; variable: `{PREFIX}{name.upper()}`\n"
        f"- default: {value}; {kind_of(name).allowed}\n"
    )


if __name__ == "__main__":
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(reference(), encoding="utf-8")
