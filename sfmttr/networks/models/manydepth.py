"""ManyDepth: a ResNet-18 with a cost volume between a frame and the previous one, self-supervised on KITTI.

Watson, Mac Aodha, Prisacariu, Brostow, Firman: "The temporal opportunist: self-supervised multi-frame monocular depth",
CVPR 2021; https://github.com/nianticlabs/manydepth (non-commercial). Written from the paper and checked against the
published architecture; parameter names are the authors', below `encoder.`, `depth.`, `pose_encoder.` and `pose.`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfmttr.networks.base import DepthNetwork, checkpointed, in_float32
from sfmttr.networks.info import NetworkInfo
from sfmttr.networks.models.monodepth import CLASSIFIER, UNetDecoder, depth_of, input_hw, normalised, state_of
from sfmttr.networks.models.resnet import COUNTS_18, BasicBlock, ResNet
from sfmttr.types import HW

_WIDTHS = (64, 64, 128, 256, 512)
_BINS = 96
_BINS_AT_ONCE = 8
"""All of them together would take half a gigabyte for every operation."""
_DEPTH_RANGE = {"min": 0.1, "max": 20.0}
"""Range of the depth hypotheses, where the authors' file does not state it."""
_MARGIN = 2
"""Matches this near to the border of the features are ignored."""
_INTRINSICS = ((0.58, 0.0, 0.5), (0.0, 1.92, 0.5), (0.0, 0.0, 1.0))
"""KITTI's intrinsics, in shares of width and height. The authors' networks assume them for every camera."""
_INVERSE = ((1 / 0.58, 0.0, -0.5 / 0.58), (0.0, 1 / 1.92, -0.5 / 1.92), (0.0, 0.0, 1.0))
_SIZE_CONSTANTS = tuple(
    f"{part}.{name}" for part in ("backprojector", "projector") for name in ("id_coords", "ones", "pix_coords")
)
"""Entries of the authors' file that follow from the input size alone."""
_UNUSED = ("prematching_conv.0.weight", "prematching_conv.0.bias")
"""Entries of the authors' file that no output depends on."""


class _Encoder(nn.Module):
    """A ResNet-18 whose features at 1/4 are joined with a cost volume over depth hypotheses."""

    def __init__(self) -> None:
        super().__init__()
        net = ResNet(BasicBlock, COUNTS_18)
        self.layer0 = nn.Sequential(net.conv1, net.bn1, net.relu)
        self.layer1 = nn.Sequential(net.maxpool, net.layer1)
        self.layer2, self.layer3, self.layer4 = net.layer2, net.layer3, net.layer4
        self.reduce_conv = nn.Sequential(nn.Conv2d(_WIDTHS[1] + _BINS, _WIDTHS[1], 3, 1, 1), nn.ReLU(inplace=True))

    def forward(self, image: Tensor, previous: Tensor, previous_from_current: Tensor, depths: Tensor) -> list[Tensor]:
        half = self.layer0(normalised(image))
        quarter = self.layer1(half)
        cost, confidence = self.costs(quarter, self.early(previous), previous_from_current, depths)
        x = self.reduce_conv(torch.cat((quarter, cost * confidence), dim=1))
        features = [half, quarter]
        for layer in (self.layer2, self.layer3, self.layer4):
            x = layer(x)
            features.append(x)
        return features

    def early(self, image: Tensor) -> Tensor:
        """Return features at 1/4."""
        return self.layer1(self.layer0(normalised(image)))

    def costs(
        self, current: Tensor, previous: Tensor, previous_from_current: Tensor, depths: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the matching cost (B, D, h, w) of features (B, C, h, w) with the previous frame's at `depths` (D,).

        Where a depth leads out of the previous frame, the pixel's largest cost stands instead; the second result,
        (B, 1, h, w), is 1 where no depth does.
        """
        parts = []
        for first in range(0, _BINS, _BINS_AT_ONCE):
            arguments = (current, previous, previous_from_current, depths[first : first + _BINS_AT_ONCE])
            # Gradients flow through the matching, which is how a refinement reaches the pose encoder (the authors,
            # who had another loss for that, computed it without).
            parts.append(checkpointed(_costs, *arguments))
        cost = torch.cat(parts, dim=1)
        missing = cost == 0
        confidence = (~missing).all(dim=1, keepdim=True).to(cost.dtype)
        return torch.where(missing, cost.amax(dim=1, keepdim=True), cost), confidence


def _costs(*arguments: Tensor) -> Tensor:
    return in_float32(_costs_in_float32, *arguments)


def _costs_in_float32(current: Tensor, previous: Tensor, previous_from_current: Tensor, depths: Tensor) -> Tensor:
    """Return the mean absolute difference of features at each depth, (B, D, h, w); 0 without a match in view."""
    batch, channels, height, width = current.shape
    intrinsics, inverse = current.new_tensor(_INTRINSICS), current.new_tensor(_INVERSE)
    x = torch.arange(width, device=current.device, dtype=current.dtype)
    y = torch.arange(height, device=current.device, dtype=current.dtype)
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    pixel = torch.stack((columns / width, rows / height, torch.ones_like(rows))).flatten(1)
    turned = intrinsics @ previous_from_current[:, :3, :3] @ inverse @ pixel  # (B, 3, h w)
    moved = intrinsics @ previous_from_current[:, :3, 3:]
    at = turned[:, None] * depths[None, :, None, None] + moved[:, None]  # (B, D, 3, h w)
    # Pixels are counted from the centre of the first one here, as the authors do, not as `geometry` does.
    u, v = (at[:, :, i] / (at[:, :, 2] + 1e-7) * size for i, size in ((0, width), (1, height)))
    grid = torch.stack((2 * u / (width - 1) - 1, 2 * v / (height - 1) - 1), dim=-1)
    grid = grid.reshape(batch, len(depths) * height, width, 2)
    warped = functional.grid_sample(previous, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    warped = warped.reshape(batch, channels, len(depths), height, width)
    difference = (warped - current[:, :, None]).abs().mean(dim=1)
    inside = (u >= _MARGIN) & (u <= width - _MARGIN) & (v >= _MARGIN) & (v <= height - _MARGIN)
    central = (rows >= _MARGIN) & (rows < height - _MARGIN) & (columns >= _MARGIN) & (columns < width - _MARGIN)
    return difference * (inside.reshape(difference.shape) & central)


class _PoseEncoder(nn.Module):
    """A ResNet-18 of two stacked images, one module deeper, as in the authors' file."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = ResNet(BasicBlock, COUNTS_18, width_in=6)

    def forward(self, previous: Tensor, image: Tensor) -> Tensor:
        return self.encoder(normalised(torch.cat((previous, image), dim=1)))[-1]


class _PoseDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        convs = (nn.Conv2d(512, 256, 1), nn.Conv2d(256, 256, 3, 1, 1), nn.Conv2d(256, 256, 3, 1, 1))
        self.net = nn.ModuleList([*convs, nn.Conv2d(256, 12, 1)])

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return rotation as axis times angle, and translation, (B, 3) each."""
        x = features
        for conv in self.net[:-1]:
            x = functional.relu(conv(x))
        # There is a second motion in the twelve, which the authors' depth does not depend on either.
        motion = 0.01 * self.net[-1](x).mean((2, 3))
        return motion[:, :3], motion[:, 3:6]


def rotation_of(axis_angle: Tensor) -> Tensor:
    """Rodrigues' formula, (B, 3) -> (B, 3, 3). The tiny addend keeps the gradient finite without rotation."""
    angle = (axis_angle.square().sum(dim=1, keepdim=True) + 1e-24).sqrt()
    x, y, z = (axis_angle / (angle + 1e-7)).unbind(dim=1)
    zero = torch.zeros_like(x)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=1).reshape(-1, 3, 3)
    axis = torch.stack((x, y, z), dim=1)
    sine, cosine = angle.sin()[:, :, None], angle.cos()[:, :, None]
    along = axis[:, :, None] * axis[:, None]
    return cosine * torch.eye(3, dtype=x.dtype, device=x.device) + sine * cross + (1 - cosine) * along


