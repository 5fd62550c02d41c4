"""Disks that are full or read-only: what is lost, which is as little as can be."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from clients import Http
from conftest import APPS, PROTOCOLS, numbered
from processes import Load, started, wait_for
from rules_app import LARGE

RULES = APPS / "rules_app.py"


@pytest.fixture
def disk(tmp_path):
    """A disk of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)],
            check=True, capture_output=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("nothing can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def occupied(disk: Path) -> int:
    """Blocks that are taken, also by files without a name."""
    state = os.statvfs(disk)
    return state.f_blocks - state.f_bfree


def spooling(serve, disk, threads, *more):
    sizes = ("--body-buffer-size", "10000", "--body-spool-dir", str(disk))
    return serve(RULES, "--threads", threads, *sizes, *more)


def test_uploads_beyond_a_full_disk_are_507_and_nobody_else_notices(serve, threads, disk):
    server = spooling(serve, disk, threads)
    (worker,) = server.workers
    with Load("http", server.addresses["http", "tcp"], keep=True, target="/pid") as load:
        for protocol in PROTOCOLS:
            for kind in ("tcp", "unix"):
                peer = server.connect(protocol, kind)
                answer = peer.ask("/echo", method="POST", body=numbered(3_000_000))
                assert (answer.status, answer.whole) == (507, True)
                assert server.connect(protocol, kind).ask("/echo", method="POST", body=b"x").whole
        wait_for(lambda: not occupied(disk), "the files to be gone")
        for protocol in PROTOCOLS:  # by itself it goes on
            body = numbered(500_000)
            assert server.ask(protocol, "/echo", method="POST", body=body).body == body
        load.reached(20)
    assert not load.lost
    assert server.workers == [worker]
    assert server.log.count("a request body cannot be kept") == 2 * len(PROTOCOLS)


def test_answers_beyond_a_full_disk_arrive_all_the_same(serve, protocol, threads, disk):
    """They stay in memory; each is longer than the disk."""
    server = spooling(serve, disk, threads)
    pages = ("large-list", "large-generator")
    peers = [server.connect(protocol, kind, receive_buffer=4096) for kind in ("tcp", "unix")]
    for peer, page in zip(peers, pages, strict=True):
        peer.start(f"/{page}")
    server.wait_for_log("answers stay in memory, not in files: .*No space left on device", 2)
    assert server.ask(protocol, "/pid").status == 200
    for peer in peers:
        answer = peer.answer()
        assert (len(answer.body), answer.whole) == (LARGE, True)
    wait_for(lambda: not occupied(disk), "the files to be gone")


def test_an_answer_that_cannot_be_kept_at_all_is_cut_and_named(serve, protocol, threads, disk):
    """Neither the disk nor what memory is allowed for this takes it; the others are answered."""
    server = spooling(serve, disk, threads, "--response-buffer-size", "1000000000")
    deaf = [server.connect(protocol, "unix") for _ in range(9)]
    for peer in deaf:
        peer.start("/large-list")
    server.wait_for_log(r"/large-list from .*: the answer cannot be kept: .*No space left")
    assert server.ask(protocol, "/pid").status == 200
    answers = []
    for peer in deaf:
        try:
            answers.append(peer.answer().whole)
        except ConnectionError:
            answers.append(False)
    cut = server.log.count("the answer cannot be kept")
    assert cut == answers.count(False)
    assert 0 < cut < len(deaf)
    server.check()


def test_where_nothing_can_be_written_small_bodies_are_served(tmp_path):
    """/tmp and its like are read-only, and so is the folder where it was started."""
    (tmp_path / "app.py").write_text("from rules_app import app\n")
    script = "for folder in /tmp /var/tmp; do mount --bind $folder $folder && "
    script += 'mount -o remount,bind,ro $folder || exit 9; done; cd . && exec "$@"'
    if subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", "true"], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    words = ("app:app", "--bind", "127.0.0.1:0", "--pythonpath", str(APPS))
    before = ("unshare", "-m", "sh", "-c", script, "sh")
    with started(*words, cwd=tmp_path, before=before) as server:
        (port,) = re.findall(r"http on 127\.0\.0\.1:(\d+)", server.log)
        address = ("127.0.0.1", int(port))
        with Http(address) as peer:
            assert peer.ask("/echo", method="POST", body=b"x" * 10_000).body == b"x" * 10_000
            answer = peer.ask("/echo", method="POST", body=bytes(5_000_000))
            assert (answer.status, answer.whole) == (507, True)
        with Http(address, receive_buffer=4096) as slow:
            slow.start("/large-list")
            server.wait_for_log("answers stay in memory, not in files")
            assert len(slow.answer().body) == LARGE
