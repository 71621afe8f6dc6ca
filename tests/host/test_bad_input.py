"""Bad input gets a sentence, and nothing is lost: after each refusal the good graph makes the same picture."""

import asyncio
import contextlib
import dataclasses
import json
import os
import pickle
import struct
import sys
import uuid
from pathlib import Path
from types import SimpleNamespace

import execution
import folder_paths
import numpy as np
import pytest
import safetensors.torch
import torch
from comfy.clip_vision import ClipVisionModel
from full_size import fill, tensors
from graph import applied, bound, error, mmdiff, module, sample, subject
from hypothesis import given
from hypothesis import strategies as st
from tiny_sd15 import sd15
from tiny_sdxl import IDENTITY, face_crop, face_embeds, sdxl

RECORDED = Path(__file__).parents[1] / "data" / "face_reference.npz"
RELEASED = ("unet_adapter_weights.bin", "text_encoder_adapter_weights.bin", "custom_weights.bin")
PAGE = b"<!DOCTYPE html><html><body>Sign in to download</body></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 7516765\n"


def picture(pack) -> torch.Tensor:
    """The good graph, from the photo to a latent, on the models that every test shares."""
    positive, negative, binding = bound(pack, "Ada on the beach", [subject(pack, "Ada")])
    return sample(applied(pack, binding), positive, negative, cfg=1.0, steps=1, size=(8, 8))


@pytest.fixture(scope="module")
def before(pack):
    with torch.inference_mode():
        return picture(pack)


@pytest.fixture(autouse=True)
def _the_good_graph_is_as_before(pack, before):
    yield
    assert error(picture(pack), before) < 1e-6


@pytest.fixture(scope="module")
def refused(pack):
    """`with refused(...)`: an MMDiffError of a sentence or two, in which all these parts stand."""

    @contextlib.contextmanager
    def expect(*parts: object):
        with pytest.raises(module(pack, "mmdiff_core").MMDiffError) as error:
            yield
        sentence = str(error.value)
        missing = [part for part in map(str, parts) if part not in sentence]
        assert not missing, f"{missing} not in: {sentence}"
        assert sentence.endswith(".") and len(sentence) < 1000, sentence

    return expect


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The user's models/mmdiff."""
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "mmdiff", ([str(tmp_path)], set()))
    return tmp_path


# Checkpoint files


@pytest.fixture(scope="module")
def own(pack, tmp_path_factory):
    """The tiny release in our own format: its path, bytes, tensors and metadata."""
    path = tmp_path_factory.mktemp("own") / "good.safetensors"
    core = module(pack, "mmdiff_core")
    core.save_checkpoint(mmdiff(pack).core, path)
    found, metadata = core.files.read_safetensors(path)
    return SimpleNamespace(path=path, content=path.read_bytes(), tensors=found, entry=json.loads(metadata["mmdiff"]))


def load(pack, name: str):
    return pack["MMDiffLoad"].execute(checkpoint=name).args[0]


