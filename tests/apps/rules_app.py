"""One WSGI application with a page for every rule of PEP 3333; the path chooses.

``?NAME`` names what a page reports: close() of an answer writes ``closed NAME``
to ``wsgi.errors``, ``wait_at`` waits at the gate ``NAME`` of the test.
"""

# ruff: noqa: ARG001 - every page is a WSGI application

import hashlib
import json
import os
import socket
import sys
from enum import Enum
from io import BufferedReader, BytesIO
from itertools import repeat

PLAIN = [("Content-Type", "text/plain")]
PAGES = {}


def page(function):
    PAGES["/" + function.__name__.replace("_", "-")] = function
    return function


def app(environ, start_response):
    path = environ["SCRIPT_NAME"] + environ["PATH_INFO"]
    return PAGES[path](environ, start_response)


def name_of(environ):
    return environ["QUERY_STRING"]


def wait_at(environ):
    """Wait until the test opens the gate."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as gate:
        gate.settimeout(30)
        gate.connect(name_of(environ) + ".gate")
        gate.recv(1)


class Pieces:
    """An iterable whose close() is reported."""

    def __init__(self, environ, pieces, in_close=None):
        self.environ = environ
        self.pieces = iter(pieces)
        self.in_close = in_close

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.pieces)

    def close(self):
        self.environ["wsgi.errors"].write(f"closed {name_of(self.environ)}\n")
        if self.in_close is not None:
            raise self.in_close


class PiecesList(list):
    """As Pieces, but a list: nothing may be concluded from its type."""

    environ = None

    def close(self):
        self.environ["wsgi.errors"].write(f"closed {name_of(self.environ)}\n")


@page
def pid(_environ, start_response):
    start_response("200 OK", PLAIN)
    return [b"%d" % os.getpid()]


@page
def environ(environ, start_response):
    start_response("200 OK", PLAIN)
    return [json.dumps({name: repr(environ[name]) for name in environ}).encode()]


# start_response


@page
def replaced(environ, start_response):
    """exc_info before the head: the new status and headers count."""
    start_response("200 OK", [("X-Old", "1")])
    try:
        raise ValueError("first thoughts")
    except ValueError:
        start_response("418 Replaced", [("X-New", "1")], sys.exc_info())
    return [b"replaced"]


@page
def replaced_after_nothing(environ, start_response):
    """Empty pieces, written or yielded, send no head: it can still be replaced."""
    write = start_response("200 OK", [("X-Old", "1")])
    write(b"")
    yield b""
    yield b""
    try:
        raise ValueError("first thoughts")
    except ValueError:
        start_response("418 Replaced", [("X-New", "1")], sys.exc_info())
    yield b""
    yield b"replaced"


@page
def too_late(environ, start_response):
    """exc_info after the head: the original exception is raised, the connection cut."""
    start_response("200 OK", PLAIN)
    yield b"begun"
    original = ValueError("the original exception")
    try:
        raise original
    except ValueError:
        try:
            start_response("500 Late", [], sys.exc_info())
        except ValueError as error:
            if error is original:
                environ["wsgi.errors"].write(f"raised again {name_of(environ)}\n")
            raise


@page
def twice(environ, start_response):
    start_response("200 OK", [("X-First", "1")])
    start_response("200 OK", [("X-Second", "1")])
    return [b"never"]


@page
def never(environ, start_response):
    return [b"no head"]


@page
def never_generator(environ, start_response):
    yield b"no head"


@page
def never_empty(environ, start_response):
    return []


@page
def lazy_start(environ, start_response):
    """start_response is called only when the first piece is asked for."""

    class Lazy:
        def __iter__(self):
            start_response("200 OK", PLAIN)
            return iter([b"la", b"zy"])

    return Lazy()


@page
def written(environ, start_response):
    write = start_response("200 OK", PLAIN)
    write(b"one ")
    write(b"")
    write(b"two ")
    return [b"three"]


@page
def written_sized(environ, start_response):
    write = start_response("200 OK", [*PLAIN, ("Content-Length", "7")])
    write(b"one ")
    return [b"two"]


# Iterables


class Bytes(bytes):
    """A subclass is bytes too."""


class Indexed:
    """The old protocol of iteration: __getitem__ until IndexError."""

    def __init__(self, *pieces):
        self.pieces = pieces

    def __getitem__(self, index):
        return self.pieces[index]


ITERABLES = {
    "list": lambda: [b"ab", b"cd"],
    "one-item": lambda: [b"abcd"],
    "tuple": lambda: (b"ab", b"", b"cd"),
    "generator": lambda: (piece for piece in (b"ab", b"cd")),
    "empty-first": lambda: iter([b"", b"", b"abcd"]),
    "iterator": lambda: map(bytes, ([97, 98], [99, 100])),
    "getitem": lambda: Indexed(b"ab", b"cd"),
    "dict": lambda: {b"ab": 1, b"cd": 2},
    "file": lambda: BytesIO(b"abcd"),
    "subclass": lambda: [Bytes(b"abcd")],
    "subclasses": lambda: iter([Bytes(b"ab"), Bytes(b"cd")]),
    "no-len": lambda: PiecesList([b"ab", b"cd"]),
}
EMPTY_ITERABLES = {
    "empty-list": list,
    "empty-piece": lambda: [b""],
    "empty-pieces": lambda: (b"", b""),
    "empty-generator": lambda: iter(()),
    "empty-generated": lambda: iter((b"", b"")),
}


@page
def iterable(environ, start_response):
    start_response("200 OK", PLAIN)
    result = (ITERABLES | EMPTY_ITERABLES)[name_of(environ)]()
    if isinstance(result, PiecesList):
        result.environ = environ
    return result


WRONG_RESULTS = {
    "str-in-list": lambda: ["text"],
    "str-in-longer-list": lambda: [b"bytes", "text"],
    "str-first": lambda: iter(["text"]),
    "str": lambda: "text",
    "bytes": lambda: b"text",
    "none": lambda: None,
    "none-in-list": lambda: [None],
    "number": lambda: 7,
    "numbers": lambda: [1, 2],
    "bytearray": lambda: [bytearray(b"text")],
    "memoryview": lambda: iter([memoryview(b"text")]),
}


@page
def wrong_result(environ, start_response):
    start_response("200 OK", PLAIN)
    return WRONG_RESULTS[name_of(environ)]()


@page
def wrong_later(environ, start_response):
    start_response("200 OK", PLAIN)
    return Pieces(environ, [b"begun", "text", b"never"])


@page
def wrong_written(environ, start_response):
    start_response("200 OK", PLAIN)("text")
    return []


# close()


def raising(error, *before):
    yield from before
    raise error


@page
def closes(environ, start_response):
    start_response("200 OK", PLAIN)
    return Pieces(environ, [b"ab", b"cd"])


@page
def closes_list(environ, start_response):
    start_response("200 OK", PLAIN)
    result = PiecesList([b"ab", b"cd"])
    result.environ = environ
    return result


@page
def closes_not_modified(environ, start_response):
    start_response("304 Not Modified", [("ETag", '"1"')])
    return Pieces(environ, [b"never seen"])


@page
def closes_after_failure(environ, start_response):
    start_response("200 OK", PLAIN)
    return Pieces(environ, raising(ValueError("in the first piece")))


@page
def closes_after_late_failure(environ, start_response):
    start_response("200 OK", PLAIN)
    return Pieces(environ, raising(ValueError("in a later piece"), b"begun"))


@page
def closes_without_start(environ, start_response):
    return Pieces(environ, [b"no head"])


@page
def closes_badly(environ, start_response):
    start_response("200 OK", PLAIN)
    return Pieces(environ, [b"ab", b"cd"], in_close=ValueError("in close"))


@page
def closes_with_exit(environ, start_response):
    start_response("200 OK", PLAIN)
    return Pieces(environ, [b"ab", b"cd"], in_close=SystemExit(3))


@page
def closes_short(environ, start_response):
    start_response("200 OK", [("Content-Length", "10")])
    return Pieces(environ, [b"ab", b"cd"])


@page
def closes_long(environ, start_response):
    start_response("200 OK", [("Content-Length", "3")])
    return Pieces(environ, [b"ab", b"cd", b"ef"])


@page
def endless(environ, start_response):
    start_response("200 OK", PLAIN)
    return Pieces(environ, repeat(b"x" * 65536))


# Lengths


@page
def too_short(environ, start_response):
    start_response("200 OK", [("Content-Length", "10")])
    return {"list": [b"12345"], "generator": iter([b"123", b"45"]), "nothing": []}[name_of(environ)]


@page
def too_short_written(environ, start_response):
    start_response("200 OK", [("Content-Length", "10")])(b"12345")
    return []


@page
def too_long(environ, start_response):
    start_response("200 OK", [("Content-Length", "5")])
    return {
        "list": [b"1234567890"],
        "lists": [b"1234", b"567890"],
        "generator": iter([b"1234", b"567890", b"more"]),
        "exact-then-more": iter([b"12345", b"67890"]),
    }[name_of(environ)]


@page
def too_long_written(environ, start_response):
    write = start_response("200 OK", [("Content-Length", "5")])
    write(b"1234")
    write(b"567890")
    return []


# Heads that must not reach the wire


class Shouting(str):
    """Text that prints as something else."""

    __slots__ = ()

    def __str__(self):
        return "X\r\nInjected: yes"

    def __format__(self, spec):
        return str(self)


class Word(str, Enum):  # noqa: UP042 - the older kind prints as Word.NAME
    """What frameworks call headers by."""

    NAME = "X-Word"
    VALUE = "word"


BAD_HEADS = {
    "value-lf": ("200 OK", [("X-Evil", "a\nInjected: yes")]),
    "value-cr": ("200 OK", [("X-Evil", "a\rInjected: yes")]),
    "value-crlf": ("200 OK", [("X-Evil", "a\r\nInjected: yes")]),
    "value-nul": ("200 OK", [("X-Evil", "a\0b")]),
    "value-delete": ("200 OK", [("X-Evil", "a\x7fb")]),
    "value-not-latin": ("200 OK", [("X-Evil", "\u20ac")]),
    "value-int": ("200 OK", [("X-Evil", 7)]),
    "value-bytes": ("200 OK", [("X-Evil", b"bytes")]),
    "value-none": ("200 OK", [("X-Evil", None)]),
    "name-space": ("200 OK", [("X Evil", "1")]),
    "name-colon": ("200 OK", [("X-Evil:", "1")]),
    "name-crlf": ("200 OK", [("X-Evil\r\nInjected", "yes")]),
    "name-empty": ("200 OK", [("", "1")]),
    "name-not-ascii": ("200 OK", [("X-\xc9vil", "1")]),
    "name-bytes": ("200 OK", [(b"X-Evil", "1")]),
    "name-int": ("200 OK", [(7, "1")]),
    "connection": ("200 OK", [("Connection", "close")]),
    "keep-alive": ("200 OK", [("Keep-Alive", "timeout=5")]),
    "transfer-encoding": ("200 OK", [("Transfer-Encoding", "chunked")]),
    "te-in-lower-case": ("200 OK", [("transfer-encoding", "identity")]),
    "trailer": ("200 OK", [("Trailer", "X")]),
    "upgrade": ("200 OK", [("Upgrade", "h2c")]),
    "proxy-authenticate": ("200 OK", [("Proxy-Authenticate", "Basic")]),
    "status-header": ("200 OK", [("Status", "404 Not Found")]),
    "length-twice": ("200 OK", [("Content-Length", "1"), ("content-length", "1")]),
    "length-negative": ("200 OK", [("Content-Length", "-1")]),
    "length-text": ("200 OK", [("Content-Length", "ten")]),
    "length-int": ("200 OK", [("Content-Length", 5)]),
    "length-not-ascii": ("200 OK", [("Content-Length", "\xb2")]),
    "pair-of-three": ("200 OK", [("X-Evil", "1", "2")]),
    "no-pairs": ("200 OK", ["X-Evil: 1"]),
    "no-list": ("200 OK", None),
    "status-no-phrase": ("200", []),
    "status-word": ("abc", []),
    "status-empty": ("", []),
    "status-int": (200, []),
    "status-bytes": (b"200 OK", []),
    "status-none": (None, []),
    "status-1xx": ("100 Continue", []),
    "status-101": ("101 Switching Protocols", []),
    "status-0xx": ("099 Low", []),
    "status-four-digits": ("2000 OK", []),
    "status-crlf": ("200 OK\r\nInjected: yes", []),
    "status-nul": ("200 O\0K", []),
    "status-not-latin": ("200 \u20ac", []),
    "status-other-digits": ("\u0662\u0660\u0660 OK", []),
}


@page
def bad_head(environ, start_response):
    start_response(*BAD_HEADS[name_of(environ)])
    return [b"never seen"]


@page
def bad_head_replaced(environ, start_response):
    """The application sees the error and may answer better."""
    try:
        start_response("200 OK", [("X-Evil", "a\r\nb")])
    except ValueError:
        start_response("503 Recovered", [("X-Good", "1")], sys.exc_info())
    return [b"recovered"]


@page
def bad_head_later(environ, start_response):
    """The list is the server's own: changing it later puts nothing on the wire."""
    headers = [("X-Good", "1")]
    start_response("200 OK", headers)
    headers.append(("X-Evil", "a\r\nInjected: yes"))
    return [b"body"]


