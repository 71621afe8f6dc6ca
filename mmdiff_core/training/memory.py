"""What a step will need, found by running it on tensors without values."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..drawing.base import Base
from ..drawing.slots import Slots
from ..model.mmdiff import MMDiff
from .batches import Batch
from .config import Config
from .losses import losses
from .optimizer import remembered
from .trainee import Trainee


class _Peak(TorchDispatchMode):
    """Follows every storage that operations make: `now` bytes alive, and the most so far."""

    def __init__(self, given: Iterable[Tensor]) -> None:
        """given: tensors that are there before, of which operations give views."""
        super().__init__()
        self.now = self.most = 0
        self.known = {one.untyped_storage()._cdata for one in given}

    def __torch_dispatch__(self, function: Any, types: Any, arguments: tuple = (), keywords: dict | None = None) -> Any:
        out = function(*arguments, **(keywords or {}))
        for value in tree_leaves(out):
            if torch.is_tensor(value):
                self._follow(value.untyped_storage())
        return out

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self.known:
            return
        self.known.add(key)
        self.now += size
        self.most = max(self.most, self.now)

        def freed() -> None:
            self.known.discard(key)
            self.now -= size

        weakref.finalize(storage, freed).atexit = False


def estimate(config: Config, base: Base, max_subjects: int) -> dict[str, int]:
    """Bytes that a step needs in one process, by what needs them. Computes nothing.

    base: without weights, on the meta device. Raises MMDiffError where the configuration does not fit it.
    """
    with torch.device("meta"):
        trainee = Trainee(base, config)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cpu"):  # a GPU's tensors are as large
        batch = _empty(config, base, max_subjects, trainee.mmdiff)
        tensors = {
            name: torch.empty_like(one, device="cpu").requires_grad_(one.requires_grad)
            for name, one in (*trainee.named_parameters(), *trainee.named_buffers())
        }
        with _Peak(tensors.values()) as peak:
            for _ in range(min(config.train.accumulation, 2)):  # a second batch finds the gradients of the first
                functional_call(trainee, tensors, (_step, batch))
    trained = [parameter for parameter in trainee.parameters() if parameter.requires_grad]
    weights = gradients = _size(trained)
    return {
        "frozen weights": _size(trainee.parameters()) + _size(trainee.buffers()) - weights,
        "trained weights": weights,
        "gradients": gradients,
        "optimizer": round(sum(one.numel() for one in trained) * remembered(config)),
        "averaged weights": weights if config.train.ema else 0,
        "activations": max(0, peak.most - gradients),
    }


def _step(trainee: Trainee, batch: Batch) -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=trainee.config.train.precision == "bf16"):
        found = losses(trainee, batch)
    sum(part.sum() for part in found.values()).backward()


def _size(tensors: Any) -> int:
    return sum(one.numel() * one.element_size() for one in tensors)


def _empty(config: Config, base: Base, subjects: int, mmdiff: MMDiff) -> Batch:
    size, side, photo = config.train.batch, config.data.resolution, base.photo_size
    flags = torch.ones(size, subjects, dtype=torch.bool)
    tokens = {name: one.config.max_position_embeddings for name, one in base.text.items()}
    return Batch(
        image=torch.zeros(size, 3, side, side),
        masks=torch.zeros(size, subjects, side, side),
        slots=Slots(
            ids={name: torch.zeros(size, length, dtype=torch.long) for name, length in tokens.items()},
            references=torch.zeros(size, subjects, 3, photo, photo),
            valid=flags,
            words={name: torch.zeros(size, subjects, dtype=torch.long) for name in tokens},
            owners=torch.zeros(size, subjects, dtype=torch.long),
            fused=flags,
            **(
                {
                    "faces": torch.zeros(size, subjects, mmdiff.heads.identity_width),
                    "crops": torch.zeros(size, subjects, 3, photo, photo),
                }
                if mmdiff.spec.identity == "face"
                else {}
            ),
        ),
        text=flags,
        image_branch=flags,
        masked=torch.ones(size, dtype=torch.bool),
        time=torch.zeros(size, dtype=torch.long),
        noise=[0] * size,
        records=[""] * size,
    )


def memory_lines(needed: dict[str, int]) -> str:
    """The estimate as a sentence."""
    parts = ", ".join(f"{name} {size / 1e9:.3g}" for name, size in needed.items() if size)
    return f"Memory for a step: about {sum(needed.values()) / 1e9:.3g} GB ({parts})."
