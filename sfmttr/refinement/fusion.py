"""Fusion: predicted depth corrected by the sparse points of the frame, without training (docs/method.md).

At each point the log residual `log(reference / depth)` is known. Between points it is interpolated by normalized
convolution in a bilateral grid (Paris and Durand, ECCV 2006; Chen et al., SIGGRAPH 2007) over image position and
predicted log depth. A point corrects pixels that are near it *and* have about its predicted depth, so corrections do
not leak over depth edges. Each level, from coarse to fine, corrects the residual of the level before. Far from points,
a weak prior pulls the correction to zero.
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
"""Resolution of the grid relative to the standard deviation of the Gaussian."""


def fusion_hw(hw: HW, config: FuseConfig) -> HW:
    """Return the size at which fused depth of frames of size `hw` is computed."""
    factor = min(1.0, config.long_side / max(hw))
    return max(1, round(hw[0] * factor)), max(1, round(hw[1] * factor))


@dataclass(frozen=True)
class _Guide:
    """Predicted log depth (h, w), and the bilateral grid of one level."""

    log_depth: np.ndarray
    nearest: float
    """Smallest log depth of the grid."""
    farthest: float
    """Largest log depth of the grid."""
    sigma_cells: tuple[float, float, float]
    """Standard deviations of the Gaussian along depth, rows and columns, in cells."""
    shape: tuple[int, int, int]
    """Numbers of cells along depth, rows and columns."""

    @staticmethod
    def of(log_depth: np.ndarray, sigma_px: float, sigma_log: float) -> _Guide:
        nearest = float(log_depth.min())
        # A flat map gets a depth range, too: without one, the kernel would be infinitely wide in cells.
        farthest = max(float(log_depth.max()), nearest + sigma_log)
        cell_px = max(sigma_px / CELLS_PER_SIGMA, 1.0)
        steps = max(1, int(np.ceil((farthest - nearest) * CELLS_PER_SIGMA / sigma_log)))
        sigma_depth = sigma_log * steps / (farthest - nearest)
        rows, columns = (max(2, int(np.ceil(size / cell_px))) for size in log_depth.shape)
        h, w = log_depth.shape
        sigmas = (sigma_depth, sigma_px * rows / h, sigma_px * columns / w)
        return _Guide(log_depth, nearest, farthest, sigmas, (steps + 1, rows, columns))

    def depth_position(self, log_depth: np.ndarray) -> np.ndarray:
        """Return the positions of log depths along the depth axis of the grid, in [0, 1]."""
        return (log_depth - self.nearest) / (self.farthest - self.nearest)

    def splat(self, grid: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Splat `values` (K, M) of points at `grid` (M, 2) into cells (K, ...), with trilinear weights."""
        depths, rows, columns = self.shape
        position = np.stack(
            [
                self.depth_position(sample_numpy(self.log_depth, grid)) * (depths - 1),
                (grid[:, 1] + 1) * 0.5 * (rows - 1),
                (grid[:, 0] + 1) * 0.5 * (columns - 1),
            ]
        ).clip(0, np.array(self.shape)[:, None] - 1)
        low = np.minimum(position.astype(np.int64), np.array(self.shape)[:, None] - 2)
        fraction = position - low
        corners = np.array(list(np.ndindex(2, 2, 2)))[:, :, None]  # (8, 3, 1)
        share = np.prod(np.where(corners, fraction, 1 - fraction), axis=1)
        index = np.ravel_multi_index(tuple(np.moveaxis(low + corners, 1, 0)), self.shape).ravel()
        cells = [np.bincount(index, (share * value).ravel(), depths * rows * columns) for value in values]
        return np.stack(cells).astype(np.float32).reshape(-1, *self.shape)

    def blur(self, cells: np.ndarray) -> np.ndarray:
        """Blur cells (K, ...), each of the K volumes by itself."""
        # Products with matrices take a third of the time of ndimage's filter.
        along_depth, along_rows, along_columns = map(_blur_matrix, self.shape, self.sigma_cells)
        flat = torch.from_numpy(cells) @ along_columns
        flat = (along_rows.T @ flat).flatten(2)
        return (along_depth.T @ flat).reshape(cells.shape).numpy()

    def slice(self, cells: np.ndarray) -> np.ndarray:
        """Interpolate cells trilinearly at every pixel and its own depth: (h, w) float32."""
        h, w = self.log_depth.shape
        # Cells stand on the corners of the image (align_corners): position is (pixel centre / size) * (cells - 1).
        x = torch.linspace(-1 + 1 / w, 1 - 1 / w, w).expand(h, w)
        y = torch.linspace(-1 + 1 / h, 1 - 1 / h, h)[:, None].expand(h, w)
        z = torch.from_numpy(2 * self.depth_position(self.log_depth) - 1)
        where = torch.stack([x, y, z], dim=-1)[None, None]
        volume = torch.from_numpy(cells.astype(np.float32))[None, None]
        return functional.grid_sample(volume, where, padding_mode="border", align_corners=True)[0, 0, 0].numpy()


