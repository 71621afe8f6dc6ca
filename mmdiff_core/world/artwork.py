"""Drawings by subject: which icon of a package shows which subject, rasterised and cut to its outline."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import resvg_py
from PIL import Image

from .packages import Package, members

SUBJECTS = Path(__file__).with_name("subjects.tsv")
THINNEST = 0.14  # share of its square that a drawing must fill; thinner ones are not seen in a scene
# Drawings of something else than their icon's name says, by eye.
MISDRAWN = {
    ("blob", "cricket"),
    ("emojitwo", "cricket"),
    ("emojitwo", "motorcycle"),
    ("emojitwo", "speedboat"),
    ("fluent-3d", "paperclip"),
    ("fxemoji", "boar"),
    ("fxemoji", "keyboard"),
    ("fxemoji", "sailboat"),
    ("fxemoji", "sunglasses"),
}


class Named(NamedTuple):
    """A subject that captions can name. `code`: its code points, hexadecimal, joined by '-'."""

    code: str
    determiner: str
    name: str
    category: str


def named_subjects() -> list[Named]:
    """The subjects worth drawing, as listed in subjects.tsv."""
    return [Named(*line.split("\t")) for line in SUBJECTS.read_text().splitlines()]


def icon_names(archives: list[Path]) -> dict[str, set[str]]:
    """Code -> every name that the packages which state their icons' code points use for it."""
    names: dict[str, set[str]] = {}
    for archive in archives:
        for content in members(archive, "/chars.json").values():
            for code, name in json.loads(content).items():
                names.setdefault(_plain(code), set()).add(name)
    return names


def drawings(
    package: Package, archive: Path, names: dict[str, set[str]], size: int
) -> Iterator[tuple[Named, Image.Image]]:
    """Every listed subject that the package draws, as an RGBA sprite whose longer side is `size` pixels."""
    pictures = _raster(archive) if package.style == "fluent-3d" else _vector(archive, names)
    for subject in named_subjects():
        if subject.code in pictures and (package.style, subject.name) not in MISDRAWN:
            sprite = cut(pictures[subject.code](), size)
            if sprite is not None:
                yield subject, sprite


def cut(picture: Image.Image, size: int) -> Image.Image | None:
    """The picture's visible part with its longer side at `size` pixels; None where too little would be seen."""
    box = picture.getchannel("A").point(lambda value: 255 * (value > 8)).getbbox()
    if box is None:
        return None
    picture = picture.crop(box)
    scale = size / max(picture.size)
    sprite = picture.resize([max(1, round(side * scale)) for side in picture.size], Image.Resampling.LANCZOS)
    seen = sum(value * count for value, count in enumerate(sprite.getchannel("A").histogram())) / 255
    return sprite if seen >= THINNEST * size * size else None


def _raster(archive: Path) -> dict:
    files = members(archive, ".webp")
    return {
        _plain(Path(path).stem): lambda content=content: Image.open(io.BytesIO(content)).convert("RGBA")
        for path, content in files.items()
    }


def _vector(archive: Path, names: dict[str, set[str]]) -> dict:
    (content,) = members(archive, "/icons.json").values()
    icons = json.loads(content)
    parents = {name: alias["parent"] for name, alias in icons.get("aliases", {}).items()}
    # FxEmojis writes its names without separators.
    own = {name.replace("-", ""): name for name in [*parents, *icons["icons"]]}
    pictures = {}
    for code, known in names.items():
        for name in sorted(known):
            icon = own.get(name.replace("-", ""))
            while icon in parents:
                icon = parents[icon]
            if icon in icons["icons"]:
                pictures[code] = lambda icon=icon: _rasterised(icons, icon)
                break
    return pictures


def _rasterised(icons: dict, name: str, pixels: int = 256) -> Image.Image:
    icon = icons["icons"][name]
    left, top, width, height = (
        icon.get(key, icons.get(key, default))
        for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
    )
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">{icon["body"]}</svg>'
    )
    png = resvg_py.svg_to_bytes(svg_string=svg, width=pixels, height=pixels)
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


def _plain(code: str) -> str:
    """Code points without the one that only asks for the coloured form."""
    return "-".join(point for point in code.lower().split("-") if point != "fe0f")
