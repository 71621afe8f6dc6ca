"""Prompts and photos to slots: what the text encoders and the attention layers are given, as tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import MMDiffError
from ..model.attention import competing, word_columns
from ..prompt import BoundPrompt, bind_prompt, locate, locate_words


@dataclass(frozen=True)
class Slots:
    """B prompts with up to S subjects and up to W entity words each.

    ids: (B, L) tokens by text encoder. references: (B, S, 3, P, P) in [0, 1]. valid: (B, S) bool, slots that hold a
    subject which the image branch sees. words: (B, W) positions of the entity words by text encoder. owners: (B, W) the
    slot whose subject a word is. fused: (B, W) bool, the word is fused with its subject. columns: (B, L, S + R) of 0
    and 1 where subjects are separated by word, the tokens of each slot's words and of each word that competes.
    faces, crops: (B, S, D_id) vectors as the recogniser gave them and (B, S, 3, P, P) aligned faces in [0, 1], where
    subjects are drawn from faces.
    sizes: (B, 6), what SDXL is told of each picture (height and width before it was resized, top and left of the cut,
    height and width of the cut), or None for squares that were never cut.
    """

    ids: dict[str, Tensor]
    references: Tensor
    valid: Tensor
    words: dict[str, Tensor]
    owners: Tensor
    fused: Tensor
    columns: Tensor | None = None
    faces: Tensor | None = None
    crops: Tensor | None = None
    sizes: Tensor | None = None

    def to(self, device: torch.device | str) -> Slots:
        """The same on another device."""
        return on_device(self, device)


class Reader:
    """Prompts as a base's tokenizers read them."""

    def __init__(self, tokenizers: Mapping[str, Any]) -> None:
        self.tokenizers = tokenizers

    def ids(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """(B, L) tokens by text encoder; what does not fit is cut off."""
        return {
            encoder: tokenizer(
                list(texts),
                padding="max_length",
                truncation=True,
                max_length=tokenizer.model_max_length,
                return_tensors="pt",
            ).input_ids
            for encoder, tokenizer in self.tokenizers.items()
        }

    def places(self, bound: BoundPrompt) -> dict[str, list[int | None]]:
        """Where each entity word stands, by text encoder; None where what is cut off takes it away."""
        return {
            encoder: [place.index if place.chunk == 0 else None for place in locate(bound, partial(_chunks, tokenizer))]
            for encoder, tokenizer in self.tokenizers.items()
        }

    def slots(
        self, prompts: Sequence[str], references: Sequence[Tensor], photo_size: int, by_word: bool = False
    ) -> Slots:
        """Prompts with markers, and (S, 3, P, P) references of each, called `picture 1`, `picture 2` and so on.
        by_word: whether subjects are separated by word.

        Raises MMDiffError where a prompt does not fit its references, or is too long for one of its entity words.
        """
        bound = [
            bind_prompt(prompt, [f"picture {number}" for number in range(1, len(photos) + 1)])
            for prompt, photos in zip(prompts, references, strict=True)
        ]
        subjects = max(1, *(len(photos) for photos in references))
        width = max(1, *(len(one.entities) for one in bound))
        words = {encoder: torch.zeros(len(bound), width, dtype=torch.long) for encoder in self.tokenizers}
        for row, prompt in enumerate(bound):
            for encoder, places in self.places(prompt).items():
                for column, (entity, place) in enumerate(zip(prompt.entities, places, strict=True)):
                    if place is None:
                        raise MMDiffError(
                            f"The word '{entity.word}' of the prompt '{prompt.text}' stands behind the "
                            f"{self.tokenizers[encoder].model_max_length} tokens that the text encoder reads; move it "
                            "forward or shorten the prompt."
                        )
                    words[encoder][row, column] = place
        owners = [torch.tensor([entity.subject or 0 for entity in one.entities], dtype=torch.long) for one in bound]
        bodies = [
            torch.tensor([entity.subject is not None for entity in one.entities], dtype=torch.bool) for one in bound
        ]
        return Slots(
            ids=self.ids([one.text for one in bound]),
            references=torch.stack([padded(_resized(photos, photo_size), subjects) for photos in references]),
            valid=torch.stack([torch.arange(subjects) < len(photos) for photos in references]),
            words=words,
            owners=torch.stack([padded(one, width) for one in owners]),
            fused=torch.stack([padded(one, width) for one in bodies]),
            columns=self._columns(bound, subjects) if by_word else None,
        )

    def _columns(self, prompts: Sequence[BoundPrompt], subjects: int) -> Tensor:
        tokenizer = next(iter(self.tokenizers.values()))
        rows = []
        for prompt in prompts:
            words = [[place.index for place in word] for word in locate_words(prompt, partial(_chunks, tokenizer))]
            entities = [(entity.subject, word[-1]) for entity, word in zip(prompt.entities, words, strict=True)]
            taken = {place for word in words for place in word}
            first = _chunks(tokenizer, prompt.text)[0]
            others = [place for place, token in enumerate(first) if token is not None and place not in taken]
            own = [[place for subject, place in entities if subject == number] for number in range(subjects)]
            nobody = [place for subject, place in entities if subject is None]
            rows.append(word_columns(competing(own, [], nobody, others), tokenizer.model_max_length))
        widest = max(row.shape[1] for row in rows)
        return torch.stack([padded(row.T, widest).T for row in rows])

    def without_subjects(self, slots: Slots, fuse_negative: bool) -> Slots:
        """The unconditional rows beside others: no text and no subjects, but for the habit of fusing there too."""
        device = slots.valid.device
        ids = {encoder: ids.to(device) for encoder, ids in self.ids([""] * len(slots.valid)).items()}
        fused = slots.fused if fuse_negative else torch.zeros_like(slots.fused)
        return dataclasses.replace(slots, ids=ids, fused=fused, valid=torch.zeros_like(slots.valid))


def on_device(value: Any, device: torch.device | str) -> Any:
    """Tensors on another device, also those in dictionaries and frozen dataclasses; anything else as it is."""
    if torch.is_tensor(value):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {key: on_device(one, device) for key, one in value.items()}
    if dataclasses.is_dataclass(value):
        moved = {field.name: on_device(getattr(value, field.name), device) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **moved)
    return value


def padded(values: Tensor, size: int) -> Tensor:
    """(S, ...) to (size, ...) with zeros."""
    return nn.functional.pad(values, (0, 0) * (values.ndim - 1) + (0, size - len(values)))


def _resized(photos: Tensor, size: int) -> Tensor:
    return nn.functional.interpolate(photos, (size, size), mode="bilinear", antialias=True).clamp(0, 1)


def _chunks(tokenizer: Any, text: str) -> list[list[int | None]]:
    """Tokens as `prompt.locate` wants them: chunks of the encoder's length, start and end None."""
    ids, room = tokenizer(text, add_special_tokens=False, verbose=False).input_ids, tokenizer.model_max_length - 2
    return [[None, *ids[start : start + room], None] for start in range(0, len(ids), room)]
