"""The training loop: one step after another, saved so that it can go on exactly where it was killed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedType
from accelerate.utils import gather_object
from diffusers.training_utils import EMAModel
from PIL import Image
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..checkpoint import save_checkpoint
from ..drawing.drawer import Drawer, Settings
from ..errors import MMDiffError
from .batches import Batch, Collate, Indexed, Steps
from .cache import open_cache
from .config import Config
from .evaluation import Evaluation
from .held_out import HeldOut
from .losses import PARTS, losses
from .optimizer import make_optimizer, schedule
from .samples import Samples
from .state import State, load_optimizer, load_weights, optimizer_state, trained_weights, write_state
from .summary import EVALUATION, HELD_OUT, LOSSES, write_summary
from .trainee import Trainee


class Trainer:
    """One run: the model and its optimizer, spread over processes as accelerate was told, and where they are saved."""

    def __init__(
        self,
        config: Config,
        accelerator: Accelerator,
        trainee: Trainee,
        dataset: Any,
        state: State | None,
        held: Any,
        evaluation: Evaluation | None,
    ) -> None:
        """held: the dataset of what is held out, or None; evaluation: what measures early figures, in the main process.

        Raises MMDiffError where nothing can draw for early figures, and they are asked for.
        """
        self.config = config
        self.accelerator = accelerator
        self.trainee = trainee
        self.dataset = dataset
        self.out = Path(config.out)
        sharded = accelerator.distributed_type == DistributedType.FSDP
        if config.evaluate.every and trainee.mmdiff.spec.identity == "face":
            raise MMDiffError(
                f"evaluate.every is {config.evaluate.every}, and the checkpoint draws people from face vectors, where "
                "evaluations have photos only. Set it to 0, and look at the sheets of samples and of held-out scenes."
            )
        if config.evaluate.every and sharded:
            raise MMDiffError(
                f"evaluate.every is {config.evaluate.every}, and weights are spread over processes, none of which can "
                "draw alone. Set it to 0, and measure what was saved by `python -m mmdiff_core evaluate`."
            )
        self.cache = open_cache(config.cache, trainee, sharded) if config.cache else None
        self.evaluation = evaluation
        self.model, self.optimizer = accelerator.prepare(trainee, make_optimizer(config, _groups(trainee)))
        self.schedule = schedule(config.train)
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
        tokenizers, timesteps = trainee.base.tokenizers, trainee.base.scheduler.config.num_train_timesteps
        self.collate = Collate(tokenizers, config, timesteps, self.cache)
        self.samples = Samples(config, dataset, trainee)
        self.held = HeldOut(config, held, tokenizers, timesteps) if held is not None else None

    def run(self) -> None:
        """All steps that are left."""
        config, main = self.config, self.accelerator.is_main_process
        steps = range(self.start, config.train.steps)
        batches = iter(self.batches(steps))
        if main:
            self._start_logs()
        self.accelerator.init_trackers(self.out.name, init_kwargs={"tensorboard": {"purge_step": self.start}})
        bar = tqdm(steps, initial=self.start, total=config.train.steps, disable=not main, unit="step")
        works = (
            (config.save.every, self._save),
            (config.samples.every, self._sample),
            (config.held.every, self._look_at_held_out),
            (config.evaluate.every, self._evaluate),
        )
        try:
            for step in bar:
                values = self.step(step, [next(batches) for _ in range(config.train.accumulation)])
                self._tell(LOSSES, step, values)
                bar.set_postfix({name: f"{values[name]:.4f}" for name in PARTS})
                done = step + 1
                due = [work for every, work in works if every and done % every == 0]
                if done == config.train.steps and self._save not in due:
                    due.insert(0, self._save)
                for work in due:
                    work(done)
                if due and main:
                    write_summary(self.out, config)
        finally:
            self.accelerator.end_training()

    def _start_logs(self) -> None:
        """Take off what was said of steps that were not saved before a kill."""
        self.out.mkdir(parents=True, exist_ok=True)
        for part in self.out.glob(".*.part"):  # what a kill during a save left
            part.unlink()
        _settings(self.config).write(self.out)
        for name in (LOSSES, HELD_OUT, EVALUATION):
            path = self.out / name
            if path.exists():
                kept = [line for line in path.read_text().splitlines() if json.loads(line)["step"] < self.start]
                path.write_text("".join(line + "\n" for line in kept))

    def _tell(self, log: str, step: int, values: dict[str, float], prefix: str = "") -> None:
        """Say values of a step to the trackers and in one of the logs."""
        self.accelerator.log({f"{prefix}{name}": value for name, value in values.items()}, step)
        if self.accelerator.is_main_process:
            with (self.out / log).open("a") as file:
                file.write(json.dumps({"step": step, **values}) + "\n")

    def batches(self, steps: range) -> DataLoader:
        """This process's batches of some steps."""
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

    def step(self, step: int, batches: list[Batch]) -> dict[str, float]:
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
        share = self.schedule(step)
        for group, rate in zip(self.optimizer.param_groups, (config.train.lr, config.train.vision_lr), strict=False):
            group["lr"] = rate * share
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
            state = State(done, weights, averaged, optimizer)
            write_state(self.out / "state.safetensors", state, self.config, self.accelerator.num_processes)
            for old in sorted(self.out.glob("step-*.safetensors"))[: -self.config.save.keep]:
                old.unlink()
        self.accelerator.wait_for_everyone()

    def _look_at_held_out(self, done: int) -> None:
        """Losses and a sheet of maps of what is held out."""
        with self._averaged():
            values = self.held.losses(self.model, self.accelerator.device)
            maps = self.held.maps(self.model, self.accelerator.device)
        self._tell(HELD_OUT, done - 1, values, "held out ")
        self._keep(maps, "held-out", done)

    def _evaluate(self, done: int) -> None:
        """Early figures, of pictures that the main process draws while the others wait."""
        values: dict[str, float] = {}
        with self._averaged():
            if self.evaluation is not None:
                name = f"step-{done:08}"
                trainee = self.accelerator.unwrap_model(self.model)
                drawer = Drawer(trainee, _settings(self.config), f"{self.out} {name}", f"{self.out}, {name}")
                values = self.evaluation(drawer, self.out / "evaluation" / name)
        self._tell(EVALUATION, done - 1, values, "evaluate ")
        self.accelerator.wait_for_everyone()

    def _keep(self, picture: Image.Image, folder: str, done: int) -> None:
        if self.accelerator.is_main_process:
            path = self.out / folder / f"step-{done:08}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)

    def _sample(self, done: int) -> None:
        with self._averaged():
            self._keep(self.samples.drawn(self.model, self.accelerator.device), "samples", done)


def _groups(trainee: Trainee) -> list[list[torch.nn.Parameter]]:
    """What trains, by learning rate: heads and LoRAs, then the vision layers."""
    tower = list(trainee.tower.parameters()) if trainee.tower else []
    others = [*trainee.mmdiff.parameters(), *([] if trainee.null is None else [trainee.null])]
    return [[one for one in group if one.requires_grad] for group in (others, tower)]


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
        end_in_noise=config.train.zero_terminal_snr,
        config=os.path.relpath(config.base_config, config.out) if config.base_config else "",
    )
