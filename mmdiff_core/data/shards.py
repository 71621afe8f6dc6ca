"""Training scenes from tar shards, each read from its beginning to its end.

Batches take turns among the shards: batch b, of all processes together, comes from the shard whose turn b modulo their
number is. So where that number is a multiple of processes times workers, each worker reads shards of its own. Which
record an index means depends on nothing but the seed, the batch and the shards, so that a run goes on with other
processes and workers.
"""

from __future__ import annotations

import logging
import os
import tarfile
from collections.abc import Iterator
from glob import glob
from io import BytesIO
from itertools import count, groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from ..chance import stream
from ..errors import MMDiffError
from .scene import chosen, opened, outline, reference, stacked, target
from .validate import PICTURES, BrokenRecord, Record, check_map, load_segments, read_annotation

WANTED = (".npy", ".json")

log = logging.getLogger(__name__)


class _Read(NamedTuple):
    record: Record
    picture: Image.Image
    segments: np.ndarray


class Shard:
    """One tar file: members of one name are a record, its picture, segment map and annotation, in any order."""

    def __init__(self, path: Path) -> None:
        """Counts the records by the file's table. Raises MMDiffError where it is no whole tar file."""
        self.path = path
        try:
            with tarfile.open(path) as file:
                members = [member for member in file if member.isfile()]
            self.count = sum(1 for _, group in groupby(members, _name) if _is_record([one.name for one in group]))
        except (OSError, EOFError, tarfile.TarError) as error:
            raise MMDiffError(f"The shard {path} is no whole tar file ({error}). Copy it again.") from error
        if members and path.suffix == ".tar" and members[-1].offset_data + members[-1].size > path.stat().st_size:
            raise MMDiffError(f"The shard {path} is cut off within {members[-1].name}. Copy it again.")

    def records(self) -> Iterator[tuple[str, dict[str, bytes]]]:
        """One record after another: its name, and its members' contents by their endings."""
        with tarfile.open(self.path, "r|*") as file:
            for _, group in groupby((member for member in file if member.isfile()), _name):
                content = {member.name: file.extractfile(member).read() for member in group}
                if _is_record(content):
                    name = _name_of(next(iter(content)))
                    yield name, {key[len(name) :]: value for key, value in content.items()}


class _Place:
    """Where a shard is being read. number: of the record read last, -1 before the first."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.records = shard.records()
        self.number = -1
        self.last: tuple[str, dict[str, bytes]] = ("", {})

    def at(self, number: int) -> tuple[str, dict[str, bytes]]:
        """A record that was not passed yet."""
        while self.number < number:
            self.last = next(self.records)
            self.number += 1
        return self.last


class ShardScenes(Dataset):
    """The records of tar shards. Item `index` is a pure function of seed, batch and index; rising indices are cheap.

    A record that can't be trained on is left out when it is met: the next one of its shard takes its place.
    """

    def __init__(
        self, shards: str, resolution: int, photo_size: int, seed: int, batch: int = 1, max_subjects: int = 2
    ) -> None:
        """shards: a pattern, such as `data/*.tar`. resolution, photo_size: sides of pictures and references, pixels.
        batch: so many items, counted from index 0, follow each other in one shard. max_subjects: see `AnnotatedScenes`.

        Raises MMDiffError where no file matches, one is no whole tar file, or none holds a record.
        """
        self.shards = [Shard(Path(path)) for path in sorted(glob(shards))]
        self.shards = [shard for shard in self.shards if shard.count]
        if not self.shards:
            raise MMDiffError(
                f"No record is in {shards}. Wanted are tar files in which NAME.jpg (or .png), NAME.npy and NAME.json "
                "follow each other."
            )
        self.resolution = resolution
        self.photo_size = photo_size
        self.seed = seed
        self.batch = batch
        self.max_subjects = max_subjects
        self._process = 0
        self._places: dict[int, _Place] = {}
        self._deals: list[np.ndarray] = []
        self._said: set[Path] = set()

    def __len__(self) -> int:
        return sum(shard.count for shard in self.shards)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """As `AnnotatedScenes`, in squares. Raises IndexError below 0, MMDiffError where a shard has no good record."""
        if index < 0:
            raise IndexError(index)
        random = stream("references", self.seed, index)
        turn, place = divmod(index // self.batch, len(self.shards))
        lane, number = place, turn * self.batch + index % self.batch
        record, picture, segments = self._good(lane, *self._found(lane, number))
        subjects = chosen(record, self.max_subjects, random)
        references = [reference(picture, outline(segments, segment), self.photo_size, random) for segment in subjects]
        square = (self.resolution, self.resolution)
        return target(record, picture, segments, subjects, square, sizes=False) | {"references": stacked(references)}

    def _found(self, lane: int, number: int) -> tuple[int, int]:
        """The shard, and the record in it, that a lane shows behind so many others; each epoch deals shards anew."""
        for epoch in count():
            if epoch == len(self._deals):
                self._deals.append(stream("shards", self.seed, epoch).permutation(len(self.shards)))
            shard = int(self._deals[epoch][lane])
            if number < self.shards[shard].count:
                return shard, number
            number -= self.shards[shard].count

    def _good(self, lane: int, shard: int, number: int) -> _Read:
        records = self.shards[shard].count
        for step in range(records):
            try:
                return self._read(lane, shard, (number + step) % records)
            except BrokenRecord as broken:
                file, reason = broken.args
                if file not in self._said:
                    log.warning("MM-Diff: left out %s: %s", file, reason)
                    self._said.add(file)
        raise MMDiffError(f"None of the {records} records of {self.shards[shard].path} can be trained on.")

    def _read(self, lane: int, shard: int, number: int) -> _Read:
        if self._process != os.getpid():  # a forked process would move the place of the file in the other one too
            self._process, self._places = os.getpid(), {}
        place = self._places.get(lane)
        if place is None or place.shard is not self.shards[shard] or place.number > number:
            place = self._places[lane] = _Place(self.shards[shard])
        name, content = place.at(number)
        path = place.shard.path / name
        caption, segments = read_annotation(path.with_name(f"{path.name}.json"), content[".json"])
        suffix = next(suffix for suffix in PICTURES if suffix in content)
        try:
            picture = opened(BytesIO(content[suffix]))
        except MMDiffError as error:
            file = path.with_name(path.name + suffix)
            raise BrokenRecord(file, f"the picture can't be read ({error.__cause__})") from error
        map_path = path.with_name(f"{path.name}.npy")
        found = load_segments(map_path, BytesIO(content[".npy"]))
        record = Record(name, caption, segments, picture.size)
        check_map(map_path, record, found)
        return _Read(record, picture, found)


def _name_of(member: str) -> str:
    """A member's name without its ending, which begins at the first point of its last part."""
    folder, slash, name = member.rpartition("/")
    return folder + slash + name.partition(".")[0]


def _name(member: tarfile.TarInfo) -> str:
    return _name_of(member.name)


def _is_record(names: Any) -> bool:
    endings = {name[len(_name_of(name)) :] for name in names}
    return endings.issuperset(WANTED) and not endings.isdisjoint(PICTURES)
