"""Annotating in this process, with stages that know the truth."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def pictures(tmp_path):
    """An empty folder for pictures."""
    (tmp_path / "pictures").mkdir()
    return tmp_path / "pictures"


@pytest.fixture
def made(pictures, tmp_path):
    """Annotate the folder of pictures; returns what was written. Records are in `tmp_path / out / records`."""
    import truth

    from mmdiff_core.annotation.annotate import annotate
    from mmdiff_core.annotation.records import Rules

    truth.CALLS.clear()
    told = []

    def run(*stages, out="out", **rules):
        truth.CALLS.clear()
        told.clear()
        rules = Rules(**{"smallest": 32, **rules})
        return annotate(pictures, tmp_path / out, truth.plan(*stages), rules, told.append)

    run.told = told
    return run
