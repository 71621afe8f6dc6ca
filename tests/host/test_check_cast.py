"""Check Cast on pictures whose truth is known: bundled drawings put where they belong, or not."""

import dataclasses

import pytest
import torch
from comfy_execution.graph_utils import ExecutionBlocker
from graph import applied, bound, module

PAIR = "a toy<|subj:penguin|> to the left of a toy<|subj:ladybug|> in a meadow"
SIDE = 256


def half(left):
    mask = torch.zeros(1, 64, 64)
    mask[..., : 32 if left else None] = 1
    return mask if left else 1 - half(True)


@pytest.fixture(scope="module")
def demo(pack):
    """model, clip, vae, clip_vision, mmdiff, latent."""
    return pack["MMDiffLoadDemo"].execute().args


@pytest.fixture(scope="module")
def encoded(pack, demo):
    """Two subjects, by name."""
    found = {}
    for name in ("penguin", "ladybug"):
        image, mask = pack["MMDiffDemoSubject"].execute(subject=name).args
        given = {"mmdiff": demo[4], "clip_vision": demo[3], "image": image, "mask": mask, "name": name, "weight": 1.0}
        found[name] = pack["MMDiffEncodeSubject"].execute(**given).args[0]
    return found


@pytest.fixture(scope="module")
def placed(pack, demo, encoded):
    """The binding of both with a half of the picture each, penguin left."""
    subjects = [
        pack["MMDiffPlaceSubject"].execute(one, 0.0, 1.0, half(left)).args[0]
        for one, left in zip(encoded.values(), (True, False), strict=True)
    ]
    return bound(pack, PAIR, subjects, mmdiff=demo[4], clip=demo[1])[2]