@page
def shouting_value(environ, start_response):
    start_response("200 OK", [("X-Plain", Shouting("quiet"))])
    return [b"body"]


@page
def shouting_name(environ, start_response):
    start_response("200 OK", [(Shouting("X-Plain"), "quiet")])
    return [b"body"]


@page
def shouting_status(environ, start_response):
    start_response(Shouting("200 OK"), [("X-Plain", "quiet")])
    return [b"body"]


@page
def enum_head(environ, start_response):
    start_response("200 OK", [(Word.NAME, Word.VALUE)])
    return [b"body"]


@page
def odd_but_good(environ, start_response):
    start_response("299 \xe9 odd", [("X-Tab", "a\tb"), ("X-Latin", "\xe9"), ("X-Empty", "")])
    return [b"body"]


# Exceptions


class Wicked(BaseException):
    """Says nothing good about itself."""

    def __str__(self):
        raise RuntimeError("no text for you")


EXCEPTIONS = {
    "ValueError": lambda: ValueError("ordinary"),
    "SystemExit": lambda: SystemExit(7),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "StopIteration": StopIteration,
    "MemoryError": MemoryError,
    "BrokenPipeError": lambda: BrokenPipeError("not the client's"),
    "Wicked": Wicked,
}


def exception(environ):
    return EXCEPTIONS[name_of(environ)]()


