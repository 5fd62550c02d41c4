"""The reference of the settings is made from the settings."""

import runpy
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_reference_is_current():
    made = runpy.run_path(str(ROOT / "tools" / "settings_reference.py"))["reference"]()
    assert made == (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8"), (
        "run python tools/settings_reference.py"
    )
