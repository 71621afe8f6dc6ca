"""Which word is which subject, and where the encoder's tokenizer puts it."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from mmdiff_core import MMDiffError, bind_prompt, locate
from mmdiff_core.prompt import locate_words

ADA_BO = ["Ada", "Bo"]


def clip_tokenizer() -> Tokenizer:
    """CLIP's rule for words and pieces, with a vocabulary of bytes and a few merges."""
    merges = [("m", "a"), ("ma", "n</w>"), ("d", "o"), ("s", "u"), ("b", "j</w>"), ("e", "r</w>")]
    letters = pre_tokenizers.ByteLevel.alphabet()
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "removed", invert=True), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    return tokenizer


TOKENIZER = clip_tokenizer()
WEIGHT = re.compile(r"[()]|:\s*[\d.]+\s*(?=\))")


def chunked(tokens: list) -> list[list]:
    """Chunks of 77 with room for 75 tokens between start and end."""
    return [[None, *tokens[at : at + 75], None] for at in range(0, len(tokens) or 1, 75)]


def tokenize(text: str) -> list[list]:
    """As hosts do it: weights are taken out of the text, what is between them becomes tokens."""
    return chunked([token for part in WEIGHT.split(text) for token in TOKENIZER.encode(part).ids])


def tokens_of(word: str) -> list[int]:
    return TOKENIZER.encode(word).ids


@pytest.mark.parametrize(
    ("prompt", "names", "text", "entities"),
    [
        ("a man<|subj|> and a dog<|subj|>", ADA_BO, "a man and a dog", [("man", 0), ("dog", 1)]),
        ("a man <|subj|> sits", ["Ada"], "a man  sits", [("man", 0)]),
        ("a dog<|subj:Bo|>, a man<|subj:Ada|>", ADA_BO, "a dog, a man", [("dog", 1), ("man", 0)]),
        ("a dog<|subj: Bo |>, a man<|subj:Ada|>", ADA_BO, "a dog, a man", [("dog", 1), ("man", 0)]),
        ("a dog<|subj:Bo|> and a man<|subj|>", ADA_BO, "a dog and a man", [("dog", 1), ("man", 0)]),
        ("a man<|subj:Ada|>, his hat<|subj:Ada|>", ["Ada"], "a man, his hat", [("man", 0), ("hat", 0)]),
        ("a man<|SUBJ|> and a dog<| subj |>", ADA_BO, "a man and a dog", [("man", 0), ("dog", 1)]),
        ("a (man:1.2)<|subj|> sits", ["Ada"], "a (man:1.2) sits", [("man", 0)]),
        ("a ((old man:1.2))<|subj|>", ["Ada"], "a ((old man:1.2))", [("man", 0)]),
        ("a (man<|subj|>:1.2)", ["Ada"], "a (man:1.2)", [("man", 0)]),
        ("a cafe\N{COMBINING ACUTE ACCENT}<|subj|>", ["Ada"], "a cafe\N{COMBINING ACUTE ACCENT}", None),
        ("an x_<|subj|>", ["Ada"], "an x_", [("x_", 0)]),
        (r"a toy \(cute\)<|subj|>", ["Ada"], r"a toy \(cute\)", [("cute", 0)]),
        (r"toy<|subj|> \(cute\)", ["Ada"], r"toy \(cute\)", [("toy", 0)]),
        (r"(saber \(fate\):1.2)<|subj|> sits", ["Ada"], r"(saber \(fate\):1.2) sits", [("fate", 0)]),
        (r"((saber \(fate\)):1e-1)<|subj|>", ["Ada"], r"((saber \(fate\)):1e-1)", [("fate", 0)]),
        ("a toy<|subj:A|B|> sits", ["A|B"], "a toy sits", [("toy", 0)]),
        ("a toy<|subj:A|>B|> sits", ["A|>B"], "a toy sits", [("toy", 0)]),
        ("a toy<|subj:<|subj|>|> sits", ["<|subj|>"], "a toy sits", [("toy", 0)]),
        ("a toy<|subj:)\\n(|>", [r")\n("], "a toy", [("toy", 0)]),
        ("a toy<|subj:Ada\nLee|>", ["Ada Lee"], "a toy", [("toy", 0)]),
        ("a toy<|subj:Zoe\N{COMBINING DIAERESIS}|>", ["Zo\xeb"], "a toy", [("toy", 0)]),
        ("a toy<|subj:Zo\xeb|>", ["Zoe\N{COMBINING DIAERESIS}"], "a toy", [("toy", 0)]),
        ("一个女孩<|subj|>在海边", ["Ada"], "一个女孩 在海边", [("一个女孩", 0)]),
        ("the 狐<|subj|>, and 犬<|subj|>s", ADA_BO, "the 狐, and 犬 s", [("狐", 0), ("犬", 1)]),
        ("लड़की<|subj|>, a toy", ["Ada"], "लड़की , a toy", [("लड़की", 0)]),
        ("\u0130<|subj|>, a toy", ["Ada"], "\u0130 , a toy", [("\u0130", 0)]),
        ("a \N{FOX FACE}<|subj|>!", ["Ada"], "a \N{FOX FACE} !", [("\N{FOX FACE}", 0)]),
        ("a man<|subj|>, a woman<|nobody|>", ["Ada"], "a man, a woman", [("man", 0), ("woman", None)]),
        ("a girl<|NoBody|>, a man<|subj:Ada|>", ["Ada"], "a girl, a man", [("girl", None), ("man", 0)]),
        ("Ada and a woman<| nobody |>", ["Ada"], "Ada and a woman", [("Ada", 0), ("woman", None)]),
        ("<|endoftext|> a man<|subj|>", ["Ada"], "<|endoftext|> a man", [("man", 0)]),
        ("a man\u200b<|subj|> sits", ["Ada"], "a man\u200b sits", None),
        ("(رجل\u200f:1.2)\u200e<|subj|>", ["Ada"], "(رجل\u200f:1.2)\u200e", None),
        ("a toy<|subj:\u200eAda|>", ["Ada"], "a toy", [("toy", 0)]),
        ("a toy<|subj:Ada|>", ["\ufeffAda\u200f"], "a toy", [("toy", 0)]),
    ],
)
def test_markers(prompt, names, text, entities):
    bound = bind_prompt(prompt, names)
    assert bound.text == text
    if entities is not None:
        assert [(entity.word, entity.subject) for entity in bound.entities] == entities
    for entity in bound.entities:
        assert bound.text[: entity.end].endswith(entity.word)


