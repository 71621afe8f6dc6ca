"""Several processes at one folder: each picture is one process's at a time, and all of them do the same."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import MMDiffError


def alone(out: Path, name: str, work: Callable[[], None]) -> bool:
    """Do the work on a picture unless another process is at it. A claim ends with its process, however that ends."""
    claim = out / "claims" / hashlib.sha256(name.encode()).hexdigest()[:32]
    claim.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(claim)
    if not _taken(lock):
        return False
    try:
        work()
        claim.unlink(missing_ok=True)  # who waits for it looks again, and finds that the work is done
    finally:
        lock.release()
    return True


@contextmanager
def running(out: Path, settings: str) -> Iterator[None]:
    """While a run lasts. Raises MMDiffError where another one is at the same folder with other settings."""
    folder = out / "running"
    own = folder / uuid.uuid4().hex
    lock = FileLock(own.with_suffix(".lock"))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "door"):
            for other in folder.glob("*.txt"):
                if _ended(other):
                    other.unlink()
                elif (theirs := other.read_text(encoding="utf-8")) != settings:
                    raise MMDiffError(
                        f"Another run is at {out}, by {theirs}; this one is by {settings}. Wait for it, or name "
                        "another --out."
                    )
            lock.acquire()
            own.with_suffix(".txt").write_text(settings, encoding="utf-8")
    except OSError as error:
        raise MMDiffError(f"{out} can't be written ({error}). Name a folder that you may write to as --out.") from error
    try:
        yield
    finally:
        own.with_suffix(".txt").unlink(missing_ok=True)
        lock.release()
        own.with_suffix(".lock").unlink(missing_ok=True)


def _ended(run: Path) -> bool:
    lock = FileLock(run.with_suffix(".lock"))
    if not _taken(lock):
        return False
    lock.release()
    return True


def _taken(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True
