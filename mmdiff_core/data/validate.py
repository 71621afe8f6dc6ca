"""Annotated pictures, checked one by one: which records can be trained on, and what is wrong with the others.

A record is three files of one name: NAME.jpg, NAME.npy (the segment map: 0 is background, every other number a
segment) and NAME.json with `caption` and `segments`, each with `id` (its number in the map) and `start` and `end` (the
characters of its phrase in the caption, end exclusive; the phrase's last word is the entity word). This is the
reference's layout, and FastComposer's; further keys are ignored. A segment may also have `same`, the name of who or
what it shows: segments of one name, in any records, are references of each other. Records may lie in subfolders. A
list `image_ids_train.txt`, one name a line, restricts the folder to what it names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from ..errors import MMDiffError
from ..picture_files import picture_size
from .buckets import Shape, nearest

LIST = "image_ids_train.txt"
PICTURES = (".jpg", ".jpeg", ".png")
SQUARE = ((1, 1),)
SMALLEST = 0.002  # of the square that is trained on; less is not to be seen at 512 pixels
AT_ONCE = 1024  # records in flight, so that memory does not grow with the folder


class Segment(NamedTuple):
    """One subject of a record. start, end: of its phrase in the caption, end exclusive. same: who or what it is, where
    other records show it too."""

    id: int
    start: int
    end: int
    same: str = ""


class Record(NamedTuple):
    """An annotated picture. name: path without its ending, below the folder. size: width and height, pixels."""

    name: str
    caption: str
    segments: tuple[Segment, ...]
    size: Shape


class Broken(NamedTuple):
    """A record that can't be trained on."""

    file: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


class BrokenRecord(Exception):
    """Raised with the file and the reason."""


def check_folder(folder: Path, shapes: Sequence[Shape] = SQUARE) -> Iterator[Record | Broken]:
    """Every record of a folder, in order of name, the broken ones with their reasons. shapes: that are trained in.

    Raises MMDiffError where there is no such folder.
    """
    if not folder.is_dir():
        raise MMDiffError(f"There is no folder {folder}. Name the folder that holds the annotated pictures.")
    names = iter(_names(folder))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while batch := list(islice(names, AT_ONCE)):
            yield from pool.map(lambda name: _checked(folder, name, shapes), batch)


def validate(folder: Path) -> tuple[int, list[Broken]]:
    """The number of good records, and the broken ones. Raises MMDiffError where none is good."""
    good, broken = 0, []
    for found in check_folder(folder):
        if isinstance(found, Broken):
            broken.append(found)
        else:
            good += 1
    if not good:
        raise MMDiffError(none_good(folder, broken))
    return good, broken


def none_good(folder: Path, broken: list[Broken]) -> str:
    """The sentence for a folder that nothing can be trained on."""
    if not broken:
        return (
            f"{folder} holds no records: wanted are NAME.jpg, NAME.npy and NAME.json side by side, also in subfolders."
        )
    shown = "\n".join(f"  {one}" for one in broken[:10])
    return f"None of the {len(broken)} records of {folder} can be trained on. The first ones:\n{shown}"


def picture_path(folder: Path, name: str) -> Path:
    """The picture of a record. Raises BrokenRecord where there is none."""
    for suffix in PICTURES:
        path = folder / f"{name}{suffix}"
        if path.is_file():
            return path
    raise BrokenRecord(folder / f"{name}.jpg", "the picture is missing")


