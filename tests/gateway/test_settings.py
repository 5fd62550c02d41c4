"""Settings: which source wins, and what is said of a bad value."""

from dataclasses import fields

import pytest

from gateway.process import processors
from gateway.settings import SettingError, Settings
from gateway.sources import PREFIX, resolve

#: Weakest first; each gives ``threads`` and, from itself on up, nothing else does.
SOURCES = ("default", "gateway.toml", "environment", "command line")


def resolved(tmp_path, arguments=None, environ=None, toml=None, pyproject=None, config=None):
    for name, text in (("gateway.toml", toml), ("pyproject.toml", pyproject)):
        if text is not None:
            (tmp_path / name).write_text(text)
    return resolve(arguments or {}, environ or {}, config, str(tmp_path))


@pytest.mark.parametrize("strongest", range(len(SOURCES)))
def test_the_strongest_source_wins_and_is_named(tmp_path, strongest):
    found = resolved(
        tmp_path,
        toml="threads = 11" if strongest >= 1 else None,
        environ={"GATEWAY_THREADS": "12"} if strongest >= 2 else None,
        arguments={"threads": "13"} if strongest >= 3 else None,
    )
    expected = (Settings().threads, 11, 12, 13)[strongest]
    assert (found.settings.threads, found.sources["threads"]) == (expected, SOURCES[strongest])
    assert found.sources["workers"] == "default"
    assert f"threads = {expected}  ({SOURCES[strongest]})" in list(found.lines())


def test_sources_are_joined_setting_by_setting(tmp_path):
    found = resolved(tmp_path, {"threads": "2"}, {"GATEWAY_WORKERS": "3"}, "keepalive = 4.5")
    settings = found.settings
    assert (settings.threads, settings.workers, settings.keepalive) == (2, 3, 4.5)


@pytest.mark.parametrize(
    ("environ", "name", "value"),
    [
        ({"PORT": "8080"}, "bind", ("0.0.0.0:8080",)),
        ({"PORT": "8080", "GATEWAY_BIND": "127.0.0.1:1"}, "bind", ("127.0.0.1:1",)),
        ({"PORT": ""}, "bind", Settings().bind),
        ({"WEB_CONCURRENCY": "3"}, "workers", 3),
        ({"WEB_CONCURRENCY": "3", "GATEWAY_WORKERS": "2"}, "workers", 2),
        ({"GATEWAY_FASTCGI_ROLES": "filter, responder"}, "fastcgi_roles", ("filter", "responder")),
        ({"GATEWAY_FASTCGI_STDERR": "on"}, "fastcgi_stderr", True),
        ({"GATEWAY_FASTCGI_STDERR": "No"}, "fastcgi_stderr", False),
        ({"GATEWAY_SCRIPT_NAME": "/app/"}, "script_name", "/app"),
        ({"GATEWAY_SCRIPT_NAME": ""}, "script_name", "/"),
        ({"OTHER_THREADS": "9"}, "threads", Settings().threads),
    ],
)
def test_environment(tmp_path, environ, name, value):
    assert getattr(resolved(tmp_path, environ=environ).settings, name) == value


def test_conventions_are_weaker_than_a_file(tmp_path):
    assert (
        resolved(tmp_path, environ={"WEB_CONCURRENCY": "3"}, toml="workers = 2").settings.workers
        == 2
    )


@pytest.mark.parametrize(
    ("files", "threads"),
    [
        ({"pyproject": "[tool.gateway]\nthreads = 5"}, 5),
        ({"pyproject": "[tool.gateway]\nthreads = 5", "toml": "threads = 6"}, 6),
        ({"pyproject": "[tool.other]\nthreads = 5"}, Settings().threads),
    ],
)
def test_files_that_are_looked_for(tmp_path, files, threads):
    assert resolved(tmp_path, **files).settings.threads == threads


def test_a_named_file_is_read_instead(tmp_path):
    (tmp_path / "other.toml").write_text('bind = ["unix:/a", "unix:/b"]')
    found = resolved(tmp_path, toml="threads = 9", config="other.toml")
    assert found.settings.bind == ("unix:/a", "unix:/b")
    assert found.settings.threads == Settings().threads
    assert found.sources["bind"] == "other.toml"


