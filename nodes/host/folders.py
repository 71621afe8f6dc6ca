"""Where the pack's files are: checkpoints in `models/mmdiff`, subjects in `models/mmdiff/subjects`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import folder_paths

from ...mmdiff_core import MMDiffError
from ...mmdiff_core.checkpoint import is_released

CHECKPOINTS = "mmdiff"
SUBJECTS = "subjects"

folder_paths.add_model_folder_path(CHECKPOINTS, os.path.join(folder_paths.models_dir, CHECKPOINTS))


def _roots() -> list[Path]:
    return [Path(folder) for folder in folder_paths.get_folder_paths(CHECKPOINTS)]


def checkpoint_names() -> list[str]:
    """Every `.safetensors` below the folders, and every folder there that holds the released three files."""
    names = set()
    for root in _roots():
        for folder, files in _walk(root):
            if SUBJECTS not in folder.relative_to(root).parts:
                names.update((folder / file).relative_to(root).as_posix() for file in files)
            if is_released(folder) and folder != root:
                names.add(folder.relative_to(root).as_posix())
    return sorted(names)


def checkpoint_path(name: str) -> Path:
    """Where a listed checkpoint is."""
    return _found(name, _roots(), "checkpoint")


def subject_names() -> list[str]:
    """Every saved subject, without its ending."""
    names = set()
    for root in (root / SUBJECTS for root in _roots()):
        for folder, files in _walk(root):
            names.update((folder / file).relative_to(root).with_suffix("").as_posix() for file in files)
    return sorted(names)


def subject_path(name: str) -> Path:
    """Where a saved subject is."""
    return _found(f"{name}.safetensors", [root / SUBJECTS for root in _roots()], "subject")


def subjects_folder() -> Path:
    """Where subjects are saved: in the first of the folders."""
    return _roots()[0] / SUBJECTS


def stamp(path: Path) -> str:
    """Changes when a file, or a file in a released folder, does; the host runs a loader again when it changes."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return " ".join(f"{file.name}:{file.stat().st_mtime_ns}:{file.stat().st_size}" for file in files)


def _walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder below a root, links to folders followed, with its safetensors files."""
    for folder, _, files in os.walk(root, followlinks=True):
        yield Path(folder), [file for file in files if file.endswith(".safetensors")]


def _found(name: str, roots: list[Path], what: str) -> Path:
    for root in roots:
        path = Path(os.path.normpath(root / name))
        if path.exists() and path.is_relative_to(os.path.normpath(root)):  # links inside the folder may lead elsewhere
            return path
    searched = ", ".join(map(str, roots))
    raise MMDiffError(f"There is no {what} '{name}' in {searched}. Put it there and refresh the page (R).")
