"""Adapter that turns a disparity network into a depth network, by the shift that was fitted on a clip."""

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

    Shift and floor are buffers, so that a file of its weights holds all that converts disparity to depth.
    """

    loss_in_inverse_depth = True
    shift: Tensor
    floor: Tensor

    def __init__(self, network: DepthNetwork, inverse: InverseDepth) -> None:
        super().__init__()
        self.network = network
        self.info = replace(network.info, kind=network.info.kind.as_depth)
        self.source_offsets = network.source_offsets
        self.preferred_memory_format = network.preferred_memory_format
        self.finetune_settings = network.finetune_settings
        self.max_batch_size = network.max_batch_size
        self.cached_step_cost = network.cached_step_cost
        self.supports_dynamic_size = network.supports_dynamic_size
        self.register_buffer("shift", torch.tensor(inverse.shift, dtype=torch.float32))
        self.register_buffer("floor", torch.tensor(inverse.floor, dtype=torch.float32))

    def input_hw(self, hw: HW) -> HW:
        return self.network.input_hw(hw)

    def _depth(self, disparity: Tensor) -> Tensor:
        return depth_of(disparity - self.shift, self.floor)

    def forward(self, image: Tensor) -> Tensor:
        # float32: for far pixels the shifted disparity is a small difference of large numbers.
        return in_float32(self._depth, self.network(image))

    def stack_source_frames(self, images: Tensor, frame: int, left_out: Collection[int] = ()) -> Tensor:
        return self.network.stack_source_frames(images, frame, left_out)

    def crop(self, image: Tensor) -> Tensor:
        return self.network.crop(image)

    def pad_to_full(self, depth: Tensor, hw: HW) -> Tensor:
        return self.network.pad_to_full(depth, hw)

    def valid_region(self, grid: np.ndarray, hw: HW) -> np.ndarray:
        return self.network.valid_region(grid, hw)

    def stem_features(self, image: Tensor) -> tuple[Tensor, ...]:
        return self.network.stem_features(image)

    def forward_from_stem(self, *features: Tensor) -> Tensor:
        return in_float32(self._depth, self.network.forward_from_stem(*features))

    def encoder_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((f"network.{name}", value) for name, value in self.network.encoder_parameters())

    def stem_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((f"network.{name}", value) for name, value in self.network.stem_parameters())

    def dynamic_shape_tracing(self) -> AbstractContextManager[None]:
        return self.network.dynamic_shape_tracing()

    def build_config(self) -> Mapping[str, str]:
        return self.network.build_config()


def empty_disparity_network(network: DepthNetwork) -> DisparityNetwork:
    """Return `network` as a depth network whose shift and floor are still to be loaded."""
    return DisparityNetwork(network, InverseDepth(0.0, 1.0))
