"""LoRA as weight patches in the host's own form: every kind of weight takes them, and a step pays nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from comfy.weight_adapter.lora import LoRAAdapter

from ...mmdiff_core import MMDiff, MMDiffError
from ...mmdiff_core.model.lora import LoRAPair, lora_pairs
from .base import Layer

_WEIGHTS = {"to_q_lora": "to_q", "to_k_lora": "to_k", "to_v_lora": "to_v", "to_out_lora": "to_out.0"}


class OurLoRA(LoRAAdapter):
    """A pair in the host's form, up, down, no alpha (scale 1), no extras, that tells which checkpoint it is of."""

    def __init__(self, pair: LoRAPair, mmdiff: MMDiff) -> None:
        super().__init__(set(), (pair.up.weight.data, pair.down.weight.data, None, None, None, None))
        self.source = mmdiff.source


def share(patches: Sequence[tuple[Any, ...]], mmdiff: MMDiff) -> float:
    """How much of a checkpoint's LoRA is in a weight with these patches of the host.

    Patches behind it may scale all that came before, and a merge adds another model's weight with patches of its own.
    """
    found = 0.0
    for strength, patch, strength_model, *_ in patches:
        found *= strength_model
        if isinstance(patch, OurLoRA) and patch.source == mmdiff.source:
            found += strength
        elif isinstance(patch, list):  # a merged model's weight, and behind it that model's patches
            found += strength * share(patch[1:], mmdiff)
    return found


def patch_unet(model: ModelPatcher, mmdiff: MMDiff, layers: list[Layer]) -> None:
    """Add what the model lacks of the UNet LoRA. Raises MMDiffError unless every layer took it.

    The image branch's pairs are not here: they act on subject tokens only (see keys_values.py).
    """
    patches = {}
    for number, pairs in mmdiff.unet.items():
        layer = layers[int(number)]
        for name, pair in pairs.items():
            if name in _WEIGHTS:
                patches[f"{layer.path}.{_WEIGHTS[name]}.weight"] = OurLoRA(pair, mmdiff)
    _add(model, patches, mmdiff, "Apply MM-Diff Attention", "UNet")


def patch_text_encoders(clip: CLIP, mmdiff: MMDiff) -> CLIP:
    """A copy of the text encoders with the LoRA that the checkpoint's spec wants on them."""
    clip = clip.clone()
    encoders = mmdiff.heads.encoders
    if mmdiff.spec.text_lora_encoders == "first":
        encoders = encoders[:1]
    patches = {
        f"clip_{encoder}.transformer.text_model.encoder.{path}.weight": OurLoRA(pair, mmdiff)
        for encoder in encoders
        if encoder in mmdiff.text
        for path, pair in lora_pairs(mmdiff.text[encoder])
    }
    _add(clip.patcher, patches, mmdiff, "Multi-Subject Binding", "text encoder")
    return clip


def _add(patcher: ModelPatcher, patches: dict[str, OurLoRA], mmdiff: MMDiff, node: str, part: str) -> None:
    weights = patcher.model_state_dict()
    lacking: dict[float, dict[str, OurLoRA]] = defaultdict(dict)
    for key, patch in patches.items():
        up, down = patch.weights[:2]
        if key in weights and tuple(weights[key].shape) != (up.shape[0], down.shape[1]):
            raise MMDiffError(
                f"{node}: the checkpoint's LoRA for {key} is {up.shape[0]} x {down.shape[1]}, the {part}'s weight is "
                f"{' x '.join(map(str, weights[key].shape))}. The checkpoint was trained on another base model."
            )
        lacking[1.0 - share(patcher.patches.get(key, ()), mmdiff)][key] = patch
    taken = {key for strength, group in lacking.items() for key in patcher.add_patches(group, strength)}
    if len(taken) != len(patches):
        missed = sorted(set(patches) - taken)
        raise MMDiffError(
            f"{node}: the {part} took {len(taken)} of {len(patches)} LoRA weights; it has no {missed[0]}. "
            "The checkpoint was trained on another base model."
        )
