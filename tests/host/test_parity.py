"""The reference's four generations through the real nodes in the real host, step by step."""

import comfy.sample
import comfy.samplers
import pytest
import torch
from stack import GOLDEN, golden, recording
from torch import Tensor

BOUND = 2e-5


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found.float() - wanted.float()).abs().max() / wanted.float().abs().max())


@pytest.fixture(scope="module")
def core(pack):
    """The core as the pack itself imported it."""
    import sys

    return sys.modules[pack["MMDiffLoad"].__module__.rsplit(".", 2)[0] + ".mmdiff_core"]


def image(photo: Tensor) -> Tensor:
    """A recorded photo (3, H, W) of bytes as a ComfyUI IMAGE."""
    return (photo.float() / 255).movedim(0, -1).unsqueeze(0)


def bound_case(pack, core, mmdiff, name: str, case: dict, tensors: dict[str, Tensor]):
    stack = golden()
    words = [f"subject {n}" for n in range(case["slots"])]
    subjects = {}
    for n, word in enumerate(words):
        own = range(case["n_face"]) if case["slots"] == 1 else [n]
        face = core.Face(
            embeds=torch.stack([tensors[f"{name}.face_embeds"][i] for i in own]),
            crops=torch.cat([image(tensors[f"{name}.face_crop{i}"]) for i in own]),
        )
        encoded = pack["MMDiffEncodeSubject"].execute(
            mmdiff=mmdiff,
            clip_vision=stack.clip_vision,
            image=image(tensors[f"{name}.photo{n}"]),
            face=face,
            name=word,
            weight=1.0,
        )
        subjects[f"subject_{n}"] = encoded.args[0]
    sigmas, sampling = tensors[f"{name}.sigmas"], stack.model.get_model_object("model_sampling")
    start = 0.0
    if case["start"]:
        between = float((sigmas[case["start"] - 1] + sigmas[case["start"]]) / 2)
        start = 1 - float(sampling.timestep(torch.tensor(between))) / 999
    return (
        pack["MMDiffBindSubjects"]
        .execute(
            mmdiff=mmdiff,
            clip=stack.clip,
            prompt=case["prompt"],
            negative_prompt=recording("reference")[0]["negative"],
            subjects=subjects,
            width=0,
            height=0,
            start_percent=start,
            end_percent=1.0,
        )
        .args
    )


@pytest.mark.parametrize("variant", ["reference", "both_text_loras"])
@pytest.mark.parametrize("name", ["single", "pair", "mixing", "delayed"])
def test_every_step_of_a_generation(pack, core, variant, name, record_property):
    described, tensors = recording(variant)
    case, stack = described["cases"][name], golden()
    pack_model = __import__("sys").modules[pack["MMDiffLoad"].__module__.rsplit(".", 1)[0] + ".host.model"]
    mmdiff = pack_model.load_mmdiff(stack.checkpoint)
    if variant == "both_text_loras":
        mmdiff = mmdiff.with_spec(text_lora_encoders="both")
    positive, negative, binding = bound_case(pack, core, mmdiff, name, case, tensors)
    model = pack["MMDiffApplyAttention"].execute(model=stack.model, binding=binding, weight=case["scale"]).args[0]

    errors = {}
    tokens = torch.cat([subject.tokens for subject in binding.subjects])
    errors["subject tokens"] = error(tokens, tensors[f"{name}.step3.subject_tokens"][1])
    for step, place in ((0, 0), (3, -1)):
        recorded_context, recorded_pooled = (tensors[f"{name}.step{step}.{what}"] for what in ("context", "pooled"))
        for row, conditioning in enumerate((negative, positive)):
            context, extra = conditioning[place]
            errors[f"context {step}.{row}"] = error(context[0], recorded_context[row])
            errors[f"pooled {step}.{row}"] = error(extra["pooled_output"][0], recorded_pooled[row])

    steps = []

    def watch(apply_model, parameters):
        predicted = apply_model(parameters["input"], parameters["timestep"], **parameters["c"])
        noise = (parameters["input"] - predicted) / parameters["timestep"].view(-1, 1, 1, 1)
        order = [parameters["cond_or_uncond"].index(1), parameters["cond_or_uncond"].index(0)]
        steps.append(noise[order])
        return predicted

    model.set_model_unet_function_wrapper(watch)
    sigmas = tensors[f"{name}.sigmas"]
    latents = tensors[f"{name}.latents"]  # of deviation 1; the reference starts from latents x sqrt(1 + sigma^2)
    noise = latents * (1 + sigmas[0] ** 2) ** 0.5 / sigmas[0]
    sampler = comfy.samplers.KSAMPLER(comfy.samplers.k_diffusion_sampling.sample_euler)
    final = comfy.sample.sample_custom(
        model, noise, 5.0, sampler, sigmas, positive, negative, torch.zeros_like(latents), disable_pbar=True
    )
    for step, eps in enumerate(steps):
        errors[f"eps {step}"] = error(eps, tensors[f"{name}.step{step}.eps"])
    scale = stack.model.get_model_object("latent_format").scale_factor
    errors["final"] = error(final * scale, tensors[f"{name}.final"])
    worst = max(errors, key=errors.get)
    record_property("worst", f"{worst}: {errors[worst]:.1e}")
    print(variant, name, {key: f"{value:.1e}" for key, value in errors.items()})
    assert len(steps) == 4
    assert errors[worst] <= BOUND, errors


def test_the_two_recordings_differ():
    a, b = (recording(variant)[1]["single.final"] for variant in ("reference", "both_text_loras"))
    assert GOLDEN.exists() and error(a, b) > 100 * BOUND
