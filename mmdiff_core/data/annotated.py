"""Training scenes from a folder of annotated pictures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from ..chance import stream
from ..errors import MMDiffError
from ..photo import prepare_photos
from .buckets import Shape, nearest
from .faces import faces_in, faces_path, read_face
from .order import Grouped, Order
from .scene import chosen, opened, outline, reference, stacked, target
from .validate import (
    Broken,
    BrokenRecord,
    Record,
    Segment,
    check_folder,
    load_segments,
    none_good,
    picture_path,
)

PARTS = ("all", "train", "held")
HELD = 20  # of so many records one is held out

log = logging.getLogger(__name__)


class AnnotatedScenes(Dataset):
    """The good records of a folder, read one at a time. Item `index` is a pure function of seed and index.

    `broken` holds the records that were left out, with their reasons; they are logged too. `max_subjects`: of any item.
    The layout is described in `mmdiff_core.data.validate`.
    """

    def __init__(
        self,
        folder: Path | str,
        resolution: int,
        photo_size: int,
        seed: int,
        max_subjects: int = 2,
        faces: str = "",
        part: str = "all",
        variants: int = 0,
        shapes: Sequence[Shape] = (),
        batch: int = 1,
    ):
        """resolution, photo_size: sides of pictures and references, pixels. max_subjects: of a record with more, as
        many are chosen anew each time; the others stay in the picture and the caption, unbound. faces: the recogniser
        whose faces portraits are trained from; segments without one are no subjects then. part: `held` for one record
        in twenty, chosen by a hash of its name, `train` for the others, `all` for both; records of the `same` one go
        together. variants: how many photos are made of a segment, by turns; 0 for a new one each time. shapes: that
        pictures are cut to, none for squares; batch: of so many items, counted from index 0, all have one shape.

        Raises MMDiffError where there is no folder, or no record in it can be trained on.
        """
        self.folder = Path(folder)
        self.resolution = resolution
        self.photo_size = photo_size
        self.seed = seed
        self.faces = faces
        self.records: list[Record] = []
        self.broken: list[Broken] = []
        if part not in PARTS:
            raise MMDiffError(f"part is {part!r}; it must be one of {', '.join(PARTS)}.")
        self.variants = variants
        self.shapes = shapes or ((resolution, resolution),)
        for found in check_folder(self.folder, self.shapes):
            if faces and isinstance(found, Record):
                found = self._with_faces(found)
            (self.broken if isinstance(found, Broken) else self.records).append(found)
        if not self.records:
            raise MMDiffError(none_good(self.folder, self.broken))
        if part != "all":
            self.records = [record for record in self.records if _is_held(record) == (part == "held")]
        if not self.records:
            raise MMDiffError(
                f"Of {self.folder} no record is in the part '{part}'; one in twenty is held out. Add records, or name "
                "another folder for what is held out."
            )
        for broken in self.broken:
            log.warning("MM-Diff: left out %s", broken)
        self.max_subjects = min(max_subjects, max(len(record.segments) for record in self.records))
        self._shapes = [nearest(self.shapes, *record.size) for record in self.records]
        self._order = Grouped(self._shapes, batch, seed) if shapes else Order(len(self.records), seed)
        self._same: dict[str, list[tuple[Record, Segment]]] = {}
        for record in self.records:
            for segment in record.segments:
                if segment.same:
                    self._same.setdefault(segment.same, []).append((record, segment))

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict:
        """image (3, H, W) in [-1, 1]; caption; entities, (start, end) of each phrase in the caption; masks (S, H, W) in
        [0, 1]; references (S, 3, P, P) in [0, 1]; record, its name; with faces also faces (S, D_id) and crops
        (S, 3, P, P) in [0, 1], of the same photos as the references; with shapes also sizes (6,): height and width of
        the picture, top and left of the cut in the resized picture, height and width of the cut, pixels.
        """
        number = self._order[index]
        record, shape = self.records[number], self._shapes[number]
        random = stream("references", self.seed, index)
        picture, segments = self._read(record)
        subjects = chosen(record, self.max_subjects, random)
        turns = [self._turn(random, number, segment) for segment in subjects]
        shown = [self._elsewhere(record, segment, turn) for segment, turn in zip(subjects, turns, strict=True)]
        references = []
        for (other, segment), turn in zip(shown, turns, strict=True):
            seen = (picture, segments) if other is record else self._read(other)
            references.append(reference(seen[0], outline(seen[1], segment), self.photo_size, turn))
        item = target(record, picture, segments, subjects, shape, sizes=isinstance(self._order, Grouped))
        item["references"] = stacked(references)
        if self.faces:
            found = [read_face(faces_path(self.folder, other.name), segment.id, self.faces) for other, segment in shown]
            item["faces"] = torch.stack([face.vector for face in found])
            crops = torch.stack([face.crop for face in found]).float() / 255
            item["crops"] = prepare_photos(crops, self.photo_size)
        return item

    def _with_faces(self, record: Record) -> Record | Broken:
        """The record with those of its segments that have a face."""
        path = faces_path(self.folder, record.name)
        try:
            known = faces_in(path, self.faces)
        except BrokenRecord as broken:
            return Broken(*broken.args)
        segments = tuple(segment for segment in record.segments if segment.id in known)
        return record._replace(segments=segments) if segments else Broken(path, "no segment has a face")

    def _turn(self, random: np.random.Generator, record: int, segment: Segment) -> np.random.Generator:
        """What decides on a segment's reference: the item's own chance, or that of one of the segment's variants."""
        if not self.variants:
            return random
        return stream("variants", self.seed, record, segment.start, int(random.integers(self.variants)))

    def _elsewhere(self, record: Record, segment: Segment, random: np.random.Generator) -> tuple[Record, Segment]:
        """Where the reference of a segment is taken from: where the same one is seen otherwise, if anywhere."""
        others = [one for one in self._same.get(segment.same, ()) if one[0].name != record.name]
        return others[random.integers(len(others))] if others else (record, segment)

    def _read(self, record: Record) -> tuple[Image.Image, np.ndarray]:
        picture = opened(picture_path(self.folder, record.name))
        return picture, load_segments(self.folder / f"{record.name}.npy")


def _is_held(record: Record) -> bool:
    name = min((segment.same for segment in record.segments if segment.same), default=record.name)
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") % HELD == 0
