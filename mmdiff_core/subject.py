"""A subject: what the user wants drawn, encoded once and used anywhere."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from .errors import MMDiffError
from .face import Face
from .files import read_safetensors, write_safetensors
from .model.mmdiff import MMDiff
from .photo import empty_photo, prepare_photos

FORMAT = 2
"""What is written. Format 1, which is read too, has neither photos nor faces."""

_OPTIONAL = ("region", "photos", "faces", "negative")
"""Tensors that a subject may lack."""

WIDE_CROP = 256
"""Side of face crops that are cut with a wider margin than all others."""


@dataclass(frozen=True)
class Subject:
    """One subject, encoded by one checkpoint.

    name: what the prompt may call it. weight: factor on its attention term.
    tokens: (references x tokens per reference, context width). entity: encoder -> (token width,).
    negative: (as tokens) what rows of the negative prompt get in place of the tokens, or None for nothing.
    source: content hash of the checkpoint that encoded it.
    region: (H, W), where in the picture it may act, or None for everywhere; it is brought into [0, 1].
    start_percent, end_percent: its share of sampling, 0 the first step, 1 the last.
    photos: (references, 3, S, S) uint8, as prepared; faces: (references, D_id) their face vectors, length 1, where
    there were any. By them the subject is found again in a picture; None in one of format 1.
    """

    name: str
    weight: float
    tokens: Tensor
    entity: dict[str, Tensor]
    source: str
    region: Tensor | None = None
    start_percent: float = 0.0
    end_percent: float = 1.0
    photos: Tensor | None = None
    faces: Tensor | None = None
    negative: Tensor | None = None

    def __post_init__(self) -> None:
        if self.region is not None:  # masks come from nodes that blur, invert and add them
            object.__setattr__(self, "region", self.region.float().clamp(0, 1))

    def to(self, device: torch.device) -> Subject:
        """A copy with what was encoded on another device."""
        entity = {encoder: value.to(device) for encoder, value in self.entity.items()}
        negative = None if self.negative is None else self.negative.to(device)
        return dataclasses.replace(self, tokens=self.tokens.to(device), entity=entity, negative=negative)


class Vision(Protocol):
    """The two vision towers of a checkpoint, wherever they run. Both normalise what they see themselves."""

    def cls(self, pixels: Tensor) -> Tensor:
        """(R, 3, S, S) prepared photos to the (R, cls width) projected CLS of the tuned tower."""

    def patches(self, pixels: Tensor) -> Tensor:
        """(R, 3, S, S) prepared photos to (R, P, patch width): what the original tower has before its last layer."""


def encode_subject(
    mmdiff: MMDiff, vision: Vision, photos: Tensor, face: Face | None, name: str, weight: float
) -> Subject:
    """Encode the references of one subject.

    photos: (R, 3, S, S) prepared photos; face: the references' faces where the spec's identity is "face". A tower is
    run only where the checkpoint reads it. Raises MMDiffError if a face is missing or not as the checkpoint wants it.
    """
    heads, spec = mmdiff.heads, mmdiff.spec
    reads_patches, reads_cls = (width is not None for width in mmdiff.vision_widths)
    identity, seen, entity = None, photos, {}
    if reads_cls:
        embeddings = vision.cls(photos[:1] if spec.entity_references == "first" and spec.identity == "face" else photos)
    if heads.entity is not None:
        entity = heads.entities(embeddings[0] if spec.entity_references == "first" else embeddings.mean(dim=0))
    if spec.identity == "cls":
        identity = embeddings
    elif spec.identity == "face":
        identity, seen = _face(mmdiff, face, photos, name)
    tokens = heads.subject(identity, vision.patches(seen) if reads_patches else None, spec.shortcut)
    negative = None
    if spec.negative != "nothing":
        empty = empty_photo(spec.negative, spec.photo_size).to(photos)
        nobody = None if identity is None else torch.zeros_like(identity[:1])
        negative = heads.subject(nobody, vision.patches(empty) if reads_patches else None, spec.shortcut)
        negative = negative.expand_as(tokens).flatten(0, 1)
    return Subject(
        name=name,
        weight=weight,
        tokens=tokens.flatten(0, 1),
        entity=entity,
        source=mmdiff.source,
        photos=(photos * 255).round().byte().cpu(),
        faces=None if face is None else face.embeds.cpu(),
        negative=negative,
    )


def _face(mmdiff: MMDiff, face: Face | None, photos: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """The face vectors of the references, and their prepared crops."""
    heads, spec = mmdiff.heads, mmdiff.spec
    if face is None:
        raise MMDiffError(
            f"Subject '{name}': this checkpoint draws people from a face vector, and none is connected. "
            "Connect Analyze Face to the `face` socket of Encode Subject."
        )
    if face.embeds.shape[-1] != heads.identity_width:
        raise MMDiffError(
            f"Subject '{name}': the face vectors are {face.embeds.shape[-1]} wide, the checkpoint wants "
            f"{heads.identity_width}. Analyze the face with the recogniser it was trained with ({spec.recogniser})."
        )
    side = face.crops.shape[1]
    if side != spec.face_crop and WIDE_CROP in (side, spec.face_crop):
        raise MMDiffError(
            f"Subject '{name}': the face crops are {side} pixels wide, the checkpoint wants {spec.face_crop}, cut with "
            "another margin. Connect Load MM-Diff to the `mmdiff` socket of Analyze Face."
        )
    vectors = face.embeds
    if not spec.unit_face:
        if face.lengths is None:
            raise MMDiffError(
                f"Subject '{name}': this checkpoint wants face vectors at the length the recogniser gave them, and "
                "these come without. Analyze the face again with Analyze Face."
            )
        vectors = vectors * face.lengths[:, None]
    return vectors.to(photos), prepare_photos(face.crops, spec.photo_size, mode=spec.resize).to(photos)


def save_subject(subject: Subject, path: Path) -> None:
    """Write a subject as safetensors; a failed write leaves an older file whole."""
    tensors = {"tokens": subject.tokens, **{f"entity.{key}": value for key, value in subject.entity.items()}}
    for name in _OPTIONAL:
        if getattr(subject, name) is not None:
            tensors[name] = getattr(subject, name)
    fields = {
        field.name: getattr(subject, field.name)
        for field in dataclasses.fields(Subject)
        if field.name not in ("tokens", "entity", *_OPTIONAL)
    }
    write_safetensors(path, tensors, {"mmdiff_subject": json.dumps({"format": FORMAT, **fields})})


def load_subject(path: Path) -> Subject:
    """Read a subject. Raises MMDiffError where the file is no subject or of a newer format."""
    tensors, metadata = read_safetensors(path)
    if "mmdiff_subject" not in metadata:
        raise MMDiffError(f"{path} is a safetensors file but not a saved subject; choose one that Save Subject wrote.")
    try:
        fields = json.loads(metadata["mmdiff_subject"])
        found = fields.pop("format")
        if not all(tensor.isfinite().all() for tensor in tensors.values()):
            raise MMDiffError(f"{path} is a saved subject with values that are not numbers. Encode and save it again.")
        if found in (1, FORMAT):
            return Subject(
                tokens=tensors["tokens"],
                entity={key[len("entity.") :]: value for key, value in tensors.items() if key.startswith("entity.")},
                **{name: tensors.get(name) for name in _OPTIONAL},
                **fields,
            )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise MMDiffError(
            f"{path} is a saved subject with parts missing or unknown ({type(error).__name__}: {error}). Save it again."
        ) from error
    raise MMDiffError(f"{path} is a subject of format {found}, this version reads 1 to {FORMAT}; update the pack.")
