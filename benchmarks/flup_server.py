"""flup on a unix socket: ``python -m benchmarks.flup_server fastcgi|scgi PATH``."""

import logging
import sys

from flup.server import fcgi, scgi

from benchmarks.app import app


def main():
    protocol, path = sys.argv[1:]
    if protocol == "fastcgi":
        server = fcgi.WSGIServer(app, bindAddress=path, umask=0)
    else:
        server = scgi.WSGIServer(app, bindAddress=path, umask=0, loggingLevel=logging.ERROR)
    server.run()


if __name__ == "__main__":
    main()
