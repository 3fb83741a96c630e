"""Pixels, cameras and transforms. Only this module converts pixel coordinates to sampling coordinates.

Pixel convention (COLMAP's): the center of the top-left pixel is (0.5, 0.5), the image spans [0, W] x [0, H]. So
coordinates scale with image size without an offset, and `grid = 2 * xy / wh - 1` is right for
`torch.nn.functional.grid_sample(align_corners=False)` at *any* resolution of the sampled map.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from sfmttr.types import HW, Camera

Values = TypeVar("Values", np.ndarray, Tensor)


def grid_from_pixels(xy_px: np.ndarray, hw: HW) -> np.ndarray:
    """Convert pixels (..., 2) of an image of size `hw` to sampling coordinates in [-1, 1] (`align_corners=False`)."""
    return (2.0 * np.asarray(xy_px, np.float64) / np.array([hw[1], hw[0]], np.float64) - 1.0).astype(np.float32)


def pixels_from_grid(grid: np.ndarray, hw: HW) -> np.ndarray:
    """Convert sampling coordinates (N, 2) to pixels (N, 2): the inverse of `grid_from_pixels`."""
    return (grid + 1) * 0.5 * np.array([hw[1], hw[0]])


def sample(maps: Tensor, grid: Tensor, *, mode: str = "bilinear") -> Tensor:
    """Sample `maps` (C, H, W) at `grid` (M, 2): (C, M). Border values extend beyond the outermost pixel centers."""
    values = functional.grid_sample(maps[None], grid[None, None], mode=mode, padding_mode="border", align_corners=False)
    return values[0, :, 0]


def sample_numpy(values: np.ndarray, grid: np.ndarray, *, mode: str = "bilinear") -> np.ndarray:
    """Sample one numpy map (H, W) at `grid` (M, 2) like `sample`: (M,) float32."""
    maps = torch.from_numpy(np.ascontiguousarray(values, np.float32))[None]
    return sample(maps, torch.from_numpy(np.ascontiguousarray(grid, np.float32)), mode=mode)[0].numpy()


def resize_numpy(values: np.ndarray, hw: HW) -> np.ndarray:
    """Resize one map (H, W) bilinearly to `hw`, in the pixel convention above."""
    if values.shape == hw:
        return np.ascontiguousarray(values, np.float32)
    maps = torch.from_numpy(np.ascontiguousarray(values, np.float32))[None, None]
    return functional.interpolate(maps, hw, mode="bilinear", align_corners=False)[0, 0].numpy()


def transform(target_from_source: np.ndarray, xyz_in_source: np.ndarray) -> np.ndarray:
    """Apply a (4, 4) transform to points (N, 3)."""
    return xyz_in_source @ target_from_source[:3, :3].T + target_from_source[:3, 3]


def inverse_rigid(target_from_source: np.ndarray) -> np.ndarray:
    """Return `source_from_target`, the inverse of a rigid (4, 4) transform."""
    source_from_target = np.eye(4)
    rotation = target_from_source[:3, :3].T
    source_from_target[:3, :3] = rotation
    source_from_target[:3, 3] = -rotation @ target_from_source[:3, 3]
    return source_from_target


def _distorted(camera: Camera, u: Values, v: Values) -> tuple[Values, Values]:
    """Distort normalized image coordinates (OpenCV's model), as arrays or tensors."""
    r2 = u * u + v * v
    radial = 1 + r2 * (camera.k1 + r2 * camera.k2)
    du = 2 * camera.p1 * u * v + camera.p2 * (r2 + 2 * u * u)
    dv = camera.p1 * (r2 + 2 * v * v) + 2 * camera.p2 * u * v
    return u * radial + du, v * radial + dv


def _distort(camera: Camera, uv: np.ndarray) -> np.ndarray:
    """Distort normalized image coordinates (N, 2)."""
    return np.stack(_distorted(camera, uv[:, 0], uv[:, 1]), axis=1)


def project(camera: Camera, xyz_in_cam: np.ndarray) -> np.ndarray:
    """Project points (N, 3) in front of the camera to pixels (N, 2)."""
    uv = _distort(camera, xyz_in_cam[:, :2] / xyz_in_cam[:, 2:])
    return uv * [camera.fx, camera.fy] + [camera.cx, camera.cy]


def grid_of_points(camera: Camera, xyz_in_cam: Tensor) -> Tensor:
    """Project points (N, 3) in front of the camera to sampling coordinates (N, 2); differentiable."""
    u, v = _distorted(camera, *(xyz_in_cam[:, i] / xyz_in_cam[:, 2] for i in (0, 1)))
    height, width = camera.hw
    x, y = u * camera.fx + camera.cx, v * camera.fy + camera.cy
    return torch.stack((2 * x / width - 1, 2 * y / height - 1), dim=1)


def unproject(camera: Camera, xy_px: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Unproject pixels (N, 2) with camera z `depth` (N,) to points (N, 3) in the camera."""
    distorted = (np.asarray(xy_px, np.float64) - [camera.cx, camera.cy]) / [camera.fx, camera.fy]
    uv = distorted.copy()
    if any((camera.k1, camera.k2, camera.p1, camera.p2)):
        # Fixed-point iteration as in OpenCV's undistortPoints; converges for the distortions of ordinary lenses.
        for _ in range(30):
            step = distorted - _distort(camera, uv)
            uv += step
            if np.abs(step).max(initial=0.0) < 1e-12:
                break
    return np.concatenate([uv, np.ones((len(uv), 1))], axis=1) * np.asarray(depth, np.float64)[:, None]


def pixel_centers(hw: HW) -> np.ndarray:
    """Return the pixel coordinates (H * W, 2) of all pixel centers, row by row."""
    y, x = np.mgrid[0 : hw[0], 0 : hw[1]]
    return np.stack([x.ravel() + 0.5, y.ravel() + 0.5], axis=1)
