"""Preview Attention Maps after a real sampling."""

import pytest
import torch
from graph import applied, bound, error, sample, subject
from tiny_sdxl import sdxl


@pytest.fixture
def pair(pack):
    left = torch.zeros(64, 64)
    left[:, :32] = 1
    ada = pack["MMDiffPlaceSubject"].execute(
        subject=subject(pack, "Ada"), region=left, start_percent=0.0, end_percent=1.0
    )
    late = pack["MMDiffPlaceSubject"].execute(subject=subject(pack, "Ben", photo=1), start_percent=0.8, end_percent=1.0)
    positive, negative, binding = bound(pack, "a woman<|subj|> and a man<|subj|>", [ada.args[0], late.args[0]])
    return applied(pack, binding), binding, positive, negative


def maps(pack, pair, percent: float):
    model, binding, positive, negative = pair
    latent = {"samples": sample(model, positive, negative)}
    return pack["MMDiffAttentionMaps"].execute(
        model=model, binding=binding, positive=positive, latent=latent, percent=percent
    )


def test_one_panel_for_every_word_and_every_photo(pack, pair):
    shown = maps(pack, pair, 0.5)
    assert shown.args[0].shape == (4, 292, 256, 3)
    assert shown.args[0].isfinite().all() and shown.args[0].std() > 0


def test_a_photo_shows_only_where_and_when_it_acts(pack, pair):
    ada_word, ada_photo, _, ben_photo = maps(pack, pair, 0.5).args[0][:, 36:]
    assert ada_photo[:, :100].mean() > 0.1 and ada_photo[:, 170:].max() < 0.02, "only in the left half"
    assert ada_word[:, 170:].mean() > 0.1
    assert ben_photo.max() == 0, "not before 80 %"
    assert maps(pack, pair, 0.9).args[0][3, 36:].mean() > 0.1


def test_by_word_a_gate_is_shown_too(pack, pair):
    """How far a subject may act: Ada beside the words of the prompt and, from 80 % on, beside Ben; Ben not before."""
    _, binding, positive, negative = pair
    model = applied(pack, binding, separation="by word")
    early, late = (maps(pack, (model, *pair[1:]), percent).args[0][:, 36:] for percent in (0.5, 0.9))
    assert len(early) == 6
    _, ada_photo, ada_gate, _, ben_photo, ben_gate = early
    assert 0.1 < ada_gate.mean() < 0.9 and ada_gate.std() > 0.01
    assert ada_photo[:, 170:].max() < 0.02, "a region limits further"
    assert ben_photo.max() == ben_gate.max() == 0 and late[5].mean() > 0.05


def test_looking_changes_nothing(pack, pair):
    model, _, positive, negative = pair
    before = sample(model, positive, negative)
    maps(pack, pair, 0.5)
    assert error(sample(model, positive, negative), before) == 0


def test_a_model_without_the_binding_is_refused(pack, pair):
    with pytest.raises(ValueError, match="Apply MM-Diff Attention with the same binding"):
        maps(pack, (sdxl().model, *pair[1:]), 0.5)


def test_names_that_the_font_has_no_signs_for_are_told_apart(pack):
    """By number in the picture, and by name in the node, where the page has fonts for every script."""
    names = ("Ada", "\u0410\u0434\u0430", "\u5c0f\u660e")
    subjects = [subject(pack, name, number) for number, name in enumerate(names)]
    positive, negative, binding = bound(pack, "a dog<|subj|>, a cat<|subj|> and a bird<|subj|>", subjects)
    shown = maps(pack, (applied(pack, binding), binding, positive, negative), 0.5)
    assert shown.ui["text"] == ("1 Ada\n2 \u0410\u0434\u0430\n3 \u5c0f\u660e",)
    words = shown.args[0][::2, :36]  # the labels of the word maps
    assert not torch.equal(words[1], words[2])


def test_a_latent_of_what_is_not_numbers(pack, pair):
    model, binding, positive, _ = pair
    latent = {"samples": torch.full((1, 4, 16, 16), torch.nan)}
    with pytest.raises(ValueError, match="not numbers"):
        pack["MMDiffAttentionMaps"].execute(model=model, binding=binding, positive=positive, latent=latent, percent=0.5)


def test_over_the_picture_each_subject_has_a_colour(pack, pair):
    """Ada acts in the left half alone, so the right half of the photos' map has nothing of her colour."""
    model, binding, positive, negative = pair
    latent = {"samples": sample(model, positive, negative)}
    shown = pack["MMDiffAttentionMaps"].execute(
        model=model, binding=binding, positive=positive, latent=latent, percent=0.5, image=torch.zeros(1, 64, 64, 3)
    )
    words, photos = shown.args[0]
    assert shown.args[0].shape == (2, 64 + 512 + 2 * 64, 512, 3)
    picture = photos[64 : 64 + 512]
    assert picture[:, :200].mean() > 0.1 and picture[:, 340:].max() < 0.02
    assert picture[:, :200, 2].mean() > picture[:, :200, 0].mean(), "her blue"
    assert words[64 : 64 + 512].std() > 0
    assert shown.ui["text"] == ("1 Ada\n2 Ben",)
