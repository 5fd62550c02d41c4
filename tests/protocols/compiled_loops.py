"""What the tests of the compiled loops share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest

from protocols import speed

compiled = pytest.mark.skipif(
    (not speed.COMPILED and "CI" not in os.environ) or os.environ.get("GATEWAY_PURE") == "1",
    reason="the compiled loops are not built, or not wanted",
)


def blocks_left(ask: Callable[[], object], times: int = 1000) -> int:
    """How many objects a thousand calls leave beyond those that ten calls leave."""
    for _ in range(10):
        ask()
    before = sys.getallocatedblocks()
    for _ in range(times):
        ask()
    return sys.getallocatedblocks() - before
