"""Living with other nodes that change the model's weights, checked against weights computed by hand."""

from types import SimpleNamespace

import comfy.model_management
import comfy.sd
import pytest
import torch
from comfy_extras.nodes_attention_multiply import UNetCrossAttentionMultiply
from graph import applied, bound, error, mmdiff, module, sample, subject
from stack import golden

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
        layers = module(pack, "nodes.host.base").attention_layers(golden().model.model.diffusion_model)
        state = golden().model.model_state_dict()
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
    model = golden().model
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
    model = golden().model.clone()
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
    """Where only the first prompt is sampled, the second binding's subjects join it, as if one node applied both."""
    ada, bo = scene.binding.subjects
    prompts = bound(pack, "Ada on the beach", [ada])
    first = applied(pack, prompts[2])
    both = applied(pack, bound(pack, "a portrait of Bo", [bo])[2], first)
    assert both.patches.keys() == first.patches.keys()
    assert all(len(patches) == 1 for patches in both.patches.values())

    def term(model):
        """What the subjects add; the prompt stays that of the first."""
        return sample(model, *prompts[:2])

    wanted = term(applied(pack, scene.binding))
    assert error(term(both), wanted) < EQUAL
    assert error(term(first), wanted) > DIFFERENT


@pytest.fixture(scope="module")
def other(pack, tmp_path_factory):
    """Another checkpoint for the same base: the golden one with its UNet LoRA turned around."""
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
