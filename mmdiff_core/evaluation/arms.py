"""Arms: what is compared. Each is a folder: of a training run, of a model, or of pictures that were drawn elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..drawing import INSTALL
from ..errors import MMDiffError
from .cases import LIST, Case, drawn_by, fill, pictures_of, source_of

if TYPE_CHECKING:
    from ..drawing.drawer import Drawer

FULL = "full"


@dataclass(frozen=True)
class Drawn:
    """An arm's pictures. folder: where they and their list are. files: case -> picture."""

    folder: Path
    files: dict[str, Path]


@dataclass(frozen=True)
class Arm:
    """name: in the tables; the one called `full` is what the others are compared with. by_word: whether it is drawn
    with its subjects separated by word. cut_out: whether subjects are cut out of their references' plain grounds.
    masked: whether references come with masks, by which subjects are cut out of any ground."""

    name: str
    folder: Path
    by_word: bool = False
    cut_out: bool = False
    masked: bool = False


def read_arms(
    texts: Sequence[str], by_word: Sequence[str] = (), cut_out: Sequence[str] = (), masked: Sequence[str] = ()
) -> list[Arm]:
    """`NAME=FOLDER` each; by_word, cut_out, masked: those that are drawn so. Raises MMDiffError where it is not, where
    a name comes twice, or where no folder is there."""
    arms: list[Arm] = []
    kinds = ((texts, {}), (by_word, {"by_word": True}), (cut_out, {"cut_out": True}), (masked, {"masked": True}))
    for text, drawn in ((text, drawn) for given, drawn in kinds for text in given):
        name, sign, folder = text.partition("=")
        if not (name and sign and folder) or "/" in name or "\\" in name:
            raise MMDiffError(f"The arm '{text}' is not NAME=FOLDER, such as full=runs/full.")
        if name in (arm.name for arm in arms):
            raise MMDiffError(f"Two arms are called '{name}'; give each its own name.")
        if not Path(folder).is_dir():
            raise MMDiffError(f"Arm '{name}': there is no folder {folder}.")
        arms.append(Arm(name, Path(folder), **drawn))
    return arms


def pictures(
    arm: Arm,
    cases: Sequence[Case],
    out: Path,
    record: Callable[[Drawer, Path], None] = lambda drawer, folder: None,
) -> Drawn:
    """The arm's picture of each case; what draws, draws those that are missing into `out/pictures/NAME`.

    record: what else to keep of what draws, in the folder of its pictures.
    """
    if (arm.folder / LIST).is_file():
        return Drawn(arm.folder, pictures_of(arm.folder, cases))
    try:
        from ..drawing.drawer import load  # diffusers takes seconds to import, and pictures need none of it
    except ModuleNotFoundError as error:
        raise MMDiffError(
            f"Arm '{arm.name}' has no list of pictures ({LIST}), and drawing with it needs {error.name}, which is not "
            f"installed: {INSTALL}"
        ) from error
    try:
        drawer = load(arm.folder, arm.by_word, arm.cut_out or arm.masked)
    except MMDiffError as error:
        raise MMDiffError(f"Arm '{arm.name}' has no list of pictures ({LIST}) and draws none: {error}") from error
    folder = out / "pictures" / arm.name
    fill(folder, cases, drawn_by(drawer), drawer.source, drawer.about)
    record(drawer, folder)
    return Drawn(folder, pictures_of(folder, cases))


def facts(drawn: Mapping[str, Drawn]) -> dict[str, str]:
    """For the head of a report: where each arm's pictures came from, so that a reader sees what was not equal."""
    return {f"arm `{name}`": source_of(one.folder) or f"pictures in {one.folder}" for name, one in drawn.items()}
