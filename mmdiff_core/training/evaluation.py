"""What measures a run while it trains, by name: early figures of the pictures that it draws so far."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ..drawing.drawer import Drawer
from ..named import check_options, named
from .config import Config

EVALUATIONS = {"world": "mmdiff_core.evaluation.early:World", "photos": "mmdiff_core.evaluation.early:Photos"}
"""Named and not imported, for the room of evaluation does not belong to training."""


class Evaluation(Protocol):
    """What draws and a folder for its pictures, to figures by name."""

    def __call__(self, drawer: Drawer, folder: Path) -> dict[str, float]: ...


def open_evaluation(config: Config) -> Evaluation:
    """What `evaluate.kind` names. Raises MMDiffError for a kind or an option that does not exist."""
    wanted = config.evaluate
    kind = named(wanted.kind, EVALUATIONS, "evaluate.kind")
    check_options("evaluate.options", wanted.kind, kind, wanted.options, ())
    return kind(**wanted.options)
