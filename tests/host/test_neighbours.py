"""Living with other nodes on the same model: replacements, patches, couples, guidance, caches, compilers."""

import copy
from types import SimpleNamespace

import pytest
import torch
from comfy_extras.nodes_easycache import EasyCacheNode
from comfy_extras.nodes_freelunch import FreeU, FreeU_V2
from comfy_extras.nodes_hypertile import HyperTile
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from comfy_extras.nodes_sag import SelfAttentionGuidance
from comfy_extras.nodes_tomesd import TomePatchModel
from comfy_extras.nodes_torch_compile import TorchCompileModel
from graph import applied, bound, error, module, sample, subject
from neighbours import AddingReplace, TermRecorder, adding_node, attention, couple, halved, regional, replaced
from tiny_sdxl import sdxl

EQUAL = 1e-5
"""Two ways to the same formula, in another order of float32 sums."""
DIFFERENT = 1e-3


@pytest.fixture(scope="module")
def scene(pack):
    """Two subjects in one prompt, the cross-attention layers, and the latents of our node alone."""
    with torch.inference_mode():
        subjects = [subject(pack, "Ada", 0), subject(pack, "Bo", 1)]
        positive, negative, binding = bound(pack, "Ada and Bo on the beach", subjects)
        layers = module(pack, "nodes.host.base").attention_layers(sdxl().model.model.diffusion_model)
        alone = sample(applied(pack, binding), positive, negative)
    return SimpleNamespace(
        subjects=subjects,
        prompts=(positive, negative),
        binding=binding,
        layers=[layer for layer in layers if layer.cross],
        alone=alone,
    )


def both_orders(pack, scene, node, **sampling):
    """Latents with a node before ours and after ours."""
    before = sample(applied(pack, scene.binding, node(sdxl().model)), *scene.prompts, **sampling)
    after = sample(node(applied(pack, scene.binding)), *scene.prompts, **sampling)
    return before, after


def slots(scene, length):
    return {layer.slot[:length] for layer in scene.layers}


def test_every_slot_gets_a_term_in_the_positive_rows_only(pack, scene):
    recorder = TermRecorder(scene.layers)
    sample(recorder.watch(applied(pack, scene.binding)), *scene.prompts, steps=1)
    assert {slot for slot, _, _ in recorder.records} == slots(scene, 3)
    assert any(slot[0] == "middle" for slot, _, _ in recorder.records)
    for slot, order, added in recorder.records:
        negative, positive = added[order.index(1)], added[order.index(0)]
        assert positive.abs().max() > 1e-3, slot
        assert negative.abs().max() < 1e-5, slot


def test_the_middle_block_changes_the_picture(pack, scene, monkeypatch):
    run = module(pack, "nodes.host.attention").Run
    every = run.cross_layers
    monkeypatch.setattr(run, "cross_layers", lambda self, unet: [x for x in every(self, unet) if x.slot[0] != "middle"])
    without = sample(applied(pack, scene.binding), *scene.prompts)
    assert error(without, scene.alone) > DIFFERENT


@pytest.mark.parametrize("length", [3, 2])
@pytest.mark.parametrize("kind", ["adding", "function"])
def test_a_replacement_before_or_after(pack, scene, kind, length):
    def node(model):
        if kind == "adding":
            return adding_node(model, slots(scene, length))
        return replaced(model, slots(scene, length), halved)

    before, after = both_orders(pack, scene, node)
    assert error(before, after) < EQUAL
    theirs_alone = sample(node(applied(pack, scene.binding, weight=0.0)), *scene.prompts)
    assert error(before, scene.alone) > DIFFERENT
    assert error(before, theirs_alone) > DIFFERENT


def test_a_replacement_that_is_the_hosts_attention_changes_nothing(pack, scene):
    for latents in both_orders(pack, scene, lambda model: replaced(model, slots(scene, 3), attention)):
        assert error(latents, scene.alone) < EQUAL


def test_a_whole_layers_slot_is_hidden_by_a_blocks_own(pack, scene):
    def node(model):
        return replaced(adding_node(model, slots(scene, 2)), slots(scene, 3), halved)

    wanted = sample(replaced(applied(pack, scene.binding), slots(scene, 3), halved), *scene.prompts)
    for latents in both_orders(pack, scene, node):
        assert error(latents, wanted) < EQUAL


