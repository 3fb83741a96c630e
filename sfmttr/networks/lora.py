"""Low-rank adaptation (Hu et al., ICLR 2022): weights of linear layers change by a product of two thin matrices.

The products are parametrizations while the network is trained, and are merged into its weights at the end, so that the
result has the same parameters as before.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from sfmttr.errors import NetworkError
from sfmttr.networks.base import state_dict_cpu

_WEIGHT = "weight"
_WRAPPED = f".parametrizations.{_WEIGHT}."


class _LowRank(nn.Module):
    """weight (O, I) -> weight + up (O, R) @ down (R, I). `up` starts at 0, so that nothing changes at first."""

    def __init__(self, weight: Tensor, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        out, into = weight.shape
        down = torch.empty((rank, into)).uniform_(-1, 1, generator=generator) / math.sqrt(into)
        self.down = nn.Parameter(down.to(weight))
        self.up = nn.Parameter(weight.new_zeros((out, rank)))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


def add_low_rank(network: nn.Module, weights: Collection[str], rank: int, seed: int) -> dict[str, nn.Parameter]:
    """Add a trainable matrix of rank `rank` to every linear layer of `network` whose weight is named in `weights`.

    Returns the new parameters by name. Raises `NetworkError` when there is no such layer.
    """
    generator = torch.Generator().manual_seed(seed)
    layers = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and f"{name}.{_WEIGHT}" in weights
    }
    if not layers:
        raise NetworkError("The encoder of this network has no linear layers for LoRA to move; train another part.")
    for module in layers.values():
        parametrize.register_parametrization(module, _WEIGHT, _LowRank(module.weight, rank, generator))
    thin = tuple(f"{name}{_WRAPPED}0." for name in layers)
    return {name: value for name, value in network.named_parameters() if name.startswith(thin)}


def merged_state(network: nn.Module) -> Mapping[str, Tensor]:
    """Return `state_dict_cpu` with low-rank parts merged into their weights. `network` itself does not change."""
    state = dict(state_dict_cpu(network))
    for name in [name for name in state if _WRAPPED in name]:
        layer, rest = name.split(_WRAPPED)
        del state[name]
        if rest == "original":
            weight = network.get_submodule(layer).weight
            assert isinstance(weight, Tensor)
            state[f"{layer}.{_WEIGHT}"] = weight.detach().cpu().clone()
    return state
