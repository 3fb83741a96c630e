"""Fused depth: a network's depth corrected by what the frame's own sparse points say (DESIGN section 4).

At each point the log residual `log(reference / depth)` is known. Between points it is interpolated by normalised
convolution in a bilateral grid (Paris and Durand, ECCV 2006; Chen et al., SIGGRAPH 2007) over image position and the
network's own log depth: a point speaks for pixels that are near it *and* that the network takes for about as far, so
that corrections do not leak over depth edges. Coarse to fine: each level corrects what the one before it left. Away
from points a weak prior pulls the correction to none. It needs no training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy import ndimage
from torch.nn import functional

from sfmttr.config import FuseConfig
from sfmttr.geometry import resize_numpy, sample_numpy
from sfmttr.refinement.observations import Observations, sample_at
from sfmttr.refinement.weighting import cauchy_weights
from sfmttr.types import HW
from sfmttr.utils.device import one_cpu_thread
from sfmttr.utils.threads import map_in_order

CELLS_PER_SIGMA = 1.5
"""Resolution of the grid: enough for a Gaussian, and no more."""


def fusion_hw(hw: HW, config: FuseConfig) -> HW:
    """The size that fused depth of frames of size `hw` is computed at."""
    factor = min(1.0, config.long_side / max(hw))
    return max(1, round(hw[0] * factor)), max(1, round(hw[1] * factor))


@dataclass(frozen=True)
class _Guide:
    """The network's log depth (h, w), and how it and the image are divided into cells at one level."""

    log_depth: np.ndarray
    nearest: float
    farthest: float
    sigma_cells: tuple[float, float, float]
    """Widths of the Gaussian along depth, rows and columns."""
    shape: tuple[int, int, int]
    """Cells along depth, rows and columns."""

    @staticmethod
    def of(log_depth: np.ndarray, sigma_px: float, sigma_log: float) -> _Guide:
        nearest = float(log_depth.min())
        # A flat map gets a Gaussian's width of depth too: in units of no depth at all, the kernel would have no end.
        farthest = max(float(log_depth.max()), nearest + sigma_log)
        cell_px = max(sigma_px / CELLS_PER_SIGMA, 1.0)
        steps = max(1, int(np.ceil((farthest - nearest) * CELLS_PER_SIGMA / sigma_log)))
        sigma_depth = sigma_log * steps / (farthest - nearest)
        rows, columns = (max(2, int(np.ceil(size / cell_px))) for size in log_depth.shape)
        h, w = log_depth.shape
        sigmas = (sigma_depth, sigma_px * rows / h, sigma_px * columns / w)
        return _Guide(log_depth, nearest, farthest, sigmas, (steps + 1, rows, columns))

    def depth_position(self, log_depth: np.ndarray) -> np.ndarray:
        """Of log depths, in [0, 1]."""
        return (log_depth - self.nearest) / (self.farthest - self.nearest)

    def splat(self, grid: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Cells (K, ...) with each of `values` (K, M) of points at `grid` (M, 2) added up, trilinearly."""
        depths, rows, columns = self.shape
        position = np.stack(
            [
                self.depth_position(sample_numpy(self.log_depth, grid)) * (depths - 1),
                (grid[:, 1] + 1) * 0.5 * (rows - 1),
                (grid[:, 0] + 1) * 0.5 * (columns - 1),
            ]
        ).clip(0, np.array(self.shape)[:, None] - 1)
        low = np.minimum(position.astype(np.int64), np.array(self.shape)[:, None] - 2)
        part = position - low
        corners = np.array(list(np.ndindex(2, 2, 2)))[:, :, None]  # (8, 3, 1)
        share = np.prod(np.where(corners, part, 1 - part), axis=1)
        index = np.ravel_multi_index(tuple(np.moveaxis(low + corners, 1, 0)), self.shape).ravel()
        cells = [np.bincount(index, (share * value).ravel(), depths * rows * columns) for value in values]
        return np.stack(cells).astype(np.float32).reshape(-1, *self.shape)

    def blur(self, cells: np.ndarray) -> np.ndarray:
        """Of cells (K, ...) each by itself; as products with matrices, which takes a third of a filter's time."""
        along_depth, along_rows, along_columns = map(_blurring, self.shape, self.sigma_cells)
        flat = torch.from_numpy(cells) @ along_columns
        flat = (along_rows.T @ flat).flatten(2)
        return (along_depth.T @ flat).reshape(cells.shape).numpy()

    def slice(self, cells: np.ndarray) -> np.ndarray:
        """(h, w) float32: cells read at every pixel and its own depth, trilinearly."""
        h, w = self.log_depth.shape
        # Cells stand on the corners of the image (align_corners): position is (pixel centre / size) * (cells - 1).
        x = torch.linspace(-1 + 1 / w, 1 - 1 / w, w).expand(h, w)
        y = torch.linspace(-1 + 1 / h, 1 - 1 / h, h)[:, None].expand(h, w)
        z = torch.from_numpy(2 * self.depth_position(self.log_depth) - 1)
        where = torch.stack([x, y, z], dim=-1)[None, None]
        volume = torch.from_numpy(cells.astype(np.float32))[None, None]
        return functional.grid_sample(volume, where, padding_mode="border", align_corners=True)[0, 0, 0].numpy()


@lru_cache(maxsize=64)
def _blurring(count: int, sigma: float) -> torch.Tensor:
    """(count, count) float32: what rows of that many cells are multiplied by to blur them; outside them is nothing."""
    each = ndimage.gaussian_filter1d(np.eye(count), sigma, mode="constant", truncate=3.0)
    return torch.from_numpy(each.astype(np.float32))


def log_correction(
    log_depth: np.ndarray, grid: np.ndarray, residual: np.ndarray, weight: np.ndarray, config: FuseConfig
) -> np.ndarray:
    """(h, w) float32: interpolated log residual; 0 far from every point.

    `log_depth` (h, w) of the network, `grid` (M, 2), `residual` (M,) in log units, `weight` (M,) in [0, 1].
    """
    correction = np.zeros(log_depth.shape, np.float32)
    for share in config.sigmas:
        guide = _Guide.of(log_depth, share * log_depth.shape[1], config.sigma_log)
        left = residual - sample_numpy(correction, grid)
        mass, moment = guide.blur(guide.splat(grid, np.stack([weight, weight * left])))
        # The mass of one point of full weight at its own place.
        peak = 1.0 / ((2 * np.pi) ** 1.5 * np.prod(guide.sigma_cells))
        correction += guide.slice(moment / (mass + config.prior * peak))
    return correction


def fuse(
    depth: np.ndarray, grid: np.ndarray, reference: np.ndarray, weight: np.ndarray, hw: HW, config: FuseConfig
) -> np.ndarray:
    """Fused depth (h, w) at `hw` from `depth` (any size) and reference depths (M,) > 0, same unit, at `grid` (M, 2)."""
    resized = resize_numpy(depth, hw)
    residual = np.log(reference) - np.log(sample_numpy(resized, grid))
    usable = np.abs(residual) < np.log(config.max_factor)
    if not usable.any():
        return resized
    correction = log_correction(np.log(resized), grid[usable], residual[usable], weight[usable], config)
    return resized * np.exp(correction)


def fuse_clip(
    maps: np.ndarray,
    observations: Observations,
    reference: np.ndarray,
    weight: np.ndarray,
    hw: HW,
    config: FuseConfig,
    tell: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """(N, h, w) float32 at `hw`: `maps` (N, h', w') fused with each frame's points; without points only resized.

    `reference` (M,) depth at `observations` (sorted by frame), in the unit of `maps`; `weight` (M,) in [0, 1]. `tell`
    hears how many frames are done; what it raises ends the work and passes through.
    """
    weight = weight * cauchy_weights(np.log(reference) - np.log(sample_at(maps, observations)), config)

    def fused(frame: int) -> np.ndarray:
        rows = slice(*np.searchsorted(observations.frame, [frame, frame + 1]))
        return fuse(maps[frame], observations.grid[rows], reference[rows], weight[rows], hw, config)

    result = np.empty((len(maps), *hw), np.float32)
    with one_cpu_thread(), map_in_order(fused, len(maps)) as frames:
        for frame, depth in enumerate(frames):
            result[frame] = depth
            tell(frame + 1)
    return result
