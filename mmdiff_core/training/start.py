"""From a configuration to a run: what does not fit is refused before weights are loaded."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import LoggerType, ProjectConfiguration, gather_object
from transformers.utils import logging as transformers_logging

from ..drawing.base import Base
from ..errors import MMDiffError
from .config import Config
from .datasets import check_faces, check_pairs, open_dataset, open_held_out
from .evaluation import open_evaluation
from .memory import estimate, memory_lines
from .optimizer import optimizer_kind
from .state import State, read_state
from .trainee import Trainee
from .trainer import Trainer


def train(config: Config, resume: bool) -> None:
    """Train from the start, or go on where the run in `out` was last saved.

    Raises MMDiffError for a configuration that does not fit the base or the data, before weights are loaded; for a loss
    that is not finite; and where nothing can be written.
    """
    accelerator = started(config)
    state = _earlier(config, resume, accelerator.num_processes)
    done = gather_object([state.step if state else 0])
    if len(set(done)) > 1:
        raise MMDiffError(
            f"out: {config.out} holds other runs on other machines; the processes find {', '.join(map(str, done))} "
            "steps done. Put what was saved last into a folder that all see, or copy it to each of them."
        )
    prepared(config, accelerator, state).run()


def started(config: Config) -> Accelerator:
    """The processes of a run, brought together. Raises MMDiffError where a tracker can't be had."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # they run in the loader's processes
    transformers_logging.disable_progress_bar()
    check_trackers(config.trackers)
    bf16 = config.train.precision == "bf16"
    folders = ProjectConfiguration(project_dir=config.out, logging_dir=str(Path(config.out) / "logs"))
    return Accelerator(mixed_precision="bf16" if bf16 else "no", log_with=config.trackers, project_config=folders)


def prepared(config: Config, accelerator: Accelerator, state: State | None) -> Trainer:
    """A run from the start, or from a state. Raises MMDiffError as `train` does."""
    dtype = torch.bfloat16 if config.train.precision == "bf16" else torch.float32
    with torch.device("meta"):
        shape = Base(config.base, config.vision, weights=False, dtype=dtype, config=config.base_config)
    shape.check_resolution(config.data.resolution)
    optimizer_kind(config.train)
    if config.train.zero_terminal_snr:
        shape.end_in_noise()
    check_backend(config.train.compile)
    dataset = open_dataset(config, shape)
    check_pairs(config, dataset)
    held = open_held_out(config, shape) if config.held.every else None
    evaluation = open_evaluation(config) if config.evaluate.every and accelerator.is_main_process else None
    if accelerator.is_main_process and state is None:
        print(memory_lines(estimate(config, shape, dataset.max_subjects)), flush=True)
    torch.manual_seed(config.seed)
    base = Base(config.base, config.vision, weights=True, dtype=dtype, config=config.base_config)
    if config.train.zero_terminal_snr:
        base.end_in_noise()
    trainee = Trainee(base, config)
    check_faces(dataset, trainee.mmdiff.spec)
    if config.train.compile:
        base.unet.compile(backend=config.train.compile)
    return Trainer(config, accelerator, trainee, dataset, state, held, evaluation)


def check_trackers(names: list[str]) -> None:
    """Raises MMDiffError for a tracker that accelerate does not know, or whose package is missing."""
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise MMDiffError(f"trackers has {name!r}; accelerate knows {', '.join(LOGGER_TYPE_TO_CLASS)}.")
        if LoggerType(name) not in get_available_trackers():
            raise MMDiffError(f"trackers has {name}, whose package is not installed. Install it, or leave it out.")


def check_backend(name: str) -> None:
    """Raises MMDiffError where torch.compile has no such backend."""
    if name and name not in (known := torch.compiler.list_backends(exclude_tags=())):
        raise MMDiffError(f"train.compile is {name!r}; it must be one of {', '.join(known)}, or left out.")


def _earlier(config: Config, resume: bool, processes: int) -> State | None:
    """The state to go on from. Raises MMDiffError where a run would be overwritten."""
    path = Path(config.out) / "state.safetensors"
    if not path.exists():
        return None
    if not resume:
        raise MMDiffError(f"out: {config.out} holds a run already. Go on with it by --resume, or name another folder.")
    return read_state(path, config, processes)