def _undone(axis_angle: Tensor, translation: Tensor) -> Tensor:
    """Return the inverse motion (B, 3, 4): the pose network predicts the one from the previous camera to this."""
    rotation = rotation_of(axis_angle).transpose(1, 2)
    return torch.cat((rotation, -rotation @ translation[:, :, None]), dim=2)


class ManyDepth(DepthNetwork):
    """Depth up to scale, at the input size, of a frame and the previous one. `forward` takes multiples of 32.

    Given the same frame twice, it says what one picture says.
    """

    source_offsets = (-1,)
    depth_range: Tensor

    def __init__(self, info: NetworkInfo) -> None:
        super().__init__()
        self.info = info
        self.encoder = _Encoder()
        self.depth = UNetDecoder(_WIDTHS)
        self.pose_encoder = _PoseEncoder()
        self.pose = _PoseDecoder()
        self.register_buffer("depth_range", torch.tensor(list(_DEPTH_RANGE.values())))

    def input_hw(self, hw: HW) -> HW:
        return input_hw(hw)

    def motion(self, image: Tensor, previous: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pose network's motion between the two: axis times angle and translation, (B, 3) each."""
        return self.pose(self.pose_encoder(previous, image))

    def previous_from_current(self, image: Tensor, previous: Tensor) -> Tensor:
        """Return the motion as (B, 3, 4), in network units."""
        return in_float32(_undone, *self.motion(image, previous))

    def depths(self) -> Tensor:
        """Return the depth hypotheses (D,)."""
        low, high = self.depth_range.unbind()
        return low + (high - low) * torch.linspace(0, 1, _BINS, dtype=low.dtype, device=low.device)

    def features(self, image: Tensor, previous: Tensor) -> list[Tensor]:
        """Return the features for the decoder, finest first."""
        return self.encoder(image, previous, self.previous_from_current(image, previous), self.depths())

    def forward(self, image: Tensor) -> Tensor:
        current, previous = image.split(3, dim=1)
        return depth_of(self.depth(self.features(current, previous)))

    def encoder_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        yield from self.encoder.named_parameters("encoder")
        yield from self.pose_encoder.named_parameters("pose_encoder")

    def merge_checkpoints(self, files: Sequence[Mapping[str, Any]]) -> Mapping[str, Tensor]:
        encoder = dict(files[0])
        low, high = (float(encoder.pop(f"{end}_depth_bin", depth)) for end, depth in _DEPTH_RANGE.items())
        skipped = (*_SIZE_CONSTANTS, *_UNUSED, *CLASSIFIER)
        state = state_of([encoder, *files[1:]], ("encoder", "depth", "pose_encoder", "pose"), skipped)
        return state | {"depth_range": torch.tensor([low, high])}


def build(info: NetworkInfo) -> ManyDepth:
    return ManyDepth(info)
