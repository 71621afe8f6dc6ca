"""The layout that alibaba/mm-diff released (reference: mmdiff/pipeline.py, load_from_checkpoint)."""

from __future__ import annotations

import re
from pathlib import Path

from torch import Tensor

from ..errors import MMDiffError
from ..files import read_pickle

UNET = "unet_adapter_weights.bin"
TEXT = "text_encoder_adapter_weights.bin"
CUSTOM = "custom_weights.bin"
RELEASED_FILES = (UNET, TEXT, CUSTOM)

_CUSTOM_PARTS = {
    "image_encoder": "vision",
    "obj_embeds_proj": "heads.entity",
    "face_embeds_proj": "heads.subject",
    "mm_fuse_one": "heads.fuse.l",
    "mm_fuse_two": "heads.fuse.g",
}
_UNET_KEY = re.compile(r"\d+\.to_(q|k|v|out)_lora\.(down|up)\.weight|\d+\.to_[kv]_lora_image\.(down|up)\.weight")
_TEXT_KEY = re.compile(
    r"text_encoder(?P<second>_2)?\.text_model\.encoder\."
    r"(?P<layer>layers\.\d+\.(?:self_attn|mlp))\."
    r"(?:(?P<name>\w+)\.lora_linear_layer|to_(?P<old_name>q|k|v|out)_lora)\."
    r"(?P<side>down|up)\.weight"
)


def is_released(folder: Path) -> bool:
    """Whether a folder holds the three released files."""
    return all((folder / name).is_file() for name in RELEASED_FILES)


def read_released(folder: Path) -> dict[str, Tensor]:
    """The tensors of a released folder, by the keys of our own format.

    Raises MMDiffError where a file is missing, is not weights, or has parts or keys that were never released.
    """
    missing = [name for name in RELEASED_FILES if not (folder / name).is_file()]
    if missing:
        raise MMDiffError(
            f"The folder {folder} lacks {' and '.join(missing)}; a released checkpoint is the three files "
            f"{', '.join(RELEASED_FILES)} side by side. Download what is missing."
        )
    custom = read_pickle(folder / CUSTOM)
    if absent := _CUSTOM_PARTS.keys() - custom.keys():
        raise MMDiffError(f"{folder / CUSTOM} has no part {', '.join(sorted(absent))}; it is not MM-Diff's file.")
    tensors = {
        f"{ours}.{key}": value
        for theirs, ours in _CUSTOM_PARTS.items()
        for key, value in _named_tensors(custom[theirs], f"{folder / CUSTOM}, part '{theirs}',").items()
        if value.is_floating_point()  # some transformers versions also saved the integer position ids
    }
    for key, value in _named_tensors(read_pickle(folder / UNET), folder / UNET).items():
        if not _UNET_KEY.fullmatch(key):
            raise MMDiffError(f"{folder / UNET} has the key '{key}', which no released checkpoint has.")
        tensors[f"unet.{key}"] = value
    for key, value in _named_tensors(read_pickle(folder / TEXT), folder / TEXT).items():
        match = _TEXT_KEY.fullmatch(key)
        if match is None:
            raise MMDiffError(f"{folder / TEXT} has the key '{key}', which no released checkpoint has.")
        encoder = "g" if match["second"] else "l"
        name = match["name"] or f"{match['old_name']}_proj"
        tensors[f"text.{encoder}.{match['layer']}.{name}.{match['side']}.weight"] = value
    return tensors


def _named_tensors(content: object, where: object) -> dict[str, Tensor]:
    """The content of a file or of a part of it, or an error where it is anything but tensors under names."""
    if not isinstance(content, dict):
        raise MMDiffError(f"{where} holds a {type(content).__name__}; wanted is a dictionary of tensors.")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise MMDiffError(
                f"{where} holds a {type(value).__name__} under {key!r}; wanted are tensors under names. It is not "
                "MM-Diff's file; download that one."
            )
    return content
