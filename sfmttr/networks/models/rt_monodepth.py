"""RT-MonoDepth-S: a small self-supervised network of plain convolutions, without normalization layers.

Feng, Chen, Zhang, Hu, Li, Ge: "Real-Time Monocular Depth Estimation on Embedded Systems", ICIP 2024;
https://github.com/Ecalpal/RT-MonoDepth (weights for non-commercial use, by its README). Written from the paper and
checked against the published architecture; parameter names are the authors', below `encoder.` and `depth.`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfmttr.networks.base import DepthNetwork
from sfmttr.networks.info import NetworkInfo
from sfmttr.types import HW

_LONG_SIDE = 640
_MULTIPLE = 32
_ENCODER_WIDTHS = (64, 64, 128, 192)
_DECODER_WIDTHS = (192, 96, 64, 32, 16)
_EARLY_STAGES = 2
_SETTINGS = ("height", "width", "use_stereo")
"""Entries of the authors' encoder file that are no weights."""


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, _ENCODER_WIDTHS[0], 7, 2, 3, bias=False)
        self.convs = nn.ModuleList(map(self._stage, _ENCODER_WIDTHS[:-1], _ENCODER_WIDTHS[1:]))

    @staticmethod
    def _stage(width_in: int, width_out: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(width_in, width_out, 3, 2, 1),
            nn.LeakyReLU(0.1, inplace=True),
            nn.Conv2d(width_out, width_out, 3, 1, 1),
            nn.LeakyReLU(0.1, inplace=True),
        )

    def stem(self, image: Tensor) -> Tensor:
        """Return features at 1/8: most of the encoder's time, with a third of its parameters."""
        x = functional.relu(self.conv1((image - 0.45) / 0.225), inplace=True)
        for stage in self.convs[:_EARLY_STAGES]:
            x = stage(x)
        return x

    def after_stem(self, x: Tensor) -> Tensor:
        """Return features at 1/16."""
        for stage in self.convs[_EARLY_STAGES:]:
            x = stage(x)
        return x

    def stem_parameters(self, prefix: str) -> Iterator[tuple[str, nn.Parameter]]:
        """Return the parameters that `stem` uses, with names below `prefix`."""
        late = tuple(f"convs.{i}." for i in range(_EARLY_STAGES, len(self.convs)))
        return ((f"{prefix}.{name}", value) for name, value in self.named_parameters() if not name.startswith(late))


class _ConvElu(nn.Module):
    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width_in, width_out, 3, 1, 1, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        return functional.elu(self.conv(x), inplace=True)


class _Head(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv3 = nn.Conv2d(width, 1, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(x)


class _Decoder(nn.Module):
    """Four times: convolution, nearest upsampling by 2, convolution. Without skip connections."""

    def __init__(self) -> None:
        super().__init__()
        pairs = pairwise(_DECODER_WIDTHS)
        blocks = [_ConvElu(*widths) for before, after in pairs for widths in ((before, after), (after, after))]
        # The heads at 1/2 and 1/4 served the authors' training only; they are here because their file holds them.
        heads = [_Head(width) for width in _DECODER_WIDTHS[:1:-1]]
        self.decoder = nn.ModuleList([*blocks, *heads])

    def forward(self, x: Tensor) -> Tensor:
        for i in range(0, 8, 2):
            x = functional.interpolate(self.decoder[i](x), scale_factor=2.0, mode="nearest")
            x = self.decoder[i + 1](x)
        return torch.sigmoid(self.decoder[8](x))


class RtMonoDepthS(DepthNetwork):
    """RT-MonoDepth-S: depth up to scale, at the input size. `forward` takes multiples of 16, from 32 on."""

    preferred_memory_format = torch.channels_last  # takes about a fifth off a training step
    cached_step_cost = 0.55

    def __init__(self, info: NetworkInfo) -> None:
        super().__init__()
        self.info = info
        self.encoder = _Encoder()
        self.depth = _Decoder()

    def input_hw(self, hw: HW) -> HW:
        """Return long side 640, short side the multiple of 32 nearest to the image's aspect (at least 32)."""
        short_side = max(_MULTIPLE, _MULTIPLE * round(_LONG_SIDE * min(hw) / max(hw) / _MULTIPLE))
        return (_LONG_SIDE, short_side) if hw[0] > hw[1] else (short_side, _LONG_SIDE)

    def disparity(self, image: Tensor) -> Tensor:
        """Return the published network's output: a sigmoid's value in (0, 1)."""
        return self.depth(self.encoder.after_stem(self.encoder.stem(image)))

    def stem_features(self, image: Tensor) -> tuple[Tensor, ...]:
        return (self.encoder.stem(image),)

    def forward_from_stem(self, *features: Tensor) -> Tensor:
        (stem,) = features
        # Monodepth2's range of 0.1 to 100 units.
        return 1.0 / (0.01 + 9.99 * self.depth(self.encoder.after_stem(stem)))

    def forward(self, image: Tensor) -> Tensor:
        return self.forward_from_stem(*self.stem_features(image))

    def encoder_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self.encoder.named_parameters("encoder")

    def stem_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self.encoder.stem_parameters("encoder")

    def merge_checkpoints(self, files: Sequence[Mapping[str, Any]]) -> Mapping[str, Tensor]:
        encoder, depth = files
        state = {f"encoder.{name}": value for name, value in encoder.items() if name not in _SETTINGS}
        return state | {f"depth.{name}": value for name, value in depth.items()}


def build(info: NetworkInfo) -> RtMonoDepthS:
    return RtMonoDepthS(info)
