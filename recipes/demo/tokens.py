"""The demo's tokenizer: CLIP's, with a vocabulary of the captions that it is trained on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from mmdiff_core.world.backgrounds import SCENES
from mmdiff_core.world.captions import COLOUR_WORDS
from mmdiff_core.world.looks import LOOKS
from mmdiff_core.world.scenes import RELATIONS, WorldScenes

LENGTH = 40
"""Tokens of a prompt: the longest caption of the world and some more."""
VOCABULARY = 1400
ENDS = ["<|startoftext|>", "<|endoftext|>"]


def make_tokenizer(scenes: WorldScenes, folder: Path) -> CLIPTokenizer:
    """Byte pairs of the words that captions of these scenes can have; other words fall into smaller pieces.

    Written to `folder` as CLIP's two files, which ComfyUI reads too.
    """
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    letters = [chr(code) for code in range(33, 127)]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(ENDS),
        initial_alphabet=sorted({*letters, *pre_tokenizers.ByteLevel.alphabet()}),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(sorted(_words(scenes)), trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(merge) for merge in learned["merges"]]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(merge) for merge in merges), *ENDS]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(
        json.dumps({token: number for number, token in enumerate(dict.fromkeys(vocabulary))})
    )
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    made = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=LENGTH)
    made.save_pretrained(folder)
    return made


def _words(scenes: WorldScenes) -> Iterable[str]:
    phrases = [scene.phrase for scene in SCENES.values()] + [look.phrase for look in LOOKS.values()] + [*RELATIONS]
    for identity in scenes.identities:
        phrases += [identity.name, identity.category]
    common = "a an and the some with of pair toy big small photo picture drawing my this that his her man woman person"
    return {word for phrase in [*phrases, common, *COLOUR_WORDS] for word in phrase.lower().split()}
