"""What the demo model was made with: the encoder that is written by hand, and Muon's steps."""

import pytest
import torch
from torch import nn

pytest.importorskip("diffusers")

from diffusers import AutoencoderTiny  # noqa: E402

from mmdiff_core.demo import FOLDER  # noqa: E402
from mmdiff_core.demo.making.decoder import SCALE, make_vae  # noqa: E402
from mmdiff_core.demo.making.latents import Components  # noqa: E402
from mmdiff_core.demo.making.muon import Muon  # noqa: E402


def encoded(vae: AutoencoderTiny, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return vae.encode(images).latents / SCALE


def test_the_encoder_computes_the_components():
    """On noise, which leaves no pixel of a block out."""
    components, images = Components.load(FOLDER / "components.safetensors"), torch.rand(2, 3, 32, 48) * 2 - 1
    found = encoded(make_vae(components), images)
    assert torch.allclose(found, components.encode(images), atol=1e-4)
    assert found.std() > 0.1


def test_the_shipped_encoder_does_too():
    components, images = Components.load(FOLDER / "components.safetensors"), torch.rand(1, 3, 32, 32) * 2 - 1
    vae = AutoencoderTiny.from_pretrained(FOLDER / "vae")
    assert vae.config.scaling_factor == pytest.approx(1 / SCALE)
    assert torch.allclose(encoded(vae, images), components.encode(images), atol=2e-2)  # its weights are in halves


def test_muon_steps_a_matrix_by_an_orthogonal_one_and_the_rest_as_adam():
    layer = nn.Linear(32, 32)
    before = layer.weight.detach().clone()
    optimizer = Muon(layer.named_parameters(), lr=0.1)
    layer(torch.randn(64, 32)).square().mean().backward()
    bias = layer.bias.detach().clone()
    optimizer.step()
    values = torch.linalg.svdvals(layer.weight.detach() - before) / (0.2 * 32**0.5 * 0.1)
    assert 0.3 < values.median() < 1.3 and values.max() < 1.4
    assert torch.allclose((layer.bias.detach() - bias).abs(), torch.full((32,), 0.1), atol=1e-3)
