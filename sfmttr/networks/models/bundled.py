"""The bundled network: small, of plain convolutions, trained on synthetic images alone.

`tools/train_bundled.py` trains it. It is meant as the start of a refinement: the last convolution outputs log depth, so
that gradients of the log loss are equally strong near and far, and a refinement trains all layers between 1/8 of the
image's size on the way down and on the way up (see `encoder_parameters`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfmttr.networks.base import DepthNetwork, hw_of_area
from sfmttr.networks.info import NetworkInfo
from sfmttr.types import HW

_MULTIPLE = 32
_AREA = 192 * 640
_LONGEST_SIDE = 1280
_STEM_WIDTH = 16
_STAGE_WIDTHS = (40, 80, 128, 160)
"""At 1/4, 1/8, 1/16 and 1/32 of the input."""
_STAGE_IS_RESIDUAL = (False, True, True, True)
_DECODER_WIDTHS = (96, 64, 32, 16)
"""At 1/16, 1/8, 1/4 and 1/2."""
_EARLY_STAGES = 2
_COARSE_BLOCKS = 2
"""Decoder blocks, from the coarsest, that a refinement trains with the encoder."""
_TYPICAL_DEPTH = 8.0
"""Prediction of the untrained network, about the middle of the training depths."""


class _Conv(nn.Module):
    """A 3 x 3 convolution, its BatchNorm and, mostly, a ReLU.

    Outside training a norm is an affine map of channels, and is multiplied into the weights instead of passed over the
    features. Graphs that are traced or exported keep it apart, in the form that exporters and quantizers recognize.
    """

    def __init__(self, width_in: int, width_out: int, stride: int = 1, *, relu: bool = True) -> None:
        super().__init__()
        self.relu = relu
        self.conv = nn.Conv2d(width_in, width_out, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(width_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self._convolve(x)
        return functional.relu(x, inplace=True) if self.relu else x

    def _convolve(self, x: Tensor) -> Tensor:
        if self.training or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return self.norm(self.conv(x))
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        scale = self.norm.weight * (self.norm.running_var + self.norm.eps).rsqrt()
        bias = self.norm.bias - self.norm.running_mean * scale
        weight = self.conv.weight * scale[:, None, None, None]
        return functional.conv2d(x, weight, bias, self.conv.stride, self.conv.padding)


class _Residual(nn.Module):
    """relu(x + two convolutions of x)"""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _Conv(width, width)
        self.second = _Conv(width, width, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.second(self.first(x)), inplace=True)


class _Stage(nn.Module):
    """A convolution with stride 2, then another convolution or a residual block."""

    def __init__(self, width_in: int, width_out: int, *, residual: bool) -> None:
        super().__init__()
        self.down = _Conv(width_in, width_out, stride=2)
        self.then = _Residual(width_out) if residual else _Conv(width_out, width_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.down(x))


class _Context(nn.Module):
    """Adds global context to every position: depths in a street and in a room differ by tens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.whole = nn.Conv2d(width, width, 1)
        self.then = _Residual(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.then(functional.relu(x + self.whole(x.mean((2, 3), keepdim=True)), inplace=True))


class _Up(nn.Module):
    """Nearest upsampling by 2, joined with the encoder's features of that size.

    Channels are reduced before upsampling: a quarter of the work, and the same result.
    """

    def __init__(self, width_in: int, width_skip: int, width_out: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(width_in, width_out, 1, bias=False)
        self.skip = nn.Conv2d(width_skip, width_out, 1)
        self.mix = _Conv(width_out, width_out)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        up = functional.interpolate(self.narrow(x), scale_factor=2.0, mode="nearest")
        return self.mix(up + self.skip(skip))


class Bundled(DepthNetwork):
    """Depth up to scale, at half the input size. `forward` takes multiples of 32."""

    preferred_memory_format = torch.channels_last
    cached_step_cost = 0.5

    def __init__(self, info: NetworkInfo) -> None:
        super().__init__()
        self.info = info
        widths = (_STEM_WIDTH, *_STAGE_WIDTHS)
        self.stem = _Conv(3, widths[0], stride=2)
        self.stages = nn.ModuleList(
            _Stage(width_in, width_out, residual=residual)
            for width_in, width_out, residual in zip(widths, widths[1:], _STAGE_IS_RESIDUAL, strict=False)
        )
        self.context = _Context(widths[-1])
        below = (widths[-1], *_DECODER_WIDTHS)
        self.ups = nn.ModuleList(map(_Up, below, widths[-2::-1], _DECODER_WIDTHS))
        self.head = nn.Conv2d(_DECODER_WIDTHS[-1], 1, 1)
        nn.init.constant_(self.head.bias, math.log(_TYPICAL_DEPTH))  # type: ignore[arg-type]

    def input_hw(self, hw: HW) -> HW:
        """Return a size of about 192 x 640 pixels in all, at the image's aspect: multiples of 32, at most 1280."""
        return hw_of_area(hw, _AREA, _MULTIPLE, _MULTIPLE, _LONGEST_SIDE)

    def stem_features(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return features at 1/2, 1/4 and 1/8: 4 MB for a frame of 192 x 640."""
        features = [self.stem((image - 0.45) / 0.25)]
        for stage in self.stages[:_EARLY_STAGES]:
            features.append(stage(features[-1]))
        return tuple(features)

    def log_depth_from_stem(self, *features: Tensor) -> Tensor:
        """Return log depth from the features of the stem."""
        pyramid = list(features)
        for stage in self.stages[_EARLY_STAGES:]:
            pyramid.append(stage(pyramid[-1]))
        x = self.context(pyramid.pop())
        for up in self.ups:
            x = up(x, pyramid.pop())
        return self.head(x)

    def log_depth(self, image: Tensor) -> Tensor:
        """Return log depth (B, 1, h / 2, w / 2), which is what is trained."""
        return self.log_depth_from_stem(*self.stem_features(image))

    def forward_from_stem(self, *features: Tensor) -> Tensor:
        return self.log_depth_from_stem(*features).exp()

    def forward(self, image: Tensor) -> Tensor:
        return self.forward_from_stem(*self.stem_features(image))

    def encoder_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Return the parameters of stages, context, and the decoder's coarse half.

        On images of another domain, the layout of large surfaces is wrong first, and that is decided at 1/32 to 1/8
        on the way down *and* up. The fine half of the decoder finds edges, for which a few thousand points are little
        evidence.
        """
        fine = ("head.", *(f"ups.{i}." for i in range(_COARSE_BLOCKS, len(_DECODER_WIDTHS))))
        return ((name, value) for name, value in self.named_parameters() if not name.startswith(fine))

    def stem_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        early = ("stem.", *(f"stages.{i}." for i in range(_EARLY_STAGES)))
        return ((name, value) for name, value in self.named_parameters() if name.startswith(early))


def build(info: NetworkInfo) -> Bundled:
    return Bundled(info)
