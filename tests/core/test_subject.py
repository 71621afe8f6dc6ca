"""Subjects: encoded from photos, saved and loaded."""

import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, SiglipVisionConfig

from mmdiff_core import Face, MMDiffError, Subject, encode_subject, load_subject, prepare_photos, save_subject
from mmdiff_core.drawing.vision import VisionTowers, check_vision, tuned_tower
from tests.arithmetic import EQUAL, error

REFERENCES = 3


def cls(pixels):
    """A tower's CLS that depends on the photo: (R, 12)."""
    return pixels.mean(dim=(-1, -2)).repeat(1, 4) * torch.arange(1.0, 13)


def patches(pixels):
    """A tower's patches that depend on the photo: (R, 6, 10)."""
    return pixels.flatten(1)[:, :60].unflatten(1, (6, 10))


@pytest.fixture
def photos():
    return torch.rand(REFERENCES, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def face():
    generator = torch.Generator().manual_seed(2)
    return Face(torch.randn(REFERENCES, 12, generator=generator), torch.rand(REFERENCES, 9, 9, 3, generator=generator))


def encode(mmdiff, photos, face=None, **changes):
    vision = SimpleNamespace(**{"cls": cls, "patches": patches, **changes})
    return encode_subject(mmdiff, vision, photos, face, name="Ada", weight=0.7)


def test_a_general_checkpoint_starts_from_the_cls_and_the_photos_patches(make, photos):
    mmdiff = make()
    subject = encode(mmdiff, photos)
    assert (subject.name, subject.weight, subject.source) == ("Ada", 0.7, "a hash")
    assert subject.tokens.shape == (4 * REFERENCES, 16)
    assert torch.equal(subject.tokens, mmdiff.heads.subject(cls(photos), patches(photos)).flatten(0, 1))
    assert {encoder: value.shape for encoder, value in subject.entity.items()} == {"l": (6,), "g": (8,)}
    assert (subject.region, subject.start_percent, subject.end_percent) == (None, 0.0, 1.0)


def test_tokens_of_each_reference_stand_one_after_another(make, photos):
    mmdiff = make()
    alone = [encode(mmdiff, photo[None]).tokens for photo in photos]
    assert error(encode(mmdiff, photos).tokens, torch.cat(alone)) <= EQUAL
    assert not torch.allclose(alone[0], alone[1], atol=1e-3)


def test_the_entity_word_gets_the_mean_or_the_first(make, photos):
    mean, first = (encode(make(entity_references=which), photos).entity for which in ("mean", "first"))
    heads = make().heads
    for encoder in "lg":
        assert error(mean[encoder], heads.entities(cls(photos).mean(dim=0))[encoder]) <= EQUAL
        assert error(first[encoder], heads.entities(cls(photos[:1]))[encoder][0]) <= EQUAL
        assert not torch.allclose(mean[encoder], first[encoder], atol=1e-3)


def test_a_portrait_checkpoint_starts_from_the_face(make, photos, face):
    """Tokens come from the face vector and the crop, the entity word from the photo."""
    seen = []

    def prepared(pixels):
        seen.append(pixels)
        return patches(pixels)

    mmdiff = make(identity="face", photo_size=8)
    subject = encode(mmdiff, photos, face, patches=prepared)
    (crops,) = seen
    assert torch.equal(crops, prepare_photos(face.crops, 8))
    assert torch.equal(subject.tokens, mmdiff.heads.subject(face.embeds, patches(crops)).flatten(0, 1))
    other = encode(mmdiff, 1 - photos, face)
    assert torch.equal(other.tokens, subject.tokens), "the photo does not touch the tokens"
    assert not torch.allclose(other.entity["l"], subject.entity["l"], atol=1e-3)


def test_only_the_photos_that_count_go_through_the_tower(make, photos, face):
    """The released code feeds the entity word from the first photo, and a tower's forward is the cost of encoding."""
    numbers = []

    def counted(pixels):
        numbers.append(len(pixels))
        return cls(pixels)

    encode(make(identity="face", entity_references="first", photo_size=8), photos, face, cls=counted)
    encode(make(entity_references="first"), photos, cls=counted)
    assert numbers == [1, REFERENCES]


def test_a_portrait_checkpoint_without_a_face(make, photos):
    with pytest.raises(MMDiffError, match="^Subject 'Ada': this checkpoint draws people from a face vector, .*Connect"):
        encode(make(identity="face"), photos)


def test_face_vectors_of_another_recogniser(make, photos, face):
    wrong = Face(torch.randn(REFERENCES, 128), face.crops)
    with pytest.raises(MMDiffError) as caught:
        encode(make(identity="face", photo_size=8), photos, wrong)
    assert "Subject 'Ada': the face vectors are 128 wide, the checkpoint wants 12. Analyze" in str(caught.value)


def tower(hidden=10, projection=12):
    config = CLIPVisionConfig(
        hidden_size=hidden,
        projection_dim=projection,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
    )
    torch.manual_seed(3)
    return CLIPVisionModelWithProjection(config)


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (
            CLIPVisionConfig(hidden_size=1280, num_attention_heads=16, projection_dim=1024),
            "hidden width 1280 and projection 1024",
        ),
        (CLIPVisionConfig(hidden_size=768, projection_dim=512), "hidden width 768 and projection 512"),
        (
            CLIPVisionConfig(hidden_size=1024, num_attention_heads=16, projection_dim=768),
            "hidden width 1024 and projection 768",
        ),
        (SiglipVisionConfig(hidden_size=1152, num_attention_heads=16), "hidden width 1152 and projection None"),
    ],
)
def test_another_vision_encoder(make, config, found):
    with pytest.raises(MMDiffError) as caught:
        check_vision(SimpleNamespace(config=config), make())
    assert f"The vision encoder has {found}, the checkpoint wants 10 and 12. Use the encoder" in str(caught.value)


