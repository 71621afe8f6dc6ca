"""Annotated pictures: every broken record is named with its reason, and the rest becomes training scenes."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from mmdiff_core.data.annotated import AnnotatedScenes
from mmdiff_core.data.augment import Changes, fitted, recoloured, vary
from mmdiff_core.data.buckets import nearest, shapes
from mmdiff_core.data.faces import SegmentFace, faces_path, write_faces
from mmdiff_core.data.order import Grouped, Order
from mmdiff_core.data.validate import Broken, check_folder, validate
from mmdiff_core.errors import MMDiffError

ROOT = Path(__file__).parents[2]
CAPTION = "A red dog and two men in a park"
DOG, MEN = (0, 9), (14, 21)  # "A red dog", "two men"


def write(folder: Path, name: str, **changes) -> Path:
    """A good record: a dog in red on the left and a man in blue on the right, 160 x 100."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.full((100, 160, 3), 90, np.uint8)
    segments = np.zeros((100, 160), np.float32)
    pixels[20:90, 32:70], segments[20:90, 32:70] = (200, 10, 10), 1
    pixels[10:96, 86:120], segments[10:96, 86:120] = (10, 10, 200), 2
    annotation = {
        "image_id": name,
        "caption": CAPTION,
        "segments": [
            {"id": 1, "word": "A red dog", "start": DOG[0], "end": DOG[1], "box": [32, 20, 70, 90]},
            {"id": 2, "word": "two men", "start": MEN[0], "end": MEN[1], "bbox": [86, 10, 120, 96], "coco_label": 0},
        ],
    }
    Image.fromarray(pixels).save(folder / f"{name}.jpg", quality=95, subsampling=0)
    np.save(folder / f"{name}.npy", changes.get("segments", segments))
    (folder / f"{name}.json").write_text(json.dumps({**annotation, **changes.get("annotation", {})}))
    return folder / name


def only(folder: Path) -> Broken:
    (found,) = check_folder(folder)
    assert isinstance(found, Broken), found
    return found


def segments_of(*spans: tuple[int, int, int]) -> dict:
    return {"segments": [{"id": number, "start": start, "end": end} for number, start, end in spans]}


# What is broken


def test_a_good_record_is_good(tmp_path):
    write(tmp_path / "00000", "000000000")
    (record,) = check_folder(tmp_path)
    assert record.name == "00000/000000000" and record.caption == CAPTION
    assert [(one.id, one.start, one.end) for one in record.segments] == [(1, *DOG), (2, *MEN)]


@pytest.mark.parametrize(
    ("suffix", "reason"),
    [("jpg", "the picture is missing"), ("npy", "segment map is missing"), ("json", "annotation is missing")],
)
def test_a_missing_file_is_named(tmp_path, suffix, reason):
    write(tmp_path, "a").with_suffix(f".{suffix}").unlink()
    assert only(tmp_path).file == tmp_path / f"a.{suffix}" and reason in only(tmp_path).reason


@pytest.mark.parametrize(("suffix", "reason"), [("jpg", "can't be read"), ("npy", "not a NumPy array")])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_cut_off_file_is_named(tmp_path, suffix, reason, share):
    path = write(tmp_path, "a").with_suffix(f".{suffix}")
    content = path.read_bytes()
    path.write_bytes(content[: round(share * len(content))])
    assert only(tmp_path).file == path and reason in only(tmp_path).reason


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ({"caption": None}, "no text under `caption`"),
        ({"caption": " "}, "caption is empty"),
        ({"segments": []}, "lists no `segments`"),
        ({"segments": [{"id": 1, "start": 0}]}, "whole number"),
        ({"segments": [{"id": 1, "start": 0, "end": "9"}]}, "whole number"),
        ({"segments": ["dog"]}, "whole number"),
        (segments_of((1, 0, 99)), "characters 0 to 99 of a caption of 31"),
        (segments_of((1, -3, 9)), "characters -3 to 9"),
        (segments_of((1, 9, 9)), "characters 9 to 9"),
        (segments_of((1, 0, 8)), "'A red do'"),
        (segments_of((1, 3, 9)), "'ed dog'"),
        (segments_of((1, 0, 10)), "'A red dog '"),
        (segments_of((1, *DOG), (1, *MEN)), "the same `id`"),
        (segments_of((1, *DOG), (2, 6, 9)), "'A red dog' and 'dog' overlap"),
        (segments_of((1, *DOG), (7, *MEN)), "segment 7 is nowhere in the map"),
    ],
)
def test_a_wrong_annotation_is_named(tmp_path, annotation, reason):
    write(tmp_path, "a", annotation=annotation)
    assert reason in only(tmp_path).reason and only(tmp_path).file.stem == "a"


