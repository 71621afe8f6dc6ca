"""Scenes of one or two subjects: first a plan of what is where, then its pixels, masks, caption and references."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from ..chance import stream
from ..data.augment import fitted, recoloured, vary
from ..data.order import Order
from ..errors import MMDiffError
from .atlas import Atlas, Identity
from .backgrounds import SCENES, background
from .captions import Mention, caption, names_a_colour
from .looks import LOOKS, PLAIN, rendered
from .placing import MARGIN, Free, Settled

RELATIONS = ("to the left of", "to the right of", "above", "below")
TILT = 8.0  # degrees
# Longer side of the upright box around a subject as a share of the canvas. "big" and "small" leave a gap to each other.
SIZES = {"small": (0.34, 0.44), "": (0.42, 0.66), "big": (0.62, 0.76)}
PAIR_SIZES = (0.35, 0.46)


@dataclass(frozen=True)
class Placed:
    """One subject of a scene. Lengths and places are shares of the canvas's side.

    hue: how far all its colours are turned, radians; it makes a new individual, so references share it.
    width, height: of the upright box around it, once tilted. x, y: centre of that box.
    """

    identity: Identity
    sprite: int
    hue: float
    flip: bool
    tilt: float
    word: str
    size_word: str
    width: float
    height: float
    x: float
    y: float
    grounded: bool

    def __str__(self) -> str:
        return f"{self.identity}#{round(math.degrees(self.hue))}"


@dataclass(frozen=True)
class Plan:
    """A scene before it is drawn. relation: what the caption says between two subjects, "" for one.

    seed: of all that chance decides while drawing.
    """

    scene: str
    look: str
    subjects: tuple[Placed, ...]
    relation: str
    seed: int

    def caption(self) -> tuple[str, list[tuple[int, int]]]:
        """The sentence, and the characters of each subject's name in it."""
        mentions = [
            Mention(
                placed.identity.determiner if placed.word == placed.identity.name else "a",
                placed.size_word,
                placed.word,
            )
            for placed in self.subjects
        ]
        look = "" if self.look == PLAIN else LOOKS[self.look].phrase
        return caption(look, mentions, self.relation, SCENES[self.scene].phrase)


