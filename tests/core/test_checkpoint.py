"""Checkpoints on disk: our format, the released folder, and what is neither."""

import json
import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mmdiff_core import RELEASED, MMDiff, MMDiffError, Spec, load_checkpoint, save_checkpoint
from mmdiff_core.checkpoint import RELEASED_FILES, is_released
from mmdiff_core.model.lora import lora_pairs

UNET, TEXT, CUSTOM = RELEASED_FILES
PARTS = {
    "image_encoder": "vision",
    "obj_embeds_proj": "heads.entity",
    "face_embeds_proj": "heads.subject",
    "mm_fuse_one": "heads.fuse.l",
    "mm_fuse_two": "heads.fuse.g",
}
SPEC = {"head_dim": 8}
ONE_OF_EACH = (
    "heads.entity",
    "heads.fuse.g",
    "heads.subject.proj",
    "heads.subject.layer_norm",
    "heads.subject.refiner.layers.1",
    "heads.subject.refiner.proj",
    "unet.3",
    "text.l",
)


def below(tensors, prefix):
    return {key[len(prefix) + 1 :]: value for key, value in tensors.items() if key.startswith(f"{prefix}.")}


def write(path, tensors, **entry):
    """A file of our format, as another program would write it."""
    entry = {"format": 1, "spec": SPEC, "source": "a hash", **entry}
    save_file(tensors, path, {"mmdiff": json.dumps(entry)})
    return path


