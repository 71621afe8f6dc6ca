"""Which rows get which subjects, however conditionings are combined, cut, windowed and sampled."""

import logging
from types import SimpleNamespace

import comfy.samplers
import comfy.supported_models
import pytest
import torch
from comfy_extras.nodes_custom_sampler import Guider_Basic, Guider_DualCFG
from comfy_extras.nodes_model_downscale import PatchModelAddDownscale
from comfy_extras.nodes_perpneg import Guider_PerpNeg
from graph import applied, bound, error, mmdiff, module, run, running, sample, subject
from predictions import noises, predict, watched
from safetensors.torch import save_file
from tiny_sd15 import general_checkpoint, sd15
from tiny_sdxl import sdxl

import nodes

EQUAL = 1e-5
"""Rows computed in another batch: the order of float32 sums."""
DIFFERENT = 1e-3


@pytest.fixture(scope="module")
def scene(pack):
    """Two bindings of one subject each, on a model each and on one; the clean spec, so that negatives are plain."""
    clean = mmdiff(pack).with_spec(fuse_negative=False)
    with torch.inference_mode():
        ada, bo = subject(pack, "Ada", 0), subject(pack, "Bo", 1)
        a = bound(pack, "Ada on the beach", [ada], mmdiff=clean)
        b = bound(pack, "a portrait of Bo", [bo], mmdiff=clean)
        one = {name: applied(pack, found[2]) for name, found in (("a", a), ("b", b))}
        scene = SimpleNamespace(
            mmdiff=clean, ada=ada, bo=bo, a=a, b=b, one=one, both=applied(pack, b[2], one["a"]), negative=a[1]
        )
        scene.plain = applied(pack, a[2], weight=0.0)
        scene.alone = {name: predict(one[name], found[0], a[1], cfg=(1.0,))[0] for name, found in (("a", a), ("b", b))}
        scene.uncond = predict(scene.plain, a[0], a[1])[1]
        assert error(scene.alone["a"], predict(scene.plain, a[0], a[1])[0]) > DIFFERENT
        assert error(scene.alone["a"], scene.alone["b"]) > DIFFERENT
    return scene


def combined(*conditionings):
    return [row for conditioning in conditionings for row in conditioning]


