"""Arms: what is compared. Each is a folder: of a training run, of a model, or of pictures that were drawn elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import MMDiffError
from ..training import INSTALL
from .cases import LIST, Case, drawn_by, fill, pictures_of, source_of

if TYPE_CHECKING:
    from .run import Run

FULL = "full"
STATE = "state.safetensors"
CHECKPOINT = "mmdiff.safetensors"


@dataclass(frozen=True)
class Drawn:
    """An arm's pictures. folder: where they and their list are. files: case -> picture."""

    folder: Path
    files: dict[str, Path]


@dataclass(frozen=True)
class Arm:
    """name: in the tables; the one called `full` is what the others are compared with."""

    name: str
    folder: Path


def read_arms(texts: Sequence[str]) -> list[Arm]:
    """`NAME=FOLDER` each. Raises MMDiffError where it is not, where a name comes twice, or where no folder is there."""
    arms: list[Arm] = []
    for text in texts:
        name, sign, folder = text.partition("=")
        if not (name and sign and folder) or "/" in name or "\\" in name:
            raise MMDiffError(f"The arm '{text}' is not NAME=FOLDER, such as full=runs/full.")
        if name in (arm.name for arm in arms):
            raise MMDiffError(f"Two arms are called '{name}'; give each its own name.")
        if not Path(folder).is_dir():
            raise MMDiffError(f"Arm '{name}': there is no folder {folder}.")
        arms.append(Arm(name, Path(folder)))
    return arms


def pictures(
    arm: Arm,
    cases: Sequence[Case],
    out: Path,
    benchmark: str,
    record: Callable[[Run, Path], None] = lambda run, folder: None,
) -> Drawn:
    """The arm's picture of each case; a run or a model draws those it has not drawn yet into `out/pictures/NAME`.

    record: what else to keep of a run, in the folder of its pictures.
    """
    if (arm.folder / LIST).is_file():
        return Drawn(arm.folder, pictures_of(arm.folder, cases))
    if not any((arm.folder / name).is_file() for name in (STATE, CHECKPOINT)):
        raise MMDiffError(
            f"Arm '{arm.name}': {arm.folder} has no checkpoint to draw with (no {STATE}, no {CHECKPOINT}) and no list "
            f"of pictures (no {LIST}). Name the folder that a training run wrote as its `out`, one of a model with its "
            "checkpoint, or one of pictures with their list."
        )
    try:
        from .run import Run  # diffusers takes seconds to import, and pictures need none of it
    except ModuleNotFoundError as error:
        raise MMDiffError(
            f"Arm '{arm.name}' is a training run, and drawing with it needs {error.name}, which is not installed: "
            f"{INSTALL}"
        ) from error
    run = Run.of_training(arm.folder) if (arm.folder / STATE).is_file() else Run.of_model(arm.folder)
    folder = out / "pictures" / arm.name
    fill(folder, cases, drawn_by(run), f"{benchmark}, by {run.source}")
    record(run, folder)
    return Drawn(folder, pictures_of(folder, cases))


def facts(drawn: Mapping[str, Drawn]) -> dict[str, str]:
    """For the head of a report: where each arm's pictures came from, so that a reader sees what was not equal."""
    return {f"arm `{name}`": source_of(one.folder) or f"pictures in {one.folder}" for name, one in drawn.items()}
