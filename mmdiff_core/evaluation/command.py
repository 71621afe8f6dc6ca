"""The commands `evaluate dreambench`, `evaluate world`, `evaluate cast` and `evaluate nets`."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..cast import THRESHOLD

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
    photos.add_argument("--images", type=_count, default=4, help="pictures of each prompt (default: 4)")
    photos.set_defaults(command=_dreambench)

    world = kinds.add_parser("world", help="the procedural world: who, what and where, with ceilings and floors")
    world.add_argument("atlas", type=Path, help="the world's file, of `python -m mmdiff_core.world.build`")
    world.add_argument("--nets", type=Path, metavar="FILE", help="the metric networks, of `evaluate nets`")
    world.add_argument("--split", default="test", help="of the atlas (default: test)")
    world.add_argument("--number", type=_count, default=512, help="of cases (default: 512)")
    world.add_argument("--resolution", type=_count, default=64, help="side of the oracles' pictures (default: 64)")
    world.add_argument("--photo", type=_count, default=224, help="side of the references (default: 224)")
    world.add_argument("--by-word", action="append", default=[], metavar="NAME=FOLDER", help=_BY_WORD)
    world.add_argument("--masked", action="append", default=[], metavar="NAME=FOLDER", help=_MASKED)
    world.set_defaults(command=_world)

    for kind in (photos, world):
        kind.add_argument("--out", type=Path, required=True, help="folder for results and pictures")
        kind.add_argument(
            "--measures", nargs="+", default=[], metavar="NAME", help="only these (default: all there are)"
        )
        kind.add_argument("--arm", action="append", default=[], metavar="NAME=FOLDER", help=_ARM)
        kind.add_argument("--cut-out", action="append", default=[], metavar="NAME=FOLDER", help=_CUT_OUT)
        kind.add_argument("--cases", action="store_true", help="only write what is to be drawn, for another program")

    cast = kinds.add_parser("cast", help="how often Check Cast is right, in scenes that are good or spoilt on purpose")
    cast.add_argument("atlas", type=Path, help="the world's file")
    cast.add_argument("model", type=Path, help="a folder that draws, such as mmdiff_core/demo/model")
    cast.add_argument("--split", default="test", help="of the atlas (default: test)")
    cast.add_argument("--number", type=_count, default=128, help="of pictures (default: 128)")
    cast.add_argument(
        "--threshold", nargs="+", type=float, default=[THRESHOLD], help=f"likeness that counts (default: {THRESHOLD})"
    )
    cast.set_defaults(command=_cast)

    nets = kinds.add_parser("nets", help="train the networks that measure the procedural world")
    nets.add_argument("atlas", type=Path, help="the world's file")
    nets.add_argument("out", type=Path, help="the .safetensors file to write")
    nets.add_argument(
        "--steps", type=_count, default=1200, help="of 32 scenes (default: 1200, about half an hour on a CPU)"
    )
    nets.set_defaults(command=_nets)


_ARM = (
    "a training run, or pictures with their list; may come several times, and `full` is what others are compared with"
)
_BY_WORD = "an arm as by --arm, drawn with its subjects separated by word"
_MASKED = "an arm as by --arm, drawn from subjects cut out of any ground by their masks"
_CUT_OUT = "an arm as by --arm, drawn from subjects cut out of plain grounds, as Encode Subject does"


def _count(text: str) -> int:
    """A whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of 1 or more")
    return int(text)


def _dreambench(arguments: argparse.Namespace) -> None:
    from .photos import benchmark

    options = benchmark.Options(
        dataset=arguments.dataset,
        out=arguments.out,
        arms=arguments.arm,
        models={name: folder for name in MODELS if (folder := getattr(arguments, name)) is not None},
        measures=arguments.measures,
        subjects=arguments.subjects,
        pairs=arguments.pairs,
        images=arguments.images,
        cut_out=arguments.cut_out,
    )
    print(benchmark.prepare(options) if arguments.cases else benchmark.run(options))


def _world(arguments: argparse.Namespace) -> None:
    from .world import benchmark

    options = benchmark.Options(
        atlas=arguments.atlas,
        out=arguments.out,
        arms=arguments.arm,
        nets=arguments.nets,
        measures=arguments.measures,
        split=arguments.split,
        number=arguments.number,
        resolution=arguments.resolution,
        photo=arguments.photo,
        by_word=arguments.by_word,
        cut_out=arguments.cut_out,
        masked=arguments.masked,
    )
    print(benchmark.prepare(options) if arguments.cases else benchmark.run(options))


def _cast(arguments: argparse.Namespace) -> None:
    from .world import cast

    options = cast.Options(arguments.atlas, arguments.model, arguments.threshold, arguments.split, arguments.number)
    print(cast.run(options))


def _nets(arguments: argparse.Namespace) -> None:
    from .world.net_training import train_nets

    train_nets(arguments.atlas, arguments.out, arguments.steps, lambda line: print(line, flush=True))
    print(f"Wrote {arguments.out}.")
