"""Bodies large, refused, cut off, slow, pipelined and multiplexed: nobody waits for another."""

import hashlib
import json
import os
import select
import signal
import struct
from contextlib import suppress
from functools import partial
from threading import Thread
from time import monotonic

import pytest
from clients import (
    END,
    PARAMS,
    RESET,
    SINGLE,
    STDIN,
    TIMEOUT,
    FastCgi,
    Gate,
    Http,
    begin,
    encode_pairs,
    record,
    records,
    variables,
)
from conftest import APPS, PROTOCOLS, numbered
from processes import is_read, opened, wait_for
from rules_app import LARGE
from test_wsgi_environ import FRAMINGS
from test_wsgi_heads import follow
from test_wsgi_iterables import closed_once

RULES = APPS / "rules_app.py"
KINDS = ("tcp", "unix")


def framed(framing):
    return {"chunked": True} if framing != "length" else {}


# Refused uploads


@pytest.fixture(scope="module")
def small_limit(serve_module, threads):
    return serve_module(RULES, "--threads", threads, "--limit-request-body", "1000")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("protocol", "framing"), FRAMINGS)
def test_the_answer_to_a_refused_upload_is_readable(small_limit, protocol, framing, kind):
    """The client sends 5 MB before it reads; no reset may eat the 413."""
    peer = small_limit.connect(protocol, kind)
    answer = peer.ask("/echo", method="POST", body=numbered(5_000_000), **framed(framing))
    assert (answer.status, answer.whole) == (413, True)
    peer.finish()
    assert peer.rest() == b""
    assert peer.ended == "end of file"
    follow(small_limit, small_limit.connect(protocol, kind))


def test_a_kept_fastcgi_connection_outlives_a_refused_upload(small_limit):
    peer = small_limit.connect("fastcgi")
    assert peer.ask("/echo", method="POST", body=numbered(5_000_000)).status == 413
    follow(small_limit, peer)


def test_a_body_at_the_limit_is_served(small_limit, protocol):
    body = numbered(1000)
    assert small_limit.ask(protocol, "/echo", method="POST", body=body).body == body


# Bodies that the kernel puts where they stay


SIZES = (4095, 4096, 16_384, 65_536, 65_537, 300_000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1)


@pytest.mark.parametrize("piece", [1000, 10_000, 1 << 22])
def test_bodies_of_every_size_arrive_as_they_were_sent(rules, protocol, piece):
    """What comes with the head, after it, in many small reads, as one large one."""
    for size in SIZES:
        body = numbered(size)
        peer = rules.connect(protocol)
        whole = memoryview(peer.encode("/digests?1", method="POST", body=body))
        for at in range(0, len(whole), piece):
            peer.send(whole[at : at + piece])
        assert peer.answer().body == digest_of(1, body)


def digest_of(number, body):
    return f"{number} {hashlib.sha256(body * 20).hexdigest()[:8]}".encode()


@pytest.mark.parametrize("most", [20_000, 65_536, 1 << 22])
def test_the_next_request_is_not_read_into_a_body(rules, most):
    """Requests of which each begins where the body before it ends, cut anywhere."""
    requests, expected = [], []
    for number, size in enumerate((*SIZES, 100_000, 100_000)):
        body = numbered(size)
        requests.append(Http.encode(f"/digests?{number}", method="POST", body=body))
        expected.append(digest_of(number, body))
    asked = memoryview(b"".join(requests))
    peer = rules.connect("http")
    sender = Thread(
        target=lambda: [peer.send(asked[at : at + most]) for at in range(0, len(asked), most)]
    )
    sender.start()
    assert [peer.answer().body for _ in requests] == expected
    sender.join()
    follow(rules, peer)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("protocol", SINGLE)
def test_what_follows_the_body_of_an_only_request_does_not_cut_its_answer(rules, protocol, kind):
    body = numbered(50_000)
    peer = rules.connect(protocol, kind)
    whole = peer.encode("/echo", method="POST", body=body)
    peer.send(whole[:-1000])
    assert rules.ask("http", "/pid").status == 200
    peer.send(whole[-1000:] + b"x" * 1000)
    answer = peer.answer()
    assert (answer.body, answer.whole) == (body, True)
    peer.finish()
    assert peer.rest() == b""
    assert peer.ended == "end of file"


