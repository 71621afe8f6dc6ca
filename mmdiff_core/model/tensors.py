"""Tensors by dotted names, as a checkpoint file holds them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

Tensors = Mapping[str, Tensor]


def under(tensors: Tensors, prefix: str) -> dict[str, Tensor]:
    """The tensors below `prefix.`, with the prefix taken off."""
    return {key[len(prefix) + 1 :]: value for key, value in tensors.items() if key.startswith(prefix + ".")}


def count(tensors: Tensors, prefix: str) -> int:
    """How many numbered children `prefix.` has."""
    return len({key.split(".", 1)[0] for key in under(tensors, prefix)})
