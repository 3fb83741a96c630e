"""Muon for the convolutions' matrices, AdamW for everything else, as one optimiser.

Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024): the momentum is made orthogonal, so
that every direction of a matrix learns at the same pace. It costs a twentieth of a step here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_ADAM: dict[str, Any] = {"betas": (0.9, 0.98), "eps": 1e-8}
_MUON_RATE = 10.0
"""Its learning rate, in AdamW's: a step of Muon has a length of its own."""


def make_optimizer(
    network: nn.Module, learning_rate: float, weight_decay: float, *, muon: bool
) -> torch.optim.Optimizer:
    """Weights of convolutions decay; norms and biases do not."""
    named = [(name, p) for name, p in network.named_parameters() if p.requires_grad]
    matrices = [p for _, p in named if p.ndim == 4 and p.shape[0] > 1 and p.shape[1] > 3]
    chosen = set(map(id, matrices))
    others = [p for _, p in named if p.ndim == 4 and id(p) not in chosen]
    plain = [p for _, p in named if p.ndim != 4]
    groups: list[dict[str, Any]] = [
        {"params": matrices, "lr": learning_rate * (_MUON_RATE if muon else 1.0), "weight_decay": weight_decay},
        {"params": others, "lr": learning_rate, "weight_decay": weight_decay},
        {"params": plain, "lr": learning_rate, "weight_decay": 0.0},
    ]
    if not muon:
        return torch.optim.AdamW(groups, **_ADAM)
    groups[0]["muon"] = True
    return MuonAdamW(groups)


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """(m, n) with singular values near 1 and the singular vectors of `matrix`: Newton-Schulz, as its authors set it.

    Every step multiplies by a polynomial of the small Gram matrix, so the steps are made on that alone (they commute),
    and the large matrix is multiplied once.
    """
    x = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = x / (x.norm() + 1e-7)
    gram = x @ x.T
    product = torch.eye(len(gram), dtype=x.dtype)
    for _ in range(steps):
        factor = torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        factor.diagonal().add_(3.4445)
        product = factor @ product
        gram = factor @ gram @ factor
    x = product @ x
    return x if matrix.shape[0] <= matrix.shape[1] else x.T


class MuonAdamW(torch.optim.Optimizer):
    """Groups with `muon` learn by Muon, the others by AdamW."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {"lr": 1e-3, "weight_decay": 0.0, "muon": False, "momentum": 0.95, **_ADAM})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    (self._muon if group["muon"] else self._adam)(parameter, parameter.grad, group)

    def _muon(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        momentum = group["momentum"]
        state["momentum"].lerp_(gradient, 1 - momentum)
        ahead = gradient.lerp(state["momentum"], momentum)
        rows = ahead.reshape(len(ahead), -1)
        # Entries of the step have about the same size, whatever the shape of the matrix.
        update = orthogonal(rows) * (max(1.0, rows.shape[0] / rows.shape[1]) ** 0.5)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(update.reshape(ahead.shape), alpha=group["lr"])

    def _adam(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["mean"], state["square"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
        state["step"] += 1
        first, second = group["betas"]
        state["mean"].lerp_(gradient, 1 - first)
        state["square"].lerp_(gradient.square(), 1 - second)
        mean = state["mean"] / (1 - first ** state["step"])
        root = (state["square"] / (1 - second ** state["step"])).sqrt()
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.addcdiv_(mean, root + group["eps"], value=-group["lr"])