def picture(pack, left, right, size=(SIDE, SIDE)):
    """(1, H, W, 3): a meadow with a bundled drawing in each half, or nobody where the name is None."""
    meadow = torch.tensor([0.55, 0.75, 0.95]).expand(1, SIDE, SIDE, 3).clone()
    meadow[:, SIDE * 5 // 8 :] = torch.tensor([0.45, 0.72, 0.3])
    for name, at in ((left, 0), (right, SIDE // 2)):
        if name is not None:
            image, opacity = (one.float() for one in pack["MMDiffDemoSubject"].execute(subject=name).args)
            shown = torch.cat((image, opacity[..., None]), -1).movedim(-1, 1)
            side = SIDE * 3 // 8
            shown = torch.nn.functional.interpolate(shown, (side, side), mode="area").movedim(1, -1)
            window = meadow[:, SIDE * 2 // 5 :][:, :side, at + SIDE // 16 :][:, :, :side]
            window *= 1 - shown[..., 3:]
            window += shown[..., :3]
    scaled = torch.nn.functional.interpolate(meadow.movedim(-1, 1), size, mode="bilinear", antialias=True)
    return scaled.movedim(1, -1)


def check(pack, demo, binding, image, **inputs):
    """(passed, not passed, report)."""
    node = pack["MMDiffCheckCast"]
    return node.execute(image=image, binding=binding, mmdiff=demo[4], **{"clip_vision": demo[3], **inputs}).args


TRUTH = {
    "both": (("penguin", "ladybug"), "penguin is there, on the left", "ladybug is there, on the right"),
    "swapped": (("ladybug", "penguin"), "penguin has changed places with ladybug", "ladybug has changed places"),
    "twice": (("penguin", "penguin"), "penguin is drawn 2 times", "ladybug is missing, penguin stands in that place"),
    "missing": (("penguin", None), "penguin is there", "ladybug is missing, the likest is"),
    "a stranger": (("popcorn", "ladybug"), "penguin is missing, a stranger stands in that place", "ladybug is there"),
    "nobody": ((None, None), "penguin is missing, the likest", "ladybug is missing, the likest"),
}


@pytest.mark.parametrize(("shown", "of_penguin", "of_ladybug"), TRUTH.values(), ids=TRUTH)
def test_what_is_said_is_so(pack, demo, placed, shown, of_penguin, of_ladybug):
    *_, report = check(pack, demo, placed, picture(pack, *shown))
    assert of_penguin in report and of_ladybug in report, report


def test_a_batch_is_parted(pack, demo, placed):
    good, bad = picture(pack, "penguin", "ladybug"), picture(pack, "penguin", None)
    passed, others, report = check(pack, demo, placed, torch.cat((bad, good, bad)))
    assert torch.equal(passed, good) and torch.equal(others, torch.cat((bad, bad)))
    assert [line.split(":")[0] for line in report.splitlines()[:3]] == [
        "Picture 1 of 3, not passed",
        "Picture 2 of 3, passed",
        "Picture 3 of 3, not passed",
    ]


@pytest.mark.parametrize(("shown", "empty"), [(("penguin", None), 0), (("penguin", "ladybug"), 1)])
def test_an_empty_group_is_said_and_stops_what_hangs_on_it(pack, demo, placed, shown, empty):
    image = picture(pack, *shown)
    *groups, report = check(pack, demo, placed, image)
    assert isinstance(groups[empty], ExecutionBlocker) and torch.equal(groups[1 - empty], image)
    assert f"No picture is in '{('passed', 'not passed')[empty]}'" in report


def test_a_picture_of_another_size_than_the_latent(pack, demo, placed):
    wide = picture(pack, "penguin", "ladybug", size=(300, 620))
    passed, _, report = check(pack, demo, placed, wide)
    assert torch.equal(passed, wide), report


def test_the_threshold_moves_what_passes(pack, demo, placed):
    image = picture(pack, "penguin", "ladybug")
    assert "Picture 1 of 1, passed" in check(pack, demo, placed, image, threshold=0.3)[2]
    strict = check(pack, demo, placed, image, threshold=1.0)[2]
    assert "not passed" in strict and "Likeness counts from 1.00 on" in strict


@pytest.fixture(scope="module")
def drawing(pack, demo, encoded):
    """What is connected where nobody has a region: model, positive, binding."""
    positive, _, binding = bound(pack, PAIR, list(encoded.values()), mmdiff=demo[4], clip=demo[1])
    return {"model": applied(pack, binding, model=demo[0], weight=1.0), "positive": positive}, binding


def test_maps_say_whose_place_it_is(pack, demo, drawing):
    connected, binding = drawing
    for shown, said in ((("penguin", "ladybug"), "1 of 1, passed"), (("ladybug", "penguin"), "has changed places")):
        image = picture(pack, *shown, size=(128, 128))
        report = check(pack, demo, binding, image, **connected, latent={"samples": demo[2].encode(image)})[2]
        assert said in report, report
    alone = check(pack, demo, binding, picture(pack, "ladybug", "penguin"))[2]
    assert "1 of 1, passed" in alone and "Without model, positive and latent" in alone


def test_what_is_only_half_connected(pack, demo, drawing, encoded):
    error = module(pack, "mmdiff_core").MMDiffError
    connected, binding = drawing
    image = torch.cat([picture(pack, "penguin", "ladybug", size=(128, 128))] * 2)
    with pytest.raises(error, match="Check Cast: To see where words acted, connect latent too"):
        check(pack, demo, binding, image, **connected)
    one = {"samples": demo[2].encode(image[:1])}
    with pytest.raises(error, match="There are 2 pictures and 1 latents"):
        check(pack, demo, binding, image, **connected, latent=one)
    with pytest.raises(error, match="none is connected. Connect Load CLIP Vision"):
        check(pack, demo, binding, image, clip_vision=None)


def test_a_subject_of_an_older_file(pack, demo, encoded):
    old = dataclasses.replace(encoded["penguin"], photos=None)
    binding = bound(pack, "a toy<|subj|>", [old], mmdiff=demo[4], clip=demo[1])[2]
    with pytest.raises(module(pack, "mmdiff_core").MMDiffError, match="penguin: saved by an older version"):
        check(pack, demo, binding, picture(pack, "penguin", None))


def test_subjects_by_another_recogniser_are_looked_for_as_pictures(pack, demo, placed, monkeypatch):
    """Faces are compared on a scale that is known for buffalo_l alone."""
    faces = [dataclasses.replace(subject, faces=torch.ones(1, 128)) for subject in placed.subjects]
    binding = dataclasses.replace(placed, subjects=faces)
    shown = picture(pack, "penguin", "ladybug")
    monkeypatch.setattr(demo[4].core, "spec", dataclasses.replace(demo[4].core.spec, recogniser="dlib"))
    found, wanted = (check(pack, demo, one, shown) for one in (binding, placed))
    assert torch.equal(found[0], wanted[0]) and len(found[0]) == 1


def test_a_small_picture_is_shown_large_enough_for_its_labels(pack):
    """Its boxes where they were."""
    node, seen = module(pack, "nodes.check_cast"), module(pack, "mmdiff_core.cast.seen")
    found = seen.Seen(torch.tensor([[32.0, 64.0, 96.0, 112.0]]), torch.zeros(0, 1), [])
    shown = node._boxed(torch.zeros(128, 128, 3), module(pack, "nodes.host.cast").Checked(found, []))
    assert shown.shape == (512, 512, 3)
    white = (shown == 1).all(dim=-1)
    assert white[448, 128:384].all() and not white[480:].any() and not white[:, :120].any()
