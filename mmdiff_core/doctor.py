"""What this needs and what of it is there: packages, and the files of a large model in a ComfyUI's folders."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open

from .checkpoint import is_released
from .checkpoint.ipadapter import is_ipadapter
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
SUBJECTS = "subjects"
POSITIONS = "vision_model.embeddings.position_embedding.weight"
LARGE = (257, 1024)  # positions and width of CLIP ViT-L/14 at 224 pixels

Folders = Callable[[str], Sequence[Path]]
"""Where a kind of model lies, such as `mmdiff`, in the order it is looked for."""


class Wanted(NamedTuple):
    """A file or folder that a large model needs. folder: where it goes, link: where it is to be had; found: names."""

    what: str
    folder: str
    link: str
    found: tuple[str, ...]


def below(models: Path) -> Folders:
    """The folders of a ComfyUI that keeps all models in one place."""
    return lambda kind: [models / kind]


def wanted(folders: Folders) -> dict[str, Wanted]:
    """What a portrait needs, under `checkpoint`, `vision`, `base` and `faces`. Only headers of files are read."""
    faces = {path.name for path in _files(folders("insightface"), "models/buffalo_l", ".onnx")}
    return {
        "checkpoint": Wanted(
            "MM-Diff checkpoint, or an IP-Adapter in models/ipadapter",
            str(folders("mmdiff")[0]),
            "https://github.com/alibaba/mm-diff",
            tuple(f"{name}: {what}" for name, what in checkpoints([*folders("mmdiff"), *folders("ipadapter")]).items()),
        ),
        "vision": Wanted(
            "CLIP ViT-L/14 (openai)",
            str(folders("clip_vision")[0]),
            "https://huggingface.co/openai/clip-vit-large-patch14/resolve/main/model.safetensors",
            tuple(path.name for path in _files(folders("clip_vision"), "", ".safetensors") if _is_large(path)),
        ),
        "base": Wanted(
            "SDXL model (or SD1.5, as the checkpoint was trained for)",
            str(folders("checkpoints")[0]),
            "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/sd_xl_base_1.0.safetensors",
            tuple(path.name for path in _files(folders("checkpoints"), "", ".safetensors")),
        ),
        "faces": Wanted(
            f"{DETECTOR} and {RECOGNISER} of buffalo_l (not for commercial use)",
            str(Path(folders("insightface")[0]) / "models" / "buffalo_l"),
            SOURCE,
            tuple(sorted(faces)) if {DETECTOR, RECOGNISER} <= faces else (),
        ),
    }


def checkpoints(roots: Sequence[Path]) -> dict[str, str]:
    """Every checkpoint below the folders, and what it is by its header."""
    found = {}
    for root in roots:
        for path in sorted(root.rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.is_dir() and is_released(path):
                found[name] = "the released three files (SDXL, portraits)"
            elif path.suffix == ".safetensors" and SUBJECTS not in path.relative_to(root).parts:
                found[name] = _described(path)
    return found


def report(models: Path | None) -> str:
    """All of it as text. models: a ComfyUI's `models` folder, or None to leave files out."""
    lines = [f"Python {sys.version.split()[0]}", "", "Packages"]
    for name, purpose in PACKAGES.items():
        version = importlib.metadata.version(name) if importlib.util.find_spec(name) else "-"
        lines.append(f"  {name:14} {version:14} {purpose}")
    if models is None:
        return "\n".join([*lines, "", "To look for files too, name a ComfyUI: doctor path/to/ComfyUI"])
    lines += ["", f"Files in {models}"]
    for one in wanted(below(models)).values():
        lines.append(f"  {'found  ' if one.found else 'MISSING'}  {one.what}")
        lines += [f"             {line}" for line in one.found or (f"get {one.link}", f"into {one.folder}")]
    lines += ["", "Without any of these files, the demo model draws: see the templates with (demo) in their name."]
    return "\n".join(lines)


def _files(roots: Sequence[Path], below: str, suffix: str) -> list[Path]:
    return [path for root in roots for path in sorted((Path(root) / below).rglob(f"*{suffix}"))]


def _described(path: Path) -> str:
    try:
        with safe_open(path, framework="pt") as file:
            entry = json.loads((file.metadata() or {}).get("mmdiff", "null"))
            adapter = is_ipadapter(dict.fromkeys(file.keys()))
    except (SafetensorError, OSError, ValueError) as error:
        return f"not a whole safetensors file ({error})"
    if entry is None:
        return "an IP-Adapter" if adapter else "no checkpoint that is known here"
    return f"{entry.get('base')}, {'portraits' if entry.get('spec', {}).get('identity') == 'face' else 'any subject'}"


def _is_large(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            return POSITIONS in file.keys() and tuple(file.get_slice(POSITIONS).get_shape()) == LARGE  # noqa: SIM118
    except (SafetensorError, OSError):
        return False
