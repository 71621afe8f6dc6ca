"""Training end to end on a tiny base: losses, resuming, several processes, checkpoints, and what stops a run."""

import dataclasses
import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from tiny_base import PHOTO, SIDE, Squares, logged, settings

from mmdiff_core import MMDiff, MMDiffError, encode_subject, load_checkpoint, save_checkpoint
from mmdiff_core.drawing.base import Base
from mmdiff_core.drawing.vision import VisionTowers, tuned_tower
from mmdiff_core.files import read_safetensors, write_safetensors
from mmdiff_core.training.batches import Collate, Indexed, Steps
from mmdiff_core.training.config import read_config
from mmdiff_core.training.losses import losses
from mmdiff_core.training.state import load_weights
from mmdiff_core.training.trainee import Trainee
from tests.arithmetic import EQUAL, error

ROOT = Path(__file__).parents[3]
ALL = {"text_rank": 2, "vision_layers": 1, "null_token": True}
"""Everything that can train."""


def environment(**more):
    path = os.pathsep.join((str(ROOT), str(Path(__file__).parent)))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", **more}


def trainee_of(path):
    """A trainee as a configuration starts it, and a function that makes its batch of some indices."""
    config = read_config(path)
    torch.manual_seed(config.seed)
    trainee = Trainee(Base(config.base, config.vision, weights=True, dtype=torch.float32), config)
    data, collate = Indexed(Squares(SIDE, PHOTO, 0)), Collate(trainee.base.tokenizers, config, 1000)
    return SimpleNamespace(
        trainee=trainee, collate=collate, batch=lambda indices: collate([data[index] for index in indices])
    )


def saved(out, part="weights"):
    state = load_file(out / "state.safetensors")
    return {key[len(part) + 1 :]: value for key, value in state.items() if key.startswith(part + ".")}


SHARE = 0.01
"""What a token has of a pixel's attention: about one of the 77 of a text."""


def difference(a, b):
    """The largest difference of any value of any step, relative to the largest of its kind, and of the constraints,
    being small differences of means of shares, to no less than a share. What a cache knew is none of it."""
    assert [one["step"] for one in a] == [one["step"] for one in b]
    assert a[0].keys() - {"cached"} == b[0].keys() - {"cached"}
    apart = []
    for key in a[0].keys() - {"cached"}:
        found, wanted = (torch.tensor([float(one[key]) for one in run]) for run in (a, b))
        least = SHARE if key in ("text", "image") else torch.finfo(torch.float32).tiny
        apart.append((found - wanted).abs().max() / wanted.abs().max().clamp_min(least))
    return float(torch.stack(apart).max())  # which is none, and passes no test, where a value is none


@pytest.mark.parametrize("base", ["base", "sdxl"])
def test_loss_falls_on_a_small_set(run, write, folder, tmp_path, base):
    """Seen on the same scenes, noise and timesteps before and after; both constraints fall too."""
    sections = {
        "base": str(folder / base),
        "model": ALL,
        "loss": {"text": 1.0, "image": 1.0, "masked": 0.0},
        "train": {"steps": 25, "batch": 4, "lr": 1e-2, "vision_lr": 1e-3, "warmup": 5},
        "drop": {"text": 0, "image": 0, "both": 0},
    }
    run(**sections)
    made = trainee_of(write(**sections))
    batch = made.batch(range(16))
    values = []
    with torch.no_grad():
        values.append(made.trainee(losses, batch))
        load_weights(made.trainee, saved(tmp_path / "run"))
        values.append(made.trainee(losses, batch))
    before, after = ({name: float(value.mean()) for name, value in one.items()} for one in values)
    assert after["denoise"] < 0.9 * before["denoise"], (before, after)
    assert after["text"] < before["text"] - 0.1 and after["image"] < before["image"] - 0.2, (before, after)
    assert all(value.any() for value in saved(tmp_path / "run").values()), "everything that trains has moved"


