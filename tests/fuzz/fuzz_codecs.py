"""Coverage-guided fuzzing of every target, one after the other (``make fuzz``).

    fuzz_codecs.py [--keep] [TARGET ...]    FUZZ_SECONDS each (60); prints a table
    fuzz_codecs.py --replay TARGET FILE     one input again, for its traceback

atheris (libFuzzer) runs each target in a process of its own, from the vectors and the
kept corpus on.  An input that breaks a property or takes more than HANG seconds is
written to FUZZ_FINDINGS (fuzz-findings) and the exit code is 1.  ``--keep`` adds what
reached something new to the kept corpus.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from time import monotonic

import fuzz_corpus

SECONDS = float(os.environ.get("FUZZ_SECONDS", "60"))
FINDINGS = Path(os.environ.get("FUZZ_FINDINGS", "fuzz-findings"))
#: Nothing here takes a tenth of a second on an idle machine.
HANG = 20
LONGEST = 4096
MOST_MEGABYTES = 1500
#: What is watched for new coverage.
WATCHED = ["protocols", "gateway.environ", "gateway.trust"]

_EDGES = re.compile(r"cov: (\d+) ft: (\d+)")
_INPUTS = re.compile(r"stat::number_of_executed_units: (\d+)")
_PULSE = re.compile(r"^#(\d+)", re.MULTILINE)


@dataclass
class Result:
    """What became of one target."""

    target: str
    inputs: int = 0
    crashes: int = 0
    hangs: int = 0
    edges: int = 0
    seconds: float = 0.0
    kept: int = 0

    def row(self) -> str:
        return (
            f"| {self.target} | {self.inputs} | {self.crashes} | {self.hangs} | {self.edges} "
            f"| {self.kept} | {self.seconds:.0f} |"
        )


HEADER = (
    "| target | inputs | crashes | hangs | edges reached | corpus | seconds |\n"
    "|---|---:|---:|---:|---:|---:|---:|"
)


def run_child(target: str, *words: str) -> str:
    """Let libFuzzer work on ``target``; what it said."""
    command = [sys.executable, __file__, "--child", target, *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.stdout.decode("utf-8", "replace")


def fill(folder: Path, inputs: list[bytes]) -> Path:
    folder.mkdir()
    for data in inputs:
        (folder / sha1(data).hexdigest()).write_bytes(data)
    return folder


def fuzz(target: str, *, keeps: bool) -> Result:
    from fuzz_targets import TARGETS

    result = Result(target)
    seeds = [seed for seed in TARGETS[target][1]() if len(seed) <= LONGEST]
    FINDINGS.mkdir(exist_ok=True)
    before = set(FINDINGS.iterdir())
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        base = fill(place / "seeds", seeds)
        found = fill(place / "found", fuzz_corpus.kept(target))
        limits = [f"-timeout={HANG}", f"-rss_limit_mb={MOST_MEGABYTES}", f"-max_len={LONGEST}"]
        limits.append(f"-artifact_prefix={FINDINGS / target}-")
        begun = monotonic()
        said = run_child(
            target, f"-max_total_time={SECONDS:.0f}", "-print_final_stats=1", *limits,
            str(found), str(base),
        )  # fmt: skip
        result.seconds = monotonic() - begun
        if keeps:
            new = [path.read_bytes() for path in found.iterdir()]
            fuzz_corpus.keep(target, fuzz_corpus.reaching(TARGETS[target][0], seeds, new))
    result.kept = len(seeds) + len(fuzz_corpus.kept(target))
    counts = _INPUTS.findall(said) or _PULSE.findall(said) or ["0"]
    result.inputs = int(counts[-1])
    edges = _EDGES.findall(said)
    result.edges = int(edges[-1][0]) if edges else 0
    for path in set(FINDINGS.iterdir()) - before:
        result.hangs += "-timeout-" in path.name or "-slow-unit-" in path.name
        result.crashes += "-crash-" in path.name or "-oom-" in path.name
        print(f"finding: {path}", flush=True)
    if not edges or result.crashes or result.hangs:
        print(said[-6000:], flush=True)
        result.crashes += not (edges or result.crashes or result.hangs)
    return result


def child(target: str, words: list[str]) -> None:
    """The process in which libFuzzer runs."""
    import atheris

    with atheris.instrument_imports(include=WATCHED):
        from fuzz_targets import TARGETS
    atheris.Setup([sys.argv[0], *words], TARGETS[target][0])
    atheris.Fuzz()


def main(words: list[str]) -> int:
    if words[:1] == ["--child"]:
        child(words[1], words[2:])
    from fuzz_targets import TARGETS

    if words[:1] == ["--replay"]:
        TARGETS[words[1]][0](Path(words[2]).read_bytes())
        print("nothing is wrong with it")
        return 0
    keeps = "--keep" in words
    results = []
    for target in [word for word in words if word != "--keep"] or TARGETS:
        results.append(fuzz(target, keeps=keeps))
        print(results[-1].row(), flush=True)
    print("\n" + HEADER, *(result.row() for result in results), sep="\n")
    return int(any(result.crashes or result.hangs for result in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
