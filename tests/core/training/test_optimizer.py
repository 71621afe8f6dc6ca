"""Optimizers, learning rates and noise schedules by name."""

import json
import math
import shutil

import pytest
import torch
from test_config import refused as refused  # a fixture
from test_training import ALL, difference, trainee_of

from mmdiff_core import MMDiffError
from mmdiff_core.drawing.drawer import load
from mmdiff_core.files import read_safetensors
from mmdiff_core.training.config import Train
from mmdiff_core.training.losses import losses
from mmdiff_core.training.optimizer import schedule


def shares(steps=100, **more):
    share = schedule(Train(steps=steps, **more))
    return [share(step) for step in range(steps)]


def test_the_rate_rises_and_then_follows_its_schedule():
    assert shares(4) == [1, 1, 1, 1]
    assert shares(5, warmup=3) == [1 / 3, 2 / 3, 1, 1, 1], "as runs before there were schedules"
    for name in ("linear", "cosine", "cosine_with_restarts", "polynomial"):
        found = shares(warmup=10, schedule=name)
        assert found[:10] == [(step + 1) / 10 for step in range(10)]
        assert found[9:] == sorted(found[9:], reverse=True) and found[-1] < 1e-2
    half = shares(schedule="cosine")[49]
    assert math.isclose(half, 0.5, abs_tol=1e-6)
    twice = shares(schedule="cosine_with_restarts", schedule_options={"num_cycles": 2})
    assert twice[48] < 0.01 < 0.9 < twice[50]
    assert math.isclose(shares(schedule="polynomial", schedule_options={"power": 2})[49], 0.25, abs_tol=1e-2)


def test_a_run_with_a_schedule_goes_on_as_it_began(run):
    """And not with another number of steps, which would bend the rest of the curve."""
    train = {"steps": 6, "batch": 1, "lr": 1e-2, "schedule": "cosine", "warmup": 2}
    whole = run("whole", train=train, save={"every": 3})
    with pytest.raises(MMDiffError, match=r"train\.steps is 7.*made with 6"):
        run("whole", train={**train, "steps": 7}, resume=True)
    constant = run("constant", train={**train, "schedule": "constant"})
    assert whole[:2] == constant[:2] and whole[-1] != constant[-1]


def test_an_optimizer_of_ones_own(run, tmp_path):
    """Its options reach it, its memory is estimated and saved, and it goes on to the bit."""
    options = {"optimizer": "torch.optim:RMSprop", "optimizer_options": {"momentum": 0.5, "alpha": 0.9}}
    sections = {"model": ALL, "train": {"steps": 4, "batch": 1, "lr": 1e-3, **options}}
    whole = run("whole", **sections)
    run("parts", **{**sections, "train": {**sections["train"], "steps": 2}})
    assert run("parts", resume=True, **sections) == whole
    _, metadata = read_safetensors(tmp_path / "parts" / "state.safetensors")
    groups = json.loads(metadata["mmdiff_training"])["groups"]
    assert [group["momentum"] for group in groups] == [0.5, 0.5], "heads and LoRAs, and the vision layers"


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ({"optimizer": "lion"}, ["train.optimizer", "'lion'", "adamw, adamw8bit", "package.module:Class"]),
        ({"optimizer": "torch.optim:Lion"}, ["train.optimizer", "no attribute 'Lion'"]),
        ({"optimizer_options": {"speed": 2}}, ["train.optimizer_options.speed", "adamw", "betas"]),
        ({"optimizer_options": {"lr": 2}}, ["train.optimizer_options.lr", "betas"]),
        ({"schedule": "round"}, ["train.schedule", "'round'", "cosine_with_restarts"]),
        ({"schedule_options": {"power": 2}}, ["train.schedule_options.power", "constant", "none"]),
        ({"schedule": "polynomial", "schedule_options": {"power": "two"}}, ["schedule_options.power", "above 0"]),
        ({"zero_terminal_snr": True}, ["train.zero_terminal_snr", "epsilon", "predicts v"]),
        ({"compile": "gcc"}, ["train.compile", "'gcc'", "inductor"]),
    ],
)
def test_a_bad_name_is_refused(refused, train, words):
    sentence = refused(train=train)
    assert all(word in sentence for word in words), sentence


def test_min_snr_weighs_by_the_paper(write):
    """Denoising at a timestep weighs min(SNR, gamma) over SNR, or over SNR + 1 where v is predicted."""
    for prediction in ("epsilon", "v_prediction"):
        plain, weighed = (
            trainee_of(write(loss={"text": 0, "image": 0, "snr_gamma": gamma}, model={"rank": 2})) for gamma in (0, 5.0)
        )
        for made in (plain, weighed):
            made.trainee.base.scheduler.register_to_config(prediction_type=prediction)
        batch = plain.batch(range(8))
        alpha = plain.trainee.base.scheduler.alphas_cumprod[batch.time]
        ratio = alpha / (1 - alpha)
        wanted = ratio.clamp(max=5) / (ratio + (prediction == "v_prediction"))
        found = weighed.trainee(losses, batch)["denoise"] / plain.trainee(losses, batch)["denoise"]
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-6)


def test_the_last_timestep_is_noise_alone(folder, tmp_path, run):
    """Where v is predicted; the run's folder draws by that schedule too."""
    base = shutil.copytree(folder / "base", tmp_path / "base")
    path = base / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": "v_prediction"}))
    for zero in (True, False):
        run(f"zero {zero}", base=str(base), train={"steps": 1, "zero_terminal_snr": zero})
        drawer = load(tmp_path / f"zero {zero}")
        left = drawer.adapter.base.scheduler.alphas_cumprod[-1]
        assert (left < 1e-6) == zero
        assert drawer(["a box<|subj|>"], [torch.rand(1, 3, 28, 28)], [0]).isfinite().all()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_compiled_unet_computes_the_same(run, checkpointing):
    sections = {"steps": 3, "batch": 2, "gradient_checkpointing": checkpointing}
    plain = run("plain", train=sections)
    assert difference(plain, run("compiled", train={**sections, "compile": "aot_eager"})) <= 1e-5
