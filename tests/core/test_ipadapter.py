"""The IP-Adapter family read as checkpoints: told by tensors, tokens as their authors' code computes them."""

import importlib
import json
import os
import re
import sys
import types
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from mmdiff_core import (
    Face,
    MMDiffError,
    encode_subject,
    load_checkpoint,
    load_subject,
    prepare_photos,
    save_checkpoint,
    save_subject,
)
from mmdiff_core.checkpoint.ipadapter import kind
from mmdiff_core.drawing.vision import VisionTowers, check_vision
from mmdiff_core.files import read_safetensors, write_safetensors
from mmdiff_core.model.attention import subject_projection
from mmdiff_core.model.lora import lora_pairs
from mmdiff_core.photo import normalise
from mmdiff_core.spec import IP_ADAPTER
from tests.ipadapters import FACE, KINDS, random_parts, write

BOUND = 1e-5
SAME = 1e-6
"""The same sums in memory that lies elsewhere."""
SIDE = 224
SPOKEN = {
    "base": "IP-Adapter",
    "plus": "IP-Adapter Plus",
    "full": "IP-Adapter Full Face",
    "faceid": "IP-Adapter FaceID",
    "faceid-plus": "IP-Adapter FaceID Plus v1",
    "faceid-plus-v2": "IP-Adapter FaceID Plus v2",
    "portrait": "IP-Adapter FaceID Portrait",
    "portrait-unnorm": "IP-Adapter FaceID Portrait Unnorm",
}
NEVER_PUBLISHED = {("full", 2048), ("faceid-plus", 2048), ("portrait-unnorm", 768)}
NEIGHBOURS = os.environ.get("NEIGHBOURS_DIR")


def relative(found, wanted):
    return float((found - wanted).norm() / wanted.norm())


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=32,
        projection_dim=24,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=32,
    )
    return CLIPVisionModelWithProjection(config).eval()


@pytest.fixture(scope="module")
def photos():
    """Two square photos of the encoder's size, on whole numbers of 255, (R, H, W, 3)."""
    return (torch.rand(2, SIDE, SIDE, 3, generator=torch.Generator().manual_seed(1)) * 255).round() / 255


def face_of(photos, crop=SIDE):
    generator = torch.Generator().manual_seed(2)
    vectors, lengths = torch.randn(len(photos), FACE, generator=generator), torch.tensor([21.0, 18.5])[: len(photos)]
    return Face(torch.nn.functional.normalize(vectors, dim=-1), photos[:, :crop, :crop], lengths)


def encoded(mmdiff, tower, photos, face=None):
    check_vision(tower, mmdiff)
    towers = VisionTowers(tower, tower)
    pixels = prepare_photos(photos, mmdiff.spec.photo_size, mode=mmdiff.spec.resize)
    with torch.inference_mode():
        return encode_subject(mmdiff, towers, pixels, face, "Ada", 1.0)


@pytest.mark.parametrize("ending", [".bin", ".safetensors"])
@pytest.mark.parametrize("which", KINDS)
def test_each_kind_is_told_by_its_tensors(which, ending, tmp_path):
    """Under a name that says nothing; only the two versions of FaceID Plus are alike in all but what one says."""
    parts = random_parts(which)
    path = write(parts, tmp_path, f"a{ending}")
    mmdiff = load_checkpoint(path, dtype=None, faceid_plus="v2" if which == "faceid-plus-v2" else "v1")
    assert kind(mmdiff) == SPOKEN[which] and mmdiff.base == "sd15"
    assert not mmdiff.heads.fuse and not mmdiff.spec.fuse_prompt and not mmdiff.vision
    assert mmdiff.tokens_per_reference == {"full": None, "base": 4, "faceid": 4}.get(
        which, 4 if "plus" in which and "face" in which else 16
    )
    reads = {"base": (None, 24), "plus": (32, None), "full": (32, None)}
    assert mmdiff.vision_widths == reads.get(which, (32 if "plus" in which else None, None))
    assert torch.equal(mmdiff.unet["3"]["to_v_image"].weight, parts["ip_adapter"]["3.to_v_ip.weight"])
    assert len(list(lora_pairs(mmdiff.unet))) == (16 if which.startswith("faceid") else 0)