def test_foreign_objects_are_left_as_they_were(pack, scene):
    theirs = adding_node(sdxl().model, slots(scene, 3))
    cross = theirs.model_options["transformer_options"]["patches_replace"]["attn2"]
    objects, contents = dict(cross), {key: copy.copy(vars(one)) for key, one in cross.items()}
    lists = {key: (list(one.callback), list(one.kwargs)) for key, one in cross.items()}
    ours = applied(pack, scene.binding, theirs)
    sample(ours, *scene.prompts)
    for model in (theirs, ours):
        found = model.model_options["transformer_options"]["patches_replace"]["attn2"]
        assert found.keys() == objects.keys()
        assert all(found[key] is objects[key] for key in objects)
    for key, one in objects.items():
        assert type(one) is AddingReplace and vars(one) == contents[key]
        assert (one.callback, one.kwargs) == lists[key]


def test_an_occupants_output_is_not_written_to(pack, scene):
    kept = []

    def theirs(q, k, v, extra_options):
        out = attention(q, k, v, extra_options)
        kept.append((out, out.clone()))
        return out

    sample(replaced(applied(pack, scene.binding), slots(scene, 3), theirs), *scene.prompts)
    assert kept and all(torch.equal(out, was) for out, was in kept)


def test_a_downstream_adding_node_may_run_again(pack, scene):
    cached = applied(pack, scene.binding)
    first = sample(adding_node(cached, slots(scene, 3)), *scene.prompts)
    second = sample(adding_node(cached, slots(scene, 3)), *scene.prompts)
    assert error(first, second) < EQUAL
    assert error(first, scene.alone) > DIFFERENT
    assert error(sample(cached, *scene.prompts), scene.alone) < EQUAL


def test_clones_are_independent(pack, scene):
    first = applied(pack, scene.binding)
    positive, negative, binding = bound(pack, "Cleo on the beach", [subject(pack, "Cleo", 2)])
    second = applied(pack, binding, first.clone())
    assert error(sample(second, positive, negative), sample(applied(pack, binding), positive, negative)) < EQUAL
    both = sample(first, *(one + other for one, other in zip(scene.prompts, (positive, negative), strict=True)))
    assert error(both, sample(second, scene.prompts[0] + positive, scene.prompts[1] + negative)) > DIFFERENT
    assert error(sample(first, *scene.prompts), scene.alone) < EQUAL


def regions_of(scene, count, width=16):
    """Soft masks of `count` regions side by side that sum to 1."""
    masks = torch.rand(count, width, width, generator=torch.Generator().manual_seed(count)) ** 4
    return masks / masks.sum(dim=0, keepdim=True)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("style", ["tells", "inserts"])
def test_attention_couple(pack, scene, style, count, batch):
    """Both styles compute what the definition says: the text by region, and the subjects' term beside it unchanged."""
    masks, own = regions_of(scene, count), scene.prompts[0][0][0]
    same = sample(couple(applied(pack, scene.binding), [own] * count, masks, style), *scene.prompts, batch=batch)
    assert error(same, sample(applied(pack, scene.binding), *scene.prompts, batch=batch)) < EQUAL

    clip = sdxl().clip
    prompts = ["a red house", "two green birds in the rain"][: count - 1]
    texts = [own, *(clip.encode_from_tokens_scheduled(clip.tokenize(prompt))[0][0] for prompt in prompts)]
    wanted = applied(pack, scene.binding)
    for layer in scene.layers:
        wanted.set_model_attn2_replace(regional(layer, texts, masks), *layer.slot)
    wanted = sample(wanted, *scene.prompts, batch=batch)
    for latents in both_orders(pack, scene, lambda model: couple(model, texts, masks, style), batch=batch):
        assert error(latents, wanted) < EQUAL
    assert error(wanted, same) > DIFFERENT


