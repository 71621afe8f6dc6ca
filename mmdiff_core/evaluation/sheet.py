"""Contact sheets: every row is a case, its references first, then each arm's picture of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .cases import Case, read_picture

CELL, GAP, TEXT = 128, 6, 24


def write_sheet(path: Path, cases: Sequence[Case], arms: Mapping[str, Mapping[str, Path]]) -> None:
    """arms: name -> case -> picture file. Writes a PNG of one row a case."""
    subjects = max(len(case.references) for case in cases)
    width = (subjects + len(arms)) * (CELL + GAP) + GAP
    sheet = Image.new("RGB", (width, TEXT + len(cases) * (CELL + TEXT + 2 * GAP)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(["reference"] * subjects + list(arms)):
        draw.text((GAP + column * (CELL + GAP), GAP), title, fill="black")
    for row, case in enumerate(cases):
        top = TEXT + row * (CELL + TEXT + 2 * GAP)
        pictures: list[Tensor | None] = [*case.references] + [None] * (subjects - len(case.references))
        pictures += [read_picture(files[case.id]) for files in arms.values()]
        for column, picture in enumerate(pictures):
            if picture is not None:
                sheet.paste(_thumbnail(picture), (GAP + column * (CELL + GAP), top))
        words = wrap(f"{case.text} ({case.group})", width // 6)[:2]
        draw.text((GAP, top + CELL + 1), "\n".join(words), fill="black", spacing=1, font_size=10)
    sheet.save(path)


def spread(cases: Sequence[Case], number: int) -> list[Case]:
    """`number` cases, evenly over the list."""
    return [cases[int(index)] for index in torch.linspace(0, len(cases) - 1, min(number, len(cases)))]


def _thumbnail(picture: Tensor) -> Image.Image:
    """Fitted into a cell; small pictures are enlarged with their pixels visible."""
    image = Image.fromarray((picture.clamp(0, 1) * 255).byte().movedim(0, -1).cpu().numpy())
    scale = CELL / max(image.size)
    size = tuple(max(1, round(side * scale)) for side in image.size)
    return image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)
