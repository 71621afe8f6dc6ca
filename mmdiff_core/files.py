"""Files: read with a sentence where they are not what their name says, written so that the old one survives."""

from __future__ import annotations

import hashlib
import os
import pickle
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .errors import MMDiffError


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file. Raises MMDiffError with the file's name and what it really is."""
    with _opened(path) as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118


def read_shapes(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """The shapes of its tensors, and metadata, from the header of a safetensors file. Raises as `read_safetensors`."""
    with _opened(path) as file:
        return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    refuse_impostors(path)
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise MMDiffError(
            f"{path} is not a whole safetensors file ({error}). Its download was probably cut off, or another kind of "
            "file was renamed to .safetensors; download or convert it again."
        ) from error


def read_pickle(path: Path) -> dict:
    """A pickle of tensors, read without running anything in it. Raises MMDiffError with the file's name and why."""
    refuse_impostors(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise MMDiffError(
            f"{path} is not a PyTorch file of tensors alone, so nothing in it was run. It was cut off, is another kind "
            "of file under this name, or is not safe. Delete it unless you know who made it, and download the weights "
            "from their publisher."
        ) from error
    except Exception as error:  # any bytes may be under this name, and they make the reader fail in any way
        raise MMDiffError(
            f"{path} is not a whole PyTorch file ({type(error).__name__}). Its download was probably cut off, or "
            "another kind of file was renamed; download it again."
        ) from error
    if not isinstance(content, dict):
        raise MMDiffError(f"{path} holds a {type(content).__name__}; wanted is a dictionary of tensors.")
    return content


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; what is there at the end is moved into place, so that a failed or interrupted
    write leaves an old file whole.

    Raises MMDiffError where the disk is full or the folder can't be written.
    """
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            part.touch()
            mode = part.stat().st_mode
            yield part
            part.chmod(mode)  # safetensors makes files that only their owner can read
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        own = isinstance(error, OSError) and str(error.filename) == str(part)  # a name that says nothing to anybody
        raise MMDiffError(
            f"{path} could not be written ({error.strerror if own else error}), and an older file of that name is as "
            "it was. Make room on the disk, take a shorter name, or a folder that you may write to."
        ) from error


def write_safetensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write beside `path` and move into place. Raises MMDiffError as `replacing`."""
    with replacing(path) as part:
        save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, part, metadata)


def digest(files: Iterable[Path], about: str = "") -> str:
    """A hash of a text and of files' names and contents, in the order given."""
    found = hashlib.sha256(about.encode())
    for path in files:
        found.update(f"{path.name} {path.stat().st_size} ".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                found.update(block)
    return found.hexdigest()


def hash_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, in order of name."""
    found = hashlib.sha256()
    for key in sorted(tensors):
        value = tensors[key].detach().cpu().contiguous()
        found.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.view(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def path_within(folder: Path, name: str, what: str) -> Path:
    """`folder/name.safetensors`, refused where the name would leave the folder. `what` names the input in the error.

    A part of the name that is empty or only dots is refused too: it climbs, or makes a file that is all ending.
    """
    bad = any(mark in name for mark in '\\:*?"<>|') or any(ord(mark) < 32 for mark in name)
    if bad or not all(part.strip(" .") for part in name.split("/")):
        raise MMDiffError(
            f"{what} {name!r} can't be a file name below {folder}. Use letters, digits, spaces, '-' and '_' "
            "('/' for a subfolder)."
        )
    return folder / f"{name}.safetensors"


def refuse_impostors(path: Path) -> None:
    """A missing file, and the two texts that downloads leave under the name of weights."""
    if not path.is_file():
        raise MMDiffError(f"There is no file {path}. Put it there, or choose another one.")
    with open(path, "rb") as file:
        start = file.read(512).lstrip().lower()
    if not start:
        raise MMDiffError(f"{path} is empty. Its download failed; download it again.")
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise MMDiffError(f"{path} is a web page, not weights. Download the file itself, not the page that shows it.")
    if start.startswith(b"version https://git-lfs"):
        raise MMDiffError(f"{path} is a Git LFS pointer, not weights. Run `git lfs pull`, or download the file itself.")
