"""The noun phrases of a caption, by a model that tags parts of speech."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from PIL import Image

from ..found import Found, Phrase
from .pipelines import open_pipeline

NOUNS = ("NOUN", "PROPN", "NN")
BEFORE = ("DET", "ADJ", "NUM", "DT", "JJ", "CD", "PRP$", "PDT")
"""Tags of universal parts of speech and of the Penn Treebank, by how they begin; what may stand before a noun."""


class Words:
    """Any token classification whose labels are such tags."""

    def __init__(self, folder: Path) -> None:
        self.pipeline = open_pipeline("token-classification", folder)

    def __call__(self, picture: Image.Image, found: Found) -> Found:
        tagged = self.pipeline(found.caption, aggregation_strategy="first")
        spans = [(one["entity_group"], int(one["start"]), int(one["end"])) for one in tagged]
        return replace(found, phrases=tuple(noun_phrases(found.caption, spans)))


def noun_phrases(caption: str, tagged: list[tuple[str, int, int]]) -> list[Phrase]:
    """Nouns with what stands right before them, whole words only. tagged: (tag, start, end) in order."""
    found: list[Phrase] = []
    start = end = None
    last = 0
    for tag, left, right in [*tagged, ("", len(caption), len(caption))]:
        noun, before = tag.upper().startswith(NOUNS), tag.upper().startswith(BEFORE)
        apart = caption[last:left].strip(" -'’") != ""
        if apart or not noun and (end is not None or not before):
            if end is not None:
                found.append(Phrase(start, end))
            start = end = None
        if noun or before:
            start = left if start is None else start
            end = right if noun else end
        last = right
    return [one for one in found if _whole(caption, one)]


def _whole(caption: str, phrase: Phrase) -> bool:
    start, end = phrase.start, phrase.end
    cut = (start and caption[start - 1].isalnum()) or caption[end : end + 1].isalnum()
    return not cut and caption[start].isalnum() and caption[end - 1].isalnum()
