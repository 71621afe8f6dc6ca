"""The command line: `python -m mmdiff_core --help`, and `mm-diff` where this is installed."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from torch import nn

from .annotation.command import add_to as add_annotate
from .checkpoint import load_checkpoint, save_checkpoint
from .checkpoint.ipadapter import VERSIONS, kind
from .doctor import report
from .drawing import INSTALL, PACKAGES
from .encoders import encoder_name
from .errors import MMDiffError
from .evaluation.command import add_to as add_evaluate
from .model.lora import lora_pairs
from .packing import add_to as add_pack


def _convert(arguments: argparse.Namespace) -> None:
    mmdiff = load_checkpoint(arguments.checkpoint, dtype=None, faceid_plus=arguments.faceid_plus)
    save_checkpoint(mmdiff, arguments.out)
    print(f"Wrote {arguments.out} ({arguments.out.stat().st_size / 1e6:.1f} MB).")


def _inspect(arguments: argparse.Namespace) -> None:
    mmdiff = load_checkpoint(arguments.checkpoint, dtype=None, faceid_plus=arguments.faceid_plus)
    heads = mmdiff.heads
    pairs = list(lora_pairs(mmdiff.unet))
    ranks = Counter(pair.down.out_features for _, pair in pairs)
    image_pairs = sum("_image" in path for path, _ in pairs)
    whole = sum(
        isinstance(module, nn.Linear) and path.endswith("_image") for path, module in mmdiff.unet.named_modules()
    )
    text = {encoder: sum(1 for _ in lora_pairs(tree)) for encoder, tree in mmdiff.text.items()}
    hidden, projection = mmdiff.vision_widths
    facts = {
        "kind": kind(mmdiff),
        "base": mmdiff.base,
        "source": mmdiff.source,
        "tokens per reference": mmdiff.tokens_per_reference or "one for each patch",
        "context width": heads.context_width,
        "identity width": heads.identity_width,
        "vision encoder": f"{encoder_name(hidden, projection, 'unnamed')} (hidden {hidden or 'any'}, projection "
        f"{projection or 'any'})"
        if hidden or projection
        else "none",
        "tuned vision tensors": len(mmdiff.vision),
        "text encoders": ", ".join(f"CLIP-{e.upper()} (width {heads.token_width(e)})" for e in heads.fuse)
        or "any, the prompt stays as it is",
        "UNet LoRA": f"{len(pairs) - image_pairs} linears, rank {', '.join(map(str, sorted(ranks))) or 'none'}",
        "image branch": f"{image_pairs} LoRA linears, {whole} whole matrices, of {len(mmdiff.unet)} attention layers",
        "text LoRA": ", ".join(f"{number} linears of CLIP-{e.upper()}" for e, number in text.items()) or "none",
        **{f"spec.{field}": value for field, value in vars(mmdiff.spec).items()},
    }
    for name, value in facts.items():
        print(f"{name:22} {value}")


def _doctor(arguments: argparse.Namespace) -> None:
    models = arguments.comfyui / "models" if arguments.comfyui else None
    if models is not None and not models.is_dir():
        raise MMDiffError(f"{arguments.comfyui} has no folder `models`; name the folder that ComfyUI's main.py is in.")
    print(report(models))


def _demo(arguments: argparse.Namespace) -> None:
    from .demo import command

    asked = arguments.image or arguments.prompt is not None
    drawings = command.own(arguments.image, arguments.prompt) if asked else command.bundled()
    print(command.draw(drawings, arguments.out, arguments.seed))


def _train(arguments: argparse.Namespace) -> None:
    from .training.config import read_config

    config = read_config(arguments.config)
    if arguments.check:
        from .training.check import check

        print(check(config))
    else:
        from .training.start import train

        train(config, arguments.resume)


def _validate(arguments: argparse.Namespace) -> None:
    from .data.validate import validate

    good, broken = validate(arguments.folder)
    for record in broken:
        print(record)
    print(f"{good} records are good, {len(broken)} are left out.")


def main(program: str = "mm-diff") -> int:
    """Run one command; bad input, and a package that is missing, end with their sentence and exit code 1."""
    parser = argparse.ArgumentParser(prog=program, description=sys.modules["mmdiff_core"].__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    convert = commands.add_parser("convert", help="make our file of a released folder or of an IP-Adapter")
    convert.add_argument("checkpoint", type=Path, help="the folder with the three released files, or an IP-Adapter")
    convert.add_argument("out", type=Path, help="the .safetensors file to write")
    convert.set_defaults(command=_convert)

    inspect = commands.add_parser("inspect", help="say what is in a checkpoint")
    inspect.add_argument("checkpoint", type=Path, help="a file of ours, an IP-Adapter, or a released folder")
    inspect.set_defaults(command=_inspect)

    for reading in (convert, inspect):
        reading.add_argument(
            "--faceid-plus", choices=VERSIONS, help="which an IP-Adapter FaceID Plus is, where its name does not say"
        )
    doctor = commands.add_parser("doctor", help="say which packages and files are there, and where to get the others")
    doctor.add_argument("comfyui", type=Path, nargs="?", help="the folder of a ComfyUI, to look into its models")
    doctor.set_defaults(command=_doctor)

    demo = commands.add_parser("demo", help="draw subjects in new scenes with the small model that ships with this")
    demo.add_argument(
        "--image", type=Path, action="append", default=[], help="a picture of your subject; twice for a pair"
    )
    demo.add_argument("--prompt", help='such as "a toy<|subj|> on the beach", a <|subj|> for each picture')
    demo.add_argument("--out", type=Path, default=Path("out"), help="folder to write into (default: out)")
    demo.add_argument("--seed", type=int, default=0, help="another one gives other pictures (default: 0)")
    demo.set_defaults(command=_demo)

    add_evaluate(commands)

    add_annotate(commands)

    train = commands.add_parser("train", help="train a checkpoint on a diffusers model")
    train.add_argument("--config", type=Path, required=True, help="the run as YAML; see docs/training.md")
    train.add_argument("--resume", action="store_true", help="go on where the run in its `out` folder was last saved")
    train.add_argument("--check", action="store_true", help="do everything but train: data, memory, time, first batch")
    train.set_defaults(command=_train)

    add_pack(commands)

    check = commands.add_parser("validate", help="say which annotated pictures can't be trained on, and why")
    check.add_argument("folder", type=Path, help="the folder with the records; see docs/data.md")
    check.set_defaults(command=_validate)

    arguments = parser.parse_args()
    try:
        arguments.command(arguments)
    except MMDiffError as error:
        print(error, file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if error.name not in PACKAGES:
            raise
        print(f"This command needs {error.name}, which is not installed: {INSTALL}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main("python -m mmdiff_core"))
