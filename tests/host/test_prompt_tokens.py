"""Which token of both text encoders an entity word is, beside the reference's own rule for it.

The host's tokenizers carry the real CLIP vocabulary, so no weights are needed to say where a word stands.
"""

import dataclasses
import re
from pathlib import Path

import comfy.sd1_clip
import pytest
import torch
from graph import bound, mmdiff, module, subject
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.torch import save_file
from tiny_sdxl import sdxl
from transformers import CLIPTokenizer

TRIGGER = "<|subj|>"
CHUNK = 75
"""Tokens between the start and the end token of one chunk."""


@pytest.fixture(scope="module")
def reference():
    """The tokenizer as the reference prepares it: the trigger is one token."""
    folder = Path(comfy.sd1_clip.__file__).with_name("sd1_tokenizer")
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([TRIGGER], special_tokens=True)
    return tokenizer


def reference_places(tokenizer, prompt: str) -> list[tuple[int, int]]:
    """(chunk, index) of every trigger's word by the reference's rule, which is: the token before the trigger, counted
    without triggers, the start token included (datasets.py). The reference cuts at 77 tokens; here a next chunk begins.
    """
    trigger = tokenizer.convert_tokens_to_ids(TRIGGER)
    places, clean = [], 0
    for token in tokenizer.encode(prompt):
        if token == trigger:
            places.append(((clean - 2) // CHUNK, (clean - 2) % CHUNK + 1))
        else:
            clean += 1
    return places


@pytest.fixture(scope="module")
def ada(pack):
    with torch.inference_mode():
        return subject(pack, "Ada")


@pytest.fixture(scope="module")
def places(pack, ada):
    """prompt -> for every entity word, {encoder: (chunk, index)} as Multi-Subject Binding reports it."""

    def find(prompt: str) -> list[dict[str, tuple[int, int]]]:
        count = prompt.count(TRIGGER)
        output = pack["MMDiffBindSubjects"].execute(
            mmdiff=mmdiff(pack),
            clip=sdxl().clip,
            prompt=prompt,
            negative_prompt="",
            subjects={f"subject_{number}": ada for number in range(count)},
            width=0,
            height=0,
            start_percent=0.0,
            end_percent=1.0,
        )
        found = []
        for line in output.ui.as_dict()["text"][0].splitlines():
            where = re.fullmatch(r".* -> (.*), subject \d+ 'Ada'", line)[1]
            parts = re.findall(r"token (\d+)(?: of chunk (\d+))? of (both|CLIP-L|CLIP-G)", where)
            own = {}
            for index, chunk, encoder in parts:
                for name in "lg" if encoder == "both" else encoder[-1].lower():
                    own[name] = (int(chunk or 1) - 1, int(index))
            found.append(own)
        words = output.args[2].words
        assert len(words) == count
        for (position,), own in zip(words, found, strict=True):
            assert position == own["g"][0] * 77 + own["g"][1]
        return found

    return find


def both(places: list[tuple[int, int]]) -> list[dict[str, tuple[int, int]]]:
    return [{"l": place, "g": place} for place in places]


def tokens_at(prompt: str, place: tuple[int, int]) -> set[tuple[str, float]]:
    """The token, as the vocabulary spells it, and its weight at a place of a prompt without markers."""
    clip = sdxl().clip
    tokenizer, (chunk, index) = clip.tokenizer.clip_l.tokenizer, place
    found = {encoder: chunks[chunk][index] for encoder, chunks in clip.tokenize(prompt).items()}
    return {(tokenizer.convert_ids_to_tokens(token), weight) for token, weight in found.values()}


PROMPTS = {
    "released demo": "a man<|subj|> in front of the White House",
    "first word": "man<|subj|> on the beach",
    "last word": "a portrait of an old man<|subj|>",
    "two subjects": "a man<|subj|> and a woman<|subj|> at the White House",
    "space before the marker": "a man <|subj|> on the beach",
    "no space behind the marker": "a man<|subj|>, smiling, 4k",
    "end of a sentence": "a man<|subj|>. A dog! A cat?",
    "apostrophe behind": "a man<|subj|>'s dog",
    "apostrophe inside": "the rock'n'roller<|subj|> sings",
    "hyphen": "a sci-fi t-shirt<|subj|> on a hanger",
    "digits, a token each": "R2-D2<|subj|> and C-3PO<|subj|> in 1977",
    "underscore": "a plush_toy<|subj|> on a shelf",
    "many tokens": "a tyrannosaurus<|subj|> and an antidisestablishmentarianist<|subj|> at sea",
    "upper case": "A MAN<|subj|> IN A TUXEDO, BY REMBRANDT",
    "accents": "Zoë<|subj|> in a naïve café<|subj|> at night",
    "accents as marks of their own": "a cafe\u0301<|subj|> at night",
    "no spaces between words": "女の子<|subj|>、公園で",
    "letters behind, in a script without spaces": "一个女孩<|subj|>在海边和一只狗<|subj|>散步",
    "vowel signs": "एक हिन्दी<|subj|> किताब",
    "a vowel sign, then a comma": "एक लड़की<|subj|>, घर में एक कुत्ता<|subj|>",
    "a letter whose lower case is longer": "\u0130<|subj|>, \u0130zmir<|subj|>",
    "an emoji": "a \U0001f98a<|subj|>, \U0001f436<|subj|>!",
    "emoji around": "\U0001f600 a man<|subj|> \U0001f468\u200d\U0001f469\u200d\U0001f467 happy",
    "newlines and many spaces": "a  photo\nof a\tman<|subj|>\n\non   the beach",
    "quotes": 'a "man<|subj|>" with a sign',
    "what looks like markup": "a man<|subj|> <lora:x:1> [b] {c}",
}


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
def test_the_word_is_the_reference_s(pack, places, reference, prompt):
    wanted = reference_places(reference, prompt)
    text = module(pack, "mmdiff_core").bind_prompt(prompt, ["Ada"] * prompt.count(TRIGGER)).text
    assert places(prompt) == both(wanted)
    ends = [before.split()[-1][-1].casefold() for before in prompt.split(TRIGGER)[:-1]]
    for place, end in zip(wanted, ends, strict=True):
        ((token, weight),) = tokens_at(text, place)
        assert token.endswith("</w>") and weight == 1.0
        assert not end.isascii() or token.endswith(f"{end}</w>")


@pytest.mark.parametrize("prompt", [r"a toy \(cute\)<|subj|> here", r"(a toy \(cute\):1.2)<|subj|> here"])
def test_escaped_parentheses_are_text(places, prompt):
    """The host reads `\\(` as a parenthesis, and so as no weight: start, a, toy, ( -> cute."""
    assert places(prompt) == both([(0, 4)])
    assert {token for token, _ in tokens_at(prompt.replace(TRIGGER, ""), (0, 4))} == {"cute</w>"}


def test_a_name_of_any_signs(pack, ada):
    named = dataclasses.replace(ada, name="A|B")
    (_, _, by_name), (_, _, in_order) = (
        bound(pack, f"a toy{marker} on the beach", [named]) for marker in ("<|subj:A|B|>", TRIGGER)
    )
    assert by_name.words == in_order.words == ((2,),)


def test_nobody_is_reported_and_no_subject_s(pack, ada):
    output = pack["MMDiffBindSubjects"].execute(
        mmdiff=mmdiff(pack),
        clip=sdxl().clip,
        prompt="a man<|subj|> and a woman<|nobody|>",
        negative_prompt="",
        subjects={"subject_0": ada},
        width=0,
        height=0,
        start_percent=0.0,
        end_percent=1.0,
    )
    assert output.args[2].words == ((2,),)
    assert output.ui.as_dict()["text"][0].splitlines()[1] == "woman -> token 5 of both encoders, nobody"


def test_a_marker_in_upper_case(pack, ada):
    upper, lower = (bound(pack, f"a man{marker} at home", [ada]) for marker in ("<|Subj:Ada|>", TRIGGER))
    assert torch.equal(upper[0][0][0], lower[0][0][0]) and upper[2].words == lower[2].words == ((2,),)


WEIGHTS = [
    ("a (man<|subj|>:1.3) at home", "a man<|subj|> at home", 1.3),
    ("a (man:1.3)<|subj|> at home", "a man<|subj|> at home", 1.3),
    ("a (man : 1.3 )<|subj|> at home", "a man<|subj|> at home", 1.3),
    ("a (man)<|subj|> at home", "a man<|subj|> at home", 1.1),
    ("a ((man<|subj|>)) at home", "a man<|subj|> at home", 1.1 * 1.1),
    ("a (tall, old man<|subj|> with a hat:0.5) at home", "a tall, old man<|subj|> with a hat at home", 0.5),
    ("(a (tall:1.4) man<|subj|>:0.5) at home", "a tall man<|subj|> at home", 0.5),
    ("(cinematic:1.4), a man<|subj|> at home", "cinematic, a man<|subj|> at home", 1.0),
    (r"a \(very\) tall man<|subj|> at home", "a (very) tall man<|subj|> at home", 1.0),
    ("(A TYRANNOSAURUS:1.3)<|subj|>", "A TYRANNOSAURUS<|subj|>", 1.3),
]


@pytest.mark.parametrize(("prompt", "bare", "weight"), WEIGHTS)
def test_weights_are_no_tokens(places, reference, prompt, bare, weight):
    (wanted,) = reference_places(reference, bare)
    assert places(prompt) == both([wanted])
    ((_, found),) = tokens_at(prompt.replace(TRIGGER, ""), wanted)
    assert found == pytest.approx(weight)


@pytest.mark.parametrize("before", [73, 74, 75, 76, 149, 150, 151])
@pytest.mark.parametrize("word", ["man", "tyrannosaurus"])
def test_beyond_77_tokens(places, reference, before, word):
    """The host cuts a long text into chunks of 75, in the middle of a word too."""
    prompt = f"{'dog ' * before}{word}<|subj|> on the beach"
    wanted = reference_places(reference, prompt)
    assert places(prompt) == both(wanted)
    length = len(reference.encode(word)) - 2
    assert wanted == [((before + length - 1) // CHUNK, (before + length - 1) % CHUNK + 1)]


def test_a_short_weighted_phrase_moves_to_the_next_chunk_whole(places):
    prompt = f"{'dog ' * 73}(tall old man<|subj|>:1.2) on the beach"
    assert places(prompt) == both([(1, 3)])
    assert tokens_at(prompt.replace(TRIGGER, ""), (1, 3)) == {("man</w>", 1.2)}


SPELLINGS = st.text(st.characters(categories=("Ll", "Lu", "Lo", "Nd"), max_codepoint=0x9FFF), min_size=1, max_size=8)


@example([("\u0130", True, ", ")])
@given(
    st.lists(st.tuples(SPELLINGS, st.booleans(), st.sampled_from([" ", ", ", ". ", " - ", "! ", "\n"])), max_size=30)
)
def test_any_words(places, reference, words):
    """Words of any script, any of them a subject; some in the second chunk."""
    chosen = [number for number, (_, entity, _) in enumerate(words) if entity][:16]
    prompt = "".join(f"{word}{TRIGGER if number in chosen else ''}{gap}" for number, (word, _, gap) in enumerate(words))
    if chosen:
        assert places(prompt) == both(reference_places(reference, prompt))


@pytest.fixture
def embeddings(tmp_path, monkeypatch):
    """Textual inversions by name, {encoder: number of vectors}; the host looks for them in a folder."""

    def write(**files):
        widths = {"l": 64, "g": 192}
        for name, counts in files.items():
            save_file(
                {f"clip_{encoder}": torch.ones(count, widths[encoder]) for encoder, count in counts.items()},
                tmp_path / f"{name}.safetensors",
            )
        for encoder in "lg":
            tokenizer = getattr(sdxl().clip.tokenizer, f"clip_{encoder}")
            monkeypatch.setattr(tokenizer, "embedding_directory", str(tmp_path))
            monkeypatch.setattr(tokenizer, "embedding_size", widths[encoder])

    return write


def test_an_embedding_counts_its_vectors(places, embeddings):
    embeddings(style={"l": 3, "g": 3})
    assert places("by embedding:style a man<|subj|> at home") == both([(0, 6)])  # start, by, 3 vectors, a -> man


def test_an_embedding_of_unlike_length(places, embeddings):
    """Each encoder's own place; the report names both."""
    embeddings(someone={"l": 2, "g": 4})
    prompt = "a photo of embedding:someone<|subj|> and a man<|subj|> at home"
    assert places(prompt) == [{"l": (0, 5), "g": (0, 7)}, {"l": (0, 8), "g": (0, 10)}]


@pytest.mark.parametrize("counts", [None, {"l": 2}, {"g": 2}])
def test_an_embedding_that_an_encoder_lacks_is_no_word(pack, places, embeddings, counts):
    """The host leaves it out with a warning; the subject must not bind to the word before it."""
    embeddings(**({} if counts is None else {"someone": counts}))
    reason = "is 64 wide, .* CLIP-G wants 192|is 192 wide, .* CLIP-L wants 64" if counts else "reads nothing where"
    with pytest.raises(module(pack, "mmdiff_core").MMDiffError, match=reason) as error:
        places("a photo of embedding:someone<|subj|> at home")
    assert "'embedding:someone'" in str(error.value)


REFUSED = {
    "comma": ("a man,<|subj|> smiling", "behind 'a man,', where there is no word"),
    "full stop": ("a man.<|subj|>", "behind 'a man.', where there is no word"),
    "dash": ("a man -<|subj|> smiling", "behind 'a man -', where there is no word"),
    "start": ("<|subj|> a man", "at the start of the prompt, where there is no word"),
    "spaces at the start": ("  <|subj|> a man", "at the start of the prompt, where there is no word"),
    "empty weight": ("a man (:1.3)<|subj|>", "where there is no word"),
    "inside a word": ("a wo<|subj|>man at home", "after 'wo' stands inside a word"),
    "plural": ("a man<|subj|>s hat", "after 'man' stands inside a word"),
}


@pytest.mark.parametrize(("prompt", "sentence"), REFUSED.values(), ids=REFUSED)
def test_a_marker_without_a_whole_word_before_it(pack, places, prompt, sentence):
    """The reference would silently fuse the comma, or the start token."""
    with pytest.raises(module(pack, "mmdiff_core").MMDiffError, match=re.escape(sentence)):
        places(prompt)
