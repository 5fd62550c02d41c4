"""What recorded front ends sent, and the environ that follows by the documented rules.

The rules are written here a second time, straight from their text, and on purpose not
shared with the codecs: a repeated HTTP_COOKIE is joined with "; ", another repeated
HTTP_* with ",", of everything else and of HTTP_HOST and HTTP_AUTHORIZATION the last
wins; what concerns only the front end's own connection is dropped.
"""

from __future__ import annotations

import json
from pathlib import Path

DROPPED = (
    "PROXY PROXY_CONNECTION CONTENT_LENGTH CONTENT_TYPE TRANSFER_ENCODING CONNECTION "
    "KEEP_ALIVE TRAILER TE UPGRADE EXPECT"
).split()


def environ_of(pairs: list[tuple[str, str]]) -> dict[str, str]:
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    environ = {}
    for name, those in values.items():
        if name == "HTTP_COOKIE":
            environ[name] = "; ".join(those)
        elif name.startswith("HTTP_") and name not in ("HTTP_HOST", "HTTP_AUTHORIZATION"):
            environ[name] = ",".join(those)
        else:
            environ[name] = those[-1]
    for name in DROPPED:
        environ.pop(f"HTTP_{name}", None)
    return environ


def captures(place: Path) -> list[tuple[str, bytes, dict]]:
    """Name, bytes of the whole connection, and the recorder's notes on its request."""
    found = []
    for path in sorted(place.glob("*.json")):
        notes = json.loads(path.read_text("utf-8"))
        request = notes.get("request") or notes["requests"][0]
        found.append((path.stem, path.with_suffix(".bin").read_bytes(), request))
    return found
