"""Other packs by their own code, in one graph with ours; see others.py for where it is looked for."""

from types import SimpleNamespace

import pytest
import torch
from graph import applied, bound, error, mmdiff, module, sample, subject
from others import call, module_of
from predictions import noises, predict
from tiny_sd15 import general_checkpoint, sd15
from tiny_sdxl import sdxl

import nodes

EQUAL = 1e-5
"""Rows computed in another batch: the order of float32 sums."""
DIFFERENT = 1e-3

TILED = "shiimizu/ComfyUI-TiledDiffusion"
CONTROL = "Kosinkadink/ComfyUI-Advanced-ControlNet"
PPM = "pamparamm/ComfyUI-ppm"
TOOLING = "Acly/comfyui-tooling-nodes"
IP_ADAPTER = "cubiq/ComfyUI_IPAdapter_plus"
UPSCALE = "ssitu/ComfyUI_UltimateSDUpscale"


@pytest.fixture(scope="module")
def scene(pack):
    """Two subjects in one prompt; the clean spec, so that negatives are plain."""
    clean = mmdiff(pack).with_spec(fuse_negative=False)
    with torch.inference_mode():
        subjects = [subject(pack, "Ada", 0), subject(pack, "Bo", 1)]
        positive, negative, binding = bound(
            pack, "Ada and Bo on the beach", subjects, mmdiff=clean, width=256, height=128
        )
    return SimpleNamespace(mmdiff=clean, subjects=subjects, prompts=(positive, negative), binding=binding)


def both_orders(pack, scene, node, binding=None):
    """Models with another pack's node before ours and after ours."""
    binding = binding or scene.binding
    return applied(pack, binding, node(sdxl().model)), node(applied(pack, binding))


def tiles(method, at_once):
    """Tiles of 128 x 128 pixels, half overlapping."""

    def node(model):
        sizes = {"tile_width": 128, "tile_height": 128, "tile_overlap": 64, "tile_batch_size": at_once}
        return call(TILED, "TiledDiffusion", model=model, method=method, **sizes)[0]

    return node


@pytest.mark.neighbour("Tiled Diffusion", TILED, "a wide picture, 1 and 4 tiles in a batch, two subjects", "both")
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("method", ["MultiDiffusion", "Mixture of Diffusers", "SpotDiffusion"])
def test_tiled_diffusion(pack, scene, method, batch):
    """How many tiles it stacks changes nothing, and every tile has the subjects."""
    given = {"size": (16, 40), "batch": batch}
    plain = sample(tiles(method, 4)(applied(pack, scene.binding, weight=0.0)), *scene.prompts, **given)
    wanted = sample(tiles(method, 1)(applied(pack, scene.binding)), *scene.prompts, **given)
    for model in both_orders(pack, scene, tiles(method, 4)):
        assert error(sample(model, *scene.prompts, **given), wanted) < EQUAL
    for columns in range(0, 40, 8):
        assert error(wanted[..., columns : columns + 8], plain[..., columns : columns + 8]) > DIFFERENT


@pytest.mark.neighbour("Tiled Diffusion", TILED, "a subject in a region of the whole picture", "both")
@pytest.mark.parametrize("at_once", [1, 4])
def test_tiled_diffusion_leaves_a_region_where_it_was_drawn(pack, scene, at_once):
    left = torch.zeros(1, 16, 32)
    left[..., :16] = 1

    def prompts(region):
        placed = (
            pack["MMDiffPlaceSubject"]
            .execute(subject=scene.subjects[0], start_percent=0.0, end_percent=1.0, region=region)
            .args[0]
        )
        return bound(pack, "Ada on the beach", [placed], mmdiff=scene.mmdiff, width=256, height=128)

    noise = noises(size=(16, 32))
    positive, negative, binding = prompts(left)
    total, times = torch.zeros_like(noise), torch.zeros_like(noise)
    for start in (0, 8, 16):
        part = slice(start, start + 16)
        own = prompts(left[..., part])
        total[..., part] += predict(applied(pack, own[2]), *own[:2], noise=noise[..., part])[0]
        times[..., part] += 1
    for model in both_orders(pack, scene, tiles("MultiDiffusion", at_once), binding):
        assert error(predict(model, positive, negative, noise=noise)[0], total / times) < EQUAL


