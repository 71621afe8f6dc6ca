"""Living with other nodes that change the model's weights, checked against weights computed by hand."""

from types import SimpleNamespace

import comfy.hooks
import comfy.model_management
import comfy.sd
import pytest
import torch
from comfy_extras.nodes_attention_multiply import UNetCrossAttentionMultiply
from comfy_extras.nodes_model_merging import ModelAdd, ModelMergeBlocks, ModelMergeSimple
from graph import applied, bound, error, mmdiff, module, running, sample, subject
from tiny_sdxl import sdxl

EQUAL = 1e-5
"""Two ways to the same formula, in another order of float32 sums."""
DIFFERENT = 1e-3

PARTS = {"to_q": "to_q", "to_k": "to_k", "to_v": "to_v", "to_out": "to_out.0"}
"""A LoRA pair's name in a checkpoint, less its ending, and the host's name of the layer."""
FACTORS = {"to_q": 1.25, "to_k": 0.5, "to_v": 1.5, "to_out.0": 0.75}

CHAINS = [
    "ours",
    "lora ours",
    "ours lora",
    "multiply ours",
    "ours multiply",
    "lora ours multiply",
    "ours lora multiply",
    "multiply ours lora",
    "bypass ours",
    "ours bypass",
]
"""Nodes in the order they stand in the graph."""


def low_rank(pair):
    return pair.up.weight.float() @ pair.down.weight.float()


@pytest.fixture(scope="module")
def scene(pack):
    """A bound prompt, the UNet's own weights, what each LoRA adds to them, and another LoRA as a file holds it."""
    random = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        subjects = [subject(pack, "Ada", 0), subject(pack, "Bo", 1)]
        positive, negative, binding = bound(pack, "Ada and Bo on the beach", subjects)
        comfy.model_management.unload_all_models()
        layers = module(pack, "nodes.host.base").attention_layers(sdxl().model.model.diffusion_model)
        state = sdxl().model.model_state_dict()
        names = [f"{layer.path}.{part}" for layer in layers for part in PARTS.values()]
        base = {name: state[f"{name}.weight"].clone() for name in names}
        pairs = {name: [torch.randn(shape, 2, generator=random) / 8 for shape in base[name].shape] for name in names}
    lora = {}
    for name, (up, down) in pairs.items():
        lora |= {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down.T}
    return SimpleNamespace(
        prompts=(positive, negative),
        binding=binding,
        layers=layers,
        base=base,
        ours=text_lora(layers, mmdiff(pack).core),
        theirs={name: up @ down.T for name, (up, down) in pairs.items()},
        lora=lora,
    )


def text_lora(layers, core):
    """What a checkpoint's LoRA adds to the UNet's weights, by layer."""
    return {
        f"{layers[int(number)].path}.{host}": low_rank(pairs[f"{part}_lora"])
        for number, pairs in core.unet.items()
        for part, host in PARTS.items()
        if f"{part}_lora" in pairs
    }


def graph(pack, scene, chain, weight):
    """The model behind a chain of nodes."""
    model = sdxl().model
    for node in chain.split():
        if node == "ours":
            model = applied(pack, scene.binding, model, weight)
        elif node == "lora":
            model = comfy.sd.load_lora_for_models(model, None, scene.lora, 1.0, 0.0)[0]
        elif node == "bypass":
            model = comfy.sd.load_bypass_lora_for_models(model, None, scene.lora, 1.0, 0.0)[0]
        else:
            factors = dict(zip(("q", "k", "v", "out"), FACTORS.values(), strict=True))
            model = UNetCrossAttentionMultiply.execute(model, **factors)[0]
    return model


def by_hand(scene, chain, with_ours):
    """The weights behind a chain of nodes, by layer."""
    weights = {name: weight.clone() for name, weight in scene.base.items()}
    for node in chain.split():
        for name, weight in weights.items():
            if node == "multiply" and ".attn2." in name:
                weight *= FACTORS[name.partition(".attn2.")[2]]
            elif node in ("lora", "bypass"):
                weight += scene.theirs[name]
            elif node == "ours" and with_ours and name in scene.ours:
                weight += scene.ours[name]
    return weights


