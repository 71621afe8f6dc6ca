"""Where the time goes when the demo's base trains: parts of a step over the step.

`python -m benchmarks.demo_base ATLAS.npz`, in the environment of tests/requirements.txt: JSON on the last line.
Processor time of one thread, the least of some rounds in which all parts take turns, so that a busy machine distorts
little.
"""

from __future__ import annotations

import copy
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from transformers import CLIPTokenizer

from mmdiff_core.demo import FOLDER
from mmdiff_core.training.batches import Collate, Indexed
from recipes.demo.base import LENGTH, PHOTO, RATE, ROUTING, SIDE, Making, configuration, scheduler
from recipes.demo.latents import LatentScenes
from recipes.demo.muon import Muon
from recipes.demo.routing import Watched

BATCH, ROUNDS = 16, 5


def main(atlas: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    scenes = Indexed(LatentScenes(FOLDER / "components.safetensors", atlas, SIDE, PHOTO, seed=0))
    tokenizer = CLIPTokenizer.from_pretrained(FOLDER / "tokenizer", model_max_length=LENGTH)
    collate = Collate({"l": tokenizer}, configuration(Path(), 1, BATCH), scheduler().config.num_train_timesteps)
    making, noise = Making(len(tokenizer), scenes.dataset.components), scheduler()
    making.take(FOLDER)
    whole = copy.deepcopy(making)
    processors = whole.unet.attn_processors.items()
    in_one_piece = {name: one if isinstance(one, Watched) else AttnProcessor2_0() for name, one in processors}
    whole.unet.set_attn_processor(in_one_piece)
    for encoder in (whole.text, whole.vision):
        encoder.set_attn_implementation("sdpa")
    batch = collate([scenes[index] for index in range(BATCH)])
    optimizers = {model: Muon(model.named_parameters(), RATE * 1e-3) for model in (making, whole)}

    def learn(model: Making, routing: float, precision: str, tiny: bool = False) -> Callable[[], None]:
        def step() -> None:
            torch.set_flush_denormal(not tiny)
            torch.set_float32_matmul_precision(precision)
            weighted, _, read, astray = model(batch, noise)
            model.zero_grad()
            (weighted.mean() + read + routing * astray).backward()

        return step

    def step_of(model: Making, precision: str) -> Callable[[], None]:
        def step() -> None:
            torch.set_float32_matmul_precision(precision)
            optimizers[model].step()

        return step

    parts = {
        "scenes": lambda: collate([scenes[index] for index in range(BATCH)]),
        "learning": learn(making, ROUTING, "medium"),
        "learning, untold where to look": learn(making, 0.0, "medium"),
        "learning, numbers near 0 as they are": learn(making, ROUTING, "medium", tiny=True),
        "learning, full precision": learn(making, ROUTING, "highest"),
        "learning, full precision, attention in one piece": learn(whole, ROUTING, "highest"),
        "optimizer": step_of(making, "medium"),
        "optimizer, full precision": step_of(making, "highest"),
    }
    least = dict.fromkeys(parts, float("inf"))
    for _ in range(ROUNDS):
        for name, part in parts.items():
            began = time.process_time()
            part()
            least[name] = min(least[name], time.process_time() - began)
    step = least["scenes"] + least["learning"] + least["optimizer"]
    found = {f"{name}, share of a step": round(value / step, 3) for name, value in least.items()}
    print(json.dumps({**found, "milliseconds of a sample": round(1000 * step / BATCH, 1)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