def test_killed_and_resumed_losses_are_the_same(run, write, tmp_path):
    """kill -9 somewhere behind the second save; the rest comes out to the bit as if nothing had happened.

    What kills is the worker that is asked for a scene of step 8: it is, once step 4 is saved, and step 8 waits for it.
    """
    sections = {"model": ALL, "train": {"steps": 9, "batch": 2, "ema": 0.9}, "save": {"every": 2, "keep": 2}}
    whole = run("whole", **sections)
    path = write("killed", **sections, data={"workers": 1})
    command = [sys.executable, "-m", "mmdiff_core", "train", "--config", str(path)]
    with open(tmp_path / "shown", "w") as shown:
        done = subprocess.run(command, env=environment(KILLED_AT="14"), cwd=ROOT, stderr=shown)
    assert done.returncode == -signal.SIGKILL, (tmp_path / "shown").read_text()
    assert "denoise=" in (tmp_path / "shown").read_text(), "the progress bar shows the parts"
    assert len(logged(tmp_path / "killed")) >= 4
    (tmp_path / "killed" / ".half.part").touch()
    assert not (tmp_path / "killed" / "step-00000009.safetensors").exists()
    again = run("killed", resume=True, **sections)
    assert difference(whole, again) == 0
    a, b = (load_file(tmp_path / name / "state.safetensors") for name in ("whole", "killed"))
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    assert sorted(one.name for one in (tmp_path / "killed").glob("*step*")) == [
        "step-00000008.safetensors",
        "step-00000009.safetensors",
    ]
    assert not list((tmp_path / "killed").glob(".*")), "what the kill left is gone"


def test_two_processes_are_one_with_twice_the_batch(run, write, tmp_path):
    """Also where the constraints weigh enough to be seen in the next step's losses."""
    loss = {"text": 1.0, "image": 1.0}
    sections = {"model": ALL, "loss": loss, "train": {"steps": 4, "batch": 2, "lr": 3e-3}}
    one = run("one", **{**sections, "train": {**sections["train"], "batch": 4}})
    path = write("two", **sections)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    command += ["-m", "mmdiff_core", "train", "--config", str(path)]
    done = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert difference(one, logged(tmp_path / "two")) <= 1e-5


def test_accumulated_and_checkpointed_steps_are_the_same(run):
    one = run("one", model=ALL, train={"steps": 3, "batch": 4})
    two = run("two", model=ALL, train={"steps": 3, "batch": 2, "accumulation": 2, "gradient_checkpointing": True})
    assert difference(one, two) <= 1e-5


def test_every_index_is_in_exactly_one_batch():
    steps = [list(Steps(range(2, 4), 3, 2, process, 2)) for process in range(2)]
    assert sorted(index for batches in steps for batch in batches for index in batch) == list(range(24, 48))
    assert all(len(batches) == 4 for batches in steps)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_right_prediction_has_no_loss(write, prediction):
    made = trainee_of(write(loss={"text": 0, "image": 0, "masked": 0}))
    base, batch = made.trainee.base, made.batch(range(4))
    base.scheduler.register_to_config(prediction_type=prediction)
    latents = base.encode(batch.image, batch.randn(base.latent_shape(SIDE), "latents"))
    noise = batch.randn(base.latent_shape(SIDE), "noise")
    signal_share = base.scheduler.alphas_cumprod[batch.time].sqrt().view(-1, 1, 1, 1)
    velocity = signal_share * noise - (1 - signal_share**2).sqrt() * latents
    answers = {"epsilon": noise, "v_prediction": velocity}
    for name, answer in answers.items():
        made.trainee.predict = lambda *_, answer=answer: answer
        loss = made.trainee(losses, batch)["denoise"]
        assert (loss.max() < 1e-8) == (name == prediction)