NOT_WEIGHTS = {
    "empty": (lambda good: b"", "is empty"),
    "cut off": (lambda good: good[: len(good) // 2], "cut off"),
    "cut off in its header": (lambda good: good[:1000], "cut off"),
    "three bytes": (lambda good: good[:3], "cut off"),
    "web page": (lambda good: PAGE, "is a web page, not weights"),
    "error page": (lambda good: b"\n\n <html><title>404</title>", "is a web page, not weights"),
    "LFS pointer": (lambda good: POINTER, "is a Git LFS pointer, not weights. Run `git lfs pull`"),
    "renamed pickle": (lambda good: (sdxl().checkpoint / RELEASED[1]).read_bytes(), "renamed to .safetensors"),
    "renamed picture": (lambda good: b"\x89PNG\r\n\x1a\n" + bytes(500), "renamed to .safetensors"),
    "header of an exabyte": (lambda good: struct.pack("<Q", 2**60) + good[8:], "not a whole safetensors file"),
    "header that is no JSON": (lambda good: struct.pack("<Q", 64) + b"x" * 64, "not a whole safetensors file"),
}


@pytest.mark.parametrize(("content", "said"), NOT_WEIGHTS.values(), ids=NOT_WEIGHTS)
def test_a_checkpoint_file_that_is_not_weights(pack, folder, own, refused, content, said):
    path = folder / "face.safetensors"
    path.write_bytes(content(own.content))
    with refused(path, said):
        load(pack, "face.safetensors")
    path.write_bytes(own.content)
    assert load(pack, "face.safetensors").core.source == mmdiff(pack).core.source


@pytest.mark.parametrize("name", ["gone.safetensors", "gone", "../outside.safetensors", "/etc/hostname", ""])
def test_a_checkpoint_that_is_not_in_the_folder(pack, folder, refused, name):
    (folder.parent / "outside.safetensors").write_bytes(b"x")
    if name:
        with refused(f"no checkpoint '{name}' in {folder}", "refresh the page"):
            load(pack, name)
    else:  # the folder itself
        with refused(folder, "lacks"):
            load(pack, name)


METADATA = {
    "none": (None, "is neither an MM-Diff checkpoint"),
    "no JSON": ("{", "can't be read"),
    "a list": ("[1]", "can't be read"),
    "no format": ("{}", "can't be read"),
    "newer format": ({"format": 2}, "is of format 2, this version reads format 1; update the pack"),
    "unknown field": ({"spec": {"fuse_everything": True}}, "no field fuse_everything"),
    "unknown value": ({"spec": {"identity": "voice"}}, "'voice'"),
    "no source": ({"source": ...}, "can't be read"),
}


@pytest.mark.parametrize(("change", "said"), METADATA.values(), ids=METADATA)
def test_a_safetensors_file_of_something_else(pack, folder, own, refused, change, said):
    metadata = change
    if isinstance(change, dict):
        metadata = json.dumps({key: value for key, value in {**own.entry, **change}.items() if value is not ...})
    path = folder / "other.safetensors"
    safetensors.torch.save_file(own.tensors, path, metadata and {"mmdiff": metadata})
    with refused(path, said):
        load(pack, "other.safetensors")


def without(*names):
    return lambda found: {key: value for key, value in found.items() if key not in names}


def shaped(name, *shape):
    return lambda found: {**found, name: torch.zeros(shape, dtype=torch.half)}


PARTS = {
    "no weight of a head": (without("heads.subject.layer_norm.weight"), "layer_norm.weight"),
    "no bias of a head": (without("heads.entity.fc.bias"), "entity.fc.bias"),
    "half a pair of LoRA": (without("unet.3.to_q_lora.down.weight"), "unet.3.to_q_lora"),
    "misshapen head": (shaped("heads.subject.refiner.proj_out.weight", 3, 5), "refiner.proj_out.weight"),
    "misshapen pair": (shaped("unet.0.to_q_lora.down.weight", 3, 5), "unet.0.to_q_lora"),
    "a scalar": (shaped("heads.entity.fc.weight"), "missing or misshapen"),
    "a part that is not known": (shaped("heads.pose.weight", 3), "heads.pose"),
    "only LoRA": (
        lambda found: {key: value for key, value in found.items() if key.startswith("unet")},
        "missing or misshapen",
    ),
}


@pytest.mark.parametrize(("change", "said"), PARTS.values(), ids=PARTS)
def test_a_checkpoint_with_parts_missing_or_misshapen(pack, folder, own, refused, change, said):
    path = folder / "half.safetensors"
    safetensors.torch.save_file(change(own.tensors), path, {"mmdiff": json.dumps(own.entry)})
    with refused(path, "missing or misshapen", said):
        load(pack, "half.safetensors")


# The released folder


@pytest.fixture
def released(folder):
    """A whole released folder below models/mmdiff, as links that a test replaces."""
    (folder / "official").mkdir()
    for name in RELEASED:
        (folder / "official" / name).symlink_to(sdxl().checkpoint / name)
    return folder / "official"


def put(path: Path, content: object) -> None:
    """Replace a file: bytes as they are, anything else as PyTorch saves it."""
    path.unlink(missing_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)


@pytest.mark.parametrize("name", RELEASED)
def test_two_of_the_three_files(pack, released, refused, name):
    names = module(pack, "nodes.host.folders").checkpoint_names
    assert names() == ["official"]
    (released / name).unlink()
    assert names() == []
    with refused(released, f"lacks {name}", "Download what is missing"):
        load(pack, "official")


@pytest.mark.parametrize("name", RELEASED)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda good: b"", "is empty"),
        (lambda good: good[: len(good) // 2], "cut off"),
        (lambda good: good[:100], "cut off"),
        (lambda good: PAGE, "is a web page"),
        (lambda good: POINTER, "Git LFS pointer"),
        (lambda good: b"\x89PNG\r\n\x1a\n" + bytes(500), "is another kind of file under this name"),
        (lambda good: safetensors.torch.save({"x": torch.zeros(3)}), "is another kind of file under this name"),
    ],
    ids=["empty", "half", "start", "page", "pointer", "picture", "safetensors"],
)
def test_a_released_file_that_is_not_weights(pack, released, refused, name, content, said):
    put(released / name, content((sdxl().checkpoint / name).read_bytes()))
    with refused(released / name, said):
        load(pack, "official")


CONTENTS = {
    "a list": (0, [torch.zeros(3)], "a list; wanted is a dictionary"),
    "another adapter": (0, {"layers.0.weight": torch.zeros(3)}, "the key 'layers.0.weight'"),
    "a whole training state": (0, {"state_dict": {}, "epoch": 3}, "holds a dict under 'state_dict'"),
    "numbers for keys": (0, {0: torch.zeros(3)}, "holds a Tensor under 0; wanted are tensors under names"),
    "no tensor under a key": (0, {"0.to_q_lora.down.weight": 3}, "holds a int under '0.to_q_lora.down.weight'"),
    "text encoder of another": (1, {"text_model.embeddings": torch.zeros(3)}, "the key 'text_model.embeddings'"),
    "custom without parts": (2, {"image_encoder": {}}, "has no part face_embeds_proj"),
    "custom of tensors": (2, {"custom": True}, "part 'image_encoder', holds a Tensor; wanted is a dictionary"),
}


@pytest.mark.parametrize(("number", "content", "said"), CONTENTS.values(), ids=CONTENTS)
def test_a_released_file_with_other_contents(pack, released, refused, number, content, said):
    if content == {"custom": True}:
        parts = ("image_encoder", "obj_embeds_proj", "face_embeds_proj", "mm_fuse_one", "mm_fuse_two")
        content = {part: torch.zeros(3) for part in parts}
    put(released / RELEASED[number], content)
    with refused(released / RELEASED[number], said):
        load(pack, "official")


def test_exchanged_names(pack, released, refused):
    for name, other in (RELEASED[:2], RELEASED[1::-1]):
        put(released / name, (sdxl().checkpoint / other).read_bytes())
    with refused(released / RELEASED[0], "has the key 'text_encoder"):
        load(pack, "official")


class Touch:
    """Unpickling one creates the file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", RELEASED)
@pytest.mark.parametrize("form", ["zip", "old", "bare", "nested"])
def test_a_pickle_that_is_a_program_does_not_run(pack, released, refused, name, form):
    path, trace = released / name, released / "trace"
    path.unlink()
    if form == "bare":
        path.write_bytes(pickle.dumps(Touch(trace)))
    elif form == "nested":
        good = torch.load(sdxl().checkpoint / name, weights_only=True)
        torch.save({**good, "extra": Touch(trace)}, path)
    else:
        torch.save(Touch(trace), path, _use_new_zipfile_serialization=form == "zip")
    with refused(path, "nothing in it was run"):
        load(pack, "official")
    assert not trace.exists()
    with contextlib.suppress(Exception):
        torch.load(path, weights_only=False)
    assert trace.exists()  # it is a program


def test_a_program_under_our_name_does_not_run(pack, folder, refused):
    trace = folder / "trace"
    (folder / "face.safetensors").write_bytes(pickle.dumps(Touch(trace)))
    with refused(folder / "face.safetensors", "renamed to .safetensors"):
        load(pack, "face.safetensors")
    assert not trace.exists()


# The vision encoder


def tower(tmp_path: Path, **config: object) -> ClipVisionModel:
    """A random encoder of two small layers and the widths of a known one."""
    sizes = {"image_size": 224, "patch_size": 112, "intermediate_size": 8, "num_hidden_layers": 2}
    defaults = {"model_type": "clip_vision_model", "num_channels": 3, "num_attention_heads": 8, "hidden_act": "gelu"}
    path = tmp_path / f"{uuid.uuid4().hex}.json"
    path.write_text(json.dumps({**sizes, **defaults, **config}))
    encoder = ClipVisionModel(str(path))
    fill(encoder.model)
    return encoder


@pytest.fixture(scope="module")
def large(pack, tmp_path_factory):
    """A checkpoint with the widths of CLIP ViT-L/14, and such an encoder."""
    core, path = module(pack, "mmdiff_core"), tmp_path_factory.mktemp("large")
    encoder = tower(path, hidden_size=1024, projection_dim=768)
    layers = module(pack, "nodes.host.base").attention_layers(sd15().model.model.diffusion_model)
    weights = tensors(layers, sd15().clip.cond_stage_model, encoder.model, 768, rank=1, depth=1)
    core.save_checkpoint(core.MMDiff(weights, core.Spec(head_dim=32), ""), path / "large.safetensors")
    return SimpleNamespace(mmdiff=mmdiff(pack, path / "large.safetensors"), encoder=encoder)


OTHERS = {
    "ViT-H": ({"hidden_size": 1280, "projection_dim": 1024}, "CLIP ViT-H/14 (hidden 1280, projection 1024, 224 px)"),
    "ViT-bigG": ({"hidden_size": 1664, "projection_dim": 1280}, "CLIP ViT-bigG/14"),
    "ViT-B": ({"hidden_size": 768, "projection_dim": 512}, "CLIP ViT-B (hidden 768, projection 512, 224 px)"),
    "ViT-L at 336": ({"hidden_size": 1024, "projection_dim": 768, "image_size": 336}, "336 px"),
    "SigLIP": (
        {"model_type": "siglip_vision_model", "hidden_size": 1152, "image_size": 384},
        "a siglip encoder (384 px)",
    ),
    "of this width": ({"model_type": "siglip_vision_model", "hidden_size": 1024}, "a siglip encoder (224 px)"),
}


@pytest.mark.parametrize(("config", "named"), OTHERS.values(), ids=OTHERS)
def test_another_vision_encoder_is_named(pack, tmp_path, large, refused, config, named):
    wanted = subject(pack, "Ada", checkpoint=None)
    photo = torch.rand(1, 32, 32, 3, generator=torch.Generator().manual_seed(0))

    def encode(encoder):
        node = pack["MMDiffEncodeSubject"]
        return node.execute(mmdiff=large.mmdiff, clip_vision=encoder, image=photo, name="Ada", weight=1.0).args[0]

    first = encode(large.encoder)
    with refused("Encode Subject: The `clip_vision` socket holds", named, "CLIP ViT-L/14 (hidden 1024, projection 768"):
        encode(tower(tmp_path, **config))
    assert torch.equal(encode(large.encoder).tokens, first.tokens)
    assert torch.equal(subject(pack, "Ada").tokens, wanted.tokens)


def test_an_encoder_whose_inside_is_another(pack, tmp_path, large, refused):
    """Of the right widths, but with other patches: the tuned weights do not fit it."""
    other = tower(tmp_path, hidden_size=1024, projection_dim=768, patch_size=56)
    node = pack["MMDiffEncodeSubject"]
    with refused("Encode Subject: The checkpoint's tuned vision weights do not fit CLIP ViT-L/14"):
        node.execute(mmdiff=large.mmdiff, clip_vision=other, image=torch.rand(1, 8, 8, 3), name="Ada", weight=1.0)
    assert other not in large.mmdiff.tuned_towers


# Photos and masks


def face(pack, width: int = IDENTITY, count: int = 1):
    vectors = face_embeds()[:count] if width == IDENTITY else torch.ones(count, width)
    return module(pack, "mmdiff_core").Face(vectors, face_crop(0).expand(count, -1, -1, -1))


def encode(pack, image, mask=None, **inputs):
    inputs = {"mmdiff": mmdiff(pack), "clip_vision": sdxl().clip_vision, "name": "Ada", "weight": 1.0, **inputs}
    inputs.setdefault("face", face(pack, mmdiff(pack).core.heads.identity_width))
    return pack["MMDiffEncodeSubject"].execute(image=image, mask=mask, **inputs)


def photo(height: int, width: int, channels: int = 3) -> torch.Tensor:
    return torch.rand(1, height, width, channels, generator=torch.Generator().manual_seed(1))


def broken(value: float) -> torch.Tensor:
    found = photo(8, 8).repeat(2, 1, 1, 1)
    found[1, 3, 4, 0] = value
    return found


BAD_PHOTOS = {
    "no photo": (torch.zeros(0, 8, 8, 3), "The photos are empty", "(0, 8, 8, 3)"),
    "no rows": (torch.zeros(1, 0, 8, 3), "The photos are empty", "(1, 0, 8, 3)"),
    "no columns": (torch.zeros(1, 8, 0, 3), "The photos are empty", "(1, 8, 0, 3)"),
    "grey": (torch.zeros(1, 8, 8, 1), "shape (1, 8, 8, 1)", "x 3 (or 4"),
    "one photo, no batch": (torch.zeros(8, 8, 3), "shape (8, 8, 3)", "photos x height"),
    "a mask": (torch.zeros(1, 8, 8), "shape (1, 8, 8)", "photos x height"),
    "NaN": (broken(torch.nan), "Photo 2 of 2 has pixels that are not numbers", "look at its output"),
    "infinite": (broken(torch.inf), "Photo 2 of 2 has pixels that are not numbers", "look at its output"),
}


@pytest.mark.parametrize(("image", "found", "wanted"), BAD_PHOTOS.values(), ids=BAD_PHOTOS)
def test_what_is_not_a_photo(pack, refused, image, found, wanted):
    with refused(found, wanted):
        encode(pack, image)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 3), (3000, 2000), (16, 20000), (20000, 16)])
def test_any_size_of_photo_is_encoded(pack, size):
    output = encode(pack, photo(*size))
    assert output.args[0].tokens.isfinite().all()
    assert all(value.isfinite().all() for value in output.args[0].entity.values())


def test_what_is_transparent_is_black(pack):
    image = photo(30, 20, 4)
    flat = image[..., :3] * image[..., 3:]
    found, wanted = (encode(pack, one).args[0] for one in (image, flat))
    assert torch.equal(found.entity["l"], wanted.entity["l"])
    assert error(found.entity["l"], encode(pack, image[..., :3]).args[0].entity["l"]) > 1e-3


def test_pixels_out_of_range_are_cut(pack):
    image = photo(30, 20) * 3 - 1
    found, wanted = (encode(pack, one).args[0].entity["l"] for one in (image, image.clamp(0, 1)))
    assert torch.equal(found, wanted)


BAD_MASKS = {
    "another size": (torch.ones(1, 64, 64), "mask has shape (1, 64, 64)", "Resize it"),
    "turned": (torch.ones(1, 20, 30), "mask has shape (1, 20, 30)", "(1, 30, 20, 3)"),
    "too many": (torch.ones(3, 30, 20), "mask has shape (3, 30, 20)", "or one for each photo"),
    "picture": (torch.ones(1, 30, 20, 3), "mask has shape (1, 30, 20, 3)", "one mask of the photos' height"),
    "NaN": (torch.full((1, 30, 20), torch.nan), "mask", "not numbers"),
}


@pytest.mark.parametrize(("mask", "found", "wanted"), BAD_MASKS.values(), ids=BAD_MASKS)
def test_a_mask_that_does_not_fit_the_photo(pack, refused, mask, found, wanted):
    with refused(found, wanted):
        encode(pack, photo(30, 20), mask)


BAD_REGIONS = {
    "batch": (torch.ones(3, 8, 8), "'Ada' has shape (3, 8, 8)", "connect one"),
    "empty batch": (torch.ones(0, 8, 8), "'Ada' has shape (0, 8, 8)", "connect one"),
    "picture": (torch.ones(1, 8, 8, 3), "'Ada' has shape (1, 8, 8, 3)", "connect one"),
    "empty": (torch.ones(1, 0, 8), "'Ada' is empty", "(0, 8)"),
    "NaN": (torch.full((1, 8, 8), torch.nan), "'Ada' has pixels that are not numbers", "look at its output"),
}


@pytest.mark.parametrize(("region", "found", "wanted"), BAD_REGIONS.values(), ids=BAD_REGIONS)
def test_a_region_that_is_no_mask(pack, refused, region, found, wanted):
    with refused("Place Subject", found, wanted):
        pack["MMDiffPlaceSubject"].execute(subject(pack, "Ada"), 0.0, 1.0, region)


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (1000, 8)])
def test_a_region_of_any_size_is_scaled(pack, size):
    """A region of ones is no region."""
    ones = pack["MMDiffPlaceSubject"].execute(subject(pack, "Ada"), 0.0, 1.0, torch.ones(1, *size)).args[0]
    latents = []
    for one in (ones, subject(pack, "Ada")):
        positive, negative, binding = bound(pack, "Ada on the beach", [one])
        latents.append(sample(applied(pack, binding), positive, negative, steps=1, size=(16, 8)))
    assert error(*latents) < 1e-5


BORDERS = {
    "a hair below and above": lambda mask: mask * (1 + 2e-7) - 1e-7,
    "far below and above": lambda mask: mask * 510 - 255,
    "whole numbers": lambda mask: mask.to(torch.uint8),
    "yes and no": lambda mask: mask > 0,
    "half precision": lambda mask: mask.half(),
    "with one channel": lambda mask: mask[None],
    "without a batch": lambda mask: mask[0],
}


@pytest.mark.parametrize("border", BORDERS.values(), ids=BORDERS)
def test_masks_are_brought_into_their_range(pack, tmp_path, border):
    """As a region, of a subject that was saved too, and on a photo. A blur sums to 1.0000001; inverted it is -1e-7."""
    mask = torch.zeros(1, 16, 16)
    mask[..., :8] = 1

    def latent(region):
        placed = pack["MMDiffPlaceSubject"].execute(
            subject=subject(pack, "Ada"), start_percent=0.0, end_percent=1.0, region=region
        )
        core = module(pack, "mmdiff_core")
        core.save_subject(placed.args[0], tmp_path / "ada.safetensors")
        for one in (placed.args[0], core.load_subject(tmp_path / "ada.safetensors")):
            positive, negative, binding = bound(pack, "Ada on the beach", [one])
            yield sample(applied(pack, binding), positive, negative, steps=1)

    for found, wanted in zip(latent(border(mask)), latent(mask), strict=True):
        assert found.isfinite().all() and error(found, wanted) < 1e-5


def test_a_mask_on_a_photo_is_brought_into_its_range(pack):
    mask = torch.zeros(1, 30, 20)
    mask[..., :10] = 1
    wanted = encode(pack, photo(30, 20), mask).args[0].tokens
    for border in (lambda one: one * (1 + 2e-7) - 1e-7, lambda one: one * 510 - 255, lambda one: one > 0):
        assert error(encode(pack, photo(30, 20), border(mask)).args[0].tokens, wanted) < 1e-5


def test_a_saved_subject_of_what_is_not_numbers(pack, refused, tmp_path):
    core = module(pack, "mmdiff_core")
    broken = dataclasses.replace(subject(pack, "Ada"), tokens=torch.full((4, 256), torch.nan))
    core.save_subject(broken, tmp_path / "ada.safetensors")
    with refused("ada.safetensors", "values that are not numbers"):
        core.load_subject(tmp_path / "ada.safetensors")


NUMBERS = [
    ("MMDiffApplyAttention", "weight", [-0.1, 3.1, float("nan"), float("inf"), "1", None]),
    ("MMDiffEncodeSubject", "weight", [-0.1, float("nan")]),
    ("MMDiffPlaceSubject", "start_percent", [-0.1, float("nan")]),
    ("MMDiffBindSubjects", "end_percent", [1.1]),
    ("MMDiffBindSubjects", "width", [-8, 1 << 20]),
    ("MMDiffAttentionMaps", "percent", [2.0]),
    ("MMDiffAnalyzeFace", "index", [-1]),
]


@pytest.mark.parametrize(
    ("node", "name", "value"), [(node, name, value) for node, name, values in NUMBERS for value in values]
)
def test_a_number_out_of_its_range(pack, refused, node, name, value):
    """The host holds what is typed into a widget to its range, but not what comes over a link."""
    with refused(pack[node].define_schema().display_name, f"{name} is {value!r}", "must be a number from"):
        pack[node].execute(**{name: value})


@pytest.mark.parametrize("value", [None, 3, "half of \ud83e"])
@pytest.mark.parametrize(
    ("node", "name"),
    [("MMDiffBindSubjects", "prompt"), ("MMDiffEncodeSubject", "name"), ("MMDiffSaveSubject", "filename")],
)
def test_what_is_no_text(pack, refused, node, name, value):
    with refused(f"{name} is {value!r}", "no text"):
        pack[node].execute(**{name: value})


def test_a_choice_that_there_is_not(pack, refused):
    _, _, binding = bound(pack, "Ada on the beach", [subject(pack, "Ada")])
    with refused("separation is 'By Word'", "reference, by word"):
        applied(pack, binding, separation="By Word")
    with refused("no drawing '../../secret'", "penguin"):
        pack["MMDiffDemoSubject"].execute(subject="../../secret")


@pytest.mark.parametrize(("start", "end"), [(0.5, 0.5), (1.0, 0.0)])
def test_a_window_without_time(pack, refused, start, end):
    with refused("Place Subject: 'Ada' would begin", "start_percent must be the smaller one"):
        pack["MMDiffPlaceSubject"].execute(subject(pack, "Ada"), start, end)


# Faces


@pytest.fixture
def analyze(pack, tmp_path, monkeypatch):
    models = tmp_path / "models" / "buffalo_l"
    models.mkdir(parents=True)
    recorded = np.load(RECORDED)
    for name in ("det_10g", "w600k_r50"):
        (models / f"{name}.onnx").write_bytes(recorded[name].tobytes())
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "insightface", ([str(tmp_path)], set()))
    several = torch.from_numpy(recorded["photo"])[None].float() / 255

    def run(image=several, choice="largest", index=0):
        return pack["MMDiffAnalyzeFace"].execute(image=image, choice=choice, index=index)

    return run


def test_no_face(analyze, refused):
    several, black = torch.zeros(2, 200, 300, 3), torch.zeros(1, 200, 300, 3)
    with refused("Photo 1 of 1 (300 x 200 pixels): no face was found", "Use a photo in which the face is"):
        analyze(black)
    with refused("Photo 1 of 2"):
        analyze(several)
    assert len(analyze().args[0].embeds) == 1


def test_one_of_several_faces(analyze, refused):
    found = [analyze(choice="index", index=number).args[0].embeds for number in (0, 1)]
    assert not torch.equal(*found)
    with refused("Photo 1 of 1: face 99 was asked for. Faces found:", "Give the number of one of them"):
        analyze(choice="index", index=99)


@pytest.mark.parametrize(
    "image", [torch.full((1, 8, 8, 3), torch.nan), torch.zeros(0, 8, 8, 3), torch.zeros(1, 8, 0, 3)]
)
def test_a_face_in_what_is_not_a_photo(analyze, refused, image):
    with refused("hoto"):
        analyze(image)


def test_without_the_optional_packages(pack, analyze, refused, monkeypatch):
    """And nothing is remembered: with the package the same node runs."""
    with monkeypatch.context() as patch:
        for name in ("insightface", "onnxruntime"):
            patch.setitem(sys.modules, name, None)
        with refused("Face analysis needs the package onnxruntime", "pip install onnxruntime"):
            analyze()
    assert len(analyze().args[0].embeds) == 1


def test_a_portrait_checkpoint_without_a_face(pack, refused):
    with refused(
        "Subject 'Ada': this checkpoint draws people from a face vector", "Connect Analyze Face to the `face`"
    ):
        encode(pack, photo(8, 8), face=None)


def test_a_face_of_another_recogniser(pack, refused):
    wide = mmdiff(pack).core.heads.identity_width
    with refused(f"Subject 'Ada': the face vectors are {wide + 1} wide, the checkpoint wants {wide}", "buffalo_l"):
        encode(pack, photo(8, 8), face=face(pack, wide + 1))


# Prompts and subjects


@pytest.fixture(scope="module")
def people(pack):
    with torch.inference_mode():
        ada = subject(pack, "Ada")
    return {name: dataclasses.replace(ada, name=name) for name in ("Ada", "Bo", "Ann", "Ann Bo", "", " ", "a|b", "(")}


MISMATCHES = [
    ("a man<|subj|> and a dog<|subj|>", ["Ada"], "2 <|subj|> markers for 1 subject ('Ada'). Connect another subject"),
    ("a man<|subj:Ada|> and a dog<|subj|>", ["Ada"], "1 <|subj|> marker for 0 subjects (none)"),
    ("a man<|subj|>", ["Ada", "Bo"], "No marker is left in the prompt for 'Bo'. Put <|subj|> after the word"),
    ("a man<|subj:Bo|>", ["Ada", "Bo", "Ann"], "No marker is left in the prompt for 'Ada', 'Ann'"),
    ("a man<|subj:Eve|>", ["Ada", "Bo"], "<|subj:Eve|>, but no subject has that name. The subjects are 'Ada', 'Bo'"),
    ("a man<|subj:ada|>", ["Ada"], "<|subj:ada|>, but no subject has that name. The subjects are 'Ada'"),
    ("a man<|subj:|>", ["Ada"], "<|subj:|>, but no subject has that name"),
    (
        "a man<|subj:Ada|>",
        ["Ada", "Ada"],
        "2 subjects have that name. The subjects are 'Ada', 'Ada'; give each its own",
    ),
    ("Ada at home", ["Ada", "Ada"], "nowhere in the prompt 'Ada at home' but where another subject is"),
    (
        "a dog at home",
        ["Ada"],
        "Subject 'Ada' stands nowhere in the prompt 'a dog at home'. Write its name as a phrase",
    ),
    ("", ["Ada"], "Subject 'Ada' stands nowhere in the prompt ''"),
    ("Anna and Annika", ["Ann"], "Subject 'Ann' stands nowhere"),
    ("Ann Bo at home", ["Ann Bo", "Bo"], "Subject 'Bo' stands nowhere"),
    ("nobody", [""], "Subject '' stands nowhere"),
    ("nobody", [" "], "Subject '' stands nowhere"),
    ("nobody", ["a|b"], "Subject 'a|b' stands nowhere"),
    ("a ( b", ["("], "Subject '(' stands nowhere"),
    (
        "<|subj|> on the beach",
        ["Ada"],
        "at the start of the prompt, where there is no word to bind; put it after a word",
    ),
    ("a man, <|subj|>on the beach", ["Ada"], "behind 'a man, ', where there is no word to bind"),
    ("a man<|subj|><|subj|>", ["Ada", "Bo"], "The word 'man' of the prompt has two markers"),
    ("a man<|subj:Ada|><|subj:Bo|>", ["Ada", "Bo"], "The word 'man' of the prompt has two markers"),
    ("<|nobody|> a man<|subj|>", ["Ada"], "at the start of the prompt, where there is no word"),
    ("a man<|subj|> and a dog<|nobody|><|nobody|>", ["Ada"], "'dog' of the prompt is marked with <|nobody|> twice"),
    ("a man<|subj|><|nobody|>", ["Ada"], "'man' of the prompt is a subject and is marked with <|nobody|> too"),
    ("a man<|subject|>", ["Ada"], "The prompt says <|subject|>, which is no marker"),
    ("a man<|subj|>", [], "no subject is connected; connect Encode Subject or Load Subject to subject 1"),
]


@pytest.mark.parametrize(("prompt", "names", "said"), MISMATCHES)
def test_a_prompt_and_subjects_that_do_not_match(pack, people, refused, prompt, names, said):
    with refused(said):
        bound(pack, prompt, [people[name] for name in names])


def test_a_marker_in_the_negative_prompt(pack, people, refused):
    for marker in ("<|subj:Ada|>", "<|nobody|>"):
        with refused("negative prompt", marker, "take it out"):
            bound(pack, "a man<|subj|>", [people["Ada"]], f"a man{marker}")


def test_a_socket_left_empty(pack, people):
    """An Autogrow socket without a link is no subject."""
    node = pack["MMDiffBindSubjects"]
    size = {"width": 0, "height": 0, "start_percent": 0.0, "end_percent": 1.0}
    sockets = {"subject_2": people["Bo"], "subject_1": None, "subject_0": people["Ada"]}
    output = node.execute(mmdiff(pack), sdxl().clip, "a man<|subj|> and a dog<|subj|>", "", sockets, **size)
    assert [one.name for one in output.args[2].subjects] == ["Ada", "Bo"]


def test_a_seventeenth_subject(pack, people, refused):
    """Over the API; the page offers sixteen sockets."""
    with refused("no input subjects.subject_16 on this node", "last one is subjects.subject_15"):
        pack["MMDiffBindSubjects"].execute(**{"subjects.subject_16": people["Ada"]})


NAMES = st.text(st.sampled_from("AdaBo zé男1-_.,:|()<>\\/'\"*+?[]{}^$\n\0"), max_size=6)
PIECES = st.one_of(
    st.sampled_from(["a man", "Ada", "Bo", ",", ". ", " ", "(", ")", ":1.3)", "\\(", "embedding:x", "<|", "|>", "\n"]),
    st.sampled_from(["\\)", "\u5c0f\u660e", "\u0130", "\u0308", "\U0001f98a", "\u0e19\u0e49\u0e33", "<|nobody|>"]),
    st.sampled_from(["<|subj|>", "<|subj:Ada|>", "<|subj:Bo |>", "<|subj:|>", "<|subj", "<|subject|>"]),
    st.text(max_size=5),
)


@given(
    st.lists(PIECES, max_size=12).map("".join), st.lists(st.one_of(st.sampled_from(["Ada", "Bo"]), NAMES), max_size=3)
)
def test_any_prompt_and_names_are_bound_or_refused(pack, people, prompt, names):
    """Bound means: every subject has a word, the text has no marker left, and no word has two subjects."""
    subjects = [dataclasses.replace(people["Ada"], name=name) for name in names]
    try:
        positive, _, binding = bound(pack, prompt, subjects)
    except module(pack, "mmdiff_core").MMDiffError as error:
        assert str(error).strip().endswith(".")
        return
    places = [place for words in binding.words for place in words]
    assert all(binding.words) and len(set(places)) == len(places)
    assert all(0 < place % 77 < 76 and place < positive[0][0].shape[1] for place in places)
    assert positive[0][0].isfinite().all()


# Saved subjects


@pytest.mark.parametrize(
    "name",
    [
        "../ada",
        "../../ada",
        "/tmp/ada",
        "people/../../ada",
        "..",
        "a/..",
        "C:\\ada",
        "..\\ada",
        "a:b",
        "a\0b",
        "a\nb",
        " ",
    ],
)
@pytest.mark.parametrize("given_as", ["filename", "name"])
def test_a_name_that_would_leave_the_folder(pack, folder, people, refused, name, given_as):
    """As the file name, and as the name of a subject that gives the file its name."""
    one, filename = people["Ada"], name
    if given_as == "name":
        one, filename = dataclasses.replace(one, name=name), ""
    around = sorted(folder.parent.rglob("*"))
    with refused("Save Subject: the name", repr(name), folder / "subjects", "Use letters, digits"):
        pack["MMDiffSaveSubject"].execute(subject=one, filename=filename)
    assert sorted(folder.parent.rglob("*")) == around


@pytest.mark.parametrize("name", ["../ada", "../../ada", "/tmp/ada", "people/../../../ada", "gone", "", "."])
def test_a_subject_outside_of_the_folder_is_not_loaded(pack, folder, people, refused, name):
    core = module(pack, "mmdiff_core")
    for path in (folder / "ada.safetensors", folder.parent / "ada.safetensors"):
        core.save_subject(people["Ada"], path)
    with refused(f"There is no subject '{name}", folder / "subjects", "refresh the page"):
        pack["MMDiffLoadSubject"].execute(subject=name)


def test_a_name_too_long_for_a_file(pack, folder, people, refused):
    with refused("could not be written", "File name too long"):
        pack["MMDiffSaveSubject"].execute(subject=people["Ada"], filename="a" * 250)


def test_a_file_where_a_folder_should_be(pack, folder, people, refused):
    (folder / "subjects").mkdir()
    (folder / "subjects" / "people").write_text("")
    with refused(folder / "subjects" / "people" / "ada.safetensors", "could not be written"):
        pack["MMDiffSaveSubject"].execute(subject=people["Ada"], filename="people/ada")


def failing(error: BaseException):
    """A `save_file` that writes some bytes and fails, or an `os.replace` that does nothing but fail."""

    def fail(first, second, *rest):
        if rest:
            Path(second).write_bytes(b"half")
        raise error

    return fail


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "stop"])
@pytest.mark.parametrize("moment", ["save_file", "replace"])
def test_a_failed_save_leaves_the_old_file_whole(pack, folder, people, refused, monkeypatch, failure, moment):
    files = module(pack, "mmdiff_core.files")
    save = pack["MMDiffSaveSubject"].execute
    save(subject=people["Ada"], filename="ada")
    path = folder / "subjects" / "ada.safetensors"
    old = path.read_bytes()
    full = refused(path, "could not be written", "No space left", "older file of that name is as it was")
    with monkeypatch.context() as patch, full if isinstance(failure, OSError) else pytest.raises(KeyboardInterrupt):
        owner = files.os if moment == "replace" else files
        patch.setattr(owner, moment, failing(failure))
        save(subject=people["Bo"], filename="ada")
    assert path.read_bytes() == old
    assert [one.name for one in path.parent.iterdir()] == ["ada.safetensors"]
    assert pack["MMDiffLoadSubject"].execute(subject="ada").args[0].name == "Ada"
    save(subject=people["Bo"], filename="ada")
    assert pack["MMDiffLoadSubject"].execute(subject="ada").args[0].name == "Bo"


def test_what_a_killed_save_leaves_is_not_offered(pack, folder, people):
    (folder / "subjects").mkdir()
    (folder / "subjects" / ".ada.safetensors.x1y2.part").write_bytes(b"half")
    assert module(pack, "nodes.host.folders").subject_names() == []


SUBJECT_FILES = {
    "empty": (lambda good, own: b"", "is empty"),
    "cut off": (lambda good, own: good[: len(good) // 2], "cut off"),
    "web page": (lambda good, own: PAGE, "is a web page"),
    "LFS pointer": (lambda good, own: POINTER, "Git LFS pointer"),
    "a checkpoint": (lambda good, own: own.content, "not a saved subject"),
}


@pytest.mark.parametrize(("content", "said"), SUBJECT_FILES.values(), ids=SUBJECT_FILES)
def test_a_subject_file_that_is_none(pack, folder, own, people, refused, content, said):
    path = folder / "subjects" / "ada.safetensors"
    pack["MMDiffSaveSubject"].execute(subject=people["Ada"], filename="ada")
    path.write_bytes(content(path.read_bytes(), own))
    with refused(path, said):
        pack["MMDiffLoadSubject"].execute(subject="ada")


FIELDS = {
    "no JSON": (None, "parts missing or unknown"),
    "newer format": ({"format": 3}, "format 3, this version reads 1 to 2; update the pack"),
    "no format": ({"format": ...}, "parts missing or unknown (KeyError: 'format')"),
    "no name": ({"name": ...}, "'name'"),
    "unknown field": ({"pose": 1}, "'pose'"),
}


@pytest.mark.parametrize(("fields", "said"), FIELDS.values(), ids=FIELDS)
def test_a_subject_file_with_other_contents(pack, folder, people, refused, fields, said):
    files, path = module(pack, "mmdiff_core.files"), folder / "subjects" / "ada.safetensors"
    pack["MMDiffSaveSubject"].execute(subject=people["Ada"], filename="ada")
    found, metadata = files.read_safetensors(path)
    entry = {**json.loads(metadata["mmdiff_subject"]), **(fields or {})}
    text = json.dumps({key: value for key, value in entry.items() if value is not ...}) if fields else "{"
    files.write_safetensors(path, found, {"mmdiff_subject": text})
    with refused(path, said):
        pack["MMDiffLoadSubject"].execute(subject="ada")


# The host's own check, and a graph that is wrong in the middle


@pytest.mark.parametrize("name", ["gone", "../ada"])
def test_a_file_that_is_not_there_is_refused_before_anything_runs(pack, folder, name):
    graph = {
        "1": {"class_type": "MMDiffLoadSubject", "inputs": {"subject": name}},
        "2": {"class_type": "MMDiffSaveSubject", "inputs": {"subject": ["1", 0], "filename": ""}},
    }
    valid, _, _, errors = asyncio.run(execution.validate_prompt("bad-input", graph, None))
    assert not valid
    (message,) = errors["1"]["errors"]
    assert f"Load Subject: There is no subject '{name}.safetensors' in {folder}" in message["details"]


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("a toy<|subj|> and a car<|subj|>", "Multi-Subject Binding: The prompt has 2 <|subj|> markers for 1 subject"),
        ("a toy<|sub|>", "which is no marker"),
        ("a toy<|subj|>", None),
        ("a toy", None),  # the subject may be called so
    ],
)
def test_a_prompt_is_refused_before_anything_runs_where_no_name_could_mend_it(pack, prompt, said):
    graph = {
        "1": {"class_type": "MMDiffLoadDemo", "inputs": {}},
        "2": {"class_type": "MMDiffDemoSubject", "inputs": {"subject": "penguin"}},
        "3": {
            "class_type": "MMDiffEncodeSubject",
            "inputs": {"mmdiff": ["1", 4], "clip_vision": ["1", 3], "image": ["2", 0], "name": "penguin", "weight": 1},
        },
        "4": {
            "class_type": "MMDiffBindSubjects",
            "inputs": {
                "mmdiff": ["1", 4],
                "clip": ["1", 1],
                "prompt": prompt,
                "negative_prompt": "",
                "subjects.subject_0": ["3", 0],
                "width": 0,
                "height": 0,
                "start_percent": 0,
                "end_percent": 1,
            },
        },
        "5": {
            "class_type": "MMDiffAttentionMaps",
            "inputs": {
                "model": ["1", 0],
                "binding": ["4", 2],
                "positive": ["4", 0],
                "latent": ["1", 5],
                "percent": 0.5,
            },
        },
    }
    valid, _, _, errors = asyncio.run(execution.validate_prompt("bad-input", graph, None))
    assert valid == (said is None), errors
    assert said is None or said in errors["4"]["errors"][0]["details"]


@pytest.mark.parametrize(
    ("kind", "inputs", "said"),
    [
        ("MMDiffLoad", {"checkpoint": "gone"}, "Load MM-Diff: There is no checkpoint 'gone' in"),
        ("MMDiffLoad", {"checkpoint": "none there yet"}, "Load MM-Diff: No checkpoint is there yet"),
        ("MMDiffLoad", {"checkpoint": None}, True),
        ("MMDiffLoadSubject", {"subject": "none saved yet"}, "Load Subject: No subject is saved yet"),
        ("MMDiffSaveSubject", {"filename": "../ada"}, "Save Subject: the name '../ada' can't be a file name"),
        ("MMDiffSaveSubject", {"filename": ""}, True),
        ("MMDiffAnalyzeFace", {}, "Analyze Face: Face analysis needs det_10g.onnx"),
        ("MMDiffAnalyzeFace", {"recogniser": "mine"}, "Analyze Face: recogniser is 'mine'"),
        ("MMDiffAnalyzeFace", {"mmdiff": None}, True),
        ("MMDiffPlaceSubject", {"start_percent": 0.5, "end_percent": 0.5}, "Place Subject: The subject would begin at"),
        ("MMDiffPlaceSubject", {"start_percent": 0.5, "end_percent": 1.5}, "end_percent is 1.5; it must be a number"),
        ("MMDiffPlaceSubject", {"start_percent": 0.5, "end_percent": None}, True),
        ("MMDiffBindSubjects", {"prompt": None, "negative_prompt": "<|subj|>", "subjects": {}}, "take it out"),
        (
            "MMDiffBindSubjects",
            {"prompt": "a<|subj|>", "negative_prompt": None, "subjects": {}},
            "1 <|subj|> marker for 0",
        ),
        (
            "MMDiffCheckCast",
            {"model": None, "latent": None},
            "Check Cast: To see where words acted, connect positive too",
        ),
        ("MMDiffCheckCast", {"model": None, "positive": None, "latent": None}, True),
        ("MMDiffCheckCast", {}, True),
    ],
)
def test_what_is_known_before_a_run_is_said_before_it(pack, folder, kind, inputs, said):
    """What comes through a link is None then."""
    answer = pack[kind].validate_inputs(**inputs)
    assert answer is True if said is True else said in answer


def test_wrong_models_in_the_middle_of_a_graph(pack, people, large, refused):
    """Each refusal comes after some node already made copies of the shared models."""
    _, _, binding = bound(pack, "Ada at home", [people["Ada"]])
    with refused("Apply MM-Diff Attention: the model is SD15", "Connect a model made for SDXL"):
        applied(pack, binding, sd15().model)
    with refused("Multi-Subject Binding: the `clip` socket holds SD1ClipModel", "Connect the CLIP of the base model"):
        bound(pack, "Ada at home", [people["Ada"]], clip=sd15().clip)
    with refused("subject 'Ada' was encoded with another MM-Diff checkpoint", "Encode it again with this checkpoint"):
        bound(pack, "Ada at home", [people["Ada"]], mmdiff=large.mmdiff)
    with refused("'Ada' acts from 0% to 100%", "from 70% to 30%", "Change one of the two"):
        bound(pack, "Ada at home", [people["Ada"]], start_percent=0.7, end_percent=0.3)
