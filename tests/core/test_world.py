"""The procedural world: picture, caption and masks agree, and training never sees what is held out."""

import dataclasses
import hashlib
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from torch.utils.data import DataLoader

from mmdiff_core.errors import MMDiffError
from mmdiff_core.sheet import GAP
from mmdiff_core.world import packages
from mmdiff_core.world.atlas import Atlas, Sprite
from mmdiff_core.world.backgrounds import SCENES, background
from mmdiff_core.world.captions import Mention, caption
from mmdiff_core.world.likeness import near_duplicates, same_drawing
from mmdiff_core.world.looks import LOOKS, PLAIN, rendered
from mmdiff_core.world.scenes import RELATIONS, WorldScenes
from mmdiff_core.world.sheet import SIDE, scenes_sheet
from mmdiff_core.world.splits import SPLITS, assign_splits

ROOT = Path(__file__).parents[2]
NAMES = [
    "red cube",
    "cube",
    "tall cube",
    "pair of pliers",
    "ox",
    "yak",
    "elk",
    "owl",
    "cat",
    "dog",
    "fox",
    "hen",
    "kite",
]
NAMES += ["apple", "plum", "moon", "tree", "sock", "vase", "wok", "urn", "ufo", "ibis", "goat", "bear", "zebra", "ink"]
SHARE_ALIKE = {"copy"}


def shape(number: int, size: int = 48) -> Image.Image:
    """A filled polygon of one colour with hard edges, unlike the others."""
    random = np.random.default_rng(number)
    picture = Image.new("RGBA", (size, int(random.integers(24, size + 1))))
    points = [
        (0, 0),
        (picture.width - 1, int(random.integers(picture.height))),
        (picture.width // 2, picture.height - 1),
    ]
    colour = tuple(random.integers(40, 256, 3).tolist())
    ImageDraw.Draw(picture).polygon(points, (*colour, 255))
    return picture.crop(picture.getbbox())


@pytest.fixture(scope="module")
def atlas() -> Atlas:
    sprites, pictures = [], []
    for number, name in enumerate(NAMES):
        for family, styles in (
            ("one", ("flat", "solid")),
            ("two", ("two",)),
            ("three", ("three",)),
            ("copy", ("copy",)),
        ):
            for style in styles:
                sprites.append(Sprite(name, "a", "thing", style, family, "MIT"))
                pictures.append(shape(len(sprites) + 100 * number))
    splits = assign_splits(sprites, [], SHARE_ALIKE)
    shown = [i for i, split in enumerate(splits) if split]
    return Atlas.of([sprites[i]._replace(split=splits[i]) for i in shown], [pictures[i] for i in shown])


def scenes(atlas: Atlas, **changes) -> WorldScenes:
    return WorldScenes(atlas, **{"resolution": 64, "photo_size": 32, "seed": 3, **changes})


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key]
        for key, value in one.items()
    )


# Splits


def test_no_name_is_in_two_splits_but_for_the_two_that_are_about_drawings(atlas):
    names = {split: {identity.name for identity in atlas.identities(split)} for split in SPLITS}
    for one in ("train", "metric", "val", "test"):
        for other in ("train", "metric", "val", "test"):
            assert one == other or not names[one] & names[other]
    assert names["identity"] <= names["train"] and names["style"] <= names["test"]
    assert min(map(len, names.values())) > 0


def test_no_individual_is_in_two_splits_and_renditions_stay_together(atlas):
    owners = {}
    for split in SPLITS:
        for identity in atlas.identities(split):
            assert owners.setdefault(str(identity), split) == split
            assert len(identity.renditions) == (2 if identity.family == "one" else 1)


def test_share_alike_styles_are_in_one_split_only(atlas):
    families = {split: {identity.family for identity in atlas.identities(split)} for split in SPLITS}
    assert families.pop("style") == SHARE_ALIKE
    assert all(not family & SHARE_ALIKE for family in families.values())


def test_names_of_one_word_or_one_drawing_stay_together():
    names = [f"{word} {number}" for number in range(40) for word in ("a", "b")]
    names += [name for beast in "ABCDEFGHIJ" for name in (f"{beast} face", f"black {beast}")]
    sprites = [Sprite(name, "a", "thing", "s", "f", "MIT") for name in names]
    alike = [(f"a {number}", f"a {number + 1}") for number in range(0, 40, 2)]
    split = dict(zip(names, assign_splits(sprites, alike, set()), strict=True))
    assert all(split[f"a {number}"] == split[f"b {number}"] for number in range(40)), "same last word"
    assert all(split[one] == split[other] for one, other in alike)
    assert all(split[f"{beast} face"] == split[f"black {beast}"] for beast in "ABCDEFGHIJ")
    assert len({split[f"{beast} face"] for beast in "ABCDEFGHIJ"}) > 1, "faces are of different beasts"
    assert {"train", "metric", "val", "test"} <= set(split.values())


