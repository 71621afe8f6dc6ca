"""Who is shown when: names, drawings and styles that training never sees."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import accumulate

from .atlas import Sprite

SPLITS = {
    "train": "names to train on",
    "identity": "names of `train`, in drawings that it does not have",
    "metric": "names of their own, for training the networks that measure",
    "val": "names of their own, for choosing between checkpoints",
    "test": "names of their own, for the one final measurement",
    "style": "the names of `test` in share-alike styles, which nothing is ever trained on",
}
SHARES = {"test": 0.14, "metric": 0.2, "val": 0.06}  # of all names; the rest trains
HELD_DRAWINGS = 0.2  # share of the training names that keep one drawing for `identity`
FEWEST_DRAWINGS = 3  # a name with fewer has none to spare


def assign_splits(
    sprites: Sequence[Sprite], alike: Iterable[tuple[str, str]], share_alike: set[str]
) -> list[str | None]:
    """The split of every sprite; None where it belongs in none, a share-alike drawing of a name that trains.

    Names that end in the same word, and those that `alike` says look like one drawing, stay together, so an unseen
    name is an unseen word and an unseen shape. alike: pairs of names. share_alike: families with such a licence.
    """
    names = sorted({sprite.name for sprite in sprites})
    split_of_name = {}
    groups = sorted(_groups(names, alike), key=lambda group: _draw(group[0]))
    ends = dict(zip(SHARES, accumulate(share * len(names) for share in SHARES.values()), strict=True))
    placed = 0
    for group in groups:
        split = next((split for split, end in ends.items() if placed + len(group) / 2 <= end), "train")
        split_of_name.update(dict.fromkeys(group, split))
        placed += len(group)

    drawings: dict[str, set[str]] = {}
    for sprite in sprites:
        if sprite.family not in share_alike:
            drawings.setdefault(sprite.name, set()).add(sprite.family)
    held = {
        (name, min(families, key=lambda family: _draw(name, family)))
        for name, families in drawings.items()
        if len(families) >= FEWEST_DRAWINGS and _draw(name, "held") < HELD_DRAWINGS
    }

    def split(sprite: Sprite) -> str | None:
        of_name = split_of_name[sprite.name]
        if sprite.family in share_alike:
            return "style" if of_name == "test" else None
        return "identity" if of_name == "train" and (sprite.name, sprite.family) in held else of_name

    return [split(sprite) for sprite in sprites]


def _groups(names: list[str], alike: Iterable[tuple[str, str]]) -> list[list[str]]:
    leader = {name: name for name in names}

    def lead(name: str) -> str:
        while leader[name] != name:
            name = leader[name]
        return name

    first_of_word: dict[str, str] = {}
    pairs = [(name, first_of_word.setdefault(_head(name), name)) for name in names]
    for one, other in [*pairs, *alike]:
        low, high = sorted((lead(one), lead(other)))
        leader[high] = low
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(lead(name), []).append(name)
    return list(groups.values())


def _head(name: str) -> str:
    """The word that says what it is: of a 'cat face' the cat."""
    words = name.removesuffix(" face").split()
    return words[-1]


def _draw(*words: str) -> float:
    """A number in [0, 1) that only the words decide."""
    return int.from_bytes(hashlib.sha256("\0".join(words).encode()).digest()[:8], "big") / 2**64
