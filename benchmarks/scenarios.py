"""What is served, asked and compared: one entry a scenario, each with a name to choose it by."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.apps import bodies
from benchmarks.apps.hello import BODY
from benchmarks.payloads import FIELDS

_DIRECT = (
    "gateway", "gateway-pure", "bjoern", "fastwsgi", "granian", "uwsgi", "waitress", "cheroot",
    "gunicorn-sync", "gunicorn-gthread",
)  # fmt: skip
_SOME = (
    "gateway", "gateway-pure", "bjoern", "granian", "uwsgi", "waitress", "gunicorn-gthread",
)  # fmt: skip
_BODY_PEERS = (*_SOME, "fastwsgi", "gunicorn-sync")
_FLOORS = ("floor-c", "floor-nginx")
#: The others answer the first and drop the rest.
_PIPELINE = (
    *_FLOORS, "gateway", "gateway-pure", "fastwsgi", "granian", "waitress", "cheroot",
    "gunicorn-gthread",
)  # fmt: skip
_THREADED = (
    "gateway", "gateway-pure", "granian", "uwsgi", "waitress", "gunicorn-gthread",
)  # fmt: skip
_IDLE = ("gateway", "gateway-pure", "granian", "bjoern", "waitress", "gunicorn-gthread")
_BEHIND = {
    "http": ("gateway", "gateway-pure", "bjoern", "granian", "uwsgi", "waitress",
             "gunicorn-gthread"),
    "fastcgi": ("gateway", "gateway-pure", "uwsgi", "flup"),
    "scgi": ("gateway", "gateway-pure", "uwsgi", "flup"),
    "uwsgi": ("gateway", "gateway-pure", "uwsgi", "gunicorn-sync"),
}  # fmt: skip
#: Apache's own cost is the greater part there; what is behind it is as behind nginx.
_BEHIND_APACHE = ("gateway", "gateway-pure", "granian", "uwsgi")
_FRONT_NAMES = {"nginx": "nginx", "apache": "Apache"}
_PROTOCOL_NAMES = {"http": "HTTP", "fastcgi": "FastCGI", "scgi": "SCGI", "uwsgi": "uwsgi"}
_TRANSPORT_NAMES = {"unix": "a unix socket", "tcp": "TCP"}

PIPELINED = 16
_PIECES_BODY = bodies.PIECE * bodies.PIECES


def request(path="/", fields=None, body=None, method="GET"):
    """The bytes of one HTTP/1.1 request."""
    head = {"Host": "127.0.0.1"} | (fields or {})
    if body is not None:
        head["Content-Length"] = str(len(body))
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + (body or b"")


def headers(count):
    """So many header fields beside Host: a browser's first, then others of like length."""
    known = {name: value for name, value in FIELDS.items() if name not in ("Host", "Connection")}
    others = {f"X-Field-Number-{n}": f"some value of a field, {n}" for n in range(count)}
    return dict(list((known | others).items())[:count])


def upload(size):
    fields = {"Content-Type": "application/octet-stream"}
    return request(fields=fields, body=bytes(size), method="POST")


@dataclass(frozen=True)
class Scenario:
    """A cost to compare; ``rival`` is the peer that it is to be measured by."""

    name: str
    title: str
    peers: tuple[str, ...] = _DIRECT
    app: str = "hello:app"
    request: bytes = request()
    answer: bytes = BODY
    #: Copies of the request in one piece.
    pipelined: int = 1
    connections: int = 64
    threads: int = 1
    workers: int = 1
    front: str | None = None
    protocol: str = "http"
    transport: str = "tcp"
    #: Connections that were answered once and say no more.
    idle: int = 0
    #: A request that some connections repeat beside the measured ones, and how many.
    beside: bytes | None = None
    beside_connections: int = 0
    rival: str | None = None
    #: Whole seconds of load in a turn; 0: what was asked for.
    seconds: int = 0
    #: The application says how long its answer is.
    sized: bool = True

    @property
    def bytes_sent(self):
        return self.request * self.pipelined


