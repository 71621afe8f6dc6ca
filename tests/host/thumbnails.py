"""The pictures of the templates, each drawn by the demo model from its posted form on a real server.

    COMFYUI_DIR=~/ComfyUI ~/ComfyUI/.venv/bin/python tests/host/thumbnails.py [words of the names]

writes example_workflows/NAME.jpg, of all templates or of those whose name has one of the words. A large model's
template shows what the demo model draws of the same kind, and says so.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from live_server import ROOT, Server
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT, SIDE = 800, 512, 288
"""Of a thumbnail, and of the panel with the subjects on its left; pixels."""
PANEL, FRAME = (33, 37, 45), (56, 63, 75)
ONE, TWO = "MM-Diff 3 - One Subject (demo)", "MM-Diff 4 - Two Subjects by Word (demo)"


class Card(NamedTuple):
    """caption, subjects: what the panel shows, and what takes the place of Load Image. pictures: the nodes that show
    them. prompt: for a large model's template, of the demo's that is drawn in its place."""

    caption: str
    subjects: tuple[str, ...]
    pictures: tuple[str, ...] = ("SaveImage",)
    prompt: str | None = None


PAIR = "a toy<|subj|> to the left of a toy<|subj|> "
CARDS = {
    "MM-Diff 1 - Draw My Subject (demo).app": Card("my picture", ("penguin",)),
    "MM-Diff 2 - Draw My Two Subjects (demo).app": Card("my pictures", ("penguin", "fire engine")),
    ONE: Card("one subject", ("penguin",)),
    TWO: Card("two words", ("penguin", "fire engine")),
    "MM-Diff 5 - With and Without (demo)": Card("without, and with", ("owl",)),
    "MM-Diff 6 - A Subject Beside a Stranger (demo)": Card("and a stranger", ("penguin",)),
    "MM-Diff 7 - Keep Pictures with Everyone (demo)": Card(
        "who is there?", ("penguin", "fire engine"), ("MMDiffCheckCast",)
    ),
    "MM-Diff 8 - Put a Subject into a Picture (demo)": Card(
        "into a picture", ("penguin",), ("PreviewImage", "SaveImage")
    ),
    "MM-Diff 9 - Hires Fix with Regions (demo)": Card("two regions", ("kiwi", "ladybug")),
    "MM-Diff 10 - Refine Each Subject (demo)": Card(
        "refined one by one", ("penguin", "fire engine"), ("PreviewImage", "SaveImage")
    ),
    "MM-Diff 11 - Draw My Portrait (SDXL).app": Card("one person", ("owl",), prompt="a toy<|subj|> in the snow"),
    "MM-Diff 12 - Draw Two People (SDXL).app": Card("my two people", ("owl", "penguin"), prompt=PAIR + "in the forest"),
    "MM-Diff 13 - Two People (SDXL)": Card("two people", ("owl", "ladybug"), prompt=PAIR + "in a meadow"),
    "MM-Diff 14 - Several Photos of One Person (SDXL)": Card(
        "several photos", ("kiwi",), prompt="a toy<|subj|> in a meadow"
    ),
    "MM-Diff 15 - Any Subject (SD1.5, own checkpoint)": Card(
        "any subject", ("fire engine",), prompt="a toy<|subj|> in space"
    ),
    "MM-Diff 16 - Two Subjects with IP-Adapter Plus (SD1.5)": Card(
        "IP-Adapter Plus, by word", ("popcorn", "kiwi"), prompt=PAIR + "on the beach"
    ),
    "MM-Diff 17 - Style from an IPAdapter (SD1.5)": Card(
        "a style and a subject", ("owl",), prompt="a watercolor of a toy<|subj|> in the forest"
    ),
}


def graph_of(name: str, card: Card) -> dict:
    """What is queued: the template's posted form, or the demo's that stands for it, with the card's subjects."""
    shown = name if card.prompt is None else (ONE, TWO)[len(card.subjects) - 1]
    graph = json.loads((ROOT / "tests" / "host" / "workflows" / f"{shown}.json").read_text())
    subjects = iter(card.subjects)
    for node in graph.values():
        if node["class_type"] in ("LoadImage", "MMDiffDemoSubject"):
            node |= {"class_type": "MMDiffDemoSubject", "inputs": {"subject": next(subjects)}}
        if node["class_type"] == "MMDiffBindSubjects" and card.prompt is not None:
            node["inputs"]["prompt"] = card.prompt
    return graph


def drawn(server: Server, graph: dict, kinds: tuple[str, ...]) -> list[Image.Image]:
    """The pictures that nodes of these kinds show, in the order of the kinds."""
    entry = server.queue(graph)
    assert entry["status"]["status_str"] == "success", entry["status"]
    files = [
        file
        for kind in kinds
        for number, node in graph.items()
        if node["class_type"] == kind
        for file in entry["outputs"][number]["images"]
    ]
    where = "/view?filename={filename}&subfolder={subfolder}&type={type}"
    return [
        Image.open(io.BytesIO(server.get(where.format(**file).replace(" ", "%20")))).convert("RGB") for file in files
    ]


def thumbnail(card: Card, pictures: list[Image.Image]) -> Image.Image:
    """Subjects and caption on the left, the pictures in rows on the right."""
    card_picture = Image.new("RGB", (WIDTH, HEIGHT), PANEL)
    draw = ImageDraw.Draw(card_picture)
    tile = 220 if len(card.subjects) == 1 else 190
    top = (HEIGHT - 60 - (tile + 12) * len(card.subjects)) // 2
    for number, name in enumerate(card.subjects):
        left, upper = (SIDE - tile) // 2, top + number * (tile + 12)
        draw.rounded_rectangle((left, upper, left + tile, upper + tile), 10, FRAME)
        with Image.open(ROOT / "mmdiff_core" / "demo" / "subjects" / f"{name}.png") as opened:
            photo = opened.convert("RGBA").resize((tile - 10, tile - 10), Image.Resampling.LANCZOS)
        card_picture.paste(photo, (left + 5, upper + 5), photo)
    draw.text((SIDE // 2, HEIGHT - 40), card.caption, "white", ImageFont.load_default(26), anchor="mm")
    columns = {1: 1, 2: 2}.get(len(pictures), 4)
    width = (WIDTH - SIDE) // columns
    height = width * pictures[0].height // pictures[0].width
    upper = (HEIGHT - height * -(-len(pictures) // columns)) // 2
    for number, picture in enumerate(pictures):
        place = (SIDE + width * (number % columns), upper + height * (number // columns))
        card_picture.paste(picture.resize((width, height), Image.Resampling.LANCZOS), place)
    if card.prompt is not None:
        draw.rounded_rectangle((SIDE + 8, HEIGHT - 46, SIDE + 332, HEIGHT - 8), 6, "black")
        draw.text((SIDE + 20, HEIGHT - 27), "shown: the demo model", "white", ImageFont.load_default(26), anchor="lm")
    return card_picture


def main(words: list[str]) -> None:
    names = [name for name in CARDS if not words or any(word in name for word in words)]
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder)) as server:
        for name in names:
            pictures = drawn(server, graph_of(name, CARDS[name]), CARDS[name].pictures)
            path = ROOT / "example_workflows" / f"{name}.jpg"
            thumbnail(CARDS[name], pictures).save(path, quality=88)
            print(path.name, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