def test_splits_do_not_depend_on_the_order_of_sprites():
    sprites = [Sprite(f"n{number}", "a", "thing", "s", family, "MIT") for number in range(30) for family in "xyz"]
    forward, backward = assign_splits(sprites, [], {"z"}), assign_splits(sprites[::-1], [], {"z"})
    assert forward == backward[::-1]


# Likeness


def test_near_duplicates_are_the_same_picture_larger_mirrored_or_a_little_off():
    one, other = shape(1), shape(2)
    variants = [one.resize((96, 2 * one.height)), one.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    found = near_duplicates([one, other, *variants])
    assert found[0].tolist() == [True, False, True, True]


def test_another_colouring_is_the_same_drawing_and_no_duplicate():
    picture = Image.new("RGBA", (48, 48), (30, 140, 30, 255))
    ImageDraw.Draw(picture).rectangle((8, 8, 30, 20), (240, 240, 240, 255))
    channels = picture.split()
    recoloured = Image.merge("RGBA", (channels[2], channels[0], channels[1], channels[3]))
    assert same_drawing([picture, recoloured])[0, 1] and not near_duplicates([picture, recoloured])[0, 1]
    assert not same_drawing([picture, shape(5)])[0, 1]


# Captions


def test_articles_and_spans():
    def say(*mentions, relation="and"):
        text, spans = caption("", mentions, relation, "in space")
        return text, [text[start:end] for start, end in spans]

    assert say(Mention("a", "", "owl")) == ("an owl in space", ["owl"])
    assert say(Mention("a", "big", "owl")) == ("a big owl in space", ["owl"])
    assert say(Mention("a", "", "open book")) == ("an open book in space", ["open book"])
    assert say(Mention("a", "", "unicorn"))[0] == "a unicorn in space"
    assert say(Mention("some", "small", "popcorn"))[0] == "some small popcorn in space"
    assert say(Mention("a pair of", "", "glasses"), Mention("a", "", "glasses")) == (
        "a pair of glasses and a glasses in space",
        ["glasses", "glasses"],
    )
    assert caption("pixel art of", [Mention("a", "", "cat")], "", "in space")[0] == "pixel art of a cat in space"


def test_listed_subjects_can_be_said():
    rows = [line.split("\t") for line in (ROOT / "mmdiff_core/world/subjects.tsv").read_text().splitlines()]
    assert len(rows) > 450 and len({name for _, _, name, _ in rows}) == len({code for code, *_ in rows}) == len(rows)
    for _, determiner, name, category in rows:
        assert determiner in ("a", "some", "a pair of")
        assert name == name.strip() and name.isascii() and category.isascii() and category


@given(index=st.integers(0, 10**9))
def test_a_scene_says_what_it_shows(atlas, index):
    dataset = scenes(atlas, pairs=0.7)
    plan, item = dataset.plan(index), dataset[index]
    image, masks, text = item["image"], item["masks"], item["caption"]
    count = len(plan.subjects)
    assert image.shape == (3, 64, 64) and image.dtype == torch.float32 and -1 <= image.min() < image.max() <= 1
    assert masks.shape == (count, 64, 64) and masks.min() == 0 and 0.9 < masks.max() <= 1
    assert item["references"].shape == (count, 3, 32, 32)
    assert torch.equal((item["references"] * 255).round() / 255, item["references"]), "prepared photos are of 8 bits"
    assert [text[start:end] for start, end in item["entities"]] == [placed.word for placed in plan.subjects]
    assert text.endswith(SCENES[plan.scene].phrase) and (plan.look == PLAIN or text.startswith(LOOKS[plan.look].phrase))
    assert all(str(placed) in item["record"] for placed in plan.subjects)
    assert ((masks > 0).sum(0) <= 1).all() or plan.look == "pixel art", "no pixel has two owners"
    assert (masks.sum((1, 2)) > 40).all()
    if plan.relation:
        assert plan.subjects[0].identity.name != plan.subjects[1].identity.name
    if plan.relation in RELATIONS:
        grid = torch.arange(64.0)
        x = (masks * grid).sum((1, 2)) / masks.sum((1, 2))
        y = (masks * grid[:, None]).sum((1, 2)) / masks.sum((1, 2))
        apart = {
            "to the left of": x[1] - x[0],
            "to the right of": x[0] - x[1],
            "above": y[1] - y[0],
            "below": y[0] - y[1],
        }
        assert apart[plan.relation] > 8, "pixels, of 64"
    for placed in plan.subjects:
        box = max(placed.width, placed.height)
        if placed.size_word:
            assert (box >= 0.6) == (placed.size_word == "big")


def test_masks_cover_exactly_the_subjects_pixels(atlas):
    """Drawn again in another colour, a picture changes exactly where the mask is."""
    dataset = scenes(atlas, looks=0.0, recolour=0.0)

    def painted_where(number: int, plan):
        def individual(sprite: int, hue: float) -> Image.Image:
            picture = atlas.picture(sprite)
            if sprite != plan.subjects[number].sprite:
                return picture
            magenta = Image.new("RGBA", picture.size, (255, 0, 255))
            magenta.putalpha(picture.getchannel("A"))
            return magenta

        return individual

    for index in range(12):
        plan = dataset.plan(index)
        picture, masks = dataset.draw(plan)
        for number in range(len(plan.subjects)):
            dataset.individual = painted_where(number, plan)
            painted, _ = dataset.draw(plan)
            del dataset.individual
            changed = (painted != picture).any(-1)
            assert not changed[masks[number] == 0].any()
            assert (painted[masks[number] == 1] == (255, 0, 255)).all()
            assert changed[masks[number] > 0.1].mean() > 0.99


def test_every_look_keeps_a_subject_visible_on_its_own_colour():
    masks = np.zeros((1, 64, 64), np.float32)
    masks[0, 16:48, 16:48] = 1
    for look in LOOKS:
        picture = np.full((64, 64, 3), 120, np.float32)
        out, kept = rendered(look, picture, masks.copy(), np.random.default_rng(0))
        assert out.shape == (64, 64, 3) and np.abs(kept - masks).max() <= 1
        strip = out[20:44].mean((0, 2))
        outside, edge = strip[2:12].mean(), strip[14:20]
        assert np.abs(edge - outside).max() > 20, look


def test_pixel_art_masks_follow_its_blocks():
    masks = np.zeros((1, 80, 80), np.float32)
    masks[0, 21:61, 20:60] = 1
    _, kept = rendered("pixel art", np.zeros((80, 80, 3), np.float32), masks, np.random.default_rng(0))
    assert np.array_equal(kept[0, ::2, ::2].repeat(2, 0).repeat(2, 1), kept[0]) and kept[0, 20, 30] == 0.5


@pytest.mark.parametrize("scene", SCENES)
def test_backgrounds_fill_the_canvas_and_differ_each_time(scene):
    first, second = (np.asarray(background(scene, 48, np.random.default_rng(seed))) for seed in (0, 1))
    assert first.shape == (48, 48, 3) and (first != second).any()
    assert (first.reshape(-1, 3).sum(1) > 0).mean() > 0.99, "nothing is left black"


def test_a_colour_in_a_name_is_never_recoloured(atlas):
    hues = {}
    for seed in range(4):
        dataset = scenes(atlas, recolour=1.0, seed=seed)
        for index in range(2 * len(dataset)):
            for placed in dataset.plan(index).subjects:
                hues.setdefault(placed.identity.name, set()).add(placed.hue)
    name = next(name for split in SPLITS for name in [i.name for i in atlas.identities(split)] if name == "red cube")
    coloured = scenes(atlas, recolour=1.0, pairs=0.0, split=next(s.split for s in atlas.sprites if s.name == name))
    for index in range(4 * len(coloured)):
        (placed,) = coloured.plan(index).subjects
        assert (placed.hue == 0) == (placed.identity.name == "red cube")
    assert all(0 not in found for name, found in hues.items() if name != "red cube")


def test_scene_and_reference_share_their_colours(atlas):
    dataset = scenes(atlas, pairs=0.0, looks=0.0)
    for index in range(8):
        plan = dataset.plan(index)
        turned = [
            dataclasses.replace(plan, subjects=(dataclasses.replace(plan.subjects[0], hue=hue),)) for hue in (0.0, 2.5)
        ]
        pictures, masks = zip(*(dataset.draw(one) for one in turned), strict=True)
        changed = (pictures[0] != pictures[1]).any(-1)
        assert (
            np.array_equal(masks[0], masks[1])
            and changed[masks[0][0] == 1].all()
            and not changed[masks[0][0] == 0].any()
        )
        photos = [dataset.reference(one.subjects[0], np.random.default_rng(index)) for one in turned]
        assert (photos[0] != photos[1]).any(-1).mean() > 0.05


def test_references_are_other_views(atlas):
    """Another rendition where there is one, and never the target's own pixels."""
    dataset = scenes(atlas, pairs=0.0, looks=0.0)
    seen = []
    dataset.individual = lambda sprite, hue: seen.append(sprite) or WorldScenes.individual(dataset, sprite, hue)
    for index in range(30):
        item = dataset[index]
        drawn, shown = seen[-2:]
        (placed,) = dataset.plan(index).subjects
        assert (drawn != shown) == (placed.identity.family == "one")
        assert placed.identity.renditions.count(shown) == 1
        assert not torch.equal(item["references"][0], dataset[index + len(dataset)]["references"][0])


# The data set


def test_an_item_is_a_function_of_seed_and_index(atlas):
    dataset, again = scenes(atlas), scenes(atlas)
    [again[i] for i in (5, 0)]
    for index in (0, 1, len(dataset), 7 * len(dataset) + 2, 10**8):
        assert same(dataset[index], again[index])
    assert not same(dataset[0], dataset[len(dataset)]) and not same(dataset[0], scenes(atlas, seed=4)[0])
    with pytest.raises(IndexError):
        dataset[-1]


def test_every_epoch_shows_everyone_once_in_a_new_order(atlas):
    dataset = scenes(atlas)
    epochs = [
        [str(dataset.plan(epoch * len(dataset) + place).subjects[0].identity) for place in range(len(dataset))]
        for epoch in range(2)
    ]
    assert epochs[0] != epochs[1] and sorted(epochs[0]) == sorted(epochs[1]) == sorted(map(str, dataset.identities))


def test_workers_give_the_same_items(atlas):
    dataset = scenes(atlas)
    loader = DataLoader(dataset, batch_size=None, num_workers=2)
    for index, item in zip(range(6), loader, strict=False):
        item["entities"] = [tuple(map(int, span)) for span in item["entities"]]
        assert same(item, dataset[index])


def test_arguments_change_what_is_shown(atlas):
    def plans(**changes):
        dataset = scenes(atlas, **changes)
        return [dataset.plan(index) for index in range(60)]

    assert {len(plan.subjects) for plan in plans(pairs=0.0)} == {1}
    assert {len(plan.subjects) for plan in plans(pairs=1.0)} == {2}
    assert {plan.look for plan in plans(looks=0.0)} == {PLAIN} and PLAIN not in {plan.look for plan in plans(looks=1.0)}
    words = {placed.word for plan in plans(categories=1.0) for placed in plan.subjects}
    assert words == {"thing", "toy"}
    assert all(placed.word == placed.identity.name for plan in plans(categories=0.0) for placed in plan.subjects)
    assert scenes(atlas).max_subjects == 2 and scenes(atlas, pairs=0.0).max_subjects == 1


def test_the_sheet_shows_every_scene(atlas):
    """Three to a row, each with what belongs to it, and every one another picture."""
    picture = np.asarray(scenes_sheet(scenes(atlas), 8))
    rows = picture[GAP:].reshape(3, (picture.shape[0] - GAP) // 3, *picture.shape[1:])
    cells = rows[:, :SIDE, GAP:].reshape(3, SIDE, 12, -1, 3)[:, :, ::4].swapaxes(1, 2).reshape(9, -1)
    assert (cells.std(1) > 0).tolist() == [True] * 8 + [False] and len({cell.tobytes() for cell in cells}) == 9


# The file


def test_an_atlas_comes_back_as_it_was_saved(atlas, tmp_path):
    atlas.save(tmp_path / "new" / "atlas.npz")
    loaded = Atlas.load(tmp_path / "new" / "atlas.npz")
    assert loaded.sprites == atlas.sprites and loaded.digest() == atlas.digest()
    for index, sprite in enumerate(atlas.sprites):
        picture = loaded.picture(index)
        assert picture.size == (sprite.width, sprite.height) and picture.mode == "RGBA"
        assert picture.tobytes() == atlas.picture(index).tobytes()
    assert same(scenes(tmp_path / "new" / "atlas.npz")[3], scenes(atlas)[3])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["atlas.npz"]


def test_bad_atlases_get_a_sentence(atlas, tmp_path):
    path = tmp_path / "atlas.npz"
    with pytest.raises(MMDiffError, match=r"no atlas .*atlas\.npz.*world\.build"):
        Atlas.load(path)
    atlas.save(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(MMDiffError, match="not a whole atlas"):
        Atlas.load(path)
    path.write_text("<html>")
    with pytest.raises(MMDiffError, match="not a whole atlas"):
        Atlas.load(path)
    np.savez(path, table=np.frombuffer(json.dumps({"version": 9}).encode(), np.uint8), encoded=[0], ends=[0])
    with pytest.raises(MMDiffError, match="version 9"):
        Atlas.load(path)
    with pytest.raises(MMDiffError, match="no split 'tset'.*test"):
        scenes(atlas, split="tset")


# The packages


def package_of(folder: Path, files: dict[str, bytes]) -> packages.Package:
    archive = folder / "some-art-1.0.0.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for name, content in files.items():
            (folder / "member").write_bytes(content)
            tar.add(folder / "member", name)
    (folder / "member").unlink()
    digest = packages.base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    return packages.Package("@some/art", "1.0.0", digest, "style", "family", "MIT", "Someone")


def test_an_archive_is_read_without_writing_and_only_if_it_is_the_pinned_one(tmp_path):
    package = package_of(tmp_path, {"package/icons.json": b"{}", "../../escape.json": b"[]", "package/a.webp": b"x"})
    archive = packages.fetch(package, tmp_path)
    assert packages.members(archive, "/icons.json") == {"package/icons.json": b"{}"}
    assert [path.name for path in tmp_path.iterdir()] == [package.file_name]
    archive.write_bytes(archive.read_bytes() + b"\0")
    with pytest.raises(MMDiffError, match=f"{package.file_name} is not the pinned archive"):
        packages.fetch(package, tmp_path)


def test_without_npm_the_missing_archive_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MMDiffError, match=r"fluent-emoji-3d-1\.1\.0\.tgz.*Node\.js"):
        packages.fetch(packages.PACKAGES[0], tmp_path)


def test_packages_are_pinned_and_named_in_the_notice():
    notice = (ROOT / "NOTICE").read_text()
    for package in packages.PACKAGES:
        assert len(packages.base64.b64decode(package.integrity)) == 64
        assert package.name in notice and package.licence in notice and package.credit.split(",")[0] in notice


def test_the_core_imports_without_what_only_the_build_needs():
    code = "import sys; sys.modules['resvg_py'] = None; import mmdiff_core.world.scenes"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_settled_scenes_leave_nothing_open_that_the_caption_decides(atlas):
    """One place for a size word, one for each order of a pair, upright; "and" is said of one order only. A reference
    shows as much of the subject as the scene does."""
    plans = [scenes(atlas, settled=True).plan(index) for index in range(200)]
    subjects = [placed for plan in plans for placed in plan.subjects]
    assert {placed.tilt for placed in subjects} == {0.0}
    lengths = {(len(p.subjects), s.size_word): set() for p in plans for s in p.subjects}
    middles = {p.relation: set() for p in plans}
    for plan in plans:
        middles[plan.relation].add(tuple(round(placed.x, 6) for placed in plan.subjects))
        for placed in plan.subjects:
            lengths[len(plan.subjects), placed.size_word].add(round(max(placed.width, placed.height), 6))
    assert all(len(found) == 1 for found in lengths.values()), lengths
    assert middles[""] == {(0.5,)} and middles["and"] == middles["to the left of"] == {(0.26, 0.74)}
    assert middles["to the right of"] == {(0.74, 0.26)} and middles["above"] == {(0.5, 0.5)}
    assert len({placed.y for placed in subjects}) == 3, "in the middle, above and below"
    world = scenes(atlas, settled=True)
    black = []
    for placed in subjects[:20]:
        photos = [world.reference(placed, np.random.default_rng(seed)).astype(int) for seed in range(12)]
        black += [photo.max(-1) > 60 for photo in photos if (photo == 0).all(-1).mean() > 0.1]
    assert len(black) > 50 and all(max(seen.any(0).sum(), seen.any(1).sum()) > 0.85 * len(seen) for seen in black)
    free = [scenes(atlas).plan(index) for index in range(50)]
    assert len({placed.x for plan in free for placed in plan.subjects}) > 40