def test_masked_denoising_counts_inside_the_masks_only(write):
    made = trainee_of(write(loss={"text": 0, "image": 0, "masked": 1.0}, drop={"text": 0, "image": 0, "both": 0}))
    base, batch = made.trainee.base, made.batch(range(4))
    noise = batch.randn(base.latent_shape(SIDE), "noise")
    inside = torch.nn.functional.max_pool2d(batch.masks.amax(dim=1, keepdim=True), 2)
    for where, counts in ((1 - inside, False), (inside, True)):
        made.trainee.predict = lambda *_, where=where: noise + where
        assert (made.trainee(losses, batch)["denoise"] > 1e-3).all() == counts


def test_latents_of_the_data_are_not_encoded_again(write):
    made = trainee_of(write())
    batch, base = made.batch([0, 1]), made.trainee.base
    latents = base.encode(batch.image, batch.randn(base.latent_shape(SIDE), "latents"))
    brought = dataclasses.replace(batch, image=torch.zeros_like(batch.image), latents=latents)
    with torch.no_grad():
        wanted, found = made.trainee(losses, batch), made.trainee(losses, brought)
    assert all(torch.equal(wanted[part], found[part]) for part in wanted)


def test_dropped_conditions(write):
    """Text: no words, no fusing, but subjects. Image: words alone. Both: the unconditional row."""
    found = {}
    for name in ("text", "image", "both"):
        shares = {"text": 0, "image": 0, "both": 0, name: 1.0}
        made = trainee_of(write(name, drop=shares))
        batch = made.batch([1, 3])
        empty = batch.slots.ids["l"][:, 1] == made.trainee.base.tokenizers["l"].eos_token_id
        found[name] = (bool(empty.all()), bool(batch.slots.fused.any()), bool(batch.slots.valid.any()))
        conditions = made.trainee.conditions(batch.slots, SIDE)
        plain = made.trainee.base.text["l"](batch.slots.ids["l"]).last_hidden_state
        torch.testing.assert_close(conditions.text, plain, msg="nothing is fused")
    assert found == {"text": (True, False, True), "image": (False, False, False), "both": (True, False, False)}


def test_without_fusion_the_prompt_stays_plain(write):
    """The word is still constrained, the subject still seen, and the checkpoint says so."""
    made = trainee_of(write(drop={"text": 0, "image": 0, "both": 0}, model={"fuse_prompt": False}))
    batch = made.batch([1, 3])
    plain = made.trainee.base.text["l"](batch.slots.ids["l"]).last_hidden_state
    torch.testing.assert_close(made.trainee.conditions(batch.slots, SIDE).text, plain)
    assert batch.slots.valid.all() and batch.text.all()
    assert made.trainee.mmdiff.spec.fuse_prompt is False


def test_a_word_beyond_the_encoder_is_no_subject(write):
    made = trainee_of(write(drop={"text": 0, "image": 0, "both": 0}))
    item = Squares(SIDE, PHOTO, 0)[1]
    late = "so " * 40
    far = {**item, "caption": late + item["caption"], "entities": [(a + 120, b + 120) for a, b in item["entities"]]}
    batch = Collate(made.trainee.base.tokenizers, made.trainee.config, 1000)(
        [{**far, "index": 0}, {**item, "index": 1}]
    )
    assert batch.slots.valid.tolist() == [[False, False], [True, True]]


def test_a_checkpoint_encodes_subjects_as_it_was_trained(run, write, folder, tmp_path):
    """The core's own path from photo to tokens, with the tuned vision tower, gives what the trainer gave."""
    sections = {"model": ALL, "train": {"steps": 3, "batch": 2, "lr": 1e-2, "vision_lr": 1e-2}}
    run(**sections, drop={"text": 0, "image": 0, "both": 0})
    made = trainee_of(write(**sections, drop={"text": 0, "image": 0, "both": 0}))
    load_weights(made.trainee, saved(tmp_path / "run"))
    mmdiff = load_checkpoint(tmp_path / "run" / "step-00000003.safetensors")
    assert mmdiff.base == "sd15" and mmdiff.vision and "null" not in mmdiff.tensors()
    original = Base(str(folder / "base"), str(folder / "vision"), weights=True, dtype=torch.float32).vision
    towers = VisionTowers(original, tuned_tower(original, mmdiff))
    batch = made.batch([1])
    with torch.no_grad():
        conditions = made.trainee.conditions(batch.slots, SIDE)
        photo = batch.slots.references[0, :1]
        subject = encode_subject(mmdiff, towers, photo, None, "box", 1.0)
    assert error(subject.tokens, conditions.subjects.tokens[0, :4]) <= EQUAL


