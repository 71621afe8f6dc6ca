"""The commands `evaluate dreambench`, `evaluate world` and `evaluate nets`."""

from __future__ import annotations

import argparse
from pathlib import Path

MODELS = {
    "clip": "such as openai/clip-vit-base-patch32, for clip-t and clip-i",
    "dino": "such as facebook/dino-vits16, for dino",
    "faces": "with det_10g.onnx and w600k_r50.onnx, for face",
}


def add_to(commands: argparse._SubParsersAction) -> None:
    """Add `evaluate` to the program's commands."""
    evaluate = commands.add_parser("evaluate", help="measure how well a checkpoint draws its subjects")
    kinds = evaluate.add_subparsers(required=True, metavar="WHAT")

    photos = kinds.add_parser("dreambench", help="photos in DreamBench's folder: CLIP-T, CLIP-I, DINO, faces")
    photos.add_argument("dataset", type=Path, help="the folder with prompts_and_classes.txt and the subjects' folders")
    for model, of in MODELS.items():
        photos.add_argument(f"--{model}", type=Path, metavar="FOLDER", help=f"a local model {of}")
    photos.add_argument("--subjects", nargs="+", default=[], metavar="NAME", help="only these (default: all)")
    photos.add_argument("--pairs", action="store_true", help="two subjects a picture")
    photos.add_argument("--images", type=int, default=4, help="pictures of each prompt (default: 4)")
    photos.set_defaults(command=_dreambench)

    for kind in (photos,):
        kind.add_argument("--out", type=Path, required=True, help="folder for results and pictures")
        kind.add_argument(
            "--measures", nargs="+", default=[], metavar="NAME", help="only these (default: all there are)"
        )
        what = kind.add_mutually_exclusive_group(required=True)
        what.add_argument("--arm", action="append", default=[], metavar="NAME=FOLDER", help=_ARM)
        what.add_argument("--cases", action="store_true", help="only write what is to be drawn, for another program")


_ARM = (
    "a training run, or pictures with their list; may come several times, and `full` is what others are compared with"
)


def _dreambench(arguments: argparse.Namespace) -> None:
    from . import photo_benchmark as benchmark

    options = benchmark.Options(
        dataset=arguments.dataset,
        out=arguments.out,
        arms=arguments.arm,
        models={name: folder for name in MODELS if (folder := getattr(arguments, name)) is not None},
        measures=arguments.measures,
        subjects=arguments.subjects,
        pairs=arguments.pairs,
        images=arguments.images,
    )
    print(benchmark.prepare(options) if arguments.cases else benchmark.run(options))
