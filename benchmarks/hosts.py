"""Runs a server that has no command line: ``python hosts.py NAME APP ADDRESS THREADS``.

An address is HOST:PORT or unix:PATH.
"""

import importlib
import logging
import sys


def bjoern(app, address, _threads):
    import bjoern  # noqa: PLC0415

    bjoern.run(app, *_address(address, "unix:"))


def fastwsgi(app, address, _threads):
    import fastwsgi  # noqa: PLC0415

    fastwsgi.run(app, *_address(address))


def waitress(app, address, threads):
    import waitress  # noqa: PLC0415

    place = (
        {"unix_socket": address[5:], "unix_socket_perms": "666"}
        if address.startswith("unix:")
        else {"listen": address}
    )
    # select() ends at 1,024 descriptors.
    many = {"connection_limit": 20_000, "asyncore_use_poll": True, "backlog": 2048}
    waitress.serve(app, threads=threads, **many, **place)


def cheroot(app, address, threads):
    from cheroot.wsgi import Server  # noqa: PLC0415

    place = _address(address)
    server = Server(place[0] if len(place) == 1 else place, app, numthreads=threads)
    server.request_queue_size = 2048
    server.timeout = 600
    server.start()


def flup_fastcgi(app, address, _threads):
    from flup.server import fcgi  # noqa: PLC0415

    _flup(fcgi, app, address)


def flup_scgi(app, address, _threads):
    from flup.server import scgi  # noqa: PLC0415

    # It logs every request by default.
    _flup(scgi, app, address, loggingLevel=logging.ERROR)


def _flup(module, app, address, **more):
    place = _address(address)
    module.WSGIServer(
        app, bindAddress=place[0] if len(place) == 1 else place, umask=0, **more
    ).run()


def _address(text, prefix=""):
    """(PATH,) or (HOST, PORT)."""
    if text.startswith("unix:"):
        return (prefix + text[5:],)
    host, _, port = text.rpartition(":")
    return host, int(port)


def main():
    name, application, address, threads = sys.argv[1:]
    module, _, attribute = application.partition(":")
    app = getattr(importlib.import_module(module), attribute)
    globals()[name](app, address, int(threads))


if __name__ == "__main__":
    main()