def with_weights(scene, weights, chain):
    """A model of these weights, without any other node; the host's multiplying node scales biases too."""
    model = sdxl().model.clone()
    model.add_patches({f"{name}.weight": ("diff", (weight - scene.base[name],)) for name, weight in weights.items()})
    state = model.model_state_dict()
    if "multiply" in chain:
        for name, bias in ((name, state.get(f"{name}.bias")) for name in weights if ".attn2." in name):
            if bias is not None:
                model.add_patches({f"{name}.bias": (None,)}, 0.0, FACTORS[name.partition(".attn2.")[2]])
    return model


def seen_keys_values(pack, monkeypatch):
    """Fills while a model samples: (layer, tokens, keys, values) of subjects as the run computed them."""
    attention, seen = module(pack, "nodes.host.attention"), []
    compute = attention.keys_values

    def watch(layer, tokens, *args):
        keys, values = compute(layer, tokens, *args)
        seen.append((layer, tokens, keys, values))
        return keys, values

    monkeypatch.setattr(attention, "keys_values", watch)
    return seen


def image_weight(core, layer, part, weights):
    """A weight for subject tokens: what the layer has without our text LoRA, and the checkpoint's image LoRA."""
    weight = weights[f"{layer.path}.{part}"]
    pairs = core.unet[str(layer.number)]
    return weight + low_rank(pairs[f"{part}_lora_image"]) if f"{part}_lora_image" in pairs else weight


@pytest.mark.parametrize("chain", CHAINS)
def test_weight_zero_is_the_loras_alone(pack, scene, chain):
    wanted = sample(with_weights(scene, by_hand(scene, chain, with_ours=True), chain), *scene.prompts)
    assert error(sample(graph(pack, scene, chain, weight=0.0), *scene.prompts), wanted) < EQUAL
    without = sample(with_weights(scene, by_hand(scene, chain, with_ours=False), chain), *scene.prompts)
    assert error(without, wanted) > DIFFERENT


@pytest.mark.neighbour(
    "LoRA, bypass LoRA, UNet Attention Multiply",
    "Comfy-Org/ComfyUI",
    "ten chains, keys and values against weights by hand",
    "both",
)
@pytest.mark.parametrize("chain", CHAINS)
def test_subjects_see_every_lora_but_our_text_lora(pack, scene, chain, monkeypatch):
    seen, core = seen_keys_values(pack, monkeypatch), mmdiff(pack).core
    sample(graph(pack, scene, chain, weight=0.8), *scene.prompts, steps=1)
    assert len(seen) == sum(layer.cross for layer in scene.layers)
    weights, with_ours = (by_hand(scene, chain, with_ours) for with_ours in (False, True))
    for layer, tokens, keys, values in seen:
        for part, found in (("to_k", keys), ("to_v", values)):
            wanted = tokens @ image_weight(core, layer, part, weights).T
            assert error(found[0], wanted) < EQUAL, (layer.path, part)
            wrong = tokens @ image_weight(core, layer, part, with_ours).T
            assert error(wrong, wanted) > DIFFERENT, (layer.path, part)


def test_another_lora_before_or_after_is_the_same(pack, scene):
    alone = sample(graph(pack, scene, "ours", weight=0.8), *scene.prompts)
    for kind in ("lora", "bypass"):
        before, after = (
            sample(graph(pack, scene, chain, weight=0.8), *scene.prompts) for chain in (f"{kind} ours", f"ours {kind}")
        )
        assert error(before, after) < EQUAL
        assert error(before, alone) > DIFFERENT