def _behind(front, protocol, transport):
    """A front end keeps the connections of HTTP and FastCGI; SCGI and uwsgi have one a request."""
    return Scenario(
        f"{front}-{protocol}-{transport}",
        f"{_PROTOCOL_NAMES[protocol]} behind {_FRONT_NAMES[front]} over "
        f"{_TRANSPORT_NAMES[transport]}",
        tuple(peer for peer in _BEHIND[protocol] if front != "apache" or peer in _BEHIND_APACHE),
        front=front,
        protocol=protocol,
        transport=transport,
        rival="granian" if protocol == "http" else "uwsgi",
    )


def _idle(count):
    return Scenario(
        f"idle-{count}",
        f"{count:,} idle connections beside 32 busy ones",
        _IDLE,
        connections=32,
        idle=count,
        rival="granian",
    )


_BODIES = {"connections": 8}

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("hello", "13 bytes, kept connections", _FLOORS + _DIRECT, rival="granian"),
        Scenario(
            "flask", "the same by way of Flask", _SOME, app="framework:app", rival="granian"
        ),
        Scenario(
            "headers", "30 request header fields", _SOME, request=request(fields=headers(30)),
            rival="granian",
        ),
        Scenario(
            "close", "a connection for each request", _BODY_PEERS,
            request=request(fields={"Connection": "close"}), rival="uwsgi",
        ),
        Scenario(
            "pipelining", f"{PIPELINED} requests in one piece", _PIPELINE, pipelined=PIPELINED,
            connections=16, rival="granian",
        ),
        Scenario(
            "json", "2 KB of JSON", _SOME, app="bodies:document", answer=bodies.DOCUMENT,
            rival="granian",
        ),
        Scenario(
            "upload", "1 MB upload", _BODY_PEERS, app="bodies:upload",
            request=upload(bodies.MEGABYTE), answer=b"%d" % bodies.MEGABYTE,
            rival="granian", **_BODIES,
        ),
        Scenario(
            "download", "1 MB body", _BODY_PEERS, app="bodies:download",
            answer=bytes(bodies.MEGABYTE), rival="uwsgi", **_BODIES,
        ),
        Scenario(
            "generator", "a generator of 64 x 16 KB, no length", _BODY_PEERS,
            app="bodies:generator", answer=_PIECES_BODY, sized=False, rival="uwsgi", **_BODIES,
        ),
        Scenario(
            "file", "10 MB by file_wrapper", _BODY_PEERS, app="bodies:file",
            answer=bytes(bodies.FILE_SIZE), seconds=2, rival="gunicorn-sync", **_BODIES,
        ),
        Scenario(
            "sleep", "20 ms of sleep, 16 threads", _THREADED, app="waits:sleep", threads=16,
            connections=32, seconds=2, rival="granian",
        ),
        Scenario(
            "cpu", "1 ms of CPU, 4 threads", _THREADED, app="waits:compute", threads=4,
            connections=16, seconds=2, rival="gunicorn-gthread",
        ),
        Scenario(
            "cpu-beside-long", "1 ms of CPU beside two of 50 ms, 4 threads", _THREADED,
            app="waits:compute", threads=4, connections=4, seconds=2, beside=request("/?50"),
            beside_connections=2, rival="gunicorn-gthread",
        ),
        Scenario(
            "pool", "13 bytes, 4 threads", _THREADED, threads=4, rival="gunicorn-gthread"
        ),
        Scenario(
            "workers", "two workers, on one core", _DIRECT, workers=2, rival="granian"
        ),
        _idle(1_000),
        _idle(10_000),
        *(
            _behind(front, protocol, transport)
            for front in _FRONT_NAMES
            for protocol in _PROTOCOL_NAMES
            for transport in _TRANSPORT_NAMES
        ),
    )
}  # fmt: skip

#: A run of minutes: the shapes that differ, and the peers that matter.
QUICK = (
    "hello", "headers", "close", "upload", "download", "generator", "file", "sleep", "cpu",
    "idle-1000", "nginx-http-unix", "nginx-fastcgi-unix", "nginx-fastcgi-tcp", "nginx-scgi-unix",
    "nginx-scgi-tcp",
)  # fmt: skip
QUICK_PEERS = ("floor-c", "gateway", "gateway-pure", "bjoern", "granian", "uwsgi", "waitress",
               "gunicorn-sync", "gunicorn-gthread", "flup")  # fmt: skip
