"""The training loop: one step after another, saved so that it can go on exactly where it was killed."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TextIO

import torch
from accelerate import Accelerator, DistributedType
from accelerate.utils import gather_object
from diffusers.training_utils import EMAModel
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers.utils import logging as transformers_logging

from ..checkpoint import save_checkpoint
from ..drawing.base import Base
from ..drawing.drawer import Settings
from ..drawing.sample import sample
from ..errors import MMDiffError
from ..sheet import sheet
from .batches import Batch, Collate, Indexed, Steps
from .cache import Cache, open_cache
from .config import Config, Drop
from .datasets import check_faces, check_pairs, open_dataset
from .losses import PARTS, losses
from .memory import estimate, memory_lines
from .state import State, load_optimizer, load_weights, optimizer_state, read_state, trained_weights, write_state
from .trainee import Trainee


def train(config: Config, resume: bool) -> None:
    """Train from the start, or go on where the run in `out` was last saved.

    Raises MMDiffError for a configuration that does not fit the base or the data, before weights are loaded; for a loss
    that is not finite; and where nothing can be written.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # they run in the loader's processes
    transformers_logging.disable_progress_bar()
    bf16 = config.train.precision == "bf16"
    accelerator = Accelerator(mixed_precision="bf16" if bf16 else "no", log_with="tensorboard", project_dir=config.out)
    with torch.device("meta"):
        shape = Base(config.base, config.vision, weights=False, dtype=torch.bfloat16 if bf16 else torch.float32)
    shape.check_resolution(config.data.resolution)
    dataset = open_dataset(config, shape.photo_size)
    check_pairs(config, dataset)
    state = _earlier(config, resume)
    if accelerator.is_main_process and state is None:
        print(memory_lines(estimate(config, shape, dataset.max_subjects)), flush=True)
    torch.manual_seed(config.seed)
    trainee = Trainee(Base(config.base, config.vision, weights=True, dtype=shape.unet.dtype), config)
    check_faces(dataset, trainee.mmdiff.spec)
    Trainer(config, accelerator, trainee, dataset, state).run()


def _earlier(config: Config, resume: bool) -> State | None:
    """The state to go on from. Raises MMDiffError where a run would be overwritten."""
    path = Path(config.out) / "state.safetensors"
    if not path.exists():
        return None
    if not resume:
        raise MMDiffError(f"out: {config.out} holds a run already. Go on with it by --resume, or name another folder.")
    return read_state(path, config)


