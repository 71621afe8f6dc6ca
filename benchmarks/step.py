"""A sampling step with subjects over one without, at 512 x 512 with guidance: `python -m benchmarks.step sdxl 3`.

What a subject adds is a hundredth of a step, less than two steps differ by chance. So the contenders race in every
cross-attention slot of one and the same step, in turn with the host's own attention there; the differences are summed
over the slots and set against the step. Whole steps at 256 x 256 are timed beside it, as a check.

Time is one thread's processor time, which other programs on the machine change little.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from .host import ROOT, custom_node

import full_size  # isort: skip
import torch
from comfy.ldm.modules.attention import optimized_attention
from graph import applied, module, sample
from torch.utils._python_dispatch import TorchDispatchMode

LATENT = 64
"""Side of the latent, an eighth of the picture's."""
WHOLE_LATENT = 32
SUBJECTS = (1, 2, 4, 8)
WHOLE = ("reference 2", "reference 8")
"""Contenders also timed over whole steps, against the bare model."""
ROUNDS = 3
"""Races in each slot of one step."""
WEIGHT = 0.8


class Call:
    """One call of the model as a sampler made it: to be made again, and what sat in its cross-attention slots."""

    def __init__(self, model: Any, positive: list, negative: list) -> None:
        self.dry = True
        model = model.clone()
        model.set_model_unet_function_wrapper(self._keep)
        model.add_wrapper("diffusion_model", self._probe)
        sample(model, positive, negative, steps=1, size=(LATENT, LATENT))
        self.patcher = model

    def __call__(self, dry: bool) -> float:
        """Seconds that the call takes at 256 x 256; a dry one stops at the UNet's door."""
        self.dry = dry
        self.patcher.model.current_patcher = self.patcher
        x = self.x[:, :, :WHOLE_LATENT, :WHOLE_LATENT]
        return seconds(lambda: self.patcher.model.apply_model(x, self.t, **self.conditions))

    def _keep(self, apply_model: Callable, given: dict[str, Any]) -> torch.Tensor:
        self.x, self.t, self.conditions = given["input"], given["timestep"], given["c"]
        return apply_model(self.x, self.t, **self.conditions)

    def _probe(self, executor: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if not self.dry:
            return executor(x, *args, **kwargs)
        self.arguments, self.options = (x, *args[:-1]), args[-1]
        return torch.zeros_like(x)

    def slot(self, place: tuple) -> Callable | None:
        """What sits in the slot of one transformer block, (name, id, index), as the host looks it up."""
        slots = self.options.get("patches_replace", {}).get("attn2", {})
        return slots.get(place, slots.get(place[:2]))


class Race:
    """A cross-attention slot in which every contender computes the same, in turn; the host's own result goes on."""

    def __init__(self, contenders: dict[str, Callable], measure: Callable) -> None:
        self.contenders = contenders
        self.measure = measure
        self.results = defaultdict(list)
        self.spent = 0.0

    def __call__(self, *given: Any) -> torch.Tensor:
        self.spent += self.measure(lambda: self._run(given))
        return plain(*given)

    def _run(self, given: tuple) -> None:
        for contender in self.contenders.values():
            contender(*given)  # the first time fills caches
        for _ in range(ROUNDS):
            for name, contender in self.contenders.items():
                self.results[name].append(self.measure(lambda contender=contender: contender(*given)))

    def added(self, name: str) -> float:
        """What a contender costs more than the host's own attention; nothing if it isn't in this slot."""
        return (
            median(a - b for a, b in zip(self.results[name], self.results["plain"], strict=True))
            if name in self.results
            else 0.0
        )


class Operations(TorchDispatchMode):
    """Counts tensor operations that are more than another view of the same memory."""

    def __init__(self) -> None:
        super().__init__()
        self.count = Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = operation(*args, **(kwargs or {}))
        if not operation.is_view and "view" not in str(operation):
            self.count[str(operation)] += 1
        return out


def plain(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
    """The host's own attention in a slot."""
    precision = options["attn_precision"]
    return optimized_attention(q, k, v, options["n_heads"], attn_precision=precision, transformer_options=options)


def seconds(work: Callable) -> float:
    """One thread's processor time."""
    began = time.thread_time()
    work()
    return time.thread_time() - began


def operations(work: Callable) -> int:
    """Tensor operations without views."""
    with Operations() as counted:
        work()
    return sum(counted.count.values())


def race(calls: dict[str, Call], places: list[tuple], measure: Callable, latent: int) -> tuple[dict[str, float], float]:
    """What each contender adds to the slots of one step, and that step without the races, by a measure."""
    anyone = next(iter(calls.values()))
    unet = anyone.patcher.model.diffusion_model
    x, *rest = anyone.arguments
    x = x[:, :, :latent, :latent]
    races = {}
    for place in places:
        contenders = {name: call.slot(place) for name, call in calls.items() if call.slot(place) is not None}
        races[place] = Race({"plain": plain, **contenders}, measure)
    bare = {key: value for key, value in anyone.options.items() if key not in ("patches_replace", "wrappers")}

    def step(replaced: dict) -> None:
        unet._forward(x, *rest, {**bare, "patches_replace": {"attn2": replaced}})

    whole = measure(lambda: step(races))
    added = {name: sum(one.added(name) for one in races.values()) for name in calls}
    return added, whole - sum(one.spent for one in races.values())


def conditioning(base: str, binding_id: str | None) -> tuple[list, list]:
    """A positive and a negative conditioning of 77 tokens, the positive one carrying a binding."""
    width, pooled = full_size.UNETS[base]["context_dim"], 1280
    made = []
    for extra in ({"mmdiff_binding": binding_id} if binding_id else {}, {}):
        made.append([[torch.randn(1, 77, width), {"pooled_output": torch.randn(1, pooled), **extra}]])
    return made[0], made[1]


def ours(pack: dict[str, type], base: str, unet: Any) -> dict[str, Call]:
    """Calls with 1 to 8 subjects of four tokens, by separation and count."""
    core, text = module(pack, "mmdiff_core"), module(pack, "nodes.host.text")
    layers = module(pack, "nodes.host.base").attention_layers(unet.model.diffusion_model)
    clip, vision = full_size.clip(base).cond_stage_model, full_size.clip_vision().model
    checkpoint = core.MMDiff(full_size.tensors(layers, clip, vision, 512), core.RELEASED, "benchmark", dtype=None)
    mmdiff = module(pack, "nodes.host.model").HostedMMDiff(checkpoint, None)
    del clip, vision
    calls = {}
    for separation in ("reference", "by word"):
        for count in SUBJECTS:
            tokens = torch.randn(count, 4, full_size.UNETS[base]["context_dim"])
            subjects = tuple(core.Subject(f"{n}", 1.0, tokens[n], {}, "benchmark") for n in range(count))
            words = tuple((5 + 2 * n,) for n in range(count))
            others = tuple(place for place in range(1, 26) if (place,) not in words)  # a prompt of 25 tokens
            binding = text.Binding(f"{separation} {count}", mmdiff, subjects, words, (), others)
            model = applied(pack, binding, unet, WEIGHT, separation)
            calls[binding.id] = Call(model, *conditioning(base, binding.id))
    return calls


def ip_adapter_weights(pack: dict[str, type], base: str, unet: Any) -> dict[str, dict[str, torch.Tensor]]:
    """An IP-Adapter of four tokens for a base, as its file holds it."""
    layers = module(pack, "nodes.host.base").attention_layers(unet.model.diffusion_model)
    context = full_size.UNETS[base]["context_dim"]
    return {
        "image_proj": {
            "proj.weight": torch.randn(4 * context, 1024) * 0.03,
            "proj.bias": torch.zeros(4 * context),
            "norm.weight": torch.ones(context),
            "norm.bias": torch.zeros(context),
        },
        "ip_adapter": {
            f"{layer.number}.to_{name}_ip.weight": full_size.randomise(torch.empty_like(layer.attention.to_k.weight))
            for layer in layers
            if layer.cross
            for name in "kv"
        },
    }


def ip_adapter_by_us(pack: dict[str, type], base: str, unet: Any, weights: dict) -> dict[str, Call]:
    """The same counts with an IP-Adapter read as a checkpoint; negative rows get tokens too."""
    core, text, read = (
        module(pack, name) for name in ("mmdiff_core", "nodes.host.text", "mmdiff_core.checkpoint.ipadapter")
    )
    tensors, spec = read.read_ipadapter(read.flattened(weights), Path("ip-adapter.bin"), None)
    mmdiff = module(pack, "nodes.host.model").HostedMMDiff(core.MMDiff(tensors, spec, "ip-adapter", dtype=None), None)
    calls = {}
    for count in SUBJECTS:
        tokens = torch.randn(2, count, 4, full_size.UNETS[base]["context_dim"])
        subjects = tuple(
            core.Subject(f"{n}", 1.0, tokens[0, n], {}, "ip-adapter", negative=tokens[1, n]) for n in range(count)
        )
        binding = text.Binding(f"IP-Adapter {count}", mmdiff, subjects, tuple((5 + 2 * n,) for n in range(count)))
        calls[binding.id] = Call(applied(pack, binding, unet, WEIGHT), *conditioning(base, binding.id))
    return calls


def ip_adapter_plus(nodes: dict[str, type], base: str, unet: Any, weights: dict) -> dict[str, Call]:
    """The same counts with IPAdapter_plus's own node: a chain of adapters of four tokens each."""
    apply = nodes["IPAdapterEmbeds"]().apply_ipadapter
    calls = {}
    for count in SUBJECTS:
        model = unet  # from the start each time: a chain adds to the objects that a shorter one made
        for _ in range(count):
            embeds = torch.randn(1, 1024), torch.zeros(1, 1024)
            model = apply(model, weights, embeds[0], WEIGHT, "linear", 0.0, 1.0, neg_embed=embeds[1])[0]
        calls[f"IPAdapter_plus {count}"] = Call(model, *conditioning(base, None))
    return calls


@torch.inference_mode()
def main(base: str, passes: int) -> dict[str, Any]:
    """Ratios for one base model. passes: whole steps of each kind."""
    torch.set_num_threads(1)
    pack = custom_node(ROOT)
    unet = full_size.unet(base, torch.float32, shared=True)
    calls, weights = {}, ip_adapter_weights(pack, base, unet)
    if neighbour := os.environ.get("IPADAPTER_PLUS_DIR"):
        calls.update(ip_adapter_plus(custom_node(neighbour), base, unet, weights))
    bare = Call(full_size.unet(base, torch.float32, shared=True), *conditioning(base, None))
    calls.update(ours(pack, base, unet))
    calls.update(ip_adapter_by_us(pack, base, unet, weights))

    layers = module(pack, "nodes.host.base").attention_layers(unet.model.diffusion_model)
    places = [layer.slot for layer in layers if layer.cross]
    added_operations, step_operations = race(calls, places, operations, LATENT // 8)
    races = [race(calls, places, seconds, LATENT) for _ in range(passes)]
    step = median(whole for _, whole in races)
    door = {name: median(call(dry=True) for _ in range(15)) for name, call in {"bare": bare, **calls}.items()}
    whole = {name: [] for name in ("bare", *WHOLE)}
    for _ in range(passes):
        for name, times in whole.items():
            times.append((bare if name == "bare" else calls[name])(dry=False))
    rows = {}
    for name in calls:
        slots = median(added[name] for added, _ in races)
        rows[name] = {
            "step ratio": 1 + (slots + door[name] - door["bare"]) / step,
            "added in slots, ms": 1e3 * slots,
            "added before the UNet, ms": 1e3 * (door[name] - door["bare"]),
            "operations ratio": 1 + added_operations[name] / step_operations,
        }
    for name in WHOLE:
        pairs = zip(whole[name], whole["bare"], strict=True)
        rows[name]["whole step of 256 x 256 over the bare model"] = median(a / b for a, b in pairs)
    run = calls["by word 8"].options["mmdiff"]
    return {
        "base": base,
        "step, s": step,
        "step, operations": step_operations,
        "whole steps of 256 x 256, s": whole,
        "rows": rows,
        "cached K/V with 8 subjects, MB": sum(t.nbytes for pair in run.cache.values() for t in pair) / 1e6,
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))
