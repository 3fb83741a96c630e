"""A network that gives disparity, with the shift that a clip gave it: from then on it gives depth."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from sfmttr.networks.base import DepthNetwork, in_float32
from sfmttr.networks.inverse_depth import InverseDepth, depth_of
from sfmttr.types import HW


class DisparityNetwork(DepthNetwork):
    """Depth up to scale, `1 / (disparity - shift)`, guarded as `inverse_depth.depth_of` says.

    Shift and floor are part of its weights, so that whoever loads them has all that makes depth of what the network
    says.
    """

    learns_inverse = True
    shift: Tensor
    floor: Tensor

    def __init__(self, network: DepthNetwork, inverse: InverseDepth) -> None:
        super().__init__()
        self.network = network
        self.info = replace(network.info, kind=network.info.kind.as_depth)
        self.neighbours = network.neighbours
        self.preferred_memory_format = network.preferred_memory_format
        self.trainings = network.trainings
        self.most_at_once = network.most_at_once
        self.late_cost = network.late_cost
        self.any_size = network.any_size
        self.register_buffer("shift", torch.tensor(inverse.shift, dtype=torch.float32))
        self.register_buffer("floor", torch.tensor(inverse.floor, dtype=torch.float32))

    def working_hw(self, hw: HW) -> HW:
        return self.network.working_hw(hw)

    def _depth(self, disparity: Tensor) -> Tensor:
        return depth_of(disparity - self.shift, self.floor)

    def forward(self, image: Tensor) -> Tensor:
        # float32: what is left of a far place after the shift is a small difference of large numbers.
        return in_float32(self._depth, self.network(image))

    def with_neighbours(self, images: Tensor, frame: int, left_out: Collection[int] = ()) -> Tensor:
        return self.network.with_neighbours(images, frame, left_out)

    def crop(self, image: Tensor) -> Tensor:
        return self.network.crop(image)

    def uncrop(self, depth: Tensor, hw: HW) -> Tensor:
        return self.network.uncrop(depth, hw)

    def sees(self, grid: np.ndarray, hw: HW) -> np.ndarray:
        return self.network.sees(grid, hw)

    def early_features(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.network.early_features(image)

    def depth_from_early(self, *features: Tensor) -> Tensor:
        return in_float32(self._depth, self.network.depth_from_early(*features))

    def encoder_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((f"network.{name}", value) for name, value in self.network.encoder_parameters())

    def early_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((f"network.{name}", value) for name, value in self.network.early_parameters())

    def free_sizes(self) -> AbstractContextManager[None]:
        return self.network.free_sizes()

    def blueprint(self) -> Mapping[str, str]:
        return self.network.blueprint()


def placeholder(network: DepthNetwork) -> DisparityNetwork:
    """`network`, with a shift that is still to be loaded."""
    return DisparityNetwork(network, InverseDepth(0.0, 1.0))
