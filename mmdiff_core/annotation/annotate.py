"""The whole way: from pictures to what was found, from there to records and a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from filelock import FileLock

from ..errors import MMDiffError
from .look import look
from .page import write_page
from .records import Rules, Written, write_records
from .sharing import running
from .sources import read_sources
from .stages import Planned


def annotate(
    folder: Path, out: Path, plan: Sequence[Planned], rules: Rules, tell: Callable[[str], None]
) -> Written | None:
    """Look at every picture, then write the records. Of several processes the one that ends last writes them.

    Returns what was written, or None where another process will. Raises MMDiffError for a folder that can't be read or
    written, a model that can't be opened, and a run with other settings at the same `out`.
    """
    if folder.resolve() in (out.resolve(), *out.resolve().parents):
        raise MMDiffError(f"--out is {out}, in {folder}, which would be annotated again. Name another folder.")
    settings = ", ".join([f"{one.name} {one.source}" for one in plan] + [f"{k} {v}" for k, v in vars(rules).items()])
    with running(out, settings):
        sources, remarks = read_sources(folder, out / "unpacked")
        for remark in remarks:
            tell(remark)
        others = look(sources, plan, out, tell)
        if others:
            tell(f"Other processes are at the last {others} pictures; the one that ends last writes the records.")
            return None
        with FileLock(out / "writing"):
            written = write_records(sources, out, rules)
            write_page(out, written)
        return written
