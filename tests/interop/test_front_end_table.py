"""docs/reference/front-ends.md says what a run over every front end gives."""

import pytest
from matrix import CHECKS, PAGE, ROWS, page, row

LINES = PAGE.read_text("utf-8").splitlines()
REMEDY = "python tools/front_end_table.py writes the page anew"

#: A front end may see that the connection broke before the data in front of it, or
#: after it has passed that on: that is chance, and the page has the worse of the two.
CUT = [*CHECKS].index("cut answer") + 4
CHANCE = " length needed (10) "


@pytest.mark.parametrize("way", ROWS, ids=str)
def test_row(servers, way):
    measured = row(servers, way).split("|")
    (kept,) = [cells for cells in (line.split("|") for line in LINES) if cells[:4] == measured[:4]]
    if kept[CUT] == CHANCE:
        assert measured[CUT] in (CHANCE, " ✓ ")
        measured[CUT] = CHANCE
    assert kept == measured, REMEDY


def test_the_rest_of_the_page():
    start = next(number for number, line in enumerate(LINES) if line.startswith("| ---")) + 1
    assert "\n".join(LINES) + "\n" == page(LINES[start : start + len(ROWS)]), REMEDY