@pytest.fixture(scope="module")
def small(pack, tmp_path_factory):
    """The SD1.5-shaped graph, which has the blocks that Reference ControlNet counts."""
    with torch.inference_mode():
        general = general_checkpoint(pack, tmp_path_factory.mktemp("sd15"))
        subjects = [subject(pack, name, number, checkpoint=general) for number, name in enumerate(("Ada", "Bo"))]
        positive, negative, binding = bound(
            pack, "Ada and Bo on the beach", subjects, "", mmdiff=general, clip=sd15().clip
        )
    return SimpleNamespace(prompts=(positive, negative), binding=binding)


@pytest.mark.neighbour("Reference ControlNet", CONTROL, "each style, with two subjects", "not a node on the model")
@pytest.mark.parametrize("style", ["reference_attn", "reference_adain", "reference_attn+adain"])
def test_reference_controlnet(pack, small, style):
    """It runs blocks by a forward of its own, which does not fill in every key."""
    latent = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    vae = SimpleNamespace(encode=lambda x: latent, downscale_ratio=8, vae_encode_crop_pixels=lambda x: x)
    empty = {"samples": torch.zeros(1, 4, 16, 16)}
    (image,) = call(CONTROL, "ACN_ReferencePreprocessor", vae=vae, image=torch.rand(1, 128, 128, 3), latent_size=empty)
    settings = {"reference_type": style, "style_fidelity": 0.5, "ref_weight": 1.0}
    (control,) = call(CONTROL, "ACN_ReferenceControlNet", **settings)
    prompts = nodes.ControlNetApplyAdvanced().apply_controlnet(*small.prompts, control, image, 1.0, 0.0, 1.0)
    found = sample(applied(pack, small.binding, sd15().model), *prompts)
    assert error(found, sample(applied(pack, small.binding, sd15().model), *small.prompts)) > DIFFERENT
    assert error(found, sample(applied(pack, small.binding, sd15().model, weight=0.0), *prompts)) > DIFFERENT


