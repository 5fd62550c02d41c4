"""HTTP/1.1: heads, targets, fields and connections (RFC 9110, RFC 9112)."""

from codec_harness import Case
from http_words import HOST, get, message, want

NEXT = get(target="/next")
next_ = want("/next")

#: name, request target, Host, PATH_INFO
TARGETS = [
    ("root", "/", "a", "/"),
    ("query", "/p?x=1&y=%26?z", "a", "/p"),
    ("empty query", "/p?", "a", "/p"),
    ("decoded path", "/a%20b/%C3%A9?x=%20", "a", "/a b/Ã©"),
    ("decoded once", "/100%25/%2541", "a", "/100%/%41"),
    ("decoded slash", "/a%2Fb", "a", "/a/b"),
    ("lower-case escape", "/%c3%a9", "a", "/Ã©"),
    ("double slash", "//path", "a", "//path"),
    ("double slashes", "//double//slash", "a", "//double//slash"),
    ("double slash with a colon", "//h:80/x", "a", "//h:80/x"),
    ("dots stay", "/x/../y/./z", "a", "/x/../y/./z"),
    ("semicolons", "/a;b=c", "a", "/a;b=c"),
    ("absolute form", "http://a/p?q=1", "a", "/p"),
    ("absolute form, no path", "http://a", "a", "/"),
    ("absolute form, query alone", "http://a?q", "a", "/"),
    ("absolute form, case of the host", "HTTP://A/p", "a", "/p"),
    ("absolute form, default port", "http://a:80/p", "a", "/p"),
    ("absolute form, default port in Host", "http://a/p", "a:80", "/p"),
    ("absolute form, https", "https://a:443/p", "a", "/p"),
    ("absolute form, port", "http://a:8080/p", "a:8080", "/p"),
    ("absolute form, double slash", "http://a//p", "a", "//p"),
    ("absolute form, address", "http://[::1]:80/p", "[::1]", "/p"),
]

HOSTS = [
    "a.example",
    "a.example:8080",
    "a:",
    "127.0.0.1",
    "[::1]",
    "[fe80::1]:80",
    "[v1.x:y]",
    "a%20b",
    "A_b-c~",
    "",
]

#: name, field lines, variables
FIELDS = [
    ("entity fields", ["Content-Type: text/x"], {"CONTENT_TYPE": "text/x"}),
    ("content-length 0", ["content-LENGTH: 0"], {"CONTENT_LENGTH": "0"}),
    ("content-length 00", ["Content-Length: 00"], {"CONTENT_LENGTH": "0"}),
    ("case of names", ["ACCEPT: x", "x-a: 1", "X-b: 2"], {"ACCEPT": "x", "X_A": "1", "X_B": "2"}),
    ("white space around", ["X:   a  b \t"], {"X": "a  b"}),
    ("no-break space stays", ["X: a\xa0\x85 \t"], {"X": "a\xa0\x85"}),
    ("no white space", ["X:a"], {"X": "a"}),
    ("empty value", ["X:", "Y: \t "], {"X": "", "Y": ""}),
    ("tab inside", ["X: a\tb"], {"X": "a\tb"}),
    ("latin-1", ["X: caf\xe9 \xff"], {"X": "caf\xe9 \xff"}),
    ("colon in the value", ["X: a:b"], {"X": "a:b"}),
    ("repeated", ["X: one", "Y: y", "x: two", "X:"], {"X": "one,two,", "Y": "y"}),
    ("cookies", ["Cookie: a=1", "Cookie: b=2; c=3"], {"COOKIE": "a=1; b=2; c=3"}),
    ("underscore dropped", ["X_User: evil", "X-User: u"], {"X_USER": "u"}),
    ("underscore alone dropped", ["X_User: evil", "User_Agent: e"], {}),
    ("underscore, entity", ["Content_Length: 7", "Content_Type: t"], {}),
    ("underscore, coding", ["Transfer_Encoding: chunked"], {}),
    ("dot in a name", ["X-Dot.ted: d"], {"X_DOT.TED": "d"}),
    ("httpoxy", ["Proxy: http://evil", "PROXY: e", "proxy: e"], {}),
    ("a spoof of a variable", ["Path-Info: /e", "Https: on"], {"PATH_INFO": "/e", "HTTPS": "on"}),
    (
        "hop-by-hop",
        ["Connection: keep-alive", "Keep-Alive: 5", "Proxy-Connection: x", "TE: t", "Trailer: X"],
        {},
    ),
    ("hop-by-hop, any case", ["tE: t", "kEEP-alive: 5", "uPGRADE: x"], {}),
]

