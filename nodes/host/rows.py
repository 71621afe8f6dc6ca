"""Which rows of a batch get which subjects, and where in the picture each row lies, told by the rows themselves.

At the start of a sampling run every conditioning is given marks among its model conditions: the number of what it
means and, where a subject is limited to a region, a picture of places. The host and other nodes repeat, stack, reorder
and drop such tensors with the rows, and cut into areas and tiles what is a picture.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from comfy.conds import CONDNoiseShape, CONDRegular
from torch import Tensor

from .tell import named, warn
from .text import CONDITIONING_KEY, WINDOW_KEY, Binding
from .undrawn import UNDRAWN

MARK = "mmdiff_rows"
PLACES = "mmdiff_places"
DENSITY = 2
"""Places on each side of a latent's pixel: Tiled Diffusion cuts pictures of any size but the latent's own."""


class Meaning(NamedTuple):
    """What a conditioning means to its rows.

    bindings: numbers of the applied bindings they get. words: whether it is known where the entity words of those
    bindings are looked for, because its text is their own prompt, or in a negative row that of the run's others.
    negative: they get what the subjects leave to negative rows.
    """

    bindings: tuple[int, ...]
    words: bool
    negative: bool = False


class Places(CONDNoiseShape):
    """A picture of places as a model condition, which areas crop."""

    def process_cond(self, batch_size: int, area: Sequence[int] | None = None, **kwargs: object) -> CONDNoiseShape:
        return super().process_cond(batch_size, area and [DENSITY * side for side in area], **kwargs)


def places(size: Sequence[int], device: torch.device, corner: Sequence[int] = (0, 0)) -> Tensor:
    """(1, 2, DENSITY H, DENSITY W) the row and column of each place of a latent of size (H, W) in the whole one, in
    which it begins at `corner`."""
    down, across = (
        torch.arange(DENSITY * start, DENSITY * (start + side), dtype=torch.int32, device=device)
        for start, side in zip(corner, size, strict=True)
    )
    return torch.stack(torch.meshgrid(down, across, indexing="ij"))[None]


def mark_rows(
    conds: dict[str, list[dict]],
    bindings: Sequence[Binding],
    size: Sequence[int],
    corner: Sequence[int],
    device: torch.device,
) -> list[Meaning]:
    """Mark a run's conditionings (the guider's own copies, by name) with what they mean, which is returned.

    size: (H, W) of the run's latent; corner: where it begins in the whole one. A conditioning made for a stretch of
    sampling is kept to that stretch. One that was zeroed out says nothing any more and gets no subject; nor does one of
    a binding that is not on the model, with a warning. Where no conditioning carries a binding of the model, because
    other nodes rebuilt them, the positive ones get all of them, with a warning. All but the positive ones, where they
    carry no binding themselves, get what the run's subjects leave to negative rows.
    """
    numbers = {binding.id: number for number, binding in enumerate(bindings)}
    carried = {cond[CONDITIONING_KEY] for group in conds.values() for cond in group if CONDITIONING_KEY in cond}
    adopted = () if carried & numbers.keys() else tuple(range(len(bindings)))
    if adopted and "positive" in conds:
        names = named(subject for binding in bindings for subject in binding.subjects)
        warn(
            "no conditioning of this run comes from the Multi-Subject Binding that is on the model, so every positive "
            f"prompt gets {names}, and 'by word' acts as 'reference'."
        )
    run = adopted or sorted(numbers[one] for one in carried & numbers.keys())
    empties = tuple(one for one in run if all(subject.negative is not None for subject in bindings[one].subjects))
    meanings: list[Meaning] = []
    strangers: set[str] = set()
    marks = {}
    if any(subject.region is not None for binding in bindings for subject in binding.subjects):
        marks[PLACES] = Places(places(size, device, corner))
    for group, members in conds.items():
        conds[group] = members = [cond for cond in members if _within_its_stretch(cond)]
        for cond in members:
            number = numbers.get(cond.get(CONDITIONING_KEY))
            conditions = dict(cond["model_conds"])
            undrawn = conditions.pop(UNDRAWN, None)
            text = cond.get("cross_attn")
            zeroed = text is not None and not text.any()
            if undrawn is not None and number is None and not (zeroed or adopted):
                strangers.add(undrawn.subjects)
            if group != "positive" and (zeroed or number is None):
                meaning = Meaning(empties, words=not adopted, negative=True)
            elif zeroed:
                if number is not None:
                    warn("the positive prompt was zeroed out, so it gets no subjects.")
                meaning = Meaning((), words=False)
            elif number is None:
                meaning = Meaning(adopted, words=False)
            else:
                last = max(itertools.chain.from_iterable(bindings[number].words))
                meaning = Meaning((number,), words=last < text.shape[1])
            if meaning not in meanings:
                meanings.append(meaning)
            marks[MARK] = CONDRegular(torch.tensor([[meanings.index(meaning)]], dtype=torch.int32, device=device))
            cond["model_conds"] = {**conditions, **marks}
    for subjects in sorted(strangers):
        warn(
            f"a prompt of this run is bound to {subjects} by a Multi-Subject Binding that is not on the model, so it "
            "gets no subjects. Put that binding on the model with one more Apply MM-Diff Attention."
        )
    return meanings


def _within_its_stretch(cond: dict) -> bool:
    """Limit a conditioning, which other nodes may have timed anew, to the stretch it was made for; False if none is
    left of it."""
    if WINDOW_KEY in cond:
        start, end = cond[WINDOW_KEY]
        cond["start_percent"] = max(start, cond.get("start_percent", start))
        cond["end_percent"] = min(end, cond.get("end_percent", end))
        return cond["start_percent"] < cond["end_percent"]
    return True


def repeated_rows(count: int, order: Sequence[int], grown: Sequence[int]) -> list[int]:
    """Which row of a batch of `count` stands in each row of a block, after an attention couple repeated the conditional
    chunks for its regions. Empty where it can't be told.

    order: the chunks' places in the guider's list, 1 for the unconditional, as the model was called; grown: the same as
    the couple left it.
    """
    if len(grown) == len(order):
        return list(range(count))
    conditional = sum(place != 1 for place in order)
    regions, rest = divmod(len(grown) - (len(order) - conditional), conditional or 1)
    batch, odd = divmod(count, len(order) or 1)
    if rest or odd or not conditional:
        return []
    return [
        number * batch + row
        for number, place in enumerate(order)
        for _ in range(1 if place == 1 else regions)
        for row in range(batch)
    ]