def test_who_announces_much_and_sends_little_takes_little(serve):
    """Not the memory of others: what they send stays in memory."""
    server = serve(RULES, "--worker-buffer-size", "1000000", "--body-buffer-size", "900000")
    liars = [server.connect("http") for _ in range(20)]
    for liar in liars:
        liar.send(liar.encode("/spooled", method="POST", body=bytes(900_000))[:-899_000])
    body = numbered(900_000)
    report = json.loads(server.ask("http", "/spooled", method="POST", body=body).body)
    assert report["where"] == "memory"
    assert report["digest"] == hashlib.sha256(body).hexdigest()


# Clients that leave


def descriptors(server):
    return int(server.ask("http", "/descriptors").body)


def wait_for_descriptors(server, count):
    """Each look is a request, so nothing spins without the server working."""
    deadline = monotonic() + TIMEOUT
    while descriptors(server) > count:
        assert monotonic() < deadline, "descriptors leak"


@pytest.mark.parametrize("leave", ["reset", "close"])
def test_a_client_that_leaves_in_the_middle_of_its_upload_leaves_nothing(rules, protocol, leave):
    before = descriptors(rules)
    for size in (10, 1_500_000, 2_900_000):  # in memory, and in a temporary file
        peer = rules.connect(protocol)
        whole = peer.encode("/echo", method="POST", body=numbered(3_000_000))
        peer.send(whole[: -3_000_000 + size])
        getattr(peer, leave)()
    wait_for_descriptors(rules, before)
    follow(rules, rules.connect(protocol))


def test_a_client_that_leaves_before_its_upload_is_served_leaves_no_file(serve):
    """The request before it runs, and its thread then has nothing to do for a long time."""
    server = serve(RULES, "--threads", "2", "--body-buffer-size", "1000")
    (worker,) = server.workers

    def kept() -> list[str]:
        gone = [name for name in opened(worker) if name.endswith("(deleted)")]
        return [name for name in gone if "memfd" not in name]

    with Gate(server.folder / "first.gate") as gate:
        peer = server.connect("http")
        upload = Http.encode("/echo", method="POST", body=bytes(300_000))
        peer.send(Http.encode("/waits?first") + upload)
        waiting = gate.arrived()
        wait_for(kept, "the temporary file")
        peer.reset()
        waiting.close()
        wait_for(lambda: not kept(), "the end of the temporary file")


@pytest.mark.parametrize("page", ["large-list", "large-generator", "file-large"])
@pytest.mark.parametrize("leave", ["reset", "close"])
def test_a_client_that_leaves_in_the_middle_of_its_answer_leaves_nothing(
    rules, protocol, page, leave
):
    before = descriptors(rules)
    peer = rules.connect(protocol, receive_buffer=4096)
    peer.start(f"/{page}?leaves")
    assert peer.head().status == 200
    getattr(peer, leave)()
    wait_for_descriptors(rules, before)
    follow(rules, rules.connect(protocol))


def test_half_a_close_after_the_request_still_gets_the_answer(rules, protocol):
    peer = rules.connect(protocol)
    peer.start("/large-generator")
    peer.finish()
    answer = peer.answer()
    assert (len(answer.body), answer.whole) == (LARGE, True)


# Expect: 100-continue

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize("chunked", [False, True])
def test_100_continue_comes_before_the_body(rules, chunked):
    peer = rules.connect("http")
    headers = [("Expect", "100-continue")]
    whole = peer.encode("/echo", method="POST", body=b"0123456789", headers=headers)
    if chunked:
        options = {"method": "POST", "body": b"0123456789", "chunked": True, "headers": headers}
        whole = peer.encode("/echo", **options)
    head, _, body = whole.partition(b"\r\n\r\n")
    peer.send(head + b"\r\n\r\n")
    assert peer.until(b"\r\n\r\n") == CONTINUE
    peer.send(body)
    assert peer.answer().body == b"0123456789"
    follow(rules, peer)


@pytest.mark.parametrize("chunked", [False, True])
def test_no_100_after_an_answer(rules, chunked):
    """The body came with the head, and its request is answered before it is looked at again."""
    peer = rules.connect("http")
    headers = [("Expect", "100-continue")]
    peer.start("/echo", method="POST", body=b"1", headers=headers, chunked=chunked)
    peer.finish()
    whole = peer.rest()
    assert whole.removeprefix(CONTINUE).startswith(b"HTTP/1.1 200 ")
    assert whole.endswith(b"\r\n\r\n1")


