"""A prompt while it is being written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdiff_core import MMDiffError, bind_prompt
from mmdiff_core.live import mend, read, refuse, toggle

NAMES = ["penguin", "fire engine"]


def bound(prompt, names=NAMES):
    return {word.text: word.subject for word in read(prompt, names).words if word.subject is not None}


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("a toy<|subj|> and a car<|subj|> at home", {"toy": 0, "car": 1}),
        ("a toy<|subj:fire engine|> and a bird<|subj|>", {"toy": 1, "bird": 0}),
        ("a penguin in a fire engine", {"penguin": 0, "engine": 1}),
        ("a (toy:1.2)<|subj|>, a car<|subj|> and a man<|nobody|>", {"toy": 0, "car": 1, "man": "nobody"}),
        ("a toy<|subj|> and nothing else", {"toy": 0}),
        ("nothing at all", {}),
        ("", {}),
    ],
)
def test_words_are_bound_as_far_as_they_are_written(prompt, words):
    assert bound(prompt) == words


def test_what_is_missing_is_said_as_a_run_would():
    assert "No marker is left in the prompt for 'fire engine'" in read("a toy<|subj|> at home", NAMES).problem
    assert read("a toy<|subj|> and a car<|subj|>", NAMES).problem is None


@pytest.mark.parametrize("slip", ["<|sub|>", "<|subject|>", "<subj|>", "<|subj>", "<subj>", "< |Subj| >", "<|subj|>"])
def test_slips_are_mended(slip):
    assert mend(f"a toy{slip} at home") == "a toy<|subj|> at home"
    assert mend(f"a toy{slip[:-2].rstrip('|')}:Ada|> at home") == "a toy<|subj:Ada|> at home"


@pytest.mark.parametrize("prompt", ["a <lora:style:1> toy", "a subway > a sub <b>", "1 < 2 | 3 > 2", "a man<|nobody|>"])
def test_what_is_no_slip_stays(prompt):
    assert read(prompt, NAMES).mended is None


def end(prompt, word):
    return prompt.index(word) + len(word)


def test_a_word_is_bound_and_unbound_by_a_click():
    prompt = "a toy and a car at home"
    once = toggle(prompt, NAMES, end(prompt, "toy"), 0)
    assert once == "a toy<|subj|> and a car at home"
    twice = toggle(once, NAMES, end(once, "car"), 1)
    assert twice == "a toy<|subj|> and a car<|subj|> at home"
    assert toggle(twice, NAMES, end(twice, "toy"), 0) == "a toy and a car<|subj|> at home"


def test_a_word_before_the_others_gets_a_name():
    prompt = "a car and a toy<|subj|> at home"
    assert toggle(prompt, NAMES, end(prompt, "car"), 1) == "a car<|subj:fire engine|> and a toy<|subj|> at home"


@given(st.text("ab (:1)<|subj>é ", max_size=40), st.lists(st.sampled_from(["a", "b", "ab"]), max_size=3))
def test_any_text_is_read(prompt, names):
    reading = read(prompt, names)
    assert all(prompt[word.start : word.end] == word.text for word in reading.words)


@given(st.lists(st.sampled_from(["toy", "car", "(man:1.2)", "é"]), min_size=2, max_size=5), st.data())
def test_what_is_read_is_what_a_run_binds(words, data):
    marked = data.draw(st.lists(st.integers(0, len(words) - 1), min_size=2, max_size=2, unique=True))
    prompt = " and a ".join(word + "<|subj|>" * (place in marked) for place, word in enumerate(words))
    entities = [(entity.word, entity.subject) for entity in bind_prompt(prompt, NAMES).entities]
    read_words = [(word.text, word.subject) for word in read(prompt, NAMES).words if word.subject is not None]
    assert read_words == entities


@pytest.mark.parametrize(
    ("prompt", "subjects", "sentence"),
    [
        ("a toy<|sub|> at home", 1, "which is no marker"),
        ("a toy<|subj|> and a car<|subj|>", 1, "2 <.subj.> markers for 1 subject"),
        ("a toy<|subj|> at home", 2, "No marker is left in the prompt for 'subject 2'"),
        ("a toy<|subj:subject 2|> at home", 2, "No marker is left in the prompt for 'subject 1'"),
        ("<|subj|>", 1, "there is no word to bind"),
        ("a toy<|subj|><|nobody|>", 1, "is a subject and is marked with <.nobody.> too"),
    ],
)
def test_what_no_names_could_mend_is_refused_before_they_are_known(prompt, subjects, sentence):
    with pytest.raises(MMDiffError, match=sentence):
        refuse(prompt, subjects)


PIECES = [
    "a toy",
    " and a car",
    " at home",
    "<|subj|>",
    "<|subj:penguin|>",
    "<|subj:fire  engine|>",
    "<|nobody|>",
    "<|sub|>",
]


@given(st.lists(st.sampled_from(PIECES), max_size=6).map("".join), st.permutations([*NAMES, "owl"]), st.integers(1, 3))
def test_nothing_is_refused_that_some_names_allow(prompt, names, count):
    """What binds with its subjects' names is not refused without them."""
    names = names[:count]
    try:
        bind_prompt(prompt, names)
    except MMDiffError:
        return
    refuse(prompt, count)