def halves(size=(16, 32)):
    left = torch.zeros(1, *size)
    left[..., : size[1] // 2] = 1
    return left, 1 - left


def ppm_couple(text):
    def node(model):
        left, right = halves()
        return call(PPM, "AttentionCouplePPM", model=model, base_cond=text, base_mask=left, cond_1=text, mask_1=right)[
            0
        ]

    return node


def tooling_regions(text):
    def node(model):
        left, right = halves()
        (regions,) = call(TOOLING, "ETN_DefineRegion", mask=left, conditioning=text)
        (regions,) = call(TOOLING, "ETN_DefineRegion", mask=right, conditioning=text, regions=regions)
        return call(TOOLING, "ETN_AttentionMask", model=model, regions=regions)[0]

    return node


COUPLES = {
    "ppm": pytest.param(
        ppm_couple,
        marks=pytest.mark.neighbour("Attention Couple", PPM, "one prompt in both regions, two subjects", "both"),
    ),
    "tooling": pytest.param(
        tooling_regions,
        marks=pytest.mark.neighbour("Regions", TOOLING, "one prompt in both regions, two subjects", "both"),
    ),
}


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("couple", COUPLES.values(), ids=COUPLES)
def test_attention_couples(pack, scene, couple, batch):
    """With the same prompt everywhere a couple changes nothing, and neither do we then."""
    given = {"size": (16, 32), "batch": batch}
    wanted = sample(applied(pack, scene.binding), *scene.prompts, **given)
    for model in both_orders(pack, scene, couple(scene.prompts[0])):
        assert error(sample(model, *scene.prompts, **given), wanted) < EQUAL


@pytest.mark.neighbour("NegPip", PPM, "a prompt with a negative weight, and two subjects", "before")
@pytest.mark.parametrize("separation", ["reference", "by word"])
def test_negpip(pack, scene, separation):
    """It sends keys and values in one context of double length, in which the entity words stand elsewhere."""
    model, clip = call(PPM, "CLIPNegPip", model=sdxl().model, clip=sdxl().clip)
    found = []
    for weight, own in ((1.0, clip), (-1.0, clip), (-1.0, sdxl().clip)):
        prompt = f"Ada and Bo on the beach, (rain:{weight})"
        positive, negative, binding = bound(pack, prompt, scene.subjects, "", mmdiff=scene.mmdiff, clip=own)
        one = applied(pack, binding, model if own is clip else sdxl().model, separation=separation)
        found.append(sample(one, positive, negative))
    assert all(one.isfinite().all() for one in found)
    assert error(found[1], found[0]) > DIFFERENT and error(found[1], found[2]) > DIFFERENT
    prompts = bound(pack, "Ada and Bo on the beach", scene.subjects, "", mmdiff=scene.mmdiff, clip=clip)
    plain = bound(pack, "Ada and Bo on the beach", scene.subjects, "", mmdiff=scene.mmdiff)
    wanted = sample(applied(pack, plain[2], separation=separation), *plain[:2])
    assert error(sample(applied(pack, prompts[2], model, separation=separation), *prompts[:2]), wanted) < EQUAL


def image_prompt(layers):
    """IPAdapter with random weights for a UNet's cross-attention layers, in its own order of them."""
    random = torch.Generator().manual_seed(0)
    cross = sorted((one for one in layers if one.cross), key=lambda one: not one.path.startswith("diffusion_model.in"))
    context = cross[0].attention.to_k.weight.shape[1]
    weights = {
        "image_proj": {
            "proj.weight": torch.randn(4 * context, 1024, generator=random) * 0.03,
            "proj.bias": torch.zeros(4 * context),
            "norm.weight": torch.ones(context),
            "norm.bias": torch.zeros(context),
        },
        "ip_adapter": {
            f"{2 * number + 1}.to_{name}_ip.weight": torch.randn(one.attention.to_k.weight.shape, generator=random) / 8
            for number, one in enumerate(cross)
            for name in "kv"
        },
    }
    seen, unseen = torch.randn(1, 1024, generator=random), torch.zeros(1, 1024)

    def node(model):
        settings = {"weight_type": "linear", "start_at": 0.0, "end_at": 1.0, "weight": 0.8}
        settings |= {"pos_embed": seen, "neg_embed": unseen}
        return call(IP_ADAPTER, "IPAdapterEmbeds", model=model, ipadapter=weights, **settings)[0]

    return node


@pytest.mark.neighbour("IPAdapter Embeds", IP_ADAPTER, "an image prompt and two subjects", "both")
def test_ip_adapter(pack, small):
    layers = module(pack, "nodes.host.base").attention_layers(sd15().model.model.diffusion_model)
    node = image_prompt(layers)
    before = sample(applied(pack, small.binding, node(sd15().model)), *small.prompts)
    after = sample(node(applied(pack, small.binding, sd15().model)), *small.prompts)
    assert error(after, before) < EQUAL
    assert error(before, sample(applied(pack, small.binding, sd15().model), *small.prompts)) > DIFFERENT
    theirs = node(applied(pack, small.binding, sd15().model, weight=0.0))
    assert error(before, sample(theirs, *small.prompts)) > DIFFERENT


@pytest.mark.neighbour("Ultimate SD Upscale", UPSCALE, "a subject in a region, in tiles cut by its own code", "both")
@pytest.mark.parametrize("corner", [(0, 0), (256, 0), (128, 96), (256, 128)])
def test_ultimate_sd_upscale_leaves_a_region_where_it_was_drawn(pack, scene, corner):
    """A picture of 256 x 128 is made twice as large in tiles of 256 x 128, each sampled as a picture of its own."""
    tools = module_of(UPSCALE, "usdu_utils.py")
    region = torch.zeros(1, 32, 64)
    region[:, 4:20, 10:40] = 1

    def prompts(region):
        placed = pack["MMDiffPlaceSubject"].execute(
            subject=scene.subjects[0], start_percent=0.0, end_percent=1.0, region=region
        )
        return bound(pack, "Ada on the beach", [placed.args[0]], mmdiff=scene.mmdiff, width=256, height=128)

    across, down = corner
    tile = (across, down, across + 256, down + 128)
    positive, negative, binding = prompts(region)
    cut = [tools.crop_cond(one, tile, (256, 128), (512, 256), (256, 128)) for one in (positive, negative)]
    own = prompts(region[:, down // 8 : down // 8 + 16, across // 8 : across // 8 + 32])
    noise = noises(size=(16, 32))
    found = predict(applied(pack, binding), *cut, noise=noise)
    for one, wanted in zip(found, predict(applied(pack, own[2]), *own[:2], noise=noise), strict=True):
        assert error(one, wanted) < EQUAL