def test_no_100_for_http_1_0_nor_without_a_body(rules):
    headers = [("Expect", "100-continue")]
    peer = rules.connect("http")
    peer.start("/echo", method="POST", body=b"1", headers=headers, version="HTTP/1.0")
    assert peer.rest().startswith(b"HTTP/1.1 200 ")
    peer = rules.connect("http")
    peer.start("/echo", headers=headers, close=True)
    assert peer.rest().startswith(b"HTTP/1.1 200 ")


def test_no_100_for_what_is_refused(small_limit):
    peer = small_limit.connect("http")
    peer.send(
        b"POST /echo HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
        b"Content-Length: 1001\r\n\r\n"
    )
    assert peer.rest().startswith(b"HTTP/1.1 413 ")
    assert peer.ended == "end of file"


def test_100_waits_for_the_answers_before_it(rules, threads_of_rules, name):
    if threads_of_rules == "1":
        pytest.skip("the application has the only thread")
    with Gate(rules.folder / f"{name}.gate") as gate:
        peer = rules.connect("http")
        second = Http.encode(
            "/echo", method="POST", body=b"1", headers=[("Expect", "100-continue")]
        )
        peer.send(Http.encode(f"/waits?{name}") + second[:-1])
        gate.pass_one()
        assert peer.answer().body == name.encode()
        assert peer.until(b"\r\n\r\n") == CONTINUE
        peer.send(b"1")
        assert peer.answer().body == b"1"


# Slow clients take no thread


@pytest.mark.parametrize("threads", ["1", "2"])
def test_clients_that_take_nothing_or_send_a_byte_now_and_then_take_no_thread(
    serve, protocol, threads
):
    """Six of them against two threads (or one), and honest clients are answered at once."""
    server = serve(RULES, "--threads", threads)
    takers = []
    for page in ("/large-list", "/large-generator") * 2:
        takers.append(server.connect(protocol, receive_buffer=4096))
        takers[-1].start(page)
    request = takers[0].encode("/echo", method="POST", body=b"0123456789")
    senders = [server.connect(protocol) for _ in range(2)]
    for position in range(len(request)):
        for sender in senders:
            sender.send(request[position : position + 1])
        if position % 40 == 0:
            for kind in KINDS:
                begun = monotonic()
                answer = server.connect(protocol, kind).ask("/pid")
                assert [int(answer.body)] == server.workers
                assert monotonic() - begun < TIMEOUT / 2  # far below every deadline of the server
    for sender in senders:
        assert sender.answer().body == b"0123456789"
    for taker in takers:
        answer = taker.answer()
        assert (len(answer.body), answer.whole) == (LARGE, True)
        assert answer.body.count(b"x") == LARGE


@pytest.mark.parametrize("page", ["endless", "file-large"])
def test_a_client_that_takes_nothing_is_given_up_after_send_timeout(serve, protocol, threads, page):
    server = serve(RULES, "--threads", threads, "--send-timeout", "1")
    (server.folder / "large").write_bytes(bytes(20_000_000))
    peer = server.connect(protocol, receive_buffer=4096)
    peer.start(f"/{page}?{page}")
    closed_once(server, protocol, page)


def test_an_answer_beyond_every_buffer_waits_for_its_reader(serve, protocol, threads):
    """The application is held back, and all of it arrives."""
    sizes = ("--response-buffer-size", "200000", "--body-buffer-size", "50000")
    server = serve(RULES, "--threads", threads, *sizes)
    for page in ("large-generator", "large-list"):
        with server.connect(protocol, receive_buffer=4096) as peer:
            answer = peer.ask(f"/{page}")
            assert (len(answer.body), answer.whole) == (LARGE, True)


@pytest.mark.parametrize("kind", KINDS)
def test_what_follows_a_last_request_does_not_cut_its_answer(rules, protocol, kind):
    """Nobody reads it, and the system would reset the connection for it (RFC 9112 section 9.6)."""
    peer = rules.connect(protocol, kind, receive_buffer=4096)
    peer.start("/large-list", **({"close": True} if protocol not in SINGLE else {}))
    answer = peer.head()
    pieces = peer.pieces(answer)
    size = len(next(pieces))
    with suppress(OSError):
        peer.send(b"x" * 1000)
    for piece in pieces:
        size += len(piece)
        if size % 97 == 0:
            with suppress(OSError):
                peer.send(b"x")
    assert (size, answer.whole) == (LARGE, True)


