"""`demo`: draw bundled or own subjects in new scenes, and lay the pictures out beside their references."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm
from transformers.utils import logging as transformers_logging

from ..cutout import references
from ..drawing.drawer import load
from ..errors import MMDiffError
from ..picture_files import read_pixels
from ..prompt import find_markers, without_markers
from ..sheet import Cell, image_of, sheet
from . import FOLDER, SUBJECTS

ALONE = (
    "a toy<|subj|> on the beach",
    "a toy<|subj|> in the forest",
    "a big toy<|subj|> in space",
    "a watercolor of a toy<|subj|> in the snow",
)
TOGETHER = ("a toy<|subj|> to the left of a toy<|subj|> in a meadow", "a toy<|subj|> and a toy<|subj|> in a kitchen")
SHOWN = 192  # side of a picture on the sheet, pixels


@dataclass(frozen=True)
class Drawing:
    """One picture to draw. photos: files, one for each subject of the prompt."""

    prompt: str
    photos: tuple[Path, ...]

    @property
    def text(self) -> str:
        """The prompt as a reader sees it."""
        return without_markers(self.prompt, find_markers(self.prompt))


def bundled() -> list[Drawing]:
    """One subject alone in four scenes, and two together."""
    first, second = (SUBJECTS / name for name in json.loads((SUBJECTS / "subjects.json").read_text())["demo"])
    alone = [Drawing(prompt, (first,)) for prompt in ALONE]
    return alone + [Drawing(prompt, (first, second)) for prompt in TOGETHER]


def own(photos: Sequence[Path], prompt: str | None) -> list[Drawing]:
    """The user's own subjects; a prompt without pictures is drawn from its words alone.

    Raises MMDiffError where prompt and pictures do not go together.
    """
    if prompt is None:
        if len(photos) > 2:
            raise MMDiffError(
                f"There are {len(photos)} pictures and no prompt; give one with --prompt, with a <|subj|> each."
            )
        return [Drawing(one, tuple(photos)) for one in (ALONE if len(photos) == 1 else TOGETHER)]
    markers = [marker for marker in find_markers(prompt) if not marker.nobody]
    if len(markers) != len(photos) and all(marker.name is None for marker in markers):
        raise MMDiffError(
            f"The prompt has {len(markers)} <|subj|>, and --image was given {len(photos)} times. Put a <|subj|> after "
            "the word that each picture is to be."
        )
    return [Drawing(prompt, tuple(photos))]


def draw(drawings: Sequence[Drawing], out: Path, seed: int) -> str:
    """Draw, and write `out/01.png` ... and `out/sheet.png`. Returns a report.

    What of a picture is its subject is decided as Encode Subject does: what is not transparent, or stands out from a
    plain ground.

    Raises MMDiffError for files that are no pictures, prompts that do not fit them, and a folder that can't be written
    to; all of that before anything is drawn.
    """
    transformers_logging.disable_progress_bar()
    photos = {path: read_pixels(path)[None] for drawing in drawings for path in drawing.photos}
    drawer = load(FOLDER)
    side = drawer.adapter.base.photo_size
    prepared = {path: references([photo], None, side, crop=True) for path, photo in photos.items()}
    of_each = [
        torch.cat([torch.zeros(0, 3, side, side), *(prepared[path].photos for path in one.photos)]) for one in drawings
    ]
    drawer.reader.slots([drawing.prompt for drawing in drawings], of_each, side)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "sheet.png").touch()
    except OSError as error:
        raise MMDiffError(f"--out {out} can't be written to ({error.strerror}); name another folder.") from error

    rows: dict[tuple[Path, ...], list[Cell]] = {}
    for number, (drawing, seen) in enumerate(zip(drawings, tqdm(of_each, unit="picture"), strict=True), 1):
        (picture,) = drawer([drawing.prompt], [seen], [seed])
        image_of(picture).save(out / f"{number:02}.png")
        beside = [(references([photos[path]], None, SHOWN, crop=True).photos[0], path.name) for path in drawing.photos]
        rows.setdefault(drawing.photos, beside).append((picture, drawing.text))
    sheet(list(rows.values()), SHOWN).save(out / "sheet.png")
    count = "1 picture" if len(drawings) == 1 else f"{len(drawings)} pictures"
    drew = f"Drew {count} of {picture.shape[-1]} x {picture.shape[-2]}: {out / 'sheet.png'}"
    return "\n".join([*(f"{path.name}: {remark}" for path, one in prepared.items() for remark in one.remarks), drew])
