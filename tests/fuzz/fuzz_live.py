"""Fuzzing of live servers over raw sockets (``make fuzz``).

    fuzz_live.py [SECONDS]    FUZZ_SECONDS (60) if not given; FUZZ_SEED for the same inputs

Two gateways with two workers each, one without a pool and one with four threads, get
requests, vectors and mutations of them on every bind: whole to one and in pieces to the
other, whose answers must be the same; and from peers that leave in every way.  After
each batch nothing may be left of it, and honest requests must have their answers.
"""

from __future__ import annotations

import base64
import json
import os
import random
import socket
import sys
import tempfile
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from time import monotonic

from fuzz_targets import CODECS
from live_client import (
    CONTINUE,
    Plain,
    Received,
    Tls,
    comparable,
    deliver,
    differ,
    leave,
    open_to,
    random_cuts,
)
from live_inputs import Input, Inputs
from live_server import Bind, Server
from tls_peers import Authority

FINDINGS = Path(os.environ.get("FUZZ_FINDINGS", "fuzz-findings"))
BATCH = 120
CLIENTS = 6


class Fuzzer:
    """Everything that is sent, and everything that is wrong."""

    def __init__(self, seed: int) -> None:
        self.choices = random.Random(seed)
        self.inputs = Inputs()
        self.authority = Authority(Path(tempfile.mkdtemp(prefix="gw-fuzz-")))
        self.context = self.authority.context()
        self.servers = [Server(threads, self.authority) for threads in (1, 4)]
        self.counts: Counter[str] = Counter()
        self.findings: list[str] = []
        self._lock = threading.Lock()
        #: By server: how often each id was sent, and how often it came back.
        self._sent: list[Counter[bytes]] = [Counter(), Counter()]
        #: Ids that have to run equally often on both, being sent to both.
        self._paired: set[bytes] = set()

    def run(self, seconds: float) -> None:
        """Fuzz for so long."""
        begun = monotonic()
        while monotonic() - begun < seconds:
            seeds = [self.choices.getrandbits(64) for _ in range(BATCH)]
            with ThreadPoolExecutor(CLIENTS) as pool:
                list(pool.map(self.script, seeds))
            self._look()
            for server in self.servers:
                if monotonic() - begun > seconds / 10 * (1 + len(server.weights)):
                    server.weigh()
        for server in self.servers:
            server.weigh()
            server.judge_weights()
            server.stop()
            self.findings += [f"{server.threads} threads: {text}" for text in server.findings]
            server.findings.clear()

    def script(self, seed: int) -> None:
        """One input."""
        choices = random.Random(seed)
        number = choices.randrange(len(self.servers[0].binds))
        bind = self.servers[0].binds[number]
        protocol = bind.protocol if bind.protocol != "auto" else choices.choice(sorted(CODECS))
        made = self.inputs.make(choices, protocol, bind.version, tls=bind.tls)
        try:
            if choices.random() < 0.6:
                self._compare(choices, number, made)
            else:
                self._leave(choices, number, made)
        except OSError as error:
            self._find(f"no connection to {bind}: {error!r}", made, bind)

    def _leave(self, choices: random.Random, number: int, made: Input) -> None:
        side = choices.randrange(2)
        self._note(made, [side])
        many = choices.choice((1, 1, 1, 5))
        opened = [open_to(self.servers[side].binds[number], choices) for _ in range(many)]
        data = made.data
        if opened and self.servers[side].binds[number].tls:
            data = self._over_tls(choices, opened[0], made)
        for sock in opened:
            leave(sock, data if sock is opened[0] else b"GET", choices)
        for sock in opened:
            sock.close()
        self._count(left=many)

    def _over_tls(self, choices: random.Random, sock: socket.socket, made: Input) -> bytes:
        """What to send of an input: sealed, after a handshake; or a handshake that goes wrong."""
        end = Tls(self.context)
        if choices.random() < 0.5:
            hello = Input("tls", made.before + end.hello(), clean=False)
            for _ in range(choices.randint(0, 3)):
                hello.data = self.inputs.mutated(choices, hello)
            return hello.data + made.data
        with suppress(OSError):
            end.handshake(sock, made.before)
            return end.seal(made.data)
        return b""

    def _compare(self, choices: random.Random, number: int, made: Input) -> None:
        sides = choices.sample((0, 1), 2)
        self._note(made, sides)
        got = []
        for side, pieces in zip(sides, ([made.data], random_cuts(made.data, choices)), strict=True):
            bind = self.servers[side].binds[number]
            end = Tls(self.context) if bind.tls else Plain()
            with open_to(bind, choices) as sock:
                if isinstance(end, Tls):
                    end.handshake(sock, made.before)
                got.append(deliver(sock, pieces, end, slowly=len(pieces) > 1))
        bind = self.servers[0].binds[number]
        for received in got:
            self._judge(received, made, bind)
        protocol = comparable(bind, made.data, CODECS)
        self._count(compared=bool(protocol), timed=not protocol)
        if protocol:
            if differ(protocol, *got):
                self._find(
                    "the same bytes, whole and in pieces, have other answers", made, bind, got
                )
            with self._lock:
                self._paired |= made.occurrences().keys()

    def _judge(self, received: Received, made: Input, bind: Bind) -> None:
        self._count(delivered=1, reset=received.ended == "reset")
        if received.ended == "hang":
            self._find("a hang", made, bind, [received])
        for name, times in made.occurrences().items():
            if received.data.count(name) > times:
                self._find(f"{name!r} was answered twice", made, bind, [received])
        if made.clean:
            self._count(clean=1)
            if received.data.endswith(CONTINUE):
                self._find("100 after the last answer", made, bind, [received])
            if received.ended != "end":
                self._find(f"a good connection ended by {received.ended}", made, bind, [received])
            for name in made.answered:
                if received.data.count(name) != 1:
                    self._find(f"{name!r} has no answer", made, bind, [received])

    def _note(self, made: Input, sides: list[int]) -> None:
        with self._lock:
            for side in sides:
                self._sent[side].update(made.occurrences())

    def _look(self) -> None:
        runs = [server.runs() for server in self.servers]
        for side, server in enumerate(self.servers):
            server.look()
            late = server.runs()
            ran = {name: runs[side].get(name, 0) + late.get(name, 0) for name in self._sent[side]}
            runs[side] = ran
            for name, times in ran.items():
                self.counts["run"] += times
                if times > self._sent[side][name]:
                    self.findings.append(f"{name!r} was run {times} times on {server.threads}")
            server.probe(self.choices)
            server.runs()
        for name in self._paired:
            one, other = (ran.get(name, 0) for ran in runs)
            if one != other:
                self.findings.append(f"{name!r} was run {one} and {other} times")
        self._sent = [Counter(), Counter()]
        self._paired = set()
        for text in [*self.findings, *(text for it in self.servers for text in it.findings)]:
            print(f"finding: {text}", flush=True)
            self.counts["findings"] += 1
        self.findings.clear()
        for server in self.servers:
            server.findings.clear()

    def _count(self, **numbers: int) -> None:
        with self._lock:
            self.counts.update(numbers)

    def _find(self, what: str, made: Input, bind: Bind, got: list[Received] | None = None) -> None:
        """Keep all that is known."""
        record = {
            "what": what,
            "bind": str(bind),
            "sent": base64.b64encode(made.data).decode(),
            "clean": made.clean,
            "received": [[it.ended, base64.b64encode(it.data).decode()] for it in got or []],
        }
        FINDINGS.mkdir(exist_ok=True)
        with self._lock:
            path = FINDINGS / f"live-{len(list(FINDINGS.iterdir())) + 1}.json"
            path.write_text(json.dumps(record, indent=1))
            self.findings.append(f"{what} on {bind}: {path}")


def main(words: list[str]) -> int:
    seconds = float(words[0] if words else os.environ.get("FUZZ_SECONDS", "60"))
    seed = int(os.environ.get("FUZZ_SEED", random.getrandbits(32)))
    print(f"seed {seed}", flush=True)
    fuzzer = Fuzzer(seed)
    begun = monotonic()
    try:
        fuzzer.run(seconds)
    finally:
        for server in fuzzer.servers:
            server.gateway.end()
    for text in fuzzer.findings:
        print(f"finding: {text}")
    fuzzer.counts["findings"] += len(fuzzer.findings)
    print(", ".join(f"{count} {name}" for name, count in sorted(fuzzer.counts.items())))
    for server in fuzzer.servers:
        grown = [
            [(size - first) >> 10 for size, first in zip(sizes, server.weights[0], strict=True)]
            for sizes in server.weights
        ]
        print(f"{server.threads} threads: workers grew by, in KiB at each tenth: {grown}")
    print(f"{monotonic() - begun:.0f} s")
    return int(fuzzer.counts["findings"] > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