def test_what_came_while_the_application_ran_does_not_cost_its_answer(rules, protocol):
    """The answer goes out with the end of the connection, which unread bytes make a reset."""
    name = f"{protocol}-more"
    with Gate(rules.folder / f"{name}.gate") as gate, rules.connect(protocol) as peer:
        peer.start(f"/waits?{name}", **({"close": True} if protocol not in SINGLE else {}))
        waiting = gate.arrived()
        peer.send(b"x" * 1000)
        waiting.close()
        assert peer.answer().body == name.encode()


# Temporary files


@pytest.fixture(scope="module")
def spooling(serve_module, threads):
    spool = ("--body-buffer-size", "1000", "--body-spool-dir", "spool")
    return serve_module(RULES, "--threads", threads, *spool, files={"spool/kept": ""})


@pytest.mark.parametrize(("protocol", "framing"), FRAMINGS)
def test_a_large_body_is_kept_in_a_temporary_file(spooling, protocol, framing):
    server = spooling
    for size in (1000, 1001, 300_000):
        body = numbered(size)
        answer = server.ask(protocol, "/spooled", method="POST", body=body, **framed(framing))
        report = json.loads(answer.body)
        assert report["digest"] == hashlib.sha256(body).hexdigest()
        if size == 300_000:  # what came with the head in one read stays in memory
            assert report["where"].startswith(str(server.folder / "spool"))
        elif size == 1000:
            assert report["where"] == "memory"
    assert os.listdir(server.folder / "spool") == ["kept"]


def test_a_body_that_cannot_be_kept_is_507_and_spoils_nothing(serve, protocol, threads):
    spool = ("--body-buffer-size", "1000", "--body-spool-dir", "nowhere")
    server = serve(RULES, "--threads", threads, *spool)
    peer = server.connect(protocol)
    answer = peer.ask("/echo", method="POST", body=numbered(2_000_000))
    assert (answer.status, answer.whole) == (507, True)
    server.wait_for_log("a request body cannot be kept: ")
    assert server.ask(protocol, "/echo", method="POST", body=b"small").body == b"small"
    follow(server, server.connect(protocol))


@pytest.mark.parametrize("size", [1100, 5000, 20_000, 200_000])
@pytest.mark.parametrize(("protocol", "framing"), FRAMINGS)
def test_a_disk_that_is_full_is_507_and_spoils_nothing(full, protocol, framing, size):
    """However late it shows: a small rest is written only when the body is whole."""
    for kind in KINDS:
        peer = full.connect(protocol, kind)
        whole = peer.encode("/echo", method="POST", body=numbered(size), **framed(framing))
        # A body that is whole when it is first read needs no disk: its end comes later.
        peer.send(whole[:-600])
        wait_for(partial(is_read, peer.sock), "the beginning to be read")
        peer.send(whole[-600:])
        answer = peer.answer()
        assert (answer.status, answer.whole) == (507, True)
    follow(full, full.connect(protocol))


def test_an_upload_that_ends_early_on_a_full_disk_spoils_nothing(full, protocol):
    peer = full.connect(protocol)
    peer.send(peer.encode("/echo", method="POST", body=numbered(5000))[:-3000])
    peer.reset()
    follow(full, full.connect(protocol))


@pytest.fixture(scope="module")
def full(serve_module, threads):
    """No file of the worker can grow beyond 1000 bytes."""
    app = """
        import resource
        from rules_app import app
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    """
    options = ("--threads", threads, "--body-buffer-size", "10", "--pythonpath", str(APPS))
    return serve_module(app, *options)


# Pipelining


def test_pipelined_requests_are_answered_in_order(rules):
    """Whatever work each of them is."""
    requests, expected = [], []
    for number in range(20):
        size = (number * 7919) % 13 * 40_000
        if number % 5 == 4:
            requests.append(Http.encode("/file-small?pipelined"))
            expected.append(numbered(100))
        else:
            body = numbered(size)
            framing = {"chunked": number % 2 == 1}
            target = f"/digests?{number}"
            requests.append(Http.encode(target, method="POST", body=body, **framing))
            digest = hashlib.sha256(body * 20).hexdigest()
            expected.append(f"{number} {digest[:8]}".encode())
    peer = rules.connect("http")
    peer.send(b"".join(requests))
    assert [peer.answer().body for _ in requests] == expected
    follow(rules, peer)


