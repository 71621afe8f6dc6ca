"""Scenes of the world that don't show what was asked for, each in a known way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from ...cast import Kind
from ...chance import stream
from ...world.placing import QUARTERS
from ...world.scenes import Placed, Plan
from .cases import WorldCase

WAYS = {
    1: (Kind.PRESENT, Kind.MISSING, Kind.TWICE, Kind.STRANGER),
    2: (Kind.PRESENT, Kind.MISSING, Kind.TWICE, Kind.SWAPPED, Kind.STRANGER),
}
"""What happens to scenes of one and of two subjects, in turn; `PRESENT` leaves them as they are."""
BESIDE = 0.44  # length of a single subject that is drawn twice


class Spoilt(NamedTuple):
    """case: what was asked for. shown: what is drawn in its place. truth: of each subject asked for."""

    case: WorldCase
    shown: Plan
    truth: tuple[Kind, ...]


def spoil(cases: Sequence[WorldCase]) -> list[Spoilt]:
    """Every case, as it is or in one of the ways. Strangers are subjects of later cases, of other names."""
    seen = dict.fromkeys(WAYS, 0)
    found = []
    for number, case in enumerate(cases):
        count = len(case.plan.subjects)
        ways = WAYS[count]
        way = ways[seen[count] % len(ways)]
        seen[count] += 1
        names = {placed.identity.name for placed in case.plan.subjects}
        later = (one for other in [*cases[number + 1 :], *cases] for one in other.plan.subjects)
        stranger = next(one for one in later if one.identity.name not in names)
        victim = int(stream("spoilt", case.seed).integers(count))
        subjects, truth = _spoilt(case.plan.subjects, way, victim, stranger)
        found.append(Spoilt(case, replace(case.plan, subjects=subjects), truth))
    return found


def _spoilt(
    asked: tuple[Placed, ...], way: Kind, victim: int, stranger: Placed
) -> tuple[tuple[Placed, ...], tuple[Kind, ...]]:
    truth = [Kind.PRESENT] * len(asked)
    if way is Kind.SWAPPED:
        first, second = asked
        return (_in_place(first, second), _in_place(second, first)), (way, way)
    if way is Kind.TWICE and len(asked) == 1:
        (alone,) = asked
        return tuple(_in_place(alone, replace(alone, x=x, width=BESIDE, height=BESIDE)) for x in QUARTERS), (way,)
    shown = list(asked)
    if way is Kind.MISSING:
        del shown[victim]
    elif way is Kind.STRANGER:
        shown[victim] = _in_place(stranger, asked[victim])
    elif way is Kind.TWICE:
        shown[victim], truth[1 - victim] = _in_place(asked[1 - victim], asked[victim]), way
        way = Kind.MISSING
    truth[victim] = way
    return tuple(shown), tuple(truth)


def _in_place(who: Placed, of: Placed) -> Placed:
    """Somebody where somebody else was, and as long."""
    scale = max(of.width, of.height) / max(who.width, who.height)
    return replace(who, x=of.x, y=of.y, width=who.width * scale, height=who.height * scale, grounded=of.grounded)
