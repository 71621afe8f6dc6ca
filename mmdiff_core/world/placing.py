"""Where a scene's subjects go and how large they are, and how their references differ: anything, or always the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..data.augment import USUAL, Changes

MARGIN, GAP = 0.02, 0.03
REST = (0.78, 0.95)  # where what stands on the ground touches it
QUARTERS = (0.26, 0.74)  # middles of a settled pair
SETTLED = 0.57  # height of the middle, wherever nothing is above or below
SAID = 0.6  # share of pairs whose caption says who is where


class Free:
    """Chance decides what the caption leaves open. Lengths and places are shares of the canvas's side.

    faithful: whether references face as the subject does. changes: how they differ from it.
    """

    faithful = False
    changes = USUAL

    def between(self, ends: tuple[float, float], random: np.random.Generator) -> float:
        """A length, a place or an angle."""
        return random.uniform(*ends)

    def standing(self, height: float, ground: bool, random: np.random.Generator) -> float:
        """Where the middle is of something this high that stands on the ground or, where there is none, floats."""
        if not ground:
            return self.between((MARGIN + height / 2, 1 - MARGIN - height / 2), random)
        return max(self.between(REST, random) - height / 2, MARGIN + height / 2)

    def middles(self, lengths: Sequence[float], random: np.random.Generator) -> Sequence[float]:
        """Of two that follow each other: what space a gap between them leaves is shared out."""
        spare = 1 - 2 * MARGIN - GAP - sum(lengths)
        start, gap = (np.sort(random.uniform(0, 1, 2)) * spare).tolist()
        return MARGIN + start + lengths[0] / 2, MARGIN + gap + GAP + lengths[0] + lengths[1] / 2

    def said(self, relation: str, random: np.random.Generator) -> str:
        """What the caption says of a pair in this relation."""
        return relation if random.random() < SAID else "and"


class Settled(Free):
    """Chance decides nothing that the caption does not say: one place and size for each, upright, and references face
    as the subject does and fill their photo. For models too small to learn more."""

    faithful = True
    changes = Changes(flips=0.0, turn=0.0, fill=(1.0, 1.0), centred=True)

    def between(self, ends: tuple[float, float], random: np.random.Generator) -> float:
        return sum(ends) / 2

    def standing(self, height: float, ground: bool, random: np.random.Generator) -> float:
        return SETTLED

    def middles(self, lengths: Sequence[float], random: np.random.Generator) -> Sequence[float]:
        return QUARTERS

    def said(self, relation: str, random: np.random.Generator) -> str:
        """ "and" is said of one order only."""
        return super().said(relation, random) if relation == "to the left of" else relation