@page
def raises(environ, start_response):
    raise exception(environ)


@page
def raises_started(environ, start_response):
    start_response("200 OK", [("X-Old", "1")])
    raise exception(environ)


class RaisesLater:
    """No generator: it would turn StopIteration into RuntimeError."""

    def __init__(self, error):
        self.error = error
        self.pieces = iter([b"begun"])

    def __iter__(self):
        return self

    def __next__(self):
        for piece in self.pieces:
            return piece
        raise self.error


@page
def raises_later(environ, start_response):
    start_response("200 OK", PLAIN)
    return RaisesLater(exception(environ))


@page
def raises_after_write(environ, start_response):
    start_response("200 OK", PLAIN)(b"begun")
    raise exception(environ)


@page
def recursion(environ, start_response):
    return recursion(environ, start_response)


# wsgi.input


def by_read(file):
    yield file.read()


def by_read_minus(file):
    yield file.read(-1)


def by_read_size(file):
    while data := file.read(7001):
        assert len(data) <= 7001
        yield data


def by_readline(file):
    while line := file.readline():
        assert line.count(b"\n") <= 1
        assert b"\n" not in line[:-1]
        yield line


def by_readline_size(file):
    while line := file.readline(13):
        assert len(line) <= 13
        assert b"\n" not in line[:-1]
        yield line


