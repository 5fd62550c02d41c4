"""What all clients together may take of one worker: threads, connections, memory, disk."""

from __future__ import annotations

import os
import select
import threading
from contextlib import ExitStack
from itertools import product
from time import monotonic

import pytest
from conftest import APPS, PROTOCOLS, numbered
from processes import Load, children, descriptors, memory, wait_for
from test_greedy import a_while, begun

RULES = APPS / "rules_app.py"

#: An answer in pieces, of as many bytes as asked for.
STREAM = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    size = int(environ["QUERY_STRING"] or 0)
    def pieces():
        for _ in range(size // 65536):
            yield b"x" * 65536
        yield b"x" * (size % 65536)
    return pieces()
"""

MB = 1 << 20


def spooled(pid):
    """Bytes of temporary files that a process has open."""
    total = 0
    for name in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{name}"
        try:
            target = os.readlink(path)
            if target.endswith("(deleted)") and not target.startswith("/memfd:"):
                total += os.stat(path).st_size
        except FileNotFoundError:
            continue
    return total


# Threads


@pytest.mark.parametrize("page", ["endless", "large-list", "large-generator", "file-large"])
def test_clients_that_never_read_hold_no_thread(serve, threads, page, name):
    """More of them than threads, with a send_timeout that is far away."""
    spool = 512 * MB
    options = ("--threads", threads, "--worker-spool-size", str(spool))
    server = serve(RULES, *options, kinds=["tcp"])
    (server.folder / "large").write_bytes(bytes(30 * MB))
    more = range(1 if threads == "1" else 3)
    for protocol, _ in product(PROTOCOLS, more):
        server.connect(protocol, receive_buffer=4096).start(f"/{page}?{name}")
    for protocol in PROTOCOLS:
        begun_at = monotonic()
        answer = server.connect(protocol).ask("/pid")
        assert [int(answer.body)] == server.workers
        assert monotonic() - begun_at < 20  # of the 60 of send_timeout
        assert spooled(server.workers[0]) <= spool


class Reader:
    """Takes an answer slowly, but steadily."""

    def __init__(self, peer) -> None:
        self.answer = None
        self.taken = 0
        self._peer = peer
        self._fast = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        answer = self._peer.head()
        for piece in self._peer.pieces(answer):
            self.taken += len(piece)
            self._fast.wait(0.02)
        self.answer = self.taken, answer.whole

    def finish(self) -> tuple[int, bool]:
        self._fast.set()
        self._thread.join(60)
        return self.answer


@pytest.mark.parametrize("protocol", ["http", "fastcgi"])
def test_a_slow_reader_of_a_large_stream_gets_it_and_holds_no_thread(serve, threads, protocol):
    server = serve(STREAM, "--threads", threads, protocols=[protocol], kinds=["tcp"])
    size = 60 * MB
    slow = [server.connect(protocol, receive_buffer=65536) for _ in range(5)]
    for peer in slow:
        peer.start(f"/?{size}")
    readers = [Reader(peer) for peer in slow]
    for _ in range(5):
        assert server.connect(protocol).ask("/?5").body == b"x" * 5
        assert all(reader.taken < size // 2 for reader in readers)
    for reader in readers:
        assert reader.finish() == (size, True)


# Connections


def test_who_only_holds_a_connection_makes_room_for_who_asks(serve, threads):
    """Heads that never end, and connections that never begin."""
    options = ("--threads", threads, "--worker-connections", "32")
    server = serve(RULES, *options, protocols=["http"])
    (worker,) = children(server.process.pid)
    holding = [server.connect("http") for _ in range(120)]
    for peer in holding[::2]:
        peer.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ")
    for _ in range(3):
        begun_at = monotonic()
        assert server.ask("http", "/pid").status == 200
        assert monotonic() - begun_at < 10  # of the 15 of client_header_timeout
    server.wait_for_log(r"worker_connections \(32\) is reached: \d+ connections")
    assert descriptors(worker) < 32 + 40


def test_idle_connections_make_room_and_are_answered_until_then(serve):
    server = serve(RULES, "--worker-connections", "16", protocols=["http"])
    idle = [server.connect("http") for _ in range(16)]
    for peer in idle:
        assert peer.ask("/pid").status == 200
    assert server.ask("http", "/pid").status == 200
    ended = [peer for peer in idle if select_readable(peer)]
    assert ended
    for peer in ended:
        assert peer.closed()
    for peer in idle:
        if peer not in ended:
            assert peer.ask("/pid").status == 200


def select_readable(peer):
    peer.sock.setblocking(False)
    try:
        return peer.sock.recv(1) == b""
    except BlockingIOError:
        return False
    finally:
        peer.sock.settimeout(20)


def test_busy_connections_are_not_touched_when_there_are_too_many(serve):
    """A body that arrives, an answer that is read: slowly, but as fast as they have to."""
    server = serve(RULES, "--worker-connections", "8", "--threads", "2", protocols=["http"])
    senders = [server.connect("http") for _ in range(4)]
    readers = [server.connect("http", receive_buffer=65536) for _ in range(4)]
    for peer in senders:
        begun(peer, length=60 * 1000)
    for peer in readers:
        peer.start("/large-list")
    waiting = server.connect("http")
    waiting.start("/pid")
    for _ in range(59):
        for peer in senders:
            peer.send(b"x" * 1000)
        for peer in readers:
            peer.fill(20_000)
        a_while(0.1)
    for peer in senders:
        peer.send(b"x" * 1000)
        assert peer.answer().body == b"x" * 60_000
        peer.close()
    assert waiting.answer().status == 200
    for peer in readers:
        answer = peer.answer()
        assert (len(answer.body), answer.whole) == (10_000_000, True)


def test_one_client_has_no_more_connections_than_it_may(serve):
    server = serve(RULES, "--limit-conn", "3", "--forwarded-allow-ips", "127.0.0.9")
    greedy = [server.connect("http", source="127.0.0.5") for _ in range(3)]
    for peer in greedy:
        assert peer.ask("/pid").status == 200
    for _ in range(2):
        assert server.connect("http", source="127.0.0.5").rest() == b""
    server.wait_for_log(r"refused a connection of 127\.0\.0\.5: it has 3 already \(limit_conn\)")
    # Others, proxies, front ends and unix sockets are not concerned.
    for number in range(5):
        assert server.connect("http", source=f"127.0.1.{number}").ask("/pid").status == 200
    several = [server.connect("http", source="127.0.0.9") for _ in range(5)]
    several += [server.connect("http", "unix") for _ in range(5)]
    several += [server.connect("fastcgi", source="127.0.0.5") for _ in range(5)]
    for peer in several:
        assert peer.ask("/pid").status == 200
    greedy.pop().close()

    def has_a_place():
        peer = server.connect("http", source="127.0.0.5")
        peer.start("/pid")
        return peer.fill()

    wait_for(has_a_place, "a place for another")


def test_behind_a_proxy_its_clients_are_counted(serve):
    """The PROXY protocol says who they are."""
    options = ("--limit-conn", "2", "--proxy-protocol", "v1")
    server = serve(RULES, *options, protocols=["http"], kinds=["tcp"])

    def client(address):
        peer = server.connect("http")
        peer.send(f"PROXY TCP4 {address} 192.0.2.9 5 80\r\n".encode() + peer.encode("/pid"))
        return peer

    kept = [client("192.0.2.1") for _ in range(2)]
    for peer in kept:
        assert peer.answer().status == 200
    assert client("192.0.2.1").rest() == b""
    assert client("192.0.2.2").answer().status == 200
    assert kept[0].ask("/pid").status == 200


# Memory and disk


def test_bodies_of_many_clients_take_bounded_memory(serve, protocol):
    """Each of them is below body_buffer_size; together they are not."""
    server = serve(
        RULES, "--worker-buffer-size", str(4 * MB), "--worker-connections", "300",
        protocols=[protocol], kinds=["tcp"],
    )  # fmt: skip
    (worker,) = server.workers
    before = memory(worker)
    body = numbered(900_000)
    peers = [server.connect(protocol) for _ in range(100)]
    for peer in peers:
        frame = begun(peer, length=len(body))
        for start in range(0, len(body) - 50_000, 50_000):
            peer.send(frame(body[start : start + 50_000]))
    wait_for(lambda: spooled(worker) > 80 * 800_000, "the bodies to be in files")
    used = memory(worker) - before
    print(f"{protocol}: {used >> 20} MiB of memory for 85 MB of bodies")
    assert used < 42 * MB
    for peer in peers:
        peer.close()
    wait_for(lambda: spooled(worker) == 0, "the files to be gone")


@pytest.mark.parametrize("page", ["large-list", "large-generator"])
def test_answers_that_nobody_reads_take_bounded_memory(serve, threads, page):
    server = serve(RULES, "--worker-buffer-size", str(4 * MB), "--threads", threads)
    (worker,) = server.workers
    before = memory(worker)
    deaf = [
        server.connect(protocol, "unix", receive_buffer=4096)
        for protocol in PROTOCOLS
        for _ in range(15)
    ]
    for peer in deaf:
        peer.start(f"/{page}")
    wait_for(lambda: spooled(worker) > 60 * 9_000_000, "the answers to be in files")
    used = memory(worker) - before
    print(f"{page}: {used >> 20} MiB of memory for 60 answers of 10 MB")
    assert used < 150 * MB  # what threads make answers of goes back to the system late
    for peer in deaf:
        peer.close()
    wait_for(lambda: spooled(worker) == 0, "the files to be gone")
    assert server.ask("http", "/pid").status == 200


def test_heads_behind_an_answer_that_nobody_reads_are_not_gathered(serve, threads):
    """Sixty of the largest would be 3.5 MB of each client."""
    server = serve(RULES, "--threads", threads, protocols=["http"], kinds=["unix"])
    (worker,) = server.workers
    deaf = [server.connect("http", "unix", receive_buffer=4096) for _ in range(20)]
    for peer in deaf:
        peer.start("/large-list")
    wait_for(lambda: spooled(worker) > 20 * 8_000_000, "the answers to be in files")
    before = memory(worker)
    lines = b"".join(b"X-%d: %s\r\n" % (number, b"x" * 8000) for number in range(7))
    heads = memoryview(60 * (b"GET / HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n"))
    poll = select.poll()
    unsent = {}
    for peer in deaf:
        poll.register(peer.sock, select.POLLOUT)
        unsent[peer.sock.fileno()] = (peer.sock, heads)
    while ready := poll.poll(500):
        for number, _ in ready:
            sock, rest = unsent[number]
            rest = rest[sock.send(rest[:4096]) :]
            unsent[number] = (sock, rest)
            if not rest:
                poll.unregister(number)
                del unsent[number]
    used = memory(worker) - before
    print(f"{used >> 20} MiB of memory for {len(unsent)} clients")
    assert len(unsent) == 20
    assert used < 15 * MB


def test_beyond_worker_spool_size_bodies_are_507_and_answers_wait(serve, threads):
    server = serve(
        RULES, "--threads", threads, "--body-buffer-size", "1000",
        "--worker-spool-size", str(2 * MB),
    )  # fmt: skip
    with ExitStack() as stack:
        holder = stack.enter_context(server.connect("http"))
        frame = begun(holder, length=1_900_000)
        holder.send(frame(bytes(1_800_000)))
        wait_for(lambda: spooled(server.workers[0]) > 1_500_000, "the first body")
        for protocol in PROTOCOLS:
            answer = server.ask(protocol, "/echo", method="POST", body=bytes(500_000))
            assert (answer.status, answer.whole) == (507, True)
            answer = server.ask(protocol, "/echo", method="POST", body=b"0" * 900)
            assert answer.body == b"0" * 900
            peer = stack.enter_context(server.connect(protocol, receive_buffer=65536))
            answer = peer.ask("/large-generator")
            assert (len(answer.body), answer.whole) == (10_000_000, True)
        holder.send(frame(bytes(100_000)))
        assert len(holder.answer().body) == 1_900_000
    wait_for(lambda: spooled(server.workers[0]) == 0, "the files to be gone")
    answer = server.ask("http", "/echo", method="POST", body=bytes(500_000))
    assert answer.body == bytes(500_000)


def test_stalled_readers_make_room_in_the_spool(serve):
    """They are given up long before send_timeout, and what others send has room again."""
    server = serve(
        RULES, "--threads", "2", "--worker-spool-size", str(24 * MB), "--body-buffer-size", "1000",
        kinds=["tcp"],
    )  # fmt: skip
    for protocol in PROTOCOLS:  # more than there is room for: what is left is in memory
        server.connect(protocol, receive_buffer=4096).start("/large-list")
    server.wait_for_log("the peer takes too little", 4)
    for protocol in PROTOCOLS:
        answer = server.ask(protocol, "/echo", method="POST", body=bytes(9 * MB))
        assert len(answer.body) == 9 * MB


# All at once


def test_honest_clients_are_served_under_attack(serve):
    """Heads that do not end, bodies that do not come, readers that read nothing."""
    server = serve(
        RULES, "--workers", "2", "--threads", "4", "--worker-connections", "60",
        protocols=["http"], kinds=["tcp"],
    )  # fmt: skip
    address = server.addresses["http", "tcp"]
    before = sum(memory(worker) for worker in server.workers)
    with ExitStack() as attack:
        for _ in range(200):
            peer = attack.enter_context(server.connect("http"))
            peer.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ")
        for page in ("large-list", "large-generator", "endless") * 5:
            deaf = attack.enter_context(server.connect("http", receive_buffer=4096))
            deaf.start(f"/{page}")
        for _ in range(20):
            begun(attack.enter_context(server.connect("http")))
        with Load("http", address, keep=True, clients=8, target="/pid") as load:
            load.reached(400)
        print(f"honest clients under attack: {load}")
        used = sum(memory(worker) for worker in server.workers) - before
        assert not load.lost
        assert used < 300 * MB
    assert len(server.workers) == 2
