"""The whole way at toy scale: pictures, records, a run, an evaluation, one file that others use."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import torch
import truth
from transformers import ViTConfig, ViTModel
from yaml import safe_dump

sys.path.append(str(Path(__file__).parents[1] / "training"))

from tiny_base import make_base, make_vision, settings  # noqa: E402

from mmdiff_core.annotation.annotate import annotate  # noqa: E402
from mmdiff_core.annotation.records import Rules, Written  # noqa: E402
from mmdiff_core.evaluation.cases import read_json  # noqa: E402
from mmdiff_core.evaluation.photos import benchmark  # noqa: E402
from mmdiff_core.packing import Wording, pack  # noqa: E402
from mmdiff_core.training.config import read_config  # noqa: E402
from mmdiff_core.training.start import train  # noqa: E402

PICTURES, STEPS = 40, 3
TABLE = """Classes

subject_name,class
red,box
blue,box

Prompts

Object Prompts

prompt_list = [
'a {0} {1} in the dust'.format(unique_token, class_token)
]

Live Subject Prompts

prompt_list = [
'a {0} {1} in the dust'.format(unique_token, class_token)
]
"""


class Chain(NamedTuple):
    """What each step left: the records written, the run's folder, the measured values, the packed file."""

    written: Written
    run: Path
    values: Mapping[str, Mapping[str, float]]
    packed: Path


def make(folder: Path, **base: object) -> Chain:
    """base: for `make_base`."""
    pictures = folder / "pictures"
    pairs = list(combinations(truth.COLOURS, 2))
    for number in range(PICTURES):
        names = pairs[number % len(pairs)] if number % 2 else (list(truth.COLOURS)[number % len(truth.COLOURS)],)
        truth.draw(pictures / f"{number:02}.png", *names, seed=number)
    stages = truth.plan("caption", "words", "boxes", "masks", "faces")
    written = annotate(pictures, folder / "data", stages, Rules(smallest=32), lambda line: None)

    make_base(folder / "base", **base)
    make_vision(folder / "vision")
    given = settings(
        folder,
        data={"kind": "annotated", "options": {"folder": str(folder / "data" / "records")}},
        train={"steps": STEPS, "lr": 0.01},
        samples={"every": STEPS, "count": 2, "steps": 2},
    )
    (folder / "run.yaml").write_text(safe_dump(given))
    train(read_config(folder / "run.yaml"), resume=False)

    (folder / "bench").mkdir()
    (folder / "bench" / "prompts_and_classes.txt").write_text(TABLE)
    for name in ("red", "blue"):
        for number in range(2):
            truth.draw(folder / "bench" / name / f"{number}.jpg", name, seed=100 + number)
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    ViTModel(ViTConfig(**sizes, image_size=32, patch_size=8)).save_pretrained(folder / "dino")
    out = folder / "evaluated"
    arms, models = [f"full={folder / 'run'}"], {"dino": folder / "dino"}
    benchmark.run(benchmark.Options(folder / "bench", out, arms, models, images=1, size=28))

    packed = folder / "published" / "boxes.safetensors"
    pack(folder / "run", packed, Wording("Boxes <1>", "the tests", "CC0-1.0", "Boxes in the dust."), results=out)
    return Chain(written, folder / "run", read_json(out / "results.json")["values"], packed)
