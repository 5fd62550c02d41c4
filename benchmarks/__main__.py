"""Codecs alone, a head byte by byte, and the server beside some peers: ``python -m benchmarks``.

``python -m benchmarks.compare`` compares all the servers in all the scenarios.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib.util import find_spec

import protocols
from benchmarks import codec, compare, head
from benchmarks.environment import environment
from benchmarks.process import ROOT

_ALONE = {"codec": codec, "head": head}
#: Parts that are scenarios of the comparison.
_COMPARED = {
    "http": ("hello", "pool"),
    "fastcgi": ("nginx-fastcgi-unix",),
    "scgi": ("nginx-scgi-unix",),
    "idle": ("idle-1000",),
}
_PEERS = "gateway,gateway-pure,granian,gunicorn-sync,gunicorn-gthread,flup"


def main():
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each server (3)")
    parser.add_argument(
        "--requests", type=int, default=30_000, help="of each round of a codec alone (30,000)"
    )
    parser.add_argument("--tries", type=int, default=1, help="as of benchmarks.compare")
    parser.add_argument(
        "--only", choices=(*_ALONE, *_COMPARED), action="append", help="may be repeated"
    )
    options = parser.parse_args()
    if min(options.rounds, options.requests, options.tries) < 1:
        parser.error("--rounds, --requests and --tries are at least 1")
    only = options.only or (*_ALONE, *_COMPARED)
    alone = [part for part in only if part in _ALONE]
    if alone and not (protocols.names() and all(map(find_spec, ("click", "httptools")))):
        with environment([]) as found:
            return subprocess.call([found.python, "-m", "benchmarks", *sys.argv[1:]], cwd=ROOT)
    for part in alone:
        for line in _ALONE[part].run(options.rounds, options.requests):
            print(line, flush=True)
    scenarios = [name for part in only for name in _COMPARED.get(part, ())]
    if scenarios:
        numbers = [f"--rounds={options.rounds}", f"--tries={options.tries}"]
        compare.main([f"--only={','.join(scenarios)}", f"--peers={_PEERS}", *numbers])
    return 0


if __name__ == "__main__":
    sys.exit(main())
