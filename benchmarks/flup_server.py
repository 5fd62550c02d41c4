"""flup on a unix socket: ``python -m benchmarks.flup_server fastcgi|scgi PATH [quiet]``."""

import logging
import sys

from flup.server import fcgi, scgi

from benchmarks.app import app


def main():
    protocol, path, *quiet = sys.argv[1:]
    if protocol == "fastcgi":
        server = fcgi.WSGIServer(app, bindAddress=path, umask=0)
    else:
        level = logging.ERROR if quiet else logging.INFO  # flup's own default
        server = scgi.WSGIServer(app, bindAddress=path, umask=0, loggingLevel=level)
    server.run()


if __name__ == "__main__":
    main()
