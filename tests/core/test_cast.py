"""Who of the cast is in a picture: verdicts, faces, and pictures cut out by their colours."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from mmdiff_core import MMDiffError
from mmdiff_core.cast import Kind, Seen, by_faces, by_pictures, judge, likeness, sentence
from mmdiff_core.cast.colours import histogram, likely, shared
from mmdiff_core.face import Detections, FaceModels

ADA, BEN = 0, 1
NAMES = ("Ada", "Ben")


def seen(scores, homes=(None, None), sides=None):
    """A picture 300 wide with those seen from left to right. scores: a row a subject."""
    count = len(scores[0])
    sides = sides or [20.0] * count
    boxes = [[120.0 * one + 10, 0.0, 120.0 * one + 10 + side, side] for one, side in enumerate(sides)]
    return Seen(torch.tensor(boxes).reshape(-1, 4), torch.tensor(scores).reshape(len(scores), -1), list(homes))


def kinds(found, threshold=0.5):
    return [verdict.kind for verdict in judge(found, threshold)]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (seen([[0.9, 0.1], [0.2, 0.8]]), (Kind.PRESENT, Kind.PRESENT)),
        (seen([[0.9, 0.1], [0.2, 0.8]], (0, 1)), (Kind.PRESENT, Kind.PRESENT)),
        (seen([[0.9, 0.1], [0.2, 0.8]], (1, 0)), (Kind.SWAPPED, Kind.SWAPPED)),
        (seen([[0.9, 0.8], [0.2, 0.3]]), (Kind.TWICE, Kind.MISSING)),
        (seen([[0.9, 0.1], [0.2, 0.3]], (0, None)), (Kind.PRESENT, Kind.MISSING)),
        (seen([[0.9, 0.1], [0.2, 0.3]], (0, 1)), (Kind.PRESENT, Kind.STRANGER)),
        (seen([[0.1], [0.9]], (0, 0)), (Kind.MISSING, Kind.PRESENT)),
        (seen([[], []]), (Kind.MISSING, Kind.MISSING)),
    ],
)
def test_verdicts(found, expected):
    assert tuple(kinds(found)) == expected


def test_two_that_look_alike_get_one_each():
    """Each takes the one that leaves the most for both, not the one it is likest."""
    assert kinds(seen([[0.9, 0.85], [0.88, 0.6]])) == [Kind.PRESENT, Kind.PRESENT]
    ada, ben = judge(seen([[0.9, 0.85], [0.88, 0.6]]), 0.5)
    assert (ada.places, ben.places) == ((1,), (0,))


def test_something_small_in_its_colours_is_not_the_subject_again():
    assert kinds(seen([[0.9, 0.8]], (None,), sides=[30, 30])) == [Kind.TWICE]
    assert kinds(seen([[0.9, 0.8]], (None,), sides=[30, 10])) == [Kind.PRESENT]


def test_the_threshold_is_the_users():
    found = seen([[0.6], [0.1]])
    assert kinds(found, 0.5)[ADA] is Kind.PRESENT and kinds(found, 0.7)[ADA] is Kind.MISSING


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (seen([[0.9, 0.1], [0.2, 0.8]]), ("Ada is there, on the left, 0.90.", "Ben is there, in the middle, 0.80.")),
        (seen([[0.9, 0.8], [0.2, 0.3]]), ("Ada is drawn 2 times, on the left and in the middle.", None)),
        (
            seen([[0.9, 0.1], [0.2, 0.3]], (0, 1)),
            (None, "Ben is missing, a stranger stands in that place, in the middle, 0.30."),
        ),
        (seen([[0.1], [0.9]], (0, None)), ("Ada is missing, Ben stands in that place, on the left.", None)),
        (seen([[0.9], [0.2]]), (None, "Ben is missing, the likest is 0.20.")),
        (
            seen([[0.9, 0.1], [0.2, 0.8]], (1, 0)),
            ("Ada has changed places with Ben and stands on the left, 0.90.", None),
        ),
    ],
)
def test_sentences(found, said):
    for verdict, name, wanted in zip(judge(found, 0.5), NAMES, said, strict=True):
        assert wanted is None or sentence(verdict, name, NAMES, found, 300) == wanted


# Faces: a detector that finds squares of one grey, and a recogniser that reads the grey as an angle.


def faces(*greys):
    """A picture (3, 100, 300) with a square of each grey, and models that find and recognise them."""
    picture = torch.zeros(3, 100, 300)
    for number, grey in enumerate(greys):
        picture[:, 30:70, 100 * number + 30 : 100 * number + 70] = grey

    def detect(photo, size):
        at = [n for n, grey in enumerate(greys) if grey]
        boxes = np.array([[100 * n + 30, 30, 100 * n + 70, 70] for n in at], np.float32).reshape(-1, 4)
        corners = np.array([[42, 45], [58, 45], [50, 52], [44, 62], [56, 62]], np.float32)
        points = np.array([corners + [100 * n, 0] for n in at], np.float32).reshape(-1, 5, 2)
        return Detections(boxes, np.ones(len(at), np.float32), points)

    def embed(crop):
        angle = crop[56, 56, 0] / 255 * math.pi
        return np.array([math.cos(angle), math.sin(angle)], np.float32) * 7

    return picture, FaceModels(detect, embed)


def person(*greys):
    return torch.tensor([[math.cos(grey * math.pi), math.sin(grey * math.pi)] for grey in greys])


def where(left):
    acted = torch.zeros(4, 12)
    acted[:, left * 4 : left * 4 + 4] = 1
    return acted


def test_faces_are_told_apart():
    picture, models = faces(0.25, 0.0, 0.75)
    found = by_faces(picture, [person(0.25), person(0.75)], [None, None], models)
    assert kinds(found) == [Kind.PRESENT, Kind.PRESENT]
    assert [verdict.places for verdict in judge(found, 0.5)] == [(0,), (1,)]
    swapped = by_faces(picture, [person(0.25), person(0.75)], [where(2), where(0)], models)
    assert kinds(swapped) == [Kind.SWAPPED, Kind.SWAPPED]
    twice, models = faces(0.25, 0.25, 0.9)
    found = by_faces(twice, [person(0.25), person(0.75)], [where(0), where(2)], models)
    assert kinds(found, 0.99)[ADA] is Kind.TWICE
    stranger, models = faces(0.25, 0.0, 0.25 + 0.5)
    found = by_faces(stranger, [person(0.25), person(0.0)], [where(0), where(2)], models)
    assert kinds(found) == [Kind.PRESENT, Kind.STRANGER]


def test_a_picture_without_faces():
    picture, models = faces(0.0)
    assert kinds(by_faces(picture, [person(0.25)], [where(0)], models)) == [Kind.MISSING]


def test_references_that_differ_let_a_face_differ():
    """The nearest reference is as far in both; the scale is how like the references are to each other."""
    picture, models = faces(0.0, 0.46)
    alike, apart = (
        float(by_faces(picture, [person(*one)], [None], models).scores) for one in ((0.25, 0.26), (0.05, 0.26))
    )
    assert alike == pytest.approx(math.cos(0.2 * math.pi), abs=0.03) and apart > alike + 0.15


def test_face_vectors_of_another_recogniser():
    picture, models = faces(0.25)
    with pytest.raises(MMDiffError, match="The face vectors of subject 1 are 5 wide, those of the face models here 2"):
        by_faces(picture, [torch.ones(1, 5)], [None], models)


# Pictures: an encoder whose patches are the colours of cells.


def patches(pixels):
    cells = interpolate(pixels, (8, 8), mode="area").flatten(2).mT - 0.4
    return torch.cat((torch.ones_like(cells[:, :1]), cells), 1)


VISION = SimpleNamespace(patches=patches)
RED, BLUE, GREEN = torch.tensor([0.9, 0.1, 0.1]), torch.tensor([0.1, 0.2, 0.9]), torch.tensor([0.1, 0.8, 0.3])


def flag(top, bottom):
    """(3, 32, 32): two colours on black."""
    drawn = torch.zeros(3, 32, 32)
    drawn[:, 6:16, 6:26], drawn[:, 16:26, 6:26] = top[:, None, None], bottom[:, None, None]
    return drawn


def cast(*flags):
    return [likeness((one[None] * 255).byte(), VISION) for one in flags]


def scene(*flags, height=96, width=192):
    """Flags beside each other before grey; None leaves a place empty."""
    picture = torch.full((3, height, width), 0.5)
    for number, one in enumerate(flags):
        if one is not None:
            left = width // len(flags) * number + 20
            picture[:, 40:60, left : left + 20] = one[:, 6:26, 6:26]
    return picture


MINE, YOURS, OTHER = flag(RED, BLUE), flag(GREEN, RED), flag(BLUE, GREEN)


def halves():
    left = torch.zeros(4, 8)
    left[:, :4] = 1
    return [left, left.flip(1)]


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ((MINE, YOURS), (Kind.PRESENT, Kind.PRESENT)),
        ((YOURS, MINE), (Kind.SWAPPED, Kind.SWAPPED)),
        ((MINE, MINE), (Kind.TWICE, Kind.MISSING)),
        ((MINE, None), (Kind.PRESENT, Kind.MISSING)),
        ((None, None), (Kind.MISSING, Kind.MISSING)),
    ],
)
@pytest.mark.parametrize("scale", [1, 3])
def test_what_is_in_a_picture(shown, expected, scale):
    picture = interpolate(scene(*shown)[None], scale_factor=scale, mode="nearest")[0]
    found = by_pictures(picture, cast(MINE, YOURS), halves(), VISION, 32, 0.65)
    assert tuple(kinds(found, 0.65)) == expected


def test_boxes_are_where_things_are():
    found = by_pictures(scene(MINE, None), cast(MINE), [None], VISION, 32, 0.65)
    ((left, top, right, bottom),) = found.boxes.tolist()
    assert abs(left - 20) < 5 and abs(right - 40) < 5 and abs(top - 40) < 5 and abs(bottom - 60) < 5


def test_a_mirrored_subject_is_itself():
    sided = torch.zeros(3, 32, 32)
    sided[:, 6:26, 6:16], sided[:, 6:26, 16:26] = RED[:, None, None], BLUE[:, None, None]
    (mine,) = cast(sided)
    as_drawn, mirrored = (by_pictures(scene(one), [mine], [None], VISION, 32, 0.5) for one in (sided, sided.flip(-1)))
    assert torch.allclose(as_drawn.scores, mirrored.scores, atol=0.02)


def test_a_subject_is_most_like_itself():
    mine, other = cast(MINE, OTHER)
    assert mine.highest > mine.lowest
    own, strange = mine.scores(mine.look), mine.scores(other.look)
    assert own.min() > 0.99 and strange.max() < 0.6


def test_colours():
    pixels = scene(MINE)
    grey = histogram(pixels, torch.ones_like(pixels[0], dtype=torch.bool))
    red = histogram(MINE, MINE.amax(0) > 0)
    assert float(shared(red, red)) == pytest.approx(1, abs=1e-5) and float(shared(red, grey)) < 0.1
    found = likely(pixels, red, torch.ones_like(pixels[0], dtype=torch.bool))
    assert found[45, 30] > 0.9 and found[10, 10] < 0.1
