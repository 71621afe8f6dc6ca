"""A run on one page: curves, the newest sheets and the configuration, as HTML that needs nothing beside itself."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from collections.abc import Sequence
from html import escape
from math import isfinite
from pathlib import Path

import yaml
from PIL import Image

from ..files import replacing
from .config import Config
from .losses import PARTS

LOSSES, HELD_OUT, EVALUATION = "losses.jsonl", "held-out.jsonl", "evaluation.jsonl"
SHEETS = {"samples": "Drawn by the run", "held-out": "Where words and photos look, in scenes that are not trained on"}
"""Folders of sheets, named after their steps, and what they show."""

POINTS = 200  # of a curve; each is the mean of the steps around it
WIDTH, HEIGHT, EDGE = 420, 160, 8  # of a chart, pixels
SHEET = 1600  # widest sheet, pixels

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
figure { display: inline-block; margin: 0 1rem 1rem 0; vertical-align: top }
svg { border: 1px solid #8886; display: block } img { max-width: 100% } pre { overflow-x: auto }
polyline, circle { fill: none; stroke: currentColor; stroke-width: 1.5 }
.training { color: #36c } .held { color: #c60 }
"""

Points = list[tuple[float, float]]
"""Step and value."""


def write_summary(out: Path, config: Config) -> None:
    """Write `summary.html` in a run's folder, from what the run wrote there. Raises MMDiffError as `replacing`."""
    losses, held, evaluation = (read_lines(out / name) for name in (LOSSES, HELD_OUT, EVALUATION))
    charts = [_chart(part, {"training": _points(losses, part), "held": _points(held, part)}) for part in PARTS]
    charts += [
        _chart(name, {"training": _points(losses, name)}) for name in ("gradient", "cached") if _points(losses, name)
    ]
    figures = dict.fromkeys(name for line in evaluation for name in line if name != "step")
    early = [_chart(name, {"held": _points(evaluation, name)}) for name in figures]
    sheets = [_figure(max(out.glob(f"{folder}/*.png"), default=None), said) for folder, said in SHEETS.items()]
    done = losses[-1]["step"] + 1 if losses else 0
    parts = [
        f"<h1>{escape(out.name)}</h1>",
        f"<p>{done} of {config.train.steps} steps, on {escape(config.base)}, seen by {escape(config.vision)}.</p>",
        '<h2>Losses</h2><p><b class="training">training</b>, <b class="held">held out</b></p>',
        *charts,
        *(["<h2>Early figures</h2>", *early] if early else []),
        *sheets,
        f"<h2>Configuration</h2><pre>{escape(yaml.safe_dump(dataclasses.asdict(config), sort_keys=False))}</pre>",
    ]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    page = (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{escape(out.name)}</title>\n<style>{_STYLE}</style>\n" + "\n".join(parts) + "\n</html>\n"
    )
    with replacing(out / "summary.html") as part:
        part.write_text(page, encoding="utf-8")


def read_lines(path: Path) -> list[dict[str, float]]:
    """What a run said of its steps, none where it said nothing."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _points(lines: Sequence[dict[str, float]], name: str) -> Points:
    return [(line["step"], line[name]) for line in lines if isfinite(line.get(name, float("nan")))]


def _chart(name: str, curves: dict[str, Points]) -> str:
    """An SVG of curves by their class, each thinned to the means of some stretches."""
    thin = {kind: _thinned(points) for kind, points in curves.items()}
    every = [point for points in thin.values() for point in points]
    if not every:
        return f"<figure><figcaption>{escape(name)}: no values</figcaption></figure>"
    (left, right), (low, high) = ((min(axis), max(axis)) for axis in zip(*every, strict=True))

    def place(step: float, value: float) -> str:
        x = EDGE + (step - left) / ((right - left) or 1) * (WIDTH - 2 * EDGE)
        y = HEIGHT - EDGE - (value - low) / ((high - low) or 1) * (HEIGHT - 2 * EDGE)
        return f"{x:.1f},{y:.1f}"

    drawn = []
    for kind, points in thin.items():
        drawn.append(f'<polyline class="{kind}" points="{" ".join(place(*point) for point in points)}"/>')
        if len(points) == 1:
            x, y = place(*points[0]).split(",")
            drawn.append(f'<circle class="{kind}" cx="{x}" cy="{y}" r="3"/>')
    said = f"{escape(name)}: {low:.4g} to {high:.4g}, steps {left:.0f} to {right:.0f}"
    box = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{said}">'
    return f"<figure>{box}{''.join(drawn)}</svg><figcaption>{said}</figcaption></figure>"


def _thinned(points: Points) -> Points:
    stretch = -(-len(points) // POINTS)
    parts = [points[start : start + stretch] for start in range(0, len(points), stretch or 1)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]


def _figure(path: Path | None, said: str) -> str:
    """The picture in the page itself, or nothing where there is none."""
    if path is None:
        return ""
    with Image.open(path) as picture:
        picture.thumbnail((SHEET, 8 * SHEET))
        buffer = io.BytesIO()
        picture.convert("RGB").save(buffer, format="JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode()
    text = escape(f"{said} ({path.stem})")
    return f'<h2>{escape(said)}</h2><img alt="{text}" src="data:image/jpeg;base64,{data}"><p>{escape(path.stem)}</p>'
