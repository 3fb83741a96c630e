"""Parts shared by the self-supervised networks: decoder, input size, and conversion of its output to depth.

Godard, Mac Aodha, Firman, Brostow: "Digging into self-supervised monocular depth estimation", ICCV 2019, which
ManyDepth, CADepth and DIFFNet build on. Parameter names are theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfmttr.networks.base import DepthNetwork, hw_of_area
from sfmttr.networks.info import NetworkInfo
from sfmttr.types import HW

WORKING_AREA = 309 * 1024
"""Pixels of KITTI's images at a width of 1024, before sides are rounded."""
_MULTIPLE = 32
_LONGEST_SIDE = 1280
SETTINGS = ("height", "width", "use_stereo", "num_layers")
"""Entries of the authors' files that are no weights."""
CLASSIFIER = ("encoder.fc.weight", "encoder.fc.bias")
"""Classifier of a ResNet for ImageNet; in the files, but not used."""


class Conv3x3(nn.Module):
    """A 3 x 3 convolution with reflection padding."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width_in, width_out, 3, 1, 1, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class ConvElu(nn.Module):
    """`Conv3x3` followed by an ELU."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.conv = Conv3x3(width_in, width_out)

    def forward(self, x: Tensor) -> Tensor:
        return functional.elu(self.conv(x), inplace=True)


def doubled(x: Tensor) -> Tensor:
    """Upsample by 2, nearest."""
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


def normalised(image: Tensor) -> Tensor:
    """Normalize images in [0, 1] as these networks expect."""
    return (image - 0.45) / 0.225


def depth_of(disparity: Tensor) -> Tensor:
    """Return depth from 0.1 to 100 units, of a sigmoid's value."""
    return 1.0 / (0.01 + 9.99 * disparity)


def input_hw(hw: HW) -> HW:
    """Return a size of about 320 x 1024 pixels in all, at the image's aspect, sides multiples of 32 from 64 on.

    For KITTI's images it is 320 x 1024, the size in training.
    """
    return hw_of_area(hw, WORKING_AREA, _MULTIPLE, 2 * _MULTIPLE, _LONGEST_SIDE)


def state_of(files: Sequence[Mapping[str, Any]], parts: Sequence[str], without: Sequence[str]) -> dict[str, Tensor]:
    """Return one state dict of the files of `parts`, each below its part's name, without the entries in `without`."""
    skipped = (*without, *SETTINGS)
    return {
        f"{part}.{name}": value
        for part, file in zip(parts, files, strict=True)
        for name, value in file.items()
        if name not in skipped
    }


class UNetDecoder(nn.Module):
    """Five levels, coarsest first: convolution, upsampling by 2, skip connection, convolution.

    `forward` returns the disparity, a sigmoid's value, at the input's size.
    """

    WIDTHS = (256, 128, 64, 32, 16)
    """From 1/16 of the input to 1/1."""

    def __init__(self, encoder_widths: Sequence[int]) -> None:
        super().__init__()
        skips = (*encoder_widths[-2::-1], 0)
        below = (encoder_widths[-1], *self.WIDTHS)
        blocks: list[nn.Module] = []
        for coarse, width, skip in zip(below, self.WIDTHS, skips, strict=False):
            blocks += self._level(coarse, width, skip)
        # Heads at 1/2, 1/4 and 1/8 served the authors' training only; they are here because their file holds them.
        heads = [Conv3x3(width, 1) for width in self.WIDTHS[:0:-1]]
        self.decoder = nn.ModuleList([*blocks, *heads])
        self._per_level = len(blocks) // len(self.WIDTHS)
        self._heads = len(blocks)

    def _level(self, coarse: int, width: int, skip: int) -> list[nn.Module]:
        """Return the modules of one level; all but the first take the features after the skip connection."""
        return [ConvElu(coarse, width), ConvElu(width + skip, width)]

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        return self.disparity(self.levels(features), 0)

    def levels(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return features at 1/1, 1/2, 1/4, 1/8 and 1/16 of the input, from the encoder's `features` (finest first)."""
        x, skips = features[-1], list(features[:-1])
        levels = []
        for first in range(0, self._heads, self._per_level):
            x = doubled(self.decoder[first](x))
            x = self._joined(torch.cat((x, skips.pop()), dim=1) if skips else x, first)
            levels.append(x)
        return levels[::-1]

    def disparity(self, levels: Sequence[Tensor], scale: int) -> Tensor:
        """Return the disparity of one of the four finest levels; only the finest is used after training."""
        return torch.sigmoid(self.decoder[self._heads + scale](levels[scale]))

    def _joined(self, x: Tensor, first: int) -> Tensor:
        """Apply a level's modules after the skip connection."""
        return self.decoder[first + 1](x)


class MonodepthNetwork(DepthNetwork):
    """An encoder of one image and a decoder: depth up to scale, at the input size.

    `forward` takes multiples of 32, from 64 on.
    """

    def __init__(self, info: NetworkInfo, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.info = info
        self.encoder = encoder
        self.depth = decoder

    def input_hw(self, hw: HW) -> HW:
        return input_hw(hw)

    def forward(self, image: Tensor) -> Tensor:
        return depth_of(self.depth(self.encoder(image)))

    def encoder_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self.encoder.named_parameters("encoder")