def test_sdxl_is_told_by_the_width_of_its_context(tmp_path):
    mmdiff = load_checkpoint(write(random_parts("faceid-plus", context=2048, depth=0), tmp_path, "faceid-plusv2.bin"))
    assert mmdiff.base == "sdxl" and mmdiff.spec.face_crop == 256
    assert load_checkpoint(write(random_parts("base"), tmp_path, "b.bin")).spec.face_crop == 224


@pytest.mark.parametrize(
    ("name", "entry", "asked", "shortcut"),
    [
        ("ip-adapter-faceid-plusv2_sd15", False, None, True),
        ("IP_Adapter_FaceID_PlusV2", False, "v1", True),
        ("ip-adapter-faceid-plus_sd15", False, "v2", False),
        ("mine", False, "v1", False),
        ("mine", False, "v2", True),
        ("mine-plus", True, None, True),
    ],
)
def test_the_version_of_faceid_plus(tmp_path, name, entry, asked, shortcut):
    """By the file's entry, else by its name, else as one says."""
    parts = random_parts("faceid-plus")
    path = write({**parts, **({"faceidplusv2": True} if entry else {})}, tmp_path, f"{name}.bin")
    assert load_checkpoint(path, faceid_plus=asked).spec.shortcut is shortcut


def test_a_version_that_nothing_tells_is_asked_for(tmp_path):
    path = write(random_parts("faceid-plus"), tmp_path, "mine.bin")
    with pytest.raises(MMDiffError, match="neither an entry nor its name says whether of version 1 or 2; .* choose"):
        load_checkpoint(path)


@pytest.mark.parametrize("which", KINDS)
def test_converting_changes_nothing(which, tmp_path, tower, photos):
    mmdiff = load_checkpoint(write(random_parts(which), tmp_path, f"{KINDS[which]}.bin"))
    save_checkpoint(mmdiff, tmp_path / "ours.safetensors")
    ours = load_checkpoint(tmp_path / "ours.safetensors")
    assert (ours.spec, ours.source, ours.base, kind(ours)) == (mmdiff.spec, mmdiff.source, mmdiff.base, kind(mmdiff))
    a, b = (encoded(one, tower, photos, face_of(photos)) for one in (mmdiff, ours))
    assert relative(a.tokens, b.tokens) < SAME and relative(a.negative, b.negative) < SAME
    with safe_open(tmp_path / "ours.safetensors", "pt") as file:
        entry = json.loads(file.metadata()["mmdiff"])
    assert entry["spec"]["negative"] == "grey" and entry["tokens_per_subject"] == mmdiff.tokens_per_reference


def test_what_was_converted_before_a_file_said_how_photos_become_square(tmp_path):
    """An IP-Adapter's are cut to their middle all the same; one that says otherwise keeps to it."""
    adapter = load_checkpoint(write(random_parts("plus"), tmp_path, "plus.bin"))
    path = tmp_path / "ours.safetensors"
    save_checkpoint(adapter, path)
    tensors, metadata = read_safetensors(path)
    entry = json.loads(metadata["mmdiff"])
    entry["spec"].pop("square", None)
    write_safetensors(path, tensors, {"mmdiff": json.dumps(entry)})
    assert load_checkpoint(path).spec == adapter.spec and adapter.spec.square == "middle"
    for change in ({"square": "padded"}, {"resize": "bilinear"}, {"resize": "bilinear", "square": "padded"}):
        save_checkpoint(adapter.with_spec(**change), path)
        assert load_checkpoint(path).spec == adapter.spec.replace(**change)


