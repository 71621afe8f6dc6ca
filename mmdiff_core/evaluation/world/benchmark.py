"""`evaluate world`: the procedural world, where what was to be drawn is known to the pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ...errors import MMDiffError
from ...files import read_safetensors
from ...world.atlas import Atlas
from ...world.scenes import WorldScenes
from ..arms import FULL, Drawn, facts, pictures, read_arms
from ..cases import fill, pictures_of, write_cases, write_sheet
from ..report import Results, Scores, markdown, write
from .attention import MAPS, mass, record_maps
from .cases import WorldCase, seen_by, world_cases
from .leak import leaks
from .measures import MEASURES, WorldMeasures
from .nets import MetricNets
from .oracles import CEILING, oracles

if TYPE_CHECKING:
    from ...drawing.drawer import Drawer

SEED = 1
EVEN = "oracle: even attention"


@dataclass(frozen=True)
class Options:
    """atlas: the world's file. nets: the file of the metric networks. split: of the atlas. number: of cases, half of
    them with two subjects. resolution, photo: sides of the oracles' pictures and of the references, pixels. measures:
    of MEASURES, `attention` and `leak`, or all. arms, by_word, cut_out, masked: `NAME=FOLDER`."""

    atlas: Path
    out: Path
    arms: Sequence[str]
    nets: Path | None
    measures: Sequence[str] = ()
    split: str = "test"
    number: int = 512
    resolution: int = 64
    photo: int = 224
    by_word: Sequence[str] = ()
    cut_out: Sequence[str] = ()
    masked: Sequence[str] = ()


def prepare(options: Options) -> str:
    """Write the cases for another program to draw. Returns a report."""
    _, cases = read_cases(options)
    write_cases(cases, options.out)
    return f"Wrote {len(cases)} cases and their references: {options.out / 'cases.json'}."


def run(options: Options) -> str:
    """Draw what is missing, measure every arm and oracle, write results and contact sheets. Returns the table."""
    known = (*MEASURES, "attention", "leak")
    for name in options.measures:
        if name not in known:
            raise MMDiffError(f"There is no measure '{name}'; there are {', '.join(known)}.")
    wanted = options.measures or known
    if options.nets is None:
        raise MMDiffError("The world is measured by its metric networks: give --nets FILE (`evaluate nets` makes it).")
    arms = read_arms(options.arms, options.by_word, options.cut_out, options.masked)
    nets = MetricNets.load(options.nets)
    scenes, cases = read_cases(options)
    refuse_known_names(nets, scenes, options)

    benchmark = f"{len(cases)} scenes of {options.split}, atlas {scenes.atlas.digest()}"
    drawn: dict[str, Drawn] = {}
    truth = f"{benchmark}, {options.resolution} pixels, {[case.plan for case in cases]}"
    for name, draw in oracles(scenes, cases).items():
        folder = options.out / "pictures" / name.replace(": ", " ")
        fill(folder, cases, draw, f"{name}, {truth}", name)
        drawn[name] = Drawn(folder, pictures_of(folder, cases))

    def record(seen: Sequence[WorldCase], drawer: Drawer, folder: Path) -> None:
        if "attention" in wanted:
            record_maps(drawer, scenes, seen, folder / MAPS)

    runs = {}
    for arm in arms:
        seen = seen_by(arm, cases)
        runs[arm.name] = pictures(arm, seen, options.out, partial(record, seen))
    files = {name: one.files for name, one in (drawn | runs).items()}
    measures = WorldMeasures(scenes, cases, nets, wanted)
    scores: dict[str, Scores] = {name: measures.measure(all_of) for name, all_of in files.items()}
    if "attention" in wanted:
        attention = {name: _attention(one.folder, scenes, cases) for name, one in runs.items()}
        for name, row in attention.items():
            scores[name] = {**scores[name], **row}
        if any(attention.values()):
            scores[EVEN] = _even(scenes, cases)
    if "leak" in wanted:
        for name, row in leaks(scenes, cases, measures, arms, files[CEILING], options.out, truth).items():
            scores[name] = {**scores.get(name, {}), **row}
    about = {
        "protocol": "Procedural world",
        "cases": benchmark,
        "metric networks": f"{options.nets}: {nets.about.steps} steps on {len(nets.about.names)} other names",
        **facts(runs),
    }
    results = Results(about, scores, {case.id: case.group for case in cases}, FULL if FULL in files else None)
    write(results, options.out)
    single = [case for case in cases if len(case.subjects) == 1]
    double = [case for case in cases if len(case.subjects) == 2]
    for name, part in (("one", single), ("two", double)):
        if part:
            write_sheet(options.out / f"sheet-{name}.png", part, files)
    return markdown(results)


def read_cases(options: Options) -> tuple[WorldScenes, list[WorldCase]]:
    scenes = WorldScenes(
        Atlas.load(options.atlas), options.resolution, options.photo, SEED, options.split, pairs=0.5, looks=0.25
    )
    return scenes, world_cases(scenes, options.number)


def refuse_known_names(nets: MetricNets, scenes: WorldScenes, options: Options) -> None:
    """The networks must not have seen what they measure."""
    known = sorted({identity.name for identity in scenes.identities} & set(nets.about.names))
    if known:
        raise MMDiffError(
            f"{options.nets} was trained on {len(known)} of the names in the split '{options.split}' of "
            f"{options.atlas}, such as '{known[0]}', so it can't measure that. Use another split, or train networks "
            "with this atlas by `evaluate nets`."
        )


def _attention(folder: Path, scenes: WorldScenes, cases: Sequence[WorldCase]) -> Scores:
    """Of the maps that were recorded beside the pictures, where they were; pairs only."""
    if not (folder / MAPS).is_file():
        return {}
    maps, _ = read_safetensors(folder / MAPS)
    found: dict[str, dict[str, float]] = {}
    for case in cases:
        for branch in ("text", "image"):
            if (key := f"{branch}/{case.id}") in maps:
                shares = mass(maps[key], torch.from_numpy(scenes.draw(case.plan)[1]))
                found.setdefault(f"{branch} attention, own", {})[case.id] = float(shares.own.mean())
                found.setdefault(f"{branch} attention, other", {})[case.id] = float(shares.other.mean())
    return found


def _even(scenes: WorldScenes, cases: Sequence[WorldCase]) -> Scores:
    """What a map that looks everywhere alike scores."""
    found: dict[str, dict[str, float]] = {"own": {}, "other": {}}
    for case in cases:
        if len(case.subjects) == 2:
            shares = mass(torch.ones(2, 16, 16), torch.from_numpy(scenes.draw(case.plan)[1]))
            found["own"][case.id], found["other"][case.id] = float(shares.own.mean()), float(shares.other.mean())
    return {f"{branch} attention, {which}": found[which] for branch in ("text", "image") for which in found}
