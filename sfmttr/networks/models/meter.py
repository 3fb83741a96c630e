"""METER: small metric networks with a mobile vision transformer for an encoder.

Papa, Russo, Amerini: "METER: a mobile vision transformer architecture for monocular depth estimation", IEEE TCSVT
2023; https://github.com/lorenzopapa5/METER (MIT). Written from the paper and checked against the published
architecture; parameter names are the authors', so that their files load unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfmttr.networks.base import DepthNetwork
from sfmttr.networks.info import NetworkInfo
from sfmttr.types import HW

_SHORT_SIDE = 192
_MULTIPLE = 64
"""The encoder halves the size five times, and its coarsest transformer folds patches of 2 x 2."""
_LONGEST_SIDE = 1280
"""Attention is quadratic in the pixels: panoramas are squeezed to this."""
_HEADS, _HEAD_WIDTH = 4, 8
_FLOOR = 10.0
"""Raw outputs below this (1 m outdoors, 0.1 m indoors) are bent so that they stay positive."""


@dataclass(frozen=True)
class MeterSize:
    """Widths of one member of the family."""

    transformer: tuple[int, int, int]
    channels: tuple[int, ...]
    """After the stem and after each stage that changes the width: 1/2, 1/2, 1/4, 1/8, 1/16, 1/32, 1/32 again."""
    expansion: int
    decoder: tuple[int, int, int, int]


SIZES = {
    "xxs": MeterSize((64, 80, 96), (16, 16, 24, 48, 64, 80, 160), 2, (64, 32, 16, 8)),
    "xs": MeterSize((96, 120, 144), (16, 32, 48, 64, 80, 96, 192), 4, (128, 64, 32, 16)),
    "s": MeterSize((144, 192, 240), (16, 32, 64, 96, 128, 160, 320), 4, (128, 64, 32, 16)),
}


@dataclass(frozen=True)
class MeterDomain:
    """Training data of a set of weights."""

    metres_per_unit: float
    trained_hw: HW
    imagenet_normalised: bool
    """Images are normalized with ImageNet's mean and deviation; else they stay in [0, 1]."""


DOMAINS = {
    "kitti": MeterDomain(0.1, (192, 636), imagenet_normalised=False),
    # The authors publish no data loader. On 7-Scenes RedKitchen (12 frames, METER-XXS) these weights see next to
    # nothing in images in [0, 1] (correlation of log depth with the truth -0.2, AbsRel after median scaling 0.40, a
    # constant's error) and a lot in normalised ones (0.84, 0.20). The KITTI weights are the other way round (0.98
    # and 0.07 in [0, 1], 0.56 and 0.33 normalised).
    "nyu": MeterDomain(0.01, (192, 256), imagenet_normalised=True),
}
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


