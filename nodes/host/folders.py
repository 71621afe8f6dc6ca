"""Where the pack's files are: checkpoints in `models/mmdiff`, subjects in `models/mmdiff/subjects`.

Files of the IP-Adapter family are read where their owners have them, in `models/ipadapter`.
"""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths

from ...mmdiff_core import MMDiffError
from ...mmdiff_core.checkpoint.listing import IPADAPTERS, SUBJECTS, listed, walk

CHECKPOINTS = "mmdiff"
FACES = "insightface"
DLIB = "dlib"
VISION = "clip_vision"

for kind in (CHECKPOINTS, IPADAPTERS, FACES, DLIB):
    folder_paths.add_model_folder_path(kind, os.path.join(folder_paths.models_dir, kind))


def _roots(kind: str = CHECKPOINTS) -> list[Path]:
    return [Path(folder) for folder in folder_paths.get_folder_paths(kind)]


def checkpoint_names() -> list[str]:
    """What Load MM-Diff offers; files of `models/ipadapter` are behind the others, and named with that folder."""
    return list(listed(_roots(), _roots(IPADAPTERS)))


def checkpoint_path(name: str) -> Path:
    """Where a listed checkpoint is."""
    kind, _, rest = name.partition("/")
    if kind == IPADAPTERS and not any((root / name).exists() for root in _roots()):
        return _found(rest, _roots(IPADAPTERS), "checkpoint")
    return _found(name, _roots(), "checkpoint")


def subject_names() -> list[str]:
    """Every saved subject, without its ending."""
    names = set()
    for root in (root / SUBJECTS for root in _roots()):
        for folder, files in walk(root, (".safetensors",)):
            names.update((folder / file).relative_to(root).with_suffix("").as_posix() for file in files)
    return sorted(names)


def subject_path(name: str) -> Path:
    """Where a saved subject is."""
    return _found(f"{name}.safetensors", [root / SUBJECTS for root in _roots()], "subject")


def subjects_folder() -> Path:
    """Where subjects are saved: in the first of the folders."""
    return _roots()[0] / SUBJECTS


def face_folders() -> list[Path]:
    """Where insightface's files are."""
    return [root / "models" / "buffalo_l" for root in _roots(FACES)]


def dlib_folders() -> list[Path]:
    """Where dlib's files are."""
    return _roots(DLIB)


def vision_files() -> list[Path]:
    """The host's vision encoders."""
    return [Path(folder_paths.get_full_path_or_raise(VISION, name)) for name in folder_paths.get_filename_list(VISION)]


def stamp(path: Path) -> str:
    """Changes when a file, or a file in a released folder, does; the host runs a loader again when it changes."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return " ".join(f"{file.name}:{file.stat().st_mtime_ns}:{file.stat().st_size}" for file in files)


def _found(name: str, roots: list[Path], what: str) -> Path:
    for root in roots:
        path = Path(os.path.normpath(root / name))
        if path.exists() and path.is_relative_to(os.path.normpath(root)):  # links inside the folder may lead elsewhere
            return path
    searched = ", ".join(map(str, roots))
    raise MMDiffError(f"There is no {what} '{name}' in {searched}. Put it there and refresh the page (R).")
