"""Writes docs/reference/settings.md: python tools/settings_reference.py."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from gateway.settings import Settings, kind_of
from gateway.sources import PREFIX

TARGET = Path(__file__).parent.parent / "docs" / "reference" / "settings.md"

HEAD = """# Settings

Each setting is an option on the command line, a variable in the environment and a key in `gateway.toml` (or in `[tool.gateway]` of `pyproject.toml`). The command line wins over the environment, the environment over the file, the file over the default. Without a file and a `bind`, `PORT` and `WEB_CONCURRENCY` of the environment set `bind` (on all interfaces) and `workers`. Sockets handed over by systemd (`LISTEN_FDS`), or a listening socket on descriptor 0, are used when no `bind` is given; descriptor 0 speaks FastCGI unless a protocol is chosen.
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