def same(a, b):
    return a.keys() == b.keys() and all(a[key].dtype == b[key].dtype and torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def wide(make_tensors):
    """Of a context that the released spec's heads of 256 can share."""
    return make_tensors(256)


@pytest.fixture
def released(wide, tmp_path):
    """A folder as alibaba/mm-diff released it."""
    folder = tmp_path / "released"
    folder.mkdir()
    torch.save({theirs: below(wide, ours) for theirs, ours in PARTS.items()}, folder / CUSTOM)
    torch.save(below(wide, "unet"), folder / UNET)
    text = {}
    for encoder, theirs in (("l", "text_encoder"), ("g", "text_encoder_2")):
        for key, value in below(wide, f"text.{encoder}").items():
            path, name, side = re.fullmatch(r"(.+)\.(\w+)\.(up|down)\.weight", key).groups()
            text[f"{theirs}.text_model.encoder.{path}.{name}.lora_linear_layer.{side}.weight"] = value
    torch.save(text, folder / TEXT)
    return folder


def change(path, change):
    """Rewrite one of the pickles."""
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


def refused(path, said):
    with pytest.raises(MMDiffError) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value) and said in str(caught.value), str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_our_format_comes_back_bit_for_bit(make, tmp_path, dtype):
    mmdiff = make(identity="face", photo_size=336)
    mmdiff.heads.to(dtype)
    path = tmp_path / "a.safetensors"
    save_checkpoint(mmdiff, path)
    found = load_checkpoint(path, dtype=None)
    assert same(found.tensors(), mmdiff.tensors())
    assert found.spec == Spec(identity="face", photo_size=336, head_dim=8) and found.source == "a hash"
    save_checkpoint(found, tmp_path / "b.safetensors")
    assert path.read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_what_the_metadata_says(make, tmp_path):
    save_checkpoint(make(), tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        entry = json.loads(file.metadata()["mmdiff"])
    assert entry["format"] == 1 and entry["base"] == "sdxl" and entry["identity"] == "cls"
    assert entry["tokens_per_subject"] == 4 and entry["spec"]["head_dim"] == 8 and entry["source"] == "a hash"


def test_heads_come_in_the_precision_asked_for(make, tmp_path):
    mmdiff = make()
    mmdiff.heads.half()
    save_checkpoint(mmdiff, tmp_path / "a.safetensors")
    assert {p.dtype for p in load_checkpoint(tmp_path / "a.safetensors").heads.parameters()} == {torch.float32}
    half = load_checkpoint(tmp_path / "a.safetensors", dtype=torch.bfloat16).heads
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


def test_a_new_checkpoint_gets_its_content_as_source(make, tensors, tmp_path):
    save_checkpoint(make(source=""), tmp_path / "a.safetensors")
    tensors["vision.visual_projection.weight"][0, 0] += 1
    save_checkpoint(make(source=""), tmp_path / "b.safetensors")
    a, b = (load_checkpoint(tmp_path / f"{name}.safetensors").source for name in "ab")
    assert len(a) == len(b) == 64 and a != b


def test_one_text_encoder_is_sd15(tensors, tmp_path):
    left_out = ("heads.fuse.g.", "heads.entity.proj_2.", "text.g.")
    small = {key: value for key, value in tensors.items() if not key.startswith(left_out)}
    mmdiff = load_checkpoint(write(tmp_path / "a.safetensors", small))
    assert mmdiff.base == "sd15" and list(mmdiff.heads.fuse) == ["l"] and list(mmdiff.text) == ["l"]
    assert mmdiff.heads.entities(torch.randn(12))["l"].shape == (6,)


def test_widths_and_ranks_are_the_tensors_own(tensors, tmp_path):
    """Each layer has a rank of its own, one layer has none, and the vision tower and the tokens are others."""
    for number, rank in enumerate((1, 5, 9, 2)):
        for key in [key for key in tensors if key.startswith(f"unet.{number}.")]:
            shape = list(tensors[key].shape)
            shape[0 if ".down." in key else 1] = rank
            tensors[key] = torch.randn(shape)
    for side in ("up", "down"):
        del tensors[f"unet.2.to_q_lora.{side}.weight"]
    tensors["heads.subject.proj.2.weight"], tensors["heads.subject.proj.2.bias"] = (
        torch.randn(7 * 16, 24),
        torch.randn(112),
    )
    mmdiff = load_checkpoint(write(tmp_path / "a.safetensors", tensors))
    ranks = {path: pair.down.out_features for path, pair in lora_pairs(mmdiff.unet)}
    assert ranks["0.to_q_lora"] == 1 and ranks["1.to_v_lora_image"] == 5 and ranks["3.to_out_lora"] == 2
    assert "2.to_q_lora" not in ranks and ranks["2.to_k_lora"] == 9
    heads = mmdiff.heads
    assert (heads.cls_width, heads.patch_width, heads.identity_width, heads.context_width) == (12, 10, 12, 16)
    assert heads.tokens_per_reference == 7 and (heads.token_width("l"), heads.token_width("g")) == (6, 8)
    assert heads.subject(torch.randn(2, 12), torch.randn(2, 5, 10)).shape == (2, 7, 16)


def test_the_released_folder(released, wide):
    assert is_released(released)
    mmdiff = load_checkpoint(released, dtype=None)
    assert same(mmdiff.tensors(), wide)
    assert mmdiff.spec == RELEASED and len(mmdiff.source) == 64


def test_converting_the_folder_changes_nothing(released, tmp_path):
    folder = load_checkpoint(released, dtype=None)
    save_checkpoint(folder, tmp_path / "a.safetensors")
    file = load_checkpoint(tmp_path / "a.safetensors", dtype=None)
    assert same(file.tensors(), folder.tensors())
    assert (file.spec, file.source, file.base) == (folder.spec, folder.source, folder.base)


def test_older_names_of_the_text_lora(released, wide):
    def older(content):
        for key in list(content):
            content[key.replace("q_proj.lora_linear_layer", "to_q_lora")] = content.pop(key)

    change(released / TEXT, older)
    assert same(load_checkpoint(released, dtype=None).tensors(), wide)


def test_text_lora_on_the_mlp(released):
    prefix = "text_encoder_2.text_model.encoder.layers.3.mlp.fc1.lora_linear_layer"
    change(
        released / TEXT,
        lambda content: content.update(
            {f"{prefix}.down.weight": torch.ones(5, 8), f"{prefix}.up.weight": torch.ones(32, 5)}
        ),
    )
    pair = load_checkpoint(released).text["g"]["layers"]["3"]["mlp"]["fc1"]
    assert (pair.down.in_features, pair.down.out_features, pair.up.out_features) == (8, 5, 32)


def test_vision_weights_may_be_few_or_none(released):
    assert load_checkpoint(released).vision.keys() == {"visual_projection.weight"}
    change(released / CUSTOM, lambda content: content["image_encoder"].clear())
    assert load_checkpoint(released).vision == {}


def test_position_ids_are_no_weights(released):
    ids = {"vision_model.embeddings.position_ids": torch.arange(5)[None]}
    change(released / CUSTOM, lambda content: content["image_encoder"].update(ids))
    assert load_checkpoint(released).vision.keys() == {"visual_projection.weight"}


@pytest.mark.parametrize("missing", RELEASED_FILES)
def test_two_of_the_three_files(released, missing):
    (released / missing).unlink()
    assert not is_released(released)
    refused(released, f"lacks {missing}; a released checkpoint is the three files")


def test_an_empty_folder(tmp_path):
    refused(tmp_path, f"lacks {UNET} and {TEXT} and {CUSTOM};")


@pytest.mark.parametrize("name", RELEASED_FILES)
def test_a_damaged_file_of_the_folder(released, name):
    path = released / name
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(MMDiffError, match=rf"{re.escape(str(path))} is not a whole PyTorch file"):
        load_checkpoint(released)


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("name", RELEASED_FILES)
def test_code_in_the_folder_is_not_run(released, tmp_path, name):
    torch.save({"a": Touch(tmp_path / "made")}, released / name)
    with pytest.raises(MMDiffError, match=rf"{name} is not a PyTorch file of tensors alone, so nothing in it was run"):
        load_checkpoint(released)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_missing(released, part):
    change(released / CUSTOM, lambda content: content.pop(part))
    with pytest.raises(MMDiffError, match=rf"{CUSTOM} has no part {part}; it is not MM-Diff's file"):
        load_checkpoint(released)


@pytest.mark.parametrize("name", [UNET, TEXT])
@pytest.mark.parametrize(
    "key", ["lora_unet_down_blocks_0.alpha", "0.to_q_lora.down.bias", "1.to_q_lora_image.up.weight"]
)
def test_keys_of_another_kind_of_adapter(released, name, key):
    change(released / name, lambda content: content.update({key: torch.ones(1)}))
    with pytest.raises(MMDiffError, match=rf"{name} has the key '{re.escape(key)}', which no released checkpoint has"):
        load_checkpoint(released)


def test_every_tensor_is_needed(tensors, tmp_path):
    path = tmp_path / "a.safetensors"
    for key in [key for key in tensors if key.startswith(ONE_OF_EACH)]:
        write(path, {other: value for other, value in tensors.items() if other != key})
        refused(path, "is a checkpoint with parts missing or misshapen")


def test_every_shape_is_checked(tensors, tmp_path):
    path = tmp_path / "a.safetensors"
    for key in [key for key in tensors if key.startswith(ONE_OF_EACH)]:
        for shape in ((), (7, 5, 3)):
            write(path, {**tensors, key: torch.ones(shape)})
            refused(path, "with parts missing or misshapen")


def test_a_lora_whose_halves_do_not_fit(tensors, tmp_path):
    tensors["unet.1.to_k_lora.up.weight"] = torch.ones(8, 4)
    refused(write(tmp_path / "a.safetensors", tensors), "size mismatch for unet.1.to_k_lora.up.weight")


def test_heads_of_another_width_than_the_spec_says(tensors, tmp_path):
    refused(
        write(tmp_path / "a.safetensors", tensors, spec={"head_dim": 5}),
        "16 wide, which heads of the spec's head_dim 5",
    )


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        (None, "is neither an MM-Diff checkpoint (its metadata has no `mmdiff` entry) nor an IP-Adapter"),
        ({"other": "1"}, "is neither an MM-Diff checkpoint"),
        ({"mmdiff": "{"}, "has an `mmdiff` metadata entry that can't be read"),
        ({"mmdiff": "[]"}, "metadata entry that can't be read"),
        ({"mmdiff": "{}"}, "metadata entry that can't be read (KeyError: 'format')"),
        ({"mmdiff": '{"format": 1}'}, "can't be read (KeyError: 'spec')"),
        ({"mmdiff": '{"format": 1, "spec": null, "source": ""}'}, "can't be read"),
        ({"mmdiff": '{"format": 1, "spec": {"habit": 1}, "source": ""}'}, "A spec has no field habit"),
        ({"mmdiff": '{"format": 1, "spec": {"photo_size": 0}, "source": ""}'}, "photo_size is 0; it must be a whole"),
        ({"mmdiff": '{"format": 2, "fields": {}}'}, "is of format 2, this version reads format 1; update the pack"),
    ],
)
def test_metadata_that_is_not_ours(tensors, tmp_path, metadata, said):
    path = tmp_path / "a.safetensors"
    save_file(tensors, path, metadata)
    refused(path, said)


