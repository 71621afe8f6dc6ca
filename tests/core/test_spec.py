"""The habits of a checkpoint, as data."""

import dataclasses

import pytest

from mmdiff_core import RELEASED, MMDiffError, Spec


def test_a_checkpoint_trained_here_has_the_clean_habits():
    assert Spec() == Spec(
        identity="cls",
        text_lora_encoders="both",
        fuse_negative=False,
        entity_references="mean",
        photo_size=224,
        head_dim=256,
        fuse_prompt=True,
        shortcut=True,
        negative="nothing",
        resize="bilinear",
        face_crop=224,
        unit_face=True,
        recogniser="buffalo_l",
        square="padded",
    )


def test_a_released_checkpoint_has_the_habits_of_the_released_code():
    assert (RELEASED.identity, RELEASED.entity_references) == ("face", "first")
    assert RELEASED.text_lora_encoders == "first" and RELEASED.fuse_negative is True
    assert (RELEASED.photo_size, RELEASED.head_dim) == (224, 256)


def test_replace_makes_a_copy():
    changed = RELEASED.replace(fuse_negative=False, photo_size=336)
    assert changed == Spec("face", "first", False, "first", 336, 256)
    assert RELEASED.fuse_negative is True and RELEASED.replace() == RELEASED


def test_a_spec_does_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Spec().photo_size = 336


def test_an_unknown_field_is_named_beside_the_known_ones():
    with pytest.raises(MMDiffError) as caught:
        Spec().replace(habit=1, fuse_negative=True)
    assert str(caught.value) == (
        "A spec has no field habit; its fields are identity, text_lora_encoders, fuse_negative, entity_references, "
        "photo_size, head_dim, fuse_prompt, shortcut, negative, resize, face_crop, unit_face, recogniser, square."
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"identity": "arcface"},
            "The spec's identity is 'arcface'; it must be one of 'face', 'cls', 'patches', 'latents'.",
        ),
        ({"identity": None}, "The spec's identity is None; it must be one of 'face', 'cls', 'patches', 'latents'."),
        ({"text_lora_encoders": "second"}, "text_lora_encoders is 'second'; it must be one of 'first', 'both'."),
        ({"fuse_negative": "yes"}, "The spec's fuse_negative is 'yes'; it must be one of True, False."),
        ({"entity_references": ["first"]}, "entity_references is ['first']; it must be one of 'first', 'mean'."),
        ({"photo_size": 0}, "The spec's photo_size is 0; it must be a whole number above 0."),
        ({"photo_size": 224.0}, "The spec's photo_size is 224.0; it must be a whole number above 0."),
        ({"head_dim": True}, "The spec's head_dim is True; it must be a whole number above 0."),
        ({"head_dim": "256"}, "The spec's head_dim is '256'; it must be a whole number above 0."),
    ],
)
def test_a_wrong_value_is_named_beside_the_right_ones(change, said):
    for make in (Spec().replace, Spec):
        with pytest.raises(MMDiffError) as caught:
            make(**change)
        assert said in str(caught.value)


def test_a_checkpoint_refuses_the_same(make):
    mmdiff = make()
    with pytest.raises(MMDiffError, match="A spec has no field habit"):
        mmdiff.with_spec(habit=1)
    with pytest.raises(MMDiffError, match="photo_size is -1"):
        mmdiff.with_spec(photo_size=-1)
