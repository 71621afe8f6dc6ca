"""A training run as one file that others use, with a card beside it: the command `pack`."""

from __future__ import annotations

import argparse
import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from io import BytesIO
from pathlib import Path

from PIL import Image

from .checkpoint import load_checkpoint, save_checkpoint
from .encoders import encoder_name
from .errors import MMDiffError
from .files import replacing
from .model.mmdiff import MMDiff
from .picture_files import open_picture

THUMBNAIL = 512  # pixels of its longer side
LAST = 100  # steps that the card's losses are means of
BASES = {"sdxl": ("SDXL", "stable-diffusion-xl-v1-base"), "sd15": ("Stable Diffusion 1.5", "stable-diffusion-v1")}
RECOGNISERS = {
    "buffalo_l": "insightface's buffalo_l, whose licence allows non-commercial research only",
    "dlib": "dlib's (128 numbers), CC0",
}


@dataclass(frozen=True)
class Wording:
    """What a run does not know of itself. licence: of the weights, by its SPDX name. note: anything more to say."""

    title: str
    author: str
    licence: str
    note: str = ""


def add_to(commands: argparse._SubParsersAction) -> None:
    """Add `pack` to the program's commands."""
    pack = commands.add_parser("pack", help="make one file and a card of a training run, for others")
    pack.add_argument("run", type=Path, help="the folder that `train` wrote")
    pack.add_argument("out", type=Path, help="the .safetensors file to write; its card is written beside it as .md")
    pack.add_argument("--title", help="what it is called (default: the name of the file)")
    pack.add_argument("--author", required=True, help="who made it")
    pack.add_argument("--licence", "--license", required=True, help="of the weights, such as openrail++ or CC-BY-4.0")
    pack.add_argument("--note", default="", help="anything more for the card, such as what the pictures were")
    pack.add_argument("--thumbnail", type=Path, help="a picture to show (default: the run's last sample sheet)")
    pack.add_argument("--results", type=Path, metavar="FOLDER", help="an evaluation of it, for the card")
    pack.add_argument("--half", action="store_true", help="in 16 bits, half as large")
    pack.set_defaults(command=_pack)


def _pack(arguments: argparse.Namespace) -> None:
    words = Wording(arguments.title or arguments.out.stem, arguments.author, arguments.licence, arguments.note)
    pack(arguments.run, arguments.out, words, arguments.thumbnail, arguments.results, arguments.half)
    size = arguments.out.stat().st_size / 1e6
    print(f"Wrote {arguments.out} ({size:.1f} MB) and {arguments.out.with_suffix('.md')}.")


def pack(
    run: Path,
    out: Path,
    words: Wording,
    thumbnail: Path | None = None,
    results: Path | None = None,
    half: bool = False,
) -> None:
    """Write a run's last checkpoint to `out`, with its spec, ModelSpec's fields and a thumbnail, and its card.

    Raises MMDiffError where the folder is no run, `out` is there already, or one of the files named is not.
    """
    from .training.state import about_run

    if out.suffix != ".safetensors":
        raise MMDiffError(f"The file to write is {out}; it must end in .safetensors.")
    if taken := [path for path in (out, out.with_suffix(".md")) if path.exists()]:
        raise MMDiffError(f"There is a file {taken[0]} already. Name another one, or move it away.")
    checkpoint = max(run.glob("step-*.safetensors"), default=None)
    if checkpoint is None:
        raise MMDiffError(f"{run} holds no step-*.safetensors; name the folder that a training run wrote.")
    steps, config = about_run(run / "state.safetensors")
    mmdiff = load_checkpoint(checkpoint, dtype=None)
    if half:
        mmdiff = MMDiff({key: value.half() for key, value in mmdiff.tensors().items()}, mmdiff.spec, "", dtype=None)
    name, architecture = BASES[mmdiff.base]
    about = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{architecture}/mm-diff",
        "modelspec.implementation": "mm-diff",
        "modelspec.title": words.title,
        "modelspec.author": words.author,
        "modelspec.license": words.licence,
        "modelspec.date": date.today().isoformat(),
        "modelspec.resolution": f"{config.data.resolution}x{config.data.resolution}",
        "modelspec.usage_hint": "Load it with Load MM-Diff in ComfyUI, from models/mmdiff.",
    }
    if words.note:
        about["modelspec.description"] = words.note
    picture = thumbnail or max((run / "samples").glob("*.png"), default=None)
    if picture is not None:
        about["modelspec.thumbnail"] = _thumbnail(picture)
    trained = {
        "steps": steps,
        "samples a step": f"{config.train.batch * config.train.accumulation} in each process",
        "resolution": config.data.resolution,
        "data": f"{config.data.kind}, {Path(str(config.data.options.get('folder', ''))).name}".strip(", "),
        "base": Path(config.base).name,
        "started from": Path(config.model.start).name or "fresh weights",
        "constraints": f"text {config.loss.text:g}, image {config.loss.image:g} ({config.loss.form})",
        **_losses(run / "losses.jsonl"),
    }
    measured = _results(results) if results else ""
    save_checkpoint(mmdiff, out, about)
    with replacing(out.with_suffix(".md")) as part:
        part.write_text(card(mmdiff, out.name, name, words, trained, measured), encoding="utf-8")


