"""Bad configurations: a sentence with the key, before anything is loaded."""

import dataclasses
import typing
from pathlib import Path

import pytest
import yaml
from tiny_base import settings

from mmdiff_core import MMDiffError
from mmdiff_core.training.config import Config, read_config


@pytest.fixture
def refused(folder, tmp_path):
    """The sentence that a configuration is refused with, by reading it or by starting to train."""
    from mmdiff_core.training.start import train

    def sentence(**sections):
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(settings(folder, **sections)))
        with pytest.raises(MMDiffError) as caught:
            train(read_config(path), resume=False)
        return str(caught.value)

    return sentence


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"sede": 1}, ["no key sede", "seed"]),
        ({"train": {"stpes": 3}}, ["no key train.stpes", "steps"]),
        ({"train": {"lr": "fast"}}, ["train.lr", "'fast'", "a number"]),
        ({"train": {"steps": True}}, ["train.steps", "True", "a whole number"]),
        ({"train": {"batch": 1.5}}, ["train.batch", "1.5", "a whole number"]),
        ({"train": {"batch": 0}}, ["train.batch", "1 or more"]),
        ({"train": {"lr": 0}}, ["train.lr", "above 0"]),
        ({"train": {"lr": float("nan")}}, ["train.lr", "above 0"]),
        ({"train": {"ema": 1.0}}, ["train.ema"]),
        ({"train": {"precision": "fp16"}}, ["train.precision", "bf16, fp32"]),
        ({"train": {"optimizer": "sgd"}}, ["train.optimizer", "adamw8bit"]),
        ({"loss": {"form": "l2"}}, ["loss.form", "balanced_l1, mse"]),
        ({"loss": {"masked": 2}}, ["loss.masked", "from 0 to 1"]),
        ({"loss": {"layers": [1]}}, ["loss.layers", "list of names"]),
        ({"loss": {"layers": ["mid_block"], "text": 0, "image": 0}}, ["loss.layers", "loss.text"]),
        ({"loss": {"layers": ["up_blocks.7"]}}, ["loss.layers", "up_blocks.7", "down_blocks.0"]),
        ({"drop": {"text": 0.5, "both": 0.6}}, ["drop.text", "add up to"]),
        ({"model": {"null_token": True}, "loss": {"image": 0}}, ["model.null_token", "loss.image"]),
        ({"model": {"vision_layers": 9}}, ["model.vision_layers", "9", "has 3"]),
        ({"model": {"head_dim": 5}}, ["model.head_dim", "16"]),
        ({"data": {"resolution": 33}}, ["data.resolution", "multiple of 4", "32"]),
        ({"data": {"kind": "clouds"}}, ["data.kind", "clouds", "annotated, shards, world"]),
        ({"data": {"options": {"colour": 1}}}, ["data.options.colour", "max_subjects"]),
        ({"data": {"options": {"max_subjects": 1}}}, ["loss.image", "two subjects", "model.null_token"]),
        ({"base": "nowhere"}, ["base", "nowhere", "unet"]),
        ({"vision": "nowhere"}, ["nowhere"]),
        ({"data": "squares"}, ["data", "section"]),
    ],
)
def test_the_key_is_named(refused, monkeypatch, sections, words):
    from mmdiff_core.drawing import base

    monkeypatch.setattr(base, "_loaded", lambda *_: pytest.fail("weights were loaded"))
    sentence = refused(**sections)
    assert all(word in sentence for word in words), sentence


def test_a_missing_key_is_named(folder, tmp_path):
    given = settings(folder)
    del given["train"]["steps"]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(given))
    with pytest.raises(MMDiffError, match=r"config\.yaml: The key train\.steps is missing"):
        read_config(path)


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "\x00"])
def test_no_yaml(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(MMDiffError, match=r"config\.yaml"):
        read_config(path)


def test_no_file(tmp_path):
    with pytest.raises(MMDiffError, match="No such file"):
        read_config(tmp_path / "missing.yaml")


def test_numbers_as_people_write_them(folder, tmp_path):
    path = tmp_path / "config.yaml"
    text = yaml.safe_dump(settings(folder)).replace("lr: 0.001", "lr: 1e-4")
    path.write_text(text)
    assert read_config(path).train.lr == 1e-4


def test_a_transformer_is_refused_by_name(folder, tmp_path):
    from mmdiff_core.drawing.base import Base

    (tmp_path / "flux" / "transformer").mkdir(parents=True)
    with pytest.raises(MMDiffError, match="flux is a model with a transformer"):
        Base(str(tmp_path / "flux"), str(folder / "vision"), weights=True, dtype=None)


def test_damaged_weights_are_named(folder, tmp_path):
    import shutil

    import torch

    from mmdiff_core.drawing.base import Base

    base = shutil.copytree(folder / "base", tmp_path / "base")
    weights = base / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(MMDiffError, match="unet"):
        Base(str(base), str(folder / "vision"), weights=True, dtype=torch.float32)


def test_shipped_configurations_are_good():
    from accelerate.commands.config.config_args import load_config_from_file

    folder = Path(__file__).parents[3] / "docs" / "configs"
    for name in ("sd15", "sdxl"):
        assert read_config(folder / f"{name}.yaml").model.null_token
    portraits = read_config(folder / "portraits.yaml")
    assert portraits.model.start and portraits.data.options["faces"] == "buffalo_l" and portraits.loss.image
    kinds = [load_config_from_file(str(folder / f"{name}.yaml")).distributed_type for name in ("ddp", "fsdp")]
    assert [kind.value for kind in kinds] == ["MULTI_GPU", "FSDP"]


def test_the_table_of_keys_is_whole():
    """docs/training.md names every key."""
    text = (Path(__file__).parents[3] / "docs" / "training.md").read_text()

    def keys(kind, prefix=""):
        for one in dataclasses.fields(kind):
            section = typing.get_type_hints(kind)[one.name]
            if dataclasses.is_dataclass(section):
                yield from keys(section, f"{one.name}.")
            else:
                yield prefix + one.name

    missing = [key for key in keys(Config) if f"`{key}`" not in text and f"`.{key.split('.')[-1]}`" not in text]
    assert not missing
