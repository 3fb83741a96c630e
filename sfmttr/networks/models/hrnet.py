"""HRNet-18: branches of full and lower resolutions in parallel, which exchange features after every few blocks.

Wang et al.: "Deep high-resolution representation learning for visual recognition", PAMI 2020. Parameter names are the
authors'. The features of all stages are returned, not the last ones alone: DIFFNet decodes from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from sfmttr.networks.models.resnet import BasicBlock, Bottleneck, stage

WIDTHS = (18, 36, 72, 144)
"""Channels of the branches at 1/4, 1/8, 1/16 and 1/32."""
STEM_WIDTH = 64
_MODULES = (1, 4, 3)
"""Exchanges in stages 2, 3 and 4."""
_BLOCKS = 4


def _down(width_in: int, width_out: int, *, relu: bool) -> nn.Sequential:
    """Return a convolution with stride 2 and its BatchNorm."""
    parts = [nn.Conv2d(width_in, width_out, 3, 2, 1, bias=False), nn.BatchNorm2d(width_out)]
    return nn.Sequential(*parts, *([nn.ReLU(inplace=True)] if relu else []))


class _Exchange(nn.Module):
    """Blocks on every branch; then each becomes the sum of all, brought to its size and width."""

    def __init__(self, branches: int) -> None:
        super().__init__()
        widths = WIDTHS[:branches]
        self.branches = nn.ModuleList(stage(BasicBlock, width, width, _BLOCKS, 1) for width in widths)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_path(source, target) for source in range(branches)) for target in range(branches)
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        features = [branch(x) for branch, x in zip(self.branches, features, strict=True)]
        fused = []
        for target, paths in enumerate(self.fuse_layers):
            assert isinstance(paths, nn.ModuleList)
            terms = []
            for source, (path, x) in enumerate(zip(paths, features, strict=True)):
                y = path(x)
                # The size is the target's, not a multiple of the source's: odd sides were rounded up on the way down.
                terms.append(_to_size_of(features[target], y) if source > target else y)
            fused.append(functional.relu(sum(terms[1:], start=terms[0])))
        return fused


def _path(source: int, target: int) -> nn.Module:
    """Return the layers from one branch to another, without the upsampling."""
    if source == target:
        return nn.Identity()
    if source > target:
        return nn.Sequential(nn.Conv2d(WIDTHS[source], WIDTHS[target], 1, bias=False), nn.BatchNorm2d(WIDTHS[target]))
    widths = [WIDTHS[source]] * (target - source) + [WIDTHS[target]]
    steps = enumerate(pairwise(widths), start=1)
    return nn.Sequential(*(_down(a, b, relu=i < target - source) for i, (a, b) in steps))


def _to_size_of(like: Tensor, x: Tensor) -> Tensor:
    return functional.interpolate(x, like.shape[2:], mode="bilinear", align_corners=True)


class HRNet18(nn.Module):
    """`forward` returns, for 1/2, 1/4, 1/8, 1/16 and 1/32 of the input, the features of all stages in order."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, STEM_WIDTH, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM_WIDTH)
        self.conv2 = nn.Conv2d(STEM_WIDTH, STEM_WIDTH, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(STEM_WIDTH)
        self.layer1 = stage(Bottleneck, STEM_WIDTH, 64, 4, 1)
        width = 64 * Bottleneck.expansion
        widen = nn.Sequential(
            nn.Conv2d(width, WIDTHS[0], 3, 1, 1, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU(inplace=True)
        )
        self.transition1 = nn.ModuleList([widen, nn.Sequential(_down(width, WIDTHS[1], relu=True))])
        self.stage2 = self._exchanges(0)
        self.transition2 = self._new_branch(2)
        self.stage3 = self._exchanges(1)
        self.transition3 = self._new_branch(3)
        self.stage4 = self._exchanges(2)

    @staticmethod
    def _exchanges(number: int) -> nn.Sequential:
        return nn.Sequential(*(_Exchange(number + 2) for _ in range(_MODULES[number])))

    @staticmethod
    def _new_branch(index: int) -> nn.ModuleList:
        """Return identities for the branches so far, and the start of a new one from the smallest."""
        new = nn.Sequential(_down(WIDTHS[index - 1], WIDTHS[index], relu=True))
        return nn.ModuleList([*(nn.Identity() for _ in range(index)), new])

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        half = functional.relu(self.bn1(self.conv1(x)))
        quarter = functional.relu(self.bn2(self.conv2(half)))
        levels: list[list[Tensor]] = [[half], [quarter], [], [], []]
        trunk = self.layer1(quarter)
        features = [transition(trunk) for transition in self.transition1]
        for exchange, transition in ((self.stage2, self.transition2), (self.stage3, self.transition3)):
            features = exchange(features)
            self._append(levels, features)
            features = [*features, transition[-1](features[-1])]
        self._append(levels, self.stage4(features))
        return levels

    @staticmethod
    def _append(levels: list[list[Tensor]], features: Sequence[Tensor]) -> None:
        for level, x in enumerate(features, start=1):
            levels[level].append(x)
