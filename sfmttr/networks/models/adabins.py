"""AdaBins: EfficientNet-B5, a decoder, and a small transformer that predicts depth bins for each image.

Bhat, Alhashim, Wonka: "AdaBins: depth estimation using adaptive bins", CVPR 2021;
https://github.com/shariqfarooq123/AdaBins. Written from the paper and checked against the published architecture;
parameter names are the authors'.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sfmttr.networks.base import DepthNetwork, in_float32
from sfmttr.networks.info import NetworkInfo
from sfmttr.networks.models.efficientnet import HEAD_WIDTH, EfficientNetB5
from sfmttr.types import HW

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
_BINS = 256
_MIN_DEPTH_M = 1e-3
_WIDTH = 128
_QUERIES = 128
_HEADS = 4
_LAYERS = 4
_PATCH = 16
"""Channels of the features at 1/2 of the input size."""
_CELL = 2 * _PATCH
_MIN_CELLS, _MAX_CELLS = _QUERIES + 1, 500
"""A picture has to have a patch for each query, and one more; there are no more places than these to tell apart."""
_MIN_SIDE_CELLS, _MAX_SIDE_CELLS = 4, 60
_KITTI_HW = frozenset({(370, 1224), (370, 1226), (374, 1238), (375, 1242), (376, 1241)})
"""Sizes of KITTI's rectified images."""
_CROP_HW = (352, 1216)
_FLOOR = 0.1
"""Added to every bin's width, so that none is empty."""


@dataclass(frozen=True)
class AdaBinsDomain:
    """Training data of a set of weights."""

    max_depth_m: float
    cells: int
    """Positions of 32 x 32 pixels in a training picture."""
    crops: bool
    """True if it was trained on `_CROP_HW` at the bottom of KITTI's pictures."""


