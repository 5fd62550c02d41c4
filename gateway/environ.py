"""The environ of one request: pure functions over dictionaries.

Front ends disagree about where the application is mounted, which paths they
decode and which variables they leave out.  The rules here give the same
request the same environ, whoever forwarded it.

The path that the front end *routed* is what its access rules judged, so that
is what the application gets; REQUEST_URI keeps the client's own spelling.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, unquote_to_bytes

from protocols.headers import TOKEN

Environ = dict[str, str]

#: Empty means absent: some front ends always send these.
#: A list, for a compiled loop over it needs no iterator.
_OPTIONAL: Final = ["AUTH_TYPE", "CONTENT_TYPE", "HTTPS", "REMOTE_IDENT", "REMOTE_USER"]
_TRUE: Final = frozenset({"on", "1", "true", "yes", "https"})
_METHODS: Final = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
_NO_BODY_METHODS: Final = frozenset({"GET", "HEAD"})


class BadVariables(ValueError):
    """What the front end sent makes no request."""


def text_of(value: object) -> str:
    """A value of an environ for a log: the application may have put anything there.

    Never raises; an object that cannot be printed is called by its type.
    """
    if isinstance(value, str):
        return str.__str__(value)
    try:
        return str(value)
    except BaseException:  # noqa: BLE001 - SystemExit too, and a worker goes on without a text
        return type(value).__name__


def decode_path(path: str) -> str:
    """Percent-decode once, to latin-1 ``str`` (PEP 3333 "Unicode Issues")."""
    if "%" not in path:
        return path
    return unquote_to_bytes(path.encode("latin-1")).decode("latin-1")


def split_uri(uri: str) -> tuple[str, str | None]:
    """Path and query of a request target, absolute-form or not; still encoded."""
    path, mark, query = uri.partition("?")
    if path[:1] != "/" and "://" in path:
        authority_and_path = path.partition("://")[2]
        path = "/" + authority_and_path.partition("/")[2]
    return path, query if mark else None


def tidy(path: str) -> str | None:
    """The path with slashes joined and dots resolved; None if it climbs out."""
    kept: list[str] = []
    segments = path.split("/")
    for segment in segments:
        if segment == "..":
            if not kept:
                return None
            kept.pop()
        elif segment not in ("", "."):
            kept.append(segment)
    directory = segments[-1] in ("", ".", "..") and kept
    return "/" + "/".join(kept) + ("/" if directory else "")


def below(path: str, mount: str) -> bool:
    """Whether ``path`` is ``mount`` or lies below it, by whole segments."""
    return path.startswith(mount) and path[len(mount) : len(mount) + 1] in ("", "/")


def mount_at(environ: Environ, mount: str, path: str) -> None:
    """Split ``path`` at the configured mount point; outside of it nothing is split."""
    if mount != "/" and below(path, mount):
        environ["SCRIPT_NAME"] = mount
        environ["PATH_INFO"] = path[len(mount) :]
    else:
        environ["SCRIPT_NAME"] = ""
        environ["PATH_INFO"] = path


class Normaliser:
    """Makes an environ of the variables that a codec gave."""

    def apply(self, environ: Environ) -> None:
        """Change ``environ`` to what the application gets.  Raises BadVariables."""
        raise NotImplementedError


class HttpMounter(Normaliser):
    """Mounts requests that came over HTTP."""

    def __init__(self, mount: str) -> None:
        self._mount = mount

    def apply(self, environ: Environ) -> None:
        mount_at(environ, self._mount, environ["PATH_INFO"])


class CgiNormaliser(Normaliser):
    """Makes an environ of a front end's variables."""

    def __init__(self, mount: str | None, path_info_source: str) -> None:
        self._mount = mount
        self._as_spelt = path_info_source == "request_uri"

    def apply(self, environ: Environ) -> None:
        method = environ.get("REQUEST_METHOD")
        if method not in _METHODS:
            check_method(method)
        uri = environ.get("REQUEST_URI", "")
        set_paths(environ, self._mount, uri)
        if self._as_spelt:
            take_client_spelling(environ, split_uri(uri)[0])
        if "QUERY_STRING" not in environ:
            environ["QUERY_STRING"] = split_uri(uri)[1] or ""
        if not uri:
            environ["REQUEST_URI"] = rebuilt_uri(environ)
        set_server(environ)
        for name in _OPTIONAL:
            if environ.get(name) == "":
                del environ[name]
        length = environ.get("CONTENT_LENGTH")
        if length is not None and not (length and is_told(length, method)):
            del environ["CONTENT_LENGTH"]


