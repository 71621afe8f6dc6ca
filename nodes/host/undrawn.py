"""A bound prompt that no Apply MM-Diff Attention draws says so while it is sampled.

A model without Apply runs nothing of ours: none was applied, or a node took the weights out of the model and left the
rest behind, as a merge does with its second model. But the host asks every condition of a prompt for its rows.
"""

from __future__ import annotations

from functools import lru_cache

from comfy.conds import CONDRegular
from comfy_execution.utils import ExecutionContext, get_executing_context
from torch import Tensor

from .tell import warn

UNDRAWN = "mmdiff_undrawn"
"""The model condition's name; where the model draws subjects, rows.py takes it off before the host asks."""


class Undrawn(CONDRegular):
    """Of the positive prompt of a binding. subjects: their names, as they are written in a sentence. cond: (1, 1), one
    number for each row, of no meaning."""

    def __init__(self, subjects: str, cond: Tensor) -> None:
        super().__init__(cond)
        self.subjects = subjects

    def _copy_with(self, cond: Tensor) -> Undrawn:
        return Undrawn(self.subjects, cond)

    def process_cond(self, batch_size: int, **kwargs: object) -> CONDRegular:
        _say(self.subjects, get_executing_context())
        return super().process_cond(batch_size, **kwargs)


@lru_cache(maxsize=16)
def _say(subjects: str, node: ExecutionContext | None) -> None:
    """Once while a node runs, and not at each of its steps."""
    warn(
        f"a prompt bound to {subjects} is sampled where no Apply MM-Diff Attention acts, so no photo is drawn. Sample "
        "with the model that comes out of Apply; apply after merging, as a merge keeps the subjects of its first model "
        "alone."
    )