@pytest.mark.parametrize(
    ("prompt", "names", "entities"),
    [
        ("a photo of Ada", ["Ada"], [("Ada", 0)]),
        ("a photo of ADA and bo", ADA_BO, [("ADA", 0), ("bo", 1)]),
        ("bo meets Ada", ADA_BO, [("bo", 1), ("Ada", 0)]),
        ("the  old\nman sits", ["The old man"], [("man", 0)]),
        ("Ann Lee and Ann", ["Ann", "Ann Lee"], [("Lee", 1), ("Ann", 0)]),
        ("Ann and Ann Lee", ["Ann", "Ann Lee"], [("Ann", 0), ("Lee", 1)]),
        ("Ann and Ann", ["Ann", "Ann"], [("Ann", 0), ("Ann", 1)]),
        ("a manly man", ["man"], [("man", 0)]),
        ("a photo of (Ada:1.2)", ["Ada"], [("Ada", 0)]),
        ("meet Ada, then Bo.", ["  Ada ", "Bo"], [("Ada", 0), ("Bo", 1)]),
        ("a photo of Dr. X. on the beach", ["Dr. X."], [("X", 0)]),
        ("a.c and abc", ["abc", "a.c"], [("a.c", 1), ("abc", 0)]),
        (r"saber \(fate\)", [r"saber \(fate\)"], [("fate", 0)]),
        ("a photo of A|B", ["A|B"], [("A|B", 0)]),
        ("Zoe\N{COMBINING DIAERESIS} sits", ["Zo\xeb"], [("Zoe\N{COMBINING DIAERESIS}", 0)]),
        ("Zo\xeb sits", ["Zoe\N{COMBINING DIAERESIS}"], [("Zo\xeb", 0)]),
        ("vi\xea\N{COMBINING DOT BELOW}t sits", ["vi\u1ec7t"], [("vi\xea\N{COMBINING DOT BELOW}t", 0)]),
        ("GROSSE", ["gro\xdfe"], [("GROSSE", 0)]),
        ("\u0130rem sits", ["i\N{COMBINING DOT ABOVE}rem"], [("\u0130rem", 0)]),
        ("a \N{FOX FACE} sits", ["\N{FOX FACE}"], [("\N{FOX FACE}", 0)]),
        ("ba a a", ["a a"], [("a", 0)]),
        ("Ada sits", ["\u200eAda\u200f"], [("Ada", 0)]),
        ("Ada\u200e sits", ["Ada"], [("Ada", 0)]),
    ],
)
def test_names_as_phrases(prompt, names, entities):
    bound = bind_prompt(prompt, names)
    assert bound.text == prompt, "without a marker nothing is taken out"
    assert [(entity.word, entity.subject) for entity in bound.entities] == entities
    for entity in bound.entities:
        assert prompt[: entity.end].endswith(entity.word)


