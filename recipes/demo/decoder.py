"""The demo's VAE: an encoder that computes the components exactly, and a decoder trained to invert them.

    python -m recipes.demo.decoder WORK --steps 3000

It has the shape of TAESD (Bohan 2023), which diffusers calls AutoencoderTiny and ComfyUI loads by itself: convolutions
and ReLUs without norms, so that linear maps can be written into its weights. Nothing else depends on the decoder, so it
can be trained at any time, and again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mmdiff_core.chance import stream
from mmdiff_core.files import read_safetensors, write_safetensors
from mmdiff_core.world.atlas import Atlas
from mmdiff_core.world.scenes import WorldScenes

from .latents import CHANNELS, PATCH, Components, psnr
from .muon import Muon

DECODER_RUN = "decoder-run.safetensors"
SCALE = 0.2
"""The decoder begins with 3 tanh(x / 3); latents times this stay where that is nearly straight."""
SIDE, CROP = 128, 64
SCENES, CROPS = 4, 4  # scenes of a step, and pieces of each
IDLE = (13, 14, 17)  # blocks of the decoder that stay as they begin: most of the work for the least gain
NOISE = 0.4  # most deviation of what is added to latents: a denoiser's are never exact, and squares show where
RATE, DECAY, AVERAGE = 1e-3, 0.5, 0.998  # DECAY: the share of steps in which the rate falls


def make_vae(components: Components) -> AutoencoderTiny:
    """Exact encoder, untrained decoder whose blocks do nothing yet."""
    vae = AutoencoderTiny(latent_channels=CHANNELS, scaling_factor=1 / SCALE)
    with torch.no_grad():
        _write_encoder(vae.encoder.layers, components)
        for module in vae.decoder.modules():
            if hasattr(module, "fuse"):
                nn.init.zeros_(module.conv[-1].weight)
                nn.init.zeros_(module.conv[-1].bias)
        convolutions = [layer for layer in vae.decoder.layers if isinstance(layer, nn.Conv2d)]
        for convolution in convolutions[1:-1]:
            nn.init.dirac_(convolution.weight)
            convolution.weight += torch.randn_like(convolution.weight) * 0.02
    return vae


def _write_encoder(layers: nn.Sequential, components: Components) -> None:
    """Pixels are gathered into ever wider blocks, and only the last step computes.

    Pixels in [0, 1] pass a ReLU unchanged; a component passes as two numbers, what is above zero and what is below.
    """
    for layer in layers.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.zero_()
            if layer.bias is not None:
                layer.bias.zero_()
    first, *halving, last = (layer for layer in layers if isinstance(layer, nn.Conv2d))
    for colour in range(3):
        first.weight[colour, colour, 1, 1] = 1
    # channel -> (colour, row, column) of the pixel in its block
    pixels = [(colour, 0, 0) for colour in range(3)]
    for number, halve in enumerate(halving):
        reach = 2**number
        gathered = [
            (channel, dy, dx, (colour, row + dy * reach, column + dx * reach))
            for dy in (0, 1)
            for dx in (0, 1)
            for channel, (colour, row, column) in enumerate(pixels)
        ]
        if number < 2:
            for out, (channel, dy, dx, _) in enumerate(gathered):
                halve.weight[out, channel, 1 + dy, 1 + dx] = 1
            pixels = [pixel for *_, pixel in gathered]
        else:
            basis = components.basis.unflatten(1, (3, PATCH, PATCH))
            for channel, dy, dx, pixel in gathered:
                value = basis[(slice(None), *pixel)]
                halve.weight[: 2 * CHANNELS, channel, 1 + dy, 1 + dx] = torch.cat((value, -value))
    gain = SCALE * components.gain
    for channel in range(CHANNELS):  # 2 u - 1 are the pixels that components are of
        last.weight[channel, channel, 1, 1] = 2 * gain[channel]
        last.weight[channel, CHANNELS + channel, 1, 1] = -2 * gain[channel]
    last.bias.copy_(-gain * (components.basis @ (1 + components.mean)))


class Crops(Dataset):
    """Pieces of scenes: item `index` is (CROPS, 3, CROP, CROP) of one scene, in [-1, 1]."""

    def __init__(self, scenes: WorldScenes) -> None:
        self.scenes = scenes

    def __getitem__(self, index: int) -> Tensor:
        plan = self.scenes.plan(index)
        picture = torch.from_numpy(self.scenes.draw(plan)[0]).movedim(-1, 0).float() / 127.5 - 1
        random = stream("crops", index)
        places = random.integers(0, (SIDE - CROP) // PATCH + 1, (CROPS, 2)) * PATCH
        return torch.stack([picture[:, y : y + CROP, x : x + CROP] for y, x in places])


def _without_idle(layers: nn.Sequential) -> nn.Sequential:
    """The same layers; an idle block is only its last ReLU."""
    return nn.Sequential(*(nn.ReLU() if number in IDLE else layer for number, layer in enumerate(layers)))


def _squeezed(latents: Tensor) -> Tensor:
    """Latents as the decoder's first layer gets them."""
    return 3 * torch.tanh(SCALE * latents / 3)


