"""docs/reference/front-ends.md says what a run over every front end gives."""

import re
from pathlib import Path

import pytest
from matrix import CHECKS, PAGE, ROWS, page, row
from surprises import SURPRISES

LINES = PAGE.read_text("utf-8").splitlines()
REMEDY = "python tools/front_end_table.py writes the page anew"


@pytest.mark.parametrize("way", ROWS, ids=str)
def test_row(servers, way):
    measured = row(servers, way)
    kept = [line for line in LINES if line.split("|")[:4] == measured.split("|")[:4]]
    assert kept == [measured], REMEDY


def test_the_rest_of_the_page():
    start = next(number for number, line in enumerate(LINES) if line.startswith("| ---")) + 1
    assert "\n".join(LINES) + "\n" == page(LINES[start : start + len(ROWS)]), REMEDY


def test_each_surprise_has_its_tests():
    for test in (test for _, _, tests in SURPRISES for test in tests):
        file, _, function = test.rpartition("::")
        files = Path(__file__).parents[1].rglob(file or "test_*.py")
        known = [re.search(rf"(?m)^def {function}\(", path.read_text()) for path in files]
        assert test in CHECKS or any(known), test
