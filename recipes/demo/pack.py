"""Put a trained base and checkpoint into the pack, in halves: `python -m recipes.demo.pack WORK RUN`."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from mmdiff_core.checkpoint import load_checkpoint, save_checkpoint
from mmdiff_core.demo import CHECKPOINT, FOLDER
from mmdiff_core.files import read_safetensors, write_safetensors
from mmdiff_core.model.mmdiff import MMDiff
from mmdiff_core.training.state import steps_done
from mmdiff_core.world.atlas import Atlas

from .base import WORDS_FILE
from .decoder import DECODER_RUN

FILES = {
    "unet": ("config.json", "diffusion_pytorch_model.safetensors"),
    "vae": ("config.json", "diffusion_pytorch_model.safetensors"),
    "text_encoder": ("config.json", "model.safetensors"),
    "vision": ("config.json", "model.safetensors"),
    "tokenizer": ("vocab.json", "merges.txt", "tokenizer_config.json"),
    "scheduler": ("scheduler_config.json",),
    ".": (WORDS_FILE,),  # nothing draws with it; arms can be trained again
}
BASE_RUN = "base-run/state.safetensors"


def pack(work: Path, run: Path) -> int:
    """Copy a run's newest checkpoint, and the parts of `work/base` that were trained in `work`. Returns the folder's
    bytes."""
    about = {"format": "pt", "mmdiff_demo": json.dumps(_about(work, run))}
    for part, names in FILES.items():
        if not (work / (DECODER_RUN if part == "vae" else BASE_RUN)).exists():
            continue  # what was packed before stays
        (FOLDER / part).mkdir(parents=True, exist_ok=True)
        for name in names:
            source, target = work / "base" / part / name, FOLDER / part / name
            if name.endswith(".safetensors"):
                tensors, _ = read_safetensors(source)
                write_safetensors(target, {key: value.half() for key, value in tensors.items()}, about)
            elif part == "vae":  # what diffusers writes there of its own makes it warn when it reads it
                config = json.loads(source.read_text())
                target.write_text(json.dumps({k: v for k, v in config.items() if k != "block_out_channels"}, indent=2))
            else:
                shutil.copyfile(source, target)
    shutil.copyfile(work / "components.safetensors", FOLDER / "components.safetensors")
    mmdiff = load_checkpoint(max(run.glob("step-*.safetensors")), dtype=None)
    tensors = {key: value.half() for key, value in mmdiff.tensors().items()}
    save_checkpoint(MMDiff(tensors, mmdiff.spec, source="", dtype=None), CHECKPOINT)
    return sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file())


def _about(work: Path, run: Path) -> dict[str, object]:
    """How the weights came about."""
    steps = {"adapter": steps_done(run / "state.safetensors")}
    if (work / BASE_RUN).exists():
        steps["base"] = steps_done(work / BASE_RUN)
    if (work / DECODER_RUN).exists():
        steps["decoder"] = int(read_safetensors(work / DECODER_RUN)[1]["step"])
    return {"atlas": Atlas.load(work / "atlas.npz").digest(), "steps": steps, "seed": 0, "licence": "MIT"}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m recipes.demo.pack", description=__doc__.split("\n")[0])
    parser.add_argument("work", type=Path, help="folder with `base`")
    parser.add_argument("run", type=Path, help="folder that `train` wrote")
    arguments = parser.parse_args()
    print(f"{pack(arguments.work, arguments.run) / 1e6:.1f} MB in {FOLDER}")
