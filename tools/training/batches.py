"""Batches: windows of random pictures, zoomed to one size, with depth that stays true to the zoom.

A batch is a function of the seed and its number alone: a training that is resumed sees what it would have seen.
Every batch is half of each kind of scene (streets, rooms): BatchNorm's statistics, which are used as they are later,
then belong to the mixture in every step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sfmttr.types import HW
from tools.training.augment import Appearance
from tools.training.shards import Scene

_MULTIPLE = 32
_ASPECTS = ((10 / 3, 0.4), (16 / 9, 0.3), (4 / 3, 0.22), (3 / 4, 0.08))
"""Width over height, and how often: cars' cameras, phones held flat, tables, phones held upright."""
_MOST_ZOOM = 2.2
"""A window is at least this part of the largest that fits."""
REFERENCE_FOCAL_PX = 240.0
"""Focal length that depth is normalized to: a zoom by 2 is the same place at half the depth. Depth then follows from
the image alone, whatever its lens and size."""
_FAR_M = 150.0
"""Depth beyond which a pixel counts as sky, meters."""
_NEAR_M = 0.2


@dataclass(frozen=True)
class Batch:
    """Training batch of one step."""

    image: Tensor
    """(B, 3, h, w) float in [0, 1]."""
    log_depth: Tensor
    """(B, 1, h, w) float32; anything where not valid."""
    valid: Tensor
    """(B, 1, h, w) bool; false: sky."""
    log_far: Tensor
    """(B, 1, 1, 1) float32: the sky is not nearer than this."""


class BatchSource:
    """Makes batch number n of scenes that are grouped by the size of their pictures."""

    def __init__(self, scenes: Sequence[Scene], size: int, seed: int, multiple: int = _MULTIPLE) -> None:
        if not scenes:
            raise ValueError("there are no scenes to learn from")
        self._size, self._seed, self._multiple = size, seed, multiple
        self._appearance = Appearance(seed)
        groups: dict[tuple[int, ...], list[tuple[Scene, int]]] = {}
        for scene in scenes:
            groups.setdefault(scene.depth.shape[1:], []).extend((scene, view) for view in range(len(scene)))
        self._groups = [groups[key] for key in sorted(groups)]

    def make(self, number: int, pixels: int) -> Batch:
        """Return batch `number`, with images of about `pixels` pixels."""
        rng = np.random.default_rng((self._seed, number))
        aspect = rng.choice([a for a, _ in _ASPECTS], p=[p for _, p in _ASPECTS])
        hw = size_of(aspect, pixels, self._multiple)
        parts = []
        for i, group in enumerate(self._groups):
            count = (self._size + i) // len(self._groups)
            if count:
                chosen = [group[j] for j in rng.integers(len(group), size=count)]
                parts.append(cut(chosen, hw, rng))
        image, log_depth, valid, log_far = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        return Batch(self._appearance.apply(image, rng), log_depth, valid, log_far)


def size_of(aspect: float, pixels: int, multiple: int = _MULTIPLE) -> HW:
    """The multiples of `multiple` nearest to that shape and area."""
    height = max(multiple, multiple * round(math.sqrt(pixels / aspect) / multiple))
    return height, max(multiple, multiple * round(pixels / height / multiple))


def window_of(picture: HW, hw: HW, rng: np.random.Generator) -> HW:
    """The size of a window of the shape of `hw` within `picture`: random, large ones more likely."""
    fits = max(hw[0] / picture[0], hw[1] / picture[1])
    zoom = fits * _MOST_ZOOM ** (rng.random() ** 2)
    return min(picture[0], round(hw[0] / zoom)), min(picture[1], round(hw[1] / zoom))


def cut(chosen: Sequence[tuple[Scene, int]], hw: HW, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Image, log depth, validity and far limit (as in `Batch`) of views of one size, half of them mirrored.

    All windows have one size, so that they are resized together; where they lie differs.
    """
    picture: HW = chosen[0][0].depth.shape[1:]
    h, w = window_of(picture, hw, rng)
    tops, lefts = (rng.integers(p - s + 1, size=len(chosen)) for p, s in zip(picture, (h, w), strict=True))
    rgb = np.empty((len(chosen), h, w, 3), np.uint8)
    depth = np.empty((len(chosen), h, w), np.float16)
    for i, ((scene, view), top, left) in enumerate(zip(chosen, tops, lefts, strict=True)):
        side = slice(None, None, -1 if rng.random() < 0.5 else 1)
        rgb[i] = scene.rgb[view, top : top + h, left : left + w][:, side]
        depth[i] = scene.depth[view, top : top + h, left : left + w][:, side]
    fx_px = torch.tensor([scene.fx_px[view] for scene, view in chosen], dtype=torch.float32)
    return zoomed(torch.from_numpy(rgb), torch.from_numpy(depth), fx_px, hw)


def zoomed(rgb: Tensor, depth: Tensor, fx_px: Tensor, hw: HW) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pictures (B, H, W, 3) uint8 and depth (B, H, W) metres at size `hw`, depth in reference focal lengths.

    Depth is read at the nearest pixel: a mean over an edge lies nowhere.
    """
    image = rgb.permute(0, 3, 1, 2).float() / 255
    smaller = hw[0] < rgb.shape[1]
    image = functional.interpolate(image, hw, mode="bilinear", align_corners=False, antialias=smaller)
    metres = functional.interpolate(depth[:, None].float(), hw, mode="nearest-exact")
    factor = REFERENCE_FOCAL_PX / (fx_px * (hw[1] / rgb.shape[2]))
    factor = factor[:, None, None, None]
    valid = (metres > 0) & (metres < _FAR_M)
    return image, (metres.clamp(_NEAR_M, _FAR_M) * factor).log(), valid, (_FAR_M * factor).log()
