"""A prompt while it is being written: which words are whom so far, what is missing, and words bound by a click."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

from .errors import MMDiffError
from .prompt import BoundPrompt, Marker, bind_prompt, find_markers, same_name, without_markers

_WORD = re.compile(r"[^\s():]*\w")
_CLOSED_WEIGHT = re.compile(r"\s*(:\s*[\d.]+\s*)?\)*\s*")
_SLIP = re.compile(r"<\s*\|?\s*sub(?:j|ject)?s?\s*(:[^<>|]*)?\s*\|?\s*>?(?<=[|>])", re.IGNORECASE)


class Word(NamedTuple):
    """A word of a prompt, between two characters of it. subject: its number from 0, "nobody", or None."""

    text: str
    start: int
    end: int
    subject: int | str | None


class Reading(NamedTuple):
    """words: of the prompt, in order. problem: the sentence that a run would end with, or None. mended: the prompt
    with slips of the pen in its markers made good, or None where there are none."""

    words: tuple[Word, ...]
    problem: str | None
    mended: str | None


def read(prompt: str, names: Sequence[str]) -> Reading:
    """What a prompt says of subjects, given by their names in socket order."""
    mended = mend(prompt)
    mended = mended if mended != prompt else None
    try:
        bound, problem = bind_prompt(prompt, names), None
    except MMDiffError as error:
        bound, problem = _so_far(prompt, names), str(error)
    try:
        markers = find_markers(prompt, names)
    except MMDiffError:
        markers = []
    ends = _ends(prompt, markers, bound)
    words = []
    for start, stretch in _stretches(prompt, markers):
        for found in _WORD.finditer(stretch):
            place = start + found.end()
            words.append(Word(found[0], start + found.start(), place, ends.get(place)))
    return Reading(tuple(words), problem, mended)


def refuse(prompt: str, subjects: int) -> None:
    """Raise the MMDiffError that a run would end with, as far as it can be told by the number of subjects alone, while
    their names are not known."""
    markers = find_markers(prompt)
    named = list(dict.fromkeys(same_name(marker.name) for marker in markers if marker.name is not None))
    if all(marker.nobody for marker in markers) or len(named) > subjects:
        return  # names decide
    numbered = (f"subject {number}" for number in itertools.count(1))
    others = itertools.islice((name for name in numbered if name not in named), subjects - len(named))
    bind_prompt(prompt, [*named, *others])


def mend(prompt: str) -> str:
    """The prompt with `<|sub|>`, `<subj|>`, `<|Subject:Ada>` and the like as the markers they were meant to be."""
    return _SLIP.sub(lambda slip: f"<|subj{slip[1] or ''}|>", prompt)


def toggle(prompt: str, names: Sequence[str], end: int, subject: int) -> str:
    """The prompt with the word that ends at a character bound to a subject, or no longer bound if it was.

    A plain marker is written where it means that subject and leaves the others theirs, else one with the name.
    """
    for marker in find_markers(prompt, names):
        if marker.start >= end and _CLOSED_WEIGHT.fullmatch(prompt, end, marker.start):
            return prompt[: marker.start] + prompt[marker.end :]
    plain, named = (prompt[:end] + marker + prompt[end:] for marker in ("<|subj|>", f"<|subj:{names[subject]}|>"))
    before = {word.text: word.subject for word in read(prompt, names).words if word.subject is not None}
    after = read(plain, names).words
    meant = next((word.subject for word in after if word.end == end), None)
    kept = all(word.subject == before.get(word.text, word.subject) for word in after if word.end != end)
    return plain if meant == subject and kept else named


def _so_far(prompt: str, names: Sequence[str]) -> BoundPrompt:
    """The binding of as many subjects, counted from the first, as the prompt has words for."""
    for number in range(len(names) - 1, -1, -1):
        try:
            return bind_prompt(prompt, names[:number])
        except MMDiffError:
            continue
    return BoundPrompt(prompt, ())


def _ends(prompt: str, markers: Sequence[Marker], bound: BoundPrompt) -> dict[int, int | str]:
    """For each place of the prompt where a bound word ends, its subject."""
    clean = without_markers(prompt, markers)
    places, place = {}, 0  # of the bound text in the clean one: an encoder's spaces are in the first alone
    for index, character in enumerate(bound.text):
        places[index] = place
        place += place < len(clean) and clean[place] == character
    ends = {}
    for entity in bound.entities:
        end = places.get(entity.end - 1, 0) + 1
        for marker in markers:
            end += len(marker.text) * (marker.start < end)
        ends[end] = "nobody" if entity.subject is None else entity.subject
    return ends


def _stretches(prompt: str, markers: Sequence[Marker]) -> list[tuple[int, str]]:
    """What stands between the markers, each with its place."""
    starts = [0, *(marker.end for marker in markers)]
    ends = [*(marker.start for marker in markers), len(prompt)]
    return [(start, prompt[start:end]) for start, end in zip(starts, ends, strict=True)]
