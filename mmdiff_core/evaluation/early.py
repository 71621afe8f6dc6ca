"""Early figures of a run that still trains: few pictures, measured as `evaluate` measures many.

A training run names one of these as `evaluate.kind`, and draws with what it has learned so far. Figures of so few
pictures tell a run that learns from one that does not; arms are compared by `evaluate`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .cases import drawn_by, fill, pictures_of
from .photos import benchmark as photos
from .report import Scores
from .world import benchmark as world
from .world.measures import MEASURES, WorldMeasures
from .world.nets import MetricNets

if TYPE_CHECKING:
    from ..drawing.drawer import Drawer


class World:
    """The measures of `evaluate world` for scenes that the run does not train on."""

    def __init__(self, atlas: str, nets: str, split: str = "val", number: int = 32) -> None:
        """Files of the world and of its metric networks; split: of the atlas; number: of scenes.

        Raises MMDiffError where a file is missing, or the networks know the split.
        """
        options = world.Options(Path(atlas), Path(), (), Path(nets), split=split, number=number)
        scenes, self.cases = world.read_cases(options)
        networks = MetricNets.load(options.nets)
        world.refuse_known_names(networks, scenes, options)
        self.measures = WorldMeasures(scenes, self.cases, networks, MEASURES)

    def __call__(self, drawer: Drawer, folder: Path) -> dict[str, float]:
        """The mean of each measure, of pictures that are drawn into a folder."""
        fill(folder, self.cases, drawn_by(drawer), drawer.source, drawer.about)
        return _means(self.measures.measure(pictures_of(folder, self.cases)))


class Photos:
    """The measures of `evaluate dreambench` for some of its subjects."""

    def __init__(
        self,
        dataset: str,
        clip: str = "",
        dino: str = "",
        faces: str = "",
        subjects: Sequence[str] = (),
        pairs: bool = False,
        images: int = 1,
    ) -> None:
        """dataset: DreamBench's folder. clip, dino, faces: folders of the models, those that are there. subjects: those
        to use, or all. pairs: two subjects a picture. images: of each prompt.

        Raises MMDiffError where no model is named, or a folder is something else.
        """
        named = {"clip": clip, "dino": dino, "faces": faces}
        models = {name: Path(path) for name, path in named.items() if path}
        options = photos.Options(Path(dataset), Path(), (), models, (), subjects, pairs, images)
        wanted = photos.wanted_measures(options)
        bench, self.cases = photos.read_cases(options)
        self.measures, _ = photos.open_measures(wanted, models, bench)

    def __call__(self, drawer: Drawer, folder: Path) -> dict[str, float]:
        """The mean of each measure, of pictures that are drawn into a folder."""
        fill(folder, self.cases, drawn_by(drawer), drawer.source, drawer.about)
        files = pictures_of(folder, self.cases)
        return _means({name: measure(self.cases, files) for name, measure in self.measures.items()})


def _means(scores: Scores) -> dict[str, float]:
    return {name: sum(values.values()) / len(values) for name, values in scores.items() if values}
