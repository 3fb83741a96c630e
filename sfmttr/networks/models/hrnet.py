"""HRNet-18: branches of full and lower resolutions in parallel, which exchange what they know after every few blocks.

Wang et al.: "Deep high-resolution representation learning for visual recognition", PAMI 2020. Parameter names are the
authors'. All that any stage says is given, not its last word alone: DIFFNet decodes from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from sfmttr.networks.models.resnet import BasicBlock, Bottleneck, stage

WIDTHS = (18, 36, 72, 144)
"""Of the branches at 1/4, 1/8, 1/16 and 1/32."""
STEM_WIDTH = 64
_MODULES = (1, 4, 3)
"""Exchanges in stages 2, 3 and 4."""
_BLOCKS = 4


def _down(width_in: int, width_out: int, *, relu: bool) -> nn.Sequential:
    """Half the size."""
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
            said = []
            for source, (path, x) in enumerate(zip(paths, features, strict=True)):
                y = path(x)
                # The size is the target's, not a multiple of the source's: odd sides were rounded up on the way down.
                said.append(_to_size_of(features[target], y) if source > target else y)
            fused.append(functional.relu(sum(said[1:], start=said[0])))
        return fused


def _path(source: int, target: int) -> nn.Module:
    """From one branch to another, but for the enlarging."""
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
    """`forward` gives, for 1/2, 1/4, 1/8, 1/16 and 1/32 of the input, the features of every stage, early ones first."""

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
        """Branches go on as they are; the new one starts from the smallest."""
        new = nn.Sequential(_down(WIDTHS[index - 1], WIDTHS[index], relu=True))
        return nn.ModuleList([*(nn.Identity() for _ in range(index)), new])

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        half = functional.relu(self.bn1(self.conv1(x)))
        quarter = functional.relu(self.bn2(self.conv2(half)))
        said: list[list[Tensor]] = [[half], [quarter], [], [], []]
        trunk = self.layer1(quarter)
        features = [transition(trunk) for transition in self.transition1]
        for exchange, transition in ((self.stage2, self.transition2), (self.stage3, self.transition3)):
            features = exchange(features)
            self._note(said, features)
            features = [*features, transition[-1](features[-1])]
        self._note(said, self.stage4(features))
        return said

    @staticmethod
    def _note(said: list[list[Tensor]], features: Sequence[Tensor]) -> None:
        for level, x in enumerate(features, start=1):
            said[level].append(x)
