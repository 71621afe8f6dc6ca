"""The pictures of a folder, and the captions they came with."""

from __future__ import annotations

import csv
import json
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from ..errors import MMDiffError

PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
NAMES, CAPTIONS = ("file_name", "filename", "file", "image", "path"), ("caption", "text", "prompt", "description")
"""Columns of a CSV, and keys of a picture's JSON, by what others write."""


class Source(NamedTuple):
    """name: path without its ending, below its folder. caption: that it came with, or empty."""

    name: str
    path: Path
    caption: str

    @property
    def state(self) -> str:
        """Changes where the picture does."""
        about = self.path.stat()
        return f"{about.st_size} {about.st_mtime_ns}"


def read_sources(folder: Path, unpacked: Path) -> tuple[list[Source], list[str]]:
    """Pictures in order of name, also those of subfolders and of .tar files (webdataset's shards), and what was wrong.

    A caption is in NAME.txt, in NAME.json under `caption` (or what others call it), or in a CSV with a column of files,
    relative to it, and one of captions. unpacked: where tar files are unpacked, once.
    Raises MMDiffError where there is no folder, or no picture in it.
    """
    if not folder.is_dir():
        raise MMDiffError(f"There is no folder {folder}. Name the folder that holds your pictures.")
    found, remarks = _below(folder)
    for shard in sorted(folder.rglob("*.tar")):
        name = shard.relative_to(folder).with_suffix("").as_posix()
        try:
            more, wrong = _below(_unpack(shard, unpacked / name))
        except (tarfile.TarError, EOFError) as error:
            remarks.append(f"{shard}: not a whole tar file ({error})")
            continue
        found |= {f"{name}/{one.name}": one._replace(name=f"{name}/{one.name}") for one in more.values()}
        remarks += wrong
    if not found:
        raise MMDiffError(f"{folder} holds no pictures ({', '.join(PICTURES)}), and no .tar file with any.")
    return [found[name] for name in sorted(found)], remarks


def _below(folder: Path) -> tuple[dict[str, Source], list[str]]:
    paths = sorted(Path(place) / file for place, _, files in os.walk(folder) for file in files)
    listed, remarks = _listed(path for path in paths if path.suffix.lower() == ".csv")
    found: dict[str, Source] = {}
    for path in paths:
        if path.suffix.lower() not in PICTURES:
            continue
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            remarks.append(f"{path}: {found[name].path.name} has the same name; give one of them another")
            continue
        caption = listed.get(path.resolve(), "")
        for suffix, read in ((".txt", str), (".json", _of_json)):
            beside = path.with_suffix(suffix)
            if beside.is_file():
                try:
                    caption = read(beside.read_text(encoding="utf-8")) or caption
                except ValueError as error:  # JSON and UTF-8 errors both
                    remarks.append(f"{beside}: no caption can be read ({error})")
        found[name] = Source(name, path, " ".join(caption.split()))
    return found, remarks


def _of_json(text: str) -> str:
    content = json.loads(text)
    values = [content.get(key) for key in CAPTIONS] if isinstance(content, dict) else []
    return next((value for value in values if isinstance(value, str)), "")


def _listed(files: Iterable[Path]) -> tuple[dict[Path, str], list[str]]:
    """Captions by picture, of all CSV files."""
    captions: dict[Path, str] = {}
    remarks = []
    for path in files:
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows = csv.DictReader(file)
                columns = [
                    next((column for column in rows.fieldnames or () if column.lower() in known), None)
                    for known in (NAMES, CAPTIONS)
                ]
                if None in columns:
                    wanted = " and ".join(f"one of {', '.join(known)}" for known in (NAMES, CAPTIONS))
                    remarks.append(f"{path}: its columns are {rows.fieldnames}; wanted are {wanted}")
                    continue
                captions |= {(path.parent / (row[columns[0]] or "")).resolve(): row[columns[1]] or "" for row in rows}
        except (ValueError, csv.Error) as error:
            remarks.append(f"{path}: not a CSV in UTF-8 ({error})")
    return captions, remarks


def _unpack(shard: Path, to: Path) -> Path:
    """Unpack pictures and captions, unless that was done; another process that does it is waited for."""
    done = to / ".unpacked"
    to.mkdir(parents=True, exist_ok=True)
    with FileLock(to / ".lock"):
        if not done.exists():
            with tarfile.open(shard) as tar:
                wanted = (*PICTURES, ".txt", ".json", ".csv")
                members = [one for one in tar if one.isfile() and Path(one.name).suffix.lower() in wanted]
                tar.extractall(to, members, filter="data")
            done.touch()
    return to
