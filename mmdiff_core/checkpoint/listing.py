"""The checkpoints in a user's folders, by the names under which Load MM-Diff offers them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from .own import PICKLES
from .released import RELEASED_FILES, is_released

ENDINGS = (".safetensors", *PICKLES)
SUBJECTS = "subjects"
"""Below a folder of checkpoints, where saved subjects lie."""
IPADAPTERS = "ipadapter"
"""What the names of files in the folders of IP-Adapters begin with."""


def listed(checkpoints: Sequence[Path], ipadapters: Sequence[Path]) -> dict[str, Path]:
    """Every file of weights below the folders, and every folder there that holds the released three files; those of the
    IP-Adapters behind the others. Of two with one name, the first is taken."""
    own: dict[str, Path] = {}
    others: dict[str, Path] = {}
    for root in checkpoints:
        for folder, files in walk(root, ENDINGS):
            if is_released(folder) and folder != root:
                own.setdefault(folder.relative_to(root).as_posix(), folder)
            if SUBJECTS not in folder.relative_to(root).parts:
                for file in files:
                    if file not in RELEASED_FILES:
                        own.setdefault((folder / file).relative_to(root).as_posix(), folder / file)
    for root in ipadapters:
        for folder, files in walk(root, ENDINGS):
            for file in files:
                others.setdefault(f"{IPADAPTERS}/{(folder / file).relative_to(root).as_posix()}", folder / file)
    return dict(sorted(own.items())) | dict(sorted((name, path) for name, path in others.items() if name not in own))


def walk(root: Path, endings: tuple[str, ...]) -> Iterator[tuple[Path, list[str]]]:
    """Every folder below a root, links to folders followed, with its files of these endings."""
    for folder, _, files in os.walk(root, followlinks=True):
        yield Path(folder), [file for file in files if file.endswith(endings)]
