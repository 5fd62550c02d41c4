"""A gateway under fire: started, watched from outside, and asked whether it is well."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

sys.path.append(str(Path(__file__).parents[1] / "system"))

from clients import PEERS, Address
from fleet import settled
from live_inputs import PROTOCOLS, PROXIES
from processes import (
    Gateway,
    children,
    descriptors,
    memory,
    opened,
    threads_of,
    wait_for,
)
from tls_peers import Authority, Https

APP = Path(__file__).parents[1] / "apps" / "recording_app.py"

#: What the log must never say.
FAULT = re.compile(
    r".*(?:a fault of the server|a worker failed|Traceback|CRITICAL| died|cannot accept"
    r"|the application failed|stuck|does not leave).*"
)
#: Seconds in which an honest request has its answer, however busy the machine is.
BOUND = 30.0
#: Bytes by which a worker may have grown since it was warm.
GROWTH = 24 << 20

#: Of each bind its scheme and the version of the PROXY protocol.
BINDS = [
    *((scheme, "off") for scheme in ("http", "https", "fastcgi", "scgi", "uwsgi", "auto")),
    *(("http", "auto"), ("https", "v1"), ("fastcgi", "v2"), ("auto", "v1")),
]


@dataclass
class Held:
    """What the workers hold while nobody is connected."""

    descriptors: list[int]
    threads: list[int]


@dataclass
class Bind:
    """Where to connect, and what is spoken there."""

    scheme: str
    version: str
    address: Address

    @property
    def protocol(self) -> str:
        """What is spoken, inside of TLS if there is TLS."""
        return "http" if self.tls else self.scheme

    @property
    def tls(self) -> bool:
        return self.scheme == "https"

    def __str__(self) -> str:
        kind = "unix" if isinstance(self.address, str) else "tcp"
        return f"{self.scheme}-{self.version}-{kind}"


def sockets_and_files(pid: int) -> Counter[str]:
    """What a process has open: paths, and sockets with their state (proc(5))."""
    tables = [
        line.split()
        for name in ("tcp", "unix")
        for line in Path(f"/proc/{pid}/net/{name}").read_text().splitlines()
    ]
    found: Counter[str] = Counter()
    for name in opened(pid):
        inode = name.partition(":[")[2].rstrip("]")
        found[next((" ".join(line) for line in tables if inode and inode in line), name)] += 1
    return found


@dataclass
class Server:
    """One gateway with two workers."""

    threads: int
    authority: Authority
    findings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.context = self.authority.context()
        self.folder = Path(tempfile.mkdtemp(prefix="gw-fuzz-"))
        (self.folder / "record.page").write_bytes(b"page\n" * 20_000)
        self.log, self.record = self.folder / "error.log", self.folder / "record"
        self.record.touch()
        words = [sys.executable, "-m", "gateway", f"{APP}:app", "--workers", "2"]
        words += ["--threads", str(self.threads), "--errorlog", str(self.log)]
        words += ["--body-buffer-size", "5000", "--limit-request-body", "1000000"]
        words += ["--proxy-allow-ips", "127.0.0.0/8,unix", "--accesslog", "/dev/null"]
        certificate, key = self.authority.issue(f"server{self.threads}")
        words += ["--certfile", str(certificate), "--keyfile", str(key)]
        for scheme, version in BINDS:
            path = f"{self.folder}/{scheme}-{version}.sock"
            for where in ("127.0.0.1:0", f"unix:{path}"):
                words += ["--bind", f"{scheme}+{where}?proxy_protocol={version}"]
        self.gateway = Gateway(words, self.folder, env={"RECORD": str(self.record)})
        wait_for(lambda: self._log().count("is ready") == 2, "two workers")
        listening = re.findall(r"listening: (\S+) on ([^\s?]+)", self._log())
        tcp = [where for _, where in listening if not where.startswith("unix:")]
        assert len(tcp) == len(BINDS), listening
        self.binds = []
        for (scheme, version), where in zip(BINDS, tcp, strict=True):
            port = int(where.rpartition(":")[2])
            path = f"{self.folder}/{scheme}-{version}.sock"
            self.binds += [Bind(scheme, version, place) for place in (("127.0.0.1", port), path)]
        self.workers = sorted(children(self.gateway.process.pid))
        self.probe(Random(0))
        self.baseline = settled(self.held, 1.0, "descriptors that stay")
        self.opened = {pid: sockets_and_files(pid) for pid in self.workers}
        self.weights: list[list[int]] = []

    def _log(self) -> str:
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""

    def held(self) -> Held:
        return Held(
            [descriptors(pid) for pid in self.workers], [threads_of(pid) for pid in self.workers]
        )

    def probe(self, choices: Random) -> None:
        """An honest request at every bind has the right answer in time."""
        for bind in self.binds:
            protocol = bind.protocol
            if protocol == "auto":
                protocol = choices.choice(PROTOCOLS)
            name = f"q{choices.getrandbits(48):012x}z"
            try:
                before = PROXIES[bind.version][-1]
                if bind.tls:
                    connection = Https(
                        bind.address, context=self.context, before=before, timeout=BOUND
                    )
                else:
                    connection = PEERS[protocol](bind.address, timeout=BOUND)
                    connection.send(before)
                with connection as peer:
                    answer = peer.ask(f"/echo/{name}", method="POST", body=b"abc")
                assert answer.status == 200
                assert answer.whole
                assert answer.body.startswith(f"{name} 3 ".encode())
            except (OSError, AssertionError) as error:
                self.findings.append(f"probe of {bind} with {protocol}: {error!r}")

    def runs(self) -> dict[bytes, int]:
        """How often each id was run since the last look."""
        data = self.record.read_bytes()
        os.truncate(self.record, 0)
        found: dict[bytes, int] = {}
        for line in data.splitlines():
            for name in line.split()[1:]:
                found[name] = found.get(name, 0) + 1
        return found

    def look(self) -> None:
        """While nobody is connected: nothing is left, nobody died, nothing odd was said."""
        if sorted(children(self.gateway.process.pid)) != self.workers:
            self.findings.append(f"a crash: {self.workers} are not the workers any more")
            self.workers = sorted(children(self.gateway.process.pid))
            self.baseline = self.held()
        try:
            wait_for(lambda: self.held() == self.baseline, "descriptors and threads", BOUND)
        except AssertionError:
            self.findings.append(f"a leak: {self.held()} after {self.baseline}")
            left = [str(sockets_and_files(pid) - before) for pid, before in self.opened.items()]
            self.findings.append(f"what is left: {left}")
            self.baseline = self.held()
        for found in FAULT.findall(self._log()):
            self.findings.append(f"the log: {found}")
        os.truncate(self.log, 0)

    def weigh(self) -> None:
        """Note how large the workers are."""
        self.weights.append([memory(pid) for pid in self.workers])

    def judge_weights(self) -> None:
        """Once a worker is warm, memory must not grow."""
        for before, after in zip(self.weights[0], self.weights[-1], strict=True):
            if after - before > GROWTH:
                self.findings.append(f"memory grew from {before} to {after} bytes")

    def stop(self) -> None:
        try:
            if self.gateway.stop() != 0:
                self.findings.append("it did not stop in order")
        finally:
            self.gateway.end()
