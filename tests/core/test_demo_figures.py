"""The figures and sheets of docs that are the demo's own: references that differ less and less, and what is shown."""

import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("diffusers")

sys.path.append(str(Path(__file__).parent / "evaluation"))

from tiny_world import make_atlas  # noqa: E402

from mmdiff_core.cutout import plain_ground  # noqa: E402
from mmdiff_core.evaluation.cases import fill, pictures_of  # noqa: E402
from mmdiff_core.evaluation.world.cases import world_cases  # noqa: E402
from mmdiff_core.evaluation.world.net_training import train_nets  # noqa: E402
from mmdiff_core.world.atlas import Atlas  # noqa: E402
from mmdiff_core.world.scenes import WorldScenes  # noqa: E402
from recipes.demo import references, sheets  # noqa: E402


@pytest.fixture
def atlas(tmp_path) -> Path:
    return make_atlas(tmp_path / "atlas.npz")


@pytest.fixture
def scenes(atlas) -> WorldScenes:
    return WorldScenes(Atlas.load(atlas), 64, 64, 1, "val", pairs=0.5, looks=0.25)


def test_references_change_and_scenes_do_not(scenes):
    """As they are, they are the benchmark's own; upright and filling it, they reach from one side of their
    photo to another."""
    usual, asked = world_cases(scenes, 12), {}
    for name, changes in references.KINDS.items():
        scenes.placing = references.Taken(changes)
        asked[name] = world_cases(scenes, 12)
        assert [case.plan for case in asked[name]] == [case.plan for case in usual]
    assert [case.key for case in asked["as they are"]] == [case.key for case in usual]
    assert len({tuple(case.key for case in cases) for cases in asked.values()}) == len(references.KINDS)
    for name, cases in asked.items():
        reach = [max(int(mask.any(dim).sum()) for dim in (0, 1)) for case in cases for mask in case.masks]
        assert (min(reach) >= 61) == ("upright" in name and "filling" in name)


def test_every_kind_is_drawn_and_measured(atlas, tmp_path, monkeypatch):
    """By what says as its picture which photo it was given."""

    class Photo:
        source = about = "its first photo"

        def __init__(self, cut_out: bool) -> None:
            self.cut_out = cut_out

        def __call__(self, prompts, photos, seeds):
            return [torch.full_like(one[0], 0.5) if self.cut_out else one[0] for one in photos]

    monkeypatch.setattr(references, "load", lambda model, cut_out=False: Photo(cut_out))
    train_nets(atlas, tmp_path / "nets.safetensors", 1, lambda line: None)
    table = references.main(tmp_path, tmp_path, tmp_path / "out", tmp_path / "nets.safetensors", 4)
    kinds = [*references.KINDS, references.CUT_OUT, "real scene"]
    assert f"| measure | {' | '.join(kinds)} |" in table
    assert (tmp_path / "out" / "results.json").is_file()
    folders = [tmp_path / "out" / "pictures" / kind for kind in kinds[:-1]]
    drawn = {tuple(path.read_bytes() for path in sorted(folder.glob("*.png"))) for folder in folders}
    assert len(drawn) == len(folders)


def test_the_photo_sheet_shows_what_was_cut_away(scenes, tmp_path):
    """One of a subject and one of two in a row: their photos, then the arms' pictures in the order of their names."""
    cases, shades = world_cases(scenes, 60), dict(zip(sheets.ARMS, (0.2, 0.4, 0.6), strict=True))
    for arm, shade in shades.items():
        fill(
            tmp_path / "pictures" / arm,
            cases,
            lambda part, shade=shade: [torch.full((3, 8, 8), shade)] * len(part),
            arm,
            arm,
        )
        assert len(pictures_of(tmp_path / "pictures" / arm, cases)) == 60
    rows = sheets.photo_rows(cases, tmp_path)
    assert len(rows) == sheets.EACH
    for row in rows:
        assert [said for _, said in row] == ["photo", *sheets.ARMS.values(), "photo", "photo", *sheets.ARMS.values()]
        for arms in (row[1:4], row[6:9]):
            assert [float(picture.mean()) for picture, _ in arms] == pytest.approx(list(shades.values()), abs=0.01)
        assert all(plain_ground(row[place][0].movedim(0, -1)) is not None for place in (0, 4, 5)), "none on a drawn one"


def test_the_separation_sheet_draws_both_ways(monkeypatch):
    monkeypatch.setattr(sheets, "BESIDE", 1)
    ((photo, *drawn),) = sheets.separation_rows()
    assert photo[1] == "photo" and [said.partition(":")[0] for _, said in drawn] == ["reference", "by word"] * 2
    (one, _), (other, _) = drawn[:2]
    assert one.shape == other.shape == (3, 128, 128) and not torch.allclose(one, other, atol=0.05)
