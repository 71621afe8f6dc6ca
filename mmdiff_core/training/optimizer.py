"""The optimizer that a configuration names, and the learning rate over a run's steps."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from diffusers.optimization import get_scheduler
from torch import nn

from ..named import check_options, named
from .config import Config, Train

OPTIMIZERS = {"adamw": "torch.optim:AdamW", "adamw8bit": "bitsandbytes.optim:AdamW8bit"}
BYTES = {"adamw": 8, "adamw8bit": 2}
"""That an optimizer remembers of one trained number."""

_GIVEN = ("params", "lr", "weight_decay")


def optimizer_kind(train: Train) -> Any:
    """The class that `train.optimizer` names. Raises MMDiffError where there is none, or its options do not fit."""
    kind = named(train.optimizer, OPTIMIZERS, "train.optimizer")
    check_options("train.optimizer_options", train.optimizer, kind, train.optimizer_options, _GIVEN)
    return kind


def make_optimizer(config: Config, groups: list[list[nn.Parameter]]) -> torch.optim.Optimizer:
    """The optimizer of groups of parameters, empty ones left out."""
    train = config.train
    kind = optimizer_kind(train)
    given: dict[str, Any] = {"lr": train.lr}
    if "weight_decay" in inspect.signature(kind).parameters:
        given["weight_decay"] = train.weight_decay
    if train.optimizer == "adamw" and "foreach" not in train.optimizer_options:
        given["fused"] = True  # else a GPU has copies of all trained weights for as long as the step takes
    return kind([{"params": group} for group in groups if group], **{**given, **train.optimizer_options})


def remembered(config: Config) -> float:
    """Bytes that the optimizer keeps of one trained number: of ours known, of another as a small matrix shows it."""
    if config.train.optimizer in BYTES:
        return BYTES[config.train.optimizer]
    weight = nn.Parameter(torch.zeros(64, 64))
    weight.grad = torch.ones_like(weight)
    optimizer = make_optimizer(config, [[weight]])
    optimizer.step()
    kept = [value for value in optimizer.state[weight].values() if torch.is_tensor(value)]
    return sum(value.numel() * value.element_size() for value in kept) / weight.numel()


def schedule(train: Train) -> Callable[[int], float]:
    """Steps, counted from 0, to shares of the learning rate; the first step has some of it."""
    name = "constant_with_warmup" if train.schedule == "constant" else train.schedule
    unused = torch.optim.SGD([torch.zeros(1)], lr=train.lr)  # a schedule wants one to tell
    made = get_scheduler(
        name, unused, num_warmup_steps=train.warmup, num_training_steps=train.steps, **train.schedule_options
    )
    share = made.lr_lambdas[0]
    return lambda step: share(step + 1)
