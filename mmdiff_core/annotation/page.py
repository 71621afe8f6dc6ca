"""What was made, to look at: a contact sheet, a page, and the list of what was left out."""

from __future__ import annotations

import html
import json
import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ..data.augment import fitted
from ..data.validate import BrokenRecord, load_segments, picture_path
from ..errors import MMDiffError
from ..files import replacing
from ..picture_files import open_picture
from ..sheet import sheet
from .records import RECORDS, Written, counted

ON_SHEET, ON_PAGE, SIDE, COLUMNS = 24, 200, 320, 6
COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")
_STYLE = """body{font:15px/1.5 sans-serif;margin:2em auto;max-width:80em;padding:0 1em;color:#222;background:#fff}
figure{display:inline-block;width:320px;margin:0 1em 1.5em 0;vertical-align:top}img{max-width:320px}
mark{background:none;border-bottom:3px solid;color:inherit}td{padding-right:2em}"""


def write_page(out: Path, written: Written) -> None:
    """`sheet.jpg`, `index.html` with `shown/`, and `left-out.tsv` in a folder with records."""
    names = _spread(written.names, ON_PAGE)
    shown = out / "shown"
    shutil.rmtree(shown, ignore_errors=True)
    figures, cells = [], []
    on_sheet = set(_spread(names, ON_SHEET))
    for number, name in enumerate(names):
        drawn = _drawn(out / RECORDS, name)
        if drawn is None:  # a person who corrects a record may leave it half done
            continue
        picture, caption, spans = drawn
        _save(picture, shown / f"{number}.jpg")
        figures.append(_figure(name, f"shown/{number}.jpg", caption, spans, name in written.corrected))
        if name in on_sheet:
            cells.append((_tensor(picture), caption))
    if cells:
        rows = [cells[start : start + COLUMNS] for start in range(0, len(cells), COLUMNS)]
        _save(sheet(rows, SIDE, lines=3), out / "sheet.jpg")
    with replacing(out / "left-out.tsv") as part:
        lines = [f"{_flat(name)}\t{_flat(reason)}\n" for name, reason in sorted(written.left_out.items())]
        part.write_text("".join(lines), encoding="utf-8")
    with replacing(out / "index.html") as part:
        part.write_text(_page(written, figures), encoding="utf-8")


def _page(written: Written, figures: list[str]) -> str:
    rows = [("records", len(written.names)), ("of these corrected by a person", len(written.corrected))]
    rows += [(f"left out: {reason}", count) for reason, count in counted(written.left_out.values())]
    rows += [(f"subjects left out: {reason}", count) for reason, count in written.subjects.most_common()]
    rows += [("subjects that are on several records", written.people)]
    table = "".join(f"<tr><td>{html.escape(name)}</td><td>{count}</td></tr>" for name, count in rows)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Annotated pictures</title><style>{_STYLE}</style>'
        f"<h1>Annotated pictures</h1><table>{table}</table>"
        '<p>Every picture that was left out, with its reason: <a href="left-out.tsv">left-out.tsv</a>. To correct a '
        f"record, change its files in {RECORDS}; it stays as you leave it.</p>{''.join(figures)}</html>\n"
    )


def _figure(name: str, file: str, caption: str, spans: list[tuple[int, int, str]], corrected: bool) -> str:
    marked, last = "", 0
    for number, (start, end, same) in enumerate(spans):
        colour = COLOURS[number % len(COLOURS)]
        title = f' title="{html.escape(same)}"' if same else ""
        marked += html.escape(caption[last:start])
        marked += f'<mark style="border-color:{colour}"{title}>{html.escape(caption[start:end])}</mark>'
        last = end
    marked += html.escape(caption[last:])
    by = ", corrected" if corrected else ""
    return (
        f'<figure><img loading="lazy" alt="" src="{quote(file)}">'
        f"<figcaption>{marked}<br><small>{html.escape(name)}{by}</small></figcaption></figure>"
    )


def _drawn(folder: Path, name: str) -> tuple[Image.Image, str, list[tuple[int, int, str]]] | None:
    """A small picture with its subjects outlined, its caption, and their phrases; None for what is no record."""
    try:
        annotation = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        caption = annotation["caption"]
        listed = sorted(annotation["segments"], key=lambda one: one["start"])
        spans = [(int(one["start"]), int(one["end"]), str(one.get("same", ""))) for one in listed]
        segments = load_segments(folder / f"{name}.npy")
        picture = open_picture(picture_path(folder, name)).convert("RGB")
        ids = [one["id"] for one in listed]
    except (MMDiffError, BrokenRecord, OSError, ValueError, KeyError, TypeError):  # whatever a person may have written
        return None
    picture = fitted(picture, SIDE)
    pen = ImageDraw.Draw(picture)
    for number, one in enumerate(ids):
        outline = Image.fromarray((segments == one).astype(np.uint8) * 255).resize(picture.size)
        pen.bitmap((0, 0), _edge(outline), COLOURS[number % len(COLOURS)])
    return picture, caption, spans


def _edge(outline: Image.Image) -> Image.Image:
    """Two pixels along the outline."""
    inside = np.pad(np.asarray(outline) > 127, 1)
    core = np.ones_like(inside)
    for down in (-1, 0, 1):
        for across in (-1, 0, 1):
            core &= np.roll(inside, (down, across), (0, 1))
    return Image.fromarray(((inside & ~core)[1:-1, 1:-1]).astype(np.uint8) * 255)


def _spread(names: list[str], number: int) -> list[str]:
    """At most `number` of them, from all over."""
    return [names[int(place)] for place in np.linspace(0, len(names) - 1, min(number, len(names)))]


def _tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).movedim(-1, 0).float() / 255


def _save(picture: Image.Image, path: Path) -> None:
    with replacing(path) as part:
        file = BytesIO()
        picture.save(file, "jpeg", quality=90)
        part.write_bytes(file.getvalue())


def _flat(text: str) -> str:
    return " ".join(text.split())


def lines(written: Written) -> Iterator[str]:
    """The outcome in a few lines."""
    corrected = f", {len(written.corrected)} of them as a person corrected them" if written.corrected else ""
    yield f"{len(written.names)} records{corrected}; {written.people} subjects are on several of them."
    left_out = {"pictures": counted(written.left_out.values()), "subjects": written.subjects.most_common()}
    for what, reasons in left_out.items():
        if reasons:
            yield f"left out, {what}: " + ", ".join(f"{count} {reason}" for reason, count in reasons)
