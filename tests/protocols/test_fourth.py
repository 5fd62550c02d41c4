"""A protocol that another package brings runs through the same suites, unchanged.

``fourth/`` is that package.  Only its metadata is made here, as an installer would from
its pyproject.toml, so that its entry point is seen without the network.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from codec_harness import vectors

import protocols

HERE = Path(__file__).parent
FOURTH = HERE / "fourth"
SUITES = ["test_vectors.py", "test_fuzz.py", "test_interface.py", "test_replies.py", "test_cost.py"]


def installed(place: Path) -> dict[str, str]:
    """An environment in which the package of ``fourth/`` is installed."""
    project = tomllib.loads((FOURTH / "pyproject.toml").read_text("utf-8"))["project"]
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    info = place / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    path = [str(place), str(FOURTH), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))}


def pytest_run(env: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "--rootdir"]
    command += [str(HERE.parent.parent), *options, *(str(HERE / suite) for suite in SUITES)]
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=110, check=False
    )


if "spartan" in protocols.names():  # the run inside test_same_suites
    pytest.skip("the fourth protocol is installed already", allow_module_level=True)


def test_same_suites(tmp_path):
    env = installed(tmp_path) | {"GATEWAY_PROTOCOL_VECTORS": str(FOURTH / "vectors")}
    run = pytest_run(env, "-k", "spartan")
    assert run.returncode == 0, run.stdout + run.stderr
    passed = int(run.stdout.split(" passed")[0].split()[-1])
    assert passed > len(vectors("scgi").replies), run.stdout
    for suite in SUITES:
        assert f"{suite}::" in run.stdout, f"{suite} has no test of the new protocol"


def test_without_vectors_it_says_so(tmp_path):
    run = pytest_run(installed(tmp_path), "-k", "spartan and test_has_vectors")
    assert run.returncode == 1
    assert "the protocol 'spartan' is installed but has no vectors" in run.stdout
    assert "1 failed" in run.stdout


def test_what_is_no_codec_is_refused(tmp_path):
    env = installed(tmp_path)
    points = next(tmp_path.glob("*.dist-info")) / "entry_points.txt"
    points.write_text(points.read_text("utf-8").replace("SpartanCodec", "Request"))
    code = "import protocols; protocols.codec_class('spartan')"
    run = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    assert "TypeError: the protocol 'spartan' is no Codec: gateway_spartan:Request" in run.stderr
