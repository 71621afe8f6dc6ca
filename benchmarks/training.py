"""What the constraints cost in training, and what caches spare: a step with the maps of both branches over one without,
and a step that finds everything in a cache over one that encodes. Beside it a step as diffusers' own LoRA script takes
it, where peft is installed.

`python -m benchmarks.training`, in the environment of tests/requirements.txt: JSON on the last line; `caches` behind it
for these alone. On the CPU, one thread, with the layout of each base at a fifth of its width, so that all its layers
and resolutions are there. The fewer channels, the larger is the share of the maps.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "core" / "training"))

LAYOUTS = {
    "sd15": {"block_out_channels": (64, 128, 256, 256), "attention_head_dim": 8},
    "sdxl": {
        "block_out_channels": (64, 128, 256),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (2, 4, 8),
        "use_linear_projection": True,
    },
}
LATENT = 32
RANK = 16
ROUNDS = 3


def step_of(base: str, maps: bool, checkpointing: bool) -> Callable[[], None]:
    """A function that runs a forward and a backward pass of two samples with two subjects each."""
    from diffusers import UNet2DConditionModel
    from tiny_base import PHOTO, Squares, make_base, make_vision, settings

    from mmdiff_core.drawing.base import Base
    from mmdiff_core.training.batches import Collate, Indexed
    from mmdiff_core.training.config import read_config
    from mmdiff_core.training.losses import losses
    from mmdiff_core.training.trainee import Trainee

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_base(folder / "base")
        make_vision(folder / "vision")
        unet = UNet2DConditionModel(sample_size=LATENT, cross_attention_dim=16, norm_num_groups=16, **LAYOUTS[base])
        unet.save_pretrained(folder / "base" / "unet")
        weight = 1e-3 if maps else 0.0
        given = settings(
            folder,
            data={"resolution": 2 * LATENT},
            loss={"text": weight, "image": weight},
            drop={"text": 0, "image": 0, "both": 0},
            train={"gradient_checkpointing": checkpointing},
        )
        (folder / "config.yaml").write_text(yaml.safe_dump(given))
        config = read_config(folder / "config.yaml")
        trainee = Trainee(Base(config.base, config.vision, weights=True, dtype=torch.float32), config)
    data, collate = Indexed(Squares(2 * LATENT, PHOTO, 0)), Collate(trainee.base.tokenizers, config, 1000)
    batch = collate([data[1], data[3]])

    def step() -> None:
        found = losses(trainee, batch)
        sum(part.sum() for part in found.values()).backward()
        trainee.zero_grad()

    return step


def make_encoders(folder: Path) -> None:
    """SDXL's VAE and the vision tower of its size at a fifth of their width, in the folders of a tiny base."""
    from diffusers import AutoencoderKL
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    AutoencoderKL(
        block_out_channels=(24, 48, 104, 104),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        norm_num_groups=8,
        latent_channels=4,
    ).save_pretrained(folder / "base" / "vae")
    tower = CLIPVisionConfig(
        hidden_size=208,
        intermediate_size=832,
        projection_dim=152,
        num_hidden_layers=24,
        num_attention_heads=13,
        image_size=224,
        patch_size=14,
    )
    CLIPVisionModelWithProjection(tower).save_pretrained(folder / "vision")


def sdxl_run(folder: Path) -> tuple[Any, Any]:
    """The configuration and base of a run at SDXL's layout. The text is plain, so that it can be cached."""
    from diffusers import UNet2DConditionModel
    from tiny_base import make_base, make_vision, settings

    from mmdiff_core.drawing.base import Base
    from mmdiff_core.training.config import config_of

    make_base(folder / "base")
    make_vision(folder / "vision")
    make_encoders(folder)
    unet = UNet2DConditionModel(sample_size=LATENT, cross_attention_dim=16, norm_num_groups=16, **LAYOUTS["sdxl"])
    unet.save_pretrained(folder / "base" / "unet")
    config = config_of(
        settings(
            folder,
            data={"resolution": 8 * LATENT},
            model={"fuse_prompt": False, "rank": RANK},
            drop={"text": 0, "image": 0, "both": 0},
            train={"gradient_checkpointing": True},
        )
    )
    return config, Base(config.base, config.vision, weights=True, dtype=torch.float32)


