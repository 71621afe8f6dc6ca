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
from .face import dlib_models
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


class Faces(NamedTuple):
    """The two files of a recogniser. kind, below: the folder of models where they lie, and where in it."""

    files: tuple[str, str]
    kind: str
    below: str
    terms: str
    link: str


FACES = {
    "buffalo_l": Faces(
        (DETECTOR, RECOGNISER), "insightface", "models/buffalo_l", "of buffalo_l (not for commercial use)", SOURCE
    ),
    "dlib": Faces((dlib_models.RECOGNISER, dlib_models.MARKS), "dlib", "", "of dlib (CC0)", dlib_models.SOURCE),
}
"""By the names that specs have."""

Folders = Callable[[str], Sequence[Path]]
"""Where a kind of model lies, such as `mmdiff`, in the order it is looked for."""


class Needed(NamedTuple):
    """A file or folder that a large model needs. folder: where it goes, link: where it is to be had; found: names."""

    what: str
    folder: str
    link: str
    found: tuple[str, ...]


class Checkpoint(NamedTuple):
    """A checkpoint by its header. what: it is, in words; encoder: widths of the vision encoder that it wants;
    recogniser: of FACES, whose faces it wants, or none."""

    what: str
    encoder: tuple[int | None, int | None] = (None, None)
    recogniser: str = ""


def below(models: Path) -> Folders:
    """The folders of a ComfyUI that keeps all models in one place."""
    return lambda kind: [models / kind]


def needed(folders: Folders) -> dict[str, Needed]:
    """What a large model needs, under `checkpoint`, `vision`, `base` and `faces`. Only headers of files are read."""
    found = checkpoints(folders)
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
        "faces": _faces(folders, [one.recogniser for one in found.values()]),
    }


def checkpoints(folders: Folders) -> dict[str, Checkpoint]:
    """Every checkpoint that Load MM-Diff offers, by its name there."""
    return {name: _known(path) for name, path in listed(folders("mmdiff"), folders("ipadapter")).items()}


def _known(path: Path) -> Checkpoint:
    if path.is_dir():
        return Checkpoint("the released three files (SDXL, portraits)", LARGE, "buffalo_l")
    if path.suffix in PICKLES:
        return Checkpoint("a pickle, which is known once it is loaded")
    try:
        mmdiff = glance(path)
    except MMDiffError as error:
        return Checkpoint(str(error))
    wants = [f"{kind(mmdiff)} for {BASES[mmdiff.base]}"]
    if mmdiff.vision_widths != (None, None):
        wants.append(f"wants {encoder_name(*mmdiff.vision_widths, 'a vision encoder of its own')}")
    recogniser = mmdiff.spec.recogniser if mmdiff.spec.identity == "face" else ""
    if recogniser:
        wants.append(f"wants faces by {recogniser}")
    return Checkpoint(", ".join(wants), mmdiff.vision_widths, recogniser)


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


def _faces(folders: Folders, recognisers: Sequence[str]) -> Needed:
    """The face models that the checkpoints want, or of these those that are missing; without any, those of the released
    one."""
    names = [name for name in FACES if name in recognisers] or ["buffalo_l"]
    there = {name: _lying(folders, FACES[name]) for name in names}
    missing = [name for name in names if not there[name]]
    told = [FACES[name] for name in missing or names]
    return Needed(
        " and ".join(f"{' and '.join(one.files)} {one.terms}" for one in told),
        str(Path(folders(told[0].kind)[0]) / told[0].below),
        told[0].link,
        () if missing else tuple(file for files in there.values() for file in files),
    )


def _lying(folders: Folders, faces: Faces) -> tuple[str, ...]:
    """Both files, or none of them where one is missing."""
    names = {path.name for file in faces.files for path in _files(folders(faces.kind), faces.below, file)}
    return faces.files if names >= set(faces.files) else ()


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