def is_told(length: str, method: str | None) -> bool:
    """Whether the application is told this length of a body."""
    return length != "-1" and (length != "0" or method not in _NO_BODY_METHODS)


def http_mounter(mount: str | None) -> Normaliser | None:
    """How requests that came over HTTP are mounted; None if nothing is to be done."""
    return None if mount is None or mount == "/" else HttpMounter(mount)


def check_method(method: str | None) -> None:
    """Raise BadVariables for what is no method (RFC 9110 section 9.1)."""
    if not method:
        raise BadVariables("REQUEST_METHOD is missing")
    if TOKEN.fullmatch(method) is None:
        raise BadVariables("REQUEST_METHOD is no method")


def set_paths(environ: Environ, mount: str | None, uri: str) -> None:
    """SCRIPT_NAME and PATH_INFO from whatever the front end sent of them."""
    script = environ.get("SCRIPT_NAME", "")
    info = environ.get("PATH_INFO")
    if info and not script and mount is None:
        environ["SCRIPT_NAME"] = ""
        return
    if script == "/":  # PEP 3333: the root is the empty string
        script = ""
        if info is not None and info[:1] != "/":
            info = "/" + info
    routed, is_script = routed_path(environ, script, info, uri)
    if not routed:
        routed = decode_path(split_uri(uri)[0])
    if mount is not None:
        mount_at(environ, mount, routed)
    elif info is not None and (script or info):
        environ["SCRIPT_NAME"] = script
        environ["PATH_INFO"] = info
    elif script and not is_script and info is None and routed.startswith(script + "/"):
        environ["SCRIPT_NAME"] = script
        environ["PATH_INFO"] = routed[len(script) :]
    else:
        environ["SCRIPT_NAME"] = ""
        environ["PATH_INFO"] = routed


def routed_path(environ: Environ, script: str, info: str | None, uri: str) -> tuple[str, bool]:
    """The decoded path that the front end routed, and whether SCRIPT_NAME is all of it."""
    if info is not None:
        return script + info, False
    document = environ.get("DOCUMENT_URI")
    if document:
        return document, False
    decoded = decode_path(split_uri(uri)[0])
    if script:
        same_place = tidy(script) == tidy(decoded)
        if same_place or not below(decoded, script):
            return script, True
    return decoded, False


def take_client_spelling(environ: Environ, uri_path: str) -> None:
    """PATH_INFO as the client spelt it, where that is the same place.

    Slashes and dots are judged below the mount point only: ``/a/../app/x`` and
    ``/app/../app/x`` must not move SCRIPT_NAME or climb out of it.
    """
    script = environ["SCRIPT_NAME"]
    decoded = decode_path(uri_path)
    if not below(decoded, script):
        return
    rest = decoded[len(script) :]
    place = tidy(rest)
    if place is not None and place == tidy(environ["PATH_INFO"]):
        environ["PATH_INFO"] = rest


def rebuilt_uri(environ: Environ) -> str:
    """A REQUEST_URI for front ends that send none."""
    path = environ["SCRIPT_NAME"] + environ["PATH_INFO"]
    query = environ["QUERY_STRING"]
    uri = quote(path, safe="/:@!$&'()*+,;=~", encoding="latin-1")
    return f"{uri}?{query}" if query else uri


def set_server(environ: Environ) -> None:
    """wsgi.url_scheme, SERVER_NAME, SERVER_PORT and SERVER_PROTOCOL (RFC 3875 section 4.1)."""
    https = environ.get("HTTPS")
    scheme = environ.get("REQUEST_SCHEME")
    if https and https.lower() in _TRUE:
        scheme = "https"
    elif scheme is None or (scheme != "http" and scheme != "https"):  # noqa: PLR1714 - no tuple
        scheme = "http"
    environ["wsgi.url_scheme"] = scheme
    name = environ.get("SERVER_NAME")
    if not name:
        environ["SERVER_NAME"] = "localhost"
    elif ":" in name:
        environ["SERVER_NAME"] = without_port(name)
    if not environ.get("SERVER_PORT"):
        environ["SERVER_PORT"] = "443" if scheme == "https" else "80"
    if not environ.get("SERVER_PROTOCOL"):
        environ["SERVER_PROTOCOL"] = "HTTP/1.0"


def without_port(name: str) -> str:
    """A SERVER_NAME alone: HAProxy sends the Host field with its port."""
    host, _, port = name.rpartition(":")
    if port.isdigit() and (":" not in host or host.endswith("]")):
        return host or "localhost"
    return name
