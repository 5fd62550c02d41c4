"""HTTP/1.1: what is refused, and with which status; smuggling above all."""

from codec_harness import Case
from http_words import HOST, chunked, get, message, post, sized, unsized, want

#: name, bytes, start of the reason
HEADS = [
    # Request lines and versions (RFC 9112 sections 2.3 and 3)
    ("HTTP/0.9", message("GET / HTTP/0.9", HOST), "505"),
    ("HTTP/2.0", message("GET / HTTP/2.0", HOST), "505"),
    ("HTTP/3.0", message("GET / HTTP/3.0", HOST), "505"),
    ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505"),
    ("0.9 simple request", b"GET /\r\n\r\n", "400 the request line"),
    ("0.9 simple request, unfinished", b"GET /\r\n", "400 the request line"),
    ("version in lower case", message("GET / http/1.1", HOST), "400"),
    ("version of three parts", message("GET / HTTP/1.1.1", HOST), "400"),
    ("version with spaces", message("GET / HTTP/1.1 ", HOST), "400"),
    ("two spaces", message("GET  / HTTP/1.1", HOST), "400"),
    ("tabs for spaces", message("GET\t/\tHTTP/1.1", HOST), "400"),
    ("space first", message(" GET / HTTP/1.1", HOST), "400"),
    ("no target", message("GET HTTP/1.1", HOST), "400"),
    ("empty target", message("GET  HTTP/1.1", HOST), "400"),
    ("space in the target", message("GET /a b HTTP/1.1", HOST), "400"),
    ("method of other characters", message("G@T / HTTP/1.1", HOST), "400"),
    ("method starts badly", message('"GET / HTTP/1.1', HOST), "400 this is no HTTP"),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400 this is no HTTP"),
    ("TLS with a line end", b"\x16\x03\x01 \r\n\r\n", "400 this is no HTTP"),
    ("CONNECT", message("CONNECT a:443 HTTP/1.1", HOST), "501"),
    ("unknown method", message("FROBNICATE / HTTP/1.1", HOST), "501"),
    ("method in lower case", message("get / HTTP/1.1", HOST), "501"),
    # Targets
    ("fragment", get(target="/a#b"), "400"),
    ("bad escape", get(target="/%4"), "400"),
    ("bad escape 2", get(target="/%zz"), "400"),
    ("raw byte in the target", get(target="/caf\xe9"), "400"),
    ("control in the target", get(target="/\x01"), "400"),
    ("delete in the target", get(target="/\x7f"), "400"),
    ("NUL in the target", get(target="/\0"), "400"),
    ("relative target", get(target="a"), "400"),
    ("asterisk of a GET", get(target="*"), "400"),
    ("authority form of a GET", get(target="a:80"), "400"),
    ("another scheme", get(target="ftp://a/"), "400"),
    ("absolute form, a port alone", message("GET http://:80/ HTTP/1.1", "Host: :80"), "400"),
    ("absolute form without authority", get(target="http:///p"), "400"),
    ("absolute form with a user", get(target="http://u@a/"), "400"),
    # Host (RFC 9112 section 3.2)
    ("Host missing", message("GET / HTTP/1.1", "X: y"), "400 the Host field is missing"),
    ("Host missing, absolute form", message("GET http:// HTTP/1.1"), "400"),
    ("Host repeated", get("Host: b"), "400 the Host field is repeated"),
    ("Host repeated, the same", get("host: a"), "400 the Host field is repeated"),
    ("Host repeated in 1.0", message("GET / HTTP/1.0", HOST, HOST), "400 the Host field is r"),
    ("Host contradicts", get(target="http://b/"), "400 the Host field contradicts"),
    ("Host contradicts, port", get(target="http://a:81/"), "400 the Host field contradicts"),
    ("Host contradicts, default", get(target="https://a:80/"), "400 the Host field contradicts"),
    ("Host empty contradicts", message("GET http://a/ HTTP/1.1", "Host:"), "400 the Host field c"),
    *(
        (f"Host {host}", message("GET / HTTP/1.1", f"Host: {host}"), "400 the Host field is inv")
        for host in ("a b", "a/b", "u@a", "a:b", "a:80:90", "[::1", "::1", "a\\b", "a#", "a?",
                     '"a"', "<a>", "caf\xe9", "a%2", "[::1]a", "a, a/", "[x]", ":80",
                     ":")
    ),
    # Fields (RFC 9112 section 5)
    ("space before the colon", get("X : y"), "400"),
    ("tab before the colon", get("X\t: y"), "400"),
    ("space before the colon of a length", post("Content-Length : 3", body=b"abc"), "400"),
    ("folded line", get("X: a", " b"), "400"),
    ("folded line, tab", get("X: a", "\tb"), "400"),
    ("folded first line", message("GET / HTTP/1.1", " X: y", HOST), "400"),
    ("no colon", get("nonsense"), "400"),
    ("empty name", get(": y"), "400"),
    ("bad name", get("X@: y"), "400"),
    ("raw byte in a name", get("X\xe9: y"), "400"),
    ("NUL in a value", get("X: a\0b"), "400"),
    ("NUL in a name", get("X\0: y"), "400"),
    ("control in a value", get("X: a\x01b"), "400"),
    ("delete in a value", get("X: a\x7fb"), "400"),
    ("CR in a value", get("X: a\rb"), "400"),
    ("CR at the end of a value", get("X: a\r"), "400"),
    ("bare LF after the request line", b"GET / HTTP/1.1\nHost: a\r\n\r\n", "400"),
    ("bare LF after a field", b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", "400"),
    ("bare LF at the end", b"GET / HTTP/1.1\r\nHost: a\r\n\n", "400"),
    ("bare LFs alone", b"GET / HTTP/1.1\nHost: a\n\n", "400"),
    ("CR alone before a request", b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", "400"),
    # Framing (RFC 9112 section 6.3)
    ("length and coding", post("Content-Length: 3", "Transfer-Encoding: chunked"), "400"),
    ("coding and length", post("Transfer-Encoding: chunked", "Content-Length: 3"), "400"),
    ("length 0 and coding", post("Content-Length: 0", "Transfer-Encoding: chunked"), "400"),
    ("two lengths", post("Content-Length: 3", "Content-Length: 4", body=b"abcd"), "400"),
    ("two equal lengths", post("Content-Length: 3", "Content-Length: 3", body=b"abc"), "400"),
    *(
        (f"length {value!r}", post(f"Content-Length: {value}", body=b"abc"), "400")
        for value in ("", "+3", "-3", "3,3", "3 3", "0x3", "3.0", "3a", "1_0", "\xb3", "9" * 21,
                      "18446744073709551616")
    ),
    ("coding in 1.0", message("POST / HTTP/1.0", HOST, "Transfer-Encoding: chunked"), "400"),
    ("other coding in 1.0", message("POST / HTTP/1.0", HOST, "Transfer-Encoding: gzip"), "400"),
    *(
        (f"coding {value}", post(f"Transfer-Encoding: {value}", body=b"0\r\n\r\n"), "501")
        for value in ("gzip, chunked", "identity, chunked", "gzip, br , Chunked", "'x', chunked")
    ),
    *(
        (f"coding {value!r}", post(f"Transfer-Encoding: {value}", body=b"0\r\n\r\n"), "400")
        for value in ("", "chunked, chunked", "chunked, gzip", "chunked,", "\x0bchunked",
                      "chunked\t", "chunked\x00", "gzip", "identity", "xchunked", "chunked;a=b",
                      "chunkedx", "'chunked'", '"chunked"', "x chunked", ", chunked",
                      "gzip;q=1, chunked", "chunked, gzip, chunked")
    ),
    ("coding twice", post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), "400"),
    ("coding then identity",
     post("Transfer-Encoding: chunked", "Transfer-Encoding: identity"), "400"),
    ("coding gzip then chunked",
     post("Transfer-Encoding: gzip", "Transfer-Encoding: chunked"), "501"),
]  # fmt: skip

#: name, what follows the head of a chunked message, the body until then
CHUNKS = [
    ("size is no number", b"x\r\n", b""),
    ("size is missing", b"\r\n", b""),
    ("size is signed", b"+1\r\nx\r\n0\r\n\r\n", b""),
    ("size is negative", b"-1\r\nx\r\n0\r\n\r\n", b""),
    ("size with 0x", b"0x1\r\nx\r\n0\r\n\r\n", b""),
    ("size with underscore", b"1_0\r\nx\r\n0\r\n\r\n", b""),
    ("size too large", b"10000000000000000\r\nx", b""),
    ("size far too large", b"f" * 40 + b"\r\nx", b""),
    ("space before the size", b" 1\r\nx\r\n0\r\n\r\n", b""),
    ("space after the size", b"1 \r\nx\r\n0\r\n\r\n", b""),
    ("LF after the size", b"1\nx\r\n0\r\n\r\n", b""),
    ("CR after the size", b"1\rx\r\n0\r\n\r\n", b""),
    ("data too long", b"1\r\nxy\r\n0\r\n\r\n", b"x"),
    ("LF after the data", b"1\r\nx\n0\r\n\r\n", b"x"),
    ("LF after the last size", b"1\r\nx\r\n0\n\r\n", b"x"),
    ("LF at the end", b"1\r\nx\r\n0\r\n\n", b"x"),
    ("LF in an extension", b"1;a\nb\r\nx\r\n0\r\n\r\n", b""),
    ("NUL in an extension", b"1;a\0\r\nx\r\n0\r\n\r\n", b""),
    ("LF in a trailer", b"0\r\nX: y\nZ: z\r\n\r\n", b""),
    ("NUL in a trailer", b"0\r\nX: \0\r\n\r\n", b""),
    ("folded trailer", b"0\r\nX: y\r\n z\r\n\r\n", b""),
    ("space before the colon of a trailer", b"0\r\nX : y\r\n\r\n", b""),
    ("length as a trailer", b"0\r\nContent-Length: 5\r\n\r\n", b""),
    ("coding as a trailer", b"0\r\nTransfer-Encoding: chunked\r\n\r\n", b""),
]  # fmt: skip

SMUGGLED = get(target="/admin")

CASES = [
    *(Case(f"refused: {name}", data, refused=reason) for name, data, reason in HEADS),
    *(
        Case(f"chunks refused: {name}", chunked(body),
             [unsized(wanted, whole=False)], refused="400 malformed HTTP body")
        for name, body, wanted in CHUNKS
    ),
    *(
        Case(f"second refused: {name}", get() + data, [want()], refused=reason)
        for name, data, reason in HEADS[:6] + HEADS[-4:]
    ),
    # What one reader takes for a body and another for a request must reach neither as such.
    Case("smuggling: CL.TE", post("Content-Length: 6", "Transfer-Encoding: chunked",
                                  body=b"0\r\n\r\nG"), refused="400"),
    Case("smuggling: TE.CL", chunked(b"5c\r\n" + SMUGGLED + b"0\r\n\r\n", "Content-Length: 4"),
         refused="400"),
    Case("smuggling: obscured coding",
         post("Content-Length: 5", "Transfer-Encoding : chunked", body=b"0\r\n\r\n") + SMUGGLED,
         refused="400"),
    Case("smuggling: tab before the coding's name",
         post("X: y", "\tTransfer-Encoding: chunked", body=b"0\r\n\r\n") + SMUGGLED,
         refused="400"),
    Case("smuggling: coding after a bare LF",
         post("X: y\nTransfer-Encoding: chunked", body=b"0\r\n\r\n") + SMUGGLED, refused="400"),
    Case("smuggling: length after a bare CR",
         post("X: y\rContent-Length: 5", body=b"hello") + SMUGGLED, refused="400"),
    Case("smuggling: underscore is no coding", post("Transfer_Encoding: chunked") + SMUGGLED,
         [want(method="POST"), want("/admin")]),
    Case("smuggling: underscore is no length",
         post("Content_Length: 100", "Content-Length: 1", body=b"x") + SMUGGLED,
         [sized(b"x"), want("/admin")]),
    Case("smuggling: GET with a hidden request",
         get(f"Content-Length: {len(SMUGGLED)}", body=SMUGGLED),
         [want(body=SMUGGLED, length=len(SMUGGLED),
               env={"CONTENT_LENGTH": str(len(SMUGGLED))})]),
    Case("smuggling: chunk extension with a line feed",
         chunked(b"2;\nxx\r\n4c\r\n0\r\n\r\n" + SMUGGLED), [unsized(b"", whole=False)],
         refused="400"),
    Case("smuggling: upgrade does not swallow what follows",
         get("Connection: upgrade", "Upgrade: x") + message("GET /admin HTTP/1.1"),
         [want()], refused="400 the Host field is missing"),
]  # fmt: skip
