"""Two minutes of requeues; `soak.py` is the long run."""

import pytest
from soak import CACHES, graphs, soak


@pytest.mark.soak
@pytest.mark.parametrize("cache", ["as the host comes", "none", "always short of memory"])
def test_requeues_draw_the_same_and_keep_nothing(tmp_path, cache):
    """Memory is judged in the long run, where what a process allocates at first no longer counts."""
    found = soak(tmp_path / "server", CACHES[cache], 3 * len(graphs()), {})
    assert not found.drifted
    assert max(found.held, found.resident) < 1.1