def test_averaged_weights_are_the_checkpoint(run, tmp_path):
    run(train={"steps": 4, "ema": 0.5, "lr": 1e-2})
    averaged, last = saved(tmp_path / "run", "averaged"), saved(tmp_path / "run")
    found = load_checkpoint(tmp_path / "run" / "step-00000004.safetensors").tensors()
    assert all(torch.equal(value, averaged[f"mmdiff.{key}"]) for key, value in found.items())
    assert not all(torch.equal(averaged[key], last[key]) for key in last)


def test_half_precision_and_a_sample_sheet(run, tmp_path):
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)  # one process has one precision
    try:
        found = run(
            model=ALL,
            train={"steps": 2, "precision": "bf16", "gradient_checkpointing": True, "ema": 0.9},
            samples={"every": 2, "count": 3, "steps": 2},
        )
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    assert len(found) == 2
    assert all(value.dtype == torch.float32 for value in saved(tmp_path / "run").values()), "what trains is not halved"
    sheet = Image.open(tmp_path / "run" / "samples" / "step-00000002.png")
    assert sheet.width > 4 * SIDE and sheet.height > 3 * SIDE, "two references at most, the scene and the drawing"
    assert list((tmp_path / "run" / "logs" / "run").glob("events*")), "TensorBoard shows the run by its name"


def test_a_loss_that_is_not_finite_stops_with_its_records(run, tmp_path):
    sections = {"train": {"steps": 4, "batch": 2}, "save": {"every": 1}}
    with pytest.raises(MMDiffError, match=r"Step 1 is not finite.* square 2, square 3\."):
        run(**sections, data={"options": {"broken": 2}})
    assert all(value.isfinite().all() for value in saved(tmp_path / "run").values())
    assert [one.name for one in (tmp_path / "run").glob("step-*")] == ["step-00000001.safetensors"]