def window(segments: np.ndarray, ids: list[int], shape: Shape) -> tuple[int, int, int, int]:
    """left, top, width and height of what is trained on: as large as fits with the shape's aspect, moved over the
    middle of all subjects."""
    height, width = segments.shape
    wide = min(width, height * shape[0] // shape[1])
    high = min(height, width * shape[1] // shape[0])
    rows, columns = np.nonzero(np.isin(segments, ids))
    left = (int(columns.min()) + int(columns.max()) + 1 - wide) // 2
    top = (int(rows.min()) + int(rows.max()) + 1 - high) // 2
    return min(max(left, 0), width - wide), min(max(top, 0), height - high), wide, high


def load_segments(path: Path, content: BinaryIO | None = None) -> np.ndarray:
    """(H, W) of a segment map. content: where it is no file of its own. Raises BrokenRecord for what is none."""
    try:
        segments = np.load(content or path, allow_pickle=False)
    except FileNotFoundError as error:
        raise BrokenRecord(path, "the segment map is missing") from error
    except (OSError, ValueError, EOFError) as error:
        raise BrokenRecord(path, f"not a NumPy array ({error})") from error
    if not isinstance(segments, np.ndarray) or segments.ndim != 2 or segments.dtype.kind not in "buif":
        raise BrokenRecord(path, "wanted is one array of numbers, height x width")
    return segments


def _names(folder: Path) -> list[str]:
    """Names of records, sorted: what has a segment map or an annotation. A picture alone is only a picture."""
    found = {
        (Path(place) / file).relative_to(folder).with_suffix("").as_posix()
        for place, _, files in os.walk(folder)
        for file in files
        if file.endswith((".npy", ".json"))
    }
    listed = folder / LIST
    if listed.is_file():
        wanted = {line.strip() for line in listed.read_text(encoding="utf-8").splitlines() if line.strip()}
        present = {name for name in found if name in wanted or name.rpartition("/")[2] in wanted}
        missing = wanted - present - {name.rpartition("/")[2] for name in present}
        found = present | missing
    return sorted(found)


def _checked(folder: Path, name: str, shapes: Sequence[Shape]) -> Record | Broken:
    try:
        annotation, map_path = folder / f"{name}.json", folder / f"{name}.npy"
        try:
            text = annotation.read_bytes()
        except FileNotFoundError as error:
            raise BrokenRecord(annotation, "the annotation is missing") from error
        caption, found = read_annotation(annotation, text)
        segments = load_segments(map_path)
        record = Record(name, caption, found, _size(picture_path(folder, name)))
        check_map(map_path, record, segments, shapes)
    except BrokenRecord as broken:
        return Broken(*broken.args)
    return record


def read_annotation(path: Path, text: bytes) -> tuple[str, tuple[Segment, ...]]:
    """Caption and segments of an annotation. path: for messages. Raises BrokenRecord for what is none."""
    try:
        content = json.loads(text.decode("utf-8"))
    except ValueError as error:  # JSON and UTF-8 errors both
        raise BrokenRecord(path, f"not JSON ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("caption"), str):
        raise BrokenRecord(path, "it has no text under `caption`")
    caption = content["caption"]
    if not caption.strip():
        raise BrokenRecord(path, "the caption is empty")
    segments = content.get("segments")
    if not isinstance(segments, list) or not segments:
        raise BrokenRecord(path, "it lists no `segments`")
    found = tuple(sorted((_segment(path, caption, one) for one in segments), key=lambda segment: segment.end))
    if len({segment.id for segment in found}) < len(found):
        raise BrokenRecord(path, "two segments have the same `id`")
    for one, other in zip(found, found[1:], strict=False):
        if one.end > other.start:
            raise BrokenRecord(
                path,
                f"the phrases {caption[one.start : one.end]!r} and {caption[other.start : other.end]!r} overlap",
            )
    return caption, found


def _segment(path: Path, caption: str, segment: object) -> Segment:
    values = [segment.get(key) for key in ("id", "start", "end")] if isinstance(segment, dict) else [None]
    if not all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        raise BrokenRecord(path, "a segment lacks a whole number under `id`, `start` or `end`")
    number, start, end = values
    if not 0 <= start < end <= len(caption):
        raise BrokenRecord(
            path, f"segment {number} names characters {start} to {end} of a caption of {len(caption)} characters"
        )
    phrase = caption[start:end]
    cut = (start and caption[start - 1].isalnum()) or (end < len(caption) and caption[end].isalnum())
    if cut or not phrase[0].isalnum() or not phrase[-1].isalnum():
        raise BrokenRecord(path, f"segment {number} names {phrase!r}, which does not start and end with whole words")
    same = segment.get("same", "")
    if not isinstance(same, str):
        raise BrokenRecord(path, f"segment {number} has {same!r} under `same`, which is no text")
    return Segment(number, start, end, same)


def _size(path: Path) -> tuple[int, int]:
    try:
        return picture_size(path)
    except MMDiffError as error:
        raise BrokenRecord(path, f"the picture can't be read ({error.__cause__})") from error


def check_map(path: Path, record: Record, segments: np.ndarray, shapes: Sequence[Shape] = SQUARE) -> None:
    """Raises BrokenRecord where a record's segments are not to be seen in the part of its map that is trained on."""
    width, height = record.size
    if segments.shape != (height, width):
        raise BrokenRecord(
            path, f"the map is {segments.shape[1]} x {segments.shape[0]} and the picture {width} x {height}"
        )
    for segment in record.segments:
        if not (segments == segment.id).any():
            raise BrokenRecord(path, f"segment {segment.id} is nowhere in the map")
    shape = nearest(shapes, width, height)
    left, top, width, height = window(segments, [segment.id for segment in record.segments], shape)
    part = segments[top : top + height, left : left + width]
    for segment in record.segments:
        share = (part == segment.id).mean()
        if share < SMALLEST:
            raise BrokenRecord(
                path,
                f"segment {segment.id} covers {share:.2%} of the square that is trained on, wanted is {SMALLEST:.1%}",
            )