@lru_cache(maxsize=64)
def _blur_matrix(count: int, sigma: float) -> torch.Tensor:
    """Return the matrix (count, count) float32 that blurs rows of `count` cells, with zeros outside of them."""
    each = ndimage.gaussian_filter1d(np.eye(count), sigma, mode="constant", truncate=3.0)
    return torch.from_numpy(each.astype(np.float32))


def log_correction(
    log_depth: np.ndarray, grid: np.ndarray, residual: np.ndarray, weight: np.ndarray, config: FuseConfig
) -> np.ndarray:
    """Interpolate log residuals between points: (h, w) float32, 0 far from every point.

    `log_depth` (h, w) is the network's, `grid` (M, 2), `residual` (M,) in log units, `weight` (M,) in [0, 1].
    """
    correction = np.zeros(log_depth.shape, np.float32)
    for share in config.sigmas:
        guide = _Guide.of(log_depth, share * log_depth.shape[1], config.sigma_log)
        remaining = residual - sample_numpy(correction, grid)
        mass, moment = guide.blur(guide.splat(grid, np.stack([weight, weight * remaining])))
        # Mass of one point of full weight at its own position.
        peak = 1.0 / ((2 * np.pi) ** 1.5 * np.prod(guide.sigma_cells))
        correction += guide.slice(moment / (mass + config.prior * peak))
    return correction


def fuse(
    depth: np.ndarray, grid: np.ndarray, reference: np.ndarray, weight: np.ndarray, hw: HW, config: FuseConfig
) -> np.ndarray:
    """Fuse `depth` (any size) with reference depths (M,) > 0, in the same unit, at `grid` (M, 2).

    Returns (h, w) float32 at `hw`; without usable points, only resized.
    """
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
    on_frame_done: Callable[[int], None] = lambda done: None,
) -> np.ndarray:
    """Fuse `maps` (N, h', w') with each frame's points: (N, h, w) float32 at `hw`; frames without points are resized.

    `reference` (M,) is the depth at `observations` (sorted by frame), in the unit of `maps`; `weight` (M,) in [0, 1].
    `on_frame_done` is called with the number of frames done; exceptions from it stop the work and propagate.
    """
    weight = weight * cauchy_weights(np.log(reference) - np.log(sample_at(maps, observations)), config)

    def fused(frame: int) -> np.ndarray:
        rows = slice(*np.searchsorted(observations.frame, [frame, frame + 1]))
        return fuse(maps[frame], observations.grid[rows], reference[rows], weight[rows], hw, config)

    result = np.empty((len(maps), *hw), np.float32)
    with one_cpu_thread(), map_in_order(fused, len(maps)) as frames:
        for frame, depth in enumerate(frames):
            result[frame] = depth
            on_frame_done(frame + 1)
    return result
