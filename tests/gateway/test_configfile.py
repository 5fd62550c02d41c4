"""Configuration files: what is found, what a Python file may hold, and how it fails."""

import os
import sys
from dataclasses import fields
from textwrap import dedent

import pytest

from gateway import configfile
from gateway.hooks import HOOKS
from gateway.kinds import SettingError
from gateway.settings import Settings
from gateway.sources import resolve

NAMES = [item.name for item in fields(Settings)]
FILE = "gunicorn.conf.py"


@pytest.fixture(autouse=True)
def importing(monkeypatch):
    """What the files import, and where from, is forgotten again."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(configfile, "_imported", set())
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def written(tmp_path):
    """``written(source)`` reads a Python file of that text."""

    def read(source, **environ):
        (tmp_path / FILE).write_text(dedent(source))
        return resolve({}, environ, FILE, str(tmp_path))

    return read


#: As it is found in the wild.
ORDINARY = """
    # Gunicorn configuration file.
    from __future__ import annotations

    import logging
    import multiprocessing
    import os
    from os import path as ospath
    from pathlib import Path

    BASE = Path(__file__).parent
    _private = "x"
    cores = multiprocessing.cpu_count()

    bind = os.environ.get("NO_SUCH_VARIABLE", "127.0.0.1:8001")
    backlog = 512
    workers = 2 * 2 + 1
    worker_class = "gthread"
    worker_connections = 100
    worker_tmp_dir = "/dev/shm"
    threads = 2
    max_requests = 1000
    max_requests_jitter = 50
    timeout = 0
    graceful_timeout = 120
    keepalive = 5
    preload_app = True
    reload = True
    spew = False
    daemon = False
    raw_env = ["DJANGO_SETTINGS_MODULE=site.settings", "DEBUG=0"]
    pidfile = None
    umask = 0
    user = None
    group = None
    tmp_upload_dir = None
    errorlog = "-"
    loglevel = "INFO"
    accesslog = "-"
    access_log_format = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'
    logconfig_dict = {"version": 1}
    statsd_host = "localhost:8125"
    forwarded_allow_ips = "*"
    default_proc_name = "shop"
    certfile = None
    limit_request_line = 0
    limit_request_fields = 0
    wsgi_app = "site.wsgi"

    class Filter(logging.Filter):
        pass

    def helper():
        return cores

    def pre_fork(server, worker):
        pass

    def post_fork(server, worker):
        server.log.info("Worker spawned (pid: %s)", worker.pid)

    def worker_int(worker):
        pass

    def worker_abort(worker):
        pass
