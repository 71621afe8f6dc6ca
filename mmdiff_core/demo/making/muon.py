"""Muon for matrices and kernels, AdamW for everything else: the same quality in fewer samples.

Muon (Jordan et al. 2024) steps along the nearest orthogonal matrix of the momentum, found by Newton-Schulz iteration;
torch's own does that in bfloat16, which CPUs compute a hundred times slower than the float32 here.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

MOMENTUM, BETAS, EPS = 0.95, (0.9, 0.98), 1e-8
OUTER = ("embed", "conv_in", "conv_out", "queries", "read_back")
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic iteration, by the authors of Muon


class Muon(torch.optim.Optimizer):
    """One optimizer with two kinds of groups; `lr` of both is the size of a weight's step."""

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], lr: float) -> None:
        """parameters: with their names. Embeddings, vectors, and what reads or writes latents are AdamW's."""
        matrices, others = [], []
        for name, parameter in parameters:
            inner = parameter.ndim >= 2 and not any(
                end in name for end in ("embed", "conv_in", "conv_out", "queries", "read_back")
            )
            (matrices if inner else others).append(parameter)
        groups = [{"params": matrices, "orthogonal": True}, {"params": others, "orthogonal": False}]
        super().__init__(groups, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    (self._orthogonal if group["orthogonal"] else self._adam)(parameter, group["lr"])

    def _orthogonal(self, parameter: Tensor, lr: float) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        state["momentum"].lerp_(parameter.grad, 1 - MOMENTUM)
        ahead = parameter.grad.lerp(state["momentum"], MOMENTUM).flatten(1)
        update = _orthogonalised(ahead)
        # As large as a step of AdamW, whatever the shape.
        parameter.add_(update.view_as(parameter), alpha=-0.2 * max(update.shape) ** 0.5 * lr)

    def _adam(self, parameter: Tensor, lr: float) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros(())
            state["first"], state["second"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        state["first"].lerp_(parameter.grad, 1 - BETAS[0])
        state["second"].lerp_(parameter.grad.square(), 1 - BETAS[1])
        first = state["first"] / (1 - BETAS[0] ** state["step"])
        second = state["second"] / (1 - BETAS[1] ** state["step"])
        parameter.addcdiv_(first, second.sqrt() + EPS, value=-lr)


def _orthogonalised(matrix: Tensor) -> Tensor:
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x.T if tall else x
