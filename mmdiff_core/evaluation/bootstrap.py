"""Means with their uncertainty: identities are resampled, not pictures, for pictures of one identity are alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ..chance import stream

SAMPLES = 2000


class Interval(NamedTuple):
    """A mean over pictures, and where it lies in 95 % of the resamples. groups: how many identities there were."""

    mean: float
    low: float | None
    high: float | None
    pictures: int
    groups: int


def interval(values: Mapping[str, float], groups: Mapping[str, str]) -> Interval:
    """values: case -> number; groups: case -> identity. Needs at least one value.

    The percentile bootstrap over identities, the same resamples every time. With one identity there is nothing to
    resample, and no bounds.
    """
    cases = sorted(values)
    numbers = np.array([values[case] for case in cases], dtype=float)
    names, index = np.unique([groups[case] for case in cases], return_inverse=True)
    sums, counts = np.bincount(index, numbers), np.bincount(index)
    mean = float(sums.sum() / counts.sum())
    if len(names) == 1:
        return Interval(mean, None, None, len(cases), 1)
    drawn = stream("bootstrap").integers(len(names), size=(SAMPLES, len(names)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(mean, float(low), float(high), len(cases), len(names))


def difference(ours: Mapping[str, float], other: Mapping[str, float], groups: Mapping[str, str]) -> Interval:
    """Paired: other minus ours, picture by picture, over the cases that both have."""
    return interval({case: other[case] - ours[case] for case in ours.keys() & other.keys()}, groups)
