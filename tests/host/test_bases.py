"""Few-step and derived base models by name: their samplers, CFG 1, their predictions, and their layouts."""

from types import SimpleNamespace

import comfy.supported_models
import pytest
import torch
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
from graph import applied, bound, error, module, subject
from predictions import predict
from stack import sdxl_unet_config, unet_patcher
from tiny_sdxl import DESCRIBED, sdxl

import nodes

DIFFERENT = 1e-3
PROMPT = "a man<|subj|> and a woman"
FEW_STEPS = {
    "Turbo": ("euler_ancestral", "normal", 1.0, 1),
    "Turbo, several steps": ("dpmpp_sde", "karras", 1.0, 2),
    "Lightning": ("euler", "sgm_uniform", 1.0, 4),
    "LCM, Hyper": ("lcm", "sgm_uniform", 1.0, 4),
    "LCM, guided": ("lcm", "sgm_uniform", 1.8, 4),
    "NoobAI": ("euler", "normal", 5.0, 4),
}
SAMPLINGS = {"v": ("v_prediction", False), "v, zero terminal SNR": ("v_prediction", True), "LCM": ("lcm", False)}


@pytest.fixture(scope="module")
def scene(pack):
    """A prompt bound to either of two subjects."""
    with torch.inference_mode():
        subjects = [subject(pack, name, number) for number, name in enumerate(("Ada", "Bo"))]
        ada, bo = (bound(pack, PROMPT, [one]) for one in subjects)
    return SimpleNamespace(subjects=subjects, ada=ada, bo=bo)


def sampled(model, conditionings, sampler, scheduler, cfg, steps):
    positive, negative = conditionings[:2]
    latent = {"samples": torch.zeros(1, 4, 16, 16)}
    return nodes.common_ksampler(model, 1, steps, cfg, sampler, scheduler, positive, negative, latent)[0]["samples"]


def discrete(model, sampling: str, zsnr: bool):
    return ModelSamplingDiscrete().patch(model, sampling, zsnr)[0]


@pytest.mark.parametrize("separation", ["reference", "by word"])
@pytest.mark.parametrize("how", FEW_STEPS.values(), ids=FEW_STEPS)
def test_the_photo_acts_with_their_samplers(pack, scene, how, separation):
    """With the text of one subject, the photo of the other makes another picture, and no photo a third."""
    text = scene.ada
    models = [applied(pack, scene.ada[2], weight=w, separation=separation) for w in (0.8, 0.8, 0.0)]
    first, again, none = (sampled(model, text, *how) for model in models)
    assert first.isfinite().all() and torch.equal(first, again)
    assert error(none, first) > DIFFERENT
    assert error(sampled(applied(pack, scene.bo[2], separation=separation), scene.bo, *how), first) > DIFFERENT


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
def test_another_prediction_before_or_after_apply(pack, scene, sampling):
    """The host's sampling node on either side of ours draws the same picture, with the photo in it."""
    how = ("lcm" if sampling[0] == "lcm" else "euler", "normal", 2.0, 3)
    before = applied(pack, scene.ada[2], discrete(sdxl().model, *sampling))
    after = discrete(applied(pack, scene.ada[2]), *sampling)
    none = applied(pack, scene.ada[2], discrete(sdxl().model, *sampling), weight=0.0)
    found = sampled(before, scene.ada, *how)
    assert found.isfinite().all()
    assert torch.equal(sampled(after, scene.ada, *how), found)
    assert error(sampled(none, scene.ada, *how), found) > DIFFERENT


@pytest.mark.parametrize("sampling", SAMPLINGS.values(), ids=SAMPLINGS)
def test_a_window_is_a_part_of_their_sampling(pack, scene, sampling):
    """Half of sampling is at another noise level in each; the subject comes in there."""
    late = bound(pack, PROMPT, scene.subjects[:1], start_percent=0.5)
    model, bare = (applied(pack, late[2], discrete(sdxl().model, *sampling), weight=w) for w in (0.8, 0.0))
    for percent, acts in ((0.4, False), (0.6, True)):
        found, wanted = (predict(one, *late[:2], percent=percent)[0] for one in (model, bare))
        assert (error(found, wanted) > DIFFERENT) == acts


DISTILLED = {
    "SSD1B": comfy.supported_models.SSD1B,
    "Segmind_Vega": comfy.supported_models.Segmind_Vega,
    "KOALA_700M": comfy.supported_models.KOALA_700M,
}


def shallower(family):
    """A model of a distilled variant: SDXL's widths with a block fewer in every stack."""
    config = sdxl_unet_config(DESCRIBED)
    for name in ("transformer_depth", "transformer_depth_output"):
        config[name] = [max(depth - 1, min(depth, 1)) for depth in config[name]]
    return unet_patcher(family(config))


@pytest.mark.parametrize("name", DISTILLED)
def test_a_distilled_layout_is_refused(pack, scene, name):
    model = shallower(DISTILLED[name])
    said = rf"the model \({name}\) has .* \(SSD-1B, Vega and KOALA of SDXL\) .* Connect the model it was trained on"
    with pytest.raises(module(pack, "mmdiff_core").MMDiffError, match=said):
        applied(pack, scene.ada[2], model)


def test_a_checkpoint_of_a_distilled_layout_is_refused_by_sdxl(pack, scene):
    """Its layers would be counted past its last one, each in another's place."""
    core, binding = module(pack, "mmdiff_core"), scene.ada[2]
    layers = len(module(pack, "nodes.host.base").attention_layers(shallower(DISTILLED["SSD1B"]).model.diffusion_model))
    fewer = {
        key: value
        for key, value in binding.mmdiff.core.tensors().items()
        if not (key.startswith("unet.") and int(key.split(".")[1]) >= layers)
    }
    small = core.MMDiff(fewer, binding.mmdiff.core.spec, binding.mmdiff.core.source)
    hosted = SimpleNamespace(core=small, patcher=binding.mmdiff.patcher)
    with pytest.raises(core.MMDiffError, match=f"the checkpoint has weights for layer {layers - 1} as its last"):
        applied(pack, SimpleNamespace(mmdiff=hosted, subjects=binding.subjects, id="", nobody=()))
