"""Put a trained base and checkpoint into the pack, in halves: `python -m mmdiff_core.demo.making.pack WORK RUN`."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch

from ...checkpoint import load_checkpoint, save_checkpoint
from ...files import read_safetensors, write_safetensors
from ...model.mmdiff import MMDiff
from .. import CHECKPOINT, FOLDER

FILES = {
    "unet": ("config.json", "diffusion_pytorch_model.safetensors"),
    "vae": ("config.json", "diffusion_pytorch_model.safetensors"),
    "text_encoder": ("config.json", "model.safetensors"),
    "vision": ("config.json", "model.safetensors"),
    "tokenizer": ("vocab.json", "merges.txt", "tokenizer_config.json"),
    "scheduler": ("scheduler_config.json",),
}


def pack(work: Path, checkpoint: Path, about: dict[str, str]) -> int:
    """Copy the parts of `work/base` and a checkpoint; about: metadata of every file. Returns bytes written."""
    for part, names in FILES.items():
        (FOLDER / part).mkdir(parents=True, exist_ok=True)
        for name in names:
            source, target = work / "base" / part / name, FOLDER / part / name
            if name.endswith(".safetensors"):
                tensors, _ = read_safetensors(source)
                write_safetensors(target, {key: value.half() for key, value in tensors.items()}, about)
            elif name == "config.json":
                content = json.loads(source.read_text())
                content.pop("block_out_channels", None) if part == "vae" else None
                target.write_text(json.dumps(content, indent=1) + "\n")
            else:
                shutil.copyfile(source, target)
    mmdiff = load_checkpoint(checkpoint, dtype=None)
    tensors = {key: value.to(torch.float16) for key, value in mmdiff.tensors().items()}
    save_checkpoint(MMDiff(tensors, mmdiff.spec, source="", dtype=None), CHECKPOINT)
    return sum(path.stat().st_size for path in FOLDER.rglob("*") if path.is_file())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m mmdiff_core.demo.making.pack", description=__doc__.split("\n")[0])
    parser.add_argument("work", type=Path, help="folder with `base`")
    parser.add_argument("run", type=Path, help="folder that `train` wrote")
    arguments = parser.parse_args()
    newest = max(arguments.run.glob("step-*.safetensors"))
    print(f"{pack(arguments.work, newest, {'format': 'pt'}) / 1e6:.1f} MB in {FOLDER}")
