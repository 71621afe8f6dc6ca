"""Training scenes from a folder of annotated pictures."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from ..chance import stream
from ..errors import MMDiffError
from ..photo import prepare_photos
from ..picture_files import open_picture
from .augment import vary
from .faces import faces_in, faces_path, read_face
from .order import Order
from .validate import (
    Broken,
    BrokenRecord,
    Record,
    Segment,
    check_folder,
    load_segments,
    none_good,
    picture_path,
    window,
)

UNCUT = 0.15  # share of references that keep what was around the subject, as a photo without a mask does

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
    ):
        """resolution, photo_size: sides of pictures and references, pixels. max_subjects: of a record with more, as
        many are chosen anew each time; the others stay in the picture and the caption, unbound. faces: the recogniser
        whose faces portraits are trained from; segments without one are no subjects then.

        Raises MMDiffError where there is no folder, or no record in it can be trained on.
        """
        self.folder = Path(folder)
        self.resolution = resolution
        self.photo_size = photo_size
        self.seed = seed
        self.faces = faces
        self.records: list[Record] = []
        self.broken: list[Broken] = []
        for found in check_folder(self.folder):
            if faces and isinstance(found, Record):
                found = self._with_faces(found)
            (self.broken if isinstance(found, Broken) else self.records).append(found)
        if not self.records:
            raise MMDiffError(none_good(self.folder, self.broken))
        for broken in self.broken:
            log.warning("MM-Diff: left out %s", broken)
        self.max_subjects = min(max_subjects, max(len(record.segments) for record in self.records))
        self._order = Order(len(self.records), seed)
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
        (S, 3, P, P) in [0, 1], of the same photos as the references.
        """
        record = self.records[self._order[index]]
        random = stream("references", self.seed, index)
        picture, segments = self._read(record)

        left, top, side = window(segments, [segment.id for segment in record.segments])
        box, size = (left, top, left + side, top + side), (self.resolution, self.resolution)
        image = picture.resize(size, Image.Resampling.LANCZOS, box)
        chosen = sorted(random.permutation(len(record.segments))[: self.max_subjects])
        chosen = [record.segments[number] for number in chosen]
        masks = [_outline(segments, segment).resize(size, Image.Resampling.BOX, box) for segment in chosen]
        shown = [self._elsewhere(record, segment, random) for segment in chosen]
        references = []
        for other, segment in shown:
            seen = (picture, segments) if other is record else self._read(other)
            references.append(self._reference(seen[0], _outline(seen[1], segment), random))
        item = {
            "image": torch.from_numpy(np.array(image)).movedim(-1, 0).float() / 127.5 - 1,
            "caption": record.caption,
            "entities": [(segment.start, segment.end) for segment in chosen],
            "masks": torch.from_numpy(np.stack(masks)).float() / 255,
            "references": torch.from_numpy(np.stack(references)).movedim(-1, 1).float() / 255,
            "record": record.name,
        }
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

    def _elsewhere(self, record: Record, segment: Segment, random: np.random.Generator) -> tuple[Record, Segment]:
        """Where the reference of a segment is taken from: where the same one is seen otherwise, if anywhere."""
        others = [one for one in self._same.get(segment.same, ()) if one[0].name != record.name]
        return others[random.integers(len(others))] if others else (record, segment)

    def _read(self, record: Record) -> tuple[Image.Image, np.ndarray]:
        opened = open_picture(picture_path(self.folder, record.name))
        picture = Image.alpha_composite(Image.new("RGBA", opened.size, "black"), opened).convert("RGB")
        return picture, load_segments(self.folder / f"{record.name}.npy")

    def _reference(self, picture: Image.Image, outline: Image.Image, random: np.random.Generator) -> np.ndarray:
        """(P, P, 3) of 8 bits: the subject cut out of the picture, varied."""
        box = outline.getbbox()
        subject = picture.crop(box)
        subject.putalpha(255 if random.random() < UNCUT else outline.crop(box))
        return np.asarray(vary(subject, self.photo_size, random))


def _outline(segments: np.ndarray, segment: Segment) -> Image.Image:
    return Image.fromarray((segments == segment.id).astype(np.uint8) * 255)
