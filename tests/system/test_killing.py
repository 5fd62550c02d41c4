"""kill -9 of workers under load: what they were serving fails, by name, and nothing else."""

from __future__ import annotations

import json
import os
import random
import re
import signal
from contextlib import suppress
from threading import Event

from fleet import RECORDING_APP, Fleet, recorded, unique
from processes import children

#: Seconds of it; GATEWAY_TEST_SECONDS=20 for a long run.
SECONDS = float(os.environ.get("GATEWAY_TEST_SECONDS", "6"))
PAUSE = 0.2
WORKERS = 4
CLIENTS = 2


def test_a_killed_worker_takes_only_what_it_was_serving(serve, tmp_path):
    access_log = tmp_path / "access.log"
    # As many threads as there are clients in all: nothing waits for a thread.
    options = ("--workers", str(WORKERS), "--threads", str(6 * CLIENTS))
    options += ("--accesslog", str(access_log), "--access-log-format", "json")
    killed = []
    with Fleet(serve, RECORDING_APP, *options) as fleet:
        manager = fleet.server.process.pid
        with fleet.load(clients=CLIENTS, target=unique("/n")) as load:
            load.reached(20)
            load.check()
            pause = Event()  # the rhythm is what is tested, not something to wait for
            attempts = int(SECONDS / PAUSE)
            for _ in range(attempts):
                pause.wait(PAUSE)
                if workers := children(manager):
                    victim = random.choice(workers)
                    with suppress(ProcessLookupError):
                        os.kill(victim, signal.SIGKILL)
                        killed.append(victim)
            # It is well again: every kind of client is answered.
            load.reached(20, despite_failures=True)
        for pid in killed:
            fleet.server.wait_for_log(rf"worker {pid} .*SIGKILL")
        fleet.server.stop(signal.SIGTERM)
        begun, cut = recorded(fleet.server.folder)
        cut = {what.split()[1] for what in cut}
        errors = set(re.findall(r"\[(?:ERROR|CRITICAL)\] .*\bPOST (/n\d+)\b", fleet.server.log))
        lines = [json.loads(line) for line in access_log.read_text().splitlines()]
        aborted = [line for line in lines if line.get("aborted")]
        named = {line["request"].split()[1] for line in aborted}
        failed = set(load.unanswered)
        never_begun = failed - {what.split()[1] for what in begun}
        print(
            f"{len(killed)} workers killed: {len(cut)} requests cut, {len(errors)} named in the "
            f"error log, {len(aborted)} aborted in the access log; {len(failed)} failed, of these "
            f"{len(never_begun)} before the application had them\n{load}"
        )
        assert len(killed) > attempts / 3, "mostly there was no worker to kill"
        assert cut, "no kill ever met a request"
        assert load.refused == 0
        assert cut <= errors, "cut off, and not in the error log"
        assert cut <= named, "cut off, and not in the access log"
        assert len(aborted) == len(named), "in the access log more than once"
        assert errors == named
        assert failed <= named | never_begun, "failed without a reason"
