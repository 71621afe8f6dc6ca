"""Other packs as users meet them, written anew: what they plant in a model, and how they behave once there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor

Slot = tuple[Any, ...]


def attention(q: Tensor, k: Tensor, v: Tensor, extra_options: dict) -> Tensor:
    return optimized_attention(q, k, v, extra_options["n_heads"])


def halved(q: Tensor, k: Tensor, v: Tensor, extra_options: dict) -> Tensor:
    """A replacement that is nothing but a function; no later node can add to it."""
    return 0.5 * attention(q, k, v, extra_options)


class AddingReplace:
    """A replacement that later nodes add their callbacks to, as the image prompt packs plant one in every slot."""

    def __init__(self) -> None:
        self.callback: list[Callable] = []
        self.kwargs: list[dict] = []

    def add(self, callback: Callable, **kwargs: Any) -> None:
        self.callback.append(callback)
        self.kwargs.append(kwargs)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict) -> Tensor:
        out = attention(q, k, v, extra_options)
        for callback, kwargs in zip(self.callback, self.kwargs, strict=True):
            out = out + callback(q, k, v, extra_options, **kwargs)
        return out


def mean_value(q: Tensor, k: Tensor, v: Tensor, extra_options: dict, strength: float) -> Tensor:
    """What our image prompt adds: the mean of the values, to every pixel."""
    return strength * v.mean(dim=1, keepdim=True)


def replaced(model: Any, slots: Iterable[Slot], patch: Callable) -> Any:
    """A clone with one callable in every cross-attention slot; a slot is (name, id) or (name, id, block)."""
    model = model.clone()
    for slot in slots:
        model.set_model_attn2_replace(patch, *slot)
    return model


def adding_node(model: Any, slots: Iterable[Slot], strength: float = 0.3) -> Any:
    """An image prompt node: add to what is in a slot, whatever it is, or plant an AddingReplace there."""
    model = model.clone()
    for slot in slots:
        key = tuple(slot)
        present = model.model_options["transformer_options"].get("patches_replace", {}).get("attn2", {})
        if key not in present:
            model.set_model_attn2_replace(AddingReplace(), *slot)
            present = model.model_options["transformer_options"]["patches_replace"]["attn2"]
        present[key].add(mean_value, strength=strength)
    return model


def couple(model: Any, texts: Sequence[Tensor], masks: Tensor, style: str) -> Any:
    """Attention couple: each conditional row is repeated for every region, and put together again by the masks.

    texts: the (1, L, D) context of each region; masks: (R, h, w) that sum to 1 everywhere.
    style: "tells" leaves the host's list of rows alone and tells the new order under a key of its own in the block's
    options, keeping the row's own text for the first region; "inserts" writes the order into the host's list, which all
    blocks share, and takes it out again behind the block.
    """
    regions = len(texts)

    def before(q: Tensor, k: Tensor, v: Tensor, extra_options: dict) -> tuple[Tensor, Tensor, Tensor]:
        order = extra_options["cond_or_uncond"]
        batch = len(q) // len(order)
        queries, contexts, grown = [], [], []
        for place, rows, own in zip(order, q.split(batch), k.split(batch), strict=True):
            conditional = place != 1
            others = [text.expand(batch, -1, -1) for text in texts]
            first = own if style == "tells" else others[0]
            queries += [rows] * (regions if conditional else 1)
            contexts += [first, *others[1:]] if conditional else [own]
            grown += [place] * (regions if conditional else 1)
        if style == "tells":
            extra_options["cond_or_uncond_couple"] = grown
        else:
            order[:] = grown
        context = torch.cat(contexts)
        return torch.cat(queries), context, context

    def behind(out: Tensor, extra_options: dict) -> Tensor:
        order = extra_options["cond_or_uncond_couple" if style == "tells" else "cond_or_uncond"]
        batch = len(out) // len(order)
        parts, chunks, left = list(out.split(batch)), [], list(order)
        weights = at_block(masks, extra_options)
        while parts:
            if left[0] == 1:
                chunks.append(parts[0])
            else:
                chunks.append(sum(part * weight for part, weight in zip(parts[:regions], weights, strict=True)))
            used = 1 if left[0] == 1 else regions
            parts, left = parts[used:], left[used:]
            if style == "inserts":
                del order[len(chunks) : len(chunks) + used - 1]
        return torch.cat(chunks)

    model = model.clone()
    model.set_model_attn2_patch(before)
    model.set_model_attn2_output_patch(behind)
    return model


def regional(layer: Any, texts: Sequence[Tensor], masks: Tensor) -> Callable:
    """The same as `couple` by its definition, in one slot and without touching rows: for conditional rows the sum over
    regions of mask x attention to that region's text."""

    def patch(q: Tensor, k: Tensor, v: Tensor, extra_options: dict) -> Tensor:
        out = attention(q, k, v, extra_options)
        order = extra_options["cond_or_uncond"]
        batch = len(q) // len(order)
        weights = at_block(masks, extra_options)
        for number, place in enumerate(order):
            if place == 1:
                continue
            rows = slice(number * batch, (number + 1) * batch)
            contexts = [text.expand(batch, -1, -1) for text in texts]
            out[rows] = sum(
                weight * attention(q[rows], layer.attention.to_k(text), layer.attention.to_v(text), extra_options)
                for text, weight in zip(contexts, weights, strict=True)
            )
        return out

    return patch


