"""The atlas: every sprite of the world in one file, with what it shows and when it may be shown."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..errors import MMDiffError

VERSION = 1


class Sprite(NamedTuple):
    """One drawing. Sprites of one name and family show one individual: they are its renditions."""

    name: str
    determiner: str  # "a", "some" or "a pair of"
    category: str
    style: str
    family: str
    licence: str
    split: str = ""
    width: int = 0  # pixels
    height: int = 0


class Identity(NamedTuple):
    """One individual, and where in the atlas its renditions are."""

    name: str
    determiner: str
    category: str
    family: str
    renditions: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name}@{self.family}"


class Atlas:
    """Sprites, kept encoded and decoded one at a time."""

    def __init__(self, sprites: Sequence[Sprite], encoded: bytes, ends: Sequence[int]):
        """encoded: all pictures, one behind the other; ends: where each one ends."""
        self.sprites = list(sprites)
        self._encoded = encoded
        self._ends = [int(end) for end in ends]

    @classmethod
    def of(cls, sprites: Sequence[Sprite], pictures: Sequence[Image.Image]) -> Atlas:
        """An atlas of RGBA pictures; the sprites' sizes are taken from them."""
        content, ends = io.BytesIO(), []
        sprites = [
            sprite._replace(width=picture.width, height=picture.height)
            for sprite, picture in zip(sprites, pictures, strict=True)
        ]
        for picture in pictures:
            picture.save(content, "WEBP", lossless=True, quality=100)
            ends.append(content.tell())
        return cls(sprites, content.getvalue(), ends)

    @classmethod
    def load(cls, path: Path | str) -> Atlas:
        """Read an atlas file. Raises MMDiffError where there is none, or it is something else."""
        try:
            with np.load(path, allow_pickle=False) as file:
                table = json.loads(file["table"].tobytes())
                encoded, ends = file["encoded"].tobytes(), file["ends"].tolist()
        except FileNotFoundError as error:
            raise MMDiffError(
                f"There is no atlas {path}. Make it once with `python -m mmdiff_core.world.build {path}`."
            ) from error
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise MMDiffError(
                f"{path} is not a whole atlas ({type(error).__name__}). Make it again with "
                f"`python -m mmdiff_core.world.build {path}`."
            ) from error
        if table["version"] != VERSION:
            raise MMDiffError(
                f"{path} is an atlas of version {table['version']}, and this reads version {VERSION}. Make it again "
                f"with `python -m mmdiff_core.world.build {path}`."
            )
        return cls([Sprite(*row) for row in table["sprites"]], encoded, ends)

    def save(self, path: Path) -> None:
        """Write the file, moved into place once it is whole."""
        path.parent.mkdir(parents=True, exist_ok=True)
        table = json.dumps({"version": VERSION, "fields": Sprite._fields, "sprites": self.sprites}).encode()
        part = path.with_name(f".{path.name}.part")
        with open(part, "wb") as file:
            np.savez(
                file,
                table=np.frombuffer(table, np.uint8),
                encoded=np.frombuffer(self._encoded, np.uint8),
                ends=np.asarray(self._ends, np.int64),
            )
        os.replace(part, path)

    def picture(self, index: int) -> Image.Image:
        """The RGBA picture of sprite `index`; its longer side is the atlas's size."""
        start = self._ends[index - 1] if index else 0
        return Image.open(io.BytesIO(self._encoded[start : self._ends[index]])).convert("RGBA")

    def identities(self, split: str) -> list[Identity]:
        """The individuals of one split, in a fixed order. Raises MMDiffError where the split has none."""
        found: dict[tuple[str, str], list[int]] = {}
        for index, sprite in enumerate(self.sprites):
            if sprite.split == split:
                found.setdefault((sprite.name, sprite.family), []).append(index)
        if not found:
            splits = ", ".join(sorted({sprite.split for sprite in self.sprites}))
            raise MMDiffError(f"The atlas has no split {split!r}. It has: {splits}.")
        first = {key: self.sprites[indices[0]] for key, indices in found.items()}
        return [
            Identity(name, first[name, family].determiner, first[name, family].category, family, tuple(indices))
            for (name, family), indices in sorted(found.items())
        ]

    def digest(self) -> str:
        """A hash of all it holds, to say in a checkpoint what it was trained on."""
        return hashlib.sha256(self._encoded + json.dumps(self.sprites).encode()).hexdigest()[:16]