def test_text_that_is_not_json_is_named(tmp_path):
    write(tmp_path, "a").with_suffix(".json").write_text('{"caption": ')
    assert only(tmp_path).reason.startswith("not JSON")
    (tmp_path / "a.json").write_bytes(b'{"caption": "\xff"}')
    assert only(tmp_path).reason.startswith("not JSON")
    (tmp_path / "a.json").write_text("[1]")
    assert "no text under `caption`" in only(tmp_path).reason


def test_a_wrong_map_is_named(tmp_path):
    write(tmp_path, "a", segments=np.zeros((100, 90)))
    assert only(tmp_path).reason == "the map is 90 x 100 and the picture 160 x 100"
    small = np.zeros((100, 160))
    small[20:60, 30:60], small[40:43, 90:93] = 1, 2
    write(tmp_path, "a", segments=small)
    assert "segment 2 covers 0.09% of the square" in only(tmp_path).reason
    for wrong in (np.zeros((100, 160, 3)), np.full((100, 160), "x")):
        write(tmp_path, "a", segments=wrong)
        assert "height x width" in only(tmp_path).reason


def test_a_map_that_would_run_code_is_not_opened(tmp_path):
    np.save(write(tmp_path, "a").with_suffix(".npy"), np.array([{}], dtype=object), allow_pickle=True)
    assert "not a NumPy array" in only(tmp_path).reason


@given(
    annotation=st.recursive(
        st.none() | st.booleans() | st.integers(-5, 40) | st.floats() | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["caption", "segments", "id", "start", "end", "x"]), inner, max_size=5)
        ),
        max_leaves=12,
    )
)
def test_any_annotation_is_judged_and_never_a_crash(tmp_path_factory, annotation):
    folder = tmp_path_factory.mktemp("any")
    write(folder, "a").with_suffix(".json").write_text(json.dumps(annotation))
    assert only(folder).file == folder / "a.json"


def test_pictures_alone_are_only_pictures(tmp_path):
    write(tmp_path, "a")
    Image.new("RGB", (9, 9)).save(tmp_path / "view.jpg")
    assert validate(tmp_path) == (1, [])


def test_a_list_restricts_the_folder_and_names_what_it_misses(tmp_path):
    for name in ("a", "b", "c"):
        write(tmp_path / "sub", name)
    (tmp_path / "image_ids_train.txt").write_text("a\nsub/c\nd\n")
    good, broken = validate(tmp_path)
    assert good == 2 and [one.file for one in broken] == [tmp_path / "d.json"]


def test_the_command_reports_every_broken_record(tmp_path):
    def call() -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "mmdiff_core", "validate", str(tmp_path)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    write(tmp_path, "bad").with_suffix(".npy").unlink()
    done = call()
    assert done.returncode == 1 and "None of the 1 records" in done.stderr and "bad.npy" in done.stderr
    write(tmp_path, "good")
    done = call()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{tmp_path / 'bad.npy'}: the segment map is missing",
        "1 records are good, 1 are left out.",
    ]


def test_folders_without_records_get_a_sentence(tmp_path):
    with pytest.raises(MMDiffError, match="no folder .*nowhere"):
        AnnotatedScenes(tmp_path / "nowhere", 64, 32, 0)
    with pytest.raises(MMDiffError, match="holds no records"):
        AnnotatedScenes(tmp_path, 64, 32, 0)
    write(tmp_path, "bad").with_suffix(".jpg").unlink()
    with pytest.raises(MMDiffError, match=r"None of the 1 records.*\n.*bad\.jpg: the picture is missing"):
        AnnotatedScenes(tmp_path, 64, 32, 0)


# What is trained on


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key]
        for key, value in one.items()
    )


