"""The cache of what frozen encoders say: same losses, known inputs found, everything else computed."""

import logging
import resource
import shutil
import subprocess
import sys

import pytest
import torch
from test_training import ALL, ROOT, difference, environment
from tiny_base import logged

PLAIN = {"fuse_prompt": False}
"""Nothing is fused into the text, so that it is kept too."""


def without_share(lines):
    return [{name: value for name, value in line.items() if name != "cached"} for line in lines]


@pytest.mark.parametrize(
    ("base", "model"), [("base", {}), ("sdxl", PLAIN), ("base", {"vision_layers": 1, "text_rank": 2})]
)
def test_losses_are_the_same_and_the_second_run_finds_everything(run, folder, tmp_path, base, model):
    sections = {"base": str(folder / base), "model": model, "train": {"steps": 3, "batch": 1}}
    cache = str(tmp_path / "cache")
    bare = run("bare", **sections)
    first, second = (run(name, cache=cache, **sections) for name in ("first", "second"))
    assert difference(bare, first) <= 1e-5
    assert without_share(first) == without_share(second)
    assert first[0]["cached"] < 1 and all(line["cached"] == 1 for line in second)
    kinds = {path.name for path in (tmp_path / "cache").iterdir()}
    assert kinds == {"pictures", "photos"} | ({"texts"} if model == PLAIN else set())


def test_a_batch_does_not_decide_what_is_kept(run, tmp_path):
    """Runs of one, of two and of a batch that knows a part already agree as different batches do."""
    cache = str(tmp_path / "cache")
    bare = run("bare", train={"steps": 3, "batch": 4})
    run("alone", cache=cache, train={"steps": 3, "batch": 1})
    mixed = run("mixed", cache=cache, train={"steps": 3, "batch": 4}, data={"workers": 2})
    assert 0 < mixed[0]["cached"] < 1
    assert difference(bare, mixed) <= 1e-5


def test_other_weights_are_other_entries(run, folder, tmp_path):
    """A cache of another VAE and another tower is gone around, not believed."""
    from safetensors.torch import load_file, save_file

    cache = str(tmp_path / "cache")
    run("first", cache=cache)
    for part in ("base", "vision"):
        shutil.copytree(folder / part, tmp_path / part)
    for path in (
        tmp_path / "base" / "vae" / "diffusion_pytorch_model.safetensors",
        tmp_path / "vision" / "model.safetensors",
    ):
        save_file({key: value * 1.5 for key, value in load_file(path).items()}, path, {"format": "pt"})
    other = {"base": str(tmp_path / "base"), "vision": str(tmp_path / "vision"), "train": {"steps": 1, "batch": 2}}
    bare = run("bare", **other)
    cached = run("cached", cache=cache, **other)
    assert cached[0]["cached"] == 0 and difference(bare, cached) <= 1e-5


def test_a_file_that_was_cut_off_is_made_anew(run, tmp_path):
    cache = str(tmp_path / "cache")
    first = run("first", cache=cache)
    files = sorted((tmp_path / "cache").rglob("*.safetensors"))
    whole = [path.read_bytes() for path in files]
    for path, content in zip(files, whole, strict=True):
        path.write_bytes(content[: len(content) // 2])
    again = run("again", cache=cache)
    assert without_share(first) == without_share(again) and again[0]["cached"] == 0
    assert [path.read_bytes() for path in files] == whole


def test_a_full_disk_ends_the_writing_and_not_the_run(write, tmp_path, caplog):
    from mmdiff_core.training.cache import PHOTOS, Cache

    cache = Cache(tmp_path / "cache", {PHOTOS: "a" * 64})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with caplog.at_level(logging.WARNING):
            for value in range(3):
                photo = torch.full((1, 3, 4, 4), float(value))
                found = cache.complete(PHOTOS, cache.look(PHOTOS, photo), lambda place: {"cls": torch.ones(64)})
                assert found["cls"].shape == (1, 64)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (said,) = caplog.messages
    assert "could not be written" in said and "The run goes on" in said
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()], "nothing half-written"


def test_two_processes_share_a_cache(run, write, tmp_path):
    sections = {"model": ALL, "train": {"steps": 3, "batch": 2, "lr": 3e-3}, "cache": str(tmp_path / "cache")}
    path = write("two", **sections)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    command += ["-m", "mmdiff_core", "train", "--config", str(path)]
    done = subprocess.run(command, env=environment(), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one = run("one", **{**sections, "train": {**sections["train"], "batch": 4}})
    assert all(line["cached"] == 1 for line in one)
    assert difference(one, logged(tmp_path / "two")) <= 1e-5
