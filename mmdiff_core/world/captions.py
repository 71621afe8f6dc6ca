"""Captions, with the place of every entity in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

COLOUR_WORDS = frozenset(
    ("black", "white", "red", "green", "blue", "yellow", "orange", "brown", "purple", "pink", "grey", "gold", "silver")
)
_VOWEL_LETTER_CONSONANT_SOUND = ("uni", "use", "eu", "one")


class Mention(NamedTuple):
    """A subject in a caption. size: "", "big" or "small"."""

    determiner: str
    size: str
    name: str


def names_a_colour(name: str) -> bool:
    """Whether another colour would make the name wrong."""
    return not COLOUR_WORDS.isdisjoint(name.split())


def caption(look: str, mentions: Sequence[Mention], relation: str, scene: str) -> tuple[str, list[tuple[int, int]]]:
    """The sentence and, for each mention, the characters of its name: (start, end), end exclusive.

    look, scene: their phrases, look may be empty. relation: what stands between two mentions.
    """
    text, spans = f"{look} " if look else "", []
    for number, mention in enumerate(mentions):
        text += f" {relation} " if number else ""
        words = " ".join(filter(None, (mention.size, mention.name)))
        text += f"{_article(words) if mention.determiner == 'a' else mention.determiner} {words}"
        spans.append((len(text) - len(mention.name), len(text)))
    return f"{text} {scene}", spans


def _article(words: str) -> str:
    vowel = words[0].lower() in "aeiou" and not words.lower().startswith(_VOWEL_LETTER_CONSONANT_SOUND)
    return "an" if vowel else "a"