def cached_step(cached: bool) -> Callable[[], None]:
    """A function that makes a batch of one sample with two subjects, at SDXL's layout, and runs it forth and back. With
    a cache, everything is in it."""
    from tiny_base import Squares

    from mmdiff_core.training.batches import Collate, Indexed
    from mmdiff_core.training.cache import open_cache
    from mmdiff_core.training.losses import losses
    from mmdiff_core.training.trainee import Trainee

    place = tempfile.TemporaryDirectory()
    config, base = sdxl_run(Path(place.name))
    trainee = Trainee(base, config)
    cache = open_cache(str(Path(place.name) / "cache"), trainee, sharded=False) if cached else None
    item = Indexed(Squares(8 * LATENT, 224, 0))[1]
    collate = Collate(trainee.base.tokenizers, config, 1000, cache)

    def step() -> None:
        assert place.name
        found = losses(trainee, collate([item]), cache)
        sum(part.sum() for part in found.values()).backward()
        trainee.zero_grad()

    return step


def lora_step() -> Callable[[], None]:
    """The same by diffusers' examples/text_to_image/train_text_to_image_lora_sdxl.py: LoRA of peft on every attention
    layer, a caption and no subject. As there, picture and text are encoded in each step."""
    from peft import LoraConfig
    from tiny_base import Squares

    with tempfile.TemporaryDirectory() as name:
        _, base = sdxl_run(Path(name))
    layers = ["to_k", "to_q", "to_v", "to_out.0"]
    base.unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, init_lora_weights="gaussian", target_modules=layers))
    base.unet.enable_gradient_checkpointing()
    item = Squares(8 * LATENT, 224, 0)[1]
    tokenizer = base.tokenizers["l"]

    def step() -> None:
        ids = tokenizer(item["caption"], padding="max_length", return_tensors="pt").input_ids
        noise, time_ = torch.randn(1, *base.latent_shape(8 * LATENT)), torch.randint(1000, (1,))
        latents = base.encode(item["image"][None], torch.randn_like(noise))
        with torch.no_grad():
            text = base.text["l"](ids).last_hidden_state
        predicted = base.unet(base.scheduler.add_noise(latents, noise, time_), time_, text).sample
        torch.nn.functional.mse_loss(predicted, noise).backward()
        base.unet.zero_grad()

    return step


def memory(field: str) -> int:
    """A size of this process in kilobytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def peak(*variant: Any) -> int:
    """The most kilobytes resident during a step beyond those before it."""
    step = step_of(*variant)
    step()
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    step()
    return memory("VmHWM") - before


def seconds(step: Callable[[], None]) -> float:
    """Processor time of a step."""
    start = time.process_time()
    step()
    return time.process_time() - start


def measured_peak(*variant: Any) -> int:
    """`peak` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.training", json.dumps(variant)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parents[1])
    return int(done.stdout.splitlines()[-1])


def caches() -> dict[str, float]:
    """What caches spare, and a step with and without them beside diffusers' LoRA script."""
    from tiny_base import allocated

    steps = {"with caches": cached_step(True), "without": cached_step(False)}
    if importlib.util.find_spec("peft"):
        steps["diffusers' LoRA script"] = lora_step()
    for step in steps.values():
        step()
    peaks = {name: allocated(step) for name, step in steps.items()}
    rounds = [{name: seconds(step) for name, step in steps.items()} for _ in range(ROUNDS)]
    for name in steps:
        spent = median(one[name] for one in rounds)
        print(f"{name}: {peaks[name] / 1e6:.1f} MB of tensors, {spent:.2f} s", file=sys.stderr)
    found = {}
    for over, *others in (("without", "with caches"), ("diffusers' LoRA script", "with caches", "without")):
        for name in others if over in steps else ():
            said = f"sdxl, gradient checkpointing: a step {name} over {over}"
            found[f"{said}, memory"] = peaks[name] / peaks[over]
            found[f"{said}, time"] = median(one[name] / one[over] for one in rounds)
    return found


def main() -> dict[str, float]:
    """Every ratio by name."""
    found = caches()
    for base in LAYOUTS:
        for checkpointing in (False, True):
            name = f"{base}, gradient checkpointing" if checkpointing else base
            with_maps, without = (measured_peak(base, maps, checkpointing) for maps in (True, False))
            print(f"{name}: {with_maps / 1024:.0f} MB with maps, {without / 1024:.0f} without", file=sys.stderr)
            found[f"{name}: peak memory of a step with maps over without"] = with_maps / without
            steps = [step_of(base, maps, checkpointing) for maps in (True, False)]
            for step in steps:
                step()
            times = [[seconds(step) for step in steps] for _ in range(ROUNDS)]
            found[f"{name}: time of a step with maps over without"] = median(a / b for a, b in times)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:] == ["caches"]:
        print(json.dumps(caches()))
    elif len(sys.argv) > 1:
        print(peak(*json.loads(sys.argv[1])))
    else:
        print(json.dumps(main()))
