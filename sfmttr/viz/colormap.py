"""Color maps for depth: range, lookup table, colored pictures (H, W, 3) uint8."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import matplotlib
import numpy as np

NO_DEPTH = (38, 40, 46)
"""Color of pixels without depth; the color map does not contain it."""
_NO_DEPTH_INDEX = 255
"""Row of `NO_DEPTH` in `palette`, after those of the color map."""

Color = tuple[int, int, int]


@dataclass(frozen=True)
class ColorRange:
    """Depths at the two ends of the color map."""

    near: float
    far: float

    def __post_init__(self) -> None:
        if not 0 < self.near < self.far < math.inf:
            raise ValueError(f"{self.near=} {self.far=}, expected 0 < near < far")


def color_range(depths: Iterable[np.ndarray], low: float = 1.0, high: float = 98.0) -> ColorRange:
    """Return one range for all `depths` (H, W each; 0 or NaN: none) of a clip, between two percentiles of all pixels.

    Without any depth the range is 1 to 2.
    """
    # A few thousand pixels a frame place a percentile as well as all of them.
    samples = [depth.ravel()[:: max(1, depth.size // 4096)] for depth in depths]
    values = np.concatenate([np.zeros(0), *samples])
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        return ColorRange(1.0, 2.0)
    near, far = (float(value) for value in np.percentile(values, (low, high)))
    return ColorRange(near, max(far, near * 1.05))


def color_position(depth: np.ndarray, range_: ColorRange) -> np.ndarray:
    """Return the position of depth between near (0) and far (1), clipped.

    In log depth: equal steps of colour are equal relative errors, which is what depth is judged by. (Inverse depth
    spends half of the colours on what is nearer than twice the nearest; depth itself spends them on the far end.)
    """
    safe = np.clip(np.nan_to_num(depth, nan=range_.near), range_.near, range_.far)
    return np.log(safe / range_.near) / math.log(range_.far / range_.near)


def colorize(depth: np.ndarray, range_: ColorRange) -> np.ndarray:
    """Color depth (H, W): near is warm, far is cold; `NO_DEPTH` where it is 0, NaN or infinite."""
    return palette()[color_index(depth, range_)]


def color_index(depth: np.ndarray, range_: ColorRange) -> np.ndarray:
    """Return (H, W) uint8, the row of `palette` for each depth; the last one where it is 0, NaN or infinite."""
    index = np.rint(color_position(depth, range_) * (_NO_DEPTH_INDEX - 1)).astype(np.uint8)
    index[~(np.isfinite(depth) & (depth > 0))] = _NO_DEPTH_INDEX
    return index


@lru_cache
def palette() -> np.ndarray:
    """Return (256, 3) uint8: near to far, then `NO_DEPTH`."""
    return np.concatenate([color_table("Spectral", _NO_DEPTH_INDEX), np.array([NO_DEPTH], np.uint8)])


@lru_cache
def color_table(name: str, count: int = 256) -> np.ndarray:
    """Return (`count`, 3) uint8, from one end of the color map to the other."""
    return matplotlib.colormaps[name](np.linspace(0, 1, count), bytes=True)[:, :3]


def round_ticks(range_: ColorRange, most: int) -> list[float]:
    """Return at most `most` round depths in the range: 1, 2, 5 times powers of ten, or evenly spaced ones."""
    decades = range(math.floor(math.log10(range_.near)), math.ceil(math.log10(range_.far)) + 1)
    for factors in ((1, 1.5, 2, 2.5, 3, 4, 5, 6, 8), (1, 1.5, 2, 3, 5), (1, 2, 3, 5), (1, 2, 5), (1,)):
        ticks = [factor * 10.0**decade for decade in decades for factor in factors]
        ticks = [tick for tick in ticks if range_.near <= tick <= range_.far]
        if 2 <= len(ticks) <= most:
            return ticks
    return [range_.near, range_.far]