def by_readlines(file):
    lines = file.readlines()
    assert all(line.endswith(b"\n") for line in lines[:-1])
    yield from lines


def by_readlines_hint(file):
    while lines := file.readlines(5000):
        yield from lines


def by_iteration(file):
    for line in file:
        assert b"\n" not in line[:-1]
        yield line


def by_turns(file):
    yield file.read(3)
    yield file.readline()
    yield file.readline(5)
    yield from file.readlines(100)
    yield next(iter(file), b"")
    yield file.read(0)
    yield file.read()


WAYS_TO_READ = {
    function.__name__: function
    for function in (
        by_read,
        by_read_minus,
        by_read_size,
        by_readline,
        by_readline_size,
        by_readlines,
        by_readlines_hint,
        by_iteration,
        by_turns,
    )
}


@page
def reads(environ, start_response):
    file = environ["wsgi.input"]
    digest, size = hashlib.sha256(), 0
    for piece in WAYS_TO_READ[name_of(environ)](file):
        assert type(piece) is bytes
        digest.update(piece)
        size += len(piece)
    ends = [file.read(), file.read(1), file.readline(), file.readline(1), *file.readlines(), *file]
    start_response("200 OK", PLAIN)
    report = {
        "size": size,
        "digest": digest.hexdigest(),
        "after": b"".join(ends).decode("latin-1"),
        "terminated": environ["wsgi.input_terminated"],
        "length": environ.get("CONTENT_LENGTH"),
    }
    return [json.dumps(report).encode()]


@page
def echo(environ, start_response):
    start_response("200 OK", PLAIN)
    return [environ["wsgi.input"].read()]


# wsgi.file_wrapper


class Reported:
    """A file whose close() is reported."""

    def __init__(self, environ, file):
        self.environ = environ
        self.file = file
        self.read = file.read
        if hasattr(file, "fileno"):
            self.fileno, self.tell = file.fileno, file.tell

    def close(self):
        self.environ["wsgi.errors"].write(f"closed {name_of(self.environ)}\n")
        self.file.close()


def wrapped(environ, start_response, file, headers=PLAIN, status="200 OK"):
    start_response(status, headers)
    return environ["wsgi.file_wrapper"](reported(environ, file), 4096)