DOMAINS = {
    "kitti": AdaBinsDomain(80.0, (352 // _CELL) * (1216 // _CELL), crops=True),
    "nyu": AdaBinsDomain(10.0, (480 // _CELL) * (640 // _CELL), crops=False),
}


class _Encoder(nn.Module):
    """EfficientNet, one module deeper, as in the authors' file."""

    def __init__(self) -> None:
        super().__init__()
        self.original_model = EfficientNetB5()

    def forward(self, image: Tensor) -> list[Tensor]:
        return self.original_model(image)


class _Up(nn.Module):
    """Upsampling to the size of the encoder's features, which are joined."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for width in (width_in, width_out):
            parts += [nn.Conv2d(width, width_out, 3, 1, 1), nn.BatchNorm2d(width_out), nn.LeakyReLU(inplace=True)]
        self._net = nn.Sequential(*parts)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        hw: Any = skip.shape[2:]
        up = functional.interpolate(x, hw, mode="bilinear", align_corners=True)
        return self._net(torch.cat((up, skip), dim=1))


class _Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        skips = EfficientNetB5.WIDTHS[-2::-1]
        widths = [HEAD_WIDTH >> i for i in range(5)]
        # A border of one pixel around a 1 x 1 convolution: the authors' own, and in their weights.
        self.conv2 = nn.Conv2d(HEAD_WIDTH, widths[0], 1, padding=1)
        self.up1, self.up2, self.up3, self.up4 = (
            _Up(a + skip, b) for a, skip, b in zip(widths, skips, widths[1:], strict=False)
        )
        self.conv3 = nn.Conv2d(widths[-1], _WIDTH, 3, 1, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """(B, 128, h / 2, w / 2)"""
        x = self.conv2(features[-1])
        for up, skip in zip((self.up1, self.up2, self.up3, self.up4), features[-2::-1], strict=True):
            x = up(x, skip)
        return self.conv3(x)


class _SelfAttention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * _WIDTH, _WIDTH))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * _WIDTH))
        nn.init.xavier_uniform_(self.in_proj_weight)
        self.out_proj = nn.Linear(_WIDTH, _WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        parts = functional.linear(x, self.in_proj_weight, self.in_proj_bias).unflatten(2, (3, _HEADS, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind()
        attended = functional.scaled_dot_product_attention(query, key, value)
        return self.out_proj(attended.transpose(1, 2).flatten(2))


class _Layer(nn.Module):
    """A transformer layer with post-normalization."""

    def __init__(self) -> None:
        super().__init__()
        self.self_attn = _SelfAttention()
        self.linear1 = nn.Linear(_WIDTH, 1024)
        self.linear2 = nn.Linear(1024, _WIDTH)
        self.norm1 = nn.LayerNorm(_WIDTH)
        self.norm2 = nn.LayerNorm(_WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.self_attn(x))
        return self.norm2(x + self.linear2(functional.relu(self.linear1(x))))


class _Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer() for _ in range(_LAYERS))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class _PatchTransformer(nn.Module):
    """(B, 128, h, w) -> one token a patch, (B, h w / 256, 128)."""

    def __init__(self) -> None:
        super().__init__()
        self.positional_encodings = nn.Parameter(torch.rand(_MAX_CELLS, _WIDTH))
        self.transformer_encoder = _Transformer()
        self.embedding_convPxP = nn.Conv2d(_WIDTH, _WIDTH, _PATCH, _PATCH)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embedding_convPxP(x).flatten(2).transpose(1, 2)
        return self.transformer_encoder(tokens + self.positional_encodings[: tokens.shape[1]])


class _MiniViT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch_transformer = _PatchTransformer()
        self.conv3x3 = nn.Conv2d(_WIDTH, _WIDTH, 3, 1, 1)
        self.regressor = nn.Sequential(
            *(nn.Linear(_WIDTH, 256), nn.LeakyReLU(inplace=True)),
            *(nn.Linear(256, 256), nn.LeakyReLU(inplace=True)),
            nn.Linear(256, _BINS),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the bins' widths (B, 256), which sum to 1, and range attention maps (B, 128, h, w)."""
        tokens = self.patch_transformer(x)
        queries = tokens[:, 1 : _QUERIES + 1]
        fit = torch.einsum("bqc,bchw->bqhw", queries, self.conv3x3(x))
        shares = functional.relu(self.regressor(tokens[:, 0])) + _FLOOR
        return shares / shares.sum(dim=1, keepdim=True), fit


def _expected(centres: Tensor, chances: Tensor) -> Tensor:
    """Return the expected depth (B, 1, h, w) over bin centers (B, N) with probabilities (B, N, h, w)."""
    return torch.einsum("bn,bnhw->bhw", centres, chances)[:, None]


class AdaBins(DepthNetwork):
    """Depth in metres at half the input size. `forward` takes multiples of 32 that make 129 to 500 cells of 32 x 32.

    Weights trained on KITTI take KITTI's images as in training: the 352 x 1216 pixels in the middle of the bottom,
    unresized. Depth outside is extrapolated from the border, and points there are not trained on.
    """

    max_batch_size = 1
    mean: Tensor
    deviation: Tensor

    def __init__(self, info: NetworkInfo, domain: AdaBinsDomain) -> None:
        super().__init__()
        self.info = info
        self.domain = domain
        self.encoder = _Encoder()
        self.adaptive_bins_layer = _MiniViT()
        self.decoder = _Decoder()
        self.conv_out = nn.Sequential(nn.Conv2d(_QUERIES, _BINS, 1))
        # Not persistent: the authors' files do not hold them.
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(_IMAGENET_DEVIATION).reshape(1, 3, 1, 1), persistent=False)

    def input_hw(self, hw: HW) -> HW:
        """Return KITTI's sizes unchanged; for others, the same aspect with about as many pixels as in training."""
        if self._window(hw) is not None:
            return hw
        aspect = max(hw) / min(hw)
        short = max(_MIN_SIDE_CELLS, round(math.sqrt(self.domain.cells / aspect)))
        fewest, most = -(-_MIN_CELLS // short), min(_MAX_CELLS // short, _MAX_SIDE_CELLS)
        long = min(max(round(short * aspect), fewest), most)
        sides = (_CELL * short, _CELL * long)
        return sides if hw[0] <= hw[1] else sides[::-1]

    def _window(self, hw: HW) -> tuple[int, int] | None:
        """Return top and left of the crop of an image of size `hw`; None: all of it."""
        if not self.domain.crops or hw not in _KITTI_HW:
            return None
        return hw[0] - _CROP_HW[0], (hw[1] - _CROP_HW[1]) // 2

    def crop(self, image: Tensor) -> Tensor:
        window = self._window((image.shape[-2], image.shape[-1]))
        if window is None:
            return image
        (top, left), (height, width) = window, _CROP_HW
        return image[..., top : top + height, left : left + width]

    def pad_to_full(self, depth: Tensor, hw: HW) -> Tensor:
        window = self._window(hw)
        if window is None:
            return depth
        (top, left), (height, width) = window, _CROP_HW
        seen = functional.interpolate(depth, _CROP_HW, mode="bilinear", align_corners=False)
        margins = (left, hw[1] - width - left, top, hw[0] - height - top)
        return functional.pad(seen, margins, mode="replicate")

    def valid_region(self, grid: np.ndarray, hw: HW) -> np.ndarray:
        window = self._window(hw)
        if window is None:
            return super().valid_region(grid, hw)
        xy_px = (np.asarray(grid, np.float64) + 1) / 2 * hw[::-1]
        left_top = np.array(window[::-1])
        return ((xy_px >= left_top) & (xy_px <= left_top + _CROP_HW[::-1])).all(axis=-1)

    def edges_and_depth(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return edges of the bins (B, 257) and depth (B, 1, h / 2, w / 2) in metres, as the published network does."""
        decoded = self.decoder(self.encoder((image - self.mean) / self.deviation))
        shares, fit = self.adaptive_bins_layer(decoded)
        widths = (self.domain.max_depth_m - _MIN_DEPTH_M) * shares
        edges = functional.pad(widths, (1, 0), value=_MIN_DEPTH_M).cumsum(dim=1)
        centres = 0.5 * (edges[:, :-1] + edges[:, 1:])
        chances = self.conv_out(fit).softmax(dim=1)
        return edges, in_float32(_expected, centres, chances)

    def forward(self, image: Tensor) -> Tensor:
        return self.edges_and_depth(image)[1]

    def encoder_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Return EfficientNet's parameters and those of the mini-ViT's transformer layers, without its embedding."""
        transformer = "adaptive_bins_layer.patch_transformer.transformer_encoder"
        yield from self.encoder.named_parameters("encoder")
        yield from self.get_submodule(transformer).named_parameters(transformer)

    def merge_checkpoints(self, files: Sequence[Mapping[str, Any]]) -> Mapping[str, Tensor]:
        """Remove the authors' optimizer state, the prefix of multi-GPU training, and a norm that is not used."""
        (file,) = files
        state = {_current(name.removeprefix("module.")): value for name, value in file.get("model", file).items()}
        return {name: value for name, value in state.items() if not name.startswith(_UNUSED)}


_UNUSED = "encoder.original_model.bn2."
_MINI_VIT = "adaptive_bins_layer."
_RENAMED = {
    f"{_MINI_VIT}embedding_conv.": f"{_MINI_VIT}conv3x3.",
    f"{_MINI_VIT}patch_transformer.embedding_encoder.": f"{_MINI_VIT}patch_transformer.embedding_convPxP.",
}
"""Names in older files of the authors, and their present names."""


def _current(name: str) -> str:
    old = next((old for old in _RENAMED if name.startswith(old)), None)
    return name if old is None else _RENAMED[old] + name.removeprefix(old)


def build(info: NetworkInfo, domain: str) -> AdaBins:
    return AdaBins(info, DOMAINS[domain])
