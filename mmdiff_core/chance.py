"""Chance by name: every purpose draws from a stream of its own, so that nothing decides two things at once."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np


def stream(purpose: str, *key: int) -> np.random.Generator:
    """The numbers of one purpose ("time", "drop", ...) for one key, such as a run's seed and a sample's index.

    The same name and key give the same numbers on every machine; another name or key gives independent ones.
    """
    return np.random.default_rng([int.from_bytes(blake2b(purpose.encode(), digest_size=16).digest(), "big"), *key])
