"""What a process is to the system: its user, its title, its share of the processors.

Privileges are dropped in the workers; the manager keeps its own, so that it can
bind, reopen logs and start workers again.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import resource
import stat
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from math import ceil
from pathlib import Path
from typing import Protocol

from gateway.kinds import SettingError

#: The kernel cuts the name of a process to so many bytes (TASK_COMM_LEN of linux/sched.h).
_COMM_BYTES = 15

#: linux/capability.h: what a process needs to become another user.
_CAP_SETGID = 6
_CAP_SETUID = 7

_Reader = Callable[[Path], float]


# Users and groups


class Account(Protocol):
    """The part of the settings that says who the workers are."""

    @property
    def user(self) -> str | None: ...
    @property
    def group(self) -> str | None: ...


@dataclass(frozen=True)
class Identity:
    """Numbers for the system; -1 is "as it is"."""

    uid: int
    gid: int
    #: Name of the user, whose supplementary groups are taken too; empty if it has none.
    name: str = ""


def identify(user: str | None, group: str | None) -> Identity:
    """Look up names or numbers; a user alone brings its primary group.

    Raises SettingError.
    """
    gid = -1
    if group:
        try:
            gid = int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
        except KeyError:
            raise SettingError("group", group, "there is no such group") from None
    if not user:
        return Identity(-1, gid)
    try:
        entry = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        if not user.isdigit():
            raise SettingError("user", user, "there is no such user") from None
        if gid == -1:
            raise SettingError(
                "user", user, "no user has this number, so `group` must be set too"
            ) from None
        return Identity(int(user), gid)
    return Identity(entry.pw_uid, entry.pw_gid if gid == -1 else gid, entry.pw_name)


def check_privileges(settings: Account) -> None:
    """Whether workers can run as `user` and `group`.  Raises SettingError."""
    identity = identify(settings.user, settings.group)
    if _is_already(identity) or _may_change_user():
        return
    name = "user" if identity.uid not in (-1, os.geteuid()) else "group"
    raise SettingError(
        name,
        getattr(settings, name),
        f"only root can run workers as another {name}, and this process is "
        f"{_name_of(os.geteuid())}",
    )


def drop_privileges(user: str | None, group: str | None) -> None:
    """Become this user and group for good; nothing happens if neither is set.

    Threads do not follow: call it before any is started.  Raises SettingError.
    """
    identity = identify(user, group)
    if identity == Identity(-1, -1):
        return
    if not _may_change_user():
        check_privileges(_Wanted(user, group))
        return
    gid = os.getgid() if identity.gid == -1 else identity.gid
    try:
        if identity.name:
            os.initgroups(identity.name, gid)
        else:
            os.setgroups([gid])
        os.setgid(gid)
        if identity.uid != -1:
            os.setuid(identity.uid)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        name, value = ("user", user) if user else ("group", group)
        raise SettingError(name, value, f"the system refuses it: {reason}") from None
    if identity.uid > 0 and _can_return():
        raise SettingError("user", user, "the process could become root again")


def own(identity: Identity, path: str) -> None:
    """Give a file or socket to ``identity``, if this process may.

    Devices and pipes stay whose they are: a log may be /dev/null.  Raises OSError.
    """
    if _may_change_user():
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode) or stat.S_ISSOCK(mode):
            os.chown(path, identity.uid, identity.gid)


def owner_of_workers(user: str | None, group: str | None) -> Identity | None:
    """Whom files have to be given to; None if workers are who this process is.

    Raises SettingError.
    """
    if not (user or group) or not _may_change_user():
        return None
    return identify(user, group)


@dataclass(frozen=True)
class _Wanted:
    user: str | None
    group: str | None


def _is_already(identity: Identity) -> bool:
    return identity.uid in (-1, os.geteuid()) and identity.gid in (-1, os.getegid())


def _may_change_user() -> bool:
    """Root, and not one that was left without the right to (as in hardened containers)."""
    if os.geteuid() != 0:
        return False
    with suppress(OSError, AttributeError):
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        found = re.search(r"^CapEff:\s*([0-9a-f]+)", status, re.MULTILINE)
        if found is not None:
            rights = int(found[1], 16)
            return bool(rights >> _CAP_SETUID & 1 and rights >> _CAP_SETGID & 1)
    return True


def _can_return() -> bool:
    try:
        os.setuid(0)
    except OSError:
        return False
    return True


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


# Standard descriptors


def open_standard_descriptors() -> None:
    """Put the null device where 0, 1 or 2 is closed.

    A socket must not get one of these numbers: whatever is printed, by a
    library or by a program that the application starts, would reach its client.
    """
    number = os.open(os.devnull, os.O_RDWR)
    while number <= 2:
        os.set_inheritable(number, True)
        number = os.open(os.devnull, os.O_RDWR)
    os.close(number)
    # Python has None for what was closed when it started.
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w", buffering=1)


def allow_descriptors(wanted: int) -> None:
    """Raise the soft limit of open files so far, as the hard limit lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