CASES = [
    *(
        Case(f"target: {name}", get(target=target).replace(b": a", b": " + host.encode()),
             [want(target, path=path, host=host,
                   env={"QUERY_STRING": target.partition("?")[2]})])
        for name, target, host, path in TARGETS
    ),
    *(
        Case(f"host: {host or 'empty'}", message("GET / HTTP/1.1", f"Host: {host}"),
             [want(host=host)])
        for host in HOSTS
    ),
    *(
        Case(f"field: {name}", get(*lines), [want(env={
            key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}": value
            for key, value in variables.items()
        })])
        for name, lines, variables in FIELDS
    ),
    *(
        Case(f"method: {method}", message(f"{method} / HTTP/1.1", HOST), [want(method=method)])
        for method in ("HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND", "REPORT")
    ),
    *(
        Case(f"later minor version: {version}",
             message(f"GET /p?q HTTP/{version}", HOST, "X: y") + NEXT,
             [want("/p?q", path="/p", env={"HTTP_X": "y"}), next_])
        for version in ("1.2", "1.9")
    ),
    Case("later minor version, upgrade",
         message("GET / HTTP/1.2", HOST, "Upgrade: x", "Connection: Upgrade") + NEXT,
         [want(), next_]),
    Case("later minor version, last",
         message("GET / HTTP/1.3", HOST, "Connection: close"), [want(keep_alive=False)],
         closing=True),
    Case("asterisk form", message("OPTIONS * HTTP/1.1", HOST),
         [want("*", method="OPTIONS", path="")]),
    Case("absolute form, 1.0 without Host", message("GET http://b:81/p HTTP/1.0"),
         [want("http://b:81/p", http="HTTP/1.0", path="/p", host="b:81")], closing=True),
    # Connections (RFC 9112 section 9)
    Case("nothing", b""),
    Case("keep-alive", [get(), NEXT], [want(), next_]),
    Case("pipelined", get() + get("X: y") + NEXT,
         [want(), want(env={"HTTP_X": "y"}), next_]),
    Case("pipelined, more than are decoded at once", (get() + b"\r\n") * 100 + NEXT,
         [want()] * 100 + [next_]),
    Case("pipelined, the last of many is malformed", get() * 50 + b"GET /\r\n\r\n",
         [want()] * 50, refused="400 "),
    Case("pipelined, many with bodies",
         (get("Content-Length: 3") + b"abc") * 70 + NEXT,
         [want(length=3, body=b"abc", env={"CONTENT_LENGTH": "3"})] * 70 + [next_]),
    Case("pipelined, second closes", get() + get("Connection: close"),
         [want(), want(keep_alive=False)], closing=True),
    Case("data after close", get("Connection: close") + NEXT, [want(keep_alive=False)],
         closing=True),
    Case("garbage after close", get("Connection: foo, CLOSE") + b"\x16\x03\0",
         [want(keep_alive=False)], closing=True),
    Case("1.0", message("GET / HTTP/1.0"), [want(http="HTTP/1.0", host=None)], closing=True),
    Case("1.0, then data", message("GET / HTTP/1.0") + NEXT,
         [want(http="HTTP/1.0", host=None)], closing=True),
    Case("1.0 keep-alive", message("GET / HTTP/1.0", HOST, "Connection: Keep-Alive") + NEXT,
         [want(http="HTTP/1.0", keep_alive=True), next_]),
    Case("1.1 keep-alive", get("Connection: keep-alive") + NEXT, [want(), next_]),
    Case("missing Host after 1.0 without",
         message("GET / HTTP/1.0", "Connection: keep-alive") + message("GET / HTTP/1.1"),
         [want(http="HTTP/1.0", host=None, keep_alive=True)], refused="400 the Host field is m"),
    Case("empty lines before", b"\r\n\r\n" + get() + b"\r\n" + NEXT, [want(), next_]),
    Case("upgrade ignored", get("Connection: upgrade", "Upgrade: websocket") + NEXT,
         [want(), next_]),
    Case("upgrade to h2c ignored",
         get("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AA") + NEXT,
         [want(env={"HTTP_HTTP2_SETTINGS": "AA"}), next_]),
    Case("upgrade and close",
         get("Connection: close, upgrade", "Upgrade: x") + NEXT, [want(keep_alive=False)],
         closing=True),
    # The end of the connection
    Case("end after an empty line", b"\r\n"),
    Case("end in the request line", b"GET / HT", eof="in the middle of a request head"),
    Case("end in the fields", b"GET / HTTP/1.1\r\nHost: a\r\n", eof="middle of a request head"),
    Case("end before the last line feed", get()[:-1], eof="in the middle of a request head"),
    Case("end in the second head", get() + b"G", [want()], eof="in the middle of a request head"),
]  # fmt: skip
