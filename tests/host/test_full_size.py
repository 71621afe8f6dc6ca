"""The whole path at the real shapes: load, encode, bind, apply and one step, on a CPU and in 24 GB."""

import resource
from types import SimpleNamespace

import comfy.utils
import folder_paths
import full_size
import pytest
import torch
from graph import applied, bound, module, sample
from torch import nn

pytestmark = pytest.mark.full_size

LAYERS = {"sdxl": 140, "sd15": 32}
"""Attention layers of each base, half of them cross-attention; each has four linears with LoRA."""
PARAMETERS = {"sdxl": 2.567e9, "sd15": 0.860e9}
CONTEXT = {"sdxl": 2048, "sd15": 768}
IDENTITY = {"sdxl": 512, "sd15": 768}
"""A face vector for the released checkpoint, the CLS for a general one."""


@pytest.fixture(scope="module", params=["sdxl", "sd15"])
def base(request):
    return request.param


@pytest.fixture(scope="module")
def stack(pack, base):
    """The base model's UNet in half precision, computing in full, and its encoders."""
    model = full_size.unet(base, torch.float16, torch.float32)
    return SimpleNamespace(model=model, clip=full_size.clip(base), clip_vision=full_size.clip_vision())


@pytest.fixture(scope="module")
def checkpoint(pack, base, stack, tmp_path_factory):
    """What Load MM-Diff gives for a random checkpoint: SDXL's from a released folder, SD1.5's from a file of ours."""
    core = module(pack, "mmdiff_core")
    layers = module(pack, "nodes.host.base").attention_layers(stack.model.model.diffusion_model)
    text, vision = stack.clip.cond_stage_model, stack.clip_vision.model
    tensors = full_size.tensors(layers, text, vision, IDENTITY[base])
    folder = tmp_path_factory.mktemp("mmdiff")
    folder_paths.add_model_folder_path("mmdiff", str(folder))
    if base == "sdxl":
        (folder / "released").mkdir()
        for name, content in full_size.released_tensors(tensors).items():
            torch.save(content, folder / "released" / name)
        name = "released"
    else:
        core.save_checkpoint(core.MMDiff(tensors, core.Spec(), "", dtype=None), folder / "general.safetensors")
        name = "general.safetensors"
    del tensors
    assert name in module(pack, "nodes.host.folders").checkpoint_names()
    return pack["MMDiffLoad"].execute(checkpoint=name).args[0]


@pytest.fixture(scope="module")
@torch.inference_mode()
def graph(pack, base, stack, checkpoint):
    """Two encoded subjects bound to a prompt and applied to the model."""
    generator = torch.Generator().manual_seed(0)
    subjects = []
    for name in ("man", "woman"):
        photo = torch.rand(1, 300, 200, 3, generator=generator)
        face = None
        if base == "sdxl":
            embeds = torch.randn(1, IDENTITY[base], generator=generator)
            face = module(pack, "mmdiff_core").Face(embeds, photo[:, 50:150, 50:150])
        subject = pack["MMDiffEncodeSubject"].execute(
            mmdiff=checkpoint, clip_vision=stack.clip_vision, image=photo, face=face, name=name, weight=1.0
        )
        subjects.append(subject.args[0])
    prompt = "a photo of a man<|subj|> and a woman<|subj|> on the beach"
    positive, negative, binding = bound(pack, prompt, subjects, mmdiff=checkpoint, clip=stack.clip)
    model = applied(pack, binding, stack.model)
    return SimpleNamespace(model=model, positive=positive, negative=negative, binding=binding)


def test_shapes(base, stack, checkpoint):
    parameters = sum(p.numel() for p in stack.model.model.diffusion_model.parameters())
    assert parameters == pytest.approx(PARAMETERS[base], rel=1e-3)
    refiner = checkpoint.core.heads.subject.refiner
    assert checkpoint.core.base == base
    assert (refiner.proj_in.out_features, len(refiner.layers)) == (CONTEXT[base], 4)


def test_every_layer_takes_the_checkpoint(pack, base, graph):
    """560 patched linears and 70 cross-attention blocks in SDXL, 128 and 16 in SD1.5."""
    assert len(graph.model.patches) == 4 * LAYERS[base]
    layers = module(pack, "nodes.host.base").attention_layers(graph.model.model.diffusion_model)
    assert [layer.number for layer in layers if layer.cross] == list(range(1, LAYERS[base], 2))
    assert all(layer.attention.to_k.in_features == CONTEXT[base] for layer in layers if layer.cross)
    assert all(subject.tokens.shape == (4, CONTEXT[base]) for subject in graph.binding.subjects)
    assert graph.positive[0][0].shape[-1] == CONTEXT[base]


def test_layers_count_as_diffusers_does(pack, base, stack):
    """The host's own table from diffusers' names to its own knows the blocks that the numbers must run through."""
    names = comfy.utils.unet_to_diffusers(full_size.UNETS[base])
    processors = [key for key in names if key.endswith(".to_q.weight")]
    order = {"down_blocks": 0, "up_blocks": 1, "mid_block": 2}

    def place(key: str) -> tuple:
        return order[key.split(".")[0]], [int(part) for part in key.split(".") if part.isdigit()], key

    wanted = [f"diffusion_model.{names[key].removesuffix('.to_q.weight')}" for key in sorted(processors, key=place)]
    layers = module(pack, "nodes.host.base").attention_layers(stack.model.model.diffusion_model)
    assert [layer.path for layer in layers] == wanted


def test_a_step(base, graph):
    """One step of 256 x 256 with guidance: every cross-attention slot is bound, and the subjects change the picture."""
    slots = []

    def watch(executor, *args, **kwargs):
        slots.append(set(args[-1]["patches_replace"]["attn2"]))
        return executor(*args, **kwargs)

    model = graph.model.clone()
    model.add_wrapper("diffusion_model", watch)
    picture = sample(model, graph.positive, graph.negative, steps=1, size=(32, 32))
    assert picture.isfinite().all()
    assert [len(found) for found in slots] == [LAYERS[base] // 2]
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{base}: peak memory {gigabytes:.1f} GB")
    assert gigabytes < 24


def test_a_lost_layer_is_an_error(pack, base, stack, graph):
    """A model that can't take every LoRA is refused with the count of those it took."""
    error = module(pack, "mmdiff_core").MMDiffError
    layers = module(pack, "nodes.host.base").attention_layers(stack.model.model.diffusion_model)
    whole = layers[-1].attention.to_q
    layers[-1].attention.to_q = nn.Identity()
    try:
        with pytest.raises(error, match=f"took {4 * LAYERS[base] - 1} of {4 * LAYERS[base]} LoRA weights"):
            applied(pack, graph.binding, stack.model)
    finally:
        layers[-1].attention.to_q = whole