def test_an_item_is_the_picture_with_its_masks_and_phrases(tmp_path):
    write(tmp_path, "a")
    write(tmp_path, "broken").with_suffix(".npy").unlink()
    dataset = AnnotatedScenes(tmp_path, 50, 32, seed=0)
    assert len(dataset) == 1 and [one.file.name for one in dataset.broken] == ["broken.npy"]
    item = dataset[0]
    image, masks = item["image"], item["masks"]
    assert item["record"] == "a" and item["caption"] == CAPTION and item["entities"] == [DOG, MEN]
    assert image.shape == (3, 50, 50) and image.dtype == torch.float32 and image.abs().max() <= 1
    assert masks.shape == (2, 50, 50) and item["references"].shape == (2, 3, 32, 32)
    # The square of 100 x 100 around both subjects starts at column 26; half of it is 50 x 50.
    assert masks[0].nonzero().aminmax().min == 3 and masks[0, 20, 3:22].eq(1).all() and not masks[0, 20, 22:].any()
    red, blue = image[0] > 0.3, image[2] > 0.3
    assert (red == (masks[0] > 0.5)).float().mean() > 0.99 and (blue == (masks[1] > 0.5)).float().mean() > 0.99
    assert torch.equal((item["references"] * 255).round() / 255, item["references"])


def test_items_are_a_function_of_seed_and_index(tmp_path):
    for number in range(5):
        write(tmp_path, str(number))
    dataset, again = (AnnotatedScenes(tmp_path, 32, 16, seed=1) for _ in range(2))
    again[3]
    for index in (0, 4, 5, 123456789):
        assert same(dataset[index], again[index])
    assert not same(dataset[0], AnnotatedScenes(tmp_path, 32, 16, seed=2)[0])
    epochs = [[dataset[5 * epoch + place]["record"] for place in range(5)] for epoch in range(6)]
    assert all(sorted(epoch) == list("01234") for epoch in epochs) and len(set(map(tuple, epochs))) > 1
    loader = DataLoader(dataset, batch_size=None, num_workers=2)
    for index, item in enumerate(loader):
        assert torch.equal(item["image"], dataset[index]["image"])
        assert torch.equal(item["references"], dataset[index]["references"])


def test_of_many_subjects_some_are_chosen_in_the_captions_order(tmp_path):
    segments = np.zeros((100, 160))
    spans = [(0, 1), (2, 5), (6, 9), (14, 17)]
    for number in range(4):
        segments[20:80, 20 + 30 * number : 45 + 30 * number] = number + 1
    write(tmp_path, "a", segments=segments, annotation=segments_of(*((i + 1, *span) for i, span in enumerate(spans))))
    dataset = AnnotatedScenes(tmp_path, 32, 16, 0, max_subjects=2)
    chosen = {tuple(dataset[index]["entities"]) for index in range(60)}
    assert dataset.max_subjects == 2 and AnnotatedScenes(tmp_path, 32, 16, 0, max_subjects=9).max_subjects == 4
    assert dataset[0]["masks"].shape == (2, 32, 32)
    assert len(chosen) == 6 and all(pair == tuple(sorted(pair)) for pair in chosen)


def test_references_are_cut_out_and_differ_while_the_target_stays(tmp_path):
    """The slimmer one is 34 x 86; turned by 25 degrees and at 0.7 of 32 pixels it is 8.3 x 20.9, less a soft edge."""
    write(tmp_path, "a")
    dataset = AnnotatedScenes(tmp_path, 50, 32, seed=0)
    first, *others = (dataset[index] for index in range(40))
    for item in others:
        assert torch.equal(item["image"], first["image"]) and torch.equal(item["masks"], first["masks"])
        assert not torch.equal(item["references"], first["references"])
        for reference, colour in zip(item["references"], (0, 2), strict=True):
            subject = (reference[colour] > 0.5) & (reference[1] < 0.3) & (reference[2 - colour] < 0.3)
            assert subject.float().mean() > (8.3 - 1) * (20.9 - 1) / 32**2


