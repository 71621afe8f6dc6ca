"""Training on pictures of several aspects: a batch has one shape, and SDXL is told sizes and cuts."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from test_config import refused as refused  # a fixture
from test_training import trainee_of
from tiny_base import SIDE

from mmdiff_core.training.batches import Indexed
from mmdiff_core.training.config import read_config
from mmdiff_core.training.datasets import open_dataset
from mmdiff_core.training.losses import losses

ROOT = Path(__file__).parents[3]
NUMBER = 25
"""So many that one is held out."""
SIZES = ((60, 40), (40, 60), (50, 50), (61, 40), (90, 50))


@pytest.fixture
def scenes(tmp_path):
    """A configuration's section of data: a folder with pairs in pictures of several aspects."""
    for number in range(NUMBER):
        width, height = SIZES[number % len(SIZES)]
        pixels, segments = np.full((height, width, 3), 90, np.uint8), np.zeros((height, width), np.uint8)
        for segment, (left, colour) in enumerate(((0.3, (200, 0, 0)), (0.6, (0, 0, 200))), 1):
            part = np.s_[height // 4 : height // 2, int(left * width) : int((left + 0.15) * width)]
            pixels[part], segments[part] = colour, segment
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        np.save(tmp_path / f"{number}.npy", segments)
        spans = [{"id": 1, "start": 0, "end": 5}, {"id": 2, "start": 10, "end": 15}]
        (tmp_path / f"{number}.json").write_text(json.dumps({"caption": "a dog and a cat", "segments": spans}))
    return {"kind": "annotated", "buckets": True, "options": {"folder": str(tmp_path)}}


def test_a_run_in_buckets_goes_on_and_draws(run, folder, scenes, tmp_path):
    """Sheets too, and in pieces it is the same run."""
    sections = {"base": str(folder / "sdxl"), "data": scenes, "samples": {"every": 4, "count": 3, "steps": 1}}
    whole = run("whole", **sections, train={"steps": 4, "batch": 2})
    run("parts", **sections, train={"steps": 2, "batch": 2})
    assert run("parts", resume=True, **sections, train={"steps": 4, "batch": 2}) == whole
    assert (tmp_path / "whole" / "samples" / "step-00000004.png").is_file()


def test_sdxl_is_told_sizes_and_cuts(write, folder, scenes):
    """Of every picture its own size, what was cut off, and the shape; what is drawn anew was cut nowhere."""
    path = write(base=str(folder / "sdxl"), data=scenes, drop={"text": 0, "image": 0, "both": 0})
    made = trainee_of(path)
    base, config = made.trainee.base, read_config(path)
    dataset = Indexed(open_dataset(config, base))
    collate, told = made.collate, set()
    for first in range(0, 20, 2):
        batch = collate([dataset[first], dataset[first + 1]])
        height, width = batch.image.shape[-2:]
        assert 0.7 * SIDE**2 < height * width <= SIDE**2 and batch.masks.shape[-2:] == (height, width)
        ids = made.trainee.conditions(batch.slots, SIDE).added["time_ids"]
        assert torch.equal(ids, batch.slots.sizes.float()) and torch.equal(
            ids[:, 4:], torch.tensor([[height, width]] * 2)
        )
        drawn = made.trainee.conditions(batch.whole(), SIDE).added["time_ids"]
        assert drawn.tolist() == [[height, width, 0, 0, height, width]] * 2
        found = made.trainee(losses, batch)
        assert all(value.isfinite().all() for value in found.values()) and (found["image"] != 0).any()
        told |= {tuple(row[:2].int().tolist()) for row in ids}
    assert told == {(height, width) for width, height in SIZES}


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_the_configurations_that_ship_train(run, folder, scenes, tmp_path, name):
    """As they are but for places, sizes and the number of steps; the cache finds all pictures the second time."""
    shipped = yaml.safe_load((ROOT / "docs" / "configs" / f"{name}.yaml").read_text())
    data = {**shipped["data"], "resolution": SIDE, "workers": 0}
    data["options"] = {**data["options"], **scenes["options"]}
    sections = {
        "base": str(folder / {"sd15": "base"}.get(name, name)),
        "cache": str(tmp_path / shipped["cache"]),
        "data": data,
        "model": {**shipped["model"], "rank": 4, "text_rank": 2, "head_dim": 8, "depth": 1},
        "train": {**shipped["train"], "steps": 2, "warmup": 1, "precision": "fp32"},
        "samples": {"every": 2, "count": 1, "steps": 1},
        "held": {**shipped["held"], "every": 2},
        "drop": {},
    }
    first, second = run("first", **sections), run("second", **sections)
    assert [line["cached"] for line in second] > [line["cached"] for line in first]
    assert [{**line, "cached": 0} for line in second] == [{**line, "cached": 0} for line in first]
    held = (tmp_path / "first" / "held-out.jsonl").read_text().splitlines()
    assert len(held) == 1 and "denoise" in held[0]


def test_squares_say_so(refused):
    sentence = refused(data={"buckets": True})
    assert all(word in sentence for word in ("data.buckets", "tiny_base:Squares", "squares only"))
