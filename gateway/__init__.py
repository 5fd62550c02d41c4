"""One WSGI application, served the same over HTTP/1.1, FastCGI and SCGI."""

__version__ = "0.1.0"
