"""What is nearly the same, who is the same, and which words are nouns."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from mmdiff_core.annotation.found import Phrase
from mmdiff_core.annotation.likeness import APART, nearly_same, outlook, people
from mmdiff_core.annotation.stages.boxes import placed
from mmdiff_core.annotation.stages.words import noun_phrases


def scene(seed: int) -> Image.Image:
    """Blotches, as photos have them."""
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 18, 3), np.uint8)
    return Image.fromarray(pixels).resize((360, 240), Image.Resampling.BICUBIC)


def apart(one: Image.Image, other: Image.Image) -> int:
    return (int(outlook(one), 16) ^ int(outlook(other), 16)).bit_count()


@pytest.mark.parametrize("seed", range(5))
def test_copies_look_the_same_and_others_do_not(seed, tmp_path):
    picture = scene(seed)
    picture.save(tmp_path / "poor.jpg", quality=40)
    copies = [
        picture.resize((180, 120)),
        picture.crop((1, 1, 359, 239)),
        picture.filter(ImageFilter.GaussianBlur(1)),
        Image.open(tmp_path / "poor.jpg"),
    ]
    assert max(apart(picture, copy) for copy in copies) <= APART
    assert min(apart(picture, scene(other)) for other in range(100, 130)) > 4 * APART
    assert apart(picture, picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) > 4 * APART


def test_every_near_copy_is_found():
    """As by comparing all with all, in the same order."""
    random = np.random.default_rng(0)
    rows = random.integers(0, 2, (40, 256))
    rows = np.concatenate([rows, rows])
    for row in rows[40:]:
        row[random.permutation(256)[: random.integers(0, 2 * APART)]] ^= 1
    outlooks = {str(number): np.packbits(row.astype(np.uint8)).tobytes().hex() for number, row in enumerate(rows)}
    kept, wanted = [], {}
    for number, row in enumerate(rows):
        near = [other for other in kept if (rows[other] != row).sum() <= APART]
        if near:
            wanted[str(number)] = str(near[0])
        else:
            kept.append(number)
    found = nearly_same(outlooks)
    assert found == wanted and 5 < len(found) < 40


def test_people_are_told_apart():
    random = np.random.default_rng(0)
    means = random.normal(size=(6, 64)) * 10
    who = random.integers(0, 6, 60)
    vectors = [means[one] * random.uniform(0.5, 2) + random.normal(size=64) * 3 for one in who]
    numbers = people(vectors, alike=0.6)
    assert len(set(numbers)) == 6 and len(set(zip(who.tolist(), numbers, strict=True))) == 6
    assert people([], 0.5) == []


def tagged(text: str, tags: str) -> list[tuple[str, int, int]]:
    spans, last = [], 0
    for word, tag in zip(text.split(), tags.split(), strict=True):
        start = text.index(word, last)
        last = start + len(word)
        spans.append((tag, start, last))
    return spans


@pytest.mark.parametrize(
    ("text", "tags", "phrases"),
    [
        ("a red dog sits by two men", "DET ADJ NOUN VERB ADP NUM NOUN", ["a red dog", "two men"]),
        ("a fire engine and Anna", "DT NN NN CC NNP", ["a fire engine", "Anna"]),
        ("the big", "DET ADJ", []),
        ("dog a cat", "NOUN DET NOUN", ["dog", "a cat"]),
        ("running fast", "VERB ADV", []),
    ],
)
def test_nouns_with_what_stands_before_them(text, tags, phrases):
    found = noun_phrases(text, tagged(text, tags))
    assert [text[one.start : one.end] for one in found] == phrases


def test_nouns_end_at_commas_and_are_whole_words():
    text = "dog, cat"
    assert [(one.start, one.end) for one in noun_phrases(text, [("NOUN", 0, 3), ("NOUN", 5, 8)])] == [(0, 3), (5, 8)]
    assert noun_phrases("dogs", [("NOUN", 0, 3)]) == []


def test_the_surest_place_and_the_next_one():
    places = [(0.8, (0.0, 0.0, 10.0, 10.0)), (0.7, (1.0, 0.0, 10.0, 10.0)), (0.4, (50.0, 50.0, 90.0, 120.0))]
    found = placed(Phrase(0, 3), places, (100, 100))
    assert found.box == (0, 0, 10, 10) and (found.score, found.again) == (0.8, 0.4)
    assert placed(Phrase(0, 3), [(0.9, (120.0, 0.0, 130.0, 10.0))], (100, 100)).box is None
