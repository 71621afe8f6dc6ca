"""`demo`: draw bundled or own subjects in new scenes, and lay the pictures out beside their references."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from transformers.utils import logging as transformers_logging

from ..errors import MMDiffError
from ..evaluation.run import Run
from ..photo import prepare_photos
from ..picture_files import open_picture, read_pixels
from . import FOLDER, SUBJECTS

ALONE = (
    "a toy<|subj|> on the beach",
    "a toy<|subj|> in the forest",
    "a big toy<|subj|> in space",
    "a watercolor of a toy<|subj|> in the snow",
)
TOGETHER = ("a toy<|subj|> to the left of a toy<|subj|> in a meadow", "a toy<|subj|> and a toy<|subj|> in a kitchen")
SHOWN, MARGIN, LINE = 192, 12, 30  # of the sheet, pixels


@dataclass(frozen=True)
class Drawing:
    """One picture to draw. photos: files, one for each `<|subj|>` of the prompt."""

    prompt: str
    photos: tuple[Path, ...]


def bundled() -> list[Drawing]:
    """One subject alone in four scenes, and two together."""
    first, second = (SUBJECTS / name for name in json.loads((SUBJECTS / "subjects.json").read_text())["demo"])
    alone = [Drawing(prompt, (first,)) for prompt in ALONE]
    return alone + [Drawing(prompt, (first, second)) for prompt in TOGETHER]


def own(photos: Sequence[Path], prompt: str | None) -> list[Drawing]:
    """The user's own subjects; a prompt without pictures is drawn from its words alone."""
    if prompt is not None:
        return [Drawing(prompt, tuple(photos))]
    if len(photos) > 2:
        raise MMDiffError(
            f"There are {len(photos)} pictures and no prompt; give one with --prompt, with a <|subj|> each."
        )
    return [Drawing(prompt, tuple(photos)) for prompt in (ALONE if len(photos) == 1 else TOGETHER)]


def draw(drawings: Sequence[Drawing], out: Path, seed: int) -> str:
    """Draw, and write `out/01.png` ... and `out/sheet.png`. Returns a report.

    Raises MMDiffError for files that are no pictures, and prompts that do not fit them.
    """
    transformers_logging.disable_progress_bar()
    run = Run.of_model(FOLDER)
    side = run.trainee.base.photo_size
    pictures = []
    for drawing in drawings:
        photos = [prepare_photos(read_pixels(photo)[None], side) for photo in drawing.photos]
        references = torch.cat([torch.zeros(0, 3, side, side), *photos])
        pictures += [run([drawing.prompt], [references], [seed])[0]]
    out.mkdir(parents=True, exist_ok=True)
    images = [Image.fromarray((picture * 255).round().byte().movedim(0, -1).numpy()) for picture in pictures]
    for number, image in enumerate(images, 1):
        image.save(out / f"{number:02}.png")
    sheet(drawings, images).save(out / "sheet.png")
    return f"Drew {len(images)} pictures of {images[0].width} x {images[0].height}: {out / 'sheet.png'}"


def sheet(drawings: Sequence[Drawing], images: Sequence[Image.Image]) -> Image.Image:
    """A row for each group of drawings with the same references: these first, then the pictures over their prompts."""
    rows: dict[tuple[Path, ...], list[int]] = {}
    for number, drawing in enumerate(drawings):
        rows.setdefault(drawing.photos, []).append(number)
    columns = max(len(photos) + len(numbers) for photos, numbers in rows.items())
    cell = SHOWN + MARGIN
    canvas = Image.new("RGB", (MARGIN + columns * cell, MARGIN + len(rows) * (cell + LINE)), "white")
    pen = ImageDraw.Draw(canvas)
    for row, (photos, numbers) in enumerate(rows.items()):
        shown = [(_on_white(photo), photo.name) for photo in photos]
        shown += [(images[number], drawings[number].prompt) for number in numbers]
        for column, (image, text) in enumerate(shown):
            left, top = MARGIN + column * cell, MARGIN + row * (cell + LINE)
            canvas.paste(image.resize((SHOWN, SHOWN), Image.Resampling.BICUBIC), (left, top))
            pen.multiline_text((left, top + SHOWN + 3), _wrapped(text.replace("<|subj|>", "*")), "black", spacing=2)
    return canvas


def _on_white(path: Path) -> Image.Image:
    photo = open_picture(path)
    photo.thumbnail((SHOWN, SHOWN))
    square = Image.new("RGBA", (SHOWN, SHOWN), "white")
    square.alpha_composite(photo, ((SHOWN - photo.width) // 2, (SHOWN - photo.height) // 2))
    return square.convert("RGB")


def _wrapped(text: str) -> str:
    words, lines = text.split(), [""]
    for word in words:
        if len(lines[-1]) + len(word) > SHOWN // 6:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines[:2])
