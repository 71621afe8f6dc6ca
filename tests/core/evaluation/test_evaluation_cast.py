"""Scenes spoilt on purpose show what their truth says; and the benchmark of Check Cast counts right."""

import math
from collections import Counter

import numpy as np
import pytest
from tiny_world import make_atlas

from mmdiff_core.cast import Kind
from mmdiff_core.evaluation.world import cast
from mmdiff_core.evaluation.world.cases import world_cases
from mmdiff_core.evaluation.world.spoilt import spoil
from mmdiff_core.world.atlas import Atlas
from mmdiff_core.world.scenes import WorldScenes


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory):
    atlas = Atlas.load(make_atlas(tmp_path_factory.mktemp("world") / "atlas.npz"))
    scenes = WorldScenes(atlas, 64, 24, seed=1, split="test", pairs=0.7, looks=0, settled=True)
    return spoil(world_cases(scenes, 40))


def middle(placed):
    return round(placed.x, 3), round(placed.y, 3)


def test_the_truth_is_what_is_shown(spoilt):
    assert set().union(*(one.truth for one in spoilt)) == set(Kind)
    for case, shown, truth in spoilt:
        names = Counter(str(one) for one in shown.subjects)
        asked = {str(one): middle(one) for one in case.plan.subjects}
        at = {middle(one): str(one) for one in shown.subjects}
        for who, so in zip(case.plan.subjects, truth, strict=True):
            place = middle(who)
            assert names[str(who)] == {Kind.TWICE: 2, Kind.MISSING: 0, Kind.STRANGER: 0}.get(so, 1)
            assert (at.get(place) == str(who)) == (so is Kind.PRESENT or so is Kind.TWICE and len(asked) == 2)
            if so is Kind.STRANGER:
                assert at[place] not in asked
            if so is Kind.SWAPPED:
                assert at[place] in asked


def test_what_is_shown_is_as_long_as_what_was_there(spoilt):
    for case, shown, truth in spoilt:
        lengths = {middle(one): max(one.width, one.height) for one in case.plan.subjects}
        for one in shown.subjects:
            if middle(one) in lengths:
                assert math.isclose(max(one.width, one.height), lengths[middle(one)], rel_tol=1e-6), truth


def test_every_kind_counts_alike():
    table = np.array([[90, 10], [1, 1]])
    assert cast._balanced(table) == pytest.approx(0.7)
    assert cast._balanced(np.array([[9, 1], [0, 0]])) == pytest.approx(0.9)