def test_a_file_that_is_cut_off(tensors, tmp_path):
    path = write(tmp_path / "a.safetensors", tensors)
    path.write_bytes(path.read_bytes()[:-1])
    refused(path, "is not a whole safetensors file")


def test_a_file_that_is_missing(tmp_path):
    refused(tmp_path / "a.safetensors", "There is no file")


def test_a_save_that_fails_leaves_the_old_checkpoint(make, tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_checkpoint(make(), path)
    old = path.read_bytes()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mmdiff_core.files.save_file", full)
    with pytest.raises(MMDiffError, match="No space left on device"):
        save_checkpoint(make(source="another"), path)
    assert path.read_bytes() == old


def test_another_spec_shares_the_weights(make):
    mmdiff = make()
    other = mmdiff.with_spec(fuse_negative=True, text_lora_encoders="first")
    assert isinstance(other, MMDiff) and other is not mmdiff
    assert other.spec == mmdiff.spec.replace(fuse_negative=True, text_lora_encoders="first")
    assert not mmdiff.spec.fuse_negative, "the first one keeps its own"
    storage = {key: value.data_ptr() for key, value in mmdiff.tensors().items()}
    assert {key: value.data_ptr() for key, value in other.tensors().items()} == storage
    assert other.source == mmdiff.source and other.base == mmdiff.base
