"""A tiny diffusers model and vision tower with random weights, as folders on disk, and scenes of coloured squares."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

PHOTO = 28
SIDE = 32
COLORS = {"red": (1.0, 0.0, 0.0), "blue": (0.0, 0.0, 1.0), "green": (0.0, 1.0, 0.0), "white": (1.0, 1.0, 1.0)}


def tokenizer(folder: Path) -> CLIPTokenizer:
    """One token for each letter: CLIP's tokenizer with a vocabulary that has no merges."""
    folder.mkdir(parents=True)
    letters = [chr(code) for code in range(33, 127)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    made = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)
    made.save_pretrained(folder)
    return made


def text_config(width: int, vocabulary: int, projection: int = 16) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=projection,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
    )


def make_base(folder: Path, sdxl: bool = False, channels: int = 16, tokens: Path | None = None) -> Path:
    """A diffusers folder: 32 px pictures, latents of 16, cross-attention at 16 and 8.

    channels: of the UNet's first block. tokens: folder of a tokenizer, instead of a tiny one.
    """
    torch.manual_seed(0)
    text = CLIPTokenizer.from_pretrained(tokens) if tokens else tokenizer(folder / "tokenizer")
    text.save_pretrained(folder / "tokenizer")
    CLIPTextModel(text_config(16, len(text))).save_pretrained(folder / "text_encoder")
    options: dict[str, Any] = {"cross_attention_dim": 16}
    if sdxl:
        text.save_pretrained(folder / "tokenizer_2")
        CLIPTextModelWithProjection(text_config(24, len(text))).save_pretrained(folder / "text_encoder_2")
        options = {
            "cross_attention_dim": 40,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 16 + 6 * 8,
            "use_linear_projection": True,
            "transformer_layers_per_block": [1, 2],
        }
    UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(channels, 2 * channels),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=channels // 2,
        attention_head_dim=8,
        **options,
    ).save_pretrained(folder / "unet")
    AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=4,
    ).save_pretrained(folder / "vae")
    DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").save_pretrained(
        folder / "scheduler"
    )
    return folder


def make_vision(folder: Path) -> Path:
    """A vision tower for 28 px photos."""
    torch.manual_seed(1)
    config = CLIPVisionConfig(
        hidden_size=24,
        intermediate_size=48,
        projection_dim=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=PHOTO,
        patch_size=14,
    )
    CLIPVisionModelWithProjection(config).save_pretrained(folder)
    return folder


class Squares:
    """A square, or two beside each other, each with a reference of its colour. broken: a record with NaN pixels."""

    def __init__(
        self, resolution: int, photo_size: int, seed: int, max_subjects: int = 2, records: int = 4, broken: int = -1
    ) -> None:
        self.resolution = resolution
        self.photo_size = photo_size
        self.seed = seed
        self.max_subjects = max_subjects
        self.records = records
        self.nan_record = broken

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index == int(os.environ.get("KILLED_AT", -1)):
            os.kill(os.getppid(), signal.SIGKILL)  # a worker was asked: this is the process that trains
        record = index % self.records
        names = [list(COLORS)[(record + number) % len(COLORS)] for number in range(1 + record % self.max_subjects)]
        image = torch.full((3, self.resolution, self.resolution), -0.5)
        masks = torch.zeros(len(names), self.resolution, self.resolution)
        half, quarter = self.resolution // 2, self.resolution // 4
        caption, entities = "", []
        for number, name in enumerate(names):
            masks[number, quarter : quarter + half, number * half + 2 : (number + 1) * half - 2] = 1
            image = torch.where(masks[number].bool(), torch.tensor(COLORS[name])[:, None, None] * 2 - 1, image)
            caption += ", a " if caption else "a "
            start = len(caption)
            caption += f"{name} box"
            entities.append((start, len(caption)))
        references = [torch.tensor(COLORS[n])[:, None, None].expand(3, self.photo_size, self.photo_size) for n in names]
        return {
            "image": image * float("nan") if record == self.nan_record else image,
            "caption": caption,
            "entities": entities,
            "masks": masks,
            "references": torch.stack(references),
            "record": f"square {record}",
        }


def logged(out: Path) -> list[dict[str, float]]:
    """What a run says of each of its steps."""
    return [json.loads(line) for line in (out / "losses.jsonl").read_text().splitlines()]


def allocated(work: Callable[[], Any]) -> int:
    """The most bytes that some work has at once, beyond what was there before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    events = [one for one in profile.profiler.kineto_results.events() if one.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda one: one.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def settings(folder: Path, **sections: Any) -> dict[str, Any]:
    """A configuration for the folders `base` and `vision` in a folder, as YAML would give it; sections are merged."""
    given: dict[str, Any] = {
        "base": str(folder / "base"),
        "vision": str(folder / "vision"),
        "out": str(folder / "run"),
        "data": {"kind": "tiny_base:Squares", "resolution": SIDE, "workers": 0},
        "model": {"rank": 4, "depth": 1, "head_dim": 8},
        "train": {"steps": 4, "batch": 2, "lr": 1e-3, "precision": "fp32"},
        "drop": {"text": 0.1, "image": 0.1, "both": 0.1},
    }
    for name, section in sections.items():
        both = isinstance(given.get(name), dict) and isinstance(section, dict)
        given[name] = {**given[name], **section} if both else section
    return given
