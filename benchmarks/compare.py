"""gateway beside its peers: ``python -m benchmarks.compare``; Markdown on standard output."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import checks, fronts, growth, load, measure, report
from benchmarks.environment import environment
from benchmarks.peers import PEERS, build_floor
from benchmarks.process import LOAD_CORES, ROOT, SERVER_CORES
from benchmarks.scenarios import QUICK, QUICK_PEERS, SCENARIOS

_NAMES = (*SCENARIOS, *growth.GROWTH)
_QUICK_GROWTH = ("grow-headers", "grow-workers")


def main(arguments=None):
    options = _options(arguments)
    if options.list:
        _list()
        return
    reason = load.missing()
    if reason:
        raise SystemExit(f"nothing can be measured: {reason}")
    packages = {PEERS[name].package for name in _peers_of(options)} - {""}
    if any(SCENARIOS[name].app == "framework:app" for name in options.only if name in SCENARIOS):
        packages.add("flask")
    if options.plot:
        packages.add("matplotlib")
    with environment(sorted(packages), options.environment) as found:
        Run(found, options).all()


def _options(arguments):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--only", type=_words(_NAMES), help="scenarios, with commas between")
    parser.add_argument("--peers", type=_words(PEERS), help="servers, with commas between")
    parser.add_argument("--rounds", type=int, help="turns of each server (3)")
    parser.add_argument("--seconds", type=int, default=1, help="of load in a turn (1)")
    parser.add_argument(
        "--minutes", type=float, help="after which there are fewer rounds (22; 4 if quick)"
    )
    parser.add_argument(
        "--tries", type=int, default=1, help="measure a turn again while the machine is not quiet"
    )
    parser.add_argument("--quick", action="store_true", help="one round of what matters most")
    parser.add_argument("--must-show", action="store_true", help="what must be shown, and no more")
    parser.add_argument("--list", action="store_true", help="what can be chosen")
    parser.add_argument("--environment", metavar="DIR", help="keep the environment, use it again")
    parser.add_argument("--json", metavar="FILE", help="every turn, for other programs")
    parser.add_argument("--plot", metavar="PNG", help="draw the report")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (1 if options.quick else 3)
    if min(options.rounds, options.seconds, options.tries) < 1:
        parser.error("--rounds, --seconds and --tries are at least 1")
    if not options.minutes:
        options.minutes = 4 if options.quick else 22
    if not options.only:
        options.only = _chosen(options)
    return options


def _chosen(options):
    if options.must_show:
        return (*checks.SCENARIOS_NEEDED, *checks.GROWTH_NEEDED)
    return (*QUICK, *_QUICK_GROWTH) if options.quick else _NAMES


def _words(known):
    def words(text):
        found = tuple(text.split(","))
        for name in found:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return found

    return words


def _list():
    for name in _NAMES:
        print(f"{name:20} {(SCENARIOS.get(name) or growth.GROWTH[name]).title}")
    print(f"servers: {', '.join(PEERS)}")


def _peers_in(options, name):
    """The servers of a scenario that were asked for."""
    names = (SCENARIOS.get(name) or growth.GROWTH[name]).peers
    if options.peers:
        return [peer for peer in names if peer in options.peers]
    if options.must_show and name in SCENARIOS:
        wanted = checks.peers_needed(name)
    elif options.must_show:
        wanted = ("gateway", "gateway-pure")
    else:
        wanted = QUICK_PEERS if options.quick else None
    return [peer for peer in names if wanted is None or peer in wanted]


def _peers_of(options):
    return {peer for name in options.only for peer in _peers_in(options, name)}


class Run:
    """One run: what was found, and the printing of it."""

    def __init__(self, found, options):
        self._environment = found
        self._options = options
        self._everything = {}
        self._growth = {}
        build_floor(found)
        self._versions = found.versions()
        self._two_builds = self._version({}) != self._version({"GATEWAY_PURE": "1"})

    def _version(self, environ):
        command = [self._environment.program("gateway"), "--version"]
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, env=os.environ | environ
        )
        return done.stdout.strip().replace(", version", "")

    def all(self):
        started = time.monotonic()
        _print([self._machine(), ""])
        left = list(self._options.only)
        while left:
            shares = [self._weight(name) for name in left]
            now = time.monotonic()
            end = started + self._options.minutes * 60
            until = now + (end - now) * shares[0] / sum(shares)
            name = left.pop(0)
            if name in SCENARIOS:
                self._scenario(SCENARIOS[name], until)
            else:
                self._grow(growth.GROWTH[name], until)
        _print(report.summary(SCENARIOS, self._everything))
        _print(report.growth_summary(growth.GROWTH, self._growth))
        if self._options.must_show or not (self._options.quick or self._options.peers):
            self._worker()
            _print(report.checks_table(checks.outcomes(self._everything, self._growth)))
        _print([f"{time.monotonic() - started:.0f} seconds."])
        self._save()

    def _weight(self, name):
        """About how long a round takes, beside others."""
        turns = 1 + len(self._peers(name)[0])
        if name not in SCENARIOS:
            return turns * 3
        scenario = SCENARIOS[name]
        return turns * (1 + scenario.seconds / 4 + scenario.idle / 2500)

    def _machine(self):
        model = "an unknown processor"
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
        used = {PEERS[name].package for name in _peers_of(self._options)} - {""}
        others = [f"{name} {self._versions[name]}" for name in sorted(used & {*self._versions})]
        versions = ", ".join([self._version({}), *others])
        return (
            f"{datetime.now(tz=UTC):%Y-%m-%d}, {model}, Linux {platform.release()}, "
            f"Python {platform.python_version()}, {versions}. "
            f"Server on core {_cores(SERVER_CORES)}; load and front ends on {_cores(LOAD_CORES)}."
        )

    def _peers(self, name):
        """(peers that can be measured, {name: reason} of the others)."""
        usable, missing = [], {}
        for peer in (PEERS[each] for each in _peers_in(self._options, name)):
            reason = self._environment.missing.get(peer.package or peer.name)
            if peer.name == "gateway-pure" and not self._two_builds:
                continue
            if peer.name == "floor-nginx":
                reason = fronts.missing("nginx")
            if reason:
                missing[peer.name] = reason
            elif name not in SCENARIOS or peer.can(SCENARIOS[name]):
                usable.append(peer)
        return usable, missing

    def _scenario(self, scenario, until):
        options = self._options
        if scenario.front:
            reason = fronts.missing(scenario.front, scenario.protocol)
            if reason:
                _print([f"### {scenario.name}: not measured: {reason}", ""])
                return
        peers, missing = self._peers(scenario.name)
        results, failed = measure.rounds(
            self._environment,
            peers,
            scenario,
            options.rounds,
            options.seconds,
            options.tries,
            until,
        )
        self._everything[scenario.name] = results
        _print(report.scenario_table(scenario, results, missing | failed))

    def _grow(self, which, until):
        peers, missing = self._peers(which.name)
        lines, failed = growth.run(
            self._environment, peers, which, self._options.rounds, self._options.seconds, until
        )
        self._growth[which.name] = lines
        _print(report.growth_table(which.title, which.unit, lines))
        _print([f"- {name}: not measured: {why}" for name, why in (missing | failed).items()])

    def _worker(self):
        """The worker's own PSS, without its manager's."""
        found = growth.workers(self._environment, PEERS["gateway"], 1, preload=False)
        self._growth["worker"] = list(found.values())[1] / (1 << 20)

    def _save(self):
        options = self._options
        with tempfile.TemporaryDirectory(prefix="bench-report-") as folder:
            path = options.json or f"{folder}/results.json"
            with open(path, "w", encoding="utf-8") as file:
                json.dump(self._results(), file, indent=1)
            if options.plot and "matplotlib" not in self._environment.missing:
                command = [self._environment.python, "-m", "benchmarks.plot", path, options.plot]
                subprocess.run(command, check=True, cwd=ROOT)

    def _results(self):
        return {
            "machine": self._machine(),
            "scenarios": [
                {
                    "name": name,
                    "title": SCENARIOS[name].title,
                    "cpu": {x: report.typical(t) for x, t in results.items() if report.sound(t)},
                    "turns": {x: [asdict(turn) for turn in t] for x, t in results.items()},
                }
                for name, results in self._everything.items()
            ],
            "growth": {name: found for name, found in self._growth.items() if name != "worker"},
        }


def _cores(numbers):
    return " and ".join(map(str, numbers))


def _print(lines):
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    main()
