"""Processors that a process may use; users and groups; its name and environment."""

import grp
import json
import os
import pwd
import resource
import sys

import pytest

from gateway.kinds import SettingError
from gateway.process import (
    Identity,
    _find_setproctitle,
    allow_descriptors,
    apply_environment,
    check_privileges,
    drop_privileges,
    identify,
    own,
    processors,
    set_title,
)
from gateway.settings import Settings

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
needs_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone")

#: Lines of /proc/self/cgroup on machines of different kinds.
V2 = "0::/a/b\n"
V1 = "12:pids:/a\n4:cpu,cpuacct:/a/b\n3:memory:/\n0::/\n"
V1_APART = "4:cpuacct:/other\n3:cpu:/a/b\n"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """``machine(cgroup, files, affinity)`` gives the count of a made-up machine."""

    def count(cgroup=None, files=None, affinity=64):
        if cgroup is not None:
            (tmp_path / "self").mkdir()
            (tmp_path / "self" / "cgroup").write_text(cgroup)
        for name, text in (files or {}).items():
            path = tmp_path / "sys" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.setattr(
            os, "sched_getaffinity", lambda _pid: set(range(affinity)), raising=False
        )
        monkeypatch.setattr(sys, "platform", "linux")
        return processors(tmp_path, tmp_path / "sys")

    return count


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        (V2, {"a/b/cpu.max": "200000 100000\n"}, 2),
        (V2, {"a/b/cpu.max": "250000 100000\n"}, 3),
        (V2, {"a/b/cpu.max": "1000 100000\n"}, 1),
        (V2, {"a/b/cpu.max": "max 100000\n"}, 64),
        # Whoever is above may have less.
        (V2, {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 3),
        (V2, {"a/b/cpu.max": "500000 100000\n", "a/cpu.max": "300000 100000\n"}, 3),
        (V2, {"a/b/cpu.max": "300000 100000\n", "a/cpu.max": "500000 100000\n"}, 3),
        # In a container the path is one of the host's.
        (V2, {"cpu.max": "200000 100000\n"}, 2),
        ("0::/../b\n", {"b/cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "400000 200000\n"}, 2),
        (V2, {"unified/a/b/cpu.max": "200000 100000\n"}, 2),
        (V1, {"cpu,cpuacct/a/b/cpu.cfs_quota_us": "150000\n"}, 64),
        (
            V1,
            {
                "cpu,cpuacct/a/b/cpu.cfs_quota_us": "150000\n",
                "cpu,cpuacct/a/b/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        (V1, {"cpu/a/cpu.cfs_quota_us": "50000\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, 1),
        (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
        (V1_APART, {"cpu/a/cpu.cfs_quota_us": "300000", "cpu/a/cpu.cfs_period_us": "100000"}, 3),
        (V1_APART, {"cpuacct/other/cpu.cfs_quota_us": "1", "cpuacct/cpu.cfs_period_us": "1"}, 64),
        (V2, {}, 64),
        (None, {}, 64),
        ("nonsense\n\n::\n", {}, 64),
        (V2, {"a/b/cpu.max": "nonsense"}, 64),
        (V2, {"a/b/cpu.max": ""}, 64),
        (V2, {"a/b/cpu.max": "100000 0\n"}, 64),
    ],
)
def test_quota_of_the_control_group(machine, cgroup, files, expected):
    assert machine(cgroup, files) == expected


def test_affinity_counts_where_it_is_less(machine):
    assert machine(V2, {"a/b/cpu.max": "900000 100000\n"}, affinity=3) == 3


def test_this_machine_has_processors():
    assert 1 <= processors() <= (os.cpu_count() or 1)


# Users and groups


def nobody() -> pwd.struct_passwd:
    return pwd.getpwnam("nobody")


def test_names_and_numbers():
    entry = nobody()
    name = grp.getgrgid(entry.pw_gid).gr_name
    whole = Identity(entry.pw_uid, entry.pw_gid, "nobody")
    assert identify("nobody", None) == identify(str(entry.pw_uid), None) == whole
    assert identify("nobody", name) == identify("nobody", str(entry.pw_gid)) == whole
    assert identify(None, name) == Identity(-1, entry.pw_gid)
    assert identify(None, "54321") == Identity(-1, 54321)
    assert identify("54321", "54322") == Identity(54321, 54322)
    assert identify(None, None) == identify("", "") == Identity(-1, -1)


@pytest.mark.parametrize(
    ("user", "group", "message"),
    [
        ("nosuchuser", None, "user is 'nosuchuser': there is no such user"),
        (None, "nosuchgroup", "group is 'nosuchgroup': there is no such group"),
        ("nobody", "nosuchgroup", "group is 'nosuchgroup'"),
        ("54321", None, "no user has this number, so `group` must be set too"),
        ("9" * 30, None, "no user has this number"),
    ],
)
def test_unknown_names(user, group, message):
    for act in (identify, drop_privileges, lambda *who: check_privileges(settings(*who))):
        with pytest.raises(SettingError) as caught:
            act(user, group)
        assert message in str(caught.value)


def settings(user: str | None, group: str | None) -> Settings:
    return Settings(user=user, group=group)


def in_child(act):
    """What ``act`` returns in a process of its own."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, json.dumps(act()).encode())
        except BaseException as error:
            os.write(writer, json.dumps(f"{type(error).__name__}: {error}").encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as file:
        found = json.loads(file.read())
    os.waitpid(pid, 0)
    return found


@needs_root
def test_a_user_has_its_groups_and_no_way_back():
    # Whoever has supplementary groups, if there is anybody on this machine.
    members = {name for group in grp.getgrall() for name in group.gr_mem}
    users = [entry for entry in pwd.getpwall() if entry.pw_uid and entry.pw_name in members]
    for entry in [*users[:2], nobody()]:

        def act(entry=entry):
            drop_privileges(entry.pw_name, None)
            returned = []
            for attempt in (os.setuid, os.seteuid, os.setgid):
                try:
                    attempt(0)
                except PermissionError:
                    continue
                returned.append(attempt.__name__)
            return os.getresuid(), os.getresgid(), sorted(os.getgroups()), returned

        uids, gids, groups, returned = in_child(act)
        assert uids == [entry.pw_uid] * 3
        assert gids == [entry.pw_gid] * 3
        assert groups == sorted(set(os.getgrouplist(entry.pw_name, entry.pw_gid)))
        assert returned == []


@needs_root
def test_who_has_no_right_to_is_told_so():
    def act():
        os.setgroups([])
        os.setgid(nobody().pw_gid)
        os.setuid(nobody().pw_uid)
        messages = []
        for user, group in ((None, None), ("nobody", None), ("root", None), (None, "root")):
            for check in (lambda u, g: check_privileges(settings(u, g)), drop_privileges):
                try:
                    check(user, group)
                except SettingError as error:
                    messages.append(str(error))
                else:
                    messages.append("")
        return messages

    messages = in_child(act)
    assert messages[:4] == [""] * 4
    assert messages[4] == messages[5]
    assert messages[4] == (
        "user is 'root': only root can run workers as another user, and this process is nobody"
    )
    assert messages[6] == messages[7]
    assert messages[6].startswith("group is 'root': only root can run workers as another group")


@needs_root
@needs_linux
def test_root_without_the_right_is_told_so():
    """As in a container that drops all capabilities."""

    def act():
        import ctypes

        libc = ctypes.CDLL(None)
        # linux/capability.h: version 3, this process; nothing effective, permitted, inheritable.
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        assert libc.capset(header, (ctypes.c_uint32 * 6)()) == 0
        check_privileges(settings("root", None))
        check_privileges(settings("nobody", None))

    assert in_child(act).startswith("SettingError: user is 'nobody': only root can run workers")


@needs_root
def test_files_are_given_away_and_devices_are_not(tmp_path):
    file = tmp_path / "log"
    file.write_text("")
    own(Identity(54321, 54322), str(file))
    assert (file.stat().st_uid, file.stat().st_gid) == (54321, 54322)
    own(Identity(-1, 0), str(file))
    assert (file.stat().st_uid, file.stat().st_gid) == (54321, 0)
    os.mkfifo(tmp_path / "pipe")
    own(Identity(54321, 54322), str(tmp_path / "pipe"))
    assert (tmp_path / "pipe").stat().st_uid == 0


# Name and environment


@pytest.fixture
def found_anew():
    _find_setproctitle.cache_clear()
    yield
    _find_setproctitle.cache_clear()


@needs_linux
@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("shop", "shop worker"),
        ("a very long name", "a very l worker"),
        ("ümläüte", "ümläü worker"),
        ("a\nb\0c", "a?b?c worker"),
        ("", "worker"),
    ],
)
@pytest.mark.usefixtures("found_anew")
def test_title(monkeypatch, name, shown):
    monkeypatch.setitem(sys.modules, "setproctitle", None)  # as if it were not installed

    def act():
        set_title("worker", name)
        with open("/proc/self/comm", encoding="utf-8") as file:
            return file.read().removesuffix("\n")

    assert in_child(act) == shown


@pytest.mark.usefixtures("found_anew")
def test_title_with_setproctitle(monkeypatch):
    titles = []
    module = type(sys)("setproctitle")
    module.setproctitle = titles.append
    monkeypatch.setitem(sys.modules, "setproctitle", module)
    set_title("worker", "shop")
    assert titles == ["gateway: worker [shop]"]


@pytest.mark.parametrize(
    ("limits", "wanted", "expected"),
    [
        ((100, 500), 300, 300),
        ((100, 500), 1000, 500),
        ((400, 500), 300, 400),
    ],
)
def test_the_soft_limit_of_open_files_is_raised_as_far_as_it_may(limits, wanted, expected):
    def act():
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        allow_descriptors(wanted)
        return resource.getrlimit(resource.RLIMIT_NOFILE)

    assert in_child(act) == [expected, limits[1]]


def test_environment(monkeypatch):
    monkeypatch.setenv("GIVEN", "before")
    monkeypatch.delenv("NEW", raising=False)
    apply_environment(("GIVEN=after", "NEW=a=b", "EMPTY="))
    assert (os.environ["GIVEN"], os.environ["NEW"], os.environ["EMPTY"]) == ("after", "a=b", "")
    monkeypatch.delenv("NEW")
    monkeypatch.delenv("EMPTY")
