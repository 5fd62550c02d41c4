"""TERM while every kind of client asks without a pause."""

from __future__ import annotations

import signal
from time import monotonic

import pytest
from fleet import RECORDING_APP, Fleet, recorded, unique
from processes import TIMEOUT, wait_for

GRACEFUL_TIMEOUT = 10


@pytest.mark.parametrize("threads", ["1", "4"], ids=["inline", "pool"])
def test_term_answers_every_accepted_request(serve, threads):
    options = ("--workers", "2", "--threads", threads, "--graceful-timeout", str(GRACEFUL_TIMEOUT))
    with Fleet(serve, RECORDING_APP, *options) as fleet:
        with fleet.load(target=unique()) as load:
            load.reached(20)
            load.check()
            told = monotonic()
            fleet.server.kill(signal.SIGTERM)
            assert fleet.server.process.wait(TIMEOUT) == 0
            took = monotonic() - told
            # Now nobody is there: the clients see it.
            wait_for(lambda: all(each.lost or each.refused for each in load.of.values()), "the end")
        begun, cut = recorded(fleet.server.folder)
        print(f"TERM, {threads} threads: gone after {took:.2f} s, {len(begun)} requests served")
        assert took < GRACEFUL_TIMEOUT
        assert not cut, "the application was cut off"
        served = {what.split()[1] for what in begun}
        unanswered = load.unanswered
        assert not served & set(unanswered), "served, and not answered"
        early = {target for target, at in unanswered.items() if at < told}
        assert not early, "sent before the stop, and not answered"
        assert not sum(each.raced for each in load.of.values())
        assert "cut off" not in fleet.server.log
