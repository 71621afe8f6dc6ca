"""What is trained, around the frozen base, and the forward pass that a checkpoint's users will run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection

from ..checkpoint import load_checkpoint
from ..constraint import choose_layers, coarse_blocks
from ..errors import MMDiffError
from ..model.fresh import Widths, fresh_mmdiff
from ..model.lora import LoRAPair, lora_pairs
from ..model.mmdiff import MMDiff
from ..photo import normalise
from ..spec import Spec
from .base import Base
from .batches import Batch
from .config import Config
from .unet import Maps, Subjects, bind_unet


@dataclass
class Conditions:
    """What the UNet is given beside the noisy latents: text, SDXL's extras (or None) and subjects."""

    text: Tensor
    added: dict[str, Tensor] | None
    subjects: Subjects


class Trainee(nn.Module):
    """A fresh MMDiff whose parameters train, on a base whose parameters do not.

    mmdiff: heads and LoRAs. tower: the vision tower whose last layers train, or None. null: the null token, or None;
    it takes part in the image constraint's maps and in nothing else, so no checkpoint needs it.
    """

    def __init__(self, base: Base, config: Config, mmdiff: MMDiff | None = None) -> None:
        """mmdiff: a checkpoint to use; without one that which the configuration starts from, or a fresh one, drawn from
        torch's random state. Raises MMDiffError where the configuration asks for layers that the base lacks, and
        where the checkpoint it starts from can't be read."""
        super().__init__()
        self.base = base
        self.config = config
        if mmdiff is None:
            mmdiff = load_checkpoint(config.model.start).float() if config.model.start else _fresh(base, config)
        self.mmdiff = mmdiff
        self.mmdiff.requires_grad_(True)
        if not self.mmdiff.heads.subject.refiner.layers:  # without them nothing looks at the patches
            self.mmdiff.heads.subject.refiner.proj_in.requires_grad_(False)
        self.tower = _tuned(base.vision, config.model.vision_layers, self.mmdiff.vision)
        context = self.mmdiff.heads.context_width
        self.null = nn.Parameter(torch.randn(1, 1, context)) if config.model.null_token else None
        layers = constrained_layers(base, config)
        bind_unet(
            base.unet,
            self.mmdiff.unet,
            text=layers if config.loss.text else (),
            image=layers if config.loss.image else (),
        )
        for encoder, tree in self.mmdiff.text.items():
            body = _body(base.text[encoder]).encoder
            for path, pair in lora_pairs(tree):
                body.get_submodule(path).register_forward_hook(_adding(pair))
        if config.train.gradient_checkpointing:
            base.unet.enable_gradient_checkpointing()

    def forward(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """work(self, *arguments): what wraps this module (processes, shards, autocast) acts on calls of it."""
        return work(self, *arguments)

    def conditions(self, batch: Batch) -> Conditions:
        """Encode a batch's captions and references."""
        size, subjects = batch.references.shape[:2]
        pixels = normalise(batch.references.flatten(0, 1))
        with torch.no_grad():
            seen = self.base.vision(pixels.to(self.base.vision.dtype), output_hidden_states=True)
        cls = seen.image_embeds if self.tower is None else self.tower(pixels).image_embeds
        heads = self.mmdiff.heads
        tokens = heads.subject(cls.float(), seen.hidden_states[-2].float())
        entities = {name: one.unflatten(0, (size, subjects)) for name, one in heads.entities(cls.float()).items()}
        text, pooled = self._encode(batch, entities)
        added = None
        if pooled is not None:
            side = batch.image.shape[-1]
            ids = torch.tensor([[side, side, 0, 0, side, side]] * size, device=text.device, dtype=text.dtype)
            added = {"text_embeds": pooled, "time_ids": ids}
        words = next(iter(batch.words.values()))
        tokens = tokens.unflatten(0, (size, subjects)).flatten(1, 2)
        return Conditions(text, added, Subjects(tokens, batch.valid, words, self.null, Maps()))

    def predict(self, noisy: Tensor, time: Tensor, conditions: Conditions) -> Tensor:
        """(B, C, h, w) noisy latents and (B,) timesteps to the UNet's prediction."""
        return self.base.unet(
            noisy.to(conditions.text.dtype),
            time,
            encoder_hidden_states=conditions.text,
            added_cond_kwargs=conditions.added,
            cross_attention_kwargs={"subjects": conditions.subjects},
        ).sample.float()

    def _encode(self, batch: Batch, entities: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """The UNet's context (B, 77, D), and for SDXL the pooled vector."""
        hidden, pooled = [], None
        for encoder, model in self.base.text.items():

            def fuse(module: nn.Module, arguments: tuple, embedded: Tensor, encoder: str = encoder) -> Tensor:
                return self._fused(encoder, embedded, batch.words[encoder], batch.fused, entities[encoder])

            hook = _body(model).embeddings.token_embedding.register_forward_hook(fuse)
            try:
                out = model(batch.ids[encoder], output_hidden_states=True)
            finally:
                hook.remove()
            hidden.append(out.hidden_states[-2] if len(self.base.text) == 2 else out.last_hidden_state)
            pooled = getattr(out, "text_embeds", None)
        return torch.cat(hidden, dim=-1), pooled

    def _fused(self, encoder: str, embedded: Tensor, words: Tensor, fused: Tensor, entity: Tensor) -> Tensor:
        """(B, L, C) raw token embeddings, those of entity words replaced. Every slot is computed and then chosen, so
        that all parameters are used in every batch, as several processes need it."""
        token = embedded.gather(1, words.unsqueeze(-1).expand(-1, -1, embedded.shape[-1])).float()
        new = self.mmdiff.heads.fuse_token(encoder, token, entity.float()).to(embedded.dtype)
        place = nn.functional.one_hot(words, embedded.shape[1]).to(embedded.dtype) * fused.unsqueeze(-1)
        return embedded * (1 - place.sum(dim=1)).unsqueeze(-1) + place.transpose(1, 2) @ new

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
        identity=vision.projection_dim,
        context=context,
        tokens={encoder: one.config.hidden_size for encoder, one in base.text.items()},
        attention=attention,
    )
    spec = Spec(photo_size=base.photo_size, head_dim=model.head_dim, fuse_prompt=model.fuse_prompt)
    fresh = fresh_mmdiff(widths, spec, model.rank, model.tokens, model.depth, model.hidden)
    if not model.text_rank:
        return fresh
    text = {}
    for encoder, one in base.text.items():
        width = one.config.hidden_size
        unused = len(base.text) == 2 and encoder == "l"  # SDXL takes the hidden states before this encoder's last layer
        for layer in range(one.config.num_hidden_layers - unused):
            for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                path = f"text.{encoder}.layers.{layer}.self_attn.{name}"
                text[f"{path}.down.weight"] = torch.randn(model.text_rank, width) / model.text_rank
                text[f"{path}.up.weight"] = torch.zeros(width, model.text_rank)
    return MMDiff({**fresh.tensors(), **text}, spec, source="")


def _tuned(
    vision: CLIPVisionModelWithProjection, layers: int, start: Mapping[str, Tensor]
) -> CLIPVisionModelWithProjection | None:
    """A copy of the tower in full precision, of which the last layers and what follows them train. start: weights that
    were tuned before."""
    if not layers and not start:
        return None
    depth = vision.config.num_hidden_layers
    if layers > depth:
        raise MMDiffError(f"model.vision_layers is {layers}; the vision tower has {depth}.")
    tower = copy.deepcopy(vision).float()
    tower.load_state_dict({**tower.state_dict(), **start})
    body = tower.vision_model
    if layers:
        for part in (*body.encoder.layers[depth - layers :], body.post_layernorm, tower.visual_projection):
            part.requires_grad_(True)
    return tower


def _adding(pair: LoRAPair):
    return lambda module, arguments, out: out + pair(arguments[0]).to(out.dtype)


def _body(encoder: nn.Module) -> nn.Module:
    """A text encoder's transformer; transformers 5 keeps it in the plain model itself."""
    return getattr(encoder, "text_model", encoder)
