"""The two vision towers: the user's CLIP_VISION for patches, and the checkpoint's tuned copy of it for the CLS."""

from __future__ import annotations

from typing import NamedTuple

import comfy.model_management
import comfy.ops
from comfy.clip_model import CLIPVisionModelProjection
from comfy.clip_vision import ClipVisionModel
from comfy.model_patcher import CoreModelPatcher
from comfy.utils import ProgressBar
from torch import Tensor

from ...mmdiff_core import Face, MMDiffError, Subject, encode_subject
from ...mmdiff_core.encoders import encoder_name, fits
from ...mmdiff_core.photo import normalise
from .model import HostedMMDiff


class Tower(NamedTuple):
    """A vision transformer with its projection, and the patcher that loads it."""

    model: CLIPVisionModelProjection
    patcher: CoreModelPatcher


def encode(
    mmdiff: HostedMMDiff,
    clip_vision: ClipVisionModel,
    photos: Tensor,
    face: Face | None,
    name: str,
    weight: float,
) -> Subject:
    """Encode the references of one subject with the host's encoder.

    photos: (R, 3, S, S), prepared. The subject is on the host's intermediate device. Raises MMDiffError for a wrong
    encoder.
    """
    towers = Towers(mmdiff, clip_vision, ProgressBar(2))
    subject = encode_subject(mmdiff.core, towers, photos.to(towers.device), face, name, weight)
    return subject.to(comfy.model_management.intermediate_device())


class Towers:
    """Both towers of a checkpoint in the host, loaded; a `Vision` of the core. Each look moves the progress on by one.

    Raises MMDiffError for a wrong encoder.
    """

    def __init__(self, mmdiff: HostedMMDiff, clip_vision: ClipVisionModel, progress: ProgressBar) -> None:
        _check(mmdiff, clip_vision)
        self.original = clip_vision
        self.tuned = _tuned(mmdiff, clip_vision)
        self.device = mmdiff.patcher.load_device
        self.progress = progress
        comfy.model_management.load_models_gpu([self.tuned.patcher, clip_vision.patcher, mmdiff.patcher])

    def cls(self, pixels: Tensor) -> Tensor:
        return self._seen(self.tuned.model(pixel_values=self._normalised(pixels))[2])

    def patches(self, pixels: Tensor) -> Tensor:
        return self._seen(self.original.model(pixel_values=self._normalised(pixels), intermediate_output=-2)[1])

    def _normalised(self, pixels: Tensor) -> Tensor:
        return normalise(pixels).to(self.original.load_device)

    def _seen(self, values: Tensor) -> Tensor:
        self.progress.update(1)
        return values.to(self.device).float()


def _tuned(mmdiff: HostedMMDiff, original: ClipVisionModel) -> Tower:
    """The user's tower with the checkpoint's weights in place of its own, made once for each pair of the two."""
    if not mmdiff.core.vision:
        return Tower(original.model, original.patcher)
    if original not in mmdiff.tuned_towers:
        offload_device = comfy.model_management.text_encoder_offload_device()
        model = CLIPVisionModelProjection(original.config, original.dtype, offload_device, comfy.ops.manual_cast).eval()
        patcher = CoreModelPatcher(model, load_device=original.load_device, offload_device=offload_device)
        try:
            model.load_state_dict({**original.get_sd(), **mmdiff.core.vision}, assign=patcher.is_dynamic())
        except RuntimeError as error:
            raise MMDiffError(
                f"The checkpoint's tuned vision weights do not fit {_name(original)} ({error}). "
                "Connect the vision encoder it was trained with."
            ) from error
        mmdiff.tuned_towers[original] = Tower(model, patcher)
    return mmdiff.tuned_towers[original]


def _check(mmdiff: HostedMMDiff, clip_vision: ClipVisionModel) -> None:
    """Refuse, by name, an encoder of another kind, width or photo size than the checkpoint was trained with."""
    wanted, size = mmdiff.core.vision_widths, mmdiff.core.spec.photo_size
    if wanted == (None, None):
        return
    alike = clip_vision.model_type == "clip_vision_model" and clip_vision.image_size == size
    if not (alike and fits(_widths(clip_vision), wanted)):
        name = encoder_name(*wanted, "its own vision encoder")
        hidden, projection = (width or "any" for width in wanted)
        raise MMDiffError(
            f"The `clip_vision` socket holds {_name(clip_vision)}, the checkpoint was trained with "
            f"{name} (hidden {hidden}, projection {projection}, {size} px). Load that one with Load CLIP Vision."
        )


def _widths(clip_vision: ClipVisionModel) -> tuple[int, int | None]:
    return clip_vision.config["hidden_size"], clip_vision.config.get("projection_dim")


def _name(clip_vision: ClipVisionModel) -> str:
    size, (hidden, projection) = clip_vision.image_size, _widths(clip_vision)
    if clip_vision.model_type != "clip_vision_model":
        return f"a {clip_vision.model_type.removesuffix('_vision_model')} encoder ({size} px)"
    name = encoder_name(hidden, projection, "a CLIP encoder")
    return f"{name} (hidden {hidden}, projection {projection}, {size} px)"
