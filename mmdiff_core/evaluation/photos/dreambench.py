"""DreamBench's folder: `SUBJECT/*.jpg` and `prompts_and_classes.txt`, as cases (github.com/google/dreambooth)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from torch import Tensor

from ...errors import MMDiffError
from ...photo import prepare_photos
from ...picture_files import read_pixels
from ..cases import Case

PROMPTS = "prompts_and_classes.txt"
LIVE = {"cat", "dog"}  # the classes that get the list of live subjects: hats and costumes in place of rugs and rivers
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
_CLASS = re.compile(r"^([^,'\"]+),([^,'\"]+)$")
_PROMPT = re.compile(r"^['\"](.*\{0\} \{1\}.*?)['\"]")
_BOTH = "a {0} {1} "


@dataclass(frozen=True)
class PhotoSubject:
    """name: its folder. kind: its class word. photos: all of its files; the first by name is the reference."""

    name: str
    kind: str
    photos: tuple[Path, ...]


@dataclass(frozen=True)
class DreamBench:
    """subjects by name; prompts with `{0} {1}` where the subject stands, for objects and for live subjects."""

    subjects: dict[str, PhotoSubject]
    objects: tuple[str, ...]
    live: tuple[str, ...]

    def prompts(self, subject: PhotoSubject) -> tuple[str, ...]:
        return self.live if subject.kind in LIVE else self.objects

    def cases(self, images: int, size: int) -> list[Case]:
        """Every subject with every prompt, `images` times; references are `size` pixels."""
        return self._cases([[subject] for subject in self.subjects.values()], images, size)

    def pairs(self, images: int, size: int) -> list[Case]:
        """Every two subjects of different classes, with the prompts of both lists that leave room for two.

        Two subjects of one class are left out: "a dog and a dog" is no prompt a reader could follow.
        """
        pairs = combinations(self.subjects.values(), 2)
        return self._cases([list(pair) for pair in pairs if pair[0].kind != pair[1].kind], images, size)

    def _cases(self, groups: Sequence[Sequence[PhotoSubject]], images: int, size: int) -> list[Case]:
        references = {name: self._reference(subject, size) for name, subject in self.subjects.items()}
        cases = []
        for group in groups:
            prompts = self.prompts(group[0])
            if len(group) > 1:
                both = [prompt for prompt in self.objects if prompt in self.live and prompt.startswith(_BOTH)]
                prompts = tuple(both)
            marked = " and a ".join(f"{subject.kind}<|subj|>" for subject in group)
            names = tuple(subject.name for subject in group)
            for number, prompt in enumerate(prompts):
                for image in range(images):
                    cases.append(
                        Case(
                            id=f"{'+'.join(names)}/{number:02d}-{image}",
                            prompt=prompt.replace("{0} {1}", marked),
                            references=tuple(references[name] for name in names),
                            subjects=names,
                            seed=number * images + image,
                        )
                    )
        return cases

    def _reference(self, subject: PhotoSubject, size: int) -> Tensor:
        return prepare_photos(read_pixels(subject.photos[0])[None], size)[0]


def read_dreambench(folder: Path, only: Sequence[str] = ()) -> DreamBench:
    """The subjects that `only` names, or all. Raises MMDiffError for a broken prompts file and for missing photos."""
    path = folder / PROMPTS
    if not path.is_file():
        raise MMDiffError(
            f"There is no {PROMPTS} in {folder}. Wanted is DreamBench's folder `dataset`, with that file and one "
            "folder of photos for each subject."
        )
    kinds, lists = _read_prompts(path)
    if unknown := [name for name in only if name not in kinds]:
        raise MMDiffError(f"{path} has no subject '{unknown[0]}'; it has {', '.join(sorted(kinds))}.")
    subjects = {}
    for name in only or kinds:
        photos = sorted(file for file in (folder / name).glob("*") if file.suffix.lower() in SUFFIXES)
        if not photos:
            raise MMDiffError(
                f"PhotoSubject '{name}' of {path} has no photos: {folder / name} holds no "
                f"{', '.join(sorted(SUFFIXES))} file. Put them there, or take its line away."
            )
        subjects[name] = PhotoSubject(name, kinds[name], tuple(photos))
    return DreamBench(subjects, *lists)


def _read_prompts(path: Path) -> tuple[dict[str, str], tuple[tuple[str, ...], tuple[str, ...]]]:
    kinds: dict[str, str] = {}
    lists: list[list[str]] = []
    for line in map(str.strip, path.read_text(encoding="utf-8").splitlines()):
        if line.startswith("prompt_list"):
            lists.append([])
        elif prompt := _PROMPT.match(line):
            if not lists:
                raise MMDiffError(f"{path}: the prompt {line!r} stands before any line `prompt_list = [`.")
            lists[-1].append(prompt[1])
        elif (pair := _CLASS.match(line)) and line != "subject_name,class":
            kinds[pair[1].strip()] = pair[2].strip()
    if not kinds:
        raise MMDiffError(f"{path} names no subjects; wanted are lines such as `backpack_dog,backpack`.")
    if len(lists) != 2 or not all(lists):
        raise MMDiffError(
            f"{path} has {len(lists)} lists of prompts (with {', '.join(str(len(part)) for part in lists) or 'no'} "
            "prompts); wanted are two, for objects and for live subjects, with lines such as "
            "`'a {0} {1} in the snow'.format(unique_token, class_token),`."
        )
    return kinds, (tuple(lists[0]), tuple(lists[1]))
