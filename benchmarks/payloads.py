"""One realistic request in the bytes of each protocol: a browser's, and what nginx makes of it."""

from __future__ import annotations

from struct import pack

TARGET = "/articles/2026/a-long-enough-path?page=2&order=date"
FIELDS = {
    "Host": "www.example.com",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "en-US,en;q=0.5",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Referer": "https://www.example.com/articles/",
    "Connection": "keep-alive",
    "Cookie": "session=4f8d2c0b9a7e6f5d4c3b2a1908f7e6d5; theme=dark",
    "Upgrade-Insecure-Requests": "1",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "same-origin",
}


def variables(fields=None, target=TARGET):
    """The meta-variables of the request, as nginx's own parameter files name them."""
    path, _, query = target.partition("?")
    found = {
        "QUERY_STRING": query,
        "REQUEST_METHOD": "GET",
        "CONTENT_TYPE": "",
        "CONTENT_LENGTH": "",
        "SCRIPT_NAME": path,
        "REQUEST_URI": target,
        "DOCUMENT_URI": path,
        "DOCUMENT_ROOT": "/usr/share/nginx/html",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REQUEST_SCHEME": "https",
        "HTTPS": "on",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SERVER_SOFTWARE": "nginx/1.22.1",
        "REMOTE_ADDR": "192.0.2.17",
        "REMOTE_PORT": "51234",
        "SERVER_ADDR": "192.0.2.1",
        "SERVER_PORT": "443",
        "SERVER_NAME": "www.example.com",
        "REDIRECT_STATUS": "200",
    }
    for name, value in (FIELDS if fields is None else fields).items():
        found["HTTP_" + name.upper().replace("-", "_")] = value
    return found


def http(fields=None, target=TARGET):
    lines = "".join(f"{k}: {v}\r\n" for k, v in (FIELDS if fields is None else fields).items())
    return f"GET {target} HTTP/1.1\r\n{lines}\r\n".encode()


def fastcgi(fields=None, target=TARGET):
    params = b"".join(
        _length(name) + _length(value) + name.encode() + value.encode()
        for name, value in variables(fields, target).items()
    )
    begin = pack(">HB5x", 1, 1)
    return _record(1, begin) + _record(4, params) + _record(4, b"") + _record(5, b"")


def scgi(fields=None, target=TARGET):
    pairs = {"CONTENT_LENGTH": "0", "SCGI": "1"}
    found = variables(fields, target)
    del found["CONTENT_LENGTH"]
    text = "".join(f"{name}\0{value}\0" for name, value in (pairs | found).items()).encode()
    return b"%d:%b," % (len(text), text)


def _length(text):
    size = len(text)
    return bytes((size,)) if size < 128 else pack(">I", size | 0x80000000)


def _record(kind, content):
    padding = -len(content) % 8
    return pack(">BBHHBx", 1, kind, 1, len(content), padding) + content + bytes(padding)


PAYLOADS = {"http": http, "fastcgi": fastcgi, "scgi": scgi}
