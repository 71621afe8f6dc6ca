"""What is to be drawn, and the pictures that were drawn of it.

A benchmark is a list of cases. Every arm (a checkpoint, an oracle, another program) leaves a folder of pictures, and
the metrics read such folders and nothing else. So all arms are measured alike, and pictures from ComfyUI need only the
list that says which file is which case.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ..errors import MMDiffError
from ..picture_files import read_pixels
from ..prompt import find_markers, without_markers
from ..sheet import Cell, image_of, sheet

LIST, SOURCE, KEYS = "pictures.json", "source.txt", "keys.json"


@dataclass(frozen=True)
class Case:
    """One picture to draw.

    id: its name in lists and file names. prompt: with a `<|subj|>` after each entity word. references: one (3, P, P) in
    [0, 1] for each subject. subjects: their identities, over which means are resampled. seed: of the noise.
    """

    id: str
    prompt: str
    references: tuple[Tensor, ...]
    subjects: tuple[str, ...]
    seed: int

    @property
    def key(self) -> str:
        """A hash of everything that a program is told of the case."""
        found = hashlib.sha256(f"{self.prompt} {self.seed}".encode())
        for reference in self.references:
            found.update(f"{tuple(reference.shape)}".encode())
            found.update(reference.contiguous().numpy().tobytes())
        return found.hexdigest()

    @property
    def text(self) -> str:
        """The prompt as a reader sees it."""
        return without_markers(self.prompt, find_markers(self.prompt))

    @property
    def group(self) -> str:
        """The identity, or the pair of identities, that the case belongs to."""
        return " + ".join(self.subjects)


class Generator(Protocol):
    """Whatever draws: prompts with markers, the references of each, (S, 3, P, P), and a seed each, to (B, 3, H, W)."""

    def __call__(self, prompts: list[str], references: list[Tensor], seeds: list[int]) -> Tensor: ...


Draw = Callable[[Sequence[Case]], Sequence[Tensor]]
"""Cases to a picture each, (3, H, W) in [0, 1]. An oracle is one too: it knows more of a case than its prompt."""


def drawn_by(generate: Generator) -> Draw:
    """A generator sees prompts, references and seeds, and nothing else of a case."""

    def draw(cases: Sequence[Case]) -> Sequence[Tensor]:
        references = [torch.stack(case.references) for case in cases]
        return generate([case.prompt for case in cases], references, [case.seed for case in cases])

    return draw


def fill(folder: Path, cases: Sequence[Case], draw: Draw, key: str, source: str, batch: int = 16) -> None:
    """Draw every case that is not in the folder yet, as PNG files and their list; so an interrupted run goes on.

    key: of what draws; a picture that was drawn by another, or of another prompt, reference or seed, is drawn again.
    source: the same in words, for reports.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SOURCE).write_text(source)
    made = read_json(folder / KEYS) if (folder / KEYS).is_file() else {}
    wanted = {case.id: hashlib.sha256(f"{key} {case.key}".encode()).hexdigest() for case in cases}
    files = {case.id: f"{case.id}.png" for case in cases}
    for path in {(folder / file).parent for file in files.values()}:
        path.mkdir(parents=True, exist_ok=True)
    there = {case.id for case in cases if (folder / files[case.id]).is_file() and made.get(case.id) == wanted[case.id]}
    missing = [case for case in cases if case.id not in there]
    for start in range(0, len(missing), batch):
        part = missing[start : start + batch]
        for case, picture in zip(part, draw(part), strict=True):
            save_picture(picture, folder / files[case.id])
            made[case.id] = wanted[case.id]
        (folder / KEYS).write_text(json.dumps(made, indent=1))
    (folder / LIST).write_text(json.dumps(files, indent=1))


def source_of(folder: Path) -> str:
    """What drew the folder's pictures, "" where nobody said."""
    path = folder / SOURCE
    return path.read_text() if path.is_file() else ""


def pictures_of(folder: Path, cases: Sequence[Case]) -> dict[str, Path]:
    """The file of each case, by the folder's list. Raises MMDiffError where the list or a picture is missing."""
    path = folder / LIST
    if not path.is_file():
        raise MMDiffError(
            f"There is no {LIST} in {folder}. It says which file shows which case: "
            '{"CASE": "FILE", ...}; `evaluate ... --cases` writes the cases.'
        )
    files = read_json(path)
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise MMDiffError(f'{path} is not a list of pictures; wanted is {{"CASE": "FILE", ...}}.')
    missing = [case.id for case in cases if case.id not in files or not (folder / files[case.id]).is_file()]
    if missing:
        raise MMDiffError(
            f"{folder} lacks {len(missing)} of {len(cases)} pictures; the first is that of case '{missing[0]}'. "
            f"Draw it, and name its file in {LIST}."
        )
    return {case.id: folder / files[case.id] for case in cases}


def batches(files: dict[str, Path], size: int) -> Iterator[tuple[list[str], list[Tensor]]]:
    """Case ids and their pictures, (3, H, W) in [0, 1], some at a time."""
    ids = sorted(files)
    for start in range(0, len(ids), size):
        part = ids[start : start + size]
        yield part, [read_picture(files[name]) for name in part]


def write_cases(cases: Sequence[Case], folder: Path) -> None:
    """For other programs: `cases.json` with id, prompt, seed and reference files of every case, and the references."""
    (folder / "references").mkdir(parents=True, exist_ok=True)
    seen: dict[int, str] = {}
    rows = []
    for case in cases:
        for reference in case.references:
            if id(reference) not in seen:
                seen[id(reference)] = f"references/{len(seen):04d}.png"
                save_picture(reference, folder / seen[id(reference)])
        references = [seen[id(reference)] for reference in case.references]
        rows.append({"case": case.id, "prompt": case.prompt, "references": references, "seed": case.seed})
    (folder / "cases.json").write_text(json.dumps(rows, indent=1))


def read_json(path: Path) -> object:
    """Raises MMDiffError where the file is missing or not JSON."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise MMDiffError(f"There is no file {path}.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise MMDiffError(f"{path} is not JSON ({error}); write it again.") from error


def read_picture(path: Path) -> Tensor:
    """(3, H, W) in [0, 1], black where it is transparent. Raises MMDiffError where the file is not a picture."""
    pixels = read_pixels(path).movedim(-1, 0)
    return pixels[:3] * pixels[3:]


def save_picture(picture: Tensor, path: Path) -> None:
    """(3, H, W) in [0, 1] as PNG, written beside and moved, so that a file that is there is whole."""
    part = path.with_name(f".{path.name}.part")
    image_of(picture).save(part, format="PNG")
    part.replace(path)


def write_sheet(path: Path, cases: Sequence[Case], arms: Mapping[str, Mapping[str, Path]]) -> None:
    """Some of the cases, evenly over the list, one a row: references, then the picture of each arm.

    arms: name -> case -> picture file.
    """
    subjects = max(len(case.references) for case in cases)
    rows = []
    for index in torch.linspace(0, len(cases) - 1, min(12, len(cases))):
        case = cases[int(index)]
        cells: list[Cell] = list(zip(case.references, (case.text, *case.subjects[1:]), strict=True))
        cells += [(None, "")] * (subjects - len(cells))
        rows.append([*cells, *((read_picture(files[case.id]), name) for name, files in arms.items())])
    sheet(rows, side=128, lines=3).save(path)
