"""Our own format: one safetensors file, keys by module path, a JSON entry `mmdiff` in its metadata."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import MMDiffError
from ..files import read_safetensors, write_safetensors
from ..model.mmdiff import MMDiff
from ..spec import RELEASED, Spec
from .released import read_released

FORMAT = 1


def load_checkpoint(path: str | Path, operations: Any = nn, dtype: torch.dtype | None = torch.float32) -> MMDiff:
    """Load a checkpoint file of ours, or a released folder with the released habits.

    operations: where the heads' layers come from (torch.nn, or a host's); dtype: precision of the heads, None for the
    file's own. Raises MMDiffError naming the file, what it is and what was wanted.
    """
    path = Path(path)
    if path.is_dir():
        tensors = read_released(path)
        spec, source = RELEASED, _content_hash(tensors)
    else:
        tensors, metadata = read_safetensors(path)
        spec, source = _read_metadata(path, metadata)
    try:
        return MMDiff(tensors, spec, source, operations, dtype)
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise MMDiffError(f"{path} is an MM-Diff checkpoint with parts missing or misshapen: {error}.") from error


def save_checkpoint(mmdiff: MMDiff, path: str | Path) -> None:
    """Write our format; a failed or interrupted write leaves an older file whole."""
    tensors = mmdiff.tensors()
    entry = {
        "format": FORMAT,
        "base": mmdiff.base,
        "identity": mmdiff.spec.identity,
        "tokens_per_subject": mmdiff.heads.tokens_per_reference,
        "spec": dataclasses.asdict(mmdiff.spec),
        "source": mmdiff.source or _content_hash(tensors),
    }
    write_safetensors(Path(path), tensors, {"mmdiff": json.dumps(entry)})


def _read_metadata(path: Path, metadata: dict[str, str]) -> tuple[Spec, str]:
    if "mmdiff" not in metadata:
        raise MMDiffError(
            f"{path} is a safetensors file but no MM-Diff checkpoint (its metadata has no `mmdiff` entry). Choose "
            "another file, or make one from a released folder with `python -m mmdiff_core convert`."
        )
    try:
        entry = json.loads(metadata["mmdiff"])
        found = entry["format"]
        if found == FORMAT:
            return Spec().replace(**entry["spec"]), entry["source"]
    except (KeyError, TypeError, ValueError) as error:
        raise MMDiffError(
            f"{path} has an `mmdiff` metadata entry that can't be read ({type(error).__name__}: {error}). "
            "Download or convert it again."
        ) from error
    raise MMDiffError(f"{path} is of format {found}, this version reads format {FORMAT}; update the pack.")


def _content_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, the same for a released folder and what is converted from it."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        value = tensors[key].detach().cpu().contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