def loss_of(drawn: Tensor, wanted: Tensor) -> Tensor:
    """Absolute error of pixels and of their differences: edges count twice."""
    error = drawn - wanted
    return error.abs().mean() + error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()


class Run:
    """The decoder, its optimizer and its average, as they are saved."""

    def __init__(self, components: Components, path: Path) -> None:
        """Goes on with what is at `path`, if there is anything."""
        self.components = components
        self.path = path
        decoder = make_vae(components).decoder
        self.layers = _without_idle(decoder.layers)
        trains = {name: value for name, value in decoder.named_parameters() if int(name.split(".")[1]) not in IDLE}
        self.weights = trains
        self.average = {name: value.detach().clone() for name, value in trains.items()}
        self.optimizer = Muon(trains.items(), RATE)
        self.step = 0
        if path.exists():
            tensors, about = read_safetensors(path)
            self.step = int(about["step"])
            for name, value in trains.items():
                value.data.copy_(tensors[f"weights.{name}"])
                self.average[name].copy_(tensors[f"average.{name}"])
                kept = [key for key in tensors if key.startswith(f"state.{name}.")]
                self.optimizer.state[value] = {key.rpartition(".")[2]: tensors[key] for key in kept}

    def learn(self, wanted: Tensor, rate: float) -> None:
        """One step on (B, 3, H, W) pieces."""
        latents = self.components.encode(wanted)
        noise = NOISE * torch.rand_like(latents[:, :1, :1, :1]) * torch.randn_like(latents)
        drawn = self.layers(_squeezed(latents + noise)) * 2 - 1
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        loss_of(drawn, wanted).backward()
        torch.nn.utils.clip_grad_norm_(self.weights.values(), 1.0)
        self.optimizer.step()
        with torch.no_grad():
            for name, value in self.weights.items():
                self.average[name].lerp_(value, 1 - min(AVERAGE, (1 + self.step) / (10 + self.step)))
        self.step += 1

    def save(self) -> AutoencoderTiny:
        """Write what to go on from. Returns the VAE with averaged weights."""
        tensors = {f"average.{name}": value for name, value in self.average.items()}
        for name, value in self.weights.items():
            tensors[f"weights.{name}"] = value.detach()
            tensors |= {f"state.{name}.{key}": kept for key, kept in self.optimizer.state[value].items()}
        write_safetensors(self.path, tensors, {"step": str(self.step)})
        vae = make_vae(self.components)
        vae.decoder.load_state_dict(self.average, strict=False)
        return vae


def main(work: Path, steps: int, every: int) -> None:
    """Train in `work`, which holds atlas and components; go on where it was last saved; write `base/vae`."""
    torch.manual_seed(0)
    components = Components.load(work / "components.safetensors")
    run = Run(components, work / DECODER_RUN)
    crops = Crops(WorldScenes(Atlas.load(work / "atlas.npz"), SIDE, PATCH, seed=7, looks=0.25))
    indices = [list(range(SCENES * step, SCENES * (step + 1))) for step in range(run.step, steps)]
    held = torch.stack([crops[10**9 + index][0] for index in range(48)])
    for pieces in DataLoader(crops, batch_sampler=indices, num_workers=1):
        run.learn(pieces.flatten(0, 1), RATE * min(1, (run.step + 1) / 50) * min(1, (1 - run.step / steps) / DECAY))
        if run.step % every == 0 or run.step == steps:
            vae = run.save()
            vae.save_pretrained(work / "base" / "vae")
            with torch.no_grad():
                error = vae.decode(SCALE * components.encode(held)).sample - held
            print(f"step {run.step}: unseen pieces at {psnr(error.square().mean((1, 2, 3))):.2f} dB", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m recipes.demo.decoder")
    parser.add_argument("work", type=Path)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--every", type=int, default=100)
    arguments = parser.parse_args()
    main(arguments.work, arguments.steps, arguments.every)
