"""The marks travel with the rows, whatever rebuilds a batch, and say where in the picture each row lies."""

from types import SimpleNamespace

import pytest
import torch
from comfy_extras.nodes_perpneg import PerpNeg
from graph import applied, bound, error, mmdiff, sample, subject
from neighbours import dropping, rearranged, tiled
from predictions import noises, predict
from tiny_sdxl import sdxl

EQUAL = 1e-5
"""Rows computed in another batch: the order of float32 sums."""
DIFFERENT = 1e-3


@pytest.fixture(scope="module")
def scene(pack):
    """Two bindings of one subject each on one model; the clean spec, so that negatives are plain."""
    clean = mmdiff(pack).with_spec(fuse_negative=False)
    with torch.inference_mode():
        ada, bo = subject(pack, "Ada", 0), subject(pack, "Bo", 1)
        a = bound(pack, "Ada on the beach", [ada], mmdiff=clean)
        b = bound(pack, "a portrait of Bo", [bo], mmdiff=clean)
        model = applied(pack, b[2], applied(pack, a[2]))
        plain = applied(pack, a[2], weight=0.0)
    return SimpleNamespace(mmdiff=clean, ada=ada, a=a, model=model, plain=plain, prompts=(a[0] + b[0], a[1]))


ORDERS = {
    "reversed": lambda count: range(count - 1, -1, -1),
    "every other": lambda count: [*range(0, count, 2), *range(1, count, 2)],
    "each twice": lambda count: [row for row in range(count) for _ in range(2)],
    "all twice": lambda count: [*range(count), *range(count)],
}


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_rows_in_another_order(scene, order, batch):
    noise = noises(batch)
    for found, wanted in zip(
        predict(rearranged(scene.model, order), *scene.prompts, noise=noise),
        predict(scene.model, *scene.prompts, noise=noise),
        strict=True,
    ):
        assert error(found, wanted) < EQUAL


@pytest.mark.parametrize("batch", [1, 2])
def test_tiles_stacked_in_one_batch_are_as_alone(scene, batch):
    """Two prompts and a negative, three tiles: rows that lie apart mean the same, neighbours do not."""
    noise = noises(batch, (16, 32))
    alone, together = (predict(tiled(scene.model, 16, count), *scene.prompts, noise=noise) for count in (1, 3))
    for found, wanted in zip(together, alone, strict=True):
        assert error(found, wanted) < EQUAL
    assert error(alone[0], predict(tiled(scene.plain, 16, 1), *scene.prompts, noise=noise)[0]) > DIFFERENT


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_region_stays_where_it_was_drawn_in_tiles(pack, scene, at_once):
    """Ada in the left half of the whole: all of the first tile, half of the second, none of the third."""
    left = torch.zeros(1, 16, 32)
    left[..., :16] = 1

    def prompts(region):
        placed = (
            pack["MMDiffPlaceSubject"]
            .execute(subject=scene.ada, start_percent=0.0, end_percent=1.0, region=region)
            .args[0]
        )
        return bound(pack, "Ada on the beach", [placed], mmdiff=scene.mmdiff, width=256, height=128)

    whole = noises(size=(16, 32))
    positive, negative, binding = prompts(left)
    found = predict(tiled(applied(pack, binding), 16, at_once), positive, negative, noise=whole)[0]
    total, times = torch.zeros_like(found), torch.zeros_like(found)
    for start in (0, 8, 16):
        part = slice(start, start + 16)
        positive, negative, binding = prompts(left[..., part])
        total[..., part] += predict(applied(pack, binding), positive, negative, noise=whole[..., part])[0]
        times[..., part] += 1
    assert error(found, total / times) < EQUAL


def warnings_of_ours(caplog):
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("MM-Diff")]


def test_dropped_marks_are_said(scene, caplog):
    sample(dropping(scene.model, "c_crossattn", "y"), *scene.prompts)
    (warning,) = warnings_of_ours(caplog)
    assert "dropped the marks" in warning


@pytest.mark.neighbour("Perp-Neg, the older node", "Comfy-Org/ComfyUI", "its own prompt gets none", "after")
def test_a_nodes_own_prompt_gets_no_subject_and_no_warning(pack, scene, caplog):
    """The older Perp-Neg encodes its empty prompt itself, outside of the run's conditionings."""
    model = applied(pack, scene.a[2])
    empty = sdxl().clip.encode_from_tokens_scheduled(sdxl().clip.tokenize(""))
    found = sample(PerpNeg.execute(model, empty, 1.0)[0], *scene.a[:2])
    assert found.isfinite().all() and not warnings_of_ours(caplog)


def test_a_part_that_is_not_told_is_said(pack, scene, caplog):
    """A node that cuts the latent and nothing else; without a region there is nothing to say."""

    def cut(model):
        def wrapper(apply_model, given):
            half = apply_model(given["input"][..., :16], given["timestep"], **given["c"])
            return torch.cat([half, half], dim=-1)

        model = model.clone()
        model.set_model_unet_function_wrapper(wrapper)
        return model

    for region, warned in ((None, 0), (torch.ones(1, 16, 32), 1)):
        placed = (
            pack["MMDiffPlaceSubject"]
            .execute(subject=scene.ada, start_percent=0.0, end_percent=1.0, region=region)
            .args[0]
        )
        positive, negative, binding = bound(pack, "Ada on the beach", [placed], mmdiff=scene.mmdiff)
        sample(cut(applied(pack, binding)), positive, negative, size=(16, 32))
        assert ["does not say where" in warning for warning in warnings_of_ours(caplog)] == [True] * warned
