"""Whether a subject takes a place that is not its own: pairs, drawn with the first of the two bound and no more."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from ...world.scenes import WorldScenes
from ..arms import Arm, pictures
from ..cases import fill, pictures_of, read_picture
from ..report import Scores
from .cases import WorldCase, seen_by
from .measures import COLOURLESS, WorldMeasures
from .nets import as_seen
from .oracles import CEILING, drawn
from .outcome import FIRST, MIXED

TWICE = "oracle: the subject twice"
MARKER = "<|subj|>"


def leaks(
    scenes: WorldScenes,
    cases: Sequence[WorldCase],
    measures: WorldMeasures,
    arms: Sequence[Arm],
    real: Mapping[str, Path],
    out: Path,
    truth: str,
) -> dict[str, Scores]:
    """Scores of oracles and arms in the pairs that are drawn in colour.

    `leak`: two in the picture are likest to the bound subject, of all candidates. `leak, in part`: one is, and another
    is likest to a mixture of the two. `leak, bound`: at least one is. real: the world's own pictures of both, in which
    nothing leaks; the subject drawn twice is all that can. truth: what the oracle's pictures depend on.
    """
    pairs = [case for case in cases if len(case.subjects) == 2 and case.plan.look not in COLOURLESS]
    asked = [first_alone(case) for case in pairs]
    folder = out / "leak" / TWICE.replace(": ", " ")
    fill(folder, asked, lambda part: [twice(scenes, case) for case in part], f"{TWICE}, {truth}", TWICE)
    files = {CEILING: real, TWICE: pictures_of(folder, asked)}
    files |= {arm.name: pictures(arm, seen_by(arm, asked), out / "leak").files for arm in arms}
    return {name: measured(measures, pairs, found) for name, found in files.items()}


def first_alone(case: WorldCase) -> WorldCase:
    """The same prompt with only the first subject bound to its word."""
    first, _, second = case.prompt.rpartition(MARKER)
    return dataclasses.replace(case, prompt=first + second, references=case.references[:1], masks=case.masks[:1])


def twice(scenes: WorldScenes, case: WorldCase) -> Tensor:
    """The scene with the first subject in the second's place too, (3, H, W) in [0, 1]."""
    one, other = case.plan.subjects
    again = dataclasses.replace(other, identity=one.identity, sprite=one.sprite, hue=one.hue)
    return drawn(scenes, dataclasses.replace(case.plan, subjects=(one, again)))


def measured(measures: WorldMeasures, pairs: Sequence[WorldCase], files: Mapping[str, Path]) -> Scores:
    """The three measures of pictures of these pairs, by case."""
    found: dict[str, dict[str, float]] = {"leak": {}, "leak, in part": {}, "leak, bound": {}}
    for case in pairs:
        picture = as_seen([read_picture(files[case.id])])
        shown = measures.shown(case, picture[0], measures.nets.find(picture)[0])
        bound = shown.count(FIRST)
        found["leak"][case.id] = float(bound > 1)
        found["leak, in part"][case.id] = float(bound == 1 and any(one in MIXED for one in shown))
        found["leak, bound"][case.id] = float(bound > 0)
    return found
