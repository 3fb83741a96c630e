"""EfficientNet-B5 as first published: padding that keeps "same" sizes, and its own small BatchNorm epsilon.

Tan, Le: "EfficientNet: rethinking model scaling for convolutional neural networks", ICML 2019. Parameter names are
those that its PyTorch users' weights have.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from sfmttr.networks.base import checkpointed

_EPSILON = 1e-3
_STEM_WIDTH = 48
HEAD_WIDTH = 2048
_EXPANSION = 6
_SQUEEZE = 4


@dataclass(frozen=True)
class _Stage:
    kernel: int
    stride: int
    width: int
    count: int


_STAGES = (
    *(_Stage(3, 1, 24, 3), _Stage(3, 2, 40, 5), _Stage(5, 2, 64, 5), _Stage(3, 2, 128, 7)),
    *(_Stage(5, 1, 176, 7), _Stage(5, 2, 304, 9), _Stage(3, 1, 512, 3)),
)


def _norm(width: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width, eps=_EPSILON)


class _SameConv(nn.Conv2d):
    """A convolution with "same" padding for even sides; an odd remainder is added right and below."""

    def __init__(self, width_in: int, width_out: int, kernel: int, stride: int, groups: int = 1) -> None:
        super().__init__(width_in, width_out, kernel, stride, groups=groups, bias=False)
        missing = kernel - stride
        self.margins = (missing // 2, missing - missing // 2) * 2

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.pad(x, self.margins))


class _SqueezeExcite(nn.Module):
    """Channels weighted by a gate on their global averages."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(width, inner, 1)
        self.conv_expand = nn.Conv2d(inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = functional.silu(self.conv_reduce(x.mean((2, 3), keepdim=True)))
        return x * self.conv_expand(pooled).sigmoid()


class _Separable(nn.Module):
    """Depthwise separable convolution: the block of the first stage."""

    def __init__(self, width_in: int, width_out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.same_shape = stride == 1 and width_in == width_out
        self.conv_dw = _SameConv(width_in, width_in, kernel, stride, groups=width_in)
        self.bn1 = _norm(width_in)
        self.se = _SqueezeExcite(width_in, width_in // _SQUEEZE)
        self.conv_pw = nn.Conv2d(width_in, width_out, 1, bias=False)
        self.bn2 = _norm(width_out)

    def forward(self, x: Tensor) -> Tensor:
        y = self.se(functional.silu(self.bn1(self.conv_dw(x))))
        y = self.bn2(self.conv_pw(y))
        return x + y if self.same_shape else y


class _Inverted(nn.Module):
    """Inverted residual: expansion, depthwise convolution, projection."""

    def __init__(self, width_in: int, width_out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.same_shape = stride == 1 and width_in == width_out
        wide = _EXPANSION * width_in
        self.conv_pw = nn.Conv2d(width_in, wide, 1, bias=False)
        self.bn1 = _norm(wide)
        self.conv_dw = _SameConv(wide, wide, kernel, stride, groups=wide)
        self.bn2 = _norm(wide)
        self.se = _SqueezeExcite(wide, width_in // _SQUEEZE)
        self.conv_pwl = nn.Conv2d(wide, width_out, 1, bias=False)
        self.bn3 = _norm(width_out)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.silu(self.bn1(self.conv_pw(x)))
        y = self.se(functional.silu(self.bn2(self.conv_dw(y))))
        y = self.bn3(self.conv_pwl(y))
        return x + y if self.same_shape else y


class EfficientNetB5(nn.Module):
    """Features at 1/2, 1/4, 1/8, 1/16 and 1/32 of an input whose sides are multiples of 32.

    The last ones are the head convolution's, before its norm, which therefore is not here.
    """

    WIDTHS = (24, 40, 64, 176, HEAD_WIDTH)
    _GIVEN = (0, 1, 2, 4)
    """Stages whose features are returned, before the head's."""
    _RECOMPUTED = 3
    """Number of first stages under activation checkpointing, which saves 2 GB at 352 x 1216."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = _SameConv(3, _STEM_WIDTH, 3, 2)
        self.bn1 = _norm(_STEM_WIDTH)
        stages, width = [], _STEM_WIDTH
        for number, stage in enumerate(_STAGES):
            kind = _Inverted if number else _Separable
            blocks = []
            for i in range(stage.count):
                blocks.append(kind(width, stage.width, stage.kernel, 1 if i else stage.stride))
                width = stage.width
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = nn.Conv2d(width, HEAD_WIDTH, 1, bias=False)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = functional.silu(self.bn1(self.conv_stem(x)))
        features = []
        for number, stage in enumerate(self.blocks):
            x = checkpointed(stage, x) if number < self._RECOMPUTED else stage(x)
            if number in self._GIVEN:
                features.append(x)
        return [*features, self.conv_head(x)]
