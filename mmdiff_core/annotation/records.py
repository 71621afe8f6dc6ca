"""From what was found to the records that training reads: what is left out is named, what a person corrected stays."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..data.faces import faces_path, write_faces
from ..data.validate import PICTURES, SMALLEST
from ..face import RECOGNISERS
from ..files import replacing
from ..picture_files import open_picture
from .found import Found, Phrase, read_found
from .likeness import nearly_same, people
from .look import found_path
from .sources import Source

RECORDS = "records"
LARGEST = 2048  # pixels of a record's shorter side; nothing is trained on at more


@dataclass(frozen=True)
class Rules:
    """What becomes a record. smallest: pixels of the shorter side. most: subjects of a picture. sure: score of a
    subject. same: by what subjects of several pictures are the same, "faces", "folder" or "nothing"."""

    smallest: int = 512
    most: int = 4
    sure: float = 0.3
    same: str = "faces"


@dataclass(frozen=True)
class Written:
    """What came of it. names: of the records. corrected: those of them that a person changed, as they are. left_out:
    picture -> reason. subjects: reason -> how many subjects of pictures were left out for it. people: subjects that
    are on several records."""

    names: list[str]
    corrected: list[str]
    left_out: dict[str, str]
    subjects: Counter
    people: int


def write_records(sources: Sequence[Source], out: Path, rules: Rules) -> Written:
    """Write the records of all pictures that are good by the rules, and take away those that no longer are.

    Raises MMDiffError where nothing can be written; every record is whole or not there.
    """
    folder = out / RECORDS
    corrected = [name for name in _names(folder) if not _ours(folder, name)]
    for part in folder.rglob(".*.part"):  # what a kill during a write left
        part.unlink()
    subjects: Counter = Counter()
    left_out: dict[str, str] = {}
    good: dict[str, Found] = {}
    for source in sources:
        found, reason = _judged(read_found(found_path(out, source)), rules, subjects)
        if reason:
            left_out[source.name] = reason
        else:
            good[source.name] = found
    for name, kept in nearly_same(_largest_first(good)).items():
        left_out[name] = f"nearly the same as {kept}"
        del good[name]
    same = _same(good, rules.same)
    for source in sources:
        if source.name in good and source.name not in corrected:
            whole = read_found(found_path(out, source), whole=True)
            found = replace(good[source.name], segments=whole.segments, faces=whole.faces)
            _write(folder, source, found, same)
    for name in set(_names(folder)) - set(good) - set(corrected):
        _remove(folder, name)
    left_out = {name: reason for name, reason in left_out.items() if name not in corrected}
    several = sum(count > 1 for count in Counter(same.values()).values())
    return Written(sorted({*good, *corrected}), corrected, left_out, subjects, several)


def _judged(found: Found, rules: Rules, subjects: Counter) -> tuple[Found, str]:
    """What was found with its good subjects only, and why the picture is left out, if it is."""
    if found.problem:
        return found, found.problem
    if min(found.size) < rules.smallest:
        return found, f"too small (shorter side below {rules.smallest} pixels)"
    if not found.caption:
        return found, "no caption"
    reasons = [_wrong(phrase, rules) for phrase in found.phrases]
    kept = {number for number, reason in enumerate(reasons) if not reason}
    subjects.update(reason for reason in reasons if reason)
    if not kept:
        return found, "no subject is left" if reasons else "no noun in the caption"
    if len(kept) > rules.most:
        return found, f"more than {rules.most} subjects"
    phrases = tuple(
        phrase if number in kept else phrase._replace(box=None) for number, phrase in enumerate(found.phrases)
    )
    return replace(found, phrases=phrases), ""


def _wrong(phrase: Phrase, rules: Rules) -> str:
    if phrase.box is None:
        return "not found"
    if phrase.score < rules.sure:
        return f"doubtful (less sure than {rules.sure:g})"
    if phrase.again >= max(rules.sure, 0.7 * phrase.score):
        return "found in two places"
    if phrase.share < SMALLEST:
        return f"too small (below {SMALLEST:.1%} of the picture)"
    return ""


def _largest_first(good: Mapping[str, Found]) -> dict[str, str]:
    ordered = sorted(good, key=lambda name: (-good[name].size[0] * good[name].size[1], name))
    return {name: good[name].likeness for name in ordered}


def _same(good: Mapping[str, Found], by: str) -> dict[tuple[str, int], str]:
    """(record, segment) -> the name of who it is, where that can be said."""
    if by == "folder":  # a folder is of one subject; a picture that shows more does not say which of them it is
        return {
            (name, number): name.rpartition("/")[0]
            for name, found in good.items()
            if "/" in name and len(shown := _subjects(found)) == 1
            for number, _ in shown
        }
    if by != "faces":
        return {}
    faces = [
        (name, number, found.recogniser, found.faces[number].vector.numpy())
        for name, found in good.items()
        for number, _ in _subjects(found)
        if number in found.faces
    ]
    named = {}
    for recogniser in sorted({one[2] for one in faces}):
        own = [one for one in faces if one[2] == recogniser]
        numbers = people([vector for *_, vector in own], RECOGNISERS[recogniser].alike)
        named |= {(name, number): f"person {who}" for (name, number, *_), who in zip(own, numbers, strict=True)}
    return named


def _subjects(found: Found) -> list[tuple[int, Phrase]]:
    """The good phrases, by the number of their segment."""
    return [(number, phrase) for number, phrase in enumerate(found.phrases, 1) if phrase.box]


def _write(folder: Path, source: Source, found: Found, same: Mapping[tuple[str, int], str]) -> None:
    """Write a record, unless it is there as it would be."""
    segments = [
        {"id": number, "start": phrase.start, "end": phrase.end, "box": phrase.box, "score": phrase.score}
        | ({"same": same[source.name, number]} if (source.name, number) in same else {})
        for number, phrase in _subjects(found)
    ]
    annotation = {"caption": found.caption, "segments": segments, "source": source.state}
    size = _written_size(found.size)
    numbers = np.asarray(Image.fromarray(found.segments).resize(size, Image.Resampling.NEAREST))
    annotation["made"] = _digest(annotation, numbers)
    path = folder / f"{source.name}.json"
    text = json.dumps(annotation, ensure_ascii=False, indent=1)
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    _remove(folder, source.name)
    suffix = source.path.suffix.lower()
    copied = size == found.size and suffix in PICTURES
    with replacing(folder / f"{source.name}{suffix if copied else '.png'}") as part:
        if copied:
            shutil.copyfile(source.path, part)
        else:
            open_picture(source.path).resize(size, Image.Resampling.LANCZOS).save(part, "png")
    with replacing(folder / f"{source.name}.npy") as part, part.open("wb") as file:
        np.save(file, numbers)
    faces = {number: found.faces[number] for number, _ in _subjects(found) if number in found.faces}
    if found.recogniser:
        write_faces(faces_path(folder, source.name), faces, found.recogniser)
    with replacing(path) as part:  # last: a record is there when its annotation is
        part.write_text(text, encoding="utf-8")


def _written_size(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height of a record's picture."""
    scale = min(1.0, LARGEST / min(size))
    return round(size[0] * scale), round(size[1] * scale)


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.json"))


def _ours(folder: Path, name: str) -> bool:
    """Whether a record is as it was written."""
    try:
        annotation = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        made = annotation.pop("made")
        return made == _digest(annotation, np.load(folder / f"{name}.npy", allow_pickle=False))
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False


def _digest(annotation: Mapping[str, Any], segments: np.ndarray) -> str:
    found = hashlib.sha256(json.dumps(annotation, sort_keys=True).encode())
    found.update(f"{segments.shape} {segments.dtype}".encode() + segments.tobytes())
    return found.hexdigest()


def _remove(folder: Path, name: str) -> None:
    """The annotation first: without it there is no record."""
    for suffix in (".json", ".npy", ".faces.safetensors", *PICTURES):
        (folder / f"{name}{suffix}").unlink(missing_ok=True)


def counted(reasons: Iterable[str]) -> list[tuple[str, int]]:
    """How often each reason comes, most often first; what is named in one is left out."""
    short = (reason.partition(" as ")[0].partition(" (")[0] for reason in reasons)
    return Counter(short).most_common()
