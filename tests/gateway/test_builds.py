"""Which build runs: what is compiled, or the Python that it was made of."""

from __future__ import annotations

import ast
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


def declared(tree: ast.ClassDef) -> set[str]:
    """The attributes of instances that a class gives a type."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.AnnAssign)]
    names = {node.target.attr for node in nodes if isinstance(node.target, ast.Attribute)}
    return names | {
        node.target.id
        for node in tree.body
        if node in nodes and "ClassVar" not in ast.unparse(node.annotation)
    }


def initialised(tree: ast.ClassDef) -> set[str]:
    """What its constructor sets, too."""
    return declared(tree) | {
        node.attr
        for method in tree.body
        if isinstance(method, ast.FunctionDef) and method.name == "__init__"
        for node in ast.walk(method)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }


def test_no_compiled_class_declares_an_attribute_of_its_base_again():
    """mypyc visits it twice when garbage is collected, and what it refers to is taken away."""
    names = (ROOT / "setup.py").read_text().split('"""')[3].split()
    assert "gateway/receiving.py" in names
    classes = {
        node.name: node
        for name in names
        for node in ast.parse((ROOT / name).read_text()).body
        if isinstance(node, ast.ClassDef)
    }
    for tree in classes.values():
        bases = [base.id for base in tree.bases if isinstance(base, ast.Name)]
        while bases:
            base = classes.get(bases.pop())
            if base is not None:
                again = declared(tree) & initialised(base)
                assert not again, f"{tree.name} and {base.name}: {again}"
                bases += [name.id for name in base.bases if isinstance(name, ast.Name)]


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