@pytest.mark.parametrize("value", ["0", "-1", "x", "", "1.5", "1e3", "99999"])
@pytest.mark.parametrize("source", SOURCES[1:])
def test_a_bad_value_names_setting_value_source_and_what_is_allowed(tmp_path, source, value):
    given = {
        "gateway.toml": {"toml": f'threads = "{value}"'},
        "environment": {"environ": {"GATEWAY_THREADS": value}},
        "command line": {"arguments": {"threads": value}},
    }[source]
    with pytest.raises(SettingError) as caught:
        resolved(tmp_path, **given)
    message = str(caught.value)
    assert message.startswith(f"threads is {value!r} (from ")
    assert source in message
    assert "a whole number from 1 to 4096 is allowed" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("threads = true", "threads is True"),
        ("threads = 1.5", "threads is 1.5"),
        ("keepalive = nan", "keepalive is nan"),
        ("keepalive = inf", "keepalive is inf"),
        ("bind = 7", "bind is 7"),
        ("bind = []", r"bind is \[\]"),
        ("bind = [7]", r"bind is \[7\]"),
        ("wsgi_app = 7", "wsgi_app is 7"),
        ("fastcgi_stderr = 7", "fastcgi_stderr is 7"),
        ("thread = 7", "did you mean threads?"),
        ("nonsense = 7", "allowed are wsgi_app, "),
        ("[threads]", "threads is {}"),
        ("threads", "this is no TOML"),
        ("\udcff", "this is no TOML"),
    ],
)
def test_a_bad_file_is_refused(tmp_path, text, words):
    (tmp_path / "gateway.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SettingError, match=words):
        resolved(tmp_path)


# auto


@pytest.mark.parametrize(
    ("given", "source"),
    [
        ({"arguments": {"workers": "auto"}}, "command line: auto"),
        ({"environ": {"GATEWAY_WORKERS": "AUTO"}}, "environment: auto"),
        ({"environ": {"WEB_CONCURRENCY": "auto"}}, "environment: auto"),
        ({"toml": 'workers = "auto"'}, "gateway.toml: auto"),
    ],
)
def test_as_many_workers_as_processors(tmp_path, given, source):
    found = resolved(tmp_path, **given)
    assert found.settings.workers == processors()
    assert f"workers = {processors()}  ({source})" in list(found.lines())


def test_auto_is_only_for_workers(tmp_path):
    with pytest.raises(SettingError, match="threads is 'auto'"):
        resolved(tmp_path, {"threads": "auto"})


# Settings that depend on each other


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ('process_manager = "dynamic"\nworkers = 4\nworkers_max = 3', "workers_max is 3 (from "),
        ('process_manager = "dynamic"\nworkers = 4\nworkers_max = 4', ""),
        ('process_manager = "dynamic"\nworkers = 4\nworkers_max = 0', ""),
        ('process_manager = "ondemand"\nworkers = 4\nworkers_max = 3', ""),
        ("workers = 4\nworkers_max = 3", ""),
    ],
)
def test_dynamic_needs_room_to_grow(tmp_path, toml, message):
    if not message:
        assert resolved(tmp_path, toml=toml).settings.workers == 4
        return
    with pytest.raises(SettingError) as caught:
        resolved(tmp_path, toml=toml)
    assert message in str(caught.value)
    assert "at least `workers` (4) is allowed, or 0" in str(caught.value)


def test_limits_that_are_off_are_bounded_by_the_whole_head(tmp_path):
    names = ("limit_request_line", "limit_request_fields", "limit_request_field_size")
    toml = "limit_request_header_total = 5000\n" + "".join(f"{name} = 0\n" for name in names)
    found = resolved(tmp_path, toml=toml)
    for name in names:
        assert getattr(found.settings, name) == 5000
        with pytest.raises(SettingError, match="or 0 for none, is allowed"):
            resolved(tmp_path, {name: "-1"}, toml=toml)


def test_umask_is_shown_as_it_is_written(tmp_path):
    assert "umask = 0027  (command line)" in list(resolved(tmp_path, {"umask": "27"}).lines())


def test_options_of_the_environment_lie_between_it_and_the_command_line(tmp_path):
    found = resolve(
        {"threads": "1"},
        {"GATEWAY_THREADS": "2", "GATEWAY_BACKLOG": "2", "GATEWAY_WORKERS": "2"},
        None,
        str(tmp_path),
        {"threads": "3", "backlog": "3"},
    )
    assert (found.settings.threads, found.sources["threads"]) == (1, "command line")
    assert (found.settings.backlog, found.sources["backlog"]) == (3, "GATEWAY_CMD_ARGS")
    assert (found.settings.workers, found.sources["workers"]) == (2, "environment")


def test_every_default_is_a_value_that_is_allowed():
    for item in fields(Settings):
        if item.default not in (None, ()):
            assert item.metadata["kind"].read(item.default) == item.default
        assert item.metadata["help"].endswith(".")
        assert PREFIX + item.name.upper() == f"GATEWAY_{item.name}".upper()
