"""From settings to a running manager: folder, logs, pidfile, sockets."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial

from gateway.accesslog import AccessLog
from gateway.addresses import Address
from gateway.errorlog import open_error_log
from gateway.kinds import SettingError
from gateway.manager import Manager
from gateway.preload import supported
from gateway.process import own, owner_of_workers
from gateway.sockets import open_listeners
from gateway.sources import Resolved
from gateway.succession import Succession


def serve(
    resolved: Resolved,
    addresses: Sequence[Address],
    reread: Callable[[], Resolved],
    folder: str,
) -> int:
    """Serve until told to stop; return the exit code.

    ``folder`` is where the command line was given, and where it is given again
    to a manager that follows.  Raises SettingError, BindError and OSError.
    """
    settings = resolved.settings
    if settings.preload_app and not supported():
        raise SettingError("preload_app", True, "it needs Linux")
    if settings.umask is not None:
        os.umask(settings.umask)
    if settings.chdir is not None:
        change_folder(settings.chdir)
    succession = Succession(folder, os.environ)
    # Workers reopen the logs, as whoever they are.
    identity = owner_of_workers(settings.user, settings.group)
    ours = None if identity is None else partial(own, identity)
    log = open_error_log(settings.errorlog, settings.loglevel, ours)
    access = None
    if settings.accesslog is not None:
        access = AccessLog(settings.accesslog, settings.access_log_format, ours)
    if settings.pidfile is not None:
        succession.write_pidfile(settings.pidfile)
    try:
        listeners = open_listeners(
            addresses, settings.backlog, succession.listeners, settings.defer_accept
        )
        for note in resolved.notes:
            log.warning("%s", note)
        if settings.certfile and not any(listener.tls for listener in listeners):
            log.warning("certfile is set, but no bind speaks TLS: https:// in front of one says it")
        if settings.ca_certs and settings.cert_reqs == "none":
            log.warning(
                "ca_certs is set, but cert_reqs is none: no client is asked for a certificate"
            )
        return Manager(resolved, listeners, log, access, reread, succession).run()
    finally:
        succession.remove_pidfile()


def change_folder(folder: str) -> None:
    """Change to ``folder``.  Raises SettingError."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise SettingError("chdir", folder, error.strerror or str(error)) from None
