"""The command line and the settings: every source, every mistake, without a traceback."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest
from processes import run, run_many, started

from gateway import __version__
from gateway.settings import Settings, kind_of
from protocols.builds import BUILD

APP = "def app(environ, start_response): ...\n"
FIELDS = [item.name for item in fields(Settings)]

#: Values that differ from the default, where a guess by type would not do.
VALUES = {
    "wsgi_app": "app:app",
    "bind": "127.0.0.1:1",
    "protocol": "scgi",
    "access_log_format": "json",
    "raw_env": "NAME=VALUE",
    "allow_from": "10.0.0.0/8",
    "forwarded_allow_ips": "10.0.0.0/8",
    "proxy_allow_ips": "10.0.0.0/8",
    "x_sendfile_root": "/",
    "defer_accept": "0",
}
GUESSES = ("7", "777", "/seven", "seven", "true")


def value_for(name: str) -> str:
    """A text that ``name`` takes and that is not its default."""
    kind = kind_of(name)
    default = Settings.__dataclass_fields__[name].default
    choices = re.findall(r"[a-z_]+", kind.allowed)
    for guess in (VALUES.get(name), *GUESSES, *choices):
        if guess is None:
            continue
        try:
            if kind.read(guess) != default:
                return guess
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    raise AssertionError(f"no value for {name}: {kind.allowed}")


def option_for(name: str) -> list[str]:
    if name == "wsgi_app":
        return [value_for(name)]
    flag = "--" + name.replace("_", "-")
    return [flag] if value_for(name) == "true" else [flag, value_for(name)]


def shown(output: str) -> dict[str, tuple[str, str]]:
    """``--print-config`` as name: (value, source)."""
    found = {}
    for line in output.splitlines():
        name, value, source = re.fullmatch(r"(\w+) = (.*)  \((.+)\)", line).groups()
        found[name] = value, source
    return found


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


# Every setting, from every source


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """``--print-config`` with all settings from one source, by source."""
    plain, filed = tmp_path_factory.mktemp("plain"), tmp_path_factory.mktemp("filed")
    toml = "".join(f"{name} = {value_for(name)!r}\n" for name in FIELDS)
    (filed / "gateway.toml").write_text(toml)
    words = [word for name in FIELDS for word in option_for(name)]
    environ = {f"GATEWAY_{name.upper()}": value_for(name) for name in FIELDS}
    done = {
        "default": run("--print-config", cwd=plain),
        "command line": run("--print-config", *words, cwd=plain),
        "environment": run("--print-config", cwd=plain, env=environ),
        "gateway.toml": run("--print-config", cwd=filed),
    }
    for source, process in done.items():
        assert process.returncode == 0, (source, process.stderr)
    return {source: shown(process.stdout) for source, process in done.items()}


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_is_taken_from_every_source(printed, name):
    value, source = printed["default"][name]
    assert source == "default"
    read = kind_of(name).read(value_for(name))
    expected = ",".join(read) if isinstance(read, tuple) else str(read)
    expected = "0007" if name == "umask" else expected
    assert value != expected
    for source in ("command line", "environment", "gateway.toml"):
        assert printed[source][name] == (expected, source)


def test_stronger_sources_win(folder):
    (folder / "gateway.toml").write_text("workers = 2\nthreads = 2\nbacklog = 2\nkeepalive = 2\n")
    environ = {"GATEWAY_THREADS": "3", "GATEWAY_BACKLOG": "3", "WEB_CONCURRENCY": "9", "PORT": "81"}
    done = run("app", "--backlog", "4", "--print-config", cwd=folder, env=environ)
    found = shown(done.stdout)
    assert found["workers"] == ("2", "gateway.toml")
    assert found["threads"] == ("3", "environment")
    assert found["backlog"] == ("4", "command line")
    assert found["keepalive"] == ("2.0", "gateway.toml")
    assert found["bind"] == ("0.0.0.0:81", "environment")
    assert found["poller"] == ("auto", "default")


def test_port_and_web_concurrency(folder):
    done = run("app", "--print-config", cwd=folder, env={"PORT": "81", "WEB_CONCURRENCY": "5"})
    assert shown(done.stdout)["bind"] == ("0.0.0.0:81", "environment")
    assert shown(done.stdout)["workers"] == ("5", "environment")
    environ = {"WEB_CONCURRENCY": "5", "GATEWAY_WORKERS": "6"}
    done = run("app", "--print-config", cwd=folder, env=environ)
    assert shown(done.stdout)["workers"] == ("6", "environment")


def test_pyproject(folder):
    (folder / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    assert run("app", "--check-config", cwd=folder).returncode == 0
    (folder / "pyproject.toml").write_text("[tool.gateway]\nworkers = 4\nwsgi_app = 'app'\n")
    found = shown(run("--print-config", cwd=folder).stdout)
    assert found["workers"] == ("4", "pyproject.toml")
    assert found["wsgi_app"] == ("app", "pyproject.toml")
    (folder / "gateway.toml").write_text("workers = 3\n")
    found = shown(run("--print-config", cwd=folder).stdout)
    assert found["workers"] == ("3", "gateway.toml")
    assert found["wsgi_app"] == ("", "default")


def test_config_file_by_name(folder):
    (folder / "gateway.toml").write_text("workers = 3\n")
    (folder / "other.toml").write_text("threads = 9\n")
    for flag in ("-c", "--config"):
        found = shown(run("app", flag, "other.toml", "--print-config", cwd=folder).stdout)
        assert found["threads"] == ("9", "other.toml")
        assert found["workers"] == ("1", "default")


def test_lists(folder):
    words = ("--bind", "127.0.0.1:1,127.0.0.1:2", "--bind", "unix:a", "-b", "scgi+127.0.0.1:3")
    done = run("app", *words, "--fastcgi-roles", "responder, filter", "--print-config", cwd=folder)
    found = shown(done.stdout)
    assert found["bind"][0] == "127.0.0.1:1,127.0.0.1:2,unix:a,scgi+127.0.0.1:3"
    assert found["fastcgi_roles"][0] == "responder,filter"
    (folder / "gateway.toml").write_text('bind = ["127.0.0.1:1", "127.0.0.1:2"]\n')
    assert shown(run("--print-config", cwd=folder).stdout)["bind"][0] == "127.0.0.1:1,127.0.0.1:2"


# Mistakes

MISTAKES = [
    (["--workers", "many"], {}, "", ["workers is 'many' (from command line)", "from 1 to 1024"]),
    (["--workers", "0"], {}, "", ["workers is '0'", "from 1 to 1024"]),
    (["--workers", "1" * 30], {}, "", ["workers is", "from 1 to 1024"]),
    (["--keepalive", "nan"], {}, "", ["keepalive is 'nan'", "a number of seconds above 0"]),
    (["--keepalive=-1"], {}, "", ["keepalive is '-1'", "a number of seconds above 0"]),
    (["--poller", "kqueue"], {}, "", ["poller is 'kqueue'", "auto, epoll, selectors"]),
    (["--fastcgi-roles", "actor"], {}, "", ["fastcgi_roles is", "responder, authorizer, filter"]),
    (["--script-name", "app"], {}, "", ["script_name is 'app'", 'a path such as "/app"']),
    (["--protocol", "ftp"], {}, "", ["protocol is 'ftp'", "allowed are ", "fastcgi"]),
    (["--bind", ""], {}, "", ["bind is ", "one or more"]),
    (["--chdir", "nowhere"], {}, "", ["chdir is 'nowhere'", "No such file or directory"]),
    (
        ["--accesslog", "-", "--access-log-format", "%(z)s"],
        {},
        "",
        ["access_log_format is '%(z)s' (from command line)", "%(h)s"],
    ),
    (
        ["--accesslog", "-", "--access-log-format", "%(h"],
        {},
        "",
        ["access_log_format is '%(h'", "is not closed"],
    ),
    ([], {"GATEWAY_THREADS": "few"}, "", ["threads is 'few' (from environment)", "from 1 to 4096"]),
    ([], {"GATEWAY_FASTCGI_STDERR": "maybe"}, "", ["fastcgi_stderr is 'maybe'", "true or false"]),
    ([], {"WEB_CONCURRENCY": "all"}, "", ["workers is 'all' (from environment)"]),
    ([], {"PORT": "http"}, "", ["bind is '0.0.0.0:http' (from environment)", "the port must be"]),
    ([], {}, "workers = 'many'", ["workers is 'many' (from gateway.toml)"]),
    ([], {}, "workers = true", ["workers is True (from gateway.toml)"]),
    ([], {}, "workers = [1]", ["workers is [1]"]),
    ([], {}, "bind = 8000", ["bind is 8000"]),
    ([], {}, "bind = [8000]", ["bind is [8000]"]),
    ([], {}, 'bind = ["unix:a\\u0000b"]', ["bind is 'unix:a\\x00b'"]),
    ([], {}, "errorlog = 1", ["errorlog is 1", "a text is allowed"]),
    ([], {}, "worker = 2", ["worker is 2 (from ", "did you mean workers?"]),
    ([], {}, "colour = 'red'", ["colour is 'red'", "no such setting; allowed are wsgi_app, "]),
    ([], {}, "workers = = 2", ["config is ", "this is no TOML"]),
    (["-c", "nowhere.toml"], {}, "", ["config is ", "nowhere.toml", "No such file or directory"]),
]  # fmt: skip


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory):
    cases = []
    for words, environ, toml, _ in MISTAKES:
        folder = tmp_path_factory.mktemp("mistake")
        (folder / "app.py").write_text(APP)
        if toml:
            (folder / "gateway.toml").write_text(toml + "\n")
        bound = "PORT" in environ or "bind" in toml or "--bind" in words
        where = [] if bound else ["--bind", "unix:a"]
        cases.append((["app", *where, *words], folder, environ))
    return run_many(cases)


@pytest.mark.parametrize("number", range(len(MISTAKES)))
def test_mistake_is_told_in_one_line(mistaken, number):
    done, expected = mistaken[number], MISTAKES[number][3]
    assert done.returncode == 2, done
    assert done.stderr.startswith("gateway: ")
    assert done.stderr.count("\n") == 1
    for text in expected:
        assert text in done.stderr
    assert not done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["app", "--worker", "2"], "Did you mean"),
        (["app", "other"], "unexpected extra argument"),
        (["app", "--workers"], "requires an argument"),
        ([], "APP is missing: name the application, such as module:attr"),
        (["serve"], "APP is missing"),
    ],
)
def test_wrong_usage(folder, words, expected):
    done = run(*words, cwd=folder)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("option", ["--errorlog", "--accesslog", "--pidfile"])
def test_file_that_cannot_be_written(folder, option):
    done = run("app", "--bind", "unix:a", option, "nowhere/file", cwd=folder)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "nowhere/file" in done.stderr
    assert "no such file or directory" in done.stderr.lower()


# The other options


def test_help_names_every_setting(folder):
    done = run("--help", cwd=folder)
    assert done.returncode == 0
    for name in FIELDS:
        if name != "wsgi_app":
            assert f"--{name.replace('_', '-')}" in done.stdout
    assert run("serve", "-h", cwd=folder).stdout == done.stdout


def test_version(folder):
    build = BUILD
    assert run("--version", cwd=folder).stdout == f"gateway, version {__version__} ({build})\n"
    pure = run("--version", cwd=folder, env={"GATEWAY_PURE": "1"}).stdout
    assert pure == f"gateway, version {__version__} (pure Python)\n"


def test_serve_is_the_default_command(folder):
    for words in (["app:app"], ["serve", "app:app"]):
        with started(*words, "--bind", "unix:a.sock", cwd=folder) as server:
            assert server.stop() == 0


# Options in the environment


def test_options_in_the_environment(folder):
    environ = {"GATEWAY_CMD_ARGS": "--threads 7 --backlog 7 'app:app'", "GATEWAY_THREADS": "5"}
    found = shown(run("--backlog", "8", "--print-config", cwd=folder, env=environ).stdout)
    assert found["wsgi_app"] == ("app:app", "GATEWAY_CMD_ARGS")
    assert found["threads"] == ("7", "GATEWAY_CMD_ARGS")
    assert found["backlog"] == ("8", "command line")
    (folder / "other.toml").write_text("workers = 3\n")
    environ = {"GATEWAY_CMD_ARGS": "-c other.toml"}
    assert shown(run("--print-config", cwd=folder, env=environ).stdout)["workers"][0] == "3"
    (folder / "third.toml").write_text("workers = 4\n")
    words = ("-c", "third.toml", "--print-config")
    assert shown(run(*words, cwd=folder, env=environ).stdout)["workers"][0] == "4"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("--worker 2", "no such option '--worker'"),
        ("--workers", "requires an argument"),
        ("app 'quoted", "no closing quotation"),
        ("--workers many", "workers is 'many' (from GATEWAY_CMD_ARGS)"),
    ],
)
def test_wrong_options_in_the_environment(folder, text, reason):
    done = run("app", "--print-config", cwd=folder, env={"GATEWAY_CMD_ARGS": text})
    assert done.returncode == 2
    assert reason in done.stderr
    assert "GATEWAY_CMD_ARGS" in done.stderr
    assert done.stderr.count("\n") == 1


def test_short_options(folder):
    words = "-b unix:a -w 2 -t 3 -p pid -u root -g root -m 027 -n shop -e A=1 -e B=2 --preload"
    found = shown(run("app", *words.split(), "--print-config", cwd=folder).stdout)
    expected = {
        "bind": "unix:a",
        "workers": "2",
        "timeout": "3.0",
        "pidfile": "pid",
        "user": "root",
        "group": "root",
        "umask": "0027",
        "proc_name": "shop",
        "raw_env": "A=1,B=2",
        "preload_app": "True",
    }
    assert {name: found[name][0] for name in expected} == expected
    found = shown(run("app", "--no-preload-app", "--print-config", cwd=folder).stdout)
    assert found["preload_app"] == ("False", "command line")


# gateway reload


def test_reload_waits_for_the_outcome(folder):
    with started("app", "--bind", "unix:a.sock", "--pidfile", "pid", cwd=folder) as server:
        for words, env in (
            (("--pidfile", "pid"), {}),
            (("-p", f"{folder}/pid"), {}),
            (("--control-socket", "pid.ctl"), {}),
            ((), {"GATEWAY_PIDFILE": "pid"}),
        ):
            done = run("reload", *words, cwd=folder, env=env)
            assert (done.returncode, done.stderr) == (0, ""), done.stderr
            assert done.stdout.startswith("reloaded: 1 worker")
            assert "Traceback" not in server.log
        good = (folder / "app.py").read_text()
        (folder / "app.py").write_text("1 / 0\n")
        done = run("reload", "--pidfile", "pid", cwd=folder)
        assert (done.returncode, done.stdout) == (1, "")
        assert "ZeroDivisionError" in done.stderr
        (folder / "app.py").write_text(good)
        assert run("reload", "--pidfile", "pid", cwd=folder).returncode == 0
        assert server.stop() == 0


def test_reload_of_a_gateway_with_a_control_socket_of_its_own(folder):
    words = ("--bind", "unix:a.sock", "--control-socket", "own.ctl")
    with started("app", *words, cwd=folder):
        assert run("reload", "--control-socket", "own.ctl", cwd=folder).returncode == 0


def test_reload_where_nobody_answers(folder):
    done = run("reload", "--pidfile", "pid", cwd=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "gateway: no gateway answers on pid.ctl: no such file or directory\n"


def test_reload_that_takes_too_long(folder):
    (folder / "slow.py").write_text(
        "import os, time\nwhile os.path.exists('wait'): time.sleep(0.01)\n" + APP
    )
    with started("slow", "--bind", "unix:a.sock", "-p", "pid", cwd=folder) as server:
        (folder / "wait").write_text("")
        done = run("reload", "-p", "pid", "--timeout", "0.2", cwd=folder)
        assert done.returncode == 1
        assert done.stderr == "gateway: no outcome of reload within 0.2 seconds\n"
        (folder / "wait").unlink()
        server.wait_for_log("reloaded: 1 workers")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "name the running gateway with --pidfile or --control-socket"),
        (("-p", "pid", "--timeout", "0"), "--timeout"),
        (("-p", "pid", "more"), "unexpected extra argument"),
    ],
)
def test_wrong_usage_of_reload(folder, words, expected):
    done = run("reload", *words, cwd=folder)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_help_of_reload(folder):
    done = run("reload", "--help", cwd=folder)
    assert done.returncode == 0
    for name in ("--pidfile", "--control-socket", "--timeout"):
        assert name in done.stdout
    assert "gateway reload" in run("--help", cwd=folder).stdout


# Applications

PACKAGE = {
    "__init__.py": "",
    "wsgi.py": """
        class Site:
            def __init__(self, name):
                self.name = name
            def __call__(self, environ, start_response): ...
        application = Site("application")
        app = Site("app")
        def make(): return Site("made")
        def make_nothing(): return None
        nested = type("N", (), {"inner": type("M", (), {"app": staticmethod(application)})})
        number = 5
    """,
    "only_app.py": "def app(environ, start_response): ...\n",
    "neither.py": "def main(): ...\ndef other(): ...\n_hidden = print\n",
    "empty.py": "",
    "raises.py": "1 / 0\n",
    "exits.py": "import sys\nsys.exit(0)\n",
    "imports.py": "import no_such_module_anywhere\n",
    "syntax.py": "def app(:\n",
}

GOOD = [
    "site_package.wsgi",
    "site_package.wsgi:app",
    "site_package.wsgi:make()",
    "site_package.wsgi:nested.inner.app",
    "site_package.only_app",
    "site_package/only_app.py",
    "site_package/wsgi.py:make()",
    "./site_package/only_app.py:app",
]
BAD = [
    ("no_such_module", "there is no module 'no_such_module' (searched in "),
    ("site_package.missing", "there is no module 'site_package.missing'"),
    ("site_package/missing.py", "there is no file 'site_package/missing.py'"),
    ("site_package.wsgi:aplication", "has no 'aplication'; did you mean application?"),
    ("site_package.wsgi:zzz", "has no 'zzz'; it has Site, app, application, make"),
    ("site_package.neither", "has neither application nor app; it has main, other: name one"),
    ("site_package.empty", "it has nothing that can be called"),
    ("site_package.wsgi:number", "is a int, which cannot be called"),
    ("site_package.wsgi:number()", "is a int, not a factory"),
    ("site_package.wsgi:make_nothing()", "is a NoneType, which cannot be called"),
    (":app", "names no module; it must look like module:attr"),
]
RAISING = [
    ("site_package.raises", "ZeroDivisionError: division by zero"),
    ("site_package.exits", "SystemExit: 0"),
    ("site_package.imports", "No module named 'no_such_module_anywhere'"),
    ("site_package.syntax", "SyntaxError"),
]


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """``--check-config`` of every target."""
    from textwrap import dedent

    folder = tmp_path_factory.mktemp("targets")
    package = folder / "site_package"
    package.mkdir()
    for name, text in PACKAGE.items():
        (package / name).write_text(dedent(text))
    targets = [*GOOD, *(target for target, _ in BAD + RAISING)]
    done = run_many([([target, "--check-config"], folder, {}) for target in targets])
    return dict(zip(targets, done, strict=True))


@pytest.mark.parametrize("target", GOOD)
def test_application_is_found(checked, target):
    done = checked[target]
    assert (done.returncode, done.stdout) == (0, "the configuration is good\n"), done.stderr


@pytest.mark.parametrize(("target", "expected"), BAD)
def test_mistake_in_the_name_says_what_there_is(checked, target, expected):
    done = checked[target]
    assert done.returncode == 3
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("target", "expected"), RAISING)
def test_fault_of_the_application_is_shown_with_its_place(checked, target, expected):
    done = checked[target]
    assert done.returncode == 3
    assert expected in done.stderr
    assert "Traceback" in done.stderr or "File " in done.stderr


def test_default_attribute_is_application_then_app(serve):
    source = """
    def named(name):
        def call(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [name]
        return call
    app = named(b"app")
    application = named(b"application")
    """
    files = {"both.py": source, "one.py": source.replace("application =", "other =")}
    files = {name: text.replace("\n    ", "\n") for name, text in files.items()}
    server = serve("", env={}, files=files, wait=False)
    for target, expected in (("both", b"application"), ("one.py", b"app")):
        from clients import Http

        with started(target, "--bind", "unix:one.sock", cwd=server.folder) as other:
            with Http(str(server.folder / "one.sock")) as peer:
                assert peer.ask().body == expected
            assert other.stop() == 0


def test_chdir_and_pythonpath(folder):
    (folder / "inner").mkdir()
    (folder / "library").mkdir()
    (folder / "library" / "helper.py").write_text("NAME = 'helper'\n")
    (folder / "inner" / "site.wsgi.py").write_text("")
    (folder / "inner" / "deep.py").write_text("import helper\n" + APP)
    words = ("--chdir", "inner", "--pythonpath", f"{folder}/library")
    assert run("deep", *words, "--check-config", cwd=folder).returncode == 0
    assert run("deep", *words[:2], "--check-config", cwd=folder).returncode == 3
    with started("deep", *words, "--bind", "unix:a.sock", cwd=folder):
        assert (folder / "inner" / "a.sock").is_socket()
