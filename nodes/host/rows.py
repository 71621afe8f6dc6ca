"""Which rows of a batch get which subjects, told by their conditioning.

At the start of a sampling run every conditioning is given a mark that says which of the model's bindings it carries.
The mark travels as a model condition, so the host itself keeps it with the rows: however a sampler orders, drops,
batches or crops them, and also where it fills in a row for an area from another conditioning.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from comfy.conds import CONDRegular

from .text import CONDITIONING_KEY, Binding

MARK = "mmdiff_rows"


class Chunk(NamedTuple):
    """The rows of one conditioning in a batch.

    bindings: numbers of the applied bindings its rows get. words: whether its text is those bindings' own prompt, so
    that their entity words stand in it. area: the crop it is run on, (height, width, y, x) in latent pixels, or None
    for the whole picture.
    """

    bindings: tuple[int, ...]
    words: bool
    area: tuple[int, ...] | None = None


class RowMark(CONDRegular):
    """A model condition whose value is a Chunk; marks of different rows go into one batch as a list of chunks."""

    def process_cond(self, batch_size: int, area: Sequence[int] | None = None, **kwargs: object) -> RowMark:
        return RowMark(self.cond._replace(area=tuple(area) if area is not None else None))

    def can_concat(self, other: RowMark) -> bool:
        return True

    def concat(self, others: list[RowMark]) -> list[Chunk]:
        return [self.cond, *(other.cond for other in others)]

    def size(self) -> list[int]:
        return [1]


def mark_rows(conds: dict[str, list[dict]], bindings: Sequence[Binding]) -> None:
    """Mark a run's conditionings (the guider's own copies, by name) with the bindings they carry.

    A binding that no conditioning carries, because other nodes rebuilt them, goes to the positive ones, with a warning.
    """
    carried = {cond.get(CONDITIONING_KEY) for group in conds.values() for cond in group}
    orphans = {number for number, binding in enumerate(bindings) if binding.id not in carried}
    if orphans and "positive" in conds:
        names = ", ".join(f"'{s.name}'" for number in sorted(orphans) for s in bindings[number].subjects)
        logging.warning(
            "MM-Diff: no conditioning of this run comes from the Multi-Subject Binding of %s (another node rebuilt "
            "it?), so every positive prompt gets the subject.",
            names,
        )
    for group, members in conds.items():
        for cond in members:
            own = {number for number, binding in enumerate(bindings) if binding.id == cond.get(CONDITIONING_KEY)}
            adopted = orphans if group == "positive" else set()
            mark = RowMark(Chunk(tuple(sorted(own | adopted)), words=not adopted))
            cond["model_conds"] = {**cond["model_conds"], MARK: mark}


def chunks_of_rows(chunks: list[Chunk], order: Sequence[int], grown: Sequence[int]) -> list[Chunk] | None:
    """The chunks after an attention couple repeated the conditional ones for its regions, or None if it can't be told.

    order: the chunks' places in the guider's list, 1 for the unconditional, as the model was called; grown: the same as
    the couple left it.
    """
    if len(grown) == len(order):
        return chunks
    conditional = sum(place != 1 for place in order)
    regions, rest = divmod(len(grown) - (len(order) - conditional), conditional or 1)
    if rest or not conditional:
        return None
    return [chunk for chunk, place in zip(chunks, order, strict=True) for _ in range(1 if place == 1 else regions)]