def two_photos(folder: Path, **more) -> None:
    """One dog, red in one picture and green in another, beside a man of no name."""
    write(folder, "red", annotation={"segments": [{"id": 1, "start": 0, "end": 9, "same": "rex"}], **more})
    write(folder, "green", annotation={"segments": [{"id": 1, "start": 0, "end": 9, "same": "rex"}], **more})
    picture = np.asarray(Image.open(folder / "green.jpg")).copy()
    picture[20:90, 32:70] = (10, 200, 10)
    Image.fromarray(picture).save(folder / "green.jpg", quality=95, subsampling=0)


def test_photos_of_the_same_one_are_references_of_each_other(tmp_path):
    two_photos(tmp_path)
    write(tmp_path, "alone", annotation={"segments": [{"id": 1, "start": 0, "end": 9, "same": "fido"}]})
    dataset = AnnotatedScenes(tmp_path, 50, 32, seed=0)
    for index in range(30):
        item = dataset[index]
        colours = torch.tensor([[0.78, 0.04, 0.04], [0.04, 0.78, 0.04]])[..., None, None]
        red, green = ((item["references"][0] - colours).abs().amax(1) < 0.2).sum((1, 2))
        shown = {"red": green, "green": red, "alone": red}
        assert shown[item["record"]] > 150, "the other photo, or the same one where there is no other"


def test_a_name_that_is_no_text_is_a_broken_record(tmp_path):
    write(tmp_path, "a", annotation={"segments": [{"id": 1, "start": 0, "end": 9, "same": 3}]})
    assert "segment 1 has 3 under `same`" in only(tmp_path).reason


def face(value: int) -> SegmentFace:
    return SegmentFace(torch.full((4,), float(value)), torch.full((28, 28, 3), value, dtype=torch.uint8))


def test_faces_come_from_the_photo_that_the_reference_comes_from(tmp_path):
    two_photos(tmp_path)
    for name, value in (("red", 100), ("green", 200)):
        write_faces(faces_path(tmp_path, name), {1: face(value)}, "dlib")
    dataset = AnnotatedScenes(tmp_path, 50, 32, seed=0, faces="dlib")
    for index in range(4):
        item = dataset[index]
        other = {"red": 200, "green": 100}[item["record"]]
        assert torch.equal(item["faces"], torch.full((1, 4), float(other)))
        assert item["crops"].shape == (1, 3, 32, 32)
        torch.testing.assert_close(item["crops"], torch.full((1, 3, 32, 32), other / 255))


def test_what_has_no_face_is_no_subject_of_a_portrait(tmp_path):
    for name in ("two", "none", "other", "missing", "broken"):
        write(tmp_path, name)
    write_faces(faces_path(tmp_path, "two"), {2: face(1)}, "dlib")
    write_faces(faces_path(tmp_path, "none"), {}, "dlib")
    write_faces(faces_path(tmp_path, "other"), {1: face(1)}, "buffalo_l")
    faces_path(tmp_path, "broken").write_bytes(b"no")
    dataset = AnnotatedScenes(tmp_path, 50, 32, seed=0, faces="dlib")
    assert [record.name for record in dataset.records] == ["two"]
    assert dataset[0]["entities"] == [MEN] and dataset.max_subjects == 1
    reasons = {broken.file.name.partition(".")[0]: broken.reason for broken in dataset.broken}
    assert reasons["none"] == "no segment has a face"
    assert reasons["other"] == "the faces are by buffalo_l, wanted are those by dlib"
    assert "annotate" in reasons["missing"] and "not a whole safetensors file" in reasons["broken"]


# References as other photos