@pytest.mark.neighbour("Perturbed-Attention Guidance", "Comfy-Org/ComfyUI", "its own pass gets the subjects", "both")
def test_perturbed_attention_guidance(pack, scene):
    def node(model):
        return PerturbedAttentionGuidance.execute(model, 3.0)[0]

    before, after = both_orders(pack, scene, node)
    assert error(before, after) < EQUAL and error(before, scene.alone) > DIFFERENT
    recorder = TermRecorder(scene.layers)
    sample(recorder.watch(node(applied(pack, scene.binding))), *scene.prompts, steps=1)
    own_pass = [added for _, order, added in recorder.records if order == (0,)]
    assert len(own_pass) == len(scene.layers)
    assert all(added.abs().max() > 1e-3 for added in own_pass)


@pytest.mark.neighbour("Self-Attention Guidance", "Comfy-Org/ComfyUI", "its own negative pass gets none", "both")
def test_self_attention_guidance(pack, scene):
    """Its own pass runs the negative prompt alone, as the first of one: it must get no subjects."""

    def node(model):
        return SelfAttentionGuidance.execute(model, 0.8, 2.0)[0]

    before, after = both_orders(pack, scene, node)
    assert error(before, after) < EQUAL and error(before, scene.alone) > DIFFERENT
    recorder = TermRecorder(scene.layers)
    sample(recorder.watch(node(applied(pack, scene.binding))), *scene.prompts, steps=1)
    own_pass = [added for _, order, added in recorder.records if order == (0,)]
    assert len(own_pass) == len(scene.layers)
    assert all(added.abs().max() < 1e-5 for added in own_pass)


NODES = {
    "FreeU": lambda model: FreeU.execute(model, 1.1, 1.2, 0.9, 0.2)[0],
    "FreeU_V2": lambda model: FreeU_V2.execute(model, 1.3, 1.4, 0.9, 0.2)[0],
    "HyperTile": lambda model: HyperTile.execute(model, 32, 1, 2, False)[0],
}


@pytest.mark.neighbour("FreeU, FreeU V2, HyperTile", "Comfy-Org/ComfyUI", "each of the three", "both")
@pytest.mark.parametrize("node", NODES.values(), ids=NODES)
def test_nodes_that_do_not_touch_cross_attention(pack, scene, node):
    before, after = both_orders(pack, scene, node)
    assert error(before, after) < EQUAL
    theirs_alone = sample(node(applied(pack, scene.binding, weight=0.0)), *scene.prompts)
    assert error(before, scene.alone) > DIFFERENT
    assert error(before, theirs_alone) > DIFFERENT


@pytest.mark.neighbour("Token merging", "Comfy-Org/ComfyUI", "half of the tokens", "both")
def test_token_merging_runs(pack, scene):
    before, after = both_orders(pack, scene, lambda model: TomePatchModel.execute(model, 0.5)[0])
    assert error(before, after) < EQUAL


def test_a_hypernetwork_changes_the_text_and_not_the_subjects(pack, scene):
    change = torch.randn(256, 256, generator=torch.Generator().manual_seed(0)) / 16

    def node(model):
        model = model.clone()
        model.set_model_attn2_patch(lambda q, k, v, extra_options: (q, k + k @ change, v + v @ change.T))
        return model

    before, after = both_orders(pack, scene, node)
    assert error(before, after) < EQUAL and error(before, scene.alone) > DIFFERENT

    def first_term(model):
        recorder = TermRecorder(scene.layers)
        sample(recorder.watch(model), *scene.prompts, steps=1)
        return recorder.records[0][2]

    ours = applied(pack, scene.binding)
    assert error(first_term(node(ours)), first_term(ours)) < EQUAL


def telling_less(model):
    """Packs with a block's forward of their own fill in what they know of."""

    def forget(q, k, v, extra_options):
        for key in ("attn_precision", "n_heads", "activations_shape", "cond_or_uncond", "uuids", "sigmas", "mmdiff"):
            extra_options.pop(key, None)
        return q, k, v

    model = model.clone()
    model.set_model_attn2_patch(forget)
    return model


