"""Latents of the demo: the principal components of 8 x 8 pixels, so that they are known before anything is trained.

z = s * B (p - m): p a patch's 192 values in [-1, 1], m their mean, B the leading components of the training scenes, and
s a gain for each, the fourth root of its variance's inverse. So strong components stay stronger than weak ones, but not
by as much as in pixels, and a denoiser neither drowns in detail nor ignores it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmdiff_core.files import read_safetensors, write_safetensors
from mmdiff_core.world.scenes import WorldScenes

PATCH, CHANNELS = 8, 16


class Components(NamedTuple):
    """mean: (192,) of a patch; basis: (16, 192), orthonormal rows; gain: (16,)."""

    mean: Tensor
    basis: Tensor
    gain: Tensor

    def encode(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] to (B, 16, H / 8, W / 8) latents of unit variance over all channels together."""
        patches = nn.functional.pixel_unshuffle(images, PATCH)
        centred = patches - self.mean[:, None, None]
        return torch.einsum("kp,bphw->bkhw", self.gain[:, None] * self.basis, centred)

    def decode(self, latents: Tensor) -> Tensor:
        """The nearest patches: (B, 16, h, w) to (B, 3, 8 h, 8 w)."""
        patches = torch.einsum("kp,bkhw->bphw", self.basis / self.gain[:, None], latents)
        return nn.functional.pixel_shuffle(patches + self.mean[:, None, None], PATCH)

    def to(self, device: torch.device) -> Components:
        """The same on another device."""
        return Components(*(one.to(device) for one in self))

    def save(self, path: Path) -> None:
        write_safetensors(path, self._asdict(), {})

    @classmethod
    def load(cls, path: Path | str) -> Components:
        return cls(**read_safetensors(Path(path))[0])


def components(images: Tensor) -> Components:
    """The components of (N, 3, H, W) images in [-1, 1]."""
    patches = nn.functional.pixel_unshuffle(images, PATCH).movedim(1, -1).flatten(0, 2).double()
    mean = patches.mean(0)
    variances, vectors = torch.linalg.eigh((patches - mean).T @ (patches - mean) / len(patches))
    variances, basis = variances.flip(0)[:CHANNELS], vectors.T.flip(0)[:CHANNELS]
    gain = variances**-0.25
    gain = gain / (gain**2 * variances).mean().sqrt()
    return Components(mean.float(), basis.float().contiguous(), gain.float())


class LatentScenes(WorldScenes):
    """Scenes whose items carry their latents, which spares training an encoder's work."""

    def __init__(
        self,
        components: Path | str,
        atlas: Path | str,
        resolution: int,
        photo_size: int,
        seed: int,
        pairs: float = 0.65,
        looks: float = 0.15,
        split: str = "train",
    ) -> None:
        """components: their file. The others are WorldScenes'."""
        super().__init__(atlas, resolution, photo_size, seed, split, pairs=pairs, looks=looks, settled=True)
        self.components = Components.load(components)

    def __getitem__(self, index: int) -> dict:
        item = super().__getitem__(index)
        return item | {"latents": self.components.encode(item["image"][None])[0]}


def psnr(error: Tensor) -> float:
    """Mean peak signal-to-noise ratio, dB, of mean squared errors of pictures in [-1, 1]."""
    return float((10 * torch.log10(4 / error)).mean())
