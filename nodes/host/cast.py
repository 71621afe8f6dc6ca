"""Finished pictures checked for the cast of a binding, by faces or by the vision encoder."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from comfy.clip_vision import ClipVisionModel
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy.model_patcher import ModelPatcher
from comfy.utils import ProgressBar
from torch import Tensor

from ...mmdiff_core import MMDiffError
from ...mmdiff_core.cast import Kind, Seen, Verdict, by_faces, by_pictures, judge, likeness
from ...mmdiff_core.photo import check_photos
from .faces import face_models
from .maps import attention_maps
from .model import HostedMMDiff
from .text import Binding, Conditioning
from .vision import Towers

PERCENT = 0.5
"""The part of sampling at which it is looked where words act: the composition stands, and the prompt still decides."""

Acted = list[Tensor | None]
Look = Callable[[Tensor, Acted], Seen]


class Checked(NamedTuple):
    """One picture: what was seen, and what is said of each subject."""

    seen: Seen
    verdicts: list[Verdict]

    @property
    def passed(self) -> bool:
        return all(verdict.kind is Kind.PRESENT for verdict in self.verdicts)


def where_words_acted(
    image: Tensor, binding: Binding, model: ModelPatcher | None, positive: Conditioning | None, latent: dict | None
) -> list[Acted]:
    """For each picture and subject a map (h, w): its region, else where its word acted, else None.

    Raises MMDiffError where only a part of what is needed is connected, or the latents are not those of the pictures.
    """
    regions = [subject.region for subject in binding.subjects]
    needed = {"model": model, "positive": positive, "latent": latent}
    refuse_a_part({name: one is not None for name, one in needed.items()})
    if latent is None:
        return [regions] * len(image)
    samples = latent["samples"]
    if len(samples) != len(image):
        raise MMDiffError(
            f"There are {len(image)} pictures and {len(samples)} latents; connect the latent that the pictures were "
            "decoded from."
        )
    found = []
    for one in samples.split(1):
        throw_exception_if_processing_interrupted()
        maps = attention_maps(model, positive, binding, {"samples": one}, PERCENT)[:, 0]
        found.append([word if own is None else own for own, word in zip(regions, maps, strict=True)])
    return found


def refuse_a_part(connected: dict[str, bool]) -> None:
    """Raise MMDiffError where some of what shows where words acted is connected, and some is not."""
    missing = [name for name, there in connected.items() if not there]
    if missing and len(missing) < len(connected):
        raise MMDiffError(
            f"To see where words acted, connect {' and '.join(missing)} too, or take all of {', '.join(connected)} off."
        )


def check_cast(
    image: Tensor,
    binding: Binding,
    mmdiff: HostedMMDiff,
    clip_vision: ClipVisionModel | None,
    acted: list[Acted],
    threshold: float,
) -> list[Checked]:
    """Check every picture, (B, H, W, 3 or 4) in [0, 1]: by faces where all subjects have face vectors of buffalo_l, on
    whose scale they are compared, else by the vision encoder. Raises MMDiffError where a subject can't be looked
    for."""
    check_photos(image)
    of_buffalo = mmdiff.core.spec.recogniser == "buffalo_l"
    if of_buffalo and all(subject.faces is not None for subject in binding.subjects):
        look = _by_faces(binding, len(image))
    else:
        look = _by_pictures(binding, mmdiff, clip_vision, threshold, len(image))
    checked = []
    for picture, own in zip(image[..., :3].float().cpu().movedim(-1, 1), acted, strict=True):
        throw_exception_if_processing_interrupted()
        seen = look(picture, own)
        checked.append(Checked(seen, judge(seen, threshold)))
    return checked


def _by_faces(binding: Binding, pictures: int) -> Look:
    models, progress = face_models(), ProgressBar(pictures)
    faces = [subject.faces for subject in binding.subjects]

    def look(picture: Tensor, acted: Acted) -> Seen:
        progress.update(1)
        return by_faces(picture, faces, acted, models)

    return look


def _by_pictures(
    binding: Binding, mmdiff: HostedMMDiff, clip_vision: ClipVisionModel | None, threshold: float, pictures: int
) -> Look:
    if old := [subject.name for subject in binding.subjects if subject.photos is None]:
        raise MMDiffError(
            f"{', '.join(old)}: saved by an older version, without the photos by which a subject is found again. "
            "Encode and save it anew."
        )
    if clip_vision is None:
        raise MMDiffError(
            "Not all subjects have face vectors of buffalo_l, so they are looked for with the vision encoder, and none "
            "is connected. Connect Load CLIP Vision to `clip_vision`."
        )
    towers = Towers(mmdiff, clip_vision, ProgressBar(3 * len(binding.subjects) + pictures))
    cast = [likeness(subject.photos, towers) for subject in binding.subjects]

    def look(picture: Tensor, acted: Acted) -> Seen:
        return by_pictures(picture, cast, acted, towers, mmdiff.core.spec.photo_size, threshold)

    return look
