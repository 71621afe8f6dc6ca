"""Make the demo model: `python -m recipes.demo.make`, in the checkout, into its folder `work`.

From the atlas to the packed model, one stage after another. Each is a command that can also be given by hand. What is
done is not done again, and a stage that was stopped goes on where it last saved when this is run again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from mmdiff_core.training.config import read_config

WORK = Path("work")
UNTOLD = WORK / "untold"
ARMS = Path(__file__).parent / "arms"
FULL = "full"
SHIPPED = Path(__file__).parent / "shipped.yaml"  # goes on from it


def run(module: str, *arguments: object) -> None:
    """A stage. Ends this program with it where it fails."""
    print(f"$ python -m {module} {' '.join(map(str, arguments))}", flush=True)
    done = subprocess.run([sys.executable, "-m", module, *map(str, arguments)], env=_environment())
    if done.returncode:
        sys.exit(done.returncode)


def _environment() -> dict[str, str]:
    if torch.cuda.is_available():
        return dict(os.environ)
    # glibc would give the pages of large tensors back to the system, and get them again, many times a step.
    kept = {f"MALLOC_{name}_THRESHOLD_": str(2**32) for name in ("MMAP", "TRIM")}
    return os.environ | kept | {"ACCELERATE_USE_CPU": "true"}


def main(arms: list[str], base_steps: int, decoder_steps: int, processes: int) -> None:
    """arms: names of files in `arms`. base_steps, decoder_steps: of their optimizers. processes: that share a step of
    the base."""
    if not (WORK / "atlas.npz").exists():
        run("mmdiff_core.world.build", WORK / "atlas.npz")
    if not (WORK / "tokenizer").exists():
        run("recipes.demo.prepare", WORK)
    together = ("--nproc_per_node", processes, "-m", "recipes.demo.base", WORK)
    run("torch.distributed.run", *together, "--steps", base_steps)
    run("recipes.demo.decoder", WORK, "--steps", decoder_steps)
    if any(read_config(ARMS / f"{arm}.yaml").base == str(UNTOLD) for arm in arms):
        run("torch.distributed.run", *together, "--untold", "--steps", base_steps // 5)
        shutil.copytree(WORK / "base" / "vae", UNTOLD / "vae", dirs_exist_ok=True)
    for arm in arms:
        config = ARMS / f"{arm}.yaml"
        start = read_config(config).model.start
        if start and not Path(start).exists():
            run("recipes.demo.imitate", WORK, config)
        run("mmdiff_core", "train", "--config", config, "--resume")
    if FULL in arms:
        run("mmdiff_core", "train", "--config", SHIPPED, "--resume")
        run("recipes.demo.pack", WORK, read_config(SHIPPED).out)


if __name__ == "__main__":
    names = sorted(path.stem for path in ARMS.glob("*.yaml"))
    parser = argparse.ArgumentParser(prog="python -m recipes.demo.make", description=__doc__.split("\n")[0])
    parser.add_argument("arms", nargs="*", help=f"adapters to train, of {', '.join(names)} (default: {FULL})")
    parser.add_argument("--base-steps", type=int, default=18750, help="of 32 samples with two processes")
    parser.add_argument("--decoder-steps", type=int, default=4000)
    parser.add_argument("--processes", type=int, default=2, help="that share a step of the base, 16 samples each")
    arguments = parser.parse_args()
    if unknown := set(arguments.arms) - set(names):
        parser.error(f"there is no arm {', '.join(sorted(unknown))}")
    main(arguments.arms or [FULL], arguments.base_steps, arguments.decoder_steps, arguments.processes)
