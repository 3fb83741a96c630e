"""DIFFNet: HRNet-18, all of whose stages are decoded, self-supervised on KITTI.

Zhou, Greenwood, Taylor: "Self-supervised monocular depth estimation with internal feature fusion", BMVC 2021;
https://github.com/brandleyzhou/DIFFNet. Written from the paper and checked against the published architecture;
parameter names are the authors', below `encoder.` and `depth.`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfmttr.errors import WeightsError
from sfmttr.networks.info import NetworkInfo
from sfmttr.networks.models.hrnet import STEM_WIDTH, WIDTHS, HRNet18
from sfmttr.networks.models.monodepth import Conv3x3, ConvElu, MonodepthNetwork, doubled, state_of

_DECODER_WIDTHS = (256, 128, 64, 32)
"""At 1/16, 1/8, 1/4 and 1/2."""
_LAST_WIDTH = 16
_REDUCTION = 16
_ORDER = ("up_x9_0", "up_x9_1", "72", "36", "18", "9", *(f"dispConvScale{scale}" for scale in range(4)))
"""The authors' names of `decoder.0`, `decoder.1`, ...: their file holds every weight under both."""


class _ChannelAttention(nn.Module):
    """Channels weighted by a gate on their global averages."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = width // _REDUCTION
        self.fc = nn.Sequential(
            nn.Linear(width, inner, bias=False), nn.ReLU(inplace=True), nn.Linear(inner, width, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc(x.mean((2, 3))))[:, :, None, None]


class _Fusion(nn.Module):
    """Upsampling by 2, joined with all of the encoder's features of that size."""

    def __init__(self, width_in: int, width_skip: int, width_out: int) -> None:
        super().__init__()
        self.ca = _ChannelAttention(width_in + width_skip)
        self.conv_se = nn.Conv2d(width_in + width_skip, width_out, 3, 1, 1)

    def forward(self, coarse: Tensor, skips: Sequence[Tensor]) -> Tensor:
        joined = torch.cat((doubled(coarse), *skips), dim=1)
        return functional.relu(self.conv_se(self.ca(joined)), inplace=True)


class _Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        # Encoder features at 1/16, 1/8, 1/4 and 1/2: of two stages, three, three and the stem, the stem.
        skips = (2 * WIDTHS[2], 3 * WIDTHS[1], 3 * WIDTHS[0] + STEM_WIDTH, STEM_WIDTH)
        coarse = (WIDTHS[3], *_DECODER_WIDTHS)
        last = [ConvElu(_DECODER_WIDTHS[-1], _LAST_WIDTH), ConvElu(_LAST_WIDTH, _LAST_WIDTH)]
        heads = [Conv3x3(width, 1) for width in (_LAST_WIDTH, *_DECODER_WIDTHS[:0:-1])]
        self.decoder = nn.ModuleList([*last, *map(_Fusion, coarse, skips, _DECODER_WIDTHS), *heads])

    def forward(self, skips: Sequence[Sequence[Tensor]]) -> Tensor:
        return self.disparity(self.levels(skips), 0)

    def levels(self, skips: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Return features at 1/1, 1/2, 1/4 and 1/8 of the input."""
        *finer, (x,) = skips
        levels = []
        for fusion, features in zip(self.decoder[2:6], reversed(finer), strict=True):
            x = fusion(x, features)
            levels.append(x)
        levels.append(self.decoder[1](doubled(self.decoder[0](x))))
        return levels[:0:-1]

    def disparity(self, levels: Sequence[Tensor], scale: int) -> Tensor:
        """Return the disparity of one level; only the finest is used after training."""
        return torch.sigmoid(self.decoder[6 + scale](levels[scale]))


class DIFFNet(MonodepthNetwork):
    """HRNet-18, and a decoder that takes in all of its stages."""

    def __init__(self, info: NetworkInfo) -> None:
        super().__init__(info, HRNet18(), _Decoder())

    def merge_checkpoints(self, files: Sequence[Mapping[str, Any]]) -> Mapping[str, Tensor]:
        """Raises `WeightsError` when the two copies of a weight of the decoder differ."""
        state = state_of(files, ("encoder", "depth"), ())
        for place, alias in enumerate(_ORDER):
            for name in [name for name in state if name.startswith(f"depth.convs.{alias}.")]:
                copy = state.pop(name)
                kept = state.setdefault(name.replace(f"convs.{alias}.", f"decoder.{place}.", 1), copy)
                if not torch.equal(kept, copy):
                    raise WeightsError(f"{name} differs from its copy in the same file: download the weights again")
        return state


def build(info: NetworkInfo) -> DIFFNet:
    return DIFFNet(info)
