"""The stages: what a picture shows, in words; the nouns among these; where they are; their outlines; whose faces.

A stage is called with the picture (RGB) and what was `Found` so far, and returns what is found now. Its class is made
with the folder of its model, or without anything where it is named as `package.module:Class`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ...errors import MMDiffError
from ...named import named
from ..found import Found

Stage = Callable[[Image.Image, Found], Found]

STAGES = {
    "caption": "mmdiff_core.annotation.stages.caption:Caption",
    "words": "mmdiff_core.annotation.stages.words:Words",
    "boxes": "mmdiff_core.annotation.stages.boxes:Boxes",
    "masks": "mmdiff_core.annotation.stages.masks:Masks",
    "faces": "mmdiff_core.annotation.stages.faces:Faces",
}
"""In the order in which they are run."""


class Planned(NamedTuple):
    """A stage that is to be run. given: a model's folder, or `package.module:Class`."""

    name: str
    given: str

    @property
    def source(self) -> str:
        """What makes its results: other results are made anew."""
        return Path(self.given).name if Path(self.given).is_dir() else self.given

    def open(self) -> Stage:
        """Load it. Raises MMDiffError where that is no folder, no class, or a folder of another kind of model."""
        option = f"--{self.name}"
        if Path(self.given).is_dir():
            return named(self.name, STAGES, option)(Path(self.given))
        if ":" not in self.given:
            raise MMDiffError(
                f"{option}: there is no folder {self.given}. Name the folder of a model, or package.module:Class."
            )
        return named(self.given, {}, option)()
