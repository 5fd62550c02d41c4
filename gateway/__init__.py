"""One WSGI application, served the same over HTTP/1.1, FastCGI and SCGI."""

import protocols.builds  # noqa: F401 - first: it decides where the others come from

__version__ = "0.1.0"
