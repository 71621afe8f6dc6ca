"""The command `annotate`."""

from __future__ import annotations

import argparse
from pathlib import Path

MODELS = {
    "caption": "that describe pictures, for those without a caption (BLIP, GIT, LLaVA, Qwen-VL)",
    "words": "that tag parts of speech (token classification), for the nouns of the captions",
    "boxes": "that find what they are told (Grounding DINO, OWLv2)",
    "masks": "that outline what is in a box (SAM, SAM 2)",
    "faces": "that find and recognise faces, for portraits (buffalo_l, or dlib)",
}
NEEDED = ("words", "boxes", "masks")


def add_to(commands: argparse._SubParsersAction) -> None:
    """Add `annotate` to the program's commands."""
    annotate = commands.add_parser("annotate", help="make records to train on of pictures")
    annotate.add_argument("folder", type=Path, help="pictures, and captions where there are any; see docs/data.md")
    annotate.add_argument("--out", type=Path, required=True, help="folder to write into; train wants `records` in it")
    for stage, of in MODELS.items():
        needed = stage in NEEDED
        annotate.add_argument(
            f"--{stage}", required=needed, metavar="MODEL", help=f"folder with models {of}; or package.module:Class"
        )
    annotate.add_argument("--smallest", type=int, default=512, help="shorter side of a picture, pixels (default: 512)")
    annotate.add_argument("--most", type=int, default=4, help="subjects of a picture (default: 4)")
    annotate.add_argument("--sure", type=float, default=0.3, help="score of a subject, 0 to 1 (default: 0.3)")
    annotate.add_argument(
        "--same",
        choices=("faces", "folder", "nothing"),
        default="faces",
        help="what tells that two pictures show the same one, so that one is the other's reference (default: faces)",
    )
    annotate.set_defaults(command=_annotate)


def _annotate(arguments: argparse.Namespace) -> None:
    from .annotate import annotate
    from .page import lines
    from .records import Rules
    from .stages import STAGES, Planned

    plan = [Planned(stage, given) for stage in STAGES if (given := getattr(arguments, stage))]
    rules = Rules(arguments.smallest, arguments.most, arguments.sure, arguments.same)
    written = annotate(arguments.folder, arguments.out, plan, rules, lambda line: print(line, flush=True))
    if written:
        print(*lines(written), f"See {arguments.out / 'index.html'}.", sep="\n")
