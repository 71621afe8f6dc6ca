"""Muon for matrices and kernels, AdamW for everything else: the same quality in fewer samples.

Muon (Jordan et al. 2024) steps along the nearest orthogonal matrix of the momentum, found by Newton-Schulz iteration;
torch's own does that in bfloat16, which CPUs compute a hundred times slower than the float32 here. Processes that train
together share that work, and add up what they found.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as processes
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
            inner = parameter.ndim >= 2 and not any(part in name for part in OUTER)
            (matrices if inner else others).append(parameter)
        groups = [{"params": matrices, "orthogonal": True}, {"params": others, "orthogonal": False}]
        super().__init__(groups, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["orthogonal"]:
                self._orthogonal(parameters, group["lr"])
            else:
                for parameter in parameters:
                    self._adam(parameter, group["lr"])

    def _orthogonal(self, parameters: list[nn.Parameter], lr: float) -> None:
        together = processes.is_available() and processes.is_initialized()
        rank, count = (processes.get_rank(), processes.get_world_size()) if together else (0, 1)
        updates = []
        for number, parameter in enumerate(parameters):
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            state["momentum"].lerp_(parameter.grad, 1 - MOMENTUM)
            ahead = parameter.grad.lerp(state["momentum"], MOMENTUM).flatten(1)
            updates.append(_orthogonalised(ahead) if number % count == rank else torch.zeros_like(ahead))
        if together:
            found = nn.utils.parameters_to_vector(updates)
            processes.all_reduce(found)
            nn.utils.vector_to_parameters(found, updates)
        for parameter, update in zip(parameters, updates, strict=True):
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
        first, second = (1 - beta ** int(state["step"]) for beta in BETAS)
        parameter.addcdiv_(state["first"], (state["second"] / second).sqrt_() + EPS, value=-lr / first)


def _orthogonalised(matrix: Tensor) -> Tensor:
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.T.contiguous() if tall else x
