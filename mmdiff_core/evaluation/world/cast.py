"""`evaluate cast`: how often what is said of a picture's cast is so, in scenes whose truth is known."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...cast import Kind, Likeness, by_pictures, judge, likeness
from ...drawing.drawer import load
from ...photo import prepare_photos
from ...subject import Vision
from ...world.atlas import Atlas
from ...world.scenes import WorldScenes
from .cases import drawing, world_cases
from .spoilt import spoil

SEED = 2
PAIRS = 0.7


@dataclass(frozen=True)
class Options:
    """atlas: the world's file. model: a folder that draws, whose vision encoder looks and whose words act. thresholds:
    those to compare. split: of the atlas. number: of pictures."""

    atlas: Path
    model: Path
    thresholds: Sequence[float]
    split: str = "test"
    number: int = 128


class Sight(NamedTuple):
    """A picture (3, H, W) with whoever is looked for in it, where each word acted, and the truth."""

    picture: Tensor
    cast: list[Likeness]
    acted: list[Tensor]
    truth: tuple[Kind, ...]


def run(options: Options) -> str:
    """Look at all pictures with every threshold. Returns a report with the table of the best one."""
    drawer = load(options.model)
    vision, photo = drawer.adapter.towers, drawer.adapter.base.photo_size
    scenes = WorldScenes(
        Atlas.load(options.atlas),
        drawer.settings.resolution,
        photo,
        SEED,
        options.split,
        pairs=PAIRS,
        looks=0,
        settled=True,
    )
    sights, began = [], time.perf_counter()
    for case, shown, truth in spoil(world_cases(scenes, options.number)):
        cut_out = [drawing(scenes, placed).movedim(0, -1) for placed in case.plan.subjects]
        photos = torch.cat([prepare_photos(one[None], photo) for one in cut_out])
        picture = torch.from_numpy(scenes.draw(shown)[0]).movedim(-1, 0).float() / 255
        with torch.no_grad():
            acted = drawer.maps(picture, case.prompt, photos, case.seed)["text"]
            cast = [likeness((one[None] * 255).round().byte(), vision) for one in photos]
        sights.append(Sight(picture, cast, list(acted), truth))
    lines = [
        f"{len(sights)} pictures of {options.split}, atlas {scenes.atlas.digest()}, by {drawer.about}",
        "",
        "| threshold | right, mean of the kinds | right, of all subjects | good pictures pass | spoilt pictures pass |",
        "|---|---|---|---|---|",
    ]
    drawn, tables = time.perf_counter(), {}
    for threshold in options.thresholds:
        table, passed = _look(sights, vision, photo, threshold)
        tables[threshold] = table
        (spoilt_refused, spoilt_passed), (good_refused, good_passed) = passed.tolist()
        lines.append(
            f"| {threshold:.2f} | {_balanced(table):.3f} | {table.trace() / table.sum():.3f} "
            f"| {good_passed} of {good_passed + good_refused} | {spoilt_passed} of {spoilt_passed + spoilt_refused} |"
        )
    looked = (time.perf_counter() - drawn) / len(sights) / len(tables)
    best = max(tables, key=lambda threshold: _balanced(tables[threshold]))
    lines += ["", f"With {best:.2f}, each subject by what is so (rows) and what is said:", ""]
    lines += [_row("", *(kind.value for kind in Kind)), "|---" * (len(Kind) + 1) + "|"]
    lines += [_row(kind.value, *map(str, row)) for kind, row in zip(Kind, tables[best].tolist(), strict=True)]
    before = (drawn - began) / len(sights)
    lines += ["", f"A picture takes {looked:.3f} s to look at; drawing it, its maps and its subjects {before:.3f} s."]
    return "\n".join(lines)


def _look(sights: Sequence[Sight], vision: Vision, photo: int, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Subjects by truth and by what is said, (kinds, kinds); pictures by whether they are good and whether they pass,
    (2, 2)."""
    kinds = list(Kind)
    table, passed = np.zeros((len(kinds), len(kinds)), int), np.zeros((2, 2), int)
    for picture, cast, acted, truth in sights:
        with torch.no_grad():
            verdicts = judge(by_pictures(picture, cast, acted, vision, photo, threshold), threshold)
        said = [verdict.kind for verdict in verdicts]
        for so, is_said in zip(truth, said, strict=True):
            table[kinds.index(so), kinds.index(is_said)] += 1
        passed[int(set(truth) == {Kind.PRESENT}), int(set(said) == {Kind.PRESENT})] += 1
    return table, passed


def _balanced(table: np.ndarray) -> float:
    """Mean over the kinds that occur of the share that is said right."""
    totals = table.sum(1)
    return float((table.diagonal()[totals > 0] / totals[totals > 0]).mean())


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