def test_two_applies_of_one_checkpoint_add_subjects_and_patch_once(pack, scene):
    """A prompt draws what is bound to it; one that tells nothing gets both, as if one node had applied them."""
    ada, bo = scene.binding.subjects
    prompts = bound(pack, "Ada on the beach", [ada])
    first = applied(pack, prompts[2])
    both = applied(pack, bound(pack, "a portrait of Bo", [bo])[2], first)
    assert both.patches.keys() == first.patches.keys()
    assert all(len(patches) == 1 for patches in both.patches.values())

    untold = [[[context, {"pooled_output": extra["pooled_output"]}] for context, extra in one] for one in prompts[:2]]
    wanted = sample(applied(pack, scene.binding), *untold)
    assert error(sample(both, *untold), wanted) < EQUAL
    assert error(sample(first, *untold), wanted) > DIFFERENT
    assert torch.equal(sample(both, *prompts[:2]), sample(first, *prompts[:2]))


def test_the_same_binding_applied_again_takes_its_place(pack, scene):
    twice = applied(pack, scene.binding, applied(pack, scene.binding, weight=0.8), weight=0.3)
    once = applied(pack, scene.binding, weight=0.3)
    assert all(len(patches) == 1 for patches in twice.patches.values())
    assert torch.equal(sample(twice, *scene.prompts), sample(once, *scene.prompts))


@pytest.fixture(scope="module")
def other(pack, tmp_path_factory):
    """Another checkpoint for the same base: the tiny release with its UNet LoRA turned around."""
    core, public = mmdiff(pack).core, module(pack, "mmdiff_core")
    path = tmp_path_factory.mktemp("other") / "other.safetensors"
    with torch.inference_mode():
        turned = {
            key: -value if key.startswith("unet.") and ".up." in key else value for key, value in core.tensors().items()
        }
        public.save_checkpoint(public.MMDiff(turned, core.spec, source="", dtype=None), path)
        return mmdiff(pack, path)


def test_two_checkpoints_are_both_patched_in(pack, scene, other, monkeypatch):
    """Both LoRAs are in the weights; the subjects of one see the other's as any LoRA, and not their own."""
    cleo = subject(pack, "Cleo", 2, checkpoint=other)
    prompts = bound(pack, "Cleo on the beach", [cleo], mmdiff=other)
    theirs = text_lora(scene.layers, other.core)
    weights = by_hand(scene, "ours", with_ours=True)
    wanted = sample(
        with_weights(scene, {name: weight + theirs.get(name, 0) for name, weight in weights.items()}, ""),
        *scene.prompts,
    )
    silent = applied(pack, prompts[2], applied(pack, scene.binding, weight=0.0), weight=0.0)
    assert error(sample(silent, *scene.prompts), wanted) < EQUAL

    seen = seen_keys_values(pack, monkeypatch)
    both = applied(pack, prompts[2], applied(pack, scene.binding))
    sample(both, scene.prompts[0] + prompts[0], scene.prompts[1], steps=1)
    assert len(seen) == 2 * sum(layer.cross for layer in scene.layers)
    for layer, tokens, keys, _ in seen:
        core, foreign = (other.core, scene.ours) if len(tokens) == len(cleo.tokens) else (mmdiff(pack).core, theirs)
        name = f"{layer.path}.to_k"
        wanted = tokens @ image_weight(core, layer, "to_k", {name: scene.base[name] + foreign.get(name, 0)}).T
        assert error(keys[0], wanted) < EQUAL, layer.path


def merged(first, second, ratio=0.75):
    return ModelMergeSimple().merge(first, second, ratio)[0]


BLOCKS = {"input": 0.75, "middle": 0.75, "out": 0.75}
MERGES = {
    "with another": (lambda ours, other, again: merged(ours, other), 0.75),
    "with another that was merged with it": (lambda ours, other, again: merged(ours, merged(other, ours, 0.5)), 0.875),
    "with itself": (lambda ours, other, again: merged(ours, ours), 1.0),
    "block by block": (lambda ours, other, again: ModelMergeBlocks().merge(ours, other, **BLOCKS)[0], 0.75),
    "into another, and applied": (lambda ours, other, again: again(merged(other, ours)), 1.0),
}


