"""Words in which the HTTP tables are written."""

from __future__ import annotations

from codec_harness import Seen

HOST = "Host: a"


def message(*lines: str, body: bytes = b"") -> bytes:
    """A head of these lines, its empty line, and a body."""
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1") + body


def get(*fields: str, target: str = "/", body: bytes = b"") -> bytes:
    return message(f"GET {target} HTTP/1.1", HOST, *fields, body=body)


def post(*fields: str, body: bytes = b"", target: str = "/") -> bytes:
    return message(f"POST {target} HTTP/1.1", HOST, *fields, body=body)


def chunked(body: bytes, *fields: str) -> bytes:
    """A POST with its chunks as they are on the wire."""
    return post("Transfer-Encoding: chunked", *fields, body=body)


def want(
    target: str = "/",
    *,
    method: str = "GET",
    http: str = "HTTP/1.1",
    path: str | None = None,
    host: str | None = "a",
    env: dict[str, str] | None = None,
    **seen,
) -> Seen:
    """The request of that request line; ``path`` where it is not as in the target."""
    plain, _, query = target.partition("?")
    environ = {
        "REQUEST_METHOD": method,
        "SERVER_PROTOCOL": http,
        "REQUEST_URI": target,
        "SCRIPT_NAME": "",
        "PATH_INFO": plain if path is None else path,
        "QUERY_STRING": query,
    } | (env or {})
    if host is not None:
        environ["HTTP_HOST"] = host
    seen.setdefault("keep_alive", http == "HTTP/1.1")
    return Seen(environ, head_only=method == "HEAD", http10=http == "HTTP/1.0", **seen)


def sized(body: bytes, target: str = "/", **more) -> Seen:
    """A POST whose length was announced; ``announced`` where the body is cut."""
    length = more.pop("announced", len(body))
    env = {"CONTENT_LENGTH": str(length)} | more.pop("env", {})
    return want(target, method="POST", env=env, body=body, length=length, **more)


def unsized(body: bytes, target: str = "/", **more) -> Seen:
    """A POST whose body came in chunks."""
    return want(target, method="POST", body=body, length=-1, **more)


def check_refusal(reason: str, reply: bytes) -> None:
    """A refusal is one whole closing answer whose status the reason starts with."""
    head, _, body = reply.partition(b"\r\n\r\n")
    lines = head.decode("ascii").split("\r\n")
    assert lines[0].startswith(f"HTTP/1.1 {reason[:3]} ")
    assert f"Content-Length: {len(body)}" in lines
    assert "Connection: close" in lines
    assert "Content-Type: text/plain" in lines
    assert any(line.startswith("Server: ") for line in lines)
