"""The lock of a connection: the one that is compiled does what the standard library's does."""

import os
import sys
import threading
from contextlib import suppress

import pytest

from gateway import accepted
from protocols.builds import WANTED


@pytest.fixture(params=["plain", "native"])
def make(request):
    if request.param == "plain":
        return threading.Lock
    if accepted.Lock is threading.Lock:
        if WANTED and sys.platform == "linux" and "CI" in os.environ:
            pytest.fail("gateway/_sockets.c was not built")
        pytest.skip("gateway/_sockets.c is not built, or not wanted")
    return accepted.Lock


def test_it_holds_others_up_until_it_is_left_whatever_is_raised(make):
    lock, order, tries = make(), [], threading.Event()

    def wait() -> None:
        tries.set()
        with lock:
            order.append("other")

    other = threading.Thread(target=wait)
    with suppress(ZeroDivisionError), lock:
        other.start()
        assert tries.wait(10)
        order.append("first")
        order.append(1 // 0)
    other.join(10)
    assert order == ["first", "other"]
    with lock:
        order.append("again")


def test_threads_take_turns(make):
    lock, counts = make(), [0]

    def add() -> None:
        for _ in range(2000):
            with lock:
                count = counts[0]
                counts[0] = count + 1

    threads = [threading.Thread(target=add) for _ in range(8)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(before)
    assert counts == [16_000]


def test_what_is_not_held_is_not_left(make):
    lock = make()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="release unlocked lock"):
            lock.__exit__(None, None, None)
        with lock:
            pass


def test_it_takes_no_arguments(make):
    with pytest.raises(TypeError):
        make(1)


def test_one_that_is_held_can_be_forgotten(make):
    lock = make()
    lock.__enter__()
    del lock
