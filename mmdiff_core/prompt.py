"""Which word of the prompt is which subject.

`<|subj|>` after a word binds it to the next subject in order, `<|subj:NAME|>` to the subject of that name. Without any
marker, a subject whose name stands in the prompt binds to the last word of that phrase. Words become token positions
per text encoder and per chunk of 77, by the encoder's own tokenizer.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import MMDiffError

MARKER = re.compile(r"<\|\s*subj\s*(?::([^|]*))?\|>", re.IGNORECASE)
_SENTINEL = "<|subj|>"
_CLOSED_WEIGHT = re.compile(r"(?:\s*(?::\s*[\d.]+\s*)?\))*\s*$")
_LAST_WORD = re.compile(r"[^\s(]+$")

Tokenize = Callable[[str], list[list[Any]]]
"""Text to chunks of tokens, in which start, end and padding are None; a token is an id or an embedding tensor."""


@dataclass(frozen=True)
class Entity:
    """One word bound to one subject. end: characters of the clean prompt up to and including the word."""

    word: str
    end: int
    subject: int


@dataclass(frozen=True)
class BoundPrompt:
    """The prompt without markers, and its entity words in the order they stand in it."""

    text: str
    entities: tuple[Entity, ...]


@dataclass(frozen=True)
class TokenPosition:
    """Where a token stands: chunk of 77, and index within the chunk (0 is the start token)."""

    chunk: int
    index: int


def bind_prompt(prompt: str, names: Sequence[str]) -> BoundPrompt:
    """Match a prompt with the subjects' names, given in socket order.

    Raises MMDiffError that says which subject or marker is left over, which name is unknown or doubled, which marker
    has no word before it, or which word has two.
    """
    markers, names = list(MARKER.finditer(prompt)), [name.strip() for name in names]
    return _bind_markers(prompt, markers, names) if markers else _bind_phrases(prompt, names)


def locate(bound: BoundPrompt, tokenize: Tokenize) -> list[TokenPosition]:
    """The last token of each entity word, in one encoder's tokens.

    Each word is found by tokenizing the prompt once more with a marker put behind it, so weights, embeddings and long
    prompts are the tokenizer's business. Raises MMDiffError for a marker inside a word, and for a word without tokens.
    """
    positions = [
        (token, TokenPosition(chunk, index))
        for chunk, tokens in enumerate(tokenize(bound.text))
        for index, token in enumerate(tokens)
        if token is not None
    ]
    sentinel = _content(tokenize(_SENTINEL))

    def split(end: int) -> tuple[int, list[Any]]:
        """How many tokens stand before a place of the text, and all of them when it is cut there."""
        marked = _content(tokenize(f"{bound.text[:end]} {_SENTINEL} {bound.text[end:]}"))
        before = _find(marked, sentinel)
        return before, marked[:before] + marked[before + len(sentinel) :]

    located = []
    for entity in bound.entities:
        before, rest = split(entity.end)
        if before == 0 or not _same(rest, [token for token, _ in positions]):
            raise MMDiffError(
                f"The marker after '{entity.word}' stands inside a word of the prompt '{bound.text}'; "
                "put it behind the whole word."
            )
        if before == split(entity.end - len(entity.word))[0]:
            raise MMDiffError(
                f"The text encoder reads nothing where the prompt says '{entity.word}', so no subject can be bound to "
                "it. If it is an embedding, its file is missing or is for another base model; use another word."
            )
        located.append(positions[before - 1][1])
    return located


def _bind_markers(prompt: str, markers: list[re.Match[str]], names: Sequence[str]) -> BoundPrompt:
    named = [marker[1].strip() for marker in markers if marker[1] is not None]
    for name in named:
        if names.count(name) != 1:
            found = "no subject has that name" if name not in names else f"{names.count(name)} subjects have that name"
            raise MMDiffError(
                f"The prompt says <|subj:{name}|>, but {found}. The subjects are {_listed(names)}; "
                "give each its own name on Encode Subject and use that."
            )
    unnamed = [index for index, name in enumerate(names) if name not in named]
    plain = len(markers) - len(named)
    if plain > len(unnamed):
        raise MMDiffError(
            f"The prompt has {plain} <|subj|> marker{'s' * (plain != 1)} for {len(unnamed)} subject"
            f"{'s' * (len(unnamed) != 1)} ({_listed([names[index] for index in unnamed])}). "
            "Connect another subject or take the last marker away."
        )
    if plain < len(unnamed):
        left = _listed([names[index] for index in unnamed[plain:]])
        raise MMDiffError(f"No marker is left in the prompt for {left}. Put <|subj|> after the word it is to be.")
    following = iter(unnamed)
    text, entities, read = "", [], 0
    for marker in markers:
        text += prompt[read : marker.start()]
        read = marker.end()
        subject = next(following) if marker[1] is None else names.index(marker[1].strip())
        entities.append(_entity(text, subject, marker[0]))
    for first, second in itertools.pairwise(entities):
        if first.end == second.end:
            raise MMDiffError(
                f"The word '{second.word}' of the prompt has two markers, and one word is one subject. Give the other "
                "subject a word of its own; several photos of one subject go as a batch into one Encode Subject."
            )
    return BoundPrompt(text + prompt[read:], tuple(entities))


def _bind_phrases(prompt: str, names: Sequence[str]) -> BoundPrompt:
    taken: list[tuple[int, int]] = []
    entities = []
    for subject in sorted(range(len(names)), key=lambda index: -len(names[index])):
        name = names[subject]
        words = r"\s+".join(map(re.escape, name.split()))
        phrase = rf"(?<!\w){words}(?!\w)"
        found = re.finditer(phrase, prompt, re.IGNORECASE) if any(map(_ends, name)) else ()
        spans = [match.span() for match in found]
        span = next((span for span in spans if all(span[1] <= a or b <= span[0] for a, b in taken)), None)
        if span is None:
            raise MMDiffError(
                f"Subject '{name}' stands nowhere in the prompt '{prompt}'"
                f"{' but where another subject is' if spans else ''}. Write its name as a phrase, or put <|subj|> "
                "after the word it is to be."
            )
        taken.append(span)
        end = max(index for index in range(*span) if _ends(prompt[index])) + 1
        entities.append(_entity(prompt[:end], subject, name))
    return BoundPrompt(prompt, tuple(sorted(entities, key=lambda entity: entity.end)))


def _entity(before: str, subject: int, marker: str) -> Entity:
    """The word that ends the text before a marker; a closed weight, as in `(man:1.2)`, may stand between."""
    end = _CLOSED_WEIGHT.search(before).start()
    word = _LAST_WORD.search(before[:end])
    if word is None or not _ends(word[0][-1]):
        where = f"behind '{before[-20:]}'" if before.strip() else "at the start of the prompt"
        raise MMDiffError(f"The marker {marker} stands {where}, where there is no word to bind; put it after a word.")
    return Entity(word[0], end, subject)


def _ends(character: str) -> bool:
    """Whether a word can end with it: a letter, a digit, '_', or a mark such as an accent or a vowel sign of Hindi."""
    return character == "_" or unicodedata.category(character)[0] in "LMN"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "none"


def _content(chunks: list[list[Any]]) -> list[Any]:
    return [token for chunk in chunks for token in chunk if token is not None]


def _find(tokens: list[Any], pattern: list[Any]) -> int:
    size = len(pattern)
    return next(start for start in range(len(tokens)) if _same(tokens[start : start + size], pattern))


def _same(a: list[Any], b: list[Any]) -> bool:
    """Equal ids in equal order; embeddings are equal if they have the same shape (the same word gave both)."""
    return len(a) == len(b) and all(getattr(x, "shape", x) == getattr(y, "shape", y) for x, y in zip(a, b, strict=True))
