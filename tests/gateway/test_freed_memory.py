"""Memory that a body has left is there for the next one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

#: Page faults of each turn, in which four bodies of 1 MB come and go.
CODE = """
import resource
from gateway.linux import keep_freed_memory

def turn():
    bodies = [bytes([n]) * (1 << 20) for n in range(4)]

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

keep_freed_memory()
for _ in range(5):
    turn()
before = faults()
for _ in range(20):
    turn()
print((faults() - before) // 20)
"""


def faults_of_a_turn(**environ: str) -> int:
    if not sys.platform.startswith("linux"):
        pytest.skip("mallopt is of the GNU C library")
    command = [sys.executable, "-c", CODE]
    env = {**os.environ, **environ}
    return int(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)


def test_pages_are_not_fetched_anew_for_each_body():
    assert faults_of_a_turn() < 100


def test_the_environment_has_its_way():
    assert faults_of_a_turn(MALLOC_TRIM_THRESHOLD_="65536") > 500