# Title and environment


def set_title(kind: str, name: str) -> None:
    """Name this process in the process list: its kind ("worker") and the service.

    With setproctitle installed the whole command line is replaced; without it,
    on Linux, the short name is, cut to 15 bytes.  Before privileges are dropped:
    afterwards the kernel lets nobody but root write it.
    """
    name = "".join(char if char.isprintable() else "?" for char in name)
    setproctitle = _find_setproctitle()
    if setproctitle is not None:
        setproctitle(f"gateway: {kind} [{name}]")
    elif sys.platform.startswith("linux"):
        ending = f" {kind}".encode()
        short = name.encode("utf-8", "replace")[: _COMM_BYTES - len(ending)]
        # Cut in the middle of a character, the rest of it is dropped.
        short = short.decode("utf-8", "ignore").encode()
        with suppress(OSError), open("/proc/self/comm", "wb", buffering=0) as comm:
            comm.write((short + ending).lstrip())


@cache
def _find_setproctitle() -> Callable[[str], None] | None:
    """Whether it is there is found out once, by the manager, and not by each worker."""
    try:
        found: Callable[[str], None] = import_module("setproctitle").setproctitle
    except ImportError:
        return None
    return found


def apply_environment(raw_env: Sequence[str]) -> None:
    """Set the variables of `raw_env`, each NAME=VALUE."""
    for item in raw_env:
        name, _, value = item.partition("=")
        os.environ[name] = value


# Processors


def processors(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Processors that this process may use: at least 1, a part of one counts as one.

    The least of what the machine has, what the process is bound to
    (sched_setaffinity(2)) and the CPU quota of its control group or any above.
    """
    if sys.platform.startswith("linux"):
        count = float(len(os.sched_getaffinity(0)))
    else:
        count = float(os.cpu_count() or 1)
    return max(1, ceil(min(count, _quota(proc, cgroups))))


def _quota(proc: Path, cgroups: Path) -> float:
    """Processors that control groups (cgroups(7)) allow; infinity for no limit."""
    quota = float("inf")
    for line in _read(proc / "self" / "cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0" and not controllers:
            for mount in (cgroups, cgroups / "unified"):
                quota = min(quota, _least(mount, group, _quota_v2))
        elif "cpu" in controllers.split(","):
            for mount in (cgroups / controllers, cgroups / "cpu"):
                quota = min(quota, _least(mount, group, _quota_v1))
    return quota


def _least(mount: Path, group: str, read: _Reader) -> float:
    """The least quota from ``group`` up to the root of ``mount``.

    In a container the path may be one of the host that is not to be seen here;
    then the mount's root is the container's own group.
    """
    parts = [part for part in group.split("/") if part not in ("", "..")]
    folders = [mount.joinpath(*parts[:length]) for length in range(len(parts) + 1)]
    return min(read(folder) for folder in folders)


def _quota_v2(folder: Path) -> float:
    """cpu.max: "QUOTA PERIOD" or "max PERIOD", in microseconds."""
    return _ratio(*_read(folder / "cpu.max").split()[:2])


def _quota_v1(folder: Path) -> float:
    """cpu.cfs_quota_us is -1 for none."""
    return _ratio(
        _read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip()
    )


def _ratio(quota: str = "", period: str = "") -> float:
    if quota.isdigit() and period.isdigit() and int(quota) > 0 and int(period) > 0:
        return int(quota) / int(period)
    return float("inf")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
