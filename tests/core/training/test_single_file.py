"""Bases as people have them: a single file, and a folder of configurations."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from single_file import make_single
from test_training import difference

from mmdiff_core import MMDiffError
from mmdiff_core.drawing.base import Base
from mmdiff_core.drawing.drawer import load

PIPELINES = {"base": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline"}


@pytest.fixture(params=PIPELINES)
def single(request, folder, tmp_path):
    """A file, the folder without weights that goes with it, and the folder that it was made of."""
    base, config = folder / request.param, tmp_path / "config"
    shutil.copytree(base, config, ignore=shutil.ignore_patterns("*.safetensors"))
    kinds = {
        path.name: ["transformers" if "text" in path.name or "token" in path.name else "diffusers", ""]
        for path in base.iterdir()
    }
    classes = {
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
        "scheduler": "DDPMScheduler",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "CLIPTextModelWithProjection",
        "tokenizer": "CLIPTokenizer",
        "tokenizer_2": "CLIPTokenizer",
    }
    index = {"_class_name": PIPELINES[request.param]}
    index |= {name: [library, classes[name]] for name, (library, _) in kinds.items()}
    (config / "model_index.json").write_text(json.dumps(index))
    return make_single(base, tmp_path / "model.safetensors"), config, base


def opened(base, folder, config=""):
    return Base(str(base), str(folder / "vision"), weights=True, dtype=torch.float32, config=str(config))


def test_a_single_file_is_the_folder_it_was_made_of(single, folder, run, tmp_path):
    """Every weight, and a run on it, which draws."""
    file, config, base = single
    found, wanted = (dict(one.named_parameters()) for one in (opened(file, folder, config), opened(base, folder)))
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    sections = {"train": {"steps": 1, "batch": 1}}
    losses = run("file", base=str(file), base_config=str(config), **sections)
    assert difference(losses, run("folder", base=str(base), **sections)) <= 1e-5
    drawn = [load(tmp_path / name)(["a box<|subj|>"], [torch.ones(1, 3, 28, 28)], [0]) for name in ("file", "folder")]
    assert torch.allclose(*drawn, atol=1e-3)


def test_what_is_missing_is_said(single, folder, tmp_path):
    file, config, base = single
    with pytest.raises(MMDiffError, match=r"model\.safetensors is a single file.*base_config.*model_index\.json"):
        opened(file, folder)
    with pytest.raises(MMDiffError, match="is no single file. Leave base_config out"):
        opened(base, folder, config)
    tensors = load_file(file)
    for gone in ("first_stage_model.", "model.diffusion_model.", "model.diffusion_model.middle_block.1."):
        save_file(
            {key: value for key, value in tensors.items() if not key.startswith(gone)}, tmp_path / "part.safetensors"
        )
        with pytest.raises(MMDiffError, match=r"part\.safetensors (can't be read|lacks weights)"):
            opened(tmp_path / "part.safetensors", folder, config)
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(MMDiffError, match=r"model\.safetensors can't be read"):
        opened(file, folder, config)
