"""A training run as something that draws."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint import load_checkpoint
from ..model.mmdiff import MMDiff
from ..prompt import bind_prompt
from ..training.base import Base
from ..training.batches import Batch, Collate
from ..training.config import Config, Drop, Loss, config_of
from ..training.model import Trainee
from ..training.samples import sample, sample_latents
from ..training.state import load_weights, read_run
from .arms import CHECKPOINT, STATE


class Run:
    """A base with a checkpoint on it, or with a run's last saved weights: a `cases.Generator`.

    All arms draw a case from the same noise: it depends on the case's seed and on nothing of the run. An arm that was
    trained without subjects (drop.image 1) is drawn without them.
    """

    def __init__(self, base: Base, config: Config, mmdiff: MMDiff | None, source: str) -> None:
        """mmdiff: as for Trainee. source: for records, which weights draw."""
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.config = _for_drawing(config)
        self.trainee = Trainee(base, self.config, mmdiff).eval().to(self.device)
        self.collate = Collate(base.tokenizers, self.config, base.scheduler.config.num_train_timesteps)
        samples = self.config.samples
        self.source = f"{source}, {samples.steps} steps of sampling, guidance {samples.guidance:g}"

    @classmethod
    def of_training(cls, folder: Path) -> Run:
        """The weights that a run saved last, averaged where it keeps an average.

        Raises MMDiffError where the folder's state is not a run's.
        """
        step, config, weights = read_run(folder / STATE)
        half = torch.cuda.is_available() and config.train.precision == "bf16"
        base = Base(config.base, config.vision, weights=True, dtype=torch.bfloat16 if half else torch.float32)
        size = sum(value.numel() for value in weights.values())
        about = f"{config.out} at step {step} of batch {config.train.batch}, {size} trained parameters"
        run = cls(base, config, None, about)
        load_weights(run.trainee, weights)
        return run

    @classmethod
    def of_model(cls, folder: Path) -> Run:
        """A diffusers folder that has its vision tower in `vision` and its checkpoint in `mmdiff.safetensors`, in full
        precision.

        Raises MMDiffError where a part is missing or not whole.
        """
        mmdiff = load_checkpoint(folder / CHECKPOINT).float()
        base = Base(str(folder), str(folder / "vision"), weights=True, dtype=torch.float32)
        config = config_of(
            {
                "base": str(folder),
                "vision": str(folder / "vision"),
                "out": str(folder),
                "data": {"kind": "none", "resolution": base.unet.config.sample_size * base.latent_pixel},
                "model": {"head_dim": mmdiff.spec.head_dim, "fuse_prompt": mmdiff.spec.fuse_prompt},
                "loss": {"layers": list(dict.fromkeys(base.cross_layers))},
                "train": {"steps": 1, "precision": "fp32"},
                "samples": {"steps": 20, "guidance": 2.5},
            }
        )
        return cls(base, config, mmdiff, f"{folder}, checkpoint {mmdiff.source}")

    def __call__(self, prompts: list[str], references: list[Tensor], seeds: list[int]) -> Tensor:
        """Prompts with markers, (S, 3, P, P) references in [0, 1] and a seed each, to (B, 3, H, W) in [0, 1]."""
        with torch.autocast(self.device, torch.bfloat16, enabled=self._half):
            drawn = self._sampled(sample, self._batch(prompts, references, seeds))
        return (drawn.float() / 2 + 0.5).clamp(0, 1).cpu()

    def latents(self, prompts: list[str], references: list[Tensor], seeds: list[int]) -> Tensor:
        """The same as latents, (B, C, h, w)."""
        return self._sampled(sample_latents, self._batch(prompts, references, seeds)).cpu()

    def noise(self, seeds: list[int]) -> Tensor:
        """The (B, C, h, w) noise that pictures of these seeds begin with."""
        batch = self._batch([""] * len(seeds), [torch.zeros(0, 3, 1, 1)] * len(seeds), seeds)
        return batch.randn(self.trainee.base.latent_shape(self.config.data.resolution), "noise").cpu()

    def _sampled(self, how: Callable[..., Tensor], batch: Batch) -> Tensor:
        samples = self.config.samples
        return how(self.trainee, batch, self.collate.unconditional(batch), samples.steps, samples.guidance)

    def _batch(self, prompts: list[str], references: list[Tensor], seeds: list[int]) -> Batch:
        side = self.config.data.resolution
        items = []
        for prompt, photos, seed in zip(prompts, references, seeds, strict=True):
            blank = {"image": torch.zeros(3, side, side), "masks": torch.ones(len(photos), side, side)}
            items.append(blank | self._words(prompt, photos) | {"index": seed, "record": str(seed)})
        return self.collate(items).to(self.device)

    @torch.no_grad()
    def maps(self, image: Tensor, masks: Tensor, prompt: str, references: Tensor, seed: int) -> dict[str, Tensor]:
        """Where a real scene, half covered in noise, looks for each subject: branch -> (S, 16, 16), the mean of the
        constrained layers. image: (3, H, W) in [0, 1]; masks: (S, H, W)."""
        item = {"image": image * 2 - 1, "masks": masks, "index": seed, "record": str(seed)}
        batch: Batch = self.collate([item | self._words(prompt, references)]).to(self.device)
        base = self.trainee.base
        shape = base.latent_shape(batch.image.shape[-1])
        time = torch.full((1,), base.scheduler.config.num_train_timesteps // 2, device=self.device)
        with torch.autocast(self.device, torch.bfloat16, enabled=self._half):
            latents = base.encode(batch.image, batch.randn(shape, "latents"))
            noisy = base.scheduler.add_noise(latents, batch.randn(shape, "noise"), time)
            conditions = self.trainee.conditions(batch)
            self.trainee.predict(noisy, time, conditions)
        recorded = conditions.subjects.maps
        found = {"text": recorded.text} | ({} if self.config.drop.image else {"image": recorded.image})
        return {branch: torch.stack([_grid(one) for one in maps.values()]).mean(0) for branch, maps in found.items()}

    @property
    def _half(self) -> bool:
        return self.trainee.base.unet.dtype == torch.bfloat16

    def _words(self, prompt: str, references: Tensor) -> dict:
        bound = bind_prompt(prompt, [f"picture {number}" for number in range(1, len(references) + 1)])
        entities = [(one.end - len(one.word), one.end) for one in bound.entities]
        size = self.trainee.base.photo_size
        photos = torch.nn.functional.interpolate(references, (size, size), mode="bilinear", antialias=True)
        return {"caption": bound.text, "entities": entities, "references": photos.clamp(0, 1)}


def _for_drawing(config: Config) -> Config:
    """Every condition kept, but for an arm that has none; every run seeds its noise alike; maps of both branches."""
    loss = Loss(text=1.0, image=1.0, layers=config.loss.layers)
    drop = Drop(text=0, image=float(config.drop.image == 1), both=0)
    return dataclasses.replace(config, seed=0, drop=drop, loss=loss)


def _grid(maps: Tensor) -> Tensor:
    """(1, N, S) of one layer to (S, 16, 16); N is a square."""
    side = round(maps.shape[1] ** 0.5)
    squares = maps[0].float().T.reshape(1, -1, side, side).cpu()
    return torch.nn.functional.interpolate(squares, (16, 16), mode="bilinear", antialias=True)[0]