@pytest.mark.parametrize(("prompt", "word"), [("a man\u200b<|subj|>", "man"), ("(رجل\u200f:1.2)\u200e<|subj|>", "رجل")])
def test_a_sign_that_is_not_seen_is_no_part_of_the_word(prompt, word):
    """A mark of a writing's direction, or a space without width, as it comes with what was copied from elsewhere."""
    (entity,) = bind_prompt(prompt, ["Ada"]).entities
    assert entity.word == word


def test_a_phrase_binds_inside_no_other_word():
    (entity,) = bind_prompt("a manly man", ["man"]).entities
    assert entity.end == len("a manly man")


@pytest.mark.parametrize(
    ("prompt", "names", "said"),
    [
        ("a man<|subj|>", ADA_BO, "No marker is left in the prompt for 'Bo'. Put <|subj|> after the word"),
        ("a man<|subj:Bo|>", ADA_BO, "No marker is left in the prompt for 'Ada'"),
        ("a man<|subj|>", ["Ada", "Bo", "Cy"], "for 'Bo', 'Cy'"),
        ("a man<|subj|>, a dog<|subj|>", ["Ada"], "2 <|subj|> markers for 1 subject ('Ada'). Connect another subject"),
        ("a man<|subj|>, a dog<|subj:Ada|>", ["Ada"], "1 <|subj|> marker for 0 subjects (none)"),
        ("a man<|subj|>", [], "1 <|subj|> marker for 0 subjects (none)"),
        ("a man<|subj:Cy|>", ADA_BO, "<|subj:Cy|>, but no subject has that name. The subjects are 'Ada', 'Bo'"),
        ("a man<|subj:ada|>", ["Ada"], "no subject has that name. The subjects are 'Ada'"),
        ("a man<|subj:Ada|>", ["Ada", " Ada "], "2 subjects have that name. The subjects are 'Ada', 'Ada'"),
        ("<|subj|> a man", ["Ada"], "The marker <|subj|> stands at the start of the prompt, where there is no word"),
        ("  <|subj|>", ["Ada"], "at the start of the prompt"),
        ("a man,<|subj|> sits", ["Ada"], "The marker <|subj|> stands behind 'a man,', where there is no word to bind"),
        ("a man (,:1.2)<|subj:Ada|>", ["Ada"], "The marker <|subj:Ada|> stands behind 'a man (,:1.2)'"),
        ("a man (<|subj|>)", ["Ada"], "where there is no word to bind; put it after a word"),
        ("a dog on the beach", ["Ada"], "Subject 'Ada' stands nowhere in the prompt 'a dog on the beach'. Write its"),
        ("Ada on the beach", ["Ada", "Ada"], "Subject 'Ada' stands nowhere in the prompt"),
        ("Ann Lee sits", ["Ann", "Ann Lee"], "Subject 'Ann' stands nowhere"),
        ("Adam sits", ["Ada"], "Subject 'Ada' stands nowhere"),
        ("", ["Ada"], "Subject 'Ada' stands nowhere"),
        ("a man", [""], "Subject '' stands nowhere"),
        ("a man!!!", ["!!!"], "Subject '!!!' stands nowhere"),
        ("Zoe\N{COMBINING DIAERESIS} sits", ["Zoe"], "Subject 'Zoe' stands nowhere"),
        ("a man<|subject|>", ["man"], "The prompt says <|subject|>, which is no marker. After a word, write <|subj|>"),
        ("a man<|subj", ["man"], "The prompt says <|subj, which is no marker"),
        ("a man<|subj:Ada", ["Ada"], "The prompt says <|subj:Ada, which is no marker"),
        ("a man<|subj:Ada|> and<|nobody:Bo|>", ["Ada"], "The prompt says <|nobody:Bo|>, which is no marker"),
        ("<|nobody|> a man<|subj|>", ["Ada"], "The marker <|nobody|> stands at the start of the prompt"),
        (
            "a man<|subj|> and<|nobody|><|nobody|>",
            ["Ada"],
            "'and' of the prompt is marked with <|nobody|> twice",
        ),
        ("a man<|subj|><|nobody|>", ["Ada"], "'man' of the prompt is a subject and is marked with <|nobody|> too"),
        ("a man<|nobody|><|subj|>", ["Ada"], "'man' of the prompt is a subject and is marked with <|nobody|> too"),
        ("Ada<|nobody|>", ["Ada"], "'Ada' of the prompt is a subject and is marked with <|nobody|> too"),
        ("a woman<|nobody|>", ["Ada"], "Subject 'Ada' stands nowhere in the prompt 'a woman'"),
    ],
)
def test_a_prompt_and_subjects_that_do_not_match(prompt, names, said):
    with pytest.raises(MMDiffError) as caught:
        bind_prompt(prompt, names)
    assert said in str(caught.value)


