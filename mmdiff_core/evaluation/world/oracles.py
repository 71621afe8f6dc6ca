"""Arms that need no network: what a perfect or a naive program would draw. They bound every measure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ...chance import stream
from ...world.atlas import Identity
from ...world.backgrounds import background
from ...world.scenes import RELATIONS, Placed, Plan, WorldScenes
from ..cases import Case
from .cases import WorldCase

CEILING, FLOOR = "oracle: real scene", "oracle: no reference"


def oracles(scenes: WorldScenes, cases: Sequence[WorldCase]) -> dict[str, Callable[[Sequence[Case]], list[Tensor]]]:
    """Name -> what draws."""
    following = dict(zip([case.id for case in cases], [*cases[1:], cases[0]], strict=True))

    def real(part: Sequence[WorldCase]) -> list[Tensor]:
        return [drawn(scenes, case.plan) for case in part]

    def no_reference(part: Sequence[WorldCase]) -> list[Tensor]:
        """The right word, another individual: the best that text alone can do."""
        return [
            _with(scenes, case.plan, [_namesake(scenes, one, case.seed) for one in case.plan.subjects]) for case in part
        ]

    def shuffled(part: Sequence[WorldCase]) -> list[Tensor]:
        """The right scene with the subjects of the next case."""
        return [
            _with(scenes, case.plan, [(one.identity, one.sprite, one.hue) for one in _other(case, following[case.id])])
            for case in part
        ]

    def pasted(part: Sequence[WorldCase]) -> list[Tensor]:
        return [_pasted(case, scenes.resolution) for case in part]

    return {CEILING: real, "oracle: photo pasted": pasted, FLOOR: no_reference, "oracle: shuffled": shuffled}


def drawn(scenes: WorldScenes, plan: Plan) -> Tensor:
    """(3, H, W) in [0, 1], the scene as the world draws it."""
    return torch.from_numpy(scenes.draw(plan)[0]).movedim(-1, 0).float() / 255


def _with(scenes: WorldScenes, plan: Plan, subjects: Sequence[tuple[Identity, int, float]]) -> Tensor:
    """The plan with other individuals in the same places."""
    placed = [
        dataclasses.replace(one, identity=identity, sprite=sprite, hue=hue)
        for one, (identity, sprite, hue) in zip(plan.subjects, subjects, strict=True)
    ]
    return drawn(scenes, dataclasses.replace(plan, subjects=tuple(placed)))


def _namesake(scenes: WorldScenes, placed: Placed, seed: int) -> tuple[Identity, int, float]:
    """Another individual of the name; where there is none, of the category."""
    own = placed.identity
    strangers = [one for one in scenes.identities if one != own]
    named = [one for one in strangers if one.name == own.name]
    alike = named or [one for one in strangers if one.category == own.category] or strangers
    identity = alike[seed % len(alike)]
    return identity, identity.renditions[0], 0.0


def _other(case: WorldCase, following: WorldCase) -> list[Placed]:
    """As many subjects of the next case as this one has."""
    others = following.plan.subjects
    return [others[number % len(others)] for number in range(len(case.plan.subjects))]


def _pasted(case: WorldCase, side: int) -> Tensor:
    """The references as they are, squares on the right background, in the right order; no look, no drawing."""
    ground = background(case.plan.scene, side, stream("pasted", case.seed))
    picture = torch.from_numpy(np.array(ground)).movedim(-1, 0).float() / 255
    size = side // 2 if len(case.references) == 1 else round(side * 0.44)
    for reference, (x, y) in zip(case.references, _spots(case.plan.relation), strict=False):
        left, top = round(x * side - size / 2), round(y * side - size / 2)
        small = interpolate(reference[None], (size, size), mode="bilinear", antialias=True)[0].clamp(0, 1)
        picture[:, top : top + size, left : left + size] = small
    return picture


def _spots(relation: str) -> list[tuple[float, float]]:
    """Middles of the subjects."""
    if not relation:
        return [(0.5, 0.6)]
    first, second = {"to the right of": (0.75, 0.25), "above": (0.25, 0.75), "below": (0.75, 0.25)}.get(
        relation, (0.25, 0.75)
    )
    upright = relation in RELATIONS[2:]
    return [(0.5, at) if upright else (at, 0.6) for at in (first, second)]
