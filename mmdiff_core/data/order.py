"""From an index without end to a record: every epoch shows every record once, in an order of its own.

Where records have shapes, every batch has one shape; then some records come again to fill a batch.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

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
        """The record that item `index` shows, a pure function of index and of what the order was made with. Raises
        IndexError below 0."""
        if index < 0:
            raise IndexError(index)
        epoch, place = divmod(index, self.count)
        if epoch != self._epoch:
            self._records = self._shuffled(stream("order", self.seed, epoch))
            self._epoch = epoch
        return int(self._records[place])

    def _shuffled(self, random: np.random.Generator) -> np.ndarray:
        """The records of an epoch."""
        return random.permutation(self.count)


class Grouped(Order):
    """As `Order`, but each `batch` items, counted from 0, show records of one group. Where a group's number of records
    is no multiple of `batch`, some of them come twice in an epoch."""

    def __init__(self, groups: Sequence[Hashable], batch: int, seed: int):
        """groups: of each record."""
        members: dict[Hashable, list[int]] = {}
        for record, group in enumerate(groups):
            members.setdefault(group, []).append(record)
        self.members = [np.array(one) for one in members.values()]
        self.batch = batch
        super().__init__(sum(-(-len(one) // batch) for one in self.members) * batch, seed)

    def _shuffled(self, random: np.random.Generator) -> np.ndarray:
        batches = [np.resize(random.permutation(one), (-(-len(one) // self.batch), self.batch)) for one in self.members]
        return random.permutation(np.concatenate(batches)).ravel()
