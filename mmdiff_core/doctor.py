"""What this needs and what of it is there: packages, and the files of a large model in a ComfyUI's folders."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from .checkpoint import PICKLES, glance, listed
from .checkpoint.ipadapter import kind
from .encoders import encoder_name, file_widths, fits
from .errors import MMDiffError
from .face.models import DETECTOR, RECOGNISER, SOURCE

PACKAGES = {
    "torch": "everything",
    "safetensors": "everything",
    "einops": "everything",
    "numpy": "faces, pictures",
    "onnxruntime": "portraits (Analyze Face)",
    "insightface": "portraits, in place of onnxruntime",
    "transformers": "training, evaluation, the demo without ComfyUI",
    "diffusers": "training, evaluation, the demo without ComfyUI",
    "accelerate": "training",
}
BASES = {"sd15": "SD1.5", "sdxl": "SDXL"}
LARGE = (1024, 768)
"""Hidden and projection width of the encoder that the released checkpoint wants."""
ENCODERS = {
    "CLIP ViT-L/14": ("openai", "openai/clip-vit-large-patch14/resolve/main/model.safetensors"),
    "CLIP ViT-H/14": ("laion", "h94/IP-Adapter/resolve/main/models/image_encoder/model.safetensors"),
    "CLIP ViT-bigG/14": ("laion", "h94/IP-Adapter/resolve/main/sdxl_models/image_encoder/model.safetensors"),
}
"""By name, who made an encoder and where it is to be had, on huggingface.co."""

Folders = Callable[[str], Sequence[Path]]
"""Where a kind of model lies, such as `mmdiff`, in the order it is looked for."""


class Needed(NamedTuple):
    """A file or folder that a large model needs. folder: where it goes, link: where it is to be had; found: names."""

    what: str
    folder: str
    link: str
    found: tuple[str, ...]


class Checkpoint(NamedTuple):
    """A checkpoint by its header. what: it is, in words; encoder: widths of the vision encoder that it wants."""

    what: str
    encoder: tuple[int | None, int | None] = (None, None)


def below(models: Path) -> Folders:
    """The folders of a ComfyUI that keeps all models in one place."""
    return lambda kind: [models / kind]


def needed(folders: Folders) -> dict[str, Needed]:
    """What a large model needs, under `checkpoint`, `vision`, `base` and `faces`. Only headers of files are read."""
    found = checkpoints(folders)
    faces = {path.name for path in _files(folders("insightface"), "models/buffalo_l", ".onnx")}
    return {
        "checkpoint": Needed(
            "MM-Diff checkpoint, or an IP-Adapter in models/ipadapter",
            str(folders("mmdiff")[0]),
            "https://github.com/alibaba/mm-diff",
            tuple(f"{name}: {one.what}" for name, one in found.items()),
        ),
        "vision": _vision(folders("clip_vision"), [one.encoder for one in found.values()]),
        "base": Needed(
            "SDXL model (or SD1.5, as the checkpoint was trained for)",
            str(folders("checkpoints")[0]),
            "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/sd_xl_base_1.0.safetensors",
            tuple(path.name for path in _files(folders("checkpoints"), "", ".safetensors")),
        ),
        "faces": Needed(
            f"{DETECTOR} and {RECOGNISER} of buffalo_l (not for commercial use)",
            str(Path(folders("insightface")[0]) / "models" / "buffalo_l"),
            SOURCE,
            tuple(sorted(faces)) if {DETECTOR, RECOGNISER} <= faces else (),
        ),
    }


def checkpoints(folders: Folders) -> dict[str, Checkpoint]:
    """Every checkpoint that Load MM-Diff offers, by its name there."""
    return {name: _known(path) for name, path in listed(folders("mmdiff"), folders("ipadapter")).items()}


def _known(path: Path) -> Checkpoint:
    if path.is_dir():
        return Checkpoint("the released three files (SDXL, portraits)", LARGE)
    if path.suffix in PICKLES:
        return Checkpoint("a pickle, which is known once it is loaded")
    try:
        mmdiff = glance(path)
    except MMDiffError as error:
        return Checkpoint(str(error))
    wants = [f"{kind(mmdiff)} for {BASES[mmdiff.base]}"]
    if mmdiff.vision_widths != (None, None):
        wants.append(f"wants {encoder_name(*mmdiff.vision_widths, 'a vision encoder of its own')}")
    if mmdiff.spec.identity == "face":
        wants.append("wants faces")
    return Checkpoint(", ".join(wants), mmdiff.vision_widths)


def _vision(roots: Sequence[Path], encoders: Sequence[tuple[int | None, int | None]]) -> Needed:
    """The vision encoders that the checkpoints want, those that are missing first; without any, that of the released
    one."""
    there = {path.name: file_widths(path) for path in _files(roots, "", ".safetensors")}
    names = {encoder_name(*one, ""): one for one in encoders if one != (None, None)} or {"CLIP ViT-L/14": LARGE}
    known = {name: one for name, one in names.items() if name in ENCODERS}
    missing = [name for name, one in known.items() if not any(fits(widths, one) for widths in there.values())]
    told = missing or list(known) or ["CLIP ViT-L/14"]
    return Needed(
        " and ".join(f"{name} ({ENCODERS[name][0]})" for name in told),
        str(roots[0]),
        f"https://huggingface.co/{ENCODERS[told[0]][1]}",
        ()
        if missing
        else tuple(
            f"{name}: {encoder_name(*widths, 'no encoder that is known here')}" for name, widths in there.items()
        ),
    )


def report(models: Path | None) -> str:
    """All of it as text. models: a ComfyUI's `models` folder, or None to leave files out."""
    lines = [f"Python {sys.version.split()[0]}", "", "Packages"]
    for name, purpose in PACKAGES.items():
        version = importlib.metadata.version(name) if importlib.util.find_spec(name) else "-"
        lines.append(f"  {name:14} {version:14} {purpose}")
    if models is None:
        return "\n".join([*lines, "", "To look for files too, name a ComfyUI: doctor path/to/ComfyUI"])
    lines += ["", f"Files in {models}"]
    for one in needed(below(models)).values():
        lines.append(f"  {'found  ' if one.found else 'MISSING'}  {one.what}")
        lines += [f"             {line}" for line in one.found or (f"get {one.link}", f"into {one.folder}")]
    lines += ["", "Without any of these files, the demo model draws: see the templates with (demo) in their name."]
    return "\n".join(lines)


def _files(roots: Sequence[Path], below: str, suffix: str) -> list[Path]:
    return [path for root in roots for path in sorted((Path(root) / below).rglob(f"*{suffix}"))]
