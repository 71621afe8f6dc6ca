"""What buckets do, measured: pictures that are cut around their subjects, and a run of the whole on a few."""

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("diffusers")

sys.path.append(str(Path(__file__).parent / "evaluation"))

from tiny_world import make_atlas  # noqa: E402

from mmdiff_core.data.validate import validate  # noqa: E402
from mmdiff_core.world.atlas import Atlas  # noqa: E402
from mmdiff_core.world.scenes import WorldScenes  # noqa: E402
from recipes.buckets import measure  # noqa: E402
from recipes.buckets.pictures import cut, write_records  # noqa: E402


@pytest.fixture
def work(tmp_path) -> Path:
    """A world of a few shapes, some of them to train on."""
    found = Atlas.load(make_atlas(tmp_path / "shapes.npz"))
    sprites = [sprite._replace(split={"test": "train"}.get(sprite.split, sprite.split)) for sprite in found.sprites]
    Atlas.of(sprites, [found.picture(index) for index in range(len(sprites))]).save(tmp_path / "atlas.npz")
    return tmp_path


@pytest.mark.parametrize(("width", "height"), [(100, 30), (30, 100), (90, 80), (128, 128), (1, 1)])
def test_a_cut_holds_all_subjects(width, height):
    """As wide as the scene where they are wider than high, at most twice as wide as high."""
    random = np.random.default_rng(0)
    for _ in range(50):
        left, top = int(random.integers(129 - width)), int(random.integers(129 - height))
        masks = np.zeros((2, 128, 128), np.float32)
        masks[0, top, left], masks[1, top + height - 1, left + width - 1] = 1, 0.01
        part = masks[(slice(None), *cut(masks, random))]
        assert part.any((1, 2)).all()
        sides = part.shape[1:]
        assert max(sides) == 128 and min(sides) >= 64 and (sides[0] > sides[1]) <= (height > width)


def test_records_can_be_trained_on(work):
    scenes = WorldScenes(work / "atlas.npz", 64, 16, 0, pairs=0.5, settled=True)
    write_records(scenes, 12, work / "pictures")
    assert validate(work / "pictures") == (12, [])
    sides = {np.load(path).shape for path in (work / "pictures").glob("*.npy")}
    assert all(max(side) == 64 for side in sides) and len(sides) > 6


def test_both_ways_are_measured(work, monkeypatch, capsys):
    """A step of each, on a few pictures."""
    few = {"TRAINED": 6, "HELD": 4, "SEEDS": 1, "STEPS": 1, "BATCH": 2, "LOOKS": 4}
    for name, value in few.items():
        monkeypatch.setattr(measure, name, value)
    measure.main(work)
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[:5]] == [
        "| held-out pictures in buckets",
        "| before",
        "| buckets",
        "| squares",
        "| buckets less squares",
    ]
    assert len(rows) == 12 and all("[" in cell for row in rows[1:6] for cell in row[1:])
