"""`evaluate dreambench`: the measures of the published tables, on photos of real things and people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import MMDiffError
from ..arms import FULL, facts, pictures, read_arms
from ..cases import Case, write_cases, write_sheet
from ..report import Results, Scores, markdown, write
from . import field
from .dreambench import DreamBench, read_dreambench
from .encoders import Clip, Dino
from .faces import Faces

NEEDS = {"clip-t": "clip", "clip-i": "clip", "dino": "dino", "face": "faces"}
_Measures = dict[str, Callable[[Sequence[Case], Mapping[str, Path]], field.Values]]


@dataclass(frozen=True)
class Options:
    """dataset: DreamBench's folder. subjects: those to use, or all. pairs: two subjects a picture. images: of each
    prompt. size: side of the references, pixels. models: `clip`, `dino`, `faces` -> folder. measures: those of NEEDS
    to take; none named means all whose model is there. arms, cut_out: `NAME=FOLDER`."""

    dataset: Path
    out: Path
    arms: Sequence[str]
    models: Mapping[str, Path]
    measures: Sequence[str] = ()
    subjects: Sequence[str] = ()
    pairs: bool = False
    images: int = 4
    size: int = 224
    cut_out: Sequence[str] = ()


def prepare(options: Options) -> str:
    """Write the cases for another program to draw. Returns a report."""
    _, cases = read_cases(options)
    write_cases(cases, options.out)
    return f"Wrote {len(cases)} cases and their references: {options.out / 'cases.json'}."


def run(options: Options) -> str:
    """Draw what is missing, measure every arm, write results and a contact sheet. Returns the table."""
    wanted = wanted_measures(options)
    arms = read_arms(options.arms, cut_out=options.cut_out)
    bench, cases = read_cases(options)
    measures, bounds = open_measures(wanted, options.models, bench)
    options.out.mkdir(parents=True, exist_ok=True)

    drawn = {arm.name: pictures(arm, cases, options.out) for arm in arms}
    scores: dict[str, Scores] = dict(bounds)
    for arm, one in drawn.items():
        scores[arm] = {name: measure(cases, one.files) for name, measure in measures.items()}
    groups = {case.id: case.group for case in cases}
    groups |= {key: key.rpartition("/")[0] for row in bounds.values() for values in row.values() for key in values}
    about = {
        "protocol": "DreamBench, two subjects a picture" if options.pairs else "DreamBench, one subject a picture",
        "pictures": f"{len(cases)}: {len(bench.subjects)} subjects, {options.images} of each prompt",
        **{f"model for {key}": str(folder) for key, folder in options.models.items()},
        **facts(drawn),
    }
    results = Results(about, scores, groups, FULL if FULL in drawn else None)
    write(results, options.out)
    write_sheet(options.out / "sheet.png", cases, {name: one.files for name, one in drawn.items()})
    return markdown(results)


def read_cases(options: Options) -> tuple[DreamBench, list[Case]]:
    bench = read_dreambench(options.dataset, options.subjects)
    cases = (bench.pairs if options.pairs else bench.cases)(options.images, options.size)
    if not cases:
        raise MMDiffError(
            f"{options.dataset} gives no pairs: wanted are two subjects of different classes, and prompts that both "
            "lists have."
        )
    return bench, cases


def wanted_measures(options: Options) -> list[str]:
    for name in options.measures:
        if name not in NEEDS:
            raise MMDiffError(f"There is no measure '{name}'; there are {', '.join(NEEDS)}.")
        if NEEDS[name] not in options.models:
            raise MMDiffError(f"The measure '{name}' needs the folder of its model: give --{NEEDS[name]} FOLDER.")
    wanted = list(options.measures) or [name for name, model in NEEDS.items() if model in options.models]
    if not wanted:
        raise MMDiffError("No model is named, so nothing can be measured: give --clip, --dino or --faces a folder.")
    return wanted


def open_measures(
    wanted: Sequence[str], models: Mapping[str, Path], bench: DreamBench
) -> tuple[_Measures, dict[str, Scores]]:
    """The measures, and what real photos reach in them."""
    photos = {name: subject.photos for name, subject in bench.subjects.items()}
    measures: _Measures = {}
    ceiling, floor = {}, {}
    clip = Clip(models["clip"]) if {"clip-t", "clip-i"} & set(wanted) else None
    if "clip-t" in wanted:
        measures["clip-t"] = lambda cases, files: field.clip_t(clip, cases, files)
    for name, encoder in (("clip-i", clip), ("dino", Dino(models["dino"]) if "dino" in wanted else None)):
        if name in wanted:
            vectors = field.encode_photos(encoder, photos)
            ceiling[name], floor[name] = field.among_photos(vectors)
            measures[name] = lambda cases, files, encoder=encoder, vectors=vectors: field.likeness(
                encoder, cases, files, vectors
            )
    if "face" in wanted:
        faces = Faces.load(models["faces"])
        references = faces.of_references(photos)
        measures["face"] = lambda cases, files: field.face(faces, cases, files, references)
    bounds = {"other photos of the subject": ceiling, "photos of other subjects": floor}
    return measures, {name: row for name, row in bounds.items() if any(row.values())}