class Trainer:
    """One run: the model and its optimizer, spread over processes as accelerate was told, and where they are saved."""

    def __init__(
        self, config: Config, accelerator: Accelerator, trainee: Trainee, dataset: Any, state: State | None
    ) -> None:
        self.config = config
        self.accelerator = accelerator
        self.trainee = trainee
        self.dataset = dataset
        self.out = Path(config.out)
        sharded = accelerator.distributed_type == DistributedType.FSDP
        self.cache = open_cache(config.cache, trainee, sharded) if config.cache else None
        self.model, self.optimizer = accelerator.prepare(trainee, _optimizer(config, trainee))
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.start = state.step if state else 0
        self.ema = None
        if config.train.ema:
            if state:
                load_weights(self.model, state.averaged)
            self.ema = EMAModel(self.trained, decay=config.train.ema)
            self.ema.optimization_step = self.start
        if state:
            load_weights(self.model, state.weights)
            load_optimizer(self.model, self.optimizer.optimizer, state.optimizer)
        self.collate = self._collate(config, self.cache)

    def run(self) -> None:
        """All steps that are left."""
        config, main = self.config, self.accelerator.is_main_process
        steps = range(self.start, config.train.steps)
        batches = iter(self._loader(steps))
        log = self._opened_log() if main else None
        self.accelerator.init_trackers("logs", init_kwargs={"tensorboard": {"purge_step": self.start}})
        bar = tqdm(steps, initial=self.start, total=config.train.steps, disable=not main, unit="step")
        try:
            for step in bar:
                values = self._step(step, [next(batches) for _ in range(config.train.accumulation)])
                self.accelerator.log(values, step)
                if log:
                    log.write(json.dumps({"step": step, **values}) + "\n")
                    log.flush()
                    bar.set_postfix({name: f"{values[name]:.4f}" for name in PARTS})
                done = step + 1
                if done % config.save.every == 0 or done == config.train.steps:
                    self._save(done)
                if config.samples.every and done % config.samples.every == 0:
                    self._sample(done)
        finally:
            self.accelerator.end_training()
            if log:
                log.close()

    def _opened_log(self) -> TextIO:
        """Losses of each step as lines of JSON; what was not saved before a kill is taken off."""
        self.out.mkdir(parents=True, exist_ok=True)
        for part in self.out.glob(".*.part"):  # what a kill during a save left
            part.unlink()
        _settings(self.config).write(self.out)
        path = self.out / "losses.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        path.write_text("".join(line + "\n" for line in lines[: self.start]))
        return path.open("a")

    def _collate(self, config: Config, cache: Cache | None = None) -> Collate:
        base = self.trainee.base
        return Collate(base.tokenizers, config, base.scheduler.config.num_train_timesteps, cache)

    def _loader(self, steps: range) -> DataLoader:
        accelerator, config = self.accelerator, self.config
        indices = Steps(
            steps,
            config.train.batch,
            config.train.accumulation,
            accelerator.process_index,
            accelerator.num_processes,
        )
        return DataLoader(
            Indexed(self.dataset),
            batch_sampler=indices,
            collate_fn=self.collate,
            num_workers=config.data.workers,
        )

    def _step(self, step: int, batches: list[Batch]) -> dict[str, float]:
        """One step of the optimizer. Every loss is a mean over the step's samples (or subjects) in all processes, so
        that it does not matter how they are divided into batches and processes."""
        accelerator, config = self.accelerator, self.config
        totals = accelerator.reduce(sum(batch.counts() for batch in batches).to(accelerator.device)).clamp_min(1)
        weights = torch.tensor([1.0, config.loss.text, config.loss.image], device=accelerator.device)
        sums = torch.zeros_like(totals)
        for number, batch in enumerate(batches, 1):
            with nullcontext() if number == len(batches) else accelerator.no_sync(self.model):
                found = self.model(losses, batch.to(accelerator.device), self.cache)
                parts = torch.stack([found[part].sum() for part in PARTS])
                # Processes average their gradients, and these are shares of one sum.
                accelerator.backward((weights * parts / totals).sum() * accelerator.num_processes)
            sums += parts.detach()
        means = accelerator.reduce(sums) / totals
        norm = accelerator.clip_grad_norm_(self.model.parameters(), config.train.clip)
        whole = (weights * means).sum()
        names, numbers = ("loss", *PARTS, "gradient"), torch.stack([whole, *means, torch.as_tensor(norm).to(whole)])
        if not numbers.isfinite().all():
            self._stop(step, dict(zip(names, numbers.tolist(), strict=True)), batches)
        rise = min(1.0, (step + 1) / config.train.warmup) if config.train.warmup else 1.0
        for group, rate in zip(self.optimizer.param_groups, (config.train.lr, config.train.vision_lr), strict=False):
            group["lr"] = rate * rise
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema:
            self.ema.step(self.trained)
        values = dict(zip(names, numbers.tolist(), strict=True))
        return values | ({"cached": self.cache.share_found()} if self.cache else {})

    def _stop(self, step: int, values: dict[str, float], batches: list[Batch]) -> None:
        records = gather_object([record for batch in batches for record in batch.records])
        bad = ", ".join(f"{name} {value}" for name, value in values.items())
        raise MMDiffError(
            f"Step {step} is not finite ({bad}); nothing of it was kept. Its records were {', '.join(records)}. "
            "Look at them, or lower train.lr, and go on from the last save with --resume."
        )

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The model with its averaged weights, where there are any."""
        if self.ema is None:
            yield
            return
        self.ema.store(self.trained)
        self.ema.copy_to(self.trained)
        yield
        self.ema.restore(self.trained)

    def _save(self, done: int) -> None:
        """A checkpoint for use, then the state to go on from; each is whole or not there."""
        weights = trained_weights(self.model)
        with self._averaged():
            averaged = trained_weights(self.model) if self.ema else {}
        optimizer = optimizer_state(self.model, self.optimizer.optimizer)
        if self.accelerator.is_main_process:
            save_checkpoint(self.trainee.checkpoint(averaged or weights), self.out / f"step-{done:08}.safetensors")
            write_state(self.out / "state.safetensors", State(done, weights, averaged, optimizer), self.config)
            for old in sorted(self.out.glob("step-*.safetensors"))[: -self.config.save.keep]:
                old.unlink()
        self.accelerator.wait_for_everyone()

    def _sample(self, done: int) -> None:
        """A sheet of the data's first scenes, all conditions kept."""
        wanted, base = self.config.samples, self.trainee.base
        collate = self._collate(dataclasses.replace(self.config, drop=Drop(0, 0, 0)))
        items = Indexed(self.dataset)
        batch = collate([items[index] for index in range(wanted.count)]).to(self.accelerator.device)
        without = collate.reader.without_subjects(batch.slots, self.trainee.mmdiff.spec.fuse_negative)
        noise = batch.randn(base.latent_shape(batch.image.shape[-1]), "noise")
        with self._averaged():
            latents = self.model(sample, batch.slots, without, noise, wanted.steps, wanted.guidance)
        drawn = base.decode(latents) / 2 + 0.5
        if self.accelerator.is_main_process:
            path = self.out / "samples" / f"step-{done:08}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = []
            for number, record in enumerate(batch.records):
                references = [(one, "reference") for one in batch.slots.references[number]]
                rows.append([*references, (batch.image[number] / 2 + 0.5, record), (drawn[number], "drawn")])
            sheet(rows, side=min(256, batch.image.shape[-1])).save(path)


def _optimizer(config: Config, trainee: Trainee) -> torch.optim.Optimizer:
    tower = list(trainee.tower.parameters()) if trainee.tower else []
    others = [*trainee.mmdiff.parameters(), *([] if trainee.null is None else [trainee.null])]
    groups = [[one for one in group if one.requires_grad] for group in (others, tower)]
    kind = torch.optim.AdamW
    if config.train.optimizer == "adamw8bit":
        from bitsandbytes.optim import AdamW8bit as kind
    return kind([{"params": group} for group in groups if group], lr=config.train.lr, **_adam(config))


def _adam(config: Config) -> dict[str, Any]:
    return {"betas": (0.9, 0.999), "weight_decay": config.train.weight_decay}


def _settings(config: Config) -> Settings:
    """How what comes out of a run draws."""
    return Settings(
        base=os.path.relpath(config.base, config.out),
        vision=os.path.relpath(config.vision, config.out),
        resolution=config.data.resolution,
        steps=config.samples.steps,
        guidance=config.samples.guidance,
        subjects=config.drop.image < 1,
        half=config.train.precision == "bf16",
    )
