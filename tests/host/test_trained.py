"""A checkpoint fresh from training, in the real nodes: they predict what the trainer's own UNet predicts."""

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace

import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import pytest
import torch
import yaml
from comfy.cli_args import args
from graph import applied, bound, error, mmdiff
from predictions import noises, predict
from safetensors.torch import load_file
from stack import clip_vision, unet_patcher

CORE_TESTS = Path(__file__).parents[1] / "core" / "training"
BOUND = 1e-5
PROMPT = "a red box<|subj:Red|>, a blue box<|subj:Blue|>"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The trainer's own model, its base as host objects, and the checkpoint, after a few steps with everything on."""
    sys.path.insert(0, str(CORE_TESTS))
    from tiny_base import PHOTO, SIDE, Squares, make_base, make_vision, settings

    from mmdiff_core.drawing.base import Base
    from mmdiff_core.training.batches import Collate
    from mmdiff_core.training.config import read_config
    from mmdiff_core.training.start import train
    from mmdiff_core.training.state import load_weights
    from mmdiff_core.training.trainee import Trainee

    folder = tmp_path_factory.mktemp("trained")
    make_base(folder / "base", channels=64, tokens=Path(comfy.sd1_clip.__file__).parent / "sd1_tokenizer")
    make_vision(folder / "vision")
    sections = {
        "model": {"text_rank": 2, "vision_layers": 1, "null_token": True},
        "train": {"steps": 4, "batch": 2, "lr": 3e-2, "vision_lr": 1e-2},
        "drop": {"text": 0, "image": 0, "both": 0},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings(folder, **sections)))
    config = read_config(folder / "config.yaml")
    with torch.inference_mode(False), torch.enable_grad():
        train(config, resume=False)
        trainee = Trainee(Base(config.base, config.vision, weights=True, dtype=torch.float32), config)
    state = load_file(folder / "run" / "state.safetensors")
    load_weights(trainee, {key[8:]: value for key, value in state.items() if key.startswith("weights.")})
    item = {**Squares(SIDE, PHOTO, 0)[1], "index": 0}
    red, blue = Squares(SIDE, PHOTO, 0)[0]["references"][0], Squares(SIDE, PHOTO, 0)[1]["references"][0]
    item["caption"], item["references"] = "a red box, a blue box", torch.stack((red, blue))
    item["entities"] = [(2, 9), (13, 21)]
    batch = Collate(trainee.base.tokenizers, config, 1000)([item])
    return SimpleNamespace(
        trainee=trainee,
        batch=batch,
        checkpoint=folder / "run" / "step-00000004.safetensors",
        host=SimpleNamespace(
            model=host_unet(trainee.base.unet), clip=host_clip(trainee.base), vision=host_vision(trainee.base)
        ),
    )


def host_unet(unet):
    """The tiny base's UNet as the host's, an SD1.5 by its layout."""
    channels = unet.config.block_out_channels
    depth = [1] * len(channels)
    config = {
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": channels[0],
        "num_res_blocks": [1] * len(channels),
        "channel_mult": [one // channels[0] for one in channels],
        "transformer_depth": depth,
        "transformer_depth_middle": 1,
        "transformer_depth_output": [one for one in depth for _ in range(2)],
        "context_dim": unet.config.cross_attention_dim,
        "num_heads": unet.config.attention_head_dim,
        "adm_in_channels": None,
        "use_spatial_transformer": True,
        "use_linear_in_transformer": False,
        "use_temporal_attention": False,
        "legacy": False,
    }
    return unet_patcher(comfy.supported_models.SD15(config), unet.state_dict())


def host_clip(base):
    """The tiny base's text encoder behind the host's tokenizer."""
    encoder = base.text["l"]
    config = {**encoder.config.to_dict(), "eos_token_id": 49407}
    target = SimpleNamespace(params={}, clip=comfy.sd1_clip.SD1ClipModel, tokenizer=comfy.sd1_clip.SD1Tokenizer)
    clip = comfy.sd.CLIP(target, model_options={"clip_l_model_config": config, "dtype": torch.float32})
    state = {f"text_model.{key.removeprefix('text_model.')}": value for key, value in encoder.state_dict().items()}
    missing, unexpected = clip.cond_stage_model.clip_l.load_sd(state)
    assert not unexpected and all("text_projection" in key for key in missing), (missing, unexpected)
    return clip


def host_vision(base):
    """The tiny vision tower as the host loads it with --fp32-text-enc; else it rounds weights to half precision."""
    args.fp32_text_enc = True
    try:
        return clip_vision(base.vision.config.to_dict(), base.vision.state_dict())
    finally:
        args.fp32_text_enc = False


def test_the_nodes_predict_what_the_trainer_predicts(pack, trained):
    """Both subjects, their words, every LoRA and the tuned vision tower, at three noise levels."""
    checkpoint, host, batch = mmdiff(pack, trained.checkpoint), trained.host, trained.batch
    subjects = [
        pack["MMDiffEncodeSubject"]
        .execute(
            mmdiff=checkpoint,
            clip_vision=host.vision,
            image=photo.movedim(0, -1)[None],
            name=name,
            weight=1.0,
        )
        .args[0]
        for name, photo in zip(("Red", "Blue"), batch.slots.references[0], strict=True)
    ]
    positive, _, binding = bound(pack, PROMPT, subjects, negative="", mmdiff=checkpoint, clip=host.clip)
    conditions = trained.trainee.conditions(batch.slots, batch.image.shape[-1])
    tokens = torch.cat([subject.tokens for subject in subjects])
    found = {
        "tokens": error(tokens, conditions.subjects.tokens[0]),
        "text": error(positive[0][0], conditions.text),
    }

    model = applied(pack, binding, model=host.model, weight=1.0)
    sampling = model.get_model_object("model_sampling")
    noise = noises()
    for percent in (0.1, 0.5, 0.9):
        sigma = float(sampling.percent_to_sigma(percent))
        time = sampling.timestep(torch.tensor(sigma))
        denoised = predict(model, positive, positive, cfg=(1.0,), percent=percent, noise=noise)[0]
        noisy = noise * sigma
        wanted = trained.trainee.predict(noisy / (1 + sigma**2) ** 0.5, time[None], conditions)
        found[f"eps {percent}"] = error((noisy - denoised) / sigma, wanted)
        assert error(wanted, without_subjects(trained, noisy / (1 + sigma**2) ** 0.5, time)) > 1e-2
    print({name: f"{value:.1e}" for name, value in found.items()})
    assert max(found.values()) <= BOUND, found


def without_subjects(trained, noisy, time):
    """What the trainer predicts of the same words alone."""
    slots = trained.batch.slots
    bare = dataclasses.replace(slots, fused=torch.zeros_like(slots.fused), valid=torch.zeros_like(slots.valid))
    return trained.trainee.predict(noisy, time[None], trained.trainee.conditions(bare, trained.batch.image.shape[-1]))
