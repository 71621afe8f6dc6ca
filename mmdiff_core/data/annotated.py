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
from ..picture_files import open_picture
from .augment import vary
from .order import Order
from .validate import Broken, Record, check_folder, load_segments, none_good, picture_path, window

UNCUT = 0.15  # share of references that keep what was around the subject, as a photo without a mask does

log = logging.getLogger(__name__)


class AnnotatedScenes(Dataset):
    """The good records of a folder, read one at a time. Item `index` is a pure function of seed and index.

    `broken` holds the records that were left out, with their reasons; they are logged too. `max_subjects`: of any item.
    The layout is described in `mmdiff_core.data.validate`.
    """

    def __init__(self, folder: Path | str, resolution: int, photo_size: int, seed: int, max_subjects: int = 2):
        """resolution, photo_size: sides of pictures and references, pixels. max_subjects: of a record with more, as
        many are chosen anew each time; the others stay in the picture and the caption, unbound.

        Raises MMDiffError where there is no folder, or no record in it can be trained on.
        """
        self.folder = Path(folder)
        self.resolution = resolution
        self.photo_size = photo_size
        self.seed = seed
        self.records: list[Record] = []
        self.broken: list[Broken] = []
        for found in check_folder(self.folder):
            (self.broken if isinstance(found, Broken) else self.records).append(found)
        if not self.records:
            raise MMDiffError(none_good(self.folder, self.broken))
        for broken in self.broken:
            log.warning("MM-Diff: left out %s", broken)
        self.max_subjects = min(max_subjects, max(len(record.segments) for record in self.records))
        self._order = Order(len(self.records), seed)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict:
        """image (3, H, W) in [-1, 1]; caption; entities, (start, end) of each phrase in the caption; masks (S, H, W) in
        [0, 1]; references (S, 3, P, P) in [0, 1]; record, its name.
        """
        record = self.records[self._order[index]]
        random = stream("references", self.seed, index)
        opened = open_picture(picture_path(self.folder, record.name))
        picture = Image.alpha_composite(Image.new("RGBA", opened.size, "black"), opened).convert("RGB")
        segments = load_segments(self.folder / f"{record.name}.npy")

        left, top, side = window(segments, [segment.id for segment in record.segments])
        box, size = (left, top, left + side, top + side), (self.resolution, self.resolution)
        image = picture.resize(size, Image.Resampling.LANCZOS, box)
        chosen = sorted(random.permutation(len(record.segments))[: self.max_subjects])
        chosen = [record.segments[number] for number in chosen]
        outlines = [Image.fromarray((segments == segment.id).astype(np.uint8) * 255) for segment in chosen]
        masks = [outline.resize(size, Image.Resampling.BOX, box) for outline in outlines]
        references = [self._reference(picture, outline, random) for outline in outlines]
        return {
            "image": torch.from_numpy(np.array(image)).movedim(-1, 0).float() / 127.5 - 1,
            "caption": record.caption,
            "entities": [(segment.start, segment.end) for segment in chosen],
            "masks": torch.from_numpy(np.stack(masks)).float() / 255,
            "references": torch.from_numpy(np.stack(references)).movedim(-1, 1).float() / 255,
            "record": record.name,
        }

    def _reference(self, picture: Image.Image, outline: Image.Image, random: np.random.Generator) -> np.ndarray:
        """(P, P, 3) of 8 bits: the subject cut out of the picture, varied."""
        box = outline.getbbox()
        subject = picture.crop(box)
        subject.putalpha(255 if random.random() < UNCUT else outline.crop(box))
        return np.asarray(vary(subject, self.photo_size, random))
