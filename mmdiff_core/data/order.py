"""From an index without end to a record: every epoch shows every record once, in an order of its own."""

from __future__ import annotations

import numpy as np

from ..chance import stream


class Order:
    """The permutations of one dataset, the last one kept."""

    def __init__(self, count: int, seed: int):
        self.count = count
        self.seed = seed
        self._epoch = -1
        self._records = np.empty(0, np.int64)

    def __getitem__(self, index: int) -> int:
        """The record that item `index` shows, a pure function of seed and index. Raises IndexError below 0."""
        if index < 0:
            raise IndexError(index)
        epoch, place = divmod(index, self.count)
        if epoch != self._epoch:
            self._records = stream("order", self.seed, epoch).permutation(self.count)
            self._epoch = epoch
        return int(self._records[place])