WORDS = st.lists(
    st.tuples(st.text("abdmnosu", min_size=1, max_size=9), st.none() | st.integers(0, 3)), min_size=1, max_size=200
)


@given(WORDS, st.permutations(["Ada", "Bo", "Cy", "Di"]))
def test_any_mentions_by_name(words, names):
    mentioned = sorted({subject for _, subject in words if subject is not None})
    names = [names[subject] for subject in mentioned]
    marker = {subject: f"<|subj:{names[at]}|>" for at, subject in enumerate(mentioned)}
    prompt = " ".join(word + marker.get(subject, "") for word, subject in words)
    if not mentioned:
        return
    bound = bind_prompt(prompt, names)
    assert bound.text == " ".join(word for word, _ in words)
    wanted = [(word, mentioned.index(subject)) for word, subject in words if subject is not None]
    assert [(entity.word, entity.subject) for entity in bound.entities] == wanted, "in the order of the prompt"
    ends = [entity.end for entity in bound.entities]
    assert ends == sorted(set(ends))
    assert all(bound.text[: entity.end].split()[-1] == entity.word for entity in bound.entities)


@given(WORDS)
def test_the_located_token_is_the_last_of_its_word(words):
    named = [word for word, subject in words if subject is not None]
    prompt = " ".join(word + ("<|subj|>" if subject is not None else "") for word, subject in words)
    if not named:
        return
    found = locate(bind_prompt(prompt, [str(number) for number in range(len(named))]), tokenize)
    read, wanted = 0, []
    for word, subject in words:
        read += len(tokens_of(word))
        if subject is not None:
            wanted.append(((read - 1) // 75, 1 + (read - 1) % 75))
    assert [(position.chunk, position.index) for position in found] == wanted


def at(prompt: str, names: list[str]) -> list[tuple[int, int]]:
    return [(position.chunk, position.index) for position in locate(bind_prompt(prompt, names), tokenize)]


@pytest.mark.parametrize(
    "prompt", ["man<|subj|> sits", "(man:1.3)<|subj|>", "((man<|subj|>:1.3))", "man<|subj|>, sits", "MAN<|subj|>'s hat"]
)
def test_one_token_whatever_stands_around_it(prompt):
    assert len(tokens_of("man")) == 1
    assert at(prompt, ["Ada"]) == [(0, 1)]


def test_a_name_as_a_phrase_is_located_at_its_last_word():
    before = len(tokens_of("photo of the old"))
    assert at("photo of (the old Man:1.1) sits", ["the old man"]) == [(0, before + 1)]


@pytest.mark.parametrize(
    ("prompt", "names", "before"),
    [
        (r"a toy \(cute\)<|subj|> sits", ["Ada"], "a toy \\(cute"),
        ("一个女孩<|subj|>在海边", ["Ada"], "一个女孩"),
        ("小明在海边", ["小明"], "小明"),
        ("मेरी लड़की<|subj|>, sits", ["Ada"], "मेरी लड़की"),
        ("a \u0130<|subj|>, sits", ["Ada"], "a \u0130"),
        ("an x_<|subj|>), sits", ["Ada"], "an x_"),
        ("cafe\N{COMBINING ACUTE ACCENT}<|subj|>s" + " ", ["Ada"], None),
    ],
)
def test_the_token_before_the_marker_in_any_writing(prompt, names, before):
    """The reference's rule: the marker cuts the text, and the token before it is the word's."""
    if before is None:
        with pytest.raises(MMDiffError, match="stands inside a word"):
            at(prompt, names)
    else:
        assert at(prompt, names) == [(0, sum(len(tokens_of(part)) for part in WEIGHT.split(before)))]


def test_all_tokens_of_a_word_are_its_own():
    long, rest = len(tokens_of("sub")), len(tokens_of("and woman"))
    subject, nobody = locate_words(bind_prompt("man sub<|subj|> and woman<|nobody|>", ["Ada"]), tokenize)
    assert [position.index for position in subject] == list(range(2, 2 + long))
    assert nobody[-1].index == 1 + long + rest


def test_nobodys_word_is_located_too():
    assert at("man<|subj|> and woman<|nobody|>", ["Ada"]) == [(0, 1), (0, len(tokens_of("man and woman")))]


def test_a_word_of_several_tokens_beyond_the_first_chunk():
    words = ["man"] * 160
    assert len(tokens_of("sub")) > 1
    found = at(" ".join(words) + " sub<|subj|> man", ["Ada"])
    assert found == [(2, 160 - 150 + len(tokens_of("sub")))]


def test_a_hosts_padding_in_front_of_a_word_is_no_token():
    """Hosts keep a word whole at the end of a chunk and fill the chunk with padding instead."""

    def padded(text: str) -> list[list]:
        first, *rest = [token for chunk in tokenize(text) for token in chunk if token is not None]
        return [[None, first, None, None], [None, *rest, None]]

    (position,) = locate(bind_prompt("man do<|subj|> man", ["Ada"]), padded)
    assert (position.chunk, position.index) == (1, len(tokens_of("do")))


def test_embeddings_are_tokens_too():
    """A textual inversion is two vectors here, made anew each time, as hosts read it from its file."""

    def with_embeddings(text: str) -> list[list]:
        vectors = {"mine": [torch.randn(6), torch.randn(6)]}
        return chunked([token for word in text.split() for token in vectors.get(word, [word])])

    (position,) = locate(bind_prompt("a mine mine<|subj|> sits", ["Ada"]), with_embeddings)
    assert (position.chunk, position.index) == (0, 5)


@pytest.mark.parametrize("prompt", ["a woma<|subj|>n sits", "a do<|subj|>g", "a m<|subj|>an<|subj|>"])
def test_a_marker_inside_a_word(prompt):
    with pytest.raises(MMDiffError, match=r"marker after '\w+' stands inside a word of the prompt 'a .*'; put it"):
        at(prompt, ["Ada", "Bo"][: prompt.count("<|subj|>")])


def test_a_word_that_the_encoder_does_not_read():
    def deaf(text: str) -> list[list]:
        return chunked([word for word in text.split() if word != "lost"])

    with pytest.raises(MMDiffError, match="reads nothing where the prompt says 'lost'"):
        locate(bind_prompt("a lost<|subj|> man", ["Ada"]), deaf)
