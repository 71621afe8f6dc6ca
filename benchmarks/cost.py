"""Time and memory outside the step, with an SDXL checkpoint of the released shapes: `python -m benchmarks.cost`."""

from __future__ import annotations

import ctypes
import gc
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from .host import ROOT, custom_node

import full_size  # isort: skip
import torch
from graph import applied, bound, module, sample
from safetensors.torch import load_file

MB = 1e6
REPEATS = 3


def seconds(work: Callable) -> float:
    """Processor time of this thread."""
    began = time.thread_time()
    work()
    return time.thread_time() - began


def memory(field: str) -> float:
    """A line of this process's status in megabytes: VmRSS is resident now, VmHWM the most since the last `peak`."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 / MB for line in lines if line.startswith(field))


def settle() -> None:
    """Give freed memory back to the system, so that it is not counted and not used again unseen."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def peak(work: Callable) -> float:
    """The most megabytes resident during some work, beyond those before it."""
    settle()
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    work()
    return memory("VmHWM") - before


@torch.inference_mode()
def main() -> dict[str, Any]:
    """Every figure by name."""
    torch.set_num_threads(1)
    pack = custom_node(ROOT)
    core, host = module(pack, "mmdiff_core"), module(pack, "nodes.host.model")
    unet = full_size.unet("sdxl", torch.float16, torch.float32, shared=True)
    clip, vision = full_size.clip("sdxl"), full_size.clip_vision()
    layers = module(pack, "nodes.host.base").attention_layers(unet.model.diffusion_model)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        own, released = Path(folder, "own.safetensors"), Path(folder, "released")
        released.mkdir()
        tensors = full_size.tensors(layers, clip.cond_stage_model, vision.model, 512)
        for name, content in full_size.released_tensors(tensors).items():
            torch.save(content, released / name)
        core.save_checkpoint(core.MMDiff(tensors, core.RELEASED, "", dtype=None), own)
        del tensors
        found["checkpoint, MB"] = own.stat().st_size / MB
        found["load own file, s"] = median(seconds(lambda: host.load_mmdiff(own)) for _ in range(REPEATS))
        found["read own file without us, s"] = median(seconds(lambda: load_file(own)) for _ in range(REPEATS))
        found["load released folder, s"] = median(seconds(lambda: host.load_mmdiff(released)) for _ in range(REPEATS))
        found["peak of loading, MB"] = peak(lambda: host.load_mmdiff(own))
        settle()
        before = memory("VmRSS")
        mmdiff = host.load_mmdiff(own)
        found["resident after loading, MB"] = memory("VmRSS") - before

    photo = torch.rand(1, 512, 512, 3)
    face = core.Face(torch.randn(1, 512), photo[:, 100:300, 100:300])

    def encode() -> Any:
        node = pack["MMDiffEncodeSubject"]
        given = {"mmdiff": mmdiff, "clip_vision": vision, "image": photo, "face": face}
        return node.execute(**given, name="man", weight=1.0).args[0]

    def forwards() -> None:
        for _ in range(2):
            vision.model(pixel_values=pixels, intermediate_output=-2)

    pixels = torch.randn(1, 3, 224, 224)
    found["first encode, s"] = seconds(encode)
    pairs = [(seconds(encode), seconds(forwards)) for _ in range(REPEATS)]
    found["encode, s"], found["two vision forwards, s"] = (median(times) for times in zip(*pairs, strict=True))
    found["encode over two vision forwards"] = median(a / b for a, b in pairs)

    subjects = [encode(), encode()]
    prompt = "a man<|subj|> and a woman<|subj|> on the beach"
    positive, negative, binding = bound(pack, prompt, subjects, mmdiff=mmdiff, clip=clip)
    del clip
    found["apply, s"] = median(seconds(lambda: applied(pack, binding, unet)) for _ in range(REPEATS))
    model = applied(pack, binding, unet)
    weak = applied(pack, binding, unet)
    weak.remove_wrappers_with_key("apply_model", "mmdiff")

    run_type = module(pack, "nodes.host.attention").Run
    cached = []

    def step(one: Any, latent: int = 32) -> None:
        sample(one, positive, negative, steps=1, size=(latent, latent))

    def watch(executor: Any, *args: Any, **kwargs: Any) -> Any:
        out = executor(*args, **kwargs)
        run = args[-1]["mmdiff"]
        cached.append(sum(tensor.nbytes for pair in run.cache.values() for tensor in pair) / MB)
        return out

    model.add_wrapper("diffusion_model", watch)
    step(weak, latent=8)  # the host patches the LoRA in
    without = peak(lambda: step(weak))
    step(model, latent=8)
    found["peak of a step over one without subjects, MB"] = peak(lambda: step(model)) - without
    found["cached keys and values with 2 subjects in full precision, MB"] = cached[-1]
    settle()
    found["runs alive after sampling"] = sum(type(one) is run_type for one in gc.get_objects())
    return found


if __name__ == "__main__":
    print(json.dumps(main()))