def test_pipelined_large_answers_arrive_whole_and_in_order(rules):
    peer = rules.connect("http", receive_buffer=4096)
    pages = ["/large-list", "/file-large?x", "/large-generator", "/pid", "/large-list"]
    peer.send(b"".join(Http.encode(page) for page in pages))
    sizes = [len(peer.answer().body) for _ in pages]
    assert sizes == [LARGE, 5_000_000, LARGE, len(str(rules.workers[0])), LARGE]


def test_many_pipelined_requests_are_all_answered(rules):
    """More than a connection takes in at once."""
    peer = rules.connect("http")
    peer.send(Http.encode("/iterable?list") * 300)
    for _ in range(300):
        assert peer.answer().body == b"abcd"
    follow(rules, peer)


def test_thousands_of_pipelined_requests_are_answered_in_order(rules):
    """More than is decoded at once, all there before the first is, behind a body that came late."""
    peer = rules.connect("http")
    begun = Http.encode("/echo", method="POST", body=b"12")
    peer.send(begun[:-1])
    peer.send(begun[-1:] + b"".join(Http.encode(f"/digests?{number}") for number in range(3000)))
    assert peer.answer().body == b"12"
    for number in range(3000):
        assert peer.answer().body.startswith(f"{number} ".encode())
    follow(rules, peer)


def test_bodies_that_wait_behind_an_answer_are_bounded(rules):
    """Who takes no answer cannot have many bodies kept; all of them are served once it does."""
    bodies = [bytes([number]) * 200_000 for number in range(60)]
    asked = Http.encode("/echo", method="POST", body=bytes(8_000_000))
    asked += b"".join(Http.encode("/echo", method="POST", body=body) for body in bodies)
    peer = rules.connect("http", "unix")
    rest = memoryview(asked)
    while rest and select.select([], [peer.sock], [], 1)[1]:
        rest = rest[peer.sock.send(rest[:4096]) :]
    taken = len(asked) - len(rest) - 8_000_000
    assert 0 < taken < 3_000_000
    sender = Thread(target=peer.send, args=(rest,))
    sender.start()
    answers = [peer.answer().body for _ in range(61)]
    sender.join()
    assert len(answers[0]) == 8_000_000
    assert answers[1:] == bodies
    follow(rules, peer)


# FastCGI multiplexing


@pytest.fixture(scope="module")
def pool(serve_module):
    return serve_module(RULES, "--threads", "4", protocols=("fastcgi", "http"), kinds=("tcp",))


def test_multiplexed_requests_are_answered_as_they_finish(pool):
    """Ids 1 to 5 at once against four threads."""
    names = {number: f"many{number}" for number in (1, 2, 3, 4)}
    gates = {number: Gate(pool.folder / f"{name}.gate") for number, name in names.items()}
    peer = pool.connect("fastcgi")
    peer.send(
        b"".join(FastCgi.encode(f"/waits?{names[number]}", number=number) for number in names)
    )
    waiting = {number: gate.arrived() for number, gate in gates.items()}  # all run at once
    peer.send(FastCgi.encode("/pid", number=5))  # waits for a thread
    finished = []
    for number, bodies in ((3, {3, 5}), (1, {1}), (4, {4}), (2, {2})):
        waiting[number].close()
        seen = set()
        while seen != bodies:
            kind, found, _ = peer.record()
            assert found in bodies
            if kind == END:
                seen.add(found)
                finished.append(found)
    assert sorted(finished) == [1, 2, 3, 4, 5]
    for gate in gates.values():
        gate.__exit__()


def test_multiplexed_streams_interleave(pool):
    peer = pool.connect("fastcgi")
    with Gate(pool.folder / "one.gate") as one, Gate(pool.folder / "two.gate") as two:
        peer.send(FastCgi.encode("/step-by-step?one", number=1))
        peer.send(FastCgi.encode("/step-by-write?two", number=2))
        first, second = peer.head(number=1), peer.head(number=2)
        pieces = {1: peer.pieces(first), 2: peer.pieces(second)}
        assert (next(pieces[1]), next(pieces[2])) == (b"piece 0;", b"piece 0;")
        one.pass_one()
        assert next(pieces[1]) == b"piece 1;"
        two.pass_one()
        assert next(pieces[2]) == b"piece 1;"
        two.pass_one()
        assert list(pieces[2]) == [b"piece 2;"]
        one.pass_one()
        assert list(pieces[1]) == [b"piece 2;"]
        assert first.whole
        assert second.whole


