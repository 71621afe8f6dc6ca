"""A checkpoint on a diffusers model: the forward pass that training trains and drawing runs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPVisionModelWithProjection

from ..errors import MMDiffError
from ..model.lora import LoRAPair, lora_pairs
from ..model.mmdiff import MMDiff
from ..photo import empty_photo
from .base import Base
from .processors import Maps, Subjects, bind_unet
from .slots import Slots
from .vision import VisionTowers, check_vision, tuned_tower


@dataclass(frozen=True)
class Conditions:
    """What the UNet is given beside the noisy latents: text, SDXL's extras (or None) and subjects."""

    text: Tensor
    added: dict[str, Tensor] | None
    subjects: Subjects


@dataclass(frozen=True)
class Encoded:
    """What frozen encoders say of slots, where it is known already.

    seen: CLS (B S, D) and patches (B S, P, W) of the references by the base's own vision tower. crops: patches of the
    faces, (B S, P, W), by the same. text: of prompts into which nothing is fused, the UNet's context (B, L, D) and for
    SDXL the pooled vector.
    """

    seen: tuple[Tensor, Tensor] | None = None
    crops: Tensor | None = None
    text: tuple[Tensor, Tensor | None] | None = None


UNKNOWN = Encoded()


class Adapter(nn.Module):
    """An MMDiff on a base: prompts and photos to conditions, noisy latents under these to a prediction.

    tower: the checkpoint's tuned copy of the vision tower, or None where the base's own serves.
    """

    def __init__(self, base: Base, mmdiff: MMDiff, tower: CLIPVisionModelWithProjection | None = None) -> None:
        """tower: in place of the one that the checkpoint's tuned weights make. Binds the base's UNet and text encoders
        to the checkpoint. Raises MMDiffError where the two do not fit."""
        super().__init__()
        check_fits(base, mmdiff)
        self.base = base
        self.mmdiff = mmdiff
        self.tower = tower
        if tower is None and mmdiff.vision:
            self.tower = tuned_tower(base.vision, mmdiff)
        bind_unet(base.unet, mmdiff.unet)
        encoders = list(base.text)[:1] if mmdiff.spec.text_lora_encoders == "first" else list(base.text)
        for encoder in encoders:
            if encoder in mmdiff.text:
                body = text_body(base.text[encoder]).encoder
                for path, pair in lora_pairs(mmdiff.text[encoder]):
                    body.get_submodule(path).register_forward_hook(_adding(pair))

    @property
    def towers(self) -> VisionTowers:
        """Both vision towers."""
        return VisionTowers(self.base.vision, self.tower or self.base.vision)

    @property
    def plain(self) -> bool:
        """Whether no subject and no LoRA changes what the text encoders say of a prompt."""
        return not self.mmdiff.spec.fuse_prompt and not len(self.mmdiff.text)

    def conditions(self, slots: Slots, side: int, encoded: Encoded = UNKNOWN) -> Conditions:
        """Encode prompts and references. side: of a square picture, pixels, which SDXL is told. encoded: what need
        not be computed."""
        size, subjects = slots.valid.shape
        photos = slots.references.flatten(0, 1)
        heads, spec = self.mmdiff.heads, self.mmdiff.spec
        if spec.identity == "face":
            cls = self.towers.see(photos, encoded.seen)[0] if encoded.seen else self.towers.cls(photos)
            identity, patches = self._faces(slots, encoded.crops)
        else:
            cls, patches = self.towers.see(photos, encoded.seen)
            identity = None if spec.identity == "patches" else cls
        tokens = heads.subject(identity, patches, spec.shortcut)
        entities = {name: one.unflatten(0, (size, subjects)) for name, one in heads.entities(cls).items()}
        text, pooled = encoded.text or self._encode(slots, entities)
        if encoded.text:  # nothing leads to these heads, and processes want a gradient of all that trains, also of 0
            text = text + 0 * sum(one.sum() for part in (heads.entity, heads.fuse) for one in part.parameters())
        added = None
        if pooled is not None:
            square = torch.tensor([[side, side, 0, 0, side, side]] * size)
            ids = square if slots.sizes is None else slots.sizes
            added = {"text_embeds": pooled, "time_ids": ids.to(text)}
        words = next(iter(slots.words.values()))
        tokens, valid = tokens.unflatten(0, (size, subjects)), slots.valid
        if spec.negative != "nothing":
            nobody = ~valid.any(dim=1, keepdim=True)
            tokens = torch.where(nobody[..., None, None], self._of_empty_photo(), tokens)
            valid = valid | nobody
        return Conditions(text, added, Subjects(tokens.flatten(1, 2), valid, words, slots.columns))

    @property
    def looks_at_crops(self) -> bool:
        """Whether a portrait's tokens look at the patches of its face."""
        return self.mmdiff.spec.identity == "face" and self.mmdiff.vision_widths[0] is not None

    def _faces(self, slots: Slots, patches: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What portraits start from and look at: face vectors, and the patches of the faces where they are read, which
        may be known."""
        vectors = slots.faces.flatten(0, 1).float()
        if self.mmdiff.spec.unit_face:
            vectors = nn.functional.normalize(vectors, dim=-1)
        if patches is None and self.looks_at_crops:
            patches = self.towers.patches(slots.crops.flatten(0, 1))
        return vectors, patches

    def _of_empty_photo(self) -> Tensor:
        """(1, T, D) tokens of a photo that shows nothing, which rows without a subject get in the IP-Adapter family."""
        spec = self.mmdiff.spec
        empty = empty_photo(spec.negative, spec.photo_size).to(self.base.vision.device)
        heads = self.mmdiff.heads
        patches = None if self.mmdiff.vision_widths[0] is None else self.towers.patches(empty)
        identity = None if spec.identity == "patches" else torch.zeros(1, heads.identity_width, device=empty.device)
        return heads.subject(identity, patches, spec.shortcut)

    def predict(self, noisy: Tensor, time: Tensor, conditions: Conditions, maps: Maps | None = None) -> Tensor:
        """(B, C, h, w) noisy latents and (B,) timesteps to the UNet's prediction. maps: where layers leave theirs."""
        return self.base.unet(
            noisy.to(conditions.text.dtype),
            time,
            encoder_hidden_states=conditions.text,
            added_cond_kwargs=conditions.added,
            cross_attention_kwargs={"subjects": dataclasses.replace(conditions.subjects, maps=maps)},
        ).sample.float()

    @torch.no_grad()
    def read(self, ids: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """(B, L) tokens by text encoder, into which nothing is fused, to the UNet's context (B, L, D), and for SDXL the
        pooled vector."""
        return self._context(
            {encoder: model(ids[encoder], output_hidden_states=True) for encoder, model in self.base.text.items()}
        )

    def _encode(self, slots: Slots, entities: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """The same of prompts whose entity words are fused."""
        out = {}
        for encoder, model in self.base.text.items():

            def fuse(module: nn.Module, arguments: tuple, embedded: Tensor, encoder: str = encoder) -> Tensor:
                owners = slots.owners.unsqueeze(-1).expand(-1, -1, entities[encoder].shape[-1])
                return self._fused(encoder, embedded, slots, entities[encoder].gather(1, owners))

            hook = text_body(model).embeddings.token_embedding.register_forward_hook(fuse)
            try:
                out[encoder] = model(slots.ids[encoder], output_hidden_states=True)
            finally:
                hook.remove()
        return self._context(out)

    def _context(self, out: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """What text encoders give, as the UNet takes it."""
        both = len(out) == 2
        hidden = [one.hidden_states[-2] if both else one.last_hidden_state for one in out.values()]
        return torch.cat(hidden, dim=-1), getattr(list(out.values())[-1], "text_embeds", None)

    def _fused(self, encoder: str, embedded: Tensor, slots: Slots, entity: Tensor) -> Tensor:
        """(B, L, C) raw token embeddings, those of entity words replaced. Every word is computed and then chosen, so
        that all parameters are used in every batch, as several processes need it."""
        words = slots.words[encoder]
        token = embedded.gather(1, words.unsqueeze(-1).expand(-1, -1, embedded.shape[-1])).float()
        new = self.mmdiff.heads.fuse_token(encoder, token, entity.float()).to(embedded.dtype)
        chosen = slots.fused & self.mmdiff.spec.fuse_prompt
        place = nn.functional.one_hot(words, embedded.shape[1]).to(embedded.dtype) * chosen.unsqueeze(-1)
        return embedded * (1 - place.sum(dim=1)).unsqueeze(-1) + place.transpose(1, 2) @ new


def check_fits(base: Base, mmdiff: MMDiff) -> None:
    """Raises MMDiffError, naming what does not fit, where a checkpoint was made for another base."""
    heads = mmdiff.heads
    check_vision(base.vision, mmdiff)
    widths = {encoder: one.config.hidden_size for encoder, one in base.text.items()}
    found = {encoder: heads.token_width(encoder) for encoder in heads.fuse}
    if found != widths:
        raise MMDiffError(f"The checkpoint is for text encoders {_listed(found)}, the base has {_listed(widths)}.")
    context = base.unet.config.cross_attention_dim
    if heads.context_width != context:
        raise MMDiffError(f"The checkpoint's subject tokens are {heads.context_width} wide, the base wants {context}.")
    layers = {path: base.unet.get_submodule(path) for path in base.attention_layers}
    pairs = dict(lora_pairs(mmdiff.unet))
    whole = {path: one for path, one in mmdiff.unet.named_modules() if path.endswith("_image") and path not in pairs}
    wanted: dict[str, nn.Linear] = {}
    for number, (path, layer) in enumerate(layers.items()):
        linears = {"to_q": layer.to_q, "to_k": layer.to_k, "to_v": layer.to_v, "to_out": layer.to_out[0]}
        if pairs:
            wanted |= {f"{number}.{name}_lora": linear for name, linear in linears.items()}
        if path.endswith("attn2") and not whole:
            wanted |= {f"{number}.to_{n}_lora_image": linears[f"to_{n}"] for n in "kv"}
        elif path.endswith("attn2"):
            for name in ("to_k", "to_v"):
                _check_whole(whole.get(f"{number}.{name}_image"), linears[name], f"{number}.{name}_image")
    _check_pairs(wanted, pairs, "UNet", f"the base's {len(layers)} attention layers")
    for encoder, tree in mmdiff.text.items():
        modules = text_body(base.text[encoder]).encoder.named_modules()
        linears = {path: one for path, one in modules if isinstance(one, nn.Linear)}
        pairs = dict(lora_pairs(tree))
        _check_pairs(
            {path: linears[path] for path in pairs if path in linears}, pairs, "text", f"CLIP-{encoder.upper()}"
        )


def _check_whole(own: nn.Linear | None, wanted: nn.Linear, path: str) -> None:
    """A matrix of the subjects' own against the base's weight at its place."""
    if own is None or own.weight.shape != wanted.weight.shape:
        found = "not there" if own is None else " x ".join(map(str, own.weight.shape))
        raise MMDiffError(
            f"The checkpoint's matrix {path} is {found}, the base's weight is "
            f"{' x '.join(map(str, wanted.weight.shape))}. It was made for another base."
        )


def _check_pairs(wanted: dict[str, nn.Linear], found: dict[str, LoRAPair], part: str, of: str) -> None:
    if missing := wanted.keys() - found.keys():
        raise MMDiffError(
            f"The checkpoint's {part} LoRA lacks {len(missing)} of the {len(wanted)} weights for {of}, such as "
            f"{min(missing)}. It was made for another base."
        )
    if extra := found.keys() - wanted.keys():
        raise MMDiffError(
            f"The checkpoint's {part} LoRA has {min(extra)}, which {of} have not. It was made for another base."
        )
    for path, linear in wanted.items():
        shape = (found[path].up.out_features, found[path].down.in_features)
        if shape != tuple(linear.weight.shape):
            raise MMDiffError(
                f"The checkpoint's {part} LoRA {path} is {' x '.join(map(str, shape))}, the base's weight is "
                f"{' x '.join(map(str, linear.weight.shape))}. It was made for another base."
            )


def text_body(encoder: nn.Module) -> nn.Module:
    """A text encoder's transformer; transformers 5 keeps it in the plain model itself."""
    return getattr(encoder, "text_model", encoder)


def _listed(widths: dict[str, int]) -> str:
    return " and ".join(f"CLIP-{encoder.upper()} ({width} wide)" for encoder, width in widths.items())


def _adding(pair: LoRAPair):
    return lambda module, arguments, out: out + pair(arguments[0]).to(out.dtype)