def card(
    mmdiff: MMDiff, file: str, base: str, words: Wording, trained: Mapping[str, object], measured: str = ""
) -> str:
    """The model card in Markdown, with the head that model hubs read."""
    wants = [f"- a base of {base}'s shape"]
    hidden, projection = mmdiff.vision_widths
    if hidden or projection:
        wants.append(f"- the vision encoder {encoder_name(hidden, projection, 'it was trained with')}")
    spec = mmdiff.spec
    if spec.identity == "face":
        wants.append(f"- faces by {RECOGNISERS[spec.recogniser]}")
    return "\n".join(
        [
            "---",
            f"license: {json.dumps(words.licence)}",
            "tags: [mm-diff, text-to-image, subject-driven]",
            "---",
            "",
            f"# {words.title}",
            "",
            *([words.note, ""] if words.note else []),
            f"An MM-Diff checkpoint by {words.author}: it draws {_drawn(spec.identity)} from photos, without training. "
            f"Licence: {words.licence}; the base and what else it wants have their own.",
            "",
            "## Use",
            "",
            f"Put `{file}` into `models/mmdiff` of a ComfyUI with MM-Diff and choose it in Load MM-Diff, or read it "
            f'with `mmdiff_core.load_checkpoint("{file}")`. It wants',
            "",
            *wants,
            "",
            "## Training",
            "",
            "| | |",
            "|---|---|",
            *(f"| {key} | {value} |" for key, value in trained.items()),
            "",
            *(["## Measured", "", measured, ""] if measured else []),
        ]
    )


def _drawn(identity: str) -> str:
    return "people" if identity == "face" else "your subjects"


def _losses(path: Path) -> dict[str, str]:
    """Means over the last steps."""
    if not path.is_file():
        return {}
    rows = [json.loads(line) for line in path.read_text().splitlines()[-LAST:]]
    means = {name: sum(row[name] for row in rows) / len(rows) for name in ("denoise", "text", "image") if rows}
    return {f"loss `{name}`, mean of the last {len(rows)} steps": f"{value:.4f}" for name, value in means.items()}


def _results(folder: Path) -> str:
    path = folder / "results.md"
    if not path.is_file():
        raise MMDiffError(f"{folder} holds no results.md; name the folder that an evaluation wrote as its --out.")
    lines = path.read_text(encoding="utf-8").strip().removeprefix("# ").splitlines()
    return "\n".join(line for line in lines if not line.startswith("- "))  # facts, with folders of this machine


def _thumbnail(path: Path) -> str:
    """A small JPEG as a data URL."""
    picture = open_picture(path)
    picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    file = BytesIO()
    picture.save(file, "jpeg", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
