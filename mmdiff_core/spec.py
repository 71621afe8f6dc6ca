"""What a checkpoint expects of the code that runs it, kept as data beside its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from .errors import MMDiffError

_CHOICES = {
    "identity": ("face", "cls", "patches", "latents"),
    "text_lora_encoders": ("first", "both"),
    "fuse_negative": (True, False),
    "entity_references": ("first", "mean"),
    "fuse_prompt": (True, False),
    "shortcut": (True, False),
    "negative": ("nothing", "grey", "black"),
    "resize": ("bilinear", "bicubic"),
    "unit_face": (True, False),
    "recogniser": ("buffalo_l", "dlib"),
    "square": ("padded", "middle"),
}


_FIRST = (
    "identity",
    "text_lora_encoders",
    "fuse_negative",
    "entity_references",
    "photo_size",
    "head_dim",
    "fuse_prompt",
)


@dataclass(frozen=True)
class Spec:
    """Habits of a checkpoint that change pictures.

    identity: where subject tokens start from. "face": a face vector, refined against the patches of the face crop
        (the released portrait checkpoint). "cls": the tuned CLS, refined against the photo's own patches (the paper).
        "patches": every patch becomes a token. "latents": the checkpoint's learned tokens, which look at the patches.
    text_lora_encoders: which text encoders get their LoRA. The released code loses the second one in a prefix filter.
    fuse_negative: also fuse the subject into the negative prompt's token at the entity word's index, as the released
        code does.
    entity_references: which photos feed the entity word: the "first" only (released) or the "mean" of all CLS vectors.
    photo_size: side of the prepared photo, pixels.
    head_dim: width of one attention head of the SE-Refiner.
    fuse_prompt: fuse the subject into the prompt's entity word. Off in a checkpoint trained without it, to measure what
        it does; the subject then comes from its tokens alone.
    shortcut: add what tokens started from to what refining them gave. FaceID Plus v1 does not.
    negative: what the rows of the negative prompt get. "nothing", or, as IP-Adapter, the tokens of an empty picture,
        whose identity is zeros: "grey" (zeros behind CLIP's normalisation, as its authors trained) or "black" (zeros
        before it, as IPAdapter_plus).
    resize: how a photo gets to photo_size.
    face_crop: side of the aligned face crop, pixels; 256 has a wider margin than 224.
    unit_face: face vectors are made of length 1.
    recogniser: whose face vectors they are: insightface's "buffalo_l" (512 numbers), or "dlib" (128).
    square: how a whole photo becomes one: "padded" with black, or its "middle" alone, as CLIP's own preprocessing.
    """

    identity: str = "cls"
    text_lora_encoders: str = "both"
    fuse_negative: bool = False
    entity_references: str = "mean"
    photo_size: int = 224
    head_dim: int = 256
    fuse_prompt: bool = True
    shortcut: bool = True
    negative: str = "nothing"
    resize: str = "bilinear"
    face_crop: int = 224
    unit_face: bool = True
    recogniser: str = "buffalo_l"
    square: str = "padded"

    def __post_init__(self) -> None:
        for field, allowed in _CHOICES.items():
            value = getattr(self, field)
            if value not in allowed:
                raise MMDiffError(
                    f"The spec's {field} is {value!r}; it must be one of {', '.join(map(repr, allowed))}."
                )
        for field in ("photo_size", "head_dim", "face_crop"):
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

    def said(self) -> dict[str, object]:
        """The fields by name, for a file: all of the first version, later ones where they are not what `heard` takes,
        so that an older version reads what it can run."""
        fields = dataclasses.asdict(self)
        unsaid = Spec(square=_square(self.resize))
        return {name: fields[name] for name in fields if name in _FIRST or fields[name] != getattr(unsaid, name)}

    @classmethod
    def heard(cls, said: Mapping[str, object]) -> Spec:
        """What a file says. Raises MMDiffError as `replace`, and TypeError where it says no fields."""
        fields = {**said}
        return cls().replace(**{"square": _square(fields.get("resize")), **fields})


def _square(resize: object) -> str:
    """What `square` is where a file is silent: IP-Adapters, which alone are bicubic, were converted before it was."""
    return "middle" if resize == "bicubic" else Spec.square


RELEASED = Spec(identity="face", text_lora_encoders="first", fuse_negative=True, entity_references="first")
"""The habits of alibaba/mm-diff at 09c0419, stamped on a converted release so that pictures match."""

IP_ADAPTER = Spec(
    identity="latents", head_dim=64, fuse_prompt=False, negative="grey", resize="bicubic", square="middle"
)
"""The habits of tencent-ailab/IP-Adapter at 62e4af9; where tokens start from differs between its kinds."""