class _TwoStepConv(nn.Module):
    """A 3 x 3 and a 1 x 1 convolution. The authors' name for the first is "depthwise", but it is dense."""

    def __init__(self, width_in: int, width_out: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width_in, width_out, 3, stride, 1, bias=False)
        self.pointwise = nn.Conv2d(width_out, width_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


class _Normed(nn.Sequential):
    """Convolutions, each with a BatchNorm behind it, and ReLUs.

    Refinement keeps the statistics fixed. A norm is then an affine map of channels, and is multiplied into the weights
    instead of passed over the features: a training step takes an eighth less. Graphs that are traced or exported keep
    it apart, in the form that exporters and quantizers recognize.
    """

    def forward(self, x: Tensor) -> Tensor:
        traced = torch.compiler.is_compiling() or torch.jit.is_tracing()
        if self.training or traced or not torch.is_grad_enabled():
            return super().forward(x)
        layers = list(self.children())
        for layer, following in zip(layers, [*layers[1:], None], strict=True):
            if isinstance(following, nn.BatchNorm2d):
                x = _convolve_normed(layer, following, x)
            elif not isinstance(layer, nn.BatchNorm2d):
                x = layer(x)
        return x


def _convolve_normed(conv: nn.Module, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """`norm(conv(x))` with fixed statistics, as one convolution."""
    if isinstance(conv, _TwoStepConv):
        x, conv = conv.depthwise(x), conv.pointwise
    assert isinstance(conv, nn.Conv2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    bias = norm.bias - norm.running_mean * scale
    weight = conv.weight * scale[:, None, None, None]
    return functional.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def _conv_norm_relu(width_in: int, width_out: int) -> nn.Sequential:
    conv = nn.Conv2d(width_in, width_out, 1, bias=False)
    return _Normed(conv, nn.BatchNorm2d(width_out), nn.ReLU(inplace=True))


def _two_step_norm_relu(width_in: int, width_out: int, stride: int = 1) -> nn.Sequential:
    conv = _TwoStepConv(width_in, width_out, stride)
    return _Normed(conv, nn.BatchNorm2d(width_out), nn.ReLU(inplace=True))


class _InvertedResidual(nn.Module):
    """MobileNetV2's block: expansion, depthwise convolution, projection."""

    def __init__(self, width_in: int, width_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = width_in * expansion
        self.residual = stride == 1 and width_in == width_out
        self.conv = _Normed(
            nn.Conv2d(width_in, hidden, 1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, width_out, 1, bias=False),
            nn.BatchNorm2d(width_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class _Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        inner = _HEADS * _HEAD_WIDTH
        self.to_qkv = nn.Linear(width, 3 * inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        query, key, value = self.to_qkv(x).reshape(batch, tokens, 3, _HEADS, _HEAD_WIDTH).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.to_out(mixed.transpose(1, 2).reshape(batch, tokens, _HEADS * _HEAD_WIDTH))


class _FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        # The identities stand where the authors have dropout (never active): they keep the numbering of the keys.
        self.net = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Identity(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class _PreNormed(nn.Module):
    """x + fn(norm(x))"""

    def __init__(self, width: int, fn: nn.Module) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fn(self.norm(x))


class _Transformer(nn.Module):
    """One layer, as all sizes have."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        attention, feed_forward = _PreNormed(width, _Attention(width)), _PreNormed(width, _FeedForward(width, hidden))
        self.layers = nn.ModuleList([nn.ModuleList([attention, feed_forward])])

    def forward(self, x: Tensor) -> Tensor:
        """Pixels at the same place in their 2 x 2 patch attend to each other: (B, C, H, W), H and W even."""
        batch, width, height, length = x.shape
        h, w = height // 2, length // 2
        tokens = x.reshape(batch, width, h, 2, w, 2).permute(0, 3, 5, 2, 4, 1).reshape(batch * 4, h * w, width)
        for layer in self.layers:
            for step in layer.children():
                tokens = step(tokens)
        folded = tokens.reshape(batch, 2, 2, h, w, width).permute(0, 5, 3, 1, 4, 2)
        return folded.reshape(batch, width, height, length)


class _TransformerBlock(nn.Module):
    """MobileViT's block: convolutions around a transformer over folded patches."""

    def __init__(self, channels: int, width: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = _two_step_norm_relu(channels, channels)
        self.conv2 = _conv_norm_relu(channels, width)
        self.transformer = _Transformer(width, hidden)
        self.conv3 = _conv_norm_relu(width, channels)
        self.conv4 = _two_step_norm_relu(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.conv3(self.transformer(self.conv2(self.conv1(x))))
        return self.conv4(torch.cat((mixed, x), dim=1))


class _Encoder(nn.Module):
    def __init__(self, size: MeterSize) -> None:
        super().__init__()
        c, times = size.channels, size.expansion
        self.conv1 = _two_step_norm_relu(3, c[0], stride=2)
        widths = [(c[0], c[1], 1), (c[1], c[2], 2), (c[2], c[2], 1), (c[2], c[2], 1)]
        widths += [(c[2], c[3], 2), (c[3], c[4], 2), (c[4], c[5], 2)]
        self.mv2 = nn.ModuleList(_InvertedResidual(*width, times) for width in widths)
        hidden = [2 * size.transformer[0], 4 * size.transformer[1], 4 * size.transformer[2]]
        self.mvit = nn.ModuleList(map(_TransformerBlock, c[3:6], size.transformer, hidden))
        self.conv2 = _conv_norm_relu(c[5], c[6])

    def stem(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return features at 1/16, 1/8 and 1/4: most of the time, with a fifth of the parameters."""
        quarter = self.mv2[1](self.mv2[0](self.conv1(image)))
        eighth = self.mv2[4](self.mv2[3](self.mv2[2](quarter)))
        return self.mv2[5](self.mvit[0](eighth)), eighth, quarter

    def after_stem(self, sixteenth: Tensor) -> Tensor:
        """Return features at 1/32."""
        return self.conv2(self.mvit[2](self.mv2[6](self.mvit[1](sixteenth))))

    def stem_parameters(self, prefix: str) -> Iterator[tuple[str, nn.Parameter]]:
        """Return the parameters that `stem` uses, with names below `prefix`."""
        late = ("mv2.6.", "mvit.1.", "mvit.2.", "conv2.")
        return ((f"{prefix}.{name}", value) for name, value in self.named_parameters() if not name.startswith(late))


class _UpBlock(nn.Module):
    """Upsampling to twice the size, joined with the encoder's features of that size."""

    def __init__(self, width_in: int, width_out: int, width_skip: int) -> None:
        super().__init__()
        self.conv2d_transpose = nn.ConvTranspose2d(width_in, width_out, 3, 2, 1, output_padding=1, bias=False)
        self.end_up_layer = nn.Sequential(_TwoStepConv(width_out + width_skip, width_out), nn.ReLU())

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        up = self.conv2d_transpose(x)
        # At 636 wide a quarter is 159, which the decoder's 160 does not meet: the authors add a column on the left.
        missing = up.shape[-1] - skip.shape[-1]
        # A graph that is exported for any width must ask at every width: the branch would be decided when it is traced.
        if torch.compiler.is_compiling() or missing:
            skip = functional.pad(skip, (missing, 0))
        return self.end_up_layer(torch.cat((up, skip), dim=1))


class _Decoder(nn.Module):
    def __init__(self, size: MeterSize) -> None:
        super().__init__()
        c, d = size.channels, size.decoder
        self.conv2d_in = nn.Conv2d(c[6], d[0], 1, bias=False)
        self.ups_block_1 = _UpBlock(d[0], d[1], c[4])
        self.ups_block_2 = _UpBlock(d[1], d[2], c[3])
        self.ups_block_3 = _UpBlock(d[2], d[3], c[2])
        self.conv2d_out = nn.Conv2d(d[3], 1, 3, padding=1, bias=False)

    def forward(self, coarsest: Tensor, sixteenth: Tensor, eighth: Tensor, quarter: Tensor) -> Tensor:
        x = self.ups_block_1(self.conv2d_in(coarsest), sixteenth)
        return self.conv2d_out(self.ups_block_3(self.ups_block_2(x, eighth), quarter))


def positive(raw: Tensor, floor: float = _FLOOR) -> Tensor:
    """Return `raw` where it is at least `floor`; below, a hyperbola that meets it smoothly and stays above 0.

    The last layer is a plain convolution, so nothing keeps it from going below 0. A hyperbola's slope fades slowly
    (a quarter at 0, a ninth at -floor), so that training can pull such pixels back.
    """
    bent = floor**2 / (2 * floor - raw.clamp(max=floor))
    return torch.where(raw < floor, bent, raw)


class Meter(DepthNetwork):
    """METER (MIT, https://github.com/lorenzopapa5/METER), depth in metres at a quarter of the input size.

    The authors trained in decimetres on KITTI and in centimetres on NYU Depth v2 (their depth augmentation shifts by
    so many "cm/dm", their loss assumes a range of 1000); `forward` converts. Heights and
    widths of `forward` are multiples of 64, except that 636 is taken too (see `input_hw`).
    """

    preferred_memory_format = torch.channels_last  # takes about a fifteenth off a training step

    cached_step_cost = 0.4

    mean: Tensor
    deviation: Tensor

    def __init__(self, info: NetworkInfo, size: MeterSize, domain: MeterDomain) -> None:
        super().__init__()
        self.info = info
        self.domain = domain
        self.encoder = _Encoder(size)
        self.decoder = _Decoder(size)
        # Not persistent: the authors' files do not hold them.
        self.register_buffer("mean", torch.tensor(_IMAGENET_MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(_IMAGENET_DEVIATION).reshape(1, 3, 1, 1), persistent=False)

    def input_hw(self, hw: HW) -> HW:
        """Return short side 192, long side the multiple of 64 nearest to the image's aspect, at most 1280.

        At multiples of 64 every patch folds and every skip connection meets its decoder stage exactly. The one
        exception is the size of training: where the rule gives 640 and the weights were trained at 636 (KITTI), it
        is 636.
        """
        aspect = max(hw) / min(hw)
        long_side = _MULTIPLE * round(min(_SHORT_SIDE * aspect, _LONGEST_SIDE) / _MULTIPLE)
        if hw[0] > hw[1]:
            return long_side, _SHORT_SIDE
        trained = self.domain.trained_hw[1]
        return _SHORT_SIDE, trained if 0 <= long_side - trained < 8 else long_side

    def raw(self, image: Tensor) -> Tensor:
        """Return the published network's output: for images as in training, in its own unit, not yet positive."""
        return self._raw_from_stem(*self.encoder.stem(image))

    def _raw_from_stem(self, sixteenth: Tensor, eighth: Tensor, quarter: Tensor) -> Tensor:
        return self.decoder(self.encoder.after_stem(sixteenth), sixteenth, eighth, quarter)

    def stem_features(self, image: Tensor) -> tuple[Tensor, ...]:
        if self.domain.imagenet_normalised:
            image = (image - self.mean) / self.deviation
        return self.encoder.stem(image)

    def forward_from_stem(self, *features: Tensor) -> Tensor:
        return positive(self._raw_from_stem(*features)) * self.domain.metres_per_unit

    def forward(self, image: Tensor) -> Tensor:
        return self.forward_from_stem(*self.stem_features(image))

    def encoder_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self.encoder.named_parameters("encoder")

    def stem_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        return self.encoder.stem_parameters("encoder")


def build(info: NetworkInfo, size: str, domain: str) -> Meter:
    return Meter(info, SIZES[size], DOMAINS[domain])
