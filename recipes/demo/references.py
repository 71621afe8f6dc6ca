"""What of a model's mistakes its photos make: `python -m recipes.demo.references WORK MODEL OUT`, atlas in WORK.

The same scenes of `val` from references that differ less and less from what the demo was trained on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mmdiff_core.data.augment import USUAL, Changes
from mmdiff_core.drawing.drawer import load
from mmdiff_core.evaluation.cases import drawn_by, fill, pictures_of
from mmdiff_core.evaluation.report import Results, markdown, write
from mmdiff_core.evaluation.world.benchmark import Options, read_cases, refuse_known_names
from mmdiff_core.evaluation.world.cases import world_cases
from mmdiff_core.evaluation.world.measures import WorldMeasures
from mmdiff_core.evaluation.world.nets import MetricNets
from mmdiff_core.evaluation.world.oracles import CEILING, oracles
from mmdiff_core.world.placing import Free

from .base import PHOTO, SIDE

UPRIGHT, FILLED = {"turn": 0.0}, {"fill": (1.0, 1.0)}
KINDS = {
    "as they are": USUAL,
    "upright": USUAL._replace(**UPRIGHT),
    "filling their photo": USUAL._replace(**FILLED),
    "upright and filling it": USUAL._replace(**UPRIGHT, **FILLED),
    "upright, filling it, never mirrored": USUAL._replace(**UPRIGHT, **FILLED, flips=0.0),
}
CUT_OUT = "as they are, cut out by Encode Subject"
MEASURES = ("identity", "hard", "colour-matched", "edges", "scene", "pair")


class Taken(Free):
    """Subjects anywhere, as the benchmark has them, and references changed so much."""

    def __init__(self, changes: Changes) -> None:
        self.changes = changes


def main(work: Path, model: Path, out: Path, nets_file: Path, number: int) -> str:
    """Draw what is missing, and write results. Returns the table."""
    options = Options(work / "atlas.npz", out, (), nets_file, MEASURES, "val", number, SIDE, PHOTO)
    nets = MetricNets.load(nets_file)
    scenes, cases = read_cases(options)
    refuse_known_names(nets, scenes, options)
    measures = WorldMeasures(scenes, cases, nets, MEASURES)
    plain = load(model)
    draws = {name: (plain, changes) for name, changes in KINDS.items()} | {CUT_OUT: (load(model, cut_out=True), USUAL)}
    scores = {}
    for name, (drawer, changes) in draws.items():
        scenes.placing = Taken(changes)
        folder, asked = out / "pictures" / name, world_cases(scenes, number)
        fill(folder, asked, drawn_by(drawer), drawer.source, drawer.about)
        scores[name] = measures.measure(pictures_of(folder, asked))
    folder = out / "pictures" / "real"
    fill(folder, cases, oracles(scenes, cases)[CEILING], f"{CEILING}, {[case.plan for case in cases]}", CEILING)
    scores["real scene"] = measures.measure(pictures_of(folder, cases))
    about = {"protocol": "What references decide", "cases": f"{number} scenes of val", "model": model}
    results = Results({name: str(one) for name, one in about.items()}, scores, {case.id: case.group for case in cases})
    write(results, out)
    return markdown(results)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m recipes.demo.references", description=__doc__.split("\n")[0])
    parser.add_argument("work", type=Path, help="folder with atlas")
    parser.add_argument("model", type=Path, help="folder that draws, such as mmdiff_core/demo/model")
    parser.add_argument("out", type=Path, help="folder for pictures and results")
    parser.add_argument("--nets", type=Path, default=Path("tests/data/metric_nets.safetensors"))
    parser.add_argument("--number", type=int, default=96, help="of scenes (default: 96)")
    arguments = parser.parse_args()
    print(main(arguments.work, arguments.model, arguments.out, arguments.nets, arguments.number))