"""


def test_an_ordinary_file_of_gunicorn(written):
    found = written(ORDINARY)
    settings = found.settings
    expected = {
        "bind": ("127.0.0.1:8001",),
        "backlog": 512,
        "workers": 5,
        "worker_connections": 100,
        "threads": 2,
        "max_requests": 1000,
        "max_requests_jitter": 50,
        "timeout": 0.0,
        "graceful_timeout": 120.0,
        "keepalive": 5.0,
        "preload_app": True,
        "raw_env": ("DJANGO_SETTINGS_MODULE=site.settings", "DEBUG=0"),
        "umask": 0,
        "loglevel": "info",
        "accesslog": "-",
        "proc_name": "shop",
        "forwarded_allow_ips": ("*",),
        "limit_request_line": settings.limit_request_header_total,
        "limit_request_fields": settings.limit_request_header_total,
        "wsgi_app": "site.wsgi",
    }
    assert {name: getattr(settings, name) for name in expected} == expected
    assert {found.sources[name] for name in expected} == {FILE}
    # None is the default, and no source.
    for name in ("pidfile", "user", "group"):
        assert (getattr(settings, name), found.sources[name]) == (None, "default")
    assert [name for name in HOOKS if found.hooks.get(name)] == ["pre_fork", "post_fork"]


def test_what_is_not_used_is_said_once_in_one_line(written):
    (note,) = written(ORDINARY).notes
    assert "\n" not in note
    assert note.startswith(f"not used of {FILE}: ")
    for name, reason in (
        ("worker_class", "threads decides how a worker works"),
        ("worker_tmp_dir", "not needed"),
        ("reload", "not supported"),
        ("logconfig_dict", "not supported"),
        ("statsd_host", "not supported"),
        ("worker_int", "this hook is not called"),
        ("worker_abort", "this hook is not called"),
        ("cores", "no setting"),
    ):
        assert f" {name} ({reason}" in note
    for name in (
        "daemon",
        "spew",
        "tmp_upload_dir",
        "certfile",
        "helper",
        "Filter",
        "BASE",
        "_pri",
    ):
        assert name not in note
    for name in ("logging", "ospath", "annotations", "bind", "pre_fork", "default_proc_name"):
        assert name not in note


@pytest.mark.parametrize(
    ("value", "version"),
    [
        ("True", "auto"),
        ("False", "off"),
        ("None", "off"),
        ("'true'", "auto"),
        ("'1'", "auto"),
        ("'0'", "off"),
        ("'none'", "off"),
        ("'V2'", "v2"),
        ("'auto'", "auto"),
    ],
)
def test_gunicorns_words_for_the_proxy_protocol(written, value, version):
    assert written(f"proxy_protocol = {value}").settings.proxy_protocol == version


@pytest.mark.parametrize("value", ["''", "' '", "[]", "()", "''.split(',')"])
def test_nobody_is_trusted(written, value):
    settings = written(f"forwarded_allow_ips = {value}\nproxy_allow_ips = {value}").settings
    assert (settings.forwarded_allow_ips, settings.proxy_allow_ips) == ((), ())
    with pytest.raises(SettingError, match="allow_from"):
        written(f"allow_from = {value}")  # unset is not nobody there


def test_every_setting_of_gunicorn_is_known():
    """Those of the version that is installed; none is taken for a slip of the pen."""
    config = pytest.importorskip("gunicorn.config")
    known = {*NAMES, *HOOKS, *configfile.NOT_USED, "default_proc_name"}
    assert {setting.name for setting in config.KNOWN_SETTINGS} <= known
    assert not set(configfile.NOT_USED) & {*NAMES, *HOOKS}


def test_a_file_that_is_used_whole_needs_no_note(written):
    assert written("bind = ['127.0.0.1:1', 'unix:/a']\nworkers = 2\n").notes == ()


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("bind = '127.0.0.1:1'", "bind", ("127.0.0.1:1",)),
        ("bind = ['127.0.0.1:1', 'unix:/a']", "bind", ("127.0.0.1:1", "unix:/a")),
        ("bind = ('127.0.0.1:1',)", "bind", ("127.0.0.1:1",)),
        ("workers = '3'", "workers", 3),
        ("umask = 0o027", "umask", 0o27),
        ("umask = '0o027'", "umask", 0o27),
        ("umask = '027'", "umask", 0o27),
        ("user = 1000", "user", "1000"),
        ("user = 'app'", "user", "app"),
        ("preload_app = 'true'", "preload_app", True),
        ("pythonpath = '/a,/b'", "pythonpath", ("/a", "/b")),
        ("timeout = 1.5", "timeout", 1.5),
        ("graceful_timeout = 0", "graceful_timeout", 0.0),
        ("proc_name = 'shop'\ndefault_proc_name = 'other'", "proc_name", "shop"),
        ("default_proc_name = 'other'\nproc_name = 'shop'", "proc_name", "shop"),
        ("keepalive = 0", "keepalive", 0.0),
        ("slow_request_timeout = 3", "slow_request_timeout", 3.0),
        ("control_socket = '/run/a.ctl'", "control_socket", "/run/a.ctl"),
    ],
)
def test_values(written, text, name, value):
    assert getattr(written(text).settings, name) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("workers = 'many'", "workers is 'many' (from gunicorn.conf.py): a whole number"),
        ("workers = 2.5", "workers is 2.5"),
        ("workers = True", "workers is True"),
        ("timeout = -1", "timeout is -1"),
        ("user = -1", "user is -1"),
        ("user = ['a']", "user is ['a']"),
        ("raw_env = {'A': 'b'}", "raw_env is {'A': 'b'}"),
        ("loglevel = 3", "loglevel is 3"),
        ("def bind(): ...", "bind is <function bind"),
        ("pre_fork = 3", "pre_fork is 3 (from gunicorn.conf.py): a function that is called"),
        ("def pre_fork(server): ...", "pre_fork is 'pre_fork(server)'"),
    ],
)
def test_a_bad_value_is_refused_as_everywhere(written, text, message):
    with pytest.raises(SettingError) as caught:
        written(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("workers = 2\nworkers = =\n", "line 2: SyntaxError: invalid syntax"),
        ("if True:\nx = 1\n", "line 2: IndentationError: expected an indented block"),
        ("\n\nnothing_such\n", "line 3: NameError: name 'nothing_such' is not defined"),
        (
            "import no_such_module\n",
            "line 1: ModuleNotFoundError: No module named 'no_such_module'",
        ),
        ("def f():\n    raise ValueError\nf()\n", "line 2: ValueError"),
        ("import json\njson.loads('{')\n", "line 2: JSONDecodeError: Expecting property name"),
        ("import sys\nsys.exit(3)\n", "line 2: it exits: 3"),
        ("raise SystemExit\n", "line 1: it exits"),
        ("import helper\n", "line 1: ZeroDivisionError: division by zero"),
        ("import broken\n", "line 1: SyntaxError"),
        ("x = '\0'\n", "source code string cannot contain null bytes"),
        ("# coding: nonsense\n", "SyntaxError: unknown encoding"),
    ],
)
def test_a_file_that_fails_is_refused_with_line_and_reason(written, tmp_path, text, reason):
    (tmp_path / "helper.py").write_text("\n\n1 / 0\n")
    (tmp_path / "broken.py").write_text("def (\n")
    with pytest.raises(SettingError) as caught:
        written(text)
    message = str(caught.value)
    assert message.startswith(f"config is '{tmp_path / FILE}': ")
    assert reason in message
    assert "\n" not in message


def test_a_file_that_there_is_not(tmp_path):
    for name in ("no.py", "no.toml"):
        with pytest.raises(SettingError, match="No such file or directory"):
            resolve({}, {}, name, str(tmp_path))


# What the file finds around it


def test_it_is_a_module_that_knows_its_place(written, tmp_path):
    found = written(
        """
        import os, sys, dataclasses
        assert sys.modules[__name__].__file__ == __file__

        @dataclasses.dataclass
        class Place:
            name: str

        chdir = os.path.dirname(__file__)
        proc_name = Place(os.getcwd()).name
        """
    )
    assert found.settings.chdir == found.settings.proc_name == str(tmp_path)


def test_it_is_executed_where_the_command_line_was_given(written, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert written("import os\nproc_name = os.getcwd()").settings.proc_name == str(tmp_path)
    with pytest.raises(SettingError):
        written("raise ValueError")
    assert os.getcwd() == str(elsewhere)


def test_its_imports_are_read_again_each_time(written, tmp_path):
    package = tmp_path / "shared_by_conf"
    package.mkdir()
    (package / "__init__.py").write_text("import os\n")
    source = """
    import shared_by_conf.numbers as numbers
    import email.mime.audio, requests

    workers = numbers.WORKERS

    def when_ready(server):
        return numbers.WORKERS
    """
    found = {}
    for workers in (2, 33):
        (package / "numbers.py").write_text(f"WORKERS = {workers}\n")
        found[workers] = written(source)
        assert found[workers].settings.workers == workers
        libraries = sys.modules["email.mime.audio"], sys.modules["requests"]
        found.setdefault("libraries", libraries)
        assert libraries == found["libraries"]
    # Hooks of before go on with what they imported.
    assert found[2].hooks.call("when_ready", None) == 2
    assert found[33].hooks.call("when_ready", None) == 33
    # A file that fails leaves what there was.
    kept = sys.modules["shared_by_conf.numbers"], sys.modules["__config__"]
    (package / "numbers.py").write_text("WORKERS = 4\n")
    with pytest.raises(SettingError):
        written(source + "\n    1 / 0\n")
    assert (sys.modules["shared_by_conf.numbers"], sys.modules["__config__"]) == kept


# Which file


TOML, PYTHON, PROJECT = "gateway.toml", "gateway.conf.py", "pyproject.toml"
TEXTS = {
    TOML: "threads = 11\n",
    PYTHON: "threads = 12\n",
    PROJECT: "[tool.gateway]\nthreads = 13\n",
    FILE: "threads = 14\n",
}


@pytest.mark.parametrize(
    ("names", "used", "told"),
    [
        ((), "", ""),
        ((TOML,), TOML, ""),
        ((PYTHON,), PYTHON, ""),
        ((PROJECT,), PROJECT, ""),
        ((TOML, PROJECT), TOML, ""),
        ((PYTHON, PROJECT), PYTHON, ""),
        ((TOML, PYTHON), TOML, "gateway.toml is used, gateway.conf.py is not"),
        ((TOML, PYTHON, PROJECT), TOML, "gateway.toml is used, gateway.conf.py is not"),
        # gunicorn's own has to be named.
        ((FILE,), "", ""),
    ],
)
def test_files_that_are_looked_for(tmp_path, names, used, told):
    for name in names:
        (tmp_path / name).write_text(TEXTS[name])
    found = resolve({}, {}, None, str(tmp_path))
    assert found.sources["threads"] == (used or "default")
    assert found.settings.threads == int(TEXTS[used].split()[-1]) if used else Settings().threads
    assert told in "".join(found.notes)
    assert bool(found.notes) == bool(told)


def test_toml_refuses_what_python_reports(tmp_path):
    (tmp_path / TOML).write_text("worker_class = 'sync'\n")
    with pytest.raises(SettingError, match="there is no such setting"):
        resolve({}, {}, None, str(tmp_path))