def test_interleaved_uploads_arrive_whole(pool):
    bodies = {number: numbered(200_000)[number:] for number in range(1, 6)}
    peer = pool.connect("fastcgi")
    for number, body in bodies.items():
        pairs = variables("/digests?up", "POST", (), len(body))
        peer.send(begin(number) + records(PARAMS, number, encode_pairs(pairs)))
    for start in range(0, 200_000, 10_000):
        for number, body in bodies.items():
            if piece := body[start : start + 10_000]:
                peer.send(record(STDIN, number, piece, padding=number))
    peer.send(b"".join(record(STDIN, number) for number in bodies))
    for number, body in bodies.items():
        digest = hashlib.sha256(body * 20).hexdigest()
        assert peer.answer(number=number).body == f"up {digest[:8]}".encode()


def test_abort_of_one_request_leaves_the_others(pool, name):
    """While its body arrives, while it waits for a thread, and while it streams."""
    peer = pool.connect("fastcgi")
    with Gate(pool.folder / f"{name}.gate") as gate:
        peer.send(FastCgi.encode(f"/waits?{name}", number=1))
        waiting = gate.arrived()
        peer.send(begin(2) + records(PARAMS, 2, encode_pairs(variables("/echo", length=9))))
        peer.send(record(STDIN, 2, b"1234"))
        peer.abort(2)
        assert peer.record() == (END, 2, bytes(8))
        peer.send(FastCgi.encode(f"/endless?{name}", number=3))
        streaming = peer.head(number=3)
        pieces = peer.pieces(streaming)
        next(pieces)
        peer.abort(3)
        for _ in pieces:
            pass
        assert streaming.whole
        waiting.close()
        assert peer.answer(number=1).body == name.encode()
    closed_once(pool, "fastcgi", name)
    follow(pool, peer)


def test_files_share_a_connection_with_other_answers(serve, threads, name):
    """However little an answer may have waiting: what is in a file does not count."""
    options = ("--threads", threads, "--response-buffer-size", "100000")
    server = serve(RULES, *options, protocols=("fastcgi",), kinds=("tcp",))
    whole = numbered(5_000_000)
    (server.folder / "large").write_bytes(whole)
    (server.folder / "small").write_bytes(whole[:100])
    peer = server.connect("fastcgi", receive_buffer=4096)
    pages = {1: "file-large", 2: "file-small", 3: "file-offset", 4: "digests"}
    for number, page in pages.items():
        peer.send(FastCgi.encode(f"/{page}?{name}", number=number) + record(9, 0))
    found = {number: peer.answer(number=number) for number in pages}
    assert all(answer.whole for answer in found.values())
    assert (found[1].body, found[2].body) == (whole, whole[:100])
    assert found[3].body == whole[1_000_000:]
    assert found[4].body.startswith(name.encode())
    assert [peer.record_of(0) for _ in pages] == [(10, b"")] * len(pages)
    for number, page in {1: "file-large", 2: "large-generator"}.items():
        peer.send(FastCgi.encode(f"/{page}?{name}", number=number))
    assert [len(peer.answer(number=number).body) for number in (1, 2)] == [5_000_000, LARGE]
    follow(server, peer)


def test_a_file_that_is_aborted_ends_with_its_record(serve, threads, name):
    server = serve(RULES, "--threads", threads, protocols=("fastcgi",))
    with open(server.folder / "large", "wb") as file:
        file.truncate(200_000_000)
    for kind in KINDS:
        peer = server.connect("fastcgi", kind, receive_buffer=4096)
        peer.start(f"/file-large?{name}{kind}")
        answer = peer.head()
        peer.abort(1)
        assert sum(map(len, peer.pieces(answer))) < 100_000_000
        assert answer.whole
        follow(server, peer)
        closed_once(server, "fastcgi", f"{name}{kind}")