class WorldScenes(Dataset):
    """Endless scenes of one split. Item `index` is a pure function of seed and index.

    Each epoch shows every individual of the split once as the first subject. `max_subjects`: of any scene.
    """

    def __init__(
        self,
        atlas: Atlas | Path | str,
        resolution: int,
        photo_size: int,
        seed: int,
        split: str = "train",
        pairs: float = 0.5,
        looks: float = 0.25,
        recolour: float = 0.5,
        categories: float = 0.25,
        settled: bool = False,
    ):
        """resolution, photo_size: sides of pictures and references, pixels.

        pairs: share of scenes with two subjects. looks: share that is not plain. recolour: share of subjects in other
        colours than they were drawn in. categories: share of subjects whose caption says the kind ("an animal") or
        "a toy" in place of the name. settled: chance decides nothing that the caption does not say (`Settled`).
        """
        self.atlas = atlas if isinstance(atlas, Atlas) else Atlas.load(atlas)
        self.identities = self.atlas.identities(split)
        if pairs and len({identity.name for identity in self.identities}) < 2:
            raise MMDiffError(
                f"Split {split!r} of the atlas has one name only; scenes of pairs need two. Set pairs to 0."
            )
        self.resolution = resolution
        self.photo_size = photo_size
        self.seed = seed
        self.split = split
        self.pairs = pairs
        self.max_subjects = 2 if pairs else 1
        self.looks = looks
        self.recolour = recolour
        self.categories = categories
        self.placing = Settled() if settled else Free()
        self._order = Order(len(self.identities), seed)

    def __len__(self) -> int:
        return len(self.identities)

    def __getitem__(self, index: int) -> dict:
        """image (3, H, W) in [-1, 1]; caption; entities, (start, end) of each name in the caption; masks (S, H, W) in
        [0, 1]; references (S, 3, P, P) in [0, 1]; record, who is shown.
        """
        plan = self.plan(index)
        picture, masks = self.draw(plan)
        text, entities = plan.caption()
        references = [np.asarray(photo.convert("RGB")) for photo in self.photos(plan)]
        return {
            "image": torch.from_numpy(picture).movedim(-1, 0).float() / 127.5 - 1,
            "caption": text,
            "entities": entities,
            "masks": torch.from_numpy(masks),
            "references": torch.from_numpy(np.stack(references)).movedim(-1, 1).float() / 255,
            "record": f"{self.split} {index}: " + ", ".join(map(str, plan.subjects)),
        }

    def plan(self, index: int) -> Plan:
        """What item `index` shows."""
        first = self.identities[self._order[index]]
        random = stream("scene", self.seed, index)
        scene = list(SCENES)[random.integers(len(SCENES))]
        look = list(LOOKS)[random.integers(len(LOOKS))] if random.random() < self.looks else PLAIN
        ground = SCENES[scene].ground
        if random.random() < self.pairs:
            second = first
            while second.name == first.name:
                second = self.identities[random.integers(len(self.identities))]
            relation, subjects = self._pair(first, second, ground, random)
        else:
            relation, subjects = "", (self._single(first, ground, random),)
        return Plan(scene, look, subjects, relation, int(random.integers(2**62)))

    def draw(self, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
        """The picture, (H, W, 3) of 8 bits, and each subject's mask, (S, H, W) float32 in [0, 1]."""
        random = stream("drawing", plan.seed)
        side = self.resolution
        picture = np.array(background(plan.scene, side, random), np.float32)
        for placed in plan.subjects:
            if placed.grounded:
                _cast_shadow(picture, placed)
        masks = np.zeros((len(plan.subjects), side, side), np.float32)
        for placed, mask in zip(plan.subjects, masks, strict=True):
            sprite = self.individual(placed.sprite, placed.hue)
            if placed.flip:
                sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            sprite = sprite.rotate(placed.tilt, Image.Resampling.BILINEAR, expand=True)
            sprite = fitted(sprite, round(max(placed.width, placed.height) * side))
            left = min(max(round(placed.x * side - sprite.width / 2), 0), side - sprite.width)
            top = min(max(round(placed.y * side - sprite.height / 2), 0), side - sprite.height)
            pixels = np.asarray(sprite, np.float32)
            opacity = pixels[..., 3:] / 255
            window = np.s_[top : top + sprite.height, left : left + sprite.width]
            picture[window] += (pixels[..., :3] - picture[window]) * opacity
            mask[window] = opacity[..., 0]
        picture, masks = rendered(plan.look, picture, masks, random)
        return picture.round().clip(0, 255).astype(np.uint8), masks.astype(np.float32)

    def photos(self, plan: Plan) -> list[Image.Image]:
        """A photo of each subject, RGBA as `photo` gives it; without opacity they are the item's references."""
        random = stream("references", plan.seed)
        return [self.photo(placed, random) for placed in plan.subjects]

    def reference(self, placed: Placed, random: np.random.Generator) -> np.ndarray:
        """Another photo of a subject, (P, P, 3) of 8 bits."""
        return np.asarray(self.photo(placed, random).convert("RGB"))

    def photo(self, placed: Placed, random: np.random.Generator) -> Image.Image:
        """The same as RGBA, opaque where the subject is: another rendition of it where there is one."""
        others = [sprite for sprite in placed.identity.renditions if sprite != placed.sprite] or [placed.sprite]
        picture = self.individual(others[random.integers(len(others))], placed.hue)
        if self.placing.faithful and placed.flip:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return vary(picture, self.photo_size, random, self.placing.changes, _any_background)

    def individual(self, sprite: int, hue: float) -> Image.Image:
        """The RGBA picture of a sprite in its colours."""
        picture = self.atlas.picture(sprite)
        return recoloured(picture, hue) if hue else picture

    def _single(self, identity: Identity, ground: bool, random: np.random.Generator) -> Placed:
        size = ("", "", "small", "big")[random.integers(4)]
        width, height, drawn = self._drawn(identity, self.placing.between(SIZES[size], random), random)
        x = self.placing.between((MARGIN + width / 2, 1 - MARGIN - width / 2), random)
        return Placed(**drawn, size_word=size, x=x, y=self.placing.standing(height, ground, random), grounded=ground)

    def _pair(
        self, first: Identity, second: Identity, ground: bool, random: np.random.Generator
    ) -> tuple[str, tuple[Placed, Placed]]:
        """Two subjects that do not touch, so that every pixel has one owner at most."""
        relation = RELATIONS[random.choice(4, p=(0.35, 0.35, 0.15, 0.15))]
        drawn = [self._drawn(one, self.placing.between(PAIR_SIZES, random), random) for one in (first, second)]
        leading = [0, 1] if relation in ("to the left of", "above") else [1, 0]
        beside = relation in RELATIONS[:2]
        # Along the axis of the relation.
        middles = self.placing.middles([drawn[i][0] if beside else drawn[i][1] for i in leading], random)
        placed: list[Placed | None] = [None, None]
        for which, middle in zip(leading, middles, strict=True):
            width, height, rest = drawn[which]
            if beside:
                x, y, grounded = middle, self.placing.standing(height, ground, random), ground
            else:
                spread = 0.12 * (1 - width)
                x, y = 0.5 + self.placing.between((-spread, spread), random), middle
                grounded = ground and which == leading[1]
            placed[which] = Placed(**rest, size_word="", x=x, y=y, grounded=grounded)
        return self.placing.said(relation, random), tuple(placed)

    def _drawn(self, identity: Identity, length: float, random: np.random.Generator) -> tuple[float, float, dict]:
        """Width and height of a tilted subject, and how it is drawn."""
        sprite = identity.renditions[random.integers(len(identity.renditions))]
        word = identity.name
        if random.random() < self.categories:
            word = identity.category if random.random() < 0.6 else "toy"
        # Said or not, a colour in the name binds: a "red apple" has to stay one.
        turn = random.random() < self.recolour and not names_a_colour(identity.name)
        tilt = self.placing.between((-TILT, TILT), random)
        size = self.atlas.sprites[sprite]
        cosine, sine = math.cos(math.radians(tilt)), abs(math.sin(math.radians(tilt)))
        width, height = size.width * cosine + size.height * sine, size.width * sine + size.height * cosine
        scale = length / max(width, height)
        width, height = width * scale, height * scale
        drawn = {
            "identity": identity,
            "sprite": sprite,
            "hue": random.uniform(0.7, 2 * math.pi - 0.7) if turn else 0.0,
            "flip": bool(random.random() < 0.5),
            "tilt": tilt,
            "word": word,
            "width": width,
            "height": height,
        }
        return width, height, drawn


def _cast_shadow(picture: np.ndarray, placed: Placed) -> None:
    """Darken the ground where the subject touches it; picture (H, W, 3) is changed."""
    side = len(picture)
    foot, half, flat = (placed.y + placed.height * 0.47) * side, placed.width * 0.55 * side, 0.05 * side
    top, bottom = max(round(foot - 2 * flat), 0), min(round(foot + 2 * flat), side)
    y = (np.arange(top, bottom, dtype=np.float32)[:, None] - foot) / flat
    x = (np.arange(side, dtype=np.float32) - placed.x * side) / half
    picture[top:bottom] *= 1 - 0.38 * np.exp(-(y**2) - x**2)[..., None]


def _any_background(side: int, random: np.random.Generator) -> Image.Image:
    return background(list(SCENES)[random.integers(len(SCENES))], side, random)
