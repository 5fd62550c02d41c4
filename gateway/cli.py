"""The command line: arguments to settings to the manager; errors for people.

Exit codes of ``serve``: 0 stopped as asked, 1 the system refuses (address in
use, no permission), 2 a wrong setting, 3 the application cannot be loaded.
Of ``reload``: 0 reloaded, 1 it failed or nobody answers, 2 wrong usage.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any, NoReturn

import click

import protocols
from gateway import __version__, once, startup
from gateway.accesslog import FormatError, compile_format
from gateway.addresses import Address, AddressError, parse_address
from gateway.control import ControlError, ask
from gateway.loader import LoadError, load_application
from gateway.once import CGI
from gateway.process import (
    apply_environment,
    check_privileges,
    open_standard_descriptors,
    owner_of_workers,
)
from gateway.settings import SettingError, Settings, kind_of
from gateway.sockets import BindError, inherited_addresses
from gateway.sources import CMD_ARGS, PREFIX, Resolved, resolve
from gateway.startup import change_folder
from protocols.builds import BUILD
from protocols.detect import AUTO

EXIT_SYSTEM = 1
EXIT_USAGE = 2
EXIT_LOAD = 3

#: Seconds that ``gateway reload`` waits for the outcome.
_RELOAD_TIMEOUT = 300.0

_VERSION = f"%(prog)s, version %(version)s ({BUILD})"

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run ``gateway [serve] APP [options]`` or another command, and exit."""
    open_standard_descriptors()
    words = sys.argv[1:] if arguments is None else arguments
    commands = {"serve": serve, "reload": reload}
    command, name = serve, "gateway"
    if words and words[0] in commands:
        command, words = commands[words[0]], words[1:]
        name = "gateway" if command is serve else f"gateway {command.name}"
    try:
        code = command.main(args=words, prog_name=name, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = EXIT_USAGE
    except click.Abort:
        code = EXIT_SYSTEM
    sys.exit(code or 0)


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    """One option for each setting."""
    for item in reversed(fields(Settings)):
        if item.name == "wsgi_app":
            continue
        kind = kind_of(item.name)
        long = "--" + item.name.replace("_", "-")
        default = item.default
        shown = ",".join(default) if isinstance(default, tuple) else default
        if isinstance(default, bool):
            option = click.option(
                *item.metadata["flags"],
                f"{long}/--no-{long[2:]}",
                item.name,
                default=None,
                help=item.metadata["help"],
            )
        else:
            note = "" if shown in (None, "") else f"  [default: {shown}]"
            option = click.option(
                *item.metadata["flags"],
                long,
                item.name,
                multiple=kind.many,
                metavar=item.metadata["value"],
                help=item.metadata["help"] + note,
            )
        command = option(command)
    return command


@click.command(
    context_settings=_CONTEXT,
    epilog="gateway reload --pidfile FILE has a running gateway load new code and settings, and "
    "waits for the outcome; see gateway reload --help.",
)
@click.argument("wsgi_app", metavar="APP", required=False)
@_options
@click.option(
    "-c",
    "--config",
    metavar="FILE",
    help="Configuration file: TOML, or Python if its name ends in .py (an ordinary "
    "gunicorn.conf.py will do)  [default: gateway.toml, gateway.conf.py, or [tool.gateway] in "
    "pyproject.toml]",
)
@click.option("--check-config", is_flag=True, help="Check settings and application, then exit.")
@click.option("--print-config", is_flag=True, help="Print settings and their sources, then exit.")
@click.version_option(__version__, prog_name="gateway", message=_VERSION)
def serve(config: str | None, check_config: bool, print_config: bool, **arguments: Any) -> int:
    """Serve the WSGI application APP (module:attr) over HTTP, FastCGI and SCGI."""
    try:
        # A reload reads the same sources again, wherever ``chdir`` has led to
        # and whatever ``raw_env`` has set.
        folder = _start_folder()
        environ = dict(os.environ)
        options = _options_from(environ.get(CMD_ARGS, ""))
        named = options.pop("config", None)
        file = named if config is None else config
        read = partial(resolve, _given(arguments), environ, file, folder, options)
        resolved = read()
        addresses = _addresses(resolved)
        if print_config:
            for line in resolved.lines():
                click.echo(line)
        if check_config:
            _certified(_placed(resolved, folder))
            return _check(resolved)
        if print_config:
            return 0
        if not resolved.settings.wsgi_app:
            raise click.UsageError("APP is missing: name the application, such as module:attr")
        if resolved.settings.protocol == CGI:
            return once.serve(resolved)
        check_privileges(resolved.settings)
        addresses = _owned(addresses, resolved.settings)
        placed = _certified(_placed(resolved, folder))
        return startup.serve(placed, addresses, partial(_reread, read, folder), folder)
    except SettingError as error:
        return _fail(EXIT_USAGE, error)
    except (BindError, OSError) as error:
        return _fail(EXIT_SYSTEM, error)


@click.command(context_settings=_CONTEXT)
@click.option(
    "-p",
    "--pidfile",
    metavar="FILE",
    envvar=PREFIX + "PIDFILE",
    help="The pidfile of the running gateway; its control socket is beside it.",
)
@click.option(
    "--control-socket",
    metavar="FILE",
    envvar=PREFIX + "CONTROL_SOCKET",
    help="The control socket of the running gateway, if it is not beside the pidfile.",
)
@click.option(
    "--timeout",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    default=_RELOAD_TIMEOUT,
    help=f"Seconds to wait for the outcome  [default: {_RELOAD_TIMEOUT:g}]",
)
def reload(pidfile: str | None, control_socket: str | None, timeout: float) -> int:
    """Have a running gateway load new code and settings, and wait for the outcome.

    Exits with 0 when all workers run the new code, and with 1 and the reason
    when the new code does not start: then the old goes on serving.
    """
    if not (pidfile or control_socket):
        raise click.UsageError("name the running gateway with --pidfile or --control-socket")
    try:
        done, text = ask(control_socket or f"{pidfile}.ctl", "reload", timeout)
    except ControlError as error:
        return _fail(EXIT_SYSTEM, error)
    if not done:
        click.echo(f"gateway: {text}", err=True)
        return EXIT_SYSTEM
    click.echo(text)
    return 0


def _given(arguments: dict[str, Any]) -> dict[str, Any]:
    """The options that were there."""
    return {name: value for name, value in arguments.items() if value not in (None, ())}


def _options_from(text: str) -> dict[str, Any]:
    """Settings, and perhaps ``config``, in the text of GATEWAY_CMD_ARGS.  Raises SettingError."""
    try:
        context = serve.make_context(CMD_ARGS, shlex.split(text))
    except (click.ClickException, ValueError) as error:
        reason = error.format_message() if isinstance(error, click.ClickException) else str(error)
        raise SettingError(CMD_ARGS, text, reason[:1].lower() + reason[1:]) from None
    del context.params["check_config"], context.params["print_config"]
    return _given(context.params)


def _start_folder() -> str:
    """Where we were started, as the user spells it: a deploy may move a symbolic link in it."""
    named = os.environ.get("PWD", "")
    try:
        if os.path.isabs(named) and os.path.samefile(named, "."):
            return named
    except OSError:
        pass  # it is of another process or of another time
    return os.getcwd()


def _placed(resolved: Resolved, folder: str) -> Resolved:
    """With the folder that the application is loaded from now, links followed.

    Workers that are started later on, but not by a reload, load the same code.
    Raises SettingError.
    """
    named = resolved.settings.chdir
    chdir = os.path.realpath(os.path.join(folder, named or ""))
    if named is not None and not os.path.isdir(chdir):
        raise SettingError("chdir", named, "No such file or directory", resolved.sources["chdir"])
    return replace(resolved, settings=replace(resolved.settings, chdir=chdir))


def _reread(read: Callable[[], Resolved], folder: str) -> Resolved:
    """What a reload goes on with.  Raises SettingError."""
    resolved = read()
    _addresses(resolved)
    check_privileges(resolved.settings)
    return _certified(_placed(resolved, folder))


def _certified(resolved: Resolved) -> Resolved:
    """With the certificate and the key, if there are any.  Raises SettingError."""
    if not resolved.settings.certfile:
        return resolved
    from gateway.certificates import load  # noqa: PLC0415 - OpenSSL only where it is used

    return replace(resolved, tls=load(resolved.settings, resolved.sources))


def _addresses(resolved: Resolved) -> list[Address]:
    """Where to listen; checks the settings that name protocols, addresses, formats, folders."""
    settings, sources = resolved.settings, resolved.sources
    known = [*protocols.names(), AUTO]
    if settings.protocol not in (*known, CGI):
        allowed = f"allowed are {', '.join((*known, CGI))}"
        raise SettingError("protocol", settings.protocol, allowed, sources["protocol"])
    try:
        compile_format(settings.access_log_format)
    except FormatError as error:
        format_source = sources["access_log_format"]
        raise SettingError(
            "access_log_format", settings.access_log_format, str(error), format_source
        ) from None
    if settings.x_sendfile_root is not None and not os.path.isdir(settings.x_sendfile_root):
        root_source = sources["x_sendfile_root"]
        raise SettingError(
            "x_sendfile_root", settings.x_sendfile_root, "there is no such folder", root_source
        )
    if settings.protocol == CGI:
        once.check_settings(resolved)
        return []
    certified = bool(settings.certfile)
    if sources["bind"] == "default":
        chosen = sources["protocol"] != "default"
        inherited = inherited_addresses(settings.protocol, chosen=chosen, certified=certified)
        if inherited:
            return inherited
    addresses = []
    for text in settings.bind:
        try:
            address = parse_address(text, settings.protocol, known, certified=certified)
        except AddressError as error:
            raise SettingError("bind", text, str(error), sources["bind"]) from None
        addresses.append(address)
    return addresses


def _owned(addresses: list[Address], settings: Settings) -> list[Address]:
    """Unix sockets belong to the workers' user and group, where the bind does not say whose."""
    identity = owner_of_workers(settings.user, settings.group)
    if identity is None:
        return addresses
    # -1 is "as it is", which a bind says by saying nothing.
    owner, group = ("" if number == -1 else str(number) for number in (identity.uid, identity.gid))
    return [
        replace(address, owner=owner, group=group)
        if address.kind == "unix" and not (address.owner or address.group)
        else address
        for address in addresses
    ]


def _check(resolved: Resolved) -> int:
    """Import the application, as a worker would."""
    settings = resolved.settings
    for note in resolved.notes:
        click.echo(f"gateway: {note}", err=True)
    check_privileges(settings)
    apply_environment(settings.raw_env)
    if settings.chdir is not None:
        change_folder(settings.chdir)
    sys.path[:0] = [*settings.pythonpath, os.getcwd()]
    if settings.wsgi_app:
        try:
            load_application(settings.wsgi_app)
        except LoadError as error:
            return _fail(EXIT_LOAD, error)
        except (Exception, SystemExit):  # noqa: BLE001 - the application's own fault
            sys.excepthook(*sys.exc_info())
            return EXIT_LOAD
    click.echo("the configuration is good")
    return 0


def _fail(code: int, error: Exception) -> int:
    click.echo(f"gateway: {error}", err=True)
    return code
