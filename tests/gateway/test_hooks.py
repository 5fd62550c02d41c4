"""Hooks: which functions are taken, and what they are shown."""

# The names of a hook's arguments are what is tested.
# ruff: noqa: ARG001, ARG005

import functools
import logging
from pathlib import Path

import pytest

from gateway.hooks import HOOKS, NO_HOOKS, Hooks, RequestView, ResponseView, ServerView, WorkerView
from gateway.kinds import SettingError

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "hooks.md"
LOG = logging.getLogger("test")


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_gets_its_arguments_and_returns_what_it_returns(name):
    hooks = Hooks({name: lambda *arguments: arguments})
    arguments = tuple(range(len(HOOKS[name])))
    assert hooks.call(name, *arguments) == arguments
    assert hooks.get(name)(*arguments) == arguments
    for other in HOOKS:
        if other != name:
            assert hooks.get(other) is None
            assert hooks.call(other, *arguments) is None


def test_without_hooks_nothing_is_called():
    assert all(NO_HOOKS.get(name) is None for name in HOOKS)
    assert NO_HOOKS.call("pre_fork", 1, 2) is None


def test_what_a_hook_raises_is_the_callers():
    def pre_fork(server, worker):
        raise SystemExit(7)

    with pytest.raises(SystemExit):
        Hooks({"pre_fork": pre_fork}).call("pre_fork", 1, 2)


class Callable:
    def __call__(self, server, worker, more=None):
        return server, worker

    def method(self, server, worker):
        return server, worker


@pytest.mark.parametrize(
    "function",
    [
        lambda server, worker: (server, worker),
        lambda *arguments: arguments,
        lambda server, worker, more=1: (server, worker),
        Callable(),
        Callable().method,
        functools.partial(lambda more, server, worker: (server, worker), 1),
    ],
)
def test_whatever_can_be_called_with_the_arguments_is_taken(function):
    assert Hooks({"pre_fork": function}).call("pre_fork", 1, 2) == (1, 2)


async def async_hook(server, worker): ...


@pytest.mark.parametrize(
    ("function", "shown"),
    [
        (lambda server: None, "pre_fork is 'pre_fork(server)'"),
        (lambda a, b, c: None, "pre_fork is 'pre_fork(a, b, c)'"),
        (lambda a, b, *, c: None, "pre_fork is 'pre_fork(a, b, *, c)'"),
        ("text", "pre_fork is 'text'"),
        (7, "pre_fork is 7"),
        (async_hook, "this one is async"),
    ],
)
def test_what_cannot_be_called_with_the_arguments_is_refused(function, shown):
    with pytest.raises(SettingError) as caught:
        Hooks({"pre_fork": function}, "some.conf.py")
    message = str(caught.value)
    assert shown in message
    assert "(from some.conf.py)" in message
    assert "a function that is called with (server, worker) is allowed" in message


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda worker, req: (worker, req), (1, 2)),
        (lambda worker, req, environ: (worker, req, environ), (1, 2, 3)),
        (lambda worker, req, environ, resp: (worker, req, environ, resp), (1, 2, 3, 4)),
        (lambda *arguments: arguments, (1, 2, 3, 4)),
    ],
)
def test_older_forms_of_post_request(function, expected):
    assert Hooks({"post_request": function}).call("post_request", 1, 2, 3, 4) == expected


def test_the_page_about_hooks_has_them_all():
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    expected = {f"| `{name}({', '.join(arguments)})` " for name, arguments in HOOKS.items()}
    assert {f"{row.partition('` ')[0]}` " for row in rows} == expected
    assert len(rows) == len(HOOKS)


def test_views_of_processes():
    server = ServerView(7, LOG, "settings", ("http on 127.0.0.1:1",))
    assert (server.pid, server.log, server.cfg) == (7, LOG, "settings")
    assert server.address == ["http on 127.0.0.1:1"]
    worker = WorkerView(8, LOG, "settings", 3, 7)
    assert (worker.pid, worker.log, worker.cfg, worker.age, worker.ppid) == (
        8,
        LOG,
        "settings",
        3,
        7,
    )
    worker.remembered = 1  # gunicorn's users keep things there
    assert worker.remembered == 1


ENVIRON = {
    "REQUEST_METHOD": "POST",
    "REQUEST_URI": "/a%20b/c?x=1&y",
    "SCRIPT_NAME": "/a b",
    "PATH_INFO": "/c",
    "QUERY_STRING": "x=1&y",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "CONTENT_TYPE": "text/plain",
    "CONTENT_LENGTH": "",
    "HTTP_HOST": "example",
    "HTTP_X_FORWARDED_FOR": "10.0.0.1",
    "wsgi.version": (1, 0),
}


def test_view_of_a_request():
    request = RequestView(ENVIRON)
    assert (request.method, request.uri, request.path, request.query, request.version) == (
        "POST",
        "/a%20b/c?x=1&y",
        "/a%20b/c",
        "x=1&y",
        (1, 1),
    )
    assert request.headers == [
        ("CONTENT-TYPE", "text/plain"),
        ("HOST", "example"),
        ("X-FORWARDED-FOR", "10.0.0.1"),
    ]


def test_view_of_a_request_without_its_uri():
    environ = {name: value for name, value in ENVIRON.items() if name != "REQUEST_URI"}
    assert RequestView(environ).uri == "/a%20b/c?x=1&y"
    assert RequestView(environ).path == "/a%20b/c"


@pytest.mark.parametrize(
    ("protocol", "version"),
    [("HTTP/1.0", (1, 0)), ("HTTP/2", (2, 0)), ("INCLUDED", (1, 0)), ("", (1, 0))],
)
def test_version_of_a_request(protocol, version):
    assert RequestView({"SERVER_PROTOCOL": protocol}).version == version


@pytest.mark.parametrize(("status", "code"), [("404 Not Found", 404), ("200", 200), ("", 0)])
def test_view_of_an_answer(status, code):
    response = ResponseView(status, [("A", "b")], 12)
    assert (response.status, response.status_code) == (status, code)
    assert (response.headers, response.sent) == ([("A", "b")], 12)