def test_older_names_of_the_layers(tmp_path):
    parts = random_parts("base")
    parts["adapter_modules"] = parts.pop("ip_adapter")
    assert load_checkpoint(write(parts, tmp_path, "a.safetensors")).unet.keys() == {"1", "3"}


def test_what_negative_rows_get(tmp_path, tower, photos):
    """As many tokens as the subject has, of a picture that shows nothing, whatever the photos show."""
    path = write(random_parts("plus"), tmp_path, "a.bin")
    mmdiff = load_checkpoint(path)
    subject, other = (encoded(mmdiff, tower, each) for each in (photos, 1 - photos))
    assert subject.negative.shape == subject.tokens.shape == (32, 768)
    assert relative(subject.negative, other.negative) < SAME < relative(subject.tokens, other.tokens)
    assert torch.equal(subject.negative[:16], subject.negative[16:])
    black = encoded(mmdiff.with_spec(negative="black"), tower, photos).negative
    assert relative(black, subject.negative) > 1e-3
    shown = encoded(mmdiff.with_spec(negative="nothing"), tower, torch.zeros_like(photos))
    assert shown.negative is None and relative(black, shown.tokens) < SAME

    save_subject(subject, tmp_path / "ada.safetensors")
    assert torch.equal(load_subject(tmp_path / "ada.safetensors").negative, subject.negative)


def test_the_towers_run_only_where_they_are_read(tmp_path, photos):
    """FaceID wants no vision encoder at all."""

    mmdiff = load_checkpoint(write(random_parts("faceid"), tmp_path, "a.bin"))
    subject = encode_subject(mmdiff, None, photos.movedim(-1, 1), face_of(photos), "Ada", 1.0)
    assert subject.tokens.shape == (8, 768) and subject.entity == {}


def test_a_face_crop_of_another_margin(tmp_path, tower, photos):
    mmdiff = load_checkpoint(write(random_parts("faceid-plus", context=2048, depth=0), tmp_path, "faceid-plusv2.bin"))
    with pytest.raises(MMDiffError, match="face crops are 224 pixels wide, the checkpoint wants 256, cut with another"):
        encoded(mmdiff, tower, photos, face_of(photos))


def test_face_vectors_without_their_lengths(tmp_path, tower, photos):
    mmdiff = load_checkpoint(write(random_parts("portrait-unnorm"), tmp_path, "a.bin"))
    face = face_of(photos)
    with pytest.raises(MMDiffError, match="at the length the recogniser gave them, and these come without"):
        encoded(mmdiff, tower, photos, Face(face.embeds, face.crops))


def test_keys_and_values_are_by_matrices_of_their_own(tmp_path):
    parts = random_parts("base")
    mmdiff, tokens = load_checkpoint(write(parts, tmp_path, "a.bin")), torch.randn(1, 4, 768)
    base = torch.nn.Module()  # has no layers: none may be asked for
    for name in ("k", "v"):
        wanted = tokens @ parts["ip_adapter"][f"3.to_{name}_ip.weight"].T
        assert relative(subject_projection(base, mmdiff.unet["3"], f"to_{name}", tokens), wanted) < BOUND


def refused(path, said):
    with pytest.raises(MMDiffError) as caught:
        load_checkpoint(path, faceid_plus="v1")
    assert str(path) in str(caught.value) and re.search(said, str(caught.value)), str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"context": 1024},
            "is an IP-Adapter for Stable Diffusion 2 .its context is 1024 wide.; read are those for SD1",
        ),
        ({"context": 4096}, "is an IP-Adapter for Flux"),
        ({"context": 2432}, "is an IP-Adapter for Stable Diffusion 3.5"),
        ({"context": 1000}, "is an IP-Adapter for a base that is not known"),
    ],
)
def test_another_base(tmp_path, changes, said):
    for ending in ("bin", "safetensors"):
        refused(write(random_parts("base", **changes), tmp_path, f"a.{ending}"), said)


