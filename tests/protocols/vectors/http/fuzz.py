"""Half-right HTTP: heads and bodies put together from parts that mean something."""

from http_words import get, message
from hypothesis import strategies as st

LINES = st.sampled_from([
    "GET / HTTP/1.1", "POST /p?q HTTP/1.1", "HEAD * HTTP/1.0", "OPTIONS * HTTP/1.1",
    "GET http://a/ HTTP/1.1", "GET / HTTP/1.0", "GET / HTTP/2.0", "PUT //x HTTP/1.1", "GET /",
    "get / HTTP/1.1", "CONNECT a:1 HTTP/1.1", "GET /%zz HTTP/1.1",
])  # fmt: skip
FIELDS = st.sampled_from([
    "Host: a", "Host: a", "Host: a", "Host: b", "Content-Length: 5", "Content-Length: 0",
    "Transfer-Encoding: chunked", "Transfer-Encoding: chunked", "Transfer-Encoding: gzip",
    "Connection: close", "Connection: keep-alive", "Connection: upgrade", "Upgrade: h2c",
    "Expect: 100-continue", "Cookie: a=1", "X_Y: z", "X: y \t", "X : y", " folded", "X: a\nY: b",
    "X: \0", "Proxy: p", "Trailer: X", "", "\r", "Content-Length: 5, 5",
])  # fmt: skip
BODIES = st.sampled_from([
    b"", b"", b"hello", b"5\r\nhello\r\n", b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"1;x\r\n", b"\r\n",
    b"0\r\nConnection: close\r\n\r\n", b"a\r\n0123456789\r\n0\r\n\r\n", b"ffffffffff\r\n", b"\n",
    b"0\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", b"3\r\n\r\n\r\r\n", get(),
])  # fmt: skip
MESSAGES = st.builds(
    lambda line, fields, bodies: message(line, *fields, body=b"".join(bodies)),
    LINES,
    st.lists(FIELDS, max_size=6),
    st.lists(BODIES, max_size=4),
)
STRUCTURED = st.lists(MESSAGES, min_size=1, max_size=4).map(b"".join)

LONG = {
    "many fields": lambda n: get(*["X: " + "y" * 95] * (n // 100)),
    "long fields": lambda n: get(*["X: " + "y" * 7997] * (n // 8000)),
    "a long line": lambda n: get(
        *["X: " + "y" * 95] * ((n - 8000) // 100), target="/" + "x" * 7900),
    "a very long line": lambda n: get(target="/" + "x" * n),
    "a chunked body": lambda n: message(
        "POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked",
        body=b"5\r\nabcde\r\n" * (n // 10) + b"0\r\n\r\n"),
    "one long chunk": lambda n: message(
        "POST / HTTP/1.1", "Host: a", "Transfer-Encoding: chunked",
        body=b"%x\r\n%b\r\n0\r\n\r\n" % (n, b"\r\n" * (n // 2))),
}  # fmt: skip
