"""Checkpoint files: our own format, one safetensors file with a JSON entry `mmdiff` in its metadata, and what else is
read as a checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import MMDiffError
from ..files import hash_of, read_pickle, read_safetensors, read_shapes, write_safetensors
from ..model.mmdiff import MMDiff
from ..spec import RELEASED, Spec
from .ipadapter import flattened, is_ipadapter, read_ipadapter
from .released import read_released

FORMAT = 1
PICKLES = (".bin", ".pt", ".pth", ".ckpt")

_LORA_ENDINGS = ("lora_up.weight", "lora.up.weight", "lora_B.weight", "_lora.up.weight")


def load_checkpoint(
    path: str | Path,
    operations: Any = nn,
    dtype: torch.dtype | None = torch.float32,
    faceid_plus: str | None = None,
) -> MMDiff:
    """Load a checkpoint file of ours, a released folder or a file of the IP-Adapter family, with their own habits.

    operations: where the heads' layers come from (torch.nn, or a host's); dtype: precision of the heads, None for the
    file's own; faceid_plus: "v1" or "v2" for an IP-Adapter FaceID Plus that does not say. Raises MMDiffError naming the
    file, what it is and what was wanted.
    """
    path = Path(path)
    if path.is_dir():
        tensors, spec = read_released(path), RELEASED
        source = hash_of(tensors)
    else:
        pickled = path.suffix in PICKLES
        content, metadata = (flattened(read_pickle(path)), {}) if pickled else read_safetensors(path)
        tensors, spec, source = _understood(path, content, metadata, faceid_plus)
        source = source or hash_of(tensors)
    return _assembled(path, tensors, spec, source, operations, dtype)


def glance(path: Path) -> MMDiff:
    """What a safetensors file is a checkpoint of, from its header alone: the tensors are on the meta device.

    Raises MMDiffError as `load_checkpoint` does, but for values that are no numbers.
    """
    shapes, metadata = read_shapes(path)
    content = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return _assembled(path, *_understood(path, content, metadata, None), nn, None)


def _understood(
    path: Path, content: Mapping[str, Tensor], metadata: Mapping[str, str], faceid_plus: str | None
) -> tuple[Mapping[str, Tensor], Spec, str]:
    """Tensors by our own keys, spec, and the source that a file names; "" where it names none."""
    if "mmdiff" in metadata:
        return content, *_read_metadata(path, metadata)
    if not is_ipadapter(content):
        raise MMDiffError(f"{path} is {_stranger(content)}")
    return *read_ipadapter(content, path, faceid_plus), ""


def _assembled(
    path: Path, tensors: Mapping[str, Tensor], spec: Spec, source: str, operations: Any, dtype: torch.dtype | None
) -> MMDiff:
    try:
        return MMDiff(tensors, spec, source, operations, dtype)
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise MMDiffError(f"{path} is a checkpoint with parts missing or misshapen: {error}.") from error


def save_checkpoint(mmdiff: MMDiff, path: str | Path, about: Mapping[str, str] | None = None) -> None:
    """Write our format; an older file survives a failed write. about: more entries for its metadata."""
    tensors = mmdiff.tensors()
    entry = {
        "format": FORMAT,
        "base": mmdiff.base,
        "identity": mmdiff.spec.identity,
        "tokens_per_subject": mmdiff.tokens_per_reference,
        "spec": mmdiff.spec.said(),
        "source": mmdiff.source or hash_of(tensors),
    }
    write_safetensors(Path(path), tensors, {**(about or {}), "mmdiff": json.dumps(entry)})


def _read_metadata(path: Path, metadata: dict[str, str]) -> tuple[Spec, str]:
    try:
        entry = json.loads(metadata["mmdiff"])
        found = entry["format"]
        if found == FORMAT:
            return Spec.heard(entry["spec"]), entry["source"]
    except (KeyError, TypeError, ValueError) as error:
        raise MMDiffError(
            f"{path} has an `mmdiff` metadata entry that can't be read ({type(error).__name__}: {error}). "
            "Download or convert it again."
        ) from error
    raise MMDiffError(f"{path} is of format {found}, this version reads format {FORMAT}; update the pack.")


def _stranger(content: Mapping[str, object]) -> str:
    """What a file without our entry is, and what to do."""
    if any(key.startswith(("ip_adapter_proj_model.", "double_blocks.")) for key in content):
        return "an IP-Adapter for Flux; read are those for SD1.5 and SDXL. Choose one of these."
    if any(key.endswith(_LORA_ENDINGS) for key in content) and not any(key.startswith("heads.") for key in content):
        return "a LoRA, no checkpoint. Put it into models/loras and load it with the host's Load LoRA."
    return (
        "neither an MM-Diff checkpoint (its metadata has no `mmdiff` entry) nor an IP-Adapter (it has no image_proj "
        "and ip_adapter). Choose another file, or make one from a released folder with `python -m mmdiff_core convert`."
    )
