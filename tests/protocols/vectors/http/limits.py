"""HTTP/1.1: each limit, one below, at and one above it."""

from codec_harness import Case
from http_words import chunked, get, message, post, sized, unsized, want

AROUND = (-1, 0, 1)
NAMES = {-1: "below", 0: "at", 1: "above"}


def target(line: int) -> str:
    """The target of a request line of that many bytes."""
    return "/" + "x" * (line - len("GET / HTTP/1.1"))


def chunks(*sizes: int) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (size, b"x" * size) for size in sizes) + b"0\r\n\r\n"


def around(name, limits, build, wanted, refusal, partial=()):
    """Three cases; ``build`` and ``wanted`` take how far the input is from the limit."""
    for off in AROUND:
        above = off > 0
        yield Case(
            f"{name}: {NAMES[off]}",
            build(off),
            list(partial) if above else [wanted(off)],
            refused=refusal if above else "",
            limits=limits,
        )


CASES = [
    *around("request line", {"request_line": 40},
            lambda off: get(target=target(40 + off)),
            lambda off: want(target(40 + off)), "414"),
    *around("request line of the default size", {},
            lambda off: get(target=target(8190 + off)),
            lambda off: want(target(8190 + off)), "414"),
    *around("number of fields", {"request_fields": 3, "request_field_size": 20},
            lambda off: get(*["X: y"] * (2 + off)),
            lambda off: want(env={"HTTP_X": ",".join("y" * (2 + off))}), "431 more than 3"),
    *around("size of a field", {"request_field_size": 20},
            lambda off: get("X: " + "y" * (17 + off)),
            lambda off: want(env={"HTTP_X": "y" * (17 + off)}), "431 a header field"),
    *around("size of the last field", {"request_field_size": 20},
            lambda off: get("A: b", "X: " + "y" * (17 + off)),
            lambda off: want(env={"HTTP_A": "b", "HTTP_X": "y" * (17 + off)}),
            "431 a header field"),
    *around("size of the head", {"request_header_total": 60},
            lambda off: get("X: " + "y" * (60 - len(get("X: ")) + off)),
            lambda off: want(env={"HTTP_X": "y" * (60 - len(get("X: ")) + off)}),
            "431 the request head"),
    *around("sized body", {"request_body": 10},
            lambda off: post(f"Content-Length: {10 + off}", body=b"x" * (10 + off)),
            lambda off: sized(b"x" * (10 + off)), "413"),
    *around("chunked body", {"request_body": 10},
            lambda off: chunked(chunks(10 + off)),
            lambda off: unsized(b"x" * (10 + off)), "413",
            partial=[unsized(b"x" * 10, whole=False)]),
    *around("body of many chunks", {"request_body": 10},
            lambda off: chunked(chunks(*[1] * (10 + off))),
            lambda off: unsized(b"x" * (10 + off)), "413",
            partial=[unsized(b"x" * 10, whole=False)]),
    Case("no limit on bodies", post("Content-Length: 20", body=b"x" * 20)
         + chunked(chunks(20)), [sized(b"x" * 20), unsized(b"x" * 20)],
         limits={"request_body": 0}),
    Case("request line without end", b"GET /" + b"x" * 60, refused="414",
         limits={"request_line": 40}),
    Case("head without end", get("X: " + "y" * 60)[:-4], refused="431",
         limits={"request_header_total": 70}),
    Case("limits are a request's, not the connection's", get("X: y") * 20,
         [want(env={"HTTP_X": "y"})] * 20,
         limits={"request_header_total": 40, "request_fields": 2}),
    Case("large body after a refused expectation of none",
         message("POST / HTTP/1.1", "Host: a", "Expect: 100-continue", "Content-Length: 11"),
         refused="413", limits={"request_body": 10}),
    Case("trailers without end", chunked(b"0\r\n" + b"X: y\r\n" * 30),
         [unsized(b"", whole=False)], refused="431 chunk extensions or trailers",
         limits={"request_header_total": 80}),
    Case("trailers", chunked(b"0\r\n" + b"X: y\r\n" * 30 + b"\r\n"),
         [unsized(b"", whole=False)], refused="431 chunk extensions or trailers",
         limits={"request_header_total": 80}),
    Case("chunks of one byte", chunked(b"1\r\ny\r\n" * 300 + b"0\r\n\r\n"), [unsized(b"y" * 300)],
         limits={"request_header_total": 80}),
    Case("extension without end", chunked(b"1;" + b"x" * 100),
         [unsized(b"", whole=False)], refused="431 chunk extensions or trailers",
         limits={"request_header_total": 80}),
]  # fmt: skip
