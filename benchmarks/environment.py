"""A throw-away environment: the product as its users install it, and the peers from PyPI."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager

from benchmarks.process import ROOT

#: Peer's package, the program without which it cannot be built, and Debian's name for that.
_NEEDS = {
    "uwsgi": ("cc", "gcc"),
    "bjoern": ("cc", "gcc"),
    "fastwsgi": ("cc", "gcc"),
}
#: What is no part of the package.
_LEFT_OUT = shutil.ignore_patterns(
    ".*", "build", "*.egg-info", "*.so", "__pycache__", "tests", "benchmarks", "docs"
)


class Environment:
    """``bin`` of a virtual environment, and why which package is not in it."""

    def __init__(self, folder):
        self.bin = os.path.join(folder, "bin")
        self.missing = {}

    def program(self, name):
        return os.path.join(self.bin, name)

    @property
    def python(self):
        return self.program("python")

    def install(self, package, *more):
        """Whether pip could; else ``missing`` has the reason."""
        program, debian = _NEEDS.get(package, (None, None))
        if program and not shutil.which(program):
            self.missing[package] = f"needs a C compiler (apt-get install {debian})"
            return False
        sys.stderr.write(f"installing {package}\n")
        pip = [self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        done = subprocess.run([*pip, package, *more], check=False, capture_output=True, text=True)
        if done.returncode:
            self.missing[package] = _reason(package, done.stderr)
        return not done.returncode

    def versions(self):
        """Name to version of everything that is installed."""
        pip = [self.python, "-m", "pip", "list", "--disable-pip-version-check", "--format=freeze"]
        lines = subprocess.run(pip, check=True, capture_output=True, text=True).stdout.split()
        return dict(line.lower().split("==", 1) for line in lines if "==" in line)


@contextmanager
def environment(packages, folder=None):
    """Yield an environment with the product and ``packages``; ``folder`` is used again and kept."""
    with tempfile.TemporaryDirectory(prefix="bench-env-") as throw_away:
        found = Environment(folder or throw_away)
        if not os.path.exists(found.python):
            subprocess.run([sys.executable, "-m", "venv", folder or throw_away], check=True)
        _install_product(found)
        for package in packages:
            found.install(package)
        yield found


def _install_product(found):
    """From a copy, so that nothing is built in the repository and nothing stale is installed."""
    with tempfile.TemporaryDirectory(prefix="bench-source-") as folder:
        source = os.path.join(folder, "gateway")
        shutil.copytree(ROOT, source, ignore=_LEFT_OUT)
        if not found.install(source, "--force-reinstall"):
            raise SystemExit(f"gateway cannot be installed: {found.missing[source]}")


def _reason(package, text):
    if "ev.h" in text:
        return "needs the headers of libev (apt-get install libev-dev)"
    if "Python.h" in text:
        return "needs Python's headers (apt-get install python3-dev)"
    errors = [line for line in text.splitlines() if "error:" in line.lower()]
    return f"pip install {package} fails: {(errors or [text.strip()[-200:]])[0].strip()}"
