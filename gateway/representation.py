"""What of a file an answer has: all of it, one range, or nothing (RFC 9110 sections 13 and 14).

Several ranges at once, which RFC 9110 section 14.2 lets a server ignore, are
answered with the whole file.
"""

from __future__ import annotations

import os
import re
from email.utils import formatdate, parsedate_to_datetime
from typing import Any

Fields = list[tuple[str, str]]

#: RFC 9110 section 8.8.3; the tag without its weakness.
_ENTITY_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')
#: RFC 9110 section 14.1.2, one range: first-last, first- or -suffix.
_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})[ \t]*", re.IGNORECASE)

#: Statuses by which an application asks for the file as it is asked for.
_SELECTED = ("200", "206")
_WITHOUT_CONTENT = ("204", "205", "304")


class Selection:
    """Status and fields of an answer, and the ``count`` bytes from ``start`` that it has."""

    __slots__ = ("count", "fields", "start", "status")

    def __init__(self, status: str, fields: Fields, start: int, count: int) -> None:
        self.status = status
        self.fields = fields
        self.start = start
        self.count = count


def select(environ: dict[str, Any], status: str, fields: Fields, info: os.stat_result) -> Selection:
    """What a request gets of a file for which the application gave ``status`` and ``fields``.

    Whoever names the file leaves ranges and preconditions to the server: what an
    application has said of them itself (206, Content-Range) is judged anew.
    """
    size = info.st_size
    code = status[:3]
    kept = _without(fields, "content-length")
    if code not in _SELECTED:
        # A page for an error, say: it is sent as it is, whatever was asked for.
        if code in _WITHOUT_CONTENT:
            return Selection(status, kept, 0, 0)
        return Selection(status, [*kept, _length(size)], 0, size)
    kept = _without(kept, "content-range")
    _complete(kept, info)
    method = environ["REQUEST_METHOD"]
    if method in ("GET", "HEAD") and _is_not_modified(environ, kept):
        return Selection("304 Not Modified", kept, 0, 0)
    wanted = _asked_range(environ, kept, size) if method == "GET" else None
    if wanted is None:
        return Selection("200 OK" if code == "206" else status, [*kept, _length(size)], 0, size)
    start, end = wanted
    if start >= end:
        kept += [("Content-Range", f"bytes */{size}"), _length(0)]
        return Selection("416 Range Not Satisfiable", kept, 0, 0)
    kept += [("Content-Range", f"bytes {start}-{end - 1}/{size}"), _length(end - start)]
    return Selection("206 Partial Content", kept, start, end - start)


def _length(count: int) -> tuple[str, str]:
    return "Content-Length", str(count)


def _without(fields: Fields, name: str) -> Fields:
    return [field for field in fields if field[0].lower() != name]


def _value(fields: Fields, name: str) -> str | None:
    return next((value for known, value in fields if known.lower() == name), None)


def _complete(fields: Fields, info: os.stat_result) -> None:
    """Add the validators that the application did not give, and what they are good for."""
    if _value(fields, "etag") is None:
        fields.append(("ETag", f'"{info.st_mtime_ns:x}-{info.st_size:x}"'))
    if _value(fields, "last-modified") is None:
        fields.append(("Last-Modified", formatdate(int(info.st_mtime), usegmt=True)))
    if _value(fields, "accept-ranges") is None:
        fields.append(("Accept-Ranges", "bytes"))


def _is_not_modified(environ: dict[str, Any], fields: Fields) -> bool:
    """RFC 9110 section 13.2.2, steps 3 and 4."""
    tags = environ.get("HTTP_IF_NONE_MATCH")
    if tags is not None:
        if tags.strip() == "*":
            return True
        ours = _ENTITY_TAG.fullmatch(_value(fields, "etag") or "")
        return ours is not None and ours[1] in _ENTITY_TAG.findall(tags)
    since = environ.get("HTTP_IF_MODIFIED_SINCE")
    if since is None:
        return False
    try:
        last_modified = parsedate_to_datetime(_value(fields, "last-modified") or "")
        return last_modified <= parsedate_to_datetime(since)
    except (TypeError, ValueError, OverflowError):  # of numbers beyond any date
        return False  # section 13.1.3: what is no date is ignored


def _asked_range(environ: dict[str, Any], fields: Fields, size: int) -> tuple[int, int] | None:
    """Start and end of the range asked for, empty if it cannot be had; None: the whole file."""
    text = environ.get("HTTP_RANGE")
    if text is None:
        return None
    # Section 13.1.5: by a strong tag. A date is none while the file may still change in
    # its second, and nobody who has the tag needs it.
    condition = environ.get("HTTP_IF_RANGE")
    if condition is not None and (
        condition.startswith("W/") or condition != _value(fields, "etag")
    ):
        return None
    match = _RANGE.fullmatch(text)
    if match is None:
        return None
    return _from_suffix(match[2], size) if not match[1] else _from(match[1], match[2], size)


def _from_suffix(length: str, size: int) -> tuple[int, int] | None:
    if not length:
        return None
    if not size and int(length):
        return None  # section 14.1.2: all of it, and of nothing there is no range
    return max(0, size - int(length)), size


def _from(first: str, last: str, size: int) -> tuple[int, int] | None:
    start = int(first)
    end = int(last) + 1 if last else size
    if last and end <= start:
        return None  # section 14.1.1: invalid, not unsatisfiable
    return (start, min(end, size)) if start < size else (0, 0)