def card(width: int = 40, height: int = 60) -> Image.Image:
    picture = Image.new("RGBA", (width, height), (200, 40, 40, 255))
    picture.paste((40, 200, 40, 255), (0, 0, width // 2, height))
    return picture


def varied(size: int, seed: int, **options: object) -> np.ndarray:
    """(size, size, 3) of 8 bits."""
    return np.asarray(vary(card(), size, np.random.default_rng(seed), **options).convert("RGB"))


def test_variations_flip_turn_zoom_and_change_what_is_behind():
    photos = [varied(64, seed) for seed in range(80)]
    assert all(photo.shape == (64, 64, 3) for photo in photos)
    assert len({photo.tobytes() for photo in photos}) == 80
    black = [photo for photo in photos if (photo[0, 0] == 0).all() and (photo == 0).all(-1).mean() > 0.2]
    assert 20 < len(black) < 70, "about half, of those without scenes more"
    columns = np.arange(64)
    side = [((p[..., 1] > 120) * columns).sum() / (p[..., 1] > 120).sum() for p in black]
    other = [((p[..., 0] > 120) * columns).sum() / (p[..., 0] > 120).sum() for p in black]
    left = np.array(side) < np.array(other)
    assert 0.2 < left.mean() < 0.8, "some are flipped"
    heights = {int((p > 0).any((1, 2)).sum()) for p in black}
    assert min(heights) < 52 and max(heights) <= 64, "zoomed, and never cut off"


def test_a_variation_can_fill_the_photo_in_the_middle():
    filled = Changes(turn=0.0, fill=(1.0, 1.0), centred=True)
    photos = [varied(64, seed, changes=filled) for seed in range(40)]
    black = [(photo > 0).any(-1) for photo in photos if (photo[0, 0] == 0).all()]
    assert len(black) > 10
    assert all(seen.all(0).sum() == 43 and seen.all(0)[10:53].all() for seen in black), "as tall as the photo, centred"


def test_scenes_come_behind_only_where_there_are_some():
    def blue(side: int, random: np.random.Generator) -> Image.Image:
        return Image.new("RGB", (side, side), (0, 0, 250))

    def behind(scene) -> list[bool]:
        photos = (varied(32, seed, scene=scene) for seed in range(60))
        return [bool(((photo == (0, 0, 250)).all(-1)).mean() > 0.1) for photo in photos]

    assert not any(behind(None)) and 2 < sum(behind(blue)) < 25


@given(width=st.integers(1, 90), height=st.integers(1, 90), size=st.integers(8, 80), seed=st.integers(0, 2**32 - 1))
def test_any_subject_becomes_a_photo_of_the_size(width, height, size, seed):
    photo = vary(card(width, height), size, np.random.default_rng(seed))
    assert photo.size == (size, size) and photo.mode == "RGBA"


def test_a_variation_is_opaque_where_its_subject_is():
    """On black ones it can be seen; the background is there all the same."""
    photos = [np.asarray(vary(card(), 64, np.random.default_rng(seed))) for seed in range(40)]
    black = [photo for photo in photos if (photo[0, 0, :3] == 0).all() and (photo[..., :3] == 0).all(-1).mean() > 0.2]
    assert len(black) > 10
    assert all(((photo[..., :3] > 0).any(-1) == (photo[..., 3] > 0)).mean() > 0.97 for photo in black)
    assert any(photo[..., :3][photo[..., 3] == 0].any() for photo in photos)


def test_hues_turn_at_equal_luma_and_opacity_stays():
    picture = card()
    picture.putpixel((0, 0), (90, 90, 90, 7))
    turned = recoloured(picture, 2.0)
    assert turned.getpixel((0, 0)) == (90, 90, 90, 7), "grey has no hue"
    assert turned.getpixel((30, 30)) != picture.getpixel((30, 30))
    pale = Image.new("RGBA", (4, 4), (150, 110, 120, 200))
    assert abs(pale.convert("L").getpixel((0, 0)) - recoloured(pale, 2.0).convert("L").getpixel((0, 0))) <= 1
    assert np.abs(np.asarray(recoloured(recoloured(pale, 2.0), -2.0), int) - np.asarray(pale, int)).max() <= 2
    assert recoloured(picture, 0.0).tobytes() == picture.tobytes()


def test_fitted_keeps_proportions():
    assert fitted(card(40, 60), 30).size == (20, 30) and fitted(card(400, 2), 40).size == (40, 1)


def test_order_is_a_permutation_in_every_epoch():
    order = Order(7, seed=5)
    epochs = [[order[7 * epoch + place] for place in range(7)] for epoch in (3, 0, 3, 1)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert epochs[0] == epochs[2] != epochs[1] and epochs[1] != epochs[3]


# Buckets


@pytest.mark.parametrize(("resolution", "step"), [(1024, 32), (512, 64), (768, 64), (64, 8), (32, 4)])
def test_shapes_are_of_one_area_and_of_both_orientations(resolution, step):
    found = shapes(resolution, step)
    assert (resolution, resolution) in found and {(height, width) for width, height in found} == set(found)
    for width, height in found:
        assert width % step == height % step == 0 and 0.5 <= width / height <= 2
        assert 0.85 * resolution**2 < width * height <= resolution**2 or resolution < 16 * step
    assert nearest(found, 10 * resolution, resolution) == found[-1]
    assert nearest(found, 999, 1000) == (resolution, resolution)


def test_sdxls_own_shapes_are_among_them():
    assert {(1152, 896), (896, 1152), (1216, 832), (832, 1216)} <= set(shapes(1024, 32))


@given(
    groups=st.lists(st.integers(0, 3), min_size=1, max_size=30),
    batch=st.integers(1, 5),
    seed=st.integers(0, 9),
)
def test_a_batch_has_one_group_and_an_epoch_every_record(groups, batch, seed):
    order = Grouped(groups, batch, seed)
    shown = [order[index] for index in range(2 * order.count)]
    for epoch in (shown[: order.count], shown[order.count :]):
        assert set(epoch) == set(range(len(groups)))
        for start in range(0, order.count, batch):
            assert len({groups[record] for record in epoch[start : start + batch]}) == 1
        assert len(epoch) - len(groups) < batch * len(set(groups))
    other = Grouped(groups, batch, seed)
    assert [other[index] for index in reversed(range(len(shown)))] == shown[::-1]
    with pytest.raises(IndexError):
        order[-1]


def test_a_picture_keeps_its_aspect_and_says_where_it_was_cut(tmp_path):
    """160 x 100: the nearest shape is 160 x 96; four rows are cut off, and no column."""
    write(tmp_path, "wide")
    known = [(96, 160), (128, 128), (160, 96)]
    item = AnnotatedScenes(tmp_path, 128, 32, seed=0, shapes=known)[0]
    assert item["image"].shape == (3, 96, 160) and item["masks"].shape == (2, 96, 160)
    height, width, top, left, *cut = item["sizes"].tolist()
    assert (height, width) == (100, 160) and cut == [96, 160] and left == 0 and 0 <= top <= 4
    red = (item["image"][0] > 0.3) & (item["image"][2] < -0.5)
    assert (red == (item["masks"][0] > 0.5)).float().mean() > 0.98, "masks move with the picture"
    square = AnnotatedScenes(tmp_path, 128, 32, seed=0)[0]
    assert square["image"].shape == (3, 128, 128) and "sizes" not in square


def test_variants_come_again(tmp_path):
    """A segment has so many photos, whatever the epoch, and another one has others."""
    write(tmp_path, "a")
    seen = []
    for seed in (0, 1):
        scenes = AnnotatedScenes(tmp_path, 64, 32, seed, variants=3)
        seen.append({scenes[index]["references"][0].numpy().tobytes() for index in range(40)})
    assert len(seen[0]) == len(seen[1]) == 3 and not seen[0] & seen[1]


# What is held out


def test_a_part_is_held_out_and_who_is_the_same_stays_together(tmp_path):
    for number in range(40):
        write(tmp_path, f"{number:02}")
    for number in range(12):
        write(tmp_path, f"rex {number}", annotation={"segments": [{"id": 1, "start": 0, "end": 9, "same": "rex"}]})
    names = {
        part: {record.name for record in AnnotatedScenes(tmp_path, 32, 32, 0, part=part).records}
        for part in ("all", "train", "held")
    }
    assert names["train"] | names["held"] == names["all"] and not names["train"] & names["held"]
    assert 1 <= len(names["held"]) <= 20
    rex = {name for name in names["all"] if name.startswith("rex")}
    assert rex <= names["train"] or rex <= names["held"]
    with pytest.raises(MMDiffError, match="'test'; it must be one of all, train, held"):
        AnnotatedScenes(tmp_path, 32, 32, 0, part="test")


def test_a_folder_too_small_to_hold_any_out(tmp_path):
    write(tmp_path, "a")
    with pytest.raises(MMDiffError, match="no record is in the part 'held'"):
        AnnotatedScenes(tmp_path, 32, 32, 0, part="held")
