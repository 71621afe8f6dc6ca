"""Which word of the prompt is which subject.

`<|subj|>` after a word binds it to the next subject in order, `<|subj:NAME|>` to the subject of that name, and
`<|nobody|>` keeps every subject away from it. Without any marker for a subject, one whose name stands in the prompt
binds to the last word of that phrase. Words become token positions per text encoder and per chunk of 77, by the
encoder's own tokenizer.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from .errors import MMDiffError

_OPENING = re.compile(r"<\|\s*(subj|nobody)\s*(:|\|>)", re.IGNORECASE)
_LEFT_OVER = re.compile(r"<\|\s*(?!startoftext|endoftext)[^\W\d_].*?(?:\|>|$)", re.IGNORECASE | re.MULTILINE)
_SENTINEL = "<|subj|>"
_UNSEEN = "\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff"
"""Marks of direction, spaces without width and the like, as they come with copied text; for use in a set."""
_GAP = rf"[\s{_UNSEEN}]*"
_CLOSED_WEIGHT = re.compile(rf"(?:{_GAP}(?::\s*[-+]?[\d.]+(?:e[-+]?\d+)?\s*)?\\?\))*{_GAP}$", re.IGNORECASE)
_LAST_WORD = re.compile(r"[^\s(]+$")
_SCRIPTS_WITHOUT_SPACES = {"CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"}

Tokenize = Callable[[str], list[list[Any]]]
"""Text to chunks of tokens, in which start, end and padding are None; a token is an id or an embedding tensor."""


@dataclass(frozen=True)
class Entity:
    """One word bound to one subject, or to None: nobody. end: characters of the clean prompt up to the word's end."""

    word: str
    end: int
    subject: int | None


@dataclass(frozen=True)
class BoundPrompt:
    """The prompt without markers, and its entity words in the order they stand in it.

    A space is put behind an entity word where an encoder would read on across its end: in scripts without spaces, and
    between a sign that is no letter and the next one.
    """

    text: str
    entities: tuple[Entity, ...]


@dataclass(frozen=True)
class TokenPosition:
    """Where a token stands: chunk of 77, and index within the chunk (0 is the start token)."""

    chunk: int
    index: int


class Marker(NamedTuple):
    """A marker as it stands in a prompt. name: of `<|subj:NAME|>`, or None; nobody: whether it is `<|nobody|>`."""

    text: str
    start: int
    end: int
    name: str | None
    nobody: bool


def find_markers(prompt: str, names: Sequence[str] = ()) -> list[Marker]:
    """The markers of a prompt, in order. names: subjects' names, which may hold the signs that end a marker.

    Raises MMDiffError for what begins like a marker and is none.
    """
    known = {same_name(name) for name in names}
    markers, read = [], 0
    while opening := _OPENING.search(prompt, read):
        start, end, name = opening.start(), opening.end(), None
        if opening[2] == ":":
            closings = [closing.start() for closing in re.finditer(r"\|>", prompt[end:])]
            spelled = [prompt[end : end + closing] for closing in closings]
            name = next((one for one in spelled if same_name(one) in known), spelled[0] if spelled else None)
            if name is None or opening[1].lower() != "subj":
                break
            end += len(name) + len("|>")
        markers.append(Marker(prompt[start:end], start, end, name, opening[1].lower() == "nobody"))
        read = end
    if wrong := _LEFT_OVER.search(without_markers(prompt, markers)):
        raise MMDiffError(
            f"The prompt says {wrong[0]}, which is no marker. After a word, write <|subj|> for the next subject, "
            "<|subj:NAME|> for the subject of that name, or <|nobody|> to keep the subjects away from it."
        )
    return markers


def without_markers(prompt: str, markers: Sequence[Marker]) -> str:
    """The prompt with these markers of it taken out."""
    ends = [0, *(marker.end for marker in markers)]
    starts = [*(marker.start for marker in markers), len(prompt)]
    return "".join(prompt[end:start] for end, start in zip(ends, starts, strict=True))


