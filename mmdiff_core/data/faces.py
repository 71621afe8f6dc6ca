"""Face vectors and crops of a record's segments, computed once and kept beside it as NAME.faces.safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..files import write_safetensors
from .validate import BrokenRecord


class SegmentFace(NamedTuple):
    """vector: (D_id,), of the length the recogniser gave it. crop: (H, W, 3) uint8, the face aligned."""

    vector: Tensor
    crop: Tensor


def faces_path(folder: Path, name: str) -> Path:
    """Where the faces of a record are."""
    return folder / f"{name}.faces.safetensors"


def write_faces(path: Path, faces: Mapping[int, SegmentFace], recogniser: str) -> None:
    """Write faces by the number of their segment. recogniser: as in a spec. An older file survives a failed write."""
    tensors = {f"{number}.{part}": value for number, face in faces.items() for part, value in face._asdict().items()}
    write_safetensors(path, tensors, {"recogniser": recogniser})


def faces_in(path: Path, recogniser: str) -> list[int]:
    """The segments that have a face. Raises BrokenRecord where the file is missing, broken or of another recogniser."""
    with _opened(path, recogniser) as file:
        return sorted({int(key.partition(".")[0]) for key in file.keys()})  # noqa: SIM118


def read_face(path: Path, segment: int, recogniser: str) -> SegmentFace:
    """The face of one segment. Raises BrokenRecord as `faces_in`."""
    with _opened(path, recogniser) as file:
        return SegmentFace(*(file.get_tensor(f"{segment}.{part}") for part in SegmentFace._fields))


def _opened(path: Path, recogniser: str) -> safe_open:
    try:
        file = safe_open(path, framework="pt")
    except FileNotFoundError as error:
        raise BrokenRecord(path, "the faces are missing; `python -m mmdiff_core annotate` finds them") from error
    except (OSError, SafetensorError) as error:
        raise BrokenRecord(path, f"not a whole safetensors file ({error})") from error
    found = (file.metadata() or {}).get("recogniser", "nobody")
    if found != recogniser:
        raise BrokenRecord(path, f"the faces are by {found}, wanted are those by {recogniser}")
    return file