def half(left: bool, size=(16, 16)):
    mask = torch.zeros(1, *size)
    mask[..., : size[1] // 2] = 1
    return mask if left else 1 - mask


def masked(conditioning, mask):
    return nodes.ConditioningSetMask().append(conditioning, mask, "default", 1.0)[0]


def in_area(conditioning, x, width):
    """Limited to columns of a latent 16 high, in latent pixels."""
    return nodes.ConditioningSetArea().append(conditioning, width * 8, 128, x * 8, 0, 1.0)[0]


# Regional prompts


@pytest.mark.neighbour(
    "Conditioning Set Mask, Combine", "Comfy-Org/ComfyUI", "two bindings, a half each", "not a node on the model"
)
def test_masked_prompts_keep_their_own_subjects(scene):
    positive = combined(masked(scene.a[0], half(True)), masked(scene.b[0], half(False)))
    cond, uncond = predict(scene.both, positive, scene.negative)
    assert error(cond[..., :8], scene.alone["a"][..., :8]) < EQUAL
    assert error(cond[..., 8:], scene.alone["b"][..., 8:]) < EQUAL
    assert error(uncond, scene.uncond) < EQUAL


@pytest.mark.neighbour(
    "Conditioning Set Area", "Comfy-Org/ComfyUI", "two bindings, a half each", "not a node on the model"
)
def test_prompts_in_areas_keep_their_own_subjects(scene):
    """The host fills in negative rows for the areas; they are copies of the positive rows and get no subject."""
    left, right = in_area(scene.a[0], 0, 8), in_area(scene.b[0], 8, 8)
    cond, uncond = predict(scene.both, combined(left, right), scene.negative)
    assert error(cond[..., :8], predict(scene.one["a"], left, scene.negative, cfg=(1.0,))[0][..., :8]) < EQUAL
    assert error(cond[..., 8:], predict(scene.one["b"], right, scene.negative, cfg=(1.0,))[0][..., 8:]) < EQUAL
    assert error(uncond, predict(scene.plain, combined(left, right), scene.negative)[1]) < EQUAL
    assert error(uncond, scene.uncond) > DIFFERENT  # the host did fill in rows


def test_a_filled_in_positive_row_gets_the_subject(scene):
    cond, uncond = predict(scene.one["a"], scene.a[0], in_area(scene.negative, 4, 8))
    wanted = predict(scene.one["a"], combined(scene.a[0], in_area(scene.a[0], 4, 8)), scene.negative, cfg=(1.0,))[0]
    assert error(cond, wanted) < EQUAL
    assert error(wanted, scene.alone["a"]) > DIFFERENT


def test_an_area_with_a_mask(scene):
    positive = combined(masked(in_area(scene.a[0], 0, 8), half(True)), masked(scene.b[0], half(False)))
    cond, uncond = predict(scene.both, positive, scene.negative)
    wanted = predict(scene.one["a"], in_area(scene.a[0], 0, 8), scene.negative, cfg=(1.0,))[0]
    assert error(cond[..., :8], wanted[..., :8]) < EQUAL
    assert error(cond[..., 8:], scene.alone["b"][..., 8:]) < EQUAL


def test_a_region_mask_covers_the_picture_and_not_the_area(pack, scene):
    """On a crop, a subject's region is that part of it which lies in the crop."""
    ada = (
        pack["MMDiffPlaceSubject"]
        .execute(subject=scene.ada, start_percent=0.0, end_percent=1.0, region=half(True))
        .args[0]
    )
    positive, negative, binding = bound(pack, "Ada on the beach", [ada], mmdiff=scene.mmdiff)
    model = applied(pack, binding)
    for x, wanted in ((0, scene.one["a"]), (8, scene.plain)):
        found = predict(model, in_area(positive, x, 8), negative, cfg=(1.0,))[0]
        assert error(found, predict(wanted, in_area(scene.a[0], x, 8), negative, cfg=(1.0,))[0]) < EQUAL


def test_fused_negatives_stay_with_their_own_binding(pack, scene):
    """With the released habit each binding has its own negative; no negative gets a subject's attention."""
    a = bound(pack, "Ada on the beach", [scene.ada])
    b = bound(pack, "a portrait of Bo", [scene.bo])
    both = applied(pack, b[2], applied(pack, a[2]))
    masks = half(True), half(False)
    positive, negative = (combined(*(masked(x[i], m) for x, m in zip((a, b), masks, strict=True))) for i in (0, 1))
    cond, uncond = predict(both, positive, negative)
    for columns, one in ((slice(0, 8), a), (slice(8, 16), b)):
        alone = predict(applied(pack, one[2]), one[0], one[1])
        assert error(cond[..., columns], alone[0][..., columns]) < EQUAL
        assert error(uncond[..., columns], predict(scene.plain, one[0], one[1])[1][..., columns]) < EQUAL


# Guiders


@pytest.mark.neighbour(
    "Perp-Neg Guider", "Comfy-Org/ComfyUI", "three prompts, one with a subject", "not a node on the model"
)
def test_perp_neg(scene):
    empty = scene.b[1]
    positive, negative, nothing = predict(
        scene.one["a"], scene.a[0], scene.negative, empty, guider=Guider_PerpNeg, cfg=(5.0, 1.0)
    )
    assert error(positive, scene.alone["a"]) < EQUAL
    assert error(negative, scene.uncond) < EQUAL
    assert error(nothing, scene.uncond) < EQUAL


@pytest.mark.neighbour("Dual CFG Guider", "Comfy-Org/ComfyUI", "two bindings and a negative", "not a node on the model")
@pytest.mark.parametrize("nested", [False, True])
def test_dual_cfg(scene, nested):
    """Two prompts with a binding each; the negative is the first row here."""
    negative, second, first = predict(
        scene.both, scene.a[0], scene.b[0], scene.negative, guider=Guider_DualCFG, cfg=(5.0, 3.0, nested)
    )
    assert error(first, scene.alone["a"]) < EQUAL
    assert error(second, scene.alone["b"]) < EQUAL
    assert error(negative, scene.uncond) < EQUAL


def test_without_a_negative_row(scene):
    latent = sample(scene.one["a"], scene.a[0], scene.negative, cfg=1.0)
    guider = Guider_Basic(scene.one["a"])
    guider.set_conds(scene.a[0])
    assert torch.equal(run(guider), latent)
    assert error(latent, sample(scene.plain, scene.a[0], scene.negative, cfg=1.0)) > DIFFERENT


def test_each_of_a_batch_is_as_alone(scene):
    noise = noises(3)
    cond, uncond = predict(scene.one["a"], scene.a[0], scene.negative, noise=noise)
    for n in range(3):
        alone = predict(scene.one["a"], scene.a[0], scene.negative, noise=noise[n : n + 1])
        assert error(cond[n : n + 1], alone[0]) < EQUAL
        assert error(uncond[n : n + 1], alone[1]) < EQUAL
    assert error(cond[:1], cond[1:2]) > DIFFERENT


# Lengths and places in the prompt

LONG = ", ".join(["low quality"] * 60)  # three chunks of 77


@pytest.mark.parametrize("separation", ["reference", "by word"])
@pytest.mark.parametrize("longer", ["negative", "positive"])
def test_prompts_of_unequal_length(pack, scene, longer, separation):
    """The host repeats both contexts to a common length when it batches them."""
    prompt = "Ada and Bo" + (f", {LONG}" if longer == "positive" else "")
    positive, negative, binding = bound(
        pack, prompt, [scene.ada, scene.bo], LONG if longer == "negative" else "", mmdiff=scene.mmdiff
    )
    lengths = [conditioning[0][0].shape[1] // 77 for conditioning in (positive, negative)]
    assert lengths == ([1, 3] if longer == "negative" else [3, 1])
    model = applied(pack, binding, separation=separation)
    cond, uncond = predict(model, positive, negative)
    assert error(cond, predict(model, positive, negative, cfg=(1.0,))[0]) < EQUAL
    assert error(uncond, predict(applied(pack, binding, weight=0.0), positive, negative)[1]) < EQUAL
    assert error(cond, predict(applied(pack, binding, weight=0.0), positive, negative)[0]) > DIFFERENT


def test_a_subject_in_the_second_chunk(pack, scene):
    """75 words fill the first chunk, so the entity word is the third of the second."""
    prompt = f"{'dog ' * 77}cat<|subj|> on the beach"
    node = pack["MMDiffBindSubjects"]
    output = node.execute(
        mmdiff=scene.mmdiff,
        clip=sdxl().clip,
        prompt=prompt,
        negative_prompt="",
        subjects={"subject_0": scene.ada},
        width=0,
        height=0,
        start_percent=0.5,
        end_percent=1.0,
    )
    ((plain, _), (fused, _)), _, binding = output.args
    assert binding.words == ((77 + 3,),)
    assert "cat -> token 3 of chunk 2 of both encoders, subject 1 'Ada'" in str(output.ui.as_dict())
    for width in (slice(0, 64), slice(64, 256)):  # CLIP-L, CLIP-G
        changed = (fused != plain)[0, :, width].any(dim=-1).nonzero().flatten().tolist()
        assert changed == list(range(77 + 3, 2 * 77))


def test_a_weighted_entity_word(pack, scene):
    def context(prompt):
        return bound(pack, prompt, [scene.ada], mmdiff=scene.mmdiff)[0][0][0]

    text = module(pack, "nodes.host.text")
    clip = text.patch_text_encoders(sdxl().clip, scene.mmdiff.core)
    empty = clip.encode_from_tokens_scheduled(clip.tokenize(""))[0][0]
    plain = context("a photo of a man<|subj|> on the beach")
    wanted = plain.clone()
    wanted[:, 5] = empty[:, 5] + 1.3 * (plain[:, 5] - empty[:, 5])  # start, a, photo, of, a, man
    inside = context("a photo of a (man<|subj|>:1.3) on the beach")
    behind = context("a photo of a (man:1.3)<|subj|> on the beach")
    assert torch.equal(inside, behind)
    assert error(inside, wanted) < EQUAL
    assert error(inside, plain) > DIFFERENT


def test_an_embedding_as_entity_word(pack, scene, tmp_path, monkeypatch):
    """The last of a textual inversion's vectors is fused, as it stands in the file."""
    generator = torch.Generator().manual_seed(0)
    vectors = {
        name: torch.randn(2, width, generator=generator) / 8 for name, width in (("clip_l", 64), ("clip_g", 192))
    }
    save_file(vectors, tmp_path / "someone.safetensors")
    tokenizer = sdxl().clip.tokenizer
    for name, vector in vectors.items():
        monkeypatch.setattr(getattr(tokenizer, name), "embedding_directory", str(tmp_path))
        monkeypatch.setattr(getattr(tokenizer, name), "embedding_size", vector.shape[1])
    heads, fused = scene.mmdiff.core.heads, []
    whole = heads.fuse_token
    monkeypatch.setattr(heads, "fuse_token", lambda *args: fused.append(args) or whole(*args))
    _, _, binding = bound(pack, "a photo of embedding:someone<|subj|> at home", [scene.ada], mmdiff=scene.mmdiff)
    assert binding.words == ((5,),)  # start, a, photo, of, first vector, second vector
    assert sorted(encoder for encoder, _, _ in fused) == ["g", "l"]
    assert all(torch.equal(token, vectors[f"clip_{encoder}"][1]) for encoder, token, _ in fused)


# Conditionings that other nodes copied or rebuilt

EDITS = {
    "average": lambda one: nodes.ConditioningAverage().addWeighted(one, one, 0.5)[0],
    "concat": lambda one: nodes.ConditioningConcat().concat(one, one)[0],
    "range": lambda one: nodes.ConditioningSetTimestepRange().set_range(one, 0.0, 1.0)[0],
    "mask": lambda one: masked(one, torch.ones(1, 16, 16)),
    "strength": lambda one: nodes.ConditioningSetAreaStrength().append(one, 1.0)[0],
}


def warnings_of_ours(caplog):
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("MM-Diff")]


@pytest.mark.neighbour(
    "Conditioning Average, Concat, Set Timestep Range, Set Area Strength",
    "Comfy-Org/ComfyUI",
    "each after the binding",
    "not a node on the model",
)
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_copied_conditioning_keeps_its_binding(scene, caplog, edit):
    """None of these edits changes the text, so the prediction is that of the conditioning itself."""
    assert error(predict(scene.one["a"], edit(scene.a[0]), scene.negative)[0], scene.alone["a"]) < EQUAL
    assert not warnings_of_ours(caplog)


def rebuilt(conditioning):
    """What a node makes that copies only what it knows."""
    return [[context, {"pooled_output": extra["pooled_output"]}] for context, extra in conditioning]


def test_a_rebuilt_conditioning_gets_the_subject_with_one_warning(scene, caplog):
    with caplog.at_level(logging.WARNING):
        cond, uncond = predict(scene.one["a"], rebuilt(scene.a[0]), rebuilt(scene.negative))
    assert error(cond, scene.alone["a"]) < EQUAL
    assert error(uncond, scene.uncond) < EQUAL
    (warning,) = warnings_of_ours(caplog)
    assert "'Ada'" in warning and "every positive prompt" in warning


def test_one_warning_in_a_run_of_many_steps(scene, caplog):
    sample(scene.one["a"], rebuilt(scene.a[0]), scene.negative, steps=4)
    assert len(warnings_of_ours(caplog)) == 1


def test_no_warning_where_the_conditioning_is_ours(scene, caplog):
    sample(scene.one["a"], scene.a[0], scene.negative)
    assert not warnings_of_ours(caplog)


def zeroed(conditioning):
    return nodes.ConditioningZeroOut().zero_out(conditioning)[0]


@pytest.mark.neighbour(
    "Conditioning Zero Out", "Comfy-Org/ComfyUI", "the positive, zeroed, as the negative", "not a node on the model"
)
def test_a_prompt_zeroed_out_is_no_prompt(scene, caplog):
    """As the negative, which many graphs make so, it must not take away what the positive gives."""
    found = predict(scene.one["a"], scene.a[0], zeroed(scene.a[0]))
    wanted = predict(scene.one["a"], scene.a[0], zeroed(scene.negative))
    assert torch.equal(found[0], wanted[0]) and torch.equal(found[1], wanted[1])
    assert not warnings_of_ours(caplog)


def test_a_positive_prompt_zeroed_out_gets_no_subject_and_says_so(scene, caplog):
    found = predict(scene.one["a"], zeroed(scene.a[0]), scene.negative)[0]
    assert error(found, predict(scene.plain, zeroed(scene.a[0]), scene.negative)[0]) < EQUAL
    assert ["zeroed out" in warning for warning in warnings_of_ours(caplog)] == [True, True]  # two runs


def test_two_bindings_on_a_model_and_a_prompt_of_one(scene, caplog):
    """A conditioning draws its own; the other binding is for another pass."""
    for name in "ab":
        prompts = getattr(scene, name)[0], scene.negative
        assert error(predict(scene.both, *prompts)[0], scene.alone[name]) < EQUAL
    assert not warnings_of_ours(caplog)


def test_an_unbound_prompt_beside_a_bound_one_gets_no_subject(scene, caplog):
    positive = combined(masked(scene.a[0], half(True)), masked(rebuilt(scene.a[0]), half(False)))
    found = predict(scene.one["a"], positive, scene.negative)[0]
    assert error(found[..., :8], scene.alone["a"][..., :8]) < EQUAL
    assert error(found[..., 8:], predict(scene.plain, scene.a[0], scene.negative)[0][..., 8:]) < EQUAL
    assert not warnings_of_ours(caplog)


@pytest.mark.neighbour(
    "Conditioning Set Timestep Range",
    "Comfy-Org/ComfyUI",
    "a binding that begins later, timed anew",
    "not a node on the model",
)
def test_a_bound_prompt_timed_anew(pack, scene):
    """Of a prompt in stretches each is kept to its own; together they are limited as any other prompt is."""
    window = {"mmdiff": scene.mmdiff, "start_percent": 0.4, "end_percent": 1.0}
    positive, negative, binding = bound(pack, "Ada on the beach", [scene.ada], **window)
    model = applied(pack, binding)
    timed = nodes.ConditioningSetTimestepRange().set_range(positive, 0.2, 0.8)[0]
    for percent in (0.3, 0.6):
        wanted = predict(model, positive, negative, percent=percent)[0]
        assert torch.equal(predict(model, timed, negative, percent=percent)[0], wanted)
    for percent in (0.1, 0.9):
        assert not predict(model, timed, negative, percent=percent)[0].any()


def test_by_word_where_the_words_were_cut_off(pack, scene):
    """A node that keeps the first chunk of a prompt, with the entity word in the second: as in the reference."""
    positive, negative, binding = bound(pack, "dog " * 77 + "Ada", [scene.ada], mmdiff=scene.mmdiff)
    cut = [[context[:, :77], extra] for context, extra in positive]
    found, wanted = (
        predict(applied(pack, binding, separation=choice), cut, negative)[0] for choice in ("by word", "reference")
    )
    assert torch.equal(found, wanted)


# Prompts whose subjects are not on the model


def test_a_bound_prompt_on_a_model_without_apply_is_said_once_in_a_run(scene, caplog):
    for _ in range(2):
        with running():
            sample(sdxl().model, *scene.a[:2], steps=3)
    for warning in (found := warnings_of_ours(caplog)):
        assert "'Ada'" in warning and "no Apply MM-Diff Attention" in warning
    assert len(found) == 2


def test_what_says_so_changes_nothing_else(scene):
    """The picture of a model without Apply, and of one with it."""
    silent = [
        [[context, {key: value for key, value in extra.items() if key != "model_conds"}] for context, extra in one]
        for one in scene.a[:2]
    ]
    assert silent[0][0][1].keys() != scene.a[0][0][1].keys()
    for model in (sdxl().model, scene.one["a"]):
        for found, wanted in zip(predict(model, *scene.a[:2]), predict(model, *silent), strict=True):
            assert error(found, wanted) < EQUAL


def test_a_prompt_of_another_binding_beside_one_of_the_models_is_said(pack, scene, caplog):
    positive = combined(masked(scene.a[0], half(True)), masked(scene.b[0], half(False)))
    cond = predict(scene.one["a"], positive, scene.negative)[0]
    assert error(cond[..., :8], scene.alone["a"][..., :8]) < EQUAL
    silent = applied(pack, scene.b[2], weight=0.0)
    assert error(cond[..., 8:], predict(silent, scene.b[0], scene.negative)[0][..., 8:]) < EQUAL
    (warning,) = warnings_of_ours(caplog)
    assert "'Bo'" in warning and "not on the model" in warning


# Nodes that run again


def test_the_same_is_bound_again_as_the_same(pack, scene, caplog):
    """A host cache may drop Multi-Subject Binding and keep Apply; the size told to SDXL is not the binding's."""

    def again(prompt="Ada on the beach", subjects=None, **inputs):
        return bound(pack, prompt, subjects or [subject(pack, "Ada", 0)], mmdiff=scene.mmdiff, **inputs)

    positive, negative, binding = again()
    assert binding.id == scene.a[2].id == again(width=512, height=512)[2].id
    assert torch.equal(predict(scene.one["a"], positive, negative)[0], predict(scene.one["a"], *scene.a[:2])[0])
    assert not warnings_of_ours(caplog)
    others = [
        again("Ada at home"),
        again(subjects=[subject(pack, "Ada", 1)]),
        again(subjects=[subject(pack, "Ada", 0, weight=0.9)]),
        again(
            subjects=pack["MMDiffPlaceSubject"]
            .execute(subject=scene.ada, start_percent=0.0, end_percent=1.0, region=half(True))
            .args
        ),
        again(start_percent=0.1),
        bound(pack, "Ada on the beach", [scene.ada]),
    ]
    assert len({binding.id, *(other[2].id for other in others)}) == 1 + len(others)


def test_by_word_does_not_look_for_words_in_a_rebuilt_prompt(pack, scene):
    """Its words may stand elsewhere there, so the subjects share one attention as in the reference."""
    positive, negative, binding = bound(pack, "Ada and Bo", [scene.ada, scene.bo], mmdiff=scene.mmdiff)
    by_word, reference = (applied(pack, binding, separation=choice) for choice in ("by word", "reference"))
    wanted = predict(reference, positive, negative)[0]
    assert error(predict(by_word, rebuilt(positive), negative)[0], wanted) < EQUAL
    assert error(predict(by_word, positive, negative)[0], wanted) > DIFFERENT


# Sizes


@pytest.mark.parametrize("size", [(45, 80), (80, 45), (17, 9)])
def test_odd_sizes(pack, scene, size):
    """A region of ones is no region, whatever the blocks' sizes round to; one of zeros is no subject."""
    noise = noises(size=size)
    positive, negative, _ = scene.a
    wanted = predict(scene.one["a"], positive, negative, noise=noise)[0]
    nothing = predict(scene.plain, positive, negative, noise=noise)[0]
    assert error(wanted, nothing) > DIFFERENT
    for value, same in ((torch.ones, wanted), (torch.zeros, nothing)):
        placed = (
            pack["MMDiffPlaceSubject"]
            .execute(subject=scene.ada, start_percent=0.0, end_percent=1.0, region=value(1, 360, 640))
            .args[0]
        )
        found = bound(pack, "Ada on the beach", [placed], mmdiff=scene.mmdiff)
        assert error(predict(applied(pack, found[2]), *found[:2], noise=noise)[0], same) < EQUAL


@pytest.mark.neighbour("Kohya Deep Shrink", "Comfy-Org/ComfyUI", "with a region", "after")
@pytest.mark.parametrize("size", [(16, 16), (45, 80)])
def test_deep_shrink_with_a_region(pack, scene, size):
    """The blocks' own sizes count, not the latent's."""

    def shrunk(model):
        return PatchModelAddDownscale.execute(model, 3, 2.0, 0.0, 1.0, True, "bicubic", "bicubic")[0]

    noise = noises(size=size)
    wanted = predict(shrunk(scene.one["a"]), *scene.a[:2], noise=noise)[0]
    assert error(wanted, predict(scene.one["a"], *scene.a[:2], noise=noise)[0]) > DIFFERENT
    for value, model in ((torch.ones, scene.one["a"]), (torch.zeros, scene.plain)):
        placed = (
            pack["MMDiffPlaceSubject"]
            .execute(subject=scene.ada, start_percent=0.0, end_percent=1.0, region=value(1, 64, 64))
            .args[0]
        )
        positive, negative, binding = bound(pack, "Ada on the beach", [placed], mmdiff=scene.mmdiff)
        found = predict(shrunk(applied(pack, binding)), positive, negative, noise=noise)[0]
        assert error(found, predict(shrunk(model), *scene.a[:2], noise=noise)[0]) < EQUAL


# Samplers and windows


@pytest.mark.neighbour(
    "KSampler (Advanced)", "Comfy-Org/ComfyUI", "two parts against one run", "not a node on the model"
)
def test_advanced_sampling_in_two_parts(scene):
    """KSampler (Advanced) from step 0 to 2 with leftover noise and from 2 on is the whole run."""
    latent = {"samples": torch.zeros(1, 4, 16, 16)}

    def advanced(latent, noise, start, end, leftover):
        node = nodes.KSamplerAdvanced()
        settings = (scene.one["a"], noise, 7, 4, 5.0, "euler", "normal", *scene.a[:2], latent, start, end, leftover)
        return node.sample(*settings)[0]

    whole = advanced(latent, "enable", 0, 4, "disable")["samples"]
    parts = advanced(advanced(latent, "enable", 0, 2, "enable"), "disable", 2, 4, "disable")["samples"]
    assert error(parts, whole) < EQUAL


WINDOW = (0.3, 0.7)
OUTSIDE, INSIDE = (0.1, 0.9), (0.35, 0.65)


@pytest.mark.parametrize("fuse_negative", [False, True])
def test_a_bindings_window(pack, scene, fuse_negative):
    chosen = scene.mmdiff.with_spec(fuse_negative=fuse_negative)

    def predictions(start, end, percent, weight=0.8):
        positive, negative, binding = bound(
            pack, "Ada on the beach", [scene.ada], mmdiff=chosen, start_percent=start, end_percent=end
        )
        return predict(applied(pack, binding, weight=weight), positive, negative, percent=percent)

    for percent in INSIDE:
        for found, wanted in zip(predictions(*WINDOW, percent), predictions(0.0, 1.0, percent), strict=True):
            assert error(found, wanted) < EQUAL
    clip = module(pack, "nodes.host.text").patch_text_encoders(sdxl().clip, chosen.core)
    plain = [clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in ("Ada on the beach", "lowres")]
    for percent in OUTSIDE:
        wanted = predict(scene.plain, *plain, percent=percent)
        for found, one in zip(predictions(*WINDOW, percent), wanted, strict=True):
            assert error(found, one) < EQUAL
        assert error(predictions(0.0, 1.0, percent)[0], wanted[0]) > DIFFERENT


@pytest.mark.parametrize("separation", ["reference", "by word"])
def test_a_subjects_own_window(pack, scene, separation):
    """Outside of Bo's window the picture is that of Ada alone, inside that of both."""
    placed = pack["MMDiffPlaceSubject"].execute(scene.bo, *WINDOW).args[0]

    def predictions(bo, percent):
        positive, negative, binding = bound(pack, "Ada and Bo", [scene.ada, bo], mmdiff=scene.mmdiff)
        return predict(applied(pack, binding, separation=separation), positive, negative, percent=percent)

    alone = bound(pack, "Ada<|subj|> and Bo", [scene.ada], mmdiff=scene.mmdiff)
    for percent in INSIDE:
        assert error(predictions(placed, percent)[0], predictions(scene.bo, percent)[0]) < EQUAL
    for percent in OUTSIDE:
        wanted = predict(applied(pack, alone[2], separation=separation), *alone[:2], percent=percent)
        assert error(predictions(placed, percent)[0], wanted[0]) < EQUAL
        assert error(predictions(scene.bo, percent)[0], wanted[0]) > DIFFERENT


def test_a_sampler_with_two_calls_a_step(pack, scene):
    """Each call is judged by its own noise level: heun's second call of a step may be outside of the window."""
    positive, negative, binding = bound(
        pack, "Ada on the beach", [scene.ada], mmdiff=scene.mmdiff, start_percent=WINDOW[0], end_percent=WINDOW[1]
    )
    model, calls = watched(applied(pack, binding))
    recorder = module(pack, "nodes.host.attention").Run
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(5.0)
    sampling = model.get_model_object("model_sampling")
    sigmas = torch.tensor([sampling.percent_to_sigma(percent) for percent in (0.1, 0.4, 0.6, 0.9)] + [0.0])
    levels = []
    active = recorder.active

    def watch(self, number, sigma):
        found = active(self, number, sigma)
        levels.append((sigma, found))
        return found

    recorder.active = watch
    try:
        sampler = comfy.samplers.KSAMPLER(comfy.samplers.k_diffusion_sampling.sample_heun)
        guider.sample(noises(), torch.zeros(1, 4, 16, 16), sampler, sigmas, disable_pbar=True, seed=0)
    finally:
        recorder.active = active
    order = [0, 1, 1, 2, 2, 3, 3]
    assert [sigma for sigma, _ in calls] == pytest.approx([float(sigmas[n]) for n in order])
    inside = {1, 2}
    assert [found for _, found in levels] == [(0,) if n in inside else () for n in order]


# SD1.5, and bases and encoders that are not the checkpoint's


@pytest.fixture(scope="module")
def small(pack, tmp_path_factory):
    """The SD1.5-shaped graph: a general checkpoint without a face, two subjects."""
    with torch.inference_mode():
        general = general_checkpoint(pack, tmp_path_factory.mktemp("sd15"))
        subjects = [subject(pack, name, number, checkpoint=general) for number, name in enumerate(("Ada", "Bo"))]
        positive, negative, binding = bound(
            pack, "Ada and Bo on the beach", subjects, "", mmdiff=general, clip=sd15().clip
        )
    return SimpleNamespace(mmdiff=general, subjects=subjects, prompts=(positive, negative), binding=binding)


@pytest.mark.parametrize("separation", ["reference", "by word"])
def test_sd15_end_to_end(pack, small, separation):
    assert small.mmdiff.core.base == "sd15" and small.subjects[0].entity.keys() == {"l"}
    assert small.binding.words == ((1,), (3,))
    model = applied(pack, small.binding, sd15().model, separation=separation)
    layers = module(pack, "nodes.host.base").attention_layers(model.model.diffusion_model)
    assert len(layers) == 32 and len(model.patches) == 4 * 32
    cond, uncond = predict(model, *small.prompts, noise=noises(size=(24, 32)))
    plain = applied(pack, small.binding, sd15().model, weight=0.0)
    without = predict(plain, *small.prompts, noise=noises(size=(24, 32)))
    assert error(cond, without[0]) > DIFFERENT
    assert error(uncond, without[1]) < EQUAL
    assert sample(model, *small.prompts).isfinite().all()


def test_each_checkpoint_refuses_the_others_base(pack, scene, small):
    refused = module(pack, "mmdiff_core").MMDiffError
    with pytest.raises(refused, match="the model is SD15, the checkpoint was trained for SDXL"):
        applied(pack, scene.a[2], sd15().model)
    with pytest.raises(refused, match="the model is TinySDXL, the checkpoint was trained for Stable Diffusion 1.5"):
        applied(pack, small.binding, sdxl().model)


@pytest.mark.parametrize("name", ["Flux", "SD3", "SD20", "SDXLRefiner", "Stable_Cascade_C", "LTXV"])
def test_other_bases_are_refused_by_name(pack, scene, name):
    refused = module(pack, "mmdiff_core").MMDiffError
    config = getattr(comfy.supported_models, name).__new__(getattr(comfy.supported_models, name))
    model = SimpleNamespace(model=SimpleNamespace(model_config=config))
    with pytest.raises(refused, match=f"the model is {name}, the checkpoint was trained for SDXL"):
        applied(pack, scene.a[2], model)


def test_each_checkpoint_refuses_the_others_text_encoder(pack, scene, small):
    refused = module(pack, "mmdiff_core").MMDiffError
    with pytest.raises(refused, match="holds SD1ClipModel, the checkpoint was trained with CLIP-L and CLIP-G"):
        bound(pack, "Ada", [scene.ada], clip=sd15().clip)
    with pytest.raises(refused, match="holds SDXLClipModel, the checkpoint was trained with CLIP-L"):
        bound(pack, "Ada", small.subjects[:1], mmdiff=small.mmdiff, clip=sdxl().clip)


def test_weights_that_do_not_fit_the_base_are_refused(pack, small):
    """A layer too many, and a weight of another width."""
    core, refused = module(pack, "mmdiff_core"), module(pack, "mmdiff_core").MMDiffError
    tensors = small.mmdiff.core.tensors()

    def refit(change):
        changed = core.MMDiff(change(dict(tensors)), small.mmdiff.core.spec, small.mmdiff.core.source)
        hosted = SimpleNamespace(core=changed, patcher=small.mmdiff.patcher)
        binding = SimpleNamespace(mmdiff=hosted, subjects=small.binding.subjects, id="")
        return applied(pack, binding, sd15().model)

    def one_more(found):
        found.update({key.replace("unet.31.", "unet.32."): value for key, value in found.items() if ".31." in key})
        return found

    def wider(found):
        found["unet.0.to_q_lora.up.weight"] = torch.zeros(40, 4)
        return found

    with pytest.raises(refused, match="has 32 attention layers, the checkpoint has weights for layer 32"):
        refit(one_more)
    with pytest.raises(refused, match="is 40 x 32, the UNet's weight is 32 x 32"):
        refit(wider)


# The released habit of fusing the negative too


def independent_encoding(clip, tokens, heads, subject, place):
    """(context, pooled) of one chunk in both encoders, computed from the weights alone as transformers does.

    place: index of the token that is fused. Context is the last but one layer; pooled is the projected, normed last
    layer of CLIP-G at the first end token of the original ids.
    """
    contexts = []
    for encoder in ("l", "g"):
        model = getattr(clip.cond_stage_model, f"clip_{encoder}").transformer
        text, ids = model.text_model, torch.tensor([token for token, _ in tokens[encoder][0]])
        x = text.embeddings.token_embedding.weight[ids].clone()
        x[place] = heads.fuse_token(encoder, x[place], subject.entity[encoder])
        x = (x + text.embeddings.position_embedding.weight)[None]
        mask = torch.full((77, 77), float("-inf")).triu(1)
        states = []
        for layer in text.encoder.layers:
            attention = layer.self_attn
            y = layer.layer_norm1(x)
            q, k, v = (
                getattr(attention, f"{part}_proj")(y).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
                for part in "qkv"
            )
            scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + mask
            x = x + attention.out_proj((scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2))
            x = x + layer.mlp(layer.layer_norm2(x))
            states.append(x)
        contexts.append(states[-2])
        end = ids.tolist().index(49407)
        pooled = model.text_projection(text.final_layer_norm(states[-1])[:, end])
    return torch.cat(contexts, dim=-1), pooled


@pytest.mark.parametrize(
    ("negative", "end"),
    [("", 1), ("bad", 2), ("bad hands", 3), ("bad hands, low", 5), ("bad hands, low quality, dull", 8)],
)
@pytest.mark.parametrize(("prompt", "index"), [("a man<|subj|>", 2), ("a photo of a man<|subj|>", 5)])
def test_a_fused_negative_pools_at_its_end_token(pack, scene, prompt, index, negative, end):
    """Before, at and behind the end token of the negative; the host alone would pool at the wrong token."""
    chosen = scene.mmdiff.with_spec(fuse_negative=True)
    _, ((context, extra),), binding = bound(pack, prompt, [scene.ada], negative, mmdiff=chosen)
    assert binding.words == ((index,),)
    clip = module(pack, "nodes.host.text").patch_text_encoders(sdxl().clip, chosen.core)
    tokens = clip.tokenize(negative)
    assert [token for token, _ in tokens["g"][0]].index(49407) == end
    clip.encode_from_tokens(tokens)  # so that the weights hold the LoRA
    wanted = independent_encoding(clip, tokens, chosen.core.heads, scene.ada, index)
    assert error(context, wanted[0]) < EQUAL
    assert error(extra["pooled_output"], wanted[1]) < EQUAL
