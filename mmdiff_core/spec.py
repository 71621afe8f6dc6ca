"""What a checkpoint expects of the code that runs it, kept as data beside its weights."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from .errors import MMDiffError

_CHOICES = {
    "identity": ("face", "cls"),
    "text_lora_encoders": ("first", "both"),
    "fuse_negative": (True, False),
    "entity_references": ("first", "mean"),
    "fuse_prompt": (True, False),
}


@dataclass(frozen=True)
class Spec:
    """Habits of a checkpoint that change pictures.

    identity: where subject tokens start from. "face": a face vector, refined against the patches of the face crop
        (the released portrait checkpoint). "cls": the tuned CLS, refined against the photo's own patches (the paper).
    text_lora_encoders: which text encoders get their LoRA. The released code loses the second one in a prefix filter.
    fuse_negative: also fuse the subject into the negative prompt's token at the entity word's index, as the released
        code does.
    entity_references: which photos feed the entity word: the "first" only (released) or the "mean" of all CLS vectors.
    photo_size: side of the prepared photo, pixels.
    head_dim: width of one attention head of the SE-Refiner.
    fuse_prompt: fuse the subject into the prompt's entity word. Off in a checkpoint trained without it, to measure what
        it does; the subject then comes from its tokens alone.
    """

    identity: str = "cls"
    text_lora_encoders: str = "both"
    fuse_negative: bool = False
    entity_references: str = "mean"
    photo_size: int = 224
    head_dim: int = 256
    fuse_prompt: bool = True

    def __post_init__(self) -> None:
        for field, allowed in _CHOICES.items():
            value = getattr(self, field)
            if value not in allowed:
                raise MMDiffError(
                    f"The spec's {field} is {value!r}; it must be one of {', '.join(map(repr, allowed))}."
                )
        for field in ("photo_size", "head_dim"):
            value = getattr(self, field)
            if type(value) is not int or value < 1:
                raise MMDiffError(f"The spec's {field} is {value!r}; it must be a whole number above 0.")

    def replace(self, **changes: object) -> Spec:
        """A copy with some fields changed. Raises MMDiffError for an unknown field or a value out of range."""
        unknown = changes.keys() - {field.name for field in dataclasses.fields(self)}
        if unknown:
            known = ", ".join(field.name for field in dataclasses.fields(self))
            raise MMDiffError(f"A spec has no field {', '.join(sorted(unknown))}; its fields are {known}.")
        return dataclasses.replace(self, **changes)


RELEASED = Spec(identity="face", text_lora_encoders="first", fuse_negative=True, entity_references="first")
"""The habits of alibaba/mm-diff at 09c0419, stamped on a converted release so that pictures match."""