def test_kolors(tmp_path):
    plus, face = (random_parts(name, context=2048, depth=0) for name in ("plus", "faceid-plus"))
    plus["image_proj"]["layers.0.0.to_out.weight"] = torch.zeros(2048, 1280)
    face["image_proj"]["perceiver_resampler.layers.0.0.to_out.weight"] = torch.zeros(4096, 64)
    for parts in (plus, face):
        refused(write(parts, tmp_path, "a.safetensors"), "is an IP-Adapter for Kolors")


@pytest.mark.parametrize("ending", ["bin", "safetensors"])
@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight"], "is an IP-Adapter for Flux;"),
        (["lora_unet_mid_block.lora_down.weight", "lora_unet_mid_block.lora_up.weight"], "is a LoRA, no checkpoint"),
        (["unet.mid.attn1.processor.to_q_lora.up.weight"], "is a LoRA, no checkpoint"),
        (["model.diffusion_model.input_blocks.0.0.weight"], "is neither an MM-Diff checkpoint .* nor an IP-Adapter"),
        (["image_proj.proj.weight"], "is neither"),
    ],
)
def test_what_is_neither(tmp_path, keys, said, ending):
    path, tensors = tmp_path / f"a.{ending}", {key: torch.ones(2, 2) for key in keys}
    torch.save(tensors, path) if ending == "bin" else save_file(tensors, path)
    refused(path, said)


def test_parts_that_are_missing_or_foreign(tmp_path):
    def changed(name, change):
        parts = random_parts("plus")
        change(parts)
        return write(parts, tmp_path, f"{name}.bin")

    refused(changed("layer", lambda p: p["ip_adapter"].pop("3.to_v_ip.weight")), "lacks the keys or values of some")
    refused(changed("key", lambda p: p["ip_adapter"].update({"1.conv.weight": torch.ones(1)})), "'ip_adapter.1.conv")
    refused(changed("head", lambda p: p["image_proj"].pop("proj_out.bias")), "with parts missing or misshapen")
    refused(changed("more", lambda p: p["image_proj"].update({"pos_emb.weight": torch.ones(9)})), "pos_emb")
    refused(
        changed("kind", lambda p: p["image_proj"].clear() or p["image_proj"].update(a=torch.ones(1))), "no kind that"
    )
    refused(changed("text", lambda p: p["image_proj"].update(latents="16")), "a str under 'image_proj.latents'")


def test_a_pickle_cut_off_or_with_code_in_it(tmp_path):
    path = write(random_parts("base"), tmp_path, "a.bin")
    path.write_bytes(path.read_bytes()[:-30])
    refused(path, "is not a whole PyTorch file")

    class Touch:
        def __reduce__(self):
            return open, (str(tmp_path / "made"), "w")

    torch.save({"image_proj": Touch(), "ip_adapter": {}}, path)
    refused(path, "is not a PyTorch file of tensors alone, so nothing in it was run")
    assert not (tmp_path / "made").exists()


@pytest.fixture(scope="module")
def theirs():
    """tencent-ailab/IP-Adapter's own modules, from NEIGHBOURS_DIR."""
    folder = Path(NEIGHBOURS or "/nowhere") / "IP-Adapter" / "ip_adapter"
    if not folder.is_dir():
        pytest.skip("NEIGHBOURS_DIR has no checkout of tencent-ailab/IP-Adapter, whose code this compares with")
    controlnet = importlib.import_module("diffusers.pipelines.controlnet")
    if not hasattr(controlnet, "MultiControlNetModel"):  # it has moved since; only named at import
        controlnet.MultiControlNetModel = object
    package = types.ModuleType("ip_adapter")
    package.__path__ = [str(folder)]
    sys.modules["ip_adapter"] = package
    names = ("ip_adapter", "ip_adapter_faceid", "resampler")
    return types.SimpleNamespace(**{name: importlib.import_module(f"ip_adapter.{name}") for name in names})


