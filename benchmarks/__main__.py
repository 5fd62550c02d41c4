"""One command for everything: ``python -m benchmarks``; Markdown on standard output."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import protocols
from benchmarks import codec, head, idle, server
from benchmarks.process import ROOT

#: What must be importable; all of it comes with the extra ``bench``.
_NEEDED = ("click", "flup", "granian", "gunicorn", "httptools")
_PARTS = ("codec", "http", "fastcgi", "scgi", "idle", "head")


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each server (5)")
    parser.add_argument(
        "--requests", type=int, default=30_000, help="wanted in each turn, at most 10 seconds"
    )
    parser.add_argument(
        "--tries", type=int, default=1, help="measure a turn again while the machine is not quiet"
    )
    parser.add_argument("--only", choices=_PARTS, action="append", help="may be repeated")
    options = parser.parse_args()
    if min(options.rounds, options.requests, options.tries) < 1:
        parser.error("--rounds, --requests and --tries are at least 1")
    if protocols.names() and all(find_spec(name) for name in _NEEDED):
        _run(options)
        return 0
    with tempfile.TemporaryDirectory(prefix="bench-venv-") as folder:
        return subprocess.call([_environment(folder), "-m", "benchmarks", *sys.argv[1:]], cwd=ROOT)


def _environment(folder):
    """A throw-away virtual environment with the product and its peers from PyPI."""
    sys.stderr.write("making a virtual environment with the peers from PyPI\n")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    interpreter = os.path.join(folder, "bin", "python")
    install = [interpreter, "-m", "pip", "install", "--quiet", "--editable", f"{ROOT}[bench]"]
    subprocess.run(install, check=True, stdout=sys.stderr)
    return interpreter


def _run(options):
    only = options.only or _PARTS
    front = [key for key in ("fastcgi", "scgi") if key in only]
    if front and not shutil.which("nginx"):
        raise SystemExit("FastCGI and SCGI are measured behind nginx: install nginx")
    _print(_machine())
    if "codec" in only:
        _print(codec.run(options.rounds, options.requests))
    scenarios = [key for key in server.SCENARIOS if key in only]
    if scenarios:
        _print(server.run(options.rounds, options.requests, scenarios, options.tries))
    if "idle" in only:
        _print(idle.run(options.rounds, options.requests))
    if "head" in only:
        _print(head.run(options.rounds, options.requests))


def _print(lines):
    for line in lines:
        print(line, flush=True)


def _machine():
    model = "an unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    versions = ", ".join(f"{x} {metadata.version(x)}" for x in ("granian", "gunicorn", "flup"))
    load = "wrk" if shutil.which("wrk") else "our own client"
    yield (
        f"{len(os.sched_getaffinity(0))} cores of {model}, Linux {platform.release()}, "
        f"Python {platform.python_version()}, {versions}, load by {load}."
    )
    yield ""


if __name__ == "__main__":
    sys.exit(main())
