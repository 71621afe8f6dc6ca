"""The procedural world as cases: what is to be drawn, and the truth of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ...world.scenes import Placed, Plan, WorldScenes
from ..arms import Arm
from ..cases import Case


@dataclass(frozen=True)
class WorldCase(Case):
    """plan: the scene as the world would draw it. masks: (P, P) in [0, 1] of each reference's subject."""

    plan: Plan
    masks: tuple[Tensor, ...]

    @property
    def masked(self) -> WorldCase:
        """The same with references (4, P, P), opaque where their subjects are."""
        both = zip(self.references, self.masks, strict=True)
        return replace(self, references=tuple(torch.cat((reference, mask[None])) for reference, mask in both))


def world_cases(scenes: WorldScenes, number: int) -> list[WorldCase]:
    """The first `number` scenes of a seeded list."""
    cases = []
    for index in range(number):
        item, plan = scenes[index], scenes.plan(index)
        prompt = item["caption"]
        for _, end in reversed(item["entities"]):
            prompt = f"{prompt[:end]}<|subj|>{prompt[end:]}"
        cases.append(
            WorldCase(
                id=f"{index:04d}",
                prompt=prompt,
                references=tuple(item["references"]),
                subjects=tuple(f"{placed.identity}" for placed in plan.subjects),
                seed=index,
                plan=plan,
                masks=tuple(
                    torch.from_numpy(np.array(photo.getchannel("A"), np.float32) / 255) for photo in scenes.photos(plan)
                ),
            )
        )
    return cases


def seen_by(arm: Arm, cases: Sequence[WorldCase]) -> Sequence[WorldCase]:
    """The cases as an arm is given them."""
    return [case.masked for case in cases] if arm.masked else cases


def drawing(scenes: WorldScenes, placed: Placed) -> Tensor:
    """What a subject's reference shows, without the photo's variation: (4, h, w) straight RGBA in [0, 1]."""
    others = [sprite for sprite in placed.identity.renditions if sprite != placed.sprite]
    return individual(scenes, others[0] if others else placed.sprite, placed.hue)


def individual(scenes: WorldScenes, sprite: int, hue: float) -> Tensor:
    """A sprite in its colours, (4, h, w) straight RGBA in [0, 1]."""
    return torch.from_numpy(np.asarray(scenes.individual(sprite, hue), np.float32) / 255).movedim(-1, 0)