def reported(environ, file):
    """A real file stays what it is: only that is for the kernel to send."""
    if not isinstance(file, BufferedReader):
        return Reported(environ, file)
    close = file.close

    def report():
        environ["wsgi.errors"].write(f"closed {name_of(environ)}\n")
        close()

    file.close = report
    return file


def opened(name, offset=0):
    file = open(name, "rb")
    file.seek(offset)
    return file


@page
def file_small(environ, start_response):
    return wrapped(environ, start_response, opened("small"))


@page
def file_large(environ, start_response):
    return wrapped(environ, start_response, opened("large"))


@page
def file_empty(environ, start_response):
    return wrapped(environ, start_response, opened("empty"))


@page
def file_offset(environ, start_response):
    return wrapped(environ, start_response, opened("large", 1_000_000))


@page
def file_shorter(environ, start_response):
    headers = [("Content-Length", "1234")]
    return wrapped(environ, start_response, opened("large", 1_000_000), headers)


@page
def file_longer(environ, start_response):
    headers = [("Content-Length", "200")]
    return wrapped(environ, start_response, opened("small"), headers)


@page
def file_in_memory(environ, start_response):
    return wrapped(environ, start_response, BytesIO(b"m" * 10_000))


@page
def file_not_modified(environ, start_response):
    return wrapped(environ, start_response, opened("small"), [("ETag", '"1"')], "304 Not Modified")


@page
def file_after_write(environ, start_response):
    start_response("200 OK", PLAIN)(b"before ")
    return environ["wsgi.file_wrapper"](reported(environ, opened("small")))


@page
def file_without_start(environ, start_response):
    return environ["wsgi.file_wrapper"](reported(environ, opened("small")))


# Streaming


@page
def step_by_step(environ, start_response):
    """Each piece waits until the client has the one before."""
    start_response("200 OK", PLAIN)
    for number in range(3):
        if number:
            wait_at(environ)
        yield b"piece %d;" % number


#: Where pieces begin to be sent without a copy, and no longer fit a record of FastCGI.
PIECE_SIZES = (1, 16_383, 16_384, 16_385, 0, 65_528, 65_529, 65_535, 65_536, 3, 300_000, 20_000)


def large_piece(number, size=20_000):
    return (b"%d;" % number * size)[:size]


@page
def step_by_large(environ, start_response):
    start_response("200 OK", PLAIN)
    for number in range(3):
        if number:
            wait_at(environ)
        yield large_piece(number)


@page
def one_piece(environ, start_response):
    """?SIZE or ?SIZE&STATUS: a body in one piece."""
    size, _, status = name_of(environ).partition("&")
    start_response(f"{status or 200} As Asked", PLAIN)
    return [large_piece(7, int(size))]


@page
def pieces_of_sizes(environ, start_response):
    start_response("200 OK", PLAIN)
    for number, size in enumerate(PIECE_SIZES):
        yield large_piece(number, size)


@page
def step_by_write(environ, start_response):
    write = start_response("200 OK", PLAIN)
    for number in range(3):
        if number:
            wait_at(environ)
        write(b"piece %d;" % number)
    return []


@page
def waits(environ, start_response):
    wait_at(environ)
    start_response("200 OK", PLAIN)
    return [name_of(environ).encode()]


@page
def waits_then_large(environ, start_response):
    wait_at(environ)
    start_response("200 OK", PLAIN)
    return [b"x" * 5_000_000]


LARGE = 10_000_000


@page
def large_list(environ, start_response):
    start_response("200 OK", PLAIN)
    return [b"x" * LARGE]


@page
def large_generator(environ, start_response):
    start_response("200 OK", PLAIN)
    for _ in range(LARGE // 50_000):
        yield b"x" * 50_000


@page
def descriptors(environ, start_response):
    start_response("200 OK", PLAIN)
    return [b"%d" % len(os.listdir("/proc/self/fd"))]


@page
def spooled(environ, start_response):
    """Where the body is kept, and its digest."""
    file = environ["wsgi.input"]
    where = "memory" if isinstance(file, BytesIO) else os.readlink(f"/proc/self/fd/{file.fileno()}")
    start_response("200 OK", PLAIN)
    report = {"where": where, "digest": hashlib.sha256(file.read()).hexdigest()}
    return [json.dumps(report).encode()]


@page
def digests(environ, start_response):
    """More work for a longer body."""
    data = environ["wsgi.input"].read()
    digest = hashlib.sha256(data * 20).hexdigest()
    start_response("200 OK", PLAIN)
    return [f"{name_of(environ)} {digest[:8]}".encode()]
