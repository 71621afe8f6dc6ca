"""The sheets of docs that no other command makes: `python -m recipes.demo.sheets WORK RESULTS OUT`.

RESULTS is where `evaluate world` drew the gates' scenes. `photo.jpg` shows the first of them whose grounds are cut
away, from their photos as they are and from what Encode Subject shows of them; `separation.jpg` a subject beside
somebody else.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from mmdiff_core.cutout import references
from mmdiff_core.demo import FOLDER, SUBJECTS
from mmdiff_core.drawing.drawer import load
from mmdiff_core.evaluation.cases import pictures_of, read_picture
from mmdiff_core.evaluation.world.benchmark import Options, read_cases
from mmdiff_core.evaluation.world.cases import WorldCase
from mmdiff_core.picture_files import read_pixels
from mmdiff_core.sheet import Cell, sheet

from .base import PHOTO, SIDE

EACH = 3  # scenes of one subject, and of two
ARMS = {"oracle real scene": "real scene", "whole": "photo as it is", "full": "cut out"}
PROMPTS = ("a toy<|subj|> to the left of a toy in a meadow", "a dog to the right of a toy<|subj|> in a kitchen")
SHOWN, BESIDE, SEED = SIDE, 4, 0


def photo_rows(cases: list[WorldCase], results: Path) -> list[list[Cell]]:
    """Scenes of one subject and of two, a row for each pair of them: photos, then the arms' pictures."""
    files = {arm: pictures_of(results / "pictures" / arm, cases) for arm in ARMS}
    changed = [case for case in cases if all(map(_is_cut, case.references))]
    rows = []
    for pair in zip(*([one for one in changed if len(one.references) == size][:EACH] for size in (1, 2)), strict=True):
        row: list[Cell] = []
        for case in pair:
            row += [(photo, "photo") for photo in case.references]
            row += [(read_picture(files[arm][case.id]), said) for arm, said in ARMS.items()]
        rows.append(row)
    return rows


def _is_cut(photo: torch.Tensor) -> bool:
    return not torch.allclose(references([photo.movedim(0, -1)[None]], None, PHOTO, crop=True).photos[0], photo)


def separation_rows() -> list[list[Cell]]:
    """Bundled subjects beside somebody who is not bound, by `reference` and by word."""
    drawers = {"reference": load(FOLDER), "by word": load(FOLDER, by_word=True)}
    rows = []
    for path in sorted(SUBJECTS.glob("*.png"))[-BESIDE:]:
        (photo,) = references([read_pixels(path)[None]], None, PHOTO, crop=True).photos
        row: list[Cell] = [(photo, "photo")]
        for prompt in PROMPTS:
            for name, drawer in drawers.items():
                (picture,) = drawer([prompt], [photo[None]], [SEED])
                row.append((picture, f"{name}: {prompt.replace('<|subj|>', '*')}"))
        rows.append(row)
    return rows


def main(work: Path, results: Path, out: Path) -> None:
    _, cases = read_cases(Options(work / "atlas.npz", results, (), None, number=256, resolution=SIDE, photo=PHOTO))
    sheet(photo_rows(cases, results), SHOWN, lines=1).save(out / "photo.jpg", quality=88)
    sheet(separation_rows(), SHOWN, lines=3).save(out / "separation.jpg", quality=88)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m recipes.demo.sheets", description=__doc__.split("\n")[0])
    parser.add_argument("work", type=Path, help="folder with atlas")
    parser.add_argument("results", type=Path, help="folder of the gates' results")
    parser.add_argument("out", type=Path, help="folder for the sheets, such as docs")
    arguments = parser.parse_args()
    main(arguments.work, arguments.results, arguments.out)
