"""Pictures that are nearly the same, and faces that are the same person's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

SIDE, STEP = 16, 2
"""An outlook has SIDE x SIDE bits; a step between neighbours counts from more than STEP of 255 greys."""
APART = 12
"""Bits in which two outlooks of one picture may differ: another size, another quality, a border cut off by a pixel."""


def outlook(picture: Image.Image) -> str:
    """256 bits as hexadecimal digits: where a small grey copy gets darker from left to right."""
    grey = np.asarray(picture.convert("L").resize((SIDE + 1, SIDE), Image.Resampling.BOX), np.int16)
    return np.packbits(grey[:, :-1] - grey[:, 1:] > STEP).tobytes().hex()


def nearly_same(outlooks: Mapping[str, str]) -> dict[str, str]:
    """Name -> an earlier name whose picture is nearly the same; names come in the order of which is to stay.

    Two outlooks within APART bits are equal in one of APART + 1 parts, so only those are compared.
    """
    parts: dict[tuple[int, bytes], list[str]] = {}
    bits: dict[str, np.ndarray] = {}
    copies = {}
    for name, digits in outlooks.items():
        own = np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8))
        keys = [(number, part.tobytes()) for number, part in enumerate(np.array_split(own, APART + 1))]
        near = dict.fromkeys(other for key in keys for other in parts.get(key, ()))
        kept = next((other for other in near if np.count_nonzero(own != bits[other]) <= APART), None)
        if kept is not None:
            copies[name] = kept
            continue
        bits[name] = own
        for key in keys:
            parts.setdefault(key, []).append(name)
    return copies


def people(vectors: Sequence[np.ndarray], alike: float) -> list[int]:
    """The number of the person that each face vector is of. alike: cosine to the mean of a person's faces from which a
    face is that person's."""
    if not vectors:
        return []
    sums = np.zeros((len(vectors), len(vectors[0])))
    numbers: list[int] = []
    count = 0
    for vector in vectors:
        own = vector / np.linalg.norm(vector)
        near = sums[:count] @ own / np.linalg.norm(sums[:count], axis=1)
        number = int(near.argmax()) if count and near.max() >= alike else count
        count = max(count, number + 1)
        sums[number] += own
        numbers.append(number)
    return numbers
