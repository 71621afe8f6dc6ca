"""Buckets against squares, on pictures that are not square: `python -m recipes.buckets.measure WORK`, atlas in WORK.

The demo model goes on both ways, with the same pictures and seeds; then it, as it was and as it became, is asked about
pictures of names that were never trained on, in the shapes of buckets and as squares. A run that was stopped goes on.
Tables are Markdown, with 95 % intervals over pictures.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch

from mmdiff_core.data.validate import check_folder, load_segments, window
from mmdiff_core.demo import CHECKPOINT, FOLDER
from mmdiff_core.drawing.base import Base
from mmdiff_core.evaluation.bootstrap import Interval, difference, interval
from mmdiff_core.training.batches import Batch, Collate, Indexed
from mmdiff_core.training.config import Config, Drop, Loss, Model, config_of
from mmdiff_core.training.datasets import open_dataset
from mmdiff_core.training.losses import losses
from mmdiff_core.training.start import train
from mmdiff_core.training.trainee import Trainee
from mmdiff_core.world.scenes import WorldScenes

from .pictures import SIDE, write_records

ARMS = {"buckets": True, "squares": False}
TRAINED, HELD = 1200, 96  # pictures
SEEDS, STEPS, BATCH = 2, 75, 16  # each picture once
LOOKS = 16  # batches of held-out pictures: each picture more than once, with other noise
MEASURES = {"error": False, "error inside the masks": True}
Figures = dict[str, dict[str, float]]
"""Measure to picture to number."""


def main(work: Path) -> None:
    for seed, (split, number) in enumerate({"train": TRAINED, "val": HELD}.items()):
        scenes = WorldScenes(work / "atlas.npz", SIDE, 64, seed, split, pairs=0.65, looks=0.15, settled=True)
        write_records(scenes, number, work / split)
    for seed in range(SEEDS):
        for arm in ARMS:
            train(configuration(work, "train", arm, seed), resume=True)
    lost = left_out(work / "val")
    most = sum(share > 1 / 3 for share in lost.values()) / len(lost)
    mean_lost = interval(lost, {subject: subject.split()[0] for subject in lost})
    print(f"The square leaves out {said(mean_lost)} of a subject, and more than a third of {most:.2f} of them.")
    for shape in ARMS:
        config = configuration(work, "val", shape, 0)
        batches = held_out(config)
        print(f"\n| held-out pictures in {shape} | {' | '.join(MEASURES)} |\n{'|---' * (len(MEASURES) + 1)}|")
        print(row("before", figures(config, CHECKPOINT, batches)), flush=True)
        found: dict[str, list[Figures]] = {arm: [] for arm in ARMS}
        for arm, runs in found.items():
            for seed in range(SEEDS):
                last = max((work / f"{arm}-{seed}").glob("step-*.safetensors"))
                runs.append(figures(config, last, batches))
            print(row(arm, mean(runs)), flush=True)
        print(row("buckets less squares", mean(found["buckets"]), mean(found["squares"])))
        for seed, pair in enumerate(zip(*found.values(), strict=True)):
            print(row(f"the same of seed {seed}", *pair), flush=True)


def configuration(work: Path, pictures: str, arm: str, seed: int) -> Config:
    """The demo model goes on, on a folder of pictures: as in recipes/demo/arms/full.yaml, but with the constraints in
    the layers of the default."""
    return config_of(
        {
            "base": str(FOLDER),
            "vision": str(FOLDER / "vision"),
            "out": str(work / f"{arm}-{seed}"),
            "seed": seed,
            "data": {
                "kind": "recipes.buckets.pictures:LatentPictures",
                "resolution": SIDE // 2,
                "buckets": ARMS[arm],
                "workers": 0,
                "options": {"folder": str(work / pictures)},
            },
            "model": {"null_token": True, "start": str(CHECKPOINT)},
            "loss": {"text": 0.01, "image": 0.01},
            "drop": {"text": 0.05, "image": 0.05, "both": 0.1},
            "train": {"steps": STEPS, "batch": BATCH, "lr": 1e-3, "warmup": 50, "ema": 0.995, "precision": "fp32"},
            "save": {"every": 25, "keep": 1},
        }
    )


def left_out(folder: Path) -> dict[str, float]:
    """Of each picture's subjects, the share of the mask that lies outside of the square."""
    shares = {}
    for record in check_folder(folder):
        segments = load_segments(folder / f"{record.name}.npy")
        left, top, width, height = window(segments, [one.id for one in record.segments], (1, 1))
        part = segments[top : top + height, left : left + width]
        for one in record.segments:
            shares[f"{record.name} {one.id}"] = 1 - float((part == one.id).sum() / (segments == one.id).sum())
    return shares


def held_out(config: Config) -> list[Batch]:
    """The first batches of a configuration's pictures, all conditions kept."""
    base, kept = base_of(config), dataclasses.replace(config, drop=Drop(0, 0, 0))
    collate = Collate(base.tokenizers, kept, base.scheduler.config.num_train_timesteps)
    items = Indexed(open_dataset(config, base))
    return [collate([items[index] for index in range(one * BATCH, (one + 1) * BATCH)]) for one in range(LOOKS)]


@torch.no_grad()
def figures(config: Config, checkpoint: Path, batches: Sequence[Batch]) -> Figures:
    """The denoising error of a checkpoint."""
    config = dataclasses.replace(config, model=Model(start=str(checkpoint)), loss=Loss(0.0, 0.0))
    trainee, found = Trainee(base_of(config), config).eval(), {}
    for measure, masked in MEASURES.items():
        each: dict[str, list[float]] = {}
        for batch in batches:
            asked = dataclasses.replace(batch, masked=torch.full_like(batch.masked, masked))
            for record, error in zip(batch.records, losses(trainee, asked)["denoise"].tolist(), strict=True):
                each.setdefault(record, []).append(error)
        found[measure] = {record: sum(errors) / len(errors) for record, errors in each.items()}
    return found


def base_of(config: Config) -> Base:
    return Base(config.base, config.vision, weights=True, dtype=torch.float32)


def mean(runs: Sequence[Figures]) -> Figures:
    """Of some runs, picture by picture."""
    return {
        measure: {picture: sum(run[measure][picture] for run in runs) / len(runs) for picture in values}
        for measure, values in runs[0].items()
    }


def row(what: str, one: Figures, less: Figures | None = None) -> str:
    """Of a table: figures, or how they differ."""
    cells = []
    for measure, values in one.items():
        pictures = {picture: picture for picture in values}
        found = difference(less[measure], values, pictures) if less else interval(values, pictures)
        cells.append(said(found))
    return f"| {what} | {' | '.join(cells)} |"


def said(found: Interval) -> str:
    return f"{found.mean:.4f} [{found.low:.4f}, {found.high:.4f}]"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m recipes.buckets.measure", description=__doc__.split("\n")[0])
    parser.add_argument("work", type=Path, help="folder with atlas.npz")
    main(parser.parse_args().work)
