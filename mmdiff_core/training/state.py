"""The state of a run on disk: weights, averaged weights and the optimizer's memory, as one safetensors file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from ..errors import MMDiffError
from ..files import read_safetensors, refuse_impostors, write_safetensors
from .config import Config, config_of, value_of

_FREE = (
    "out",
    "cache",
    "save",
    "samples",
    "held",
    "evaluate",
    "trackers",
    "data.workers",
    "train.steps",
    "train.compile",
)
"""Keys that may change between a run's parts without changing its losses: steps where the learning rate is constant."""

_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
_PARTIAL = StateDictOptions(full_state_dict=True, strict=False)


class State(NamedTuple):
    """step: steps done. weights, averaged: by parameter name, averaged empty without. optimizer: its state."""

    step: int
    weights: dict[str, Tensor]
    averaged: dict[str, Tensor]
    optimizer: dict[str, Any]


def trained_weights(model: nn.Module) -> dict[str, Tensor]:
    """The whole trained weights by name, on the CPU, of a model that may be spread over processes."""
    return {name: value.clone() for name, value in get_model_state_dict(model, options=_WHOLE).items()}


def load_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put trained weights into a model that may be spread over processes."""
    set_model_state_dict(model, weights, options=_PARTIAL)


def optimizer_state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimizer's state by parameter name, on the CPU."""
    return get_optimizer_state_dict(model, optimizer, options=_WHOLE)


def load_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Put an optimizer's state back."""
    set_optimizer_state_dict(model, optimizer, state, options=StateDictOptions(full_state_dict=True))


def write_state(path: Path, state: State, config: Config, processes: int = 1) -> None:
    """Write a state of a run in so many processes; a failed or interrupted write leaves the older file whole."""
    tensors = {f"weights.{name}": value for name, value in state.weights.items()}
    tensors.update({f"averaged.{name}": value for name, value in state.averaged.items()})
    plain: dict[str, dict[str, Any]] = {}
    for name, values in state.optimizer["state"].items():
        for key, value in values.items():
            if torch.is_tensor(value):
                tensors[f"optimizer.{name}.{key}"] = value
            else:
                plain.setdefault(name, {})[key] = value
    entry = {
        "step": state.step,
        "config": dataclasses.asdict(config),
        "processes": processes,
        "groups": state.optimizer["param_groups"],
        "plain": plain,
    }
    write_safetensors(path, tensors, {"mmdiff_training": json.dumps(entry)})


def read_state(path: Path, config: Config, processes: int = 1) -> State:
    """Read a state, to go on with it in so many processes. Raises MMDiffError where the file is not whole, the
    configuration is another run's, or a step would see other samples."""
    tensors, entry = _read(path)
    before = config_of(entry["config"])
    if processes != (old := entry.get("processes", processes)):
        turns = before.train.accumulation * old
        if config.train.accumulation * processes != turns:
            wanted = f"{turns // processes}" if turns % processes == 0 else "none that fits"
            raise MMDiffError(
                f"The run in {path.parent} had {old} processes and train.accumulation {before.train.accumulation}. "
                f"With {processes} processes train.accumulation is {config.train.accumulation}, and {wanted} is "
                "wanted, so that a step sees as many samples."
            )
        before = dataclasses.replace(before, train=dataclasses.replace(before.train, accumulation=turns // processes))
    _check_same(path, dataclasses.asdict(before), config)
    optimizer: dict[str, Any] = {name: dict(values) for name, values in entry["plain"].items()}
    for key, value in _under(tensors, "optimizer").items():
        name, _, kind = key.rpartition(".")
        optimizer.setdefault(name, {})[kind] = value
    return State(
        step=entry["step"],
        weights=_under(tensors, "weights"),
        averaged=_under(tensors, "averaged"),
        optimizer={"state": optimizer, "param_groups": entry["groups"]},
    )


def about_run(path: Path) -> tuple[int, Config]:
    """Steps done and configuration of a saved run, without its tensors. Raises MMDiffError where it is no state."""
    refuse_impostors(path)
    try:
        with safe_open(path, framework="pt") as file:
            entry = json.loads((file.metadata() or {})["mmdiff_training"])
    except (KeyError, SafetensorError, ValueError) as error:
        raise MMDiffError(f"{path} is no state of a training run; name the folder that a run wrote.") from error
    return entry["step"], config_of(entry["config"])


def steps_done(path: Path) -> int:
    """How many steps a saved run has done. Raises MMDiffError where the file is not whole or not a run's."""
    return _read(path)[1]["step"]


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, metadata = read_safetensors(path)
    if "mmdiff_training" not in metadata:
        raise MMDiffError(f"{path} is no state of a training run; name the folder that a run wrote, or an empty one.")
    return tensors, json.loads(metadata["mmdiff_training"])


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(prefix + ".")}


def _check_same(path: Path, before: dict[str, Any], config: Config) -> None:
    for key in _keys(dataclasses.asdict(config)):
        if key.startswith(_FREE) and not (key == "train.steps" and config.train.schedule != "constant"):
            continue
        old: Any = before
        for name in key.split("."):
            old = old.get(name) if isinstance(old, dict) else None
        new = value_of(config, key)
        if old != new:
            raise MMDiffError(
                f"{key} is {new!r}, and the run in {path.parent} was made with {old!r}. It can only go on as it began: "
                "put the value back, or name another folder as out."
            )


def _keys(content: dict[str, Any], prefix: str = "") -> list[str]:
    found = []
    for name, value in content.items():
        is_section = isinstance(value, dict) and not name.endswith("options")
        found += _keys(value, f"{prefix}{name}.") if is_section else [f"{prefix}{name}"]
    return found