@pytest.mark.parametrize("separation", ["reference", "by word"])
@pytest.mark.parametrize("region", [None, torch.eye(64)[None]], ids=["everywhere", "in a region"])
def test_blocks_that_tell_less(pack, scene, separation, region):
    place = pack["MMDiffPlaceSubject"].execute
    placed = [place(subject=one, start_percent=0.0, end_percent=1.0, region=region).args[0] for one in scene.subjects]
    positive, negative, binding = bound(pack, "Ada and Bo on the beach", placed)
    model = applied(pack, binding, separation=separation)
    size = (16, 24)
    wanted = sample(model, positive, negative, size=size)
    for less in (applied(pack, binding, telling_less(sdxl().model), separation=separation), telling_less(model)):
        assert error(sample(less, positive, negative, size=size), wanted) < EQUAL
    seen = [
        pack["MMDiffAttentionMaps"]
        .execute(model=one, binding=binding, positive=positive, latent={"samples": wanted}, percent=0.5)
        .args[0]
        for one in (model, telling_less(model))
    ]
    assert torch.equal(*seen)


@pytest.mark.parametrize("separation", ["reference", "by word"])
def test_a_context_that_an_attention_patch_shortens(pack, scene, separation):
    """The negative-weight packs send keys and values interleaved in one context of double length."""

    def node(model):
        model = model.clone()
        model.set_model_attn2_patch(lambda q, k, v, extra_options: (q, k[:, 0::2], v[:, 1::2]))
        return model

    doubled = [[[context.repeat_interleave(2, dim=1), extra] for context, extra in prompt] for prompt in scene.prompts]
    wanted = sample(applied(pack, scene.binding, separation=separation), *scene.prompts)
    for model in (
        applied(pack, scene.binding, node(sdxl().model), separation=separation),
        node(applied(pack, scene.binding, separation=separation)),
    ):
        assert error(sample(model, *doubled), wanted) < EQUAL


def test_another_attention_function_computes_the_text_branch(pack, scene):
    """An override, as the SageAttention and coupler nodes set one, is asked in every slot we are bound to."""
    calls = []

    def override(function, q, k, v, *args, **kwargs):
        out = function(q, k, v, *args, **kwargs)
        if k.shape[1] == q.shape[1]:  # self-attention
            return out
        calls.append(k.shape[1])
        return 0.5 * out

    def node(model):
        model = model.clone()
        model.model_options["transformer_options"]["optimized_attention_override"] = override
        return model

    before, after = both_orders(pack, scene, node)
    assert calls == [scene.prompts[0][0][0].shape[1]] * (2 * 2 * len(scene.layers))  # two runs of two steps
    wanted = sample(replaced(applied(pack, scene.binding), slots(scene, 3), halved), *scene.prompts)
    assert error(before, wanted) < EQUAL and error(before, after) < EQUAL


def compiled(model):
    return TorchCompileModel.execute(model, "eager")[0]


@pytest.mark.neighbour("Torch Compile", "Comfy-Org/ComfyUI", "runs uncompiled, with a warning", "both")
def test_a_compiled_model(pack, scene, caplog):
    """The host's graphs are shared between blocks and runs without a guard on our patches; neither may show."""
    for weight in (0.8, 0.2):
        wanted = sample(applied(pack, scene.binding, weight=weight), *scene.prompts)
        before = sample(applied(pack, scene.binding, compiled(sdxl().model), weight=weight), *scene.prompts)
        after = sample(compiled(applied(pack, scene.binding, weight=weight)), *scene.prompts)
        assert error(before, wanted) < EQUAL and error(after, wanted) < EQUAL
    assert caplog.text.count("this run is not compiled") == 4


@pytest.mark.neighbour("EasyCache", "Comfy-Org/ComfyUI", "skipping none and many calls", "both")
def test_a_cache_that_skips_calls(pack, scene):
    def node(threshold):
        return lambda model: EasyCacheNode.execute(model, threshold, 0.0, 1.0, False)[0]

    whole = sample(applied(pack, scene.binding), *scene.prompts, steps=6)
    for latents in both_orders(pack, scene, node(0.0), steps=6):
        assert error(latents, whole) < EQUAL
    before, after = both_orders(pack, scene, node(3.0), steps=6)
    assert error(before, after) < EQUAL and before.isfinite().all()
    assert error(before, whole) > DIFFERENT