def towers(mmdiff):
    original = tower()
    return VisionTowers(original, tuned_tower(original, mmdiff) if mmdiff.vision else original)


def test_the_tuned_tower_gives_the_cls_and_the_original_the_patches(make, tensors, photos):
    plain = towers(make())
    untuned = tower().visual_projection.weight
    assert torch.equal(plain.original.visual_projection.weight, untuned), "the user's encoder is left as it was"
    assert torch.equal(plain.tuned.visual_projection.weight, tensors["vision.visual_projection.weight"])
    class_tokens = plain.cls(photos)
    assert class_tokens.shape == (REFERENCES, 12) and plain.patches(photos).shape == (REFERENCES, 5, 10)
    tensors["vision.visual_projection.weight"] *= 2
    doubled = towers(make())
    assert error(doubled.cls(photos), 2 * class_tokens) <= EQUAL
    assert torch.equal(doubled.patches(photos), plain.patches(photos))
    del tensors["vision.visual_projection.weight"]
    original = towers(make())
    assert original.tuned is original.original


def test_tuned_vision_weights_of_another_encoder(make, tensors):
    tensors["vision.visual_projection.weight"] = torch.randn(12, 11)
    with pytest.raises(
        MMDiffError, match="(?s)tuned vision weights do not fit the vision encoder .*Use the encoder it"
    ):
        towers(make())


@pytest.fixture
def subject(make, photos):
    return encode(make(), photos)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"region": torch.rand(5, 7), "start_percent": 0.25, "end_percent": 0.5},
        {"name": 'Zoë "Z" Лев', "weight": 0.1},
    ],
)
def test_a_saved_subject_comes_back(subject, tmp_path, changes):
    subject = dataclasses.replace(subject, **changes)
    save_subject(subject, tmp_path / "new folder" / "a.safetensors")
    found = load_subject(tmp_path / "new folder" / "a.safetensors")
    for field in dataclasses.fields(Subject):
        a, b = getattr(subject, field.name), getattr(found, field.name)
        if field.name == "entity":
            assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
        elif isinstance(a, torch.Tensor):
            assert torch.equal(a, b)
        else:
            assert a == b


def test_a_subject_keeps_its_photos_and_faces(make, photos, face, tmp_path):
    """Also for a checkpoint that reads no face; by them the subject is found again."""
    for mmdiff in (make(identity="face", photo_size=8), make()):
        kept = encode(mmdiff, photos, face)
        assert torch.equal(kept.photos, (photos * 255).round().byte()) and torch.equal(kept.faces, face.embeds)
    assert encode(make(), photos).faces is None


def test_a_subject_of_the_first_format_still_loads(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"tokens": torch.ones(4, 16)}, path, {"mmdiff_subject": json.dumps(FIELDS)})
    found = load_subject(path)
    assert (found.photos, found.faces) == (None, None) and torch.equal(found.tokens, torch.ones(4, 16))


def test_a_subject_remembers_its_checkpoint(make, photos, tmp_path):
    for source in ("one", "another"):
        save_subject(encode(make(source=source), photos), tmp_path / f"{source}.safetensors")
        assert load_subject(tmp_path / f"{source}.safetensors").source == source


def test_a_subject_on_another_device(subject):
    moved = dataclasses.replace(subject, region=torch.ones(2, 2)).to(torch.device("meta"))
    assert moved.tokens.is_meta and all(value.is_meta for value in moved.entity.values())
    assert (moved.name, moved.weight, moved.source) == (subject.name, subject.weight, subject.source)


def test_a_save_that_fails_leaves_the_old_subject(subject, tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_subject(subject, path)
    old = path.read_bytes()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mmdiff_core.files.save_file", full)
    with pytest.raises(MMDiffError, match="No space left on device"):
        save_subject(dataclasses.replace(subject, name="Bo"), path)
    assert path.read_bytes() == old


FIELDS = {"format": 1, "name": "Ada", "weight": 1.0, "source": "a hash"}


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"mmdiff": "{}"}, "is a safetensors file but not a saved subject; choose one that Save Subject wrote"),
        (None, "is a safetensors file but not a saved subject"),
        (
            {"mmdiff_subject": json.dumps({**FIELDS, "format": 3})},
            "is a subject of format 3, this version reads 1 to 2",
        ),
        ({"mmdiff_subject": "{"}, "is a saved subject with parts missing or unknown"),
        ({"mmdiff_subject": "[]"}, "parts missing or unknown"),
        ({"mmdiff_subject": "{}"}, "parts missing or unknown (KeyError: 'format'). Save it again"),
        ({"mmdiff_subject": '{"format": 1, "name": "Ada"}'}, "parts missing or unknown (TypeError"),
        ({"mmdiff_subject": json.dumps({**FIELDS, "mood": "good"})}, "'mood'"),
    ],
)
def test_a_file_that_is_no_subject(tmp_path, metadata, said):
    path = tmp_path / "a.safetensors"
    save_file({"tokens": torch.ones(4, 16)}, path, metadata)
    with pytest.raises(MMDiffError) as caught:
        load_subject(path)
    assert str(path) in str(caught.value) and said in str(caught.value)


def test_a_subject_without_tokens(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"entity.l": torch.ones(6)}, path, {"mmdiff_subject": json.dumps(FIELDS)})
    with pytest.raises(MMDiffError, match=r"parts missing or unknown \(KeyError: 'tokens'\)"):
        load_subject(path)


def test_a_subject_that_is_missing_or_cut_off(subject, tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(MMDiffError, match="There is no file"):
        load_subject(path)
    save_subject(subject, path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(MMDiffError, match="is not a whole safetensors file"):
        load_subject(path)
