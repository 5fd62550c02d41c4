"""What pyproject.toml cannot say: a compiled module that may be missing."""

from setuptools import Extension, setup

setup(ext_modules=[Extension("protocols._speed", ["protocols/_speed.c"], optional=True)])
