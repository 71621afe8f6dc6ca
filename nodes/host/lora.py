"""LoRA as weight patches in the host's own form: every kind of weight takes them, and a step pays nothing."""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from comfy.weight_adapter.lora import LoRAAdapter

from ...mmdiff_core import MMDiff, MMDiffError
from ...mmdiff_core.model.lora import LoRAPair, lora_pairs
from .base import Layer

_WEIGHTS = {"to_q_lora": "to_q", "to_k_lora": "to_k", "to_v_lora": "to_v", "to_out_lora": "to_out.0"}


def adapter(pair: LoRAPair) -> LoRAAdapter:
    """The host's form of a pair: up, down, no alpha (scale 1), no extras."""
    return LoRAAdapter(set(), (pair.up.weight.data, pair.down.weight.data, None, None, None, None))


def patch_unet(model: ModelPatcher, mmdiff: MMDiff, layers: list[Layer]) -> dict[str, LoRAAdapter]:
    """Add the UNet LoRA to a model and return it by weight key. Raises MMDiffError unless every layer took it.

    The image branch's pairs are not here: they act on subject tokens only (see keys_values.py).
    """
    patches = {}
    for number, pairs in mmdiff.unet.items():
        layer = layers[int(number)]
        for name, pair in pairs.items():
            if name in _WEIGHTS:
                patches[f"{layer.path}.{_WEIGHTS[name]}.weight"] = adapter(pair)
    _add(model, patches, "Apply MM-Diff Attention", "UNet")
    return patches


def patch_text_encoders(clip: CLIP, mmdiff: MMDiff) -> CLIP:
    """A copy of the text encoders with the LoRA that the checkpoint's spec wants on them."""
    clip = clip.clone()
    encoders = list(mmdiff.heads.fuse)
    if mmdiff.spec.text_lora_encoders == "first":
        encoders = encoders[:1]
    patches = {
        f"clip_{encoder}.transformer.text_model.encoder.{path}.weight": adapter(pair)
        for encoder in encoders
        if encoder in mmdiff.text
        for path, pair in lora_pairs(mmdiff.text[encoder])
    }
    _add(clip.patcher, patches, "Multi-Subject Binding", "text encoder")
    return clip


def _add(patcher: ModelPatcher, patches: dict[str, LoRAAdapter], node: str, part: str) -> None:
    weights = patcher.model_state_dict()
    for key, patch in patches.items():
        up, down = patch.weights[:2]
        if key in weights and tuple(weights[key].shape) != (up.shape[0], down.shape[1]):
            raise MMDiffError(
                f"{node}: the checkpoint's LoRA for {key} is {up.shape[0]} x {down.shape[1]}, the {part}'s weight is "
                f"{' x '.join(map(str, weights[key].shape))}. The checkpoint was trained on another base model."
            )
    taken = patcher.add_patches(patches)
    if len(taken) != len(patches):
        missed = sorted(set(patches) - set(taken))
        raise MMDiffError(
            f"{node}: the {part} took {len(taken)} of {len(patches)} LoRA weights; it has no {missed[0]}. "
            "The checkpoint was trained on another base model."
        )
