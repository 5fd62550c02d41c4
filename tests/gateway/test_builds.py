"""Which build runs: what is compiled, or the Python that it was made of."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import protocols
from gateway.connection import Connection
from protocols.builds import BUILD, COMPILED

ROOT = Path(protocols.__file__).parent.parent
MODULES = ["protocols.model", "protocols.http1", "gateway.connection", "gateway.wsgi"]
CODE = f"""
import importlib, protocols.builds
kinds = {{importlib.import_module(name).__file__.rpartition(".")[2] for name in {MODULES}}}
print(protocols.builds.BUILD, *kinds, sep="|")
"""

compiled = pytest.mark.skipif(not COMPILED, reason=f"this build is {BUILD}")


def runs(folder: Path = ROOT, pure: str = "0") -> str:
    env = {**os.environ, "GATEWAY_PURE": pure, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def tree(tmp_path) -> Path:
    """A source tree like this one."""
    for name in ("protocols", "gateway"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.skipif("CI" not in os.environ, reason="a compiler is promised in CI only")
def test_it_is_built_unless_it_is_not_wanted():
    assert ("pure Python" if os.environ.get("GATEWAY_PURE") == "1" else "compiled") == BUILD


@compiled
def test_what_is_compiled_runs():
    assert runs() == "compiled|so"


@compiled
@pytest.mark.parametrize("name", protocols.names())
def test_no_class_of_a_compiled_codec_is_left_out(name):
    """One that is not compiled between two that are would be passed over."""
    for kind in (*protocols.codec_class(name).__mro__[:-1], *Connection.__mro__[:-1]):
        assert sys.modules[kind.__module__].__file__.endswith(".so"), kind


@compiled
def test_the_environment_leaves_it_out():
    assert runs(pure="1") == "pure Python|py"


@compiled
@pytest.mark.parametrize(
    "name", ["protocols/http1.py", "gateway/wsgi.py", "protocols/_speed.c", "protocols/_pairs.h"]
)
def test_in_a_source_tree_what_is_newer_than_its_compilation_runs(tree, name):
    assert runs(tree) == "compiled|so"
    os.utime(tree / name)
    assert runs(tree) == "pure Python: what is compiled is older than its sources|py"


@compiled
def test_installed_files_have_any_age(tree):
    (tree / "pyproject.toml").unlink()
    os.utime(tree / "protocols/http1.py")
    assert runs(tree) == "compiled|so"


@compiled
def test_nothing_compiled_at_all(tree):
    for path in tree.rglob("*.so"):
        path.unlink()
    assert runs(tree) == "pure Python|py"
