"""Residual networks of 18 and 50 layers, in pieces, because their users name and join them differently.

He, Zhang, Ren, Sun: "Deep residual learning for image recognition", CVPR 2016. Parameter names below a stage are those
that are usual in PyTorch, so that published weights load unchanged.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn


class Block(nn.Module):
    """A residual block; `expansion` is its output's width over its inner one."""

    expansion: ClassVar[int]

    def __init__(self, width_in: int, width: int, stride: int = 1) -> None:
        super().__init__()
        width_out = self.expansion * width
        self.downsample: nn.Module | None = None
        if stride != 1 or width_in != width_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(width_in, width_out, 1, stride, bias=False), nn.BatchNorm2d(width_out)
            )
        self.relu = nn.ReLU(inplace=True)

    def residual(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        same = x if self.downsample is None else self.downsample(x)
        return self.relu(self.residual(x) + same)


class BasicBlock(Block):
    """Two 3 x 3 convolutions."""

    expansion = 1

    def __init__(self, width_in: int, width: int, stride: int = 1) -> None:
        super().__init__(width_in, width, stride)
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def residual(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))


class Bottleneck(Block):
    """A 3 x 3 convolution of a quarter of the channels, between two that narrow and widen. It is what strides."""

    expansion = 4

    def __init__(self, width_in: int, width: int, stride: int = 1) -> None:
        super().__init__(width_in, width, stride)
        self.conv1 = nn.Conv2d(width_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)

    def residual(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        return self.bn3(self.conv3(self.relu(self.bn2(self.conv2(x)))))


def stage(block: type[Block], width_in: int, width: int, count: int, stride: int) -> nn.Sequential:
    """`count` blocks, of which the first strides; widths of features are `width_in` and `block.expansion * width`."""
    inner = block.expansion * width
    return nn.Sequential(block(width_in, width, stride), *(block(inner, width) for _ in range(1, count)))


class ResNet(nn.Module):
    """Features at 1/2, 1/4, 1/8, 1/16 and 1/32 of the input, without a classifier."""

    def __init__(self, block: type[Block], counts: tuple[int, int, int, int], width_in: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        times = block.expansion
        self.layer1 = stage(block, 64, 64, counts[0], 1)
        self.layer2 = stage(block, 64 * times, 128, counts[1], 2)
        self.layer3 = stage(block, 128 * times, 256, counts[2], 2)
        self.layer4 = stage(block, 256 * times, 512, counts[3], 2)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [self.relu(self.bn1(self.conv1(x)))]
        features.append(self.layer1(self.maxpool(features[0])))
        for layer in (self.layer2, self.layer3, self.layer4):
            features.append(layer(features[-1]))
        return features


COUNTS_18, COUNTS_50 = (2, 2, 2, 2), (3, 4, 6, 3)
"""Blocks by stage: of basic blocks in a ResNet-18, of bottlenecks in a ResNet-50."""
