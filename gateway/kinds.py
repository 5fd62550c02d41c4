"""How the value of a setting is read, from text and from a configuration file.

A kind says what is allowed in words, for the error that a user gets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any

from gateway.guard import user_number
from gateway.trust import USER, check_entry


class SettingError(Exception):
    """A setting has a value that is not allowed; the message is for the user."""

    def __init__(self, name: str, value: object, allowed: str, source: str = "") -> None:
        where = f" (from {source})" if source else ""
        super().__init__(f"{name} is {value!r}{where}: {allowed}")


class Unfit(ValueError):
    """A value is not allowed, for the reason that the message gives."""


class Kind:
    """How a setting is read from text and from a configuration file."""

    def __init__(self, allowed: str, read: Callable[[Any], Any], *, many: bool = False) -> None:
        self.allowed = allowed
        self.read = read
        self.many = many


def setting(default: Any, kind: Kind, text: str, *flags: str, value: str = "VALUE") -> Any:
    """A field of the settings: its default, how it is read, its help and its short options."""
    metadata = {"kind": kind, "help": text, "flags": flags, "value": value}
    return field(default=default, metadata=metadata)


def whole_number(
    low: int,
    high: int = 1 << 40,
    *,
    off: bool = False,
    auto: Callable[[], int] | None = None,
) -> Kind:
    """``off``: 0 too, for none.  ``auto`` finds the number where the word auto is given."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError  # noqa: TRY004 - reported with the allowed values
        if auto is not None and is_auto(value):
            return auto()
        number = int(value)
        if not (low <= number <= high or (off and number == 0)):
            raise ValueError
        return number

    more = (", or 0 for none," if off else "") + (", or auto," if auto else "")
    return Kind(f"a whole number from {low} to {high}{more} is allowed", read)


def is_auto(value: Any) -> bool:
    """Whether a value asks to be found out."""
    return isinstance(value, str) and value.strip().lower() == "auto"


def seconds(*, off: bool = False) -> Kind:
    def read(value: Any) -> float:
        if isinstance(value, bool):
            raise ValueError  # noqa: TRY004 - reported with the allowed values
        number = float(value)
        if not (0 < number < 1e9 or (off and number == 0)):
            raise ValueError
        return number

    switch = ", or 0 for none," if off else ""
    return Kind(f"a number of seconds above 0{switch} is allowed", read)


def text() -> Kind:
    def read(value: Any) -> str:
        if not isinstance(value, str):
            raise ValueError  # noqa: TRY004 - reported with the allowed values
        return value

    return Kind("a text is allowed", read)


def folder() -> Kind:
    def read(value: Any) -> str:
        if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
            raise ValueError
        return value

    return Kind("an absolute path is allowed", read)


def choice(*names: str) -> Kind:
    def read(value: Any) -> str:
        name = value.lower()
        if name not in names:
            raise ValueError
        return str(name)

    return Kind(f"allowed are {', '.join(names)}", read)


#: How certificates of clients are treated; Python's ``ssl.CERT_*`` are the places in it.
VERIFICATION = ("none", "optional", "required")


def verification() -> Kind:
    """As text, or as a number of Python's ``ssl.VerifyMode``, as gunicorn has it."""

    def read(value: Any) -> str:
        if isinstance(value, bool):
            raise ValueError  # noqa: TRY004 - reported with the allowed values
        if isinstance(value, int) or value.isdecimal():
            value = dict(enumerate(VERIFICATION))[int(value)]
        name = value.lower()
        if name not in VERIFICATION:
            raise ValueError
        return str(name)

    return Kind(f"allowed are {', '.join(VERIFICATION)}, or 0, 1, 2 for these", read)


def account() -> Kind:
    def read(value: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError  # noqa: TRY004 - reported with the allowed values
        if value == "" or (isinstance(value, int) and value < 0):
            raise ValueError
        return str(value)

    return Kind("a name or a number is allowed", read)


def boolean() -> Kind:
    words = {"true": True, "1": True, "yes": True, "on": True}
    words |= {"false": False, "0": False, "no": False, "off": False}

    def read(value: Any) -> bool:
        if isinstance(value, bool):
            return value
        return words[str(value).lower()]

    return Kind("true or false is allowed", read)


def words(*choices: str) -> Kind:
    def read(value: Any) -> tuple[str, ...]:
        items = [value] if isinstance(value, str) else list(value)
        items = [part.strip() for item in items for part in item.split(",") if part.strip()]
        if not items:
            raise ValueError
        if choices and not set(items) <= set(choices):
            raise ValueError
        return tuple(items)

    allowed = f"one or more of {', '.join(choices)}" if choices else "one or more texts"
    return Kind(f"{allowed}, separated by commas, are allowed", read, many=True)


def peers(*, users: bool = False) -> Kind:
    """``users``: the users of peers on unix sockets too; if not, none is for nobody."""

    def read(value: Any) -> tuple[str, ...]:
        if not users and not any(text.strip() for text in value):
            return ()
        items: tuple[str, ...] = words().read(value)
        for item in items:
            try:
                check_entry(item, users=users)
                if item.startswith(USER):
                    user_number(item[len(USER) :])
            except ValueError as error:
                raise Unfit(str(error)) from None
        return items

    last = "user:NAME for peers on unix sockets" if users else "unix for peers on unix sockets"
    nobody = "" if users else ", or nothing for nobody"
    return Kind(
        f"addresses, networks such as 10.0.0.0/8, * for everybody and {last}, separated by "
        f"commas, are allowed{nobody}",
        read,
        many=True,
    )


def umask() -> Kind:
    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ValueError  # noqa: TRY004 - reported with the allowed values
        mask = int(value, 8) if isinstance(value, str) else value
        if not 0 <= mask <= 0o777:
            raise ValueError
        return mask

    return Kind("an octal number from 0 to 777 is allowed", read)


def pairs() -> Kind:
    def read(value: Any) -> tuple[str, ...]:
        items = [value] if isinstance(value, str) else list(value)
        for item in items:
            name, equals, _ = item.partition("=")
            if not name or not equals or "\0" in item:
                raise ValueError
        return tuple(items)

    return Kind("NAME=VALUE is allowed", read, many=True)


def script_name() -> Kind:
    def read(value: Any) -> str:
        if not isinstance(value, str) or (value and not value.startswith("/")):
            raise ValueError
        return value.rstrip("/") or "/"

    return Kind('a path such as "/app" is allowed, or "/" for the root', read)
