"""What became of two subjects in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

from torch import Tensor

from .nets import Box

OUTCOMES = ("both", "swapped", "mixed", "duplicate", "missing", "neither")
FIRST, SECOND, MIXED = 0, 1, (2, 3)


class Outcome(NamedTuple):
    """kind: of OUTCOMES. boxes: the box of the first and of the second subject, None where none was left for it."""

    kind: str
    boxes: tuple[Box | None, Box | None]


def outcome(boxes: Sequence[Box], likeness: Tensor, relation: str) -> Outcome:
    """What the found boxes show.

    likeness: (boxes, candidates); candidate 0 is the first subject, 1 the second, 2 and 3 their mixtures (the shape of
    one in the colours of the other), the rest are strangers. relation: what the caption says of the first to the
    second, of RELATIONS; any other word says nothing of places.

    Boxes and subjects are matched one to one for the greatest sum of likeness. Then a matched box shows whoever of all
    candidates it is likest to.
    """
    matched = _matched(likeness[:, :2])
    found = tuple(boxes[box] if box is not None else None for box in matched)
    shown = [None if box is None else int(likeness[box].argmax()) for box in matched]
    right = [who == wanted for wanted, who in enumerate(shown)]
    if any(who in MIXED for who in shown):
        return Outcome("mixed", found)
    if all(right):
        as_said = holds(relation, *found)
        return Outcome("both" if as_said is None or as_said else "swapped", found)
    nearest = likeness.argmax(1).tolist()
    if any(right):
        present = FIRST if right[FIRST] else SECOND
        return Outcome("duplicate" if nearest.count(present) > 1 else "missing", found)
    return Outcome("neither", found)


def holds(relation: str, first: Box, second: Box) -> bool | None:
    """Whether the middles of two boxes are as a caption says; None where it says nothing of places."""
    return {
        "to the left of": first.x < second.x,
        "to the right of": first.x > second.x,
        "above": first.y < second.y,
        "below": first.y > second.y,
    }.get(relation)


def _matched(likeness: Tensor) -> tuple[int | None, int | None]:
    """(boxes, 2) to the box of each subject; with a single box, of the likelier one."""
    if len(likeness) == 1:
        return (0, None) if likeness[0, 0] >= likeness[0, 1] else (None, 0)
    return max(permutations(range(len(likeness)), 2), key=lambda pair: float(likeness[pair, (0, 1)].sum()))