def test_a_file_that_is_cut_is_not_taken_for_whole(serve, threads, name):
    """It ends with a reset: behind a record that is not whole nothing could be told apart."""
    server = serve(RULES, "--threads", threads, protocols=("fastcgi",), kinds=("tcp",))
    large = server.folder / "large"
    with open(large, "wb") as file:
        file.truncate(60_000_000)
    peer = server.connect("fastcgi", receive_buffer=4096)
    peer.start(f"/file-large?{name}")
    answer = peer.head()
    os.truncate(large, 1000)
    assert sum(map(len, peer.pieces(answer))) < 60_000_000
    assert not answer.whole
    peer.rest()  # the beginning of a record, perhaps
    assert peer.ended == RESET
    server.wait_for_log("the file was cut while it was sent")
    closed_once(server, "fastcgi", name)
    follow(server, server.connect("fastcgi"))


def test_files_that_wait_behind_each_other_are_not_all_open(serve, threads, name):
    server = serve(RULES, "--threads", threads, protocols=("fastcgi",), kinds=("tcp",))
    (server.folder / "large").write_bytes(numbered(2_000_000))
    peer = server.connect("fastcgi", receive_buffer=4096)
    numbers = range(1, 31)
    peer.send(b"".join(FastCgi.encode(f"/file-large?{name}", number=n) for n in numbers))
    for number in numbers:
        assert len(peer.answer(number=number).body) == 2_000_000
        files = [file for file in opened(server.workers[0]) if file.endswith("/large")]
        # Each thread may queue one while nobody sees another's, and have the next one open;
        # and one that is sent may have yet to be closed.
        assert len(files) <= 1 + 2 * int(threads)


def test_a_request_that_is_aborted_while_it_waits_does_not_run(serve):
    server = serve(RULES, "--threads", "2", protocols=("fastcgi",), kinds=("tcp",))
    gates = [Gate(server.folder / f"{name}.gate") for name in ("one", "two", "never")]
    peer = server.connect("fastcgi")
    for number, name in ((1, "one"), (2, "two"), (3, "never")):
        peer.send(FastCgi.encode(f"/waits?{name}", number=number))
    waiting = [gate.arrived() for gate in gates[:2]]
    peer.abort(3)
    peer.send(record(9, 0))  # answered once the abort was read
    assert peer.record() == (10, 0, b"")
    for gate in waiting:
        gate.close()
    assert peer.answer(number=1).body == b"one"
    assert peer.answer(number=2).body == b"two"
    while peer.record_of(3)[0] != END:
        pass
    gates[2]._listener.settimeout(0)
    with pytest.raises(BlockingIOError):
        gates[2].arrived()
    for gate in gates:
        gate.__exit__()


@pytest.mark.parametrize(("cap", "protocol_status"), [(1, 1), (2, 2)])
def test_requests_beyond_the_cap_are_told_so(serve, name, cap, protocol_status):
    """CANT_MPX_CONN where one is served at a time, else OVERLOADED; the others go on."""
    options = ("--threads", "4", "--fastcgi-multiplex-max", str(cap))
    server = serve(RULES, *options, protocols=("fastcgi",), kinds=("tcp",))
    with Gate(server.folder / f"{name}.gate") as gate:
        peer = server.connect("fastcgi")
        for number in range(1, cap + 1):
            peer.send(FastCgi.encode(f"/waits?{name}", number=number))
        waiting = [gate.arrived() for _ in range(cap)]
        peer.send(FastCgi.encode("/pid", number=9))
        assert peer.record() == (END, 9, struct.pack(">IB3x", 0, protocol_status))
        for one in waiting:
            one.close()
        for number in range(1, cap + 1):
            assert peer.answer(number=number).body == name.encode()
        assert peer.ask("/pid", number=9).status == 200


def test_a_peer_that_dies_with_requests_running_leaves_the_worker_sound(serve):
    """Their threads finish and find nobody; the descriptor is used again only then."""
    server = serve(RULES, "--threads", "4")
    for protocol in PROTOCOLS:
        with Gate(server.folder / f"{protocol}.gate") as gate:
            peer = server.connect(protocol)
            peer.start(f"/waits-then-large?{protocol}")
            waiting = gate.arrived()
            peer.reset()
            follow(server, server.connect(protocol))
            waiting.close()
            follow(server, server.connect(protocol))
    assert len(server.workers) == 1
    assert server.stop(signal.SIGTERM) == 0
