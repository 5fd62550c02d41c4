"""The command line: arguments to settings to the manager; errors for people.

Exit codes: 0 stopped as asked, 1 the system refuses (address in use, no
permission), 2 a wrong setting, 3 the application cannot be loaded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import fields
from typing import Any, NoReturn

import click

import protocols
from gateway import __version__, startup
from gateway.accesslog import FormatError, compile_format
from gateway.addresses import Address, AddressError, parse_address
from gateway.loader import LoadError, load_application
from gateway.settings import Resolved, SettingError, Settings, kind_of, resolve
from gateway.sockets import BindError, inherited_addresses
from gateway.startup import change_folder

EXIT_SYSTEM = 1
EXIT_USAGE = 2
EXIT_LOAD = 3

_COMMANDS = ("serve",)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run ``gateway [serve] APP [options]`` and exit."""
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] and words[0] in _COMMANDS:
        words = words[1:]
    try:
        code = serve.main(args=words, prog_name="gateway", standalone_mode=False)
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
                f"{long}/--no-{long[2:]}", item.name, default=None, help=item.metadata["help"]
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


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("wsgi_app", metavar="APP", required=False)
@_options
@click.option(
    "-c",
    "--config",
    metavar="FILE",
    help="Configuration file (TOML)  [default: gateway.toml, or [tool.gateway] in pyproject.toml]",
)
@click.option("--check-config", is_flag=True, help="Check settings and application, then exit.")
@click.option("--print-config", is_flag=True, help="Print settings and their sources, then exit.")
@click.version_option(__version__, prog_name="gateway")
def serve(config: str | None, check_config: bool, print_config: bool, **arguments: Any) -> int:
    """Serve the WSGI application APP (module:attr) over HTTP, FastCGI and SCGI."""
    given = {name: value for name, value in arguments.items() if value not in (None, ())}

    try:
        # A reload reads the same files again, wherever ``chdir`` has led to.
        folder = os.getcwd()

        def read() -> Resolved:
            return resolve(given, os.environ, config, folder)

        resolved = read()
        addresses = _addresses(resolved)
        if print_config:
            for line in resolved.lines():
                click.echo(line)
        if check_config:
            return _check(resolved.settings)
        if print_config:
            return 0
        if not resolved.settings.wsgi_app:
            raise click.UsageError("APP is missing: name the application, such as module:attr")
        return startup.serve(resolved, addresses, read, folder)
    except SettingError as error:
        return _fail(EXIT_USAGE, error)
    except (BindError, OSError) as error:
        return _fail(EXIT_SYSTEM, error)


def _addresses(resolved: Resolved) -> list[Address]:
    """Where to listen; checks the settings that name protocols, addresses and formats."""
    settings, sources = resolved.settings, resolved.sources
    known = protocols.names()
    if settings.protocol not in known:
        allowed = f"allowed are {', '.join(known)}"
        raise SettingError("protocol", settings.protocol, allowed, sources["protocol"])
    try:
        compile_format(settings.access_log_format)
    except FormatError as error:
        format_source = sources["access_log_format"]
        raise SettingError(
            "access_log_format", settings.access_log_format, str(error), format_source
        ) from None
    if sources["bind"] == "default":
        chosen = sources["protocol"] != "default"
        inherited = inherited_addresses(settings.protocol, chosen=chosen)
        if inherited:
            return inherited
    addresses = []
    for text in settings.bind:
        try:
            addresses.append(parse_address(text, settings.protocol, known))
        except AddressError as error:
            raise SettingError("bind", text, str(error), sources["bind"]) from None
    return addresses


def _check(settings: Settings) -> int:
    """Import the application, as a worker would."""
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
