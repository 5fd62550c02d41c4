"""Writes docs/reference/front-ends.md: python tools/front_end_table.py.

All front ends that the table has must be installed (make system-packages).
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "interop"))

from front_ends import running_servers
from matrix import PAGE, ROWS, page, row


def write() -> None:
    """Run every check over every front end and write down what came out."""
    with running_servers() as servers:
        rows = [row(servers, way) for way in ROWS]
    PAGE.write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    write()
