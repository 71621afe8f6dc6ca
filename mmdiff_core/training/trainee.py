"""What is trained: an adapter whose parameters learn, around a base whose parameters do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection

from ..checkpoint import load_checkpoint
from ..constraint import choose_layers, coarse_blocks
from ..drawing.adapter import Adapter
from ..drawing.base import Base
from ..drawing.processors import Maps
from ..drawing.vision import tuned_tower
from ..errors import MMDiffError
from ..face import RECOGNISERS
from ..model.fresh import Widths, fresh_mmdiff
from ..model.mmdiff import MMDiff
from ..spec import Spec
from .config import Config


class Trainee(Adapter):
    """An adapter whose heads and LoRAs train, and the last layers of its vision tower where the configuration says so.

    null: the null token, or None; it takes part in the image constraint's maps and in nothing else, so no checkpoint
    needs it.
    """

    def __init__(self, base: Base, config: Config) -> None:
        """From the checkpoint that the configuration starts from, or a fresh one, drawn from torch's random state.

        Raises MMDiffError where the configuration asks for layers that the base lacks, and where the checkpoint can't
        be read or was made for another base."""
        mmdiff = _started(base, config) if config.model.start else _fresh(base, config)
        try:
            super().__init__(base, mmdiff, _tower(base.vision, config.model.vision_layers, mmdiff))
        except MMDiffError as error:
            start = f"model.start, {config.model.start}: " if config.model.start else ""
            raise MMDiffError(f"{start}{error}") from error
        self.config = config
        self.mmdiff.requires_grad_(True)
        if self.mmdiff.spec.text_lora_encoders == "first":  # the others' LoRA is in the file and never runs
            for encoder in list(base.text)[1:]:
                if encoder in self.mmdiff.text:
                    self.mmdiff.text[encoder].requires_grad_(False)
        refiner = self.mmdiff.heads.subject.refiner
        if refiner is not None and not refiner.layers:  # without them nothing looks at the patches
            refiner.proj_in.requires_grad_(False)
        context = self.mmdiff.heads.context_width
        self.null = nn.Parameter(torch.randn(1, 1, context)) if config.model.null_token else None
        self.layers = constrained_layers(base, config)
        if config.train.gradient_checkpointing:
            base.unet.enable_gradient_checkpointing()

    def forward(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """work(self, *arguments): what wraps this module (processes, shards, autocast) acts on calls of it."""
        return work(self, *arguments)

    def maps(self) -> Maps:
        """For the maps that the constraints are about."""
        loss = self.config.loss
        return Maps(self.layers if loss.text else (), self.layers if loss.image else (), self.null)

    def checkpoint(self, weights: Mapping[str, Tensor]) -> MMDiff:
        """An MMDiff of trained weights, by this module's own parameter names."""
        frozen = {key: value for key, value in self.mmdiff.named_parameters() if not value.requires_grad}
        tensors = {key.removeprefix("mmdiff."): value for key, value in weights.items() if key.startswith("mmdiff.")}
        tuned = {f"vision.{key}": value for key, value in self.mmdiff.vision.items()}
        tuned |= {f"vision.{key[6:]}": value for key, value in weights.items() if key.startswith("tower.")}
        return MMDiff({**frozen, **tensors, **tuned}, self.mmdiff.spec, source="")


def constrained_layers(base: Base, config: Config) -> list[str]:
    """The cross-attention layers that the constraints act on. Raises MMDiffError for a name that matches none."""
    layers = base.cross_layers
    wanted = config.loss.layers or coarse_blocks(layers, len(base.unet.config.block_out_channels))
    try:
        return choose_layers(layers, wanted)
    except MMDiffError as error:
        raise MMDiffError(f"loss.layers: {error}") from error


def _started(base: Base, config: Config) -> MMDiff:
    """The checkpoint to go on from; whether its words are fused is the configuration's to say.

    One of the IP-Adapter family keeps its subject head and its matrices, and gets the rest of MM-Diff fresh.
    """
    start = load_checkpoint(config.model.start).float().with_spec(fuse_prompt=config.model.fuse_prompt)
    if start.heads.entity is not None:
        return start
    fresh = {
        key: value
        for key, value in _fresh(base, config).tensors().items()
        if not key.startswith("heads.subject.") and "_image." not in key
    }
    spec = start.spec.replace(negative=config.model.negative)
    return MMDiff({**fresh, **start.tensors()}, spec, source="")


def _fresh(base: Base, config: Config) -> MMDiff:
    model, vision = config.model, base.vision.config
    attention = [base.unet.get_submodule(name).to_q.in_features for name in base.attention_layers]
    context = base.unet.config.cross_attention_dim
    if context % model.head_dim:
        raise MMDiffError(
            f"model.head_dim is {model.head_dim}; it must divide the width of the base's cross-attention, {context}."
        )
    widths = Widths(
        cls=vision.projection_dim,
        patch=vision.hidden_size,
        identity=RECOGNISERS[model.recogniser].width if model.identity == "face" else vision.projection_dim,
        context=context,
        tokens={encoder: one.config.hidden_size for encoder, one in base.text.items()},
        attention=attention,
    )
    spec = Spec(
        identity=model.identity,
        photo_size=base.photo_size,
        head_dim=model.head_dim,
        fuse_prompt=model.fuse_prompt,
        negative=model.negative,
        recogniser=model.recogniser,
    )
    fresh = fresh_mmdiff(widths, spec, model.rank, model.tokens, model.depth, model.hidden).tensors()
    if model.image == "whole":
        fresh = {key: value for key, value in fresh.items() if "_lora_image." not in key}
        for number, name in enumerate(base.attention_layers):
            if name.endswith("attn2"):
                layer = base.unet.get_submodule(name)
                for part in ("to_k", "to_v"):
                    weight = getattr(layer, part).weight
                    fresh[f"unet.{number}.{part}_image.weight"] = weight.detach().float().clone()
    if not model.text_rank:
        return MMDiff(fresh, spec, source="")
    text = {}
    for encoder, one in base.text.items():
        width = one.config.hidden_size
        unused = len(base.text) == 2 and encoder == "l"  # SDXL takes the hidden states before this encoder's last layer
        for layer in range(one.config.num_hidden_layers - unused):
            for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                path = f"text.{encoder}.layers.{layer}.self_attn.{name}"
                text[f"{path}.down.weight"] = torch.randn(model.text_rank, width) / model.text_rank
                text[f"{path}.up.weight"] = torch.zeros(width, model.text_rank)
    return MMDiff({**fresh, **text}, spec, source="")


def _tower(vision: CLIPVisionModelWithProjection, layers: int, mmdiff: MMDiff) -> CLIPVisionModelWithProjection | None:
    """A copy of the tower in full precision, of which the last layers and what follows them train."""
    if not layers:
        return None
    depth = vision.config.num_hidden_layers
    if layers > depth:
        raise MMDiffError(f"model.vision_layers is {layers}; the vision tower has {depth}.")
    tower = tuned_tower(vision, mmdiff)
    body = tower.vision_model
    for part in (*body.encoder.layers[depth - layers :], body.post_layernorm, tower.visual_projection):
        part.requires_grad_(True)
    return tower