@pytest.mark.neighbour(
    "Model Merge, simple and block by block",
    "Comfy-Org/ComfyUI",
    "with another, with itself, ours as the second and applied again",
    "both",
)
@pytest.mark.parametrize(("merge", "share"), MERGES.values(), ids=MERGES)
def test_a_model_merged_after_apply(pack, scene, monkeypatch, merge, share):
    """The LoRA is as strong as the host's merge makes it, and exactly that much is kept from the subjects."""

    def again(model):
        return applied(pack, scene.binding, model, weight=0.0)

    silent = merge(again(sdxl().model), sdxl().model, again)
    weights = {name: weight + share * scene.ours.get(name, 0) for name, weight in scene.base.items()}
    wanted = sample(with_weights(scene, weights, ""), *scene.prompts)
    assert error(sample(silent, *scene.prompts), wanted) < EQUAL

    seen, core = seen_keys_values(pack, monkeypatch), mmdiff(pack).core
    model = merge(applied(pack, scene.binding), sdxl().model, lambda model: applied(pack, scene.binding, model))
    sample(model, *scene.prompts, steps=1)
    assert len(seen) == sum(layer.cross for layer in scene.layers)
    for layer, tokens, keys, values in seen:
        for part, found in (("to_k", keys), ("to_v", values)):
            assert error(found[0], tokens @ image_weight(core, layer, part, scene.base).T) < EQUAL, (layer.path, part)


@pytest.mark.neighbour(
    "Model Merge, simple", "Comfy-Org/ComfyUI", "ours as the second, and not applied again: a sentence", "after"
)
def test_a_model_merged_into_another_draws_no_subjects_and_says_so(pack, scene, caplog):
    """The merge takes a share of the LoRA, and nothing else of ours."""
    with running():
        found = sample(merged(sdxl().model, applied(pack, scene.binding)), *scene.prompts)
    (warning,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("MM-Diff")]
    assert "'Ada', 'Bo'" in warning and "first model alone" in warning
    weights = {name: weight + 0.25 * scene.ours.get(name, 0) for name, weight in scene.base.items()}
    assert error(found, sample(with_weights(scene, weights, ""), *scene.prompts)) < EQUAL


@pytest.mark.neighbour("Model Merge Add", "Comfy-Org/ComfyUI", "ours with itself", "after")
def test_a_model_added_to_itself(pack, scene, monkeypatch):
    seen, core = seen_keys_values(pack, monkeypatch), mmdiff(pack).core
    ours = applied(pack, scene.binding)
    sample(ModelAdd().merge(ours, ours)[0], *scene.prompts, steps=1)
    doubled = {name: 2 * weight for name, weight in scene.base.items()}
    for layer, tokens, keys, _ in seen:
        assert error(keys[0], tokens @ image_weight(core, layer, "to_k", doubled).T) < EQUAL, layer.path


@pytest.mark.neighbour(
    "Hook LoRA with keyframes", "Comfy-Org/ComfyUI", "three pairs of strengths", "not a node on the model"
)
@pytest.mark.parametrize("strengths", [(1.0, 0.0), (0.0, 1.0), (0.5, 1.0)])
def test_a_lora_whose_strength_changes_during_sampling(pack, scene, monkeypatch, strengths):
    """A hook with keyframes: keys and values are of the weights of the step, and computed once for each strength."""
    hooks = comfy.hooks.create_hook_lora(scene.lora, 1.0, 0.0)
    frames = comfy.hooks.HookKeyframeGroup()
    for strength, start in zip(strengths, (0.0, 0.5), strict=True):
        frames.add(comfy.hooks.HookKeyframe(strength, start))
    hooks.set_keyframes_on_hooks(frames)
    prompts = [comfy.hooks.set_hooks_for_conditioning(one, hooks) for one in scene.prompts]

    seen, core = seen_keys_values(pack, monkeypatch), mmdiff(pack).core
    sample(applied(pack, scene.binding), *prompts, steps=6)
    assert len(seen) == 2 * sum(layer.cross for layer in scene.layers)
    for number, (layer, tokens, keys, _) in enumerate(seen):
        name = f"{layer.path}.to_k"
        strength = strengths[number * 2 // len(seen)]
        weights = {name: scene.base[name] + strength * scene.theirs[name]}
        assert error(keys[0], tokens @ image_weight(core, layer, "to_k", weights).T) < EQUAL, layer.path
