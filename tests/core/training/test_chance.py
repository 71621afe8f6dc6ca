"""What chance decides of a sample is independent: content, noise level and drops tell nothing of each other.

Seeds are fixed, so these tests pass or fail alike everywhere; bounds are of 4.5 standard deviations.
"""

import dataclasses
import json
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "evaluation"))

from tiny_base import PHOTO, SIDE, settings, tokenizer  # noqa: E402
from tiny_world import make_atlas  # noqa: E402

from mmdiff_core.chance import stream  # noqa: E402
from mmdiff_core.data.annotated import AnnotatedScenes  # noqa: E402
from mmdiff_core.training.batches import Collate, Indexed  # noqa: E402
from mmdiff_core.training.config import Drop, Loss, config_of  # noqa: E402
from mmdiff_core.world.looks import PLAIN  # noqa: E402
from mmdiff_core.world.scenes import WorldScenes  # noqa: E402

SAMPLES, TIMESTEPS = 600, 1000


@pytest.fixture(scope="module")
def collate(tmp_path_factory):
    """Makes the real Collate of a configuration with these drops and this share of masked losses."""
    folder = tmp_path_factory.mktemp("words")
    words = {"l": tokenizer(folder / "tokenizer")}
    config = config_of(settings(folder))

    def made(drop: Drop, masked: float) -> Collate:
        return Collate(words, dataclasses.replace(config, drop=drop, loss=Loss(masked=masked)), TIMESTEPS)

    return made


@pytest.fixture(scope="module")
def annotated(tmp_path_factory) -> AnnotatedScenes:
    """One record: a diamond, red on its left and blue on its right, before green."""
    folder = tmp_path_factory.mktemp("annotated")
    y, x = np.mgrid[-48:48, -48:48] + 0.5
    inside = (abs(x) + abs(y) < 40)[..., None]
    pixels = np.where(inside, np.where((x < 0)[..., None], (255, 0, 0), (0, 0, 255)), (0, 255, 0)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "one.png")
    np.save(folder / "one.npy", inside[..., 0].astype(np.int32))
    (folder / "one.json").write_text(
        json.dumps({"caption": "a box", "segments": [{"id": 1, "word": "a box", "start": 0, "end": 5}]})
    )
    return AnnotatedScenes(folder, SIDE, PHOTO, seed=0)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> WorldScenes:
    atlas = make_atlas(tmp_path_factory.mktemp("world") / "atlas.npz")
    return WorldScenes(atlas, SIDE, PHOTO, 0, "test", pairs=0.5, looks=0.5)


def of_annotated(dataset: AnnotatedScenes, item: dict) -> dict[str, float]:
    """How the diamond's photo was varied."""
    red, green, blue = item["references"][0].numpy()
    y, x = np.mgrid[: len(red), : len(red)]
    vivid = abs(red - blue) > 0.4
    across = np.average(x, weights=vivid * red) - np.average(x, weights=vivid * blue)
    down = np.average(y, weights=vivid * red) - np.average(y, weights=vivid * blue)
    return {
        "flipped": float(across > 0),
        "angle": float(np.arctan(down / across)),
        "uncut": float(((green > 0.7) & (red + blue < 0.4)).mean() > 0.05),
    }


def of_world(dataset: WorldScenes, item: dict) -> dict[str, float]:
    plan = dataset.plan(item["index"])
    first = plan.subjects[0]
    return {
        "pair": float(len(plan.subjects) == 2),
        "look": float(plan.look != PLAIN),
        "place": first.x,
        "hue": first.hue,
        "flip": float(first.flip),
    }


def drawn(dataset, features, collate) -> dict[str, np.ndarray]:
    """Everything that chance decided of many samples, as columns."""
    items = [Indexed(dataset)[index] for index in range(SAMPLES)]
    kept = collate(Drop(0, 0, 0), 0.5)(items)
    dropped = collate(Drop(0.25, 0.25, 0.0), 0.0)(items)
    columns = {
        "time": kept.time.numpy(),
        "noise": kept.randn((1,), "noise")[:, 0].numpy(),
        "masked": kept.masked.numpy(),
        "no text": (~dropped.slots.fused & dropped.slots.valid).any(1).numpy(),
        "no subjects": (~dropped.slots.valid[:, 0]).numpy(),
    }
    found = [features(dataset, item) for item in items]
    return columns | {name: np.array([one[name] for one in found]) for name in found[0]}


@pytest.mark.parametrize("kind", ["annotated", "world"])
def test_nothing_decides_two_things(kind, request, collate):
    dataset = request.getfixturevalue(kind)
    columns = drawn(dataset, {"annotated": of_annotated, "world": of_world}[kind], collate)
    told = {}
    for first, second in combinations(columns, 2):
        if {first, second} == {"no text", "no subjects"}:  # a sample loses one of them at most
            continue
        told[f"{first}, {second}"] = float(np.corrcoef(columns[first], columns[second])[0, 1])
    assert all(np.isfinite(list(told.values()))), "each of them varies"
    assert {pair: value for pair, value in told.items() if abs(value) > 4.5 / SAMPLES**0.5} == {}


def test_every_kind_of_sample_meets_every_noise_level(world, collate):
    """Halves of the schedule hold as many pairs as singles, to what chance allows."""
    columns = drawn(world, of_world, collate)
    pairs = columns["pair"] > 0
    for half in (columns["time"] < TIMESTEPS // 2, columns["time"] >= TIMESTEPS // 2):
        assert abs(pairs[half].mean() - 0.5) < 4.5 * 0.5 / half.sum() ** 0.5


def test_one_of_several_is_left_out(world, collate):
    """In the share of pairs that is asked for, either one, at any noise level; its word stays; singles are whole."""
    items = [Indexed(world)[index] for index in range(SAMPLES)]
    whole, batch = collate(Drop(0, 0, 0), 0.0)(items), collate(Drop(0, 0, 0, one=0.5), 0.0)(items)
    left_out = whole.slots.valid & ~batch.slots.valid
    pairs = whole.slots.valid.all(1)
    assert torch.equal(batch.slots.ids["l"], whole.slots.ids["l"])
    assert torch.equal(batch.slots.fused, batch.slots.valid) and not batch.text[left_out].any()
    assert not left_out[~pairs].any() and left_out.sum(1).max() == 1
    some = left_out[pairs].any(1).double()
    chance = 4.5 * 0.5 / len(some) ** 0.5
    assert abs(some.mean() - 0.5) < chance and abs(left_out[pairs][:, 0].double().mean() - 0.25) < chance
    assert abs(np.corrcoef(some, batch.time[pairs])[0, 1]) < 2 * chance


def test_noise_levels_are_the_schedules_own(world, collate):
    """All of them are drawn, each as often, and none past the end, whatever the draw."""
    found = []
    for seed in range(40):
        made = collate(Drop(0, 0, 0), 0.0)
        made.config = dataclasses.replace(made.config, seed=seed)
        made.timesteps = 10
        found += made([Indexed(world)[index] for index in range(8)]).time.tolist()
    assert set(found) == set(range(10)) and all(isinstance(one, int) for one in found)


def test_streams_are_named():
    def draw(purpose: str, key: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(stream(purpose, *key).integers(2**62, size=2).tolist())

    asked = [(purpose, key) for purpose in ("time", "drop", "scene") for key in ((), (0,), (1,), (0, 1), (1, 0))]
    assert len({draw(*one) for one in asked}) == len(asked)
    assert [draw(*one) for one in asked] == [draw(*one) for one in asked]
