"""From what was seen in a picture to what is said of each subject."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from torch import Tensor

from .seen import Seen

THRESHOLD = 0.6
"""Likeness from which on somebody is a subject: of 0.4 to 0.8 the best in 256 pictures of the world's split `val`
(`evaluate cast`)."""
COPY = 1 / 3
"""Share of the surest one's area from which on another one is the subject drawn again, not a pattern in its colours."""


class Kind(Enum):
    """What can be said of a subject, and the word for it."""

    PRESENT = "present"
    MISSING = "missing"
    TWICE = "drawn twice"
    SWAPPED = "swapped"
    STRANGER = "stranger"


class Verdict(NamedTuple):
    """What is said of one subject; those seen by their numbers in `Seen`.

    places: who of those seen it is, the surest first. score: of the surest, or of the likest where it is none.
    home: who stands where its word acted, None where nobody does or that is not known. occupant: which subject that is.
    """

    kind: Kind
    places: tuple[int, ...]
    score: float
    home: int | None
    occupant: int | None


def judge(seen: Seen, threshold: float = THRESHOLD) -> list[Verdict]:
    """One verdict for each subject. Whoever is seen is one subject at most, and one that he is like by more than the
    threshold."""
    owners = _owners(seen.scores, threshold)
    return [_verdict(seen, subject, owners) for subject in range(len(seen.scores))]


def _owners(scores: Tensor, threshold: float) -> list[int | None]:
    """Which subject each of those seen is. First one for each subject, so that the likeness of all is greatest; then
    whoever is left is the subject that he is likest, once more."""
    from scipy.optimize import linear_sum_assignment  # it takes a while to import

    worth = (scores - threshold).clamp_min(0)
    owners: list[int | None] = [None] * scores.shape[1]
    for subject, one in zip(*linear_sum_assignment(worth.numpy(), maximize=True), strict=True):
        if worth[subject, one] > 0:
            owners[one] = int(subject)
    for one, owner in enumerate(owners):
        likest = int(scores[:, one].argmax())
        if owner is None and worth[likest, one] > 0:
            owners[one] = likest
    return owners


def _verdict(seen: Seen, subject: int, owners: Sequence[int | None]) -> Verdict:
    scores, home = seen.scores[subject], seen.homes[subject]
    places = sorted((one for one, owner in enumerate(owners) if owner == subject), key=lambda one: -scores[one])
    places = [one for one in places if seen.area(one) >= COPY * seen.area(places[0])]
    occupant = None if home is None else owners[home]
    if len(places) > 1:
        kind = Kind.TWICE
    elif not places:
        kind = Kind.STRANGER if home is not None and occupant is None else Kind.MISSING
    elif occupant not in (None, subject) and seen.homes[occupant] == places[0]:
        kind = Kind.SWAPPED
    else:
        kind = Kind.PRESENT
    score = float(scores[places[0]]) if places else float(scores.max()) if len(scores) else 0.0
    return Verdict(kind, tuple(places), score, home, occupant)


def sentence(verdict: Verdict, name: str, others: Sequence[str], seen: Seen, width: int) -> str:
    """What a report says of a subject. others: the names of all subjects. width: of the picture, pixels."""

    def where(one: int) -> str:
        middle = float(seen.boxes[one][0] + seen.boxes[one][2]) / 2 / width
        return "on the left" if middle < 0.4 else "on the right" if middle > 0.6 else "in the middle"

    if verdict.kind is Kind.PRESENT:
        return f"{name} is there, {where(verdict.places[0])}, {verdict.score:.2f}."
    if verdict.kind is Kind.TWICE:
        return f"{name} is drawn {len(verdict.places)} times, {' and '.join(map(where, verdict.places))}."
    if verdict.kind is Kind.SWAPPED:
        other = others[verdict.occupant]
        return f"{name} has changed places with {other} and stands {where(verdict.places[0])}, {verdict.score:.2f}."
    if verdict.kind is Kind.STRANGER:
        return f"{name} is missing, a stranger stands in that place, {where(verdict.home)}, {verdict.score:.2f}."
    if verdict.occupant is not None:
        return f"{name} is missing, {others[verdict.occupant]} stands in that place, {where(verdict.home)}."
    return f"{name} is missing, the likest is {verdict.score:.2f}."