def test_a_full_disk_leaves_the_last_save_whole(run, tmp_path):
    sections = {"model": ALL, "save": {"every": 2}}
    run(**sections, train={"steps": 2})
    state = tmp_path / "run" / "state.safetensors"
    before = state.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(MMDiffError, match=r"state\.safetensors could not be written"):
            run(**sections, train={"steps": 4}, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert state.read_bytes() == before and not list((tmp_path / "run").glob(".*"))
    assert len(run(**sections, train={"steps": 4}, resume=True)) == 4


def test_a_checkpoint_without_a_refiner(run, tmp_path):
    """Patches change nothing then, and what leads from identity to tokens may be wider instead; everything else trains
    and loads as ever."""
    run(model={"depth": 0, "hidden": 40}, train={"steps": 2})
    head = load_checkpoint(tmp_path / "run" / "step-00000002.safetensors").heads.subject
    identity, patches = torch.randn(1, 16), torch.randn(2, 1, 5, 24)
    assert torch.equal(head(identity, patches[0]), head(identity, patches[1]))
    assert head.proj[0].out_features == 40


def test_a_run_starts_from_a_checkpoint(run, tmp_path):
    """What the other run trained, its vision tower too, and whatever shapes it had."""
    run("first", model=ALL | {"rank": 3, "tokens": 2}, train={"steps": 2, "batch": 2, "lr": 3e-2, "vision_lr": 1e-2})
    start = tmp_path / "first" / "step-00000002.safetensors"
    run("second", model={"start": str(start)}, train={"steps": 1, "batch": 2, "lr": 1e-12})
    before, after = (load_checkpoint(path).tensors() for path in (start, next((tmp_path / "second").glob("step-*"))))
    assert before.keys() == after.keys() and any(key.startswith("vision.") for key in before)
    assert all(torch.allclose(before[key], after[key], atol=1e-6) for key in before)


def test_a_run_goes_on_only_as_it_began(run):
    run(train={"steps": 1})
    with pytest.raises(MMDiffError, match="holds a run already.*--resume"):
        run(train={"steps": 2})
    with pytest.raises(MMDiffError, match=r"train\.batch is 3.*made with 2"):
        run(train={"steps": 2, "batch": 3}, resume=True)
    assert len(run(train={"steps": 2}, save={"every": 1}, resume=True)) == 2


def test_a_run_from_before_a_key_goes_on_with_its_default(run, tmp_path):
    run(train={"steps": 1, "batch": 2, "lr": 1e-3})
    path = tmp_path / "run" / "state.safetensors"
    tensors, metadata = read_safetensors(path)
    entry = json.loads(metadata["mmdiff_training"])
    del entry["config"]["model"]["start"]
    write_safetensors(path, tensors, {"mmdiff_training": json.dumps(entry)})
    assert len(run(resume=True, train={"steps": 2, "batch": 2, "lr": 1e-3})) == 2


def test_where_a_package_is_missing(tmp_path):
    """One sentence, and what to install; nothing else of the core needs them."""
    (tmp_path / "diffusers").mkdir()
    (tmp_path / "diffusers" / "__init__.py").write_text("raise ModuleNotFoundError('no diffusers', name='diffusers')")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings(tmp_path)))
    command = [sys.executable, "-m", "mmdiff_core", "train", "--config", str(tmp_path / "config.yaml")]
    hidden = {**environment(), "PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))}
    done = subprocess.run(command, env=hidden, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "needs diffusers" in done.stderr and "pip install accelerate diffusers" in done.stderr


def test_batches_are_plain_data(write):
    """What goes to another device comes along whole."""
    moved = trainee_of(write()).batch([0, 1]).to(torch.device("meta"))
    for part in (moved, moved.slots):
        for value in vars(part).values():
            values = value.values() if isinstance(value, dict) else [value]
            assert all(not torch.is_tensor(one) or one.device.type == "meta" for one in values)


def test_what_the_configuration_says_of_fusion_is_what_is_saved(run, tmp_path):
    """Also where a run starts from a checkpoint that was trained otherwise."""
    run("first", train={"steps": 1})
    start = tmp_path / "first" / "step-00000001.safetensors"
    run("second", model={"start": str(start), "fuse_prompt": False}, train={"steps": 1})
    assert load_checkpoint(start).spec.fuse_prompt
    assert not load_checkpoint(tmp_path / "second" / "step-00000001.safetensors").spec.fuse_prompt


@pytest.mark.parametrize(
    ("gone", "new", "said"),
    [
        ("unet.3.", {}, "lacks 6 of the 70 weights for the base's 14 attention layers"),
        ("unet.2.to_k_lora.", {}, "such as 2.to_k_lora"),
        ("", {"unet.1.to_q_lora.up.weight": (40, 4)}, "1.to_q_lora is 40 x 16"),
        ("", {f"text.l.layers.7.fc1.{one}.weight": (4, 4) for one in ("down", "up")}, "has layers.7.fc1"),
    ],
)
def test_a_start_that_does_not_fit_is_named(run, tmp_path, gone, new, said):
    run("first", train={"steps": 1})
    start = tmp_path / "first" / "step-00000001.safetensors"
    tensors, metadata = read_safetensors(start)
    kept = {key: value for key, value in tensors.items() if not (gone and key.startswith(gone))}
    write_safetensors(start, kept | {key: torch.zeros(shape) for key, shape in new.items()}, metadata)
    with pytest.raises(MMDiffError, match=re.escape(said)) as caught:
        run("second", model={"start": str(start)}, train={"steps": 1})
    assert str(start) in str(caught.value) and "another base" in str(caught.value)


def test_no_scalar_is_lost(run, tmp_path):
    """What was logged last is on the disk when the run has ended."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    losses = run(train={"steps": 7, "batch": 1})
    board = EventAccumulator(str(tmp_path / "run" / "logs" / "run"))
    board.Reload()
    assert [round(one.value, 5) for one in board.Scalars("denoise")] == [round(one["denoise"], 5) for one in losses]


PLUS = {"identity": "latents", "image": "whole", "rank": 0, "tokens": 16, "negative": "grey", "fuse_prompt": False}
"""An IP-Adapter Plus, as its authors train one."""


def test_an_ip_adapter_plus_trains_and_is_drawn(run, write, tmp_path):
    """Rows without a subject get the tokens of an empty photo; there is no LoRA, and matrices begin as the base's."""
    made = trainee_of(write(model=PLUS, loss={"text": 0, "image": 0}))
    trainee, batch = made.trainee, made.batch(range(4))
    cross = trainee.base.unet.get_submodule(trainee.base.cross_layers[0])
    assert torch.equal(trainee.mmdiff.unet["1"]["to_k_image"].weight, cross.to_k.weight)
    slots = batch.slots
    nobody = dataclasses.replace(slots, valid=torch.zeros_like(slots.valid))
    other = dataclasses.replace(nobody, references=1 - slots.references)
    a, b = (trainee.conditions(one, SIDE).subjects for one in (nobody, other))
    assert torch.allclose(a.tokens, b.tokens, atol=1e-5) and a.valid.all(), "whatever the photos show"
    assert not torch.allclose(a.tokens, trainee.conditions(slots, SIDE).subjects.tokens, atol=1e-3)

    run(model=PLUS, loss={"text": 0, "image": 0}, train={"steps": 2})
    mmdiff = load_checkpoint(tmp_path / "run" / "step-00000002.safetensors")
    assert mmdiff.heads.subject.latents.shape[1] == 16 and mmdiff.spec.negative == "grey"
    assert (mmdiff.unet["1"]["to_k_image"].weight - cross.to_k.weight).abs().max() > 0, "it trains"


def test_training_goes_on_from_an_ip_adapter(run, write, tmp_path):
    """Head and matrices are the file's; entity head, fusion and LoRA are fresh, and both constraints act."""
    start = trainee_of(write(model=PLUS, loss={"text": 0, "image": 0})).trainee.mmdiff
    tensors = {
        key: value for key, value in start.tensors().items() if not key.startswith(("heads.entity", "heads.fuse"))
    }
    save_checkpoint(MMDiff(tensors, start.spec, ""), tmp_path / "plus.safetensors")
    sections = {"model": {"rank": 4, "start": str(tmp_path / "plus.safetensors")}, "loss": {"text": 1.0, "image": 1.0}}
    made = trainee_of(write(**sections))
    mmdiff = made.trainee.mmdiff
    kept = {key: value for key, value in mmdiff.tensors().items() if key in tensors}
    assert kept.keys() == tensors.keys() and all(torch.equal(kept[key], tensors[key]) for key in kept)
    assert mmdiff.spec.fuse_prompt and mmdiff.spec.negative == "nothing" and "l" in mmdiff.heads.fuse
    assert mmdiff.unet["1"]["to_q_lora"].up.weight.abs().max() == 0, "fresh"
    found = losses(made.trainee, made.batch(range(4)))
    for name in ("text", "image"):
        weights = [made.trainee.mmdiff.unet["1"]["to_k_image"].weight, mmdiff.unet["1"]["to_q_lora"].up.weight]
        gradients = torch.autograd.grad(found[name].sum(), weights, retain_graph=True, allow_unused=True)
        assert any(one is not None and one.abs().max() > 0 for one in gradients), name
    run(**sections, train={"steps": 2})
    assert load_checkpoint(tmp_path / "run" / "step-00000002.safetensors").heads.fuse
