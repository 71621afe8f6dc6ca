"""Every picture through all stages. What was found is kept: a run goes on where it stopped, and several share one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from PIL import Image

from ..errors import MMDiffError
from ..picture_files import open_picture
from .found import Found, read_found, write_found
from .likeness import outlook
from .sharing import alone
from .sources import Source
from .stages import Planned, Stage

FOUND = "found"


def look(sources: Sequence[Source], plan: Sequence[Planned], out: Path, tell: Callable[[str], None]) -> int:
    """Find what is not known yet. Returns how many pictures other processes are still at.

    Models are opened only where there is anything to do. Raises MMDiffError where one can't be opened, and where
    nothing can be written.
    """
    stages: dict[str, Stage] = {}
    waiting = [source for source in sources if _left(read_found(found_path(out, source)), source, plan)]
    if waiting:
        tell(f"{len(sources) - len(waiting)} of {len(sources)} pictures are known already.")
        stages = {planned.name: planned.open() for planned in plan}
    done = 0
    for again in (False, True):  # those that another process had, once more: it may have ended before it was done
        taken = []
        for source in waiting:
            if not alone(out, source.name, partial(_find, source, plan, stages, out)):
                taken.append(source)
                continue
            done += 1
            if done % 100 == 0 and not again:
                tell(f"{done} of {len(waiting)} pictures")
        waiting = taken
    return len(waiting)


def found_path(out: Path, source: Source) -> Path:
    """Where it is kept what was found in a picture."""
    return out / FOUND / f"{source.name}.safetensors"


def _first(source: Source) -> tuple[str, str]:
    return "picture", f"{source.state} {source.caption}"


def _left(found: Found, source: Source, plan: Sequence[Planned]) -> list[Planned]:
    """The stages that are to be run: from the first on that is missing or was another one."""
    if not found.made or found.made[0] != _first(source):
        return list(plan)
    if found.problem:
        return []
    for number, planned in enumerate(plan):
        if found.made[number + 1 : number + 2] != ((planned.name, planned.source),):
            return list(plan[number:])
    return []


def _find(source: Source, plan: Sequence[Planned], stages: dict[str, Stage], out: Path) -> None:
    path = found_path(out, source)
    found = read_found(path, whole=True)
    left = _left(found, source, plan)
    if not left:
        return  # another process has done it since
    first = _first(source)
    try:
        opened = open_picture(source.path)
    except MMDiffError as error:
        write_found(path, Found(made=(first,), problem=f"can't be read ({error.__cause__})"))
        return
    picture = Image.alpha_composite(Image.new("RGBA", opened.size, "black"), opened).convert("RGB")
    if not found.made or found.made[0] != first:
        found = Found(made=(first,), size=picture.size, likeness=outlook(picture), caption=source.caption)
    found = found.without({name for name, _ in found.made[len(plan) - len(left) + 1 :]})
    found = replace(found, made=found.made[: len(plan) - len(left) + 1])
    for planned in left:
        if _wanted(planned.name, source, found):
            found = stages[planned.name](picture, found)
        found = replace(found, made=(*found.made, (planned.name, planned.source)))
    write_found(path, found.with_shares())


def _wanted(stage: str, source: Source, found: Found) -> bool:
    """Whether there is anything to do: a picture keeps the caption it came with, and nothing is looked for in vain."""
    if stage == "caption":
        return not source.caption
    if stage == "words":
        return bool(found.caption)
    return bool(found.phrases)