def bind_prompt(prompt: str, names: Sequence[str]) -> BoundPrompt:
    """Match a prompt with the subjects' names, given in socket order.

    Raises MMDiffError that says which subject or marker is left over, which name is unknown or doubled, which marker
    has no word before it, or which word has two.
    """
    names = [name.strip() for name in names]
    markers = find_markers(prompt, names)
    text = without_markers(prompt, markers)
    subjects = _marked_subjects(markers, names)
    entities, removed = [], 0
    for marker, subject in zip(markers, subjects, strict=True):
        entities.append(_entity(text[: marker.start - removed], subject, marker.text))
        removed += len(marker.text)
    if all(subject is None for subject in subjects):
        entities += _bind_phrases(text, names)
    entities.sort(key=lambda entity: entity.end)
    for first, second in itertools.pairwise(entities):
        if first.end == second.end:
            raise MMDiffError(_two_markers(first, second))
    return _cut(text, entities)


def locate(bound: BoundPrompt, tokenize: Tokenize) -> list[TokenPosition]:
    """The last token of each entity word, in one encoder's tokens; raises as `locate_words` does."""
    return [word[-1] for word in locate_words(bound, tokenize)]


def locate_words(bound: BoundPrompt, tokenize: Tokenize) -> list[list[TokenPosition]]:
    """All tokens of each entity word, in one encoder's tokens.

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
        start, _ = split(entity.end - len(entity.word))
        if before == start:
            raise MMDiffError(
                f"The text encoder reads nothing where the prompt says '{entity.word}', so no subject can be bound to "
                "it. If it is an embedding, its file is missing or is for another base model; use another word."
            )
        located.append([position for _, position in positions[start:before]])
    return located


def _marked_subjects(markers: Sequence[Marker], names: Sequence[str]) -> list[int | None]:
    """Which subject each marker means. Markers for nobody alone leave the subjects to their names in the prompt."""
    places = {same_name(name): index for index, name in enumerate(names)}
    named = {}
    for marker in markers:
        if marker.name is not None:
            same = [name for name in names if same_name(name) == same_name(marker.name)]
            if len(same) != 1:
                found = f"{len(same)} subjects have that name" if same else "no subject has that name"
                raise MMDiffError(
                    f"The prompt says {marker.text}, but {found}. The subjects are {_listed(names)}; "
                    "give each its own name on Encode Subject and use that."
                )
            named[marker] = places[same_name(marker.name)]
    plain = [marker for marker in markers if marker.name is None and not marker.nobody]
    unnamed = [index for index in range(len(names)) if index not in named.values()]
    if len(plain) > len(unnamed):
        raise MMDiffError(
            f"The prompt has {len(plain)} <|subj|> marker{'s' * (len(plain) != 1)} for {len(unnamed)} subject"
            f"{'s' * (len(unnamed) != 1)} ({_listed([names[index] for index in unnamed])}). "
            "Connect another subject or take the last marker away."
        )
    if (plain or named) and len(plain) < len(unnamed):
        left = _listed([names[index] for index in unnamed[len(plain) :]])
        raise MMDiffError(f"No marker is left in the prompt for {left}. Put <|subj|> after the word it is to be.")
    subjects = {**named, **dict(zip(plain, unnamed, strict=False))}
    return [subjects.get(marker) for marker in markers]


def _bind_phrases(prompt: str, names: Sequence[str]) -> list[Entity]:
    folded, origins = _folded(prompt)
    taken: list[tuple[int, int]] = []
    entities = []
    for subject in sorted(range(len(names)), key=lambda index: -len(names[index])):
        words = r"\s+".join(map(re.escape, _folded(names[subject])[0].split()))
        found = re.finditer(f"(?=({words}))", folded) if any(map(_ends, names[subject])) else ()
        spans = [match.span(1) for match in found]
        spans = [span for span in spans if not any(_inside(folded, place) for place in span)]
        span = next((span for span in spans if all(span[1] <= a or b <= span[0] for a, b in taken)), None)
        if span is None:
            raise MMDiffError(
                f"Subject '{names[subject]}' stands nowhere in the prompt '{prompt}'"
                f"{' but where another subject is' if spans else ''}. Write its name as a phrase, or put <|subj|> "
                "after the word it is to be."
            )
        taken.append(span)
        end = max(origins[index] for index in range(*span) if _ends(folded[index])) + 1
        entities.append(_entity(prompt[:end], subject, names[subject]))
    return entities


def _entity(before: str, subject: int | None, marker: str) -> Entity:
    """The word that ends the text before a marker; a closed weight, as in `(man:1.2)`, may stand between."""
    end = _CLOSED_WEIGHT.search(before).start()
    word = _LAST_WORD.search(before[:end])
    if word is None or not _ends(word[0][-1]):
        where = f"behind '{before[-20:]}'" if before.strip() else "at the start of the prompt"
        raise MMDiffError(f"The marker {marker} stands {where}, where there is no word to bind; put it after a word.")
    return Entity(word[0], end, subject)


def _two_markers(first: Entity, second: Entity) -> str:
    if first.subject is None and second.subject is None:
        return f"The word '{second.word}' of the prompt is marked with <|nobody|> twice; take one away."
    if first.subject is None or second.subject is None:
        return (
            f"The word '{second.word}' of the prompt is a subject and is marked with <|nobody|> too. Take one of the "
            "two away; <|nobody|> belongs after a word that is to look like no subject."
        )
    return (
        f"The word '{second.word}' of the prompt has two markers, and one word is one subject. Give the other "
        "subject a word of its own; several photos of one subject go as a batch into one Encode Subject."
    )


def _cut(text: str, entities: Sequence[Entity]) -> BoundPrompt:
    """Put a space behind each word whose end the encoder would otherwise read on across."""
    cut, read, placed = "", 0, []
    for entity in entities:
        cut += text[read : entity.end]
        read = entity.end
        placed.append(replace(entity, end=len(cut)))
        cut += " " * _reads_on(text[:read], text[read : read + 1])
    return BoundPrompt(cut + text[read:], tuple(placed))


def _reads_on(word: str, following: str) -> bool:
    """Whether CLIP's tokenizer, which knows letters, digits and other signs, takes a whole word's end and what follows
    for one piece. A lower case may end in another kind of sign: that of the Turkish I with a dot ends in the dot.
    """
    last = unicodedata.normalize("NFC", word.lower())[-1]
    if not following or following.isspace() or last.isalnum() != following.isalnum():
        return False
    return not last.isalnum() or _without_spaces(last) or _without_spaces(following)


def _inside(text: str, place: int) -> bool:
    """Whether a place of a text is inside a word: a mark belongs to what is before it, scripts without spaces end
    anywhere."""
    if place in (0, len(text)):
        return False
    before, after = text[place - 1], text[place]
    if unicodedata.category(after)[0] == "M":
        return True
    return all(_ends(c) and unicodedata.category(c)[0] != "S" and not _without_spaces(c) for c in (before, after))


def _folded(text: str) -> tuple[str, list[int]]:
    """A text as it is compared, in canonical decomposition, without case and without signs that are not seen, and where
    each of its signs comes from."""
    signs = [
        (sign, place)
        for place, character in enumerate(text)
        if not re.match(f"[{_UNSEEN}]", character)
        for sign in unicodedata.normalize("NFD", unicodedata.normalize("NFD", character).casefold())
    ]
    runs = itertools.groupby(signs, key=lambda one: unicodedata.combining(one[0]) > 0)
    ordered = [one for _, run in runs for one in sorted(run, key=lambda one: unicodedata.combining(one[0]))]
    return "".join(sign for sign, _ in ordered), [place for _, place in ordered]


def same_name(name: str) -> str:
    """What two spellings of one name have in common: composed letters, single spaces, and no sign that is not seen."""
    return " ".join(unicodedata.normalize("NFC", re.sub(f"[{_UNSEEN}]", "", name)).split())


def _ends(character: str) -> bool:
    """Whether a word can end with it: a letter, a digit, '_', an emoji, or a mark such as an accent or a vowel sign."""
    category = unicodedata.category(character)[0]
    return category in "LMN" or character == "_" or (category == "S" and not character.isascii())


def _without_spaces(character: str) -> bool:
    """Whether it is of a script that puts no spaces between words."""
    return re.split("[ -]", unicodedata.name(character, ""))[0] in _SCRIPTS_WITHOUT_SPACES


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