def at_block(masks: Tensor, extra_options: dict) -> Tensor:
    """(R, h, w) masks to (R, N, 1) at a block's resolution."""
    size = tuple(extra_options["activations_shape"][-2:])
    return torch.nn.functional.interpolate(masks[None], size, mode="area")[0].flatten(1)[:, :, None]


class TermRecorder:
    """Sees, from outside, what every cross-attention slot adds to the text branch.

    records: (slot, the host's order of rows, what was added (rows, N, C)) for each block that ran.
    """

    def __init__(self, layers: Sequence[Any]) -> None:
        self.layers = {layer.slot: layer for layer in layers}
        self.text: dict[Slot, Tensor] = {}
        self.records: list[tuple[Slot, tuple[int, ...], Tensor]] = []

    def watch(self, model: Any) -> Any:
        def at(extra_options: dict) -> Slot:
            return (*extra_options["block"], extra_options["block_index"])

        def remember(q: Tensor, k: Tensor, v: Tensor, extra_options: dict) -> Tensor:
            out = attention(q, k, v, extra_options)
            self.text[at(extra_options)] = out
            return out

        def compare(out: Tensor, extra_options: dict) -> Tensor:
            slot = at(extra_options)
            added = out - self.layers[slot].attention.to_out(self.text.pop(slot))
            self.records.append((slot, tuple(extra_options["cond_or_uncond"]), added))
            return out

        model = replaced(model, self.layers, remember)
        model.set_model_attn2_output_patch(compare)
        return model


def rearranged(model: Any, order: Callable[[int], Sequence[int]]) -> Any:
    """Runs the model on the batch's rows in another order, or several times each: `order` of a count of rows.

    A row's prediction is that of its last run.
    """

    def wrapper(apply_model: Callable, given: dict) -> Tensor:
        x, count = given["input"], len(given["input"])
        rows = list(order(count))
        conditions = {
            key: value[rows] if torch.is_tensor(value) and len(value) == count else value
            for key, value in given["c"].items()
        }
        found = torch.empty_like(x)
        found[rows] = apply_model(x[rows], given["timestep"][rows], **conditions)
        return found

    model = model.clone()
    model.set_model_unet_function_wrapper(wrapper)
    return model


def tiled(model: Any, width: int, at_once: int) -> Any:
    """Runs the model on tiles of a picture, `width` columns wide and half overlapping, as many stacked as told.

    Every tile's rows lie together, and pictures among the conditions are cut as the latent is; overlaps are averaged.
    """

    def wrapper(apply_model: Callable, given: dict) -> Tensor:
        x, count = given["input"], len(given["input"])
        starts = range(0, x.shape[-1] - width + 1, width // 2)
        total, times = torch.zeros_like(x), torch.zeros_like(x)
        for first in range(0, len(starts), at_once):
            columns = [slice(start, start + width) for start in starts[first : first + at_once]]
            conditions = {}
            for key, value in given["c"].items():
                if torch.is_tensor(value) and value.ndim == x.ndim:
                    scale = value.shape[-1] // x.shape[-1]
                    cuts = [slice(scale * part.start, scale * part.stop) for part in columns]
                    value = torch.cat([value[..., cut] for cut in cuts])
                elif torch.is_tensor(value):
                    value = torch.cat([value] * len(columns))
                conditions[key] = value
            tiles = torch.cat([x[..., part] for part in columns])
            predicted = apply_model(tiles, given["timestep"].repeat(len(columns)), **conditions).split(count)
            for part, one in zip(columns, predicted, strict=True):
                total[..., part] += one
                times[..., part] += 1
        return total / times

    model = model.clone()
    model.set_model_unet_function_wrapper(wrapper)
    return model


def dropping(model: Any, *names: str) -> Any:
    """Calls the model with the conditions it knows by these names, and forgets the rest."""

    def wrapper(apply_model: Callable, given: dict) -> Tensor:
        known = {key: value for key, value in given["c"].items() if key in (*names, "transformer_options")}
        return apply_model(given["input"], given["timestep"], **known)

    model = model.clone()
    model.set_model_unet_function_wrapper(wrapper)
    return model