def their_head(theirs, which, parts, context):
    sdxl = context == 2048
    if which == "base":
        head = theirs.ip_adapter.ImageProjModel(context, 24, 4)
    elif which == "full":
        head = theirs.ip_adapter.MLPProjModel(context, 32)
    elif which in ("faceid", "portrait"):
        head = theirs.ip_adapter_faceid.MLPProjModel(context, FACE, 4 if which == "faceid" else 16)
    elif which in ("plus", "portrait-unnorm"):
        head = theirs.resampler.Resampler(
            dim=1280 if sdxl else context,
            depth=4,
            heads=20 if sdxl else 12,
            num_queries=16,
            embedding_dim=32 if which == "plus" else FACE,
            output_dim=context,
        )
    else:
        head = theirs.ip_adapter_faceid.ProjPlusModel(context, FACE, 32)
    head.load_state_dict(parts["image_proj"])
    return head.eval()


@pytest.mark.parametrize(
    ("which", "context"),
    [(which, context) for which in KINDS for context in (768, 2048) if (which, context) not in NEVER_PUBLISHED],
)
def test_tokens_are_those_of_their_own_code(theirs, which, context, tmp_path, tower, photos):
    parts = random_parts(which, context=context, depth=4)
    mmdiff = load_checkpoint(write(parts, tmp_path, f"{KINDS[which]}.bin"))
    crops = torch.nn.functional.pad(photos, (0, 0, 16, 16, 16, 16)) if mmdiff.spec.face_crop == 256 else photos
    face = face_of(crops, crop=mmdiff.spec.face_crop)
    subject = encoded(mmdiff, tower, photos, face)
    head = their_head(theirs, which, parts, context)

    def hidden(pixels):
        return tower(pixels, output_hidden_states=True).hidden_states[-2]

    pixels = normalise(photos.movedim(-1, 1))
    crop = normalise(prepare_photos(face.crops, SIDE, mode="bicubic"))
    v2 = {"shortcut": which == "faceid-plus-v2", "scale": 1.0}
    with torch.inference_mode():
        wanted, empty = {
            "base": lambda: (head(tower(pixels).image_embeds), head(torch.zeros(2, 24))),
            "plus": lambda: (head(hidden(pixels)), head(hidden(torch.zeros_like(pixels)))),
            "full": lambda: (head(hidden(pixels)), head(hidden(torch.zeros_like(pixels)))),
            "faceid": lambda: (head(face.embeds), head(torch.zeros_like(face.embeds))),
            "portrait": lambda: (head(face.embeds), head(torch.zeros_like(face.embeds))),
            "portrait-unnorm": lambda: (
                head((face.embeds * face.lengths[:, None])[:, None]),
                head(torch.zeros(2, 1, FACE)),
            ),
        }.get(
            which,
            lambda: (
                head(face.embeds, hidden(crop), **v2),
                head(torch.zeros_like(face.embeds), hidden(torch.zeros_like(crop)), **v2),
            ),
        )()
    assert relative(subject.tokens, wanted.flatten(0, 1)) <= BOUND
    assert relative(subject.negative, empty.flatten(0, 1)) <= BOUND


@pytest.mark.parametrize("size", [(2 * SIDE, 2 * SIDE), (2 * SIDE, 3 * SIDE), (3 * SIDE, 2 * SIDE)])
def test_photos_go_through_their_processor_alike(size):
    """A photo twice the encoder's size or longer, cut and resized by the processor that their code makes, which rounds
    in between, and by ours. It cuts last, so its border has seen a little of what is cut off."""
    photo = (64 + torch.rand(1, *size, 3, generator=torch.Generator().manual_seed(5)) * 128).round()
    wanted = CLIPImageProcessor()(images=[photo[0].byte().numpy()], return_tensors="pt").pixel_values
    ours = normalise(prepare_photos(photo / 255, SIDE, mode=IP_ADAPTER.resize, square=IP_ADAPTER.square))
    inside = slice(2, -2) if size[0] != size[1] else slice(None)
    assert (ours - wanted)[..., inside, inside].abs().max() < 2 / 255 / 0.26
