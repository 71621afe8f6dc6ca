"""What frozen encoders say of an input, on disk: computed once, for all steps, processes and runs that share a folder.

A key is a hash of the input as the encoder gets it (so of the picture, its crop and its size) and of the encoder's
weights. What changes between steps, such as a varied reference, has another key and is computed. Inputs are encoded one
by one, so that what is kept does not depend on the batch that asked first.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor

from ..drawing.adapter import Adapter
from ..errors import MMDiffError
from ..files import hash_of, read_safetensors, write_safetensors

PICTURES, PHOTOS, CROPS, TEXTS = "pictures", "photos", "crops", "texts"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lookup:
    """Inputs of one kind in a batch. keys: of each; known: by key, what the disk holds of them."""

    keys: list[str]
    known: dict[str, dict[str, Tensor]]


class Cache:
    """A folder of tensors by kind of input, encoder and key."""

    def __init__(self, folder: Path, encoders: Mapping[str, str]) -> None:
        """encoders: a hash of what encodes, for each kind that is kept."""
        self.folder = folder
        self.encoders = dict(encoders)
        self.writes = True
        self.asked = self.found = 0

    def look(self, kind: str, inputs: Iterable[Tensor]) -> Lookup:
        """What is known of the inputs, one tensor each. For the processes that prepare batches."""
        keys = [self._key(kind, one) for one in inputs]
        found = {key: self._read(kind, key) for key in dict.fromkeys(keys)}
        return Lookup(keys, {key: value for key, value in found.items() if value is not None})

    def complete(self, kind: str, lookup: Lookup, encode: Callable[[int], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Every input's tensors, stacked. encode: computes those of one input by its place in the batch, without the
        dimension of the batch; what it gives is kept."""
        known = dict(lookup.known)
        self.asked += len(lookup.keys)
        self.found += sum(key in lookup.known for key in lookup.keys)
        for place, key in enumerate(lookup.keys):
            if key not in known:
                known[key] = encode(place)
                self._write(kind, key, known[key])
        rows = [known[key] for key in lookup.keys]
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def share_found(self) -> float:
        """Of what was asked since the last call, how much was known; 1 where nothing was asked."""
        share = self.found / self.asked if self.asked else 1.0
        self.asked = self.found = 0
        return share

    def _path(self, kind: str, key: str) -> Path:
        return self.folder / kind / self.encoders[kind][:16] / key[:2] / f"{key}.safetensors"

    def _key(self, kind: str, value: Tensor) -> str:
        value = value.contiguous()
        found = blake2b(f"{self.encoders[kind]} {value.dtype} {tuple(value.shape)}".encode(), digest_size=20)
        found.update(value.view(-1).view(torch.uint8).numpy())
        return found.hexdigest()

    def _read(self, kind: str, key: str) -> dict[str, Tensor] | None:
        path = self._path(kind, key)
        if not path.exists():
            return None
        try:
            return read_safetensors(path)[0]
        except MMDiffError:  # cut off by a machine that went down; it is computed and written anew
            return None

    def _write(self, kind: str, key: str, tensors: dict[str, Tensor]) -> None:
        if not self.writes:
            return
        try:
            write_safetensors(self._path(kind, key), tensors, {})
        except MMDiffError as error:
            self.writes = False
            log.warning("MM-Diff: cache: %s The run goes on, and nothing more is added to the cache.", error)


def open_cache(folder: str, adapter: Adapter, sharded: bool) -> Cache:
    """The cache for an adapter's frozen encoders, whose weights are in memory.

    sharded: weights are spread over processes, which encode together or not at all. So only pictures are kept then, for
    the encoder of pictures is not spread.
    """
    base = adapter.base
    encoders = {PICTURES: hash_of(base.vae.state_dict())}
    if not sharded:
        vision = hash_of(base.vision.state_dict())
        if (
            adapter.mmdiff.spec.identity != "face" or adapter.tower is None
        ):  # else photos are seen by the tuned one only
            encoders[PHOTOS] = vision
        if adapter.looks_at_crops:
            encoders[CROPS] = vision
        if adapter.plain:
            encoders[TEXTS] = hash_of(base.text.state_dict())
    return Cache(Path(folder), encoders)
