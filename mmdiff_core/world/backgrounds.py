"""Places to put subjects in, drawn anew each time, at twice the size and then reduced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Random = np.random.Generator


class Scene(NamedTuple):
    """A kind of place: how captions put it, how it is drawn, and whether things cast a shadow on its ground."""

    phrase: str
    paint: Callable[[Canvas, Random], None]
    ground: bool = True


class Canvas:
    """A picture to draw on. Places and lengths are shares of its side, y downwards."""

    def __init__(self, side: int):
        self.side = 2 * side
        self.picture = Image.new("RGB", (self.side, self.side))
        self._draw = ImageDraw.Draw(self.picture)

    def reduced(self) -> Image.Image:
        return self.picture.reduce(2)

    def fill(self, top: Colour, bottom: Colour, start: float = 0.0, end: float = 1.0) -> None:
        """A gradient over the full width."""
        first, last = round(start * self.side), round(end * self.side)
        share = np.linspace(0, 1, max(last - first, 1))[:, None, None]
        column = np.asarray(top) * (1 - share) + np.asarray(bottom) * share
        strip = Image.fromarray(column.round().astype(np.uint8))
        self.picture.paste(strip.resize((self.side, last - first), Image.Resampling.NEAREST), (0, first))

    def polygon(self, points: Sequence[tuple[float, float]], colour: Colour) -> None:
        self._draw.polygon([(x * self.side, y * self.side) for x, y in points], colour)

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        self._draw.rectangle([value * self.side for value in (left, top, right, bottom)], colour)

    def disc(self, x: float, y: float, radius: float, colour: Colour, flat: float = 1.0) -> None:
        """flat: height over width."""
        tall = radius * flat
        self._draw.ellipse([v * self.side for v in (x - radius, y - tall, x + radius, y + tall)], colour)

    def arc(self, x: float, y: float, radius: float, width: float, colour: Colour) -> None:
        """The upper half of a ring."""
        edges = [value * self.side for value in (x - radius, y - radius, x + radius, y + radius)]
        self._draw.arc(edges, 180, 360, colour, max(1, round(width * self.side)))

    def hills(self, random: Random, height: float, swing: float, waves: float, colour: Colour) -> None:
        """Ground below a wavy line."""
        x = np.linspace(0, 1, 33)
        y = height + swing * np.sin(2 * np.pi * (waves * x + random.random()))
        self.polygon([(0, 1), *zip(x.tolist(), y.tolist(), strict=True), (1, 1)], colour)

    def cloud(self, x: float, y: float, radius: float, colour: Colour) -> None:
        for across, down, share in ((-1.1, 0.15, 0.7), (0, -0.2, 1.0), (1.1, 0.15, 0.75), (0.2, 0.3, 0.9)):
            self.disc(x + across * radius, y + down * radius, share * radius, colour, 0.75)


def near(random: Random, colour: Colour, spread: int = 12) -> Colour:
    """A colour like this one."""
    change = random.integers(-spread, spread + 1, 3).tolist()
    return tuple(min(max(value + by, 0), 255) for value, by in zip(colour, change, strict=True))


def pick(random: Random, *choices):
    return choices[random.integers(len(choices))]


def places(random: Random, number: int, x: tuple[float, float], y: tuple[float, float]) -> list[list[float]]:
    return random.uniform((x[0], y[0]), (x[1], y[1]), (number, 2)).tolist()


def _day(canvas: Canvas, random: Random, clouds: int = 2) -> None:
    canvas.fill(near(random, (105, 180, 245)), near(random, (215, 238, 255), 8))
    for x, y in places(random, clouds, (0, 1), (0.08, 0.3)):
        canvas.cloud(x, y, random.uniform(0.05, 0.09), (248, 251, 255))


def _beach(canvas: Canvas, random: Random) -> None:
    _day(canvas, random, 1)
    canvas.disc(random.uniform(0.1, 0.9), random.uniform(0.1, 0.2), 0.08, (255, 236, 130))
    sea = random.uniform(0.42, 0.5)
    canvas.fill(near(random, (35, 125, 190)), near(random, (90, 195, 215)), sea, sea + 0.16)
    canvas.hills(random, sea + 0.13, 0.015, 1.5, (245, 250, 250))
    canvas.hills(random, sea + 0.155, 0.015, 1.2, near(random, (243, 216, 155)))
    for x, y in places(random, 14, (0, 1), (0.72, 1)):
        canvas.disc(x, y, 0.008, (222, 190, 125))


def _meadow(canvas: Canvas, random: Random) -> None:
    _day(canvas, random)
    canvas.hills(random, random.uniform(0.45, 0.52), 0.05, random.uniform(0.5, 1), near(random, (150, 205, 110)))
    canvas.hills(random, random.uniform(0.56, 0.62), 0.03, random.uniform(0.5, 1), near(random, (105, 180, 75)))
    for x, y in places(random, 16, (0, 1), (0.68, 1)):
        canvas.disc(x, y, 0.018, pick(random, (255, 255, 255), (255, 125, 165), (255, 225, 90)))
        canvas.disc(x, y, 0.007, (250, 180, 40))


def _forest(canvas: Canvas, random: Random) -> None:
    canvas.fill(near(random, (190, 225, 200)), near(random, (130, 185, 140)))
    for row, (green, number) in enumerate((((95, 150, 105), 8), ((35, 100, 60), 6))):
        for x in np.linspace(0, 1, number) + random.uniform(-0.04, 0.04, number):
            foot = 0.62 + 0.08 * row
            canvas.box(x - 0.014, foot - 0.08, x + 0.014, foot + 0.04, (98, 68, 42))
            top, leaf = random.uniform(0.02, 0.18) + 0.08 * row, near(random, green)
            for step in range(3):
                low = foot - 0.06 - (2 - step) * (foot - top) * 0.25
                half = 0.06 + 0.025 * step
                canvas.polygon([(x - half, low), (x, top + step * 0.1), (x + half, low)], leaf)
    canvas.hills(random, 0.71, 0.015, 1, near(random, (80, 130, 60)))


def _desert(canvas: Canvas, random: Random) -> None:
    canvas.fill(near(random, (245, 190, 120)), near(random, (255, 236, 195)))
    canvas.disc(random.uniform(0.2, 0.8), 0.18, 0.1, (255, 250, 222))
    canvas.hills(random, 0.5, 0.06, 0.8, near(random, (232, 175, 100)))
    canvas.hills(random, 0.66, 0.05, 0.7, near(random, (212, 148, 78)))
    for x in random.uniform(0.05, 0.95, 2):
        foot, green = random.uniform(0.55, 0.65), near(random, (60, 125, 70))
        canvas.box(x - 0.018, foot - 0.2, x + 0.018, foot, green)
        canvas.box(x - 0.06, foot - 0.13, x, foot - 0.105, green)
        canvas.box(x - 0.06, foot - 0.17, x - 0.04, foot - 0.105, green)


def _snow(canvas: Canvas, random: Random) -> None:
    canvas.fill(near(random, (135, 165, 205)), near(random, (200, 216, 234)))
    for x in random.uniform(0, 1, 4):
        canvas.polygon([(x - 0.07, 0.62), (x, random.uniform(0.3, 0.4)), (x + 0.07, 0.62)], (110, 145, 150))
    canvas.hills(random, 0.6, 0.04, 0.8, near(random, (228, 238, 248), 5))
    canvas.hills(random, 0.75, 0.03, 0.7, near(random, (243, 248, 253), 4))
    for x, y in places(random, 40, (0, 1), (0, 1)):
        canvas.disc(x, y, random.uniform(0.006, 0.013), (255, 255, 255))


def _mountains(canvas: Canvas, random: Random) -> None:
    _day(canvas, random, 1)
    for x in (random.uniform(0.05, 0.3), random.uniform(0.7, 0.95), random.uniform(0.4, 0.6)):
        top, half, rock = random.uniform(0.1, 0.28), random.uniform(0.3, 0.42), near(random, (108, 108, 130))
        canvas.polygon([(x - half, 0.74), (x, top), (x + half, 0.74)], rock)
        snow = 0.24 * half
        low = top + 0.24 * (0.74 - top)
        zigzag = [(x + snow / 2, low - 0.03), (x, low + 0.02), (x - snow / 2, low - 0.03)]
        canvas.polygon([(x - snow, low), (x, top), (x + snow, low), *zigzag], (246, 248, 252))
    canvas.hills(random, 0.7, 0.02, 0.8, near(random, (95, 145, 85)))


def _houses(canvas: Canvas, random: Random, walls: tuple[Colour, ...], lit: Colour, dark: Colour, share: float) -> None:
    left = 0.0
    while left < 1:
        right, top, wall = (
            left + random.uniform(0.12, 0.22),
            random.uniform(0.12, 0.45),
            near(random, pick(random, *walls)),
        )
        canvas.box(left, top, right, 0.76, wall)
        for y in np.arange(top + 0.04, 0.7, 0.09):
            for x in np.arange(left + 0.025, right - 0.035, 0.055):
                canvas.box(x, y, x + 0.028, y + 0.045, lit if random.random() < share else dark)
        left = right + 0.005


def _street(canvas: Canvas, random: Random, road: Colour, pavement: Colour) -> None:
    canvas.box(0, 0.74, 1, 0.79, pavement)
    canvas.box(0, 0.785, 1, 1, near(random, road, 6))
    for x in np.arange(random.uniform(-0.2, 0), 1, 0.22):
        canvas.box(x, 0.885, x + 0.12, 0.905, (240, 230, 150))


def _city(canvas: Canvas, random: Random) -> None:
    _day(canvas, random, 1)
    walls = ((172, 128, 112), (150, 152, 170), (205, 190, 160), (135, 160, 165))
    _houses(canvas, random, walls, (235, 245, 250), (185, 210, 228), 0.4)
    _street(canvas, random, (100, 100, 108), (190, 186, 180))


def _city_at_night(canvas: Canvas, random: Random) -> None:
    canvas.fill((16, 20, 54), (66, 52, 112))
    canvas.disc(random.uniform(0.1, 0.9), random.uniform(0.06, 0.14), 0.05, (244, 240, 214))
    _houses(canvas, random, ((34, 38, 62), (44, 42, 70)), (255, 218, 112), (56, 58, 84), 0.55)
    _street(canvas, random, (42, 42, 52), (66, 64, 78))


def _under_water(canvas: Canvas, random: Random) -> None:
    canvas.fill(near(random, (80, 200, 225)), near(random, (10, 65, 140)))
    for x in random.uniform(-0.1, 0.9, 3):
        canvas.polygon([(x, 0), (x + 0.08, 0), (x + 0.3, 0.9), (x + 0.12, 0.9)], near(random, (70, 165, 205), 6))
    canvas.hills(random, 0.86, 0.02, 1.3, near(random, (206, 188, 132)))
    for x in random.uniform(0, 1, 6):
        foot, green = random.uniform(0.86, 0.95), near(random, (45, 145, 85))
        for step in range(5):
            canvas.disc(x + 0.015 * (-1) ** step, foot - 0.035 * step, 0.02, green, 1.4)
    for x, y in places(random, 12, (0, 1), (0, 0.8)):
        radius = random.uniform(0.008, 0.024)
        canvas.disc(x, y, radius, (190, 235, 245))
        canvas.disc(x, y, radius * 0.7, (120, 200, 225))


def _space(canvas: Canvas, random: Random) -> None:
    canvas.fill(near(random, (12, 10, 36), 6), near(random, (48, 24, 78), 10))
    for x, y in places(random, 50, (0, 1), (0, 1)):
        canvas.disc(x, y, random.uniform(0.003, 0.008), (255, 255, 240))
    x, y, radius = random.uniform(0.1, 0.9), random.uniform(0.1, 0.28), random.uniform(0.06, 0.11)
    canvas.disc(x, y, radius * 1.7, (200, 180, 150), 0.28)
    canvas.disc(x, y, radius, near(random, pick(random, (220, 150, 110), (120, 170, 220), (170, 130, 200))))


def _sunset(canvas: Canvas, random: Random) -> None:
    canvas.fill(near(random, (82, 48, 125)), near(random, (255, 158, 84)), 0, 0.62)
    x = random.uniform(0.25, 0.75)
    canvas.disc(x, 0.56, 0.14, (255, 220, 118))
    canvas.fill(near(random, (140, 70, 110)), near(random, (62, 38, 82)), 0.62, 1)
    for y in np.arange(0.65, 0.96, 0.06):
        half = random.uniform(0.05, 0.18)
        canvas.box(x - half, y, x + half, y + 0.012, (252, 172, 104))


def _floor(canvas: Canvas, random: Random, top: float, colour: Colour, boards: int = 4) -> None:
    canvas.box(0, top, 1, 1, colour)
    dark = tuple(round(value * 0.85) for value in colour)
    for number in range(boards):
        y = top + (1 - top) * number / boards
        canvas.box(0, y, 1, y + 0.006, dark)


def _living_room(canvas: Canvas, random: Random) -> None:
    wall = near(random, pick(random, (232, 212, 182), (190, 212, 205), (222, 196, 200)))
    canvas.fill(wall, wall)
    for x in np.arange(0.03, 1, 0.1):
        canvas.box(x, 0, x + 0.045, 0.68, tuple(round(value * 0.95) for value in wall))
    x = random.uniform(0.06, 0.62)
    canvas.box(x, 0.1, x + 0.32, 0.44, (252, 250, 246))
    canvas.box(x + 0.02, 0.12, x + 0.3, 0.42, (152, 206, 244))
    canvas.cloud(x + 0.16, 0.28, 0.045, (245, 250, 255))
    canvas.box(x + 0.15, 0.1, x + 0.17, 0.44, (252, 250, 246))
    canvas.box(0, 0.66, 1, 0.69, (250, 246, 240))
    _floor(canvas, random, 0.69, near(random, (162, 112, 72)))


def _kitchen(canvas: Canvas, random: Random) -> None:
    tile = near(random, pick(random, (176, 214, 224), (240, 226, 188), (200, 226, 196)))
    canvas.fill((238, 238, 234), (238, 238, 234))
    for row in range(5):
        for column in range(9):
            x, y = column * 0.12 - 0.06 * (row % 2), 0.12 + row * 0.1
            canvas.box(x + 0.005, y + 0.005, x + 0.115, y + 0.095, tile)
    canvas.box(0, 0, 1, 0.12, near(random, (150, 96, 64)))
    canvas.box(0, 0.62, 1, 0.7, (250, 248, 244))
    canvas.box(0, 0.7, 1, 1, near(random, (168, 108, 70)))
    for x in (0.04, 0.36, 0.68):
        canvas.box(x, 0.745, x + 0.28, 0.98, near(random, (186, 126, 84), 4))
        canvas.box(x + 0.1, 0.775, x + 0.18, 0.79, (90, 62, 46))


def _library(canvas: Canvas, random: Random) -> None:
    canvas.fill((104, 68, 44), (92, 58, 38))
    spines = ((170, 60, 54), (58, 92, 140), (74, 122, 84), (206, 168, 88), (116, 74, 120), (220, 208, 186))
    for shelf in range(3):
        top = 0.04 + shelf * 0.22
        canvas.box(0.02, top, 0.98, top + 0.19, (58, 36, 26))
        x = 0.03
        while x < 0.94:
            width = random.uniform(0.025, 0.05)
            canvas.box(x, top + random.uniform(0.02, 0.06), x + width, top + 0.19, near(random, pick(random, *spines)))
            x += width + 0.004
    _floor(canvas, random, 0.74, near(random, (140, 56, 52)), 1)


def _stage(canvas: Canvas, random: Random) -> None:
    red = near(random, (172, 28, 46))
    canvas.fill(red, red)
    for x in np.arange(0, 1, 0.09):
        canvas.box(x, 0, x + 0.03, 0.78, tuple(round(value * 0.7) for value in red))
        canvas.box(x + 0.05, 0, x + 0.065, 0.78, tuple(min(255, round(value * 1.2)) for value in red))
    for x in np.arange(0.05, 1, 0.18):
        canvas.disc(x, 0, 0.1, (232, 186, 84), 0.9)
    _floor(canvas, random, 0.76, near(random, (150, 98, 60)))
    canvas.disc(0.5, 0.88, 0.4, (196, 146, 96), 0.2)


def _checkered_wall(canvas: Canvas, random: Random) -> None:
    colour = near(random, pick(random, (236, 128, 146), (112, 176, 228), (142, 204, 142), (240, 190, 90)))
    canvas.fill((250, 249, 244), (250, 249, 244))
    for row in range(6):
        for column in range(row % 2, 6, 2):
            canvas.box(column / 6, row / 6, (column + 1) / 6, (row + 1) / 6, colour)


def _rainbow(canvas: Canvas, random: Random) -> None:
    _day(canvas, random, 0)
    x = random.uniform(0.4, 0.6)
    bows = ((232, 64, 62), (250, 152, 44), (252, 228, 74), (84, 190, 92), (64, 124, 222), (142, 76, 190))
    for number, colour in enumerate(bows):
        canvas.arc(x, 0.8, 0.72 - number * 0.04, 0.045, colour)
    canvas.cloud(x - 0.5, 0.66, 0.09, (250, 252, 255))
    canvas.cloud(x + 0.5, 0.66, 0.09, (250, 252, 255))
    canvas.hills(random, 0.76, 0.02, 0.8, near(random, (122, 198, 112)))


def _volcano(canvas: Canvas, random: Random) -> None:
    canvas.fill((46, 22, 34), (150, 62, 48))
    x = random.uniform(0.3, 0.7)
    for number in range(4):
        canvas.disc(x + random.uniform(-0.06, 0.06), 0.16 - 0.05 * number, 0.06 + 0.015 * number, (92, 80, 84))
    slope = [(x - 0.5, 0.8), (x - 0.09, 0.22), (x + 0.09, 0.22), (x + 0.5, 0.8)]
    canvas.polygon(slope, near(random, (70, 54, 56)))
    canvas.polygon([(x - 0.09, 0.22), (x + 0.09, 0.22), (x + 0.05, 0.36), (x, 0.28), (x - 0.04, 0.42)], (250, 122, 38))
    canvas.hills(random, 0.76, 0.02, 1.5, near(random, (232, 92, 30)))
    for x, y in places(random, 10, (0, 1), (0.8, 1)):
        canvas.disc(x, y, random.uniform(0.02, 0.05), (255, 196, 70), 0.35)


def _moon(canvas: Canvas, random: Random) -> None:
    canvas.fill((6, 8, 20), (18, 20, 40))
    for x, y in places(random, 30, (0, 1), (0, 0.6)):
        canvas.disc(x, y, random.uniform(0.003, 0.007), (255, 255, 240))
    x, y = random.uniform(0.12, 0.88), random.uniform(0.12, 0.22)
    canvas.disc(x, y, 0.1, (66, 130, 205))
    canvas.disc(x - 0.03, y - 0.02, 0.04, (96, 170, 100), 0.7)
    canvas.hills(random, 0.6, 0.02, 0.8, near(random, (176, 176, 182), 6))
    for x, y in places(random, 8, (0, 1), (0.66, 0.98)):
        radius = random.uniform(0.03, 0.08)
        canvas.disc(x, y, radius, (140, 140, 148), 0.35)
        canvas.disc(x, y + 0.008, radius * 0.9, (196, 196, 202), 0.3)


def _autumn_park(canvas: Canvas, random: Random) -> None:
    canvas.fill(near(random, (206, 222, 232)), near(random, (250, 236, 210)))
    leaves = ((222, 120, 42), (236, 172, 56), (196, 72, 44))
    for x in np.linspace(0.02, 0.98, 5) + random.uniform(-0.05, 0.05, 5):
        canvas.box(x - 0.018, 0.35, x + 0.018, 0.72, (104, 72, 50))
        leaf = near(random, pick(random, *leaves))
        for across, down in places(random, 5, (-0.08, 0.08), (-0.1, 0.08)):
            canvas.disc(x + across, 0.28 + down, 0.075, leaf)
    canvas.hills(random, 0.7, 0.015, 1, near(random, (186, 160, 84)))
    for x, y in places(random, 26, (0, 1), (0.74, 1)):
        canvas.disc(x, y, 0.014, pick(random, *leaves), 0.6)


SCENES = {
    "beach": Scene("on the beach", _beach),
    "meadow": Scene("in a meadow", _meadow),
    "forest": Scene("in the forest", _forest),
    "desert": Scene("in the desert", _desert),
    "snow": Scene("in the snow", _snow),
    "mountains": Scene("in the mountains", _mountains),
    "city": Scene("in the city", _city),
    "city at night": Scene("in the city at night", _city_at_night),
    "under water": Scene("under water", _under_water, ground=False),
    "space": Scene("in space", _space, ground=False),
    "sunset": Scene("at sunset", _sunset),
    "living room": Scene("in a living room", _living_room),
    "kitchen": Scene("in a kitchen", _kitchen),
    "library": Scene("in a library", _library),
    "stage": Scene("on a stage", _stage),
    "checkered wall": Scene("in front of a checkered wall", _checkered_wall, ground=False),
    "rainbow": Scene("under a rainbow", _rainbow),
    "volcano": Scene("next to a volcano", _volcano),
    "moon": Scene("on the moon", _moon),
    "autumn park": Scene("in an autumn park", _autumn_park),
}


def background(scene: str, side: int, random: Random) -> Image.Image:
    """A picture of a scene, RGB, side x side."""
    canvas = Canvas(side)
    SCENES[scene].paint(canvas, random)
    return canvas.reduced()
