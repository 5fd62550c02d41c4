"""Every suite here runs over the entry points: each installed protocol is picked up."""

from __future__ import annotations

import tempfile

import pytest
from codec_harness import vectors
from hypothesis import configuration, settings

import protocols

# Reproducible and short by default; GATEWAY_FUZZ_SECONDS explores (test_fuzz.py).
settings.register_profile("short", max_examples=600, deadline=None, derandomize=True, database=None)
settings.load_profile("short")
configuration.set_hypothesis_home_dir(tempfile.gettempdir() + "/gateway-hypothesis")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``protocol`` is each installed one; ``case``, ``answer``, ``shape`` each of its vectors."""
    wanted = metafunc.fixturenames
    for fixture, table in (("case", "cases"), ("answer", "replies"), ("shape", "long")):
        if fixture in wanted:
            rows = [
                pytest.param(name, row, id=f"{name}-{getattr(row, 'name', row)}".replace(" ", "-"))
                for name in protocols.names()
                for row in getattr(vectors(name), table)
            ]
            metafunc.parametrize(("protocol", fixture), rows)
            return
    if "protocol" in wanted:
        metafunc.parametrize("protocol", protocols.names())


@pytest.fixture
def codec_class(protocol: str) -> type[protocols.Codec]:
    return protocols.codec_class(protocol)
