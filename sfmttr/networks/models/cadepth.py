"""CADepth: a ResNet-50 and a decoder with channel attention, self-supervised on KITTI.

Yan, Zhao, Bu, Jin: "Channel-wise attention-based network for self-supervised monocular depth estimation", 3DV 2021;
https://github.com/kamiLight/CADepth-master. Written from the paper and checked against the published architecture;
parameter names are the authors', below `encoder.` and `depth.`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from sfmttr.networks.info import NetworkInfo
from sfmttr.networks.models.monodepth import CLASSIFIER, MonodepthNetwork, UNetDecoder, normalised, state_of
from sfmttr.networks.models.resnet import COUNTS_50, Bottleneck, ResNet

_WIDTHS = (64, 256, 512, 1024, 2048)


def structure_perceived(x: Tensor) -> Tensor:
    """Add to every channel a mixture of the channels least like it: attention over inner products of channels."""
    flat = x.flatten(2)
    alike = flat @ flat.transpose(1, 2)
    unlike = alike.amax(dim=2, keepdim=True) - alike
    return (unlike.softmax(dim=2) @ flat).reshape(x.shape) + x


class _DetailEmphasis(nn.Module):
    """A convolution, whose channels are then raised by a gate on their global averages."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(width, width, 3), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        )
        self.global_path = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, width, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        return x * self.global_path(x) + x


class _Decoder(UNetDecoder):
    def _level(self, coarse: int, width: int, skip: int) -> list[nn.Module]:
        return [*super()._level(coarse, width, skip), _DetailEmphasis(width + skip)]

    def _joined(self, x: Tensor, first: int) -> Tensor:
        return self.decoder[first + 1](self.decoder[first + 2](x))

    def levels(self, features: Sequence[Tensor]) -> list[Tensor]:
        return super().levels([*features[:-1], structure_perceived(features[-1])])


class _Encoder(nn.Module):
    """A ResNet, one module deeper, as in the authors' file."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = ResNet(Bottleneck, COUNTS_50)

    def forward(self, image: Tensor) -> list[Tensor]:
        return self.encoder(normalised(image))


class CADepth(MonodepthNetwork):
    """A ResNet-50, and a decoder with attention over channels."""

    def __init__(self, info: NetworkInfo) -> None:
        super().__init__(info, _Encoder(), _Decoder(_WIDTHS))

    def merge_checkpoints(self, files: Sequence[Mapping[str, Any]]) -> Mapping[str, Tensor]:
        return state_of(files, ("encoder", "depth"), CLASSIFIER)


def build(info: NetworkInfo) -> CADepth:
    return CADepth(info)
