"""How high the camera is above the ground, in the unit of a depth map: a known height then turns depth into metres.

The ground is looked for where it is in clips of people who walk or drive: in the lower middle of the picture, roughly
below the camera.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sfmttr.errors import AlignmentError
from sfmttr.geometry import unproject
from sfmttr.types import Camera

_ROWS, _COLUMNS = (0.62, 0.98), (0.25, 0.75)
"""Part of the picture, as shares of its height and width."""
_SAMPLES, _TRIALS = 800, 150
_TOLERANCE = 0.03
"""A point is on the plane when it is off by less than this share of its own depth."""
_LEAST_SHARE = 0.5
"""Of the points that must be on it."""
_LEVEL = 0.8
"""Least cosine between the plane's normal and the camera's vertical: about 37 degrees."""


def height_above_ground(depth: np.ndarray, camera: Camera, rng: np.random.Generator) -> float | None:
    """Distance of the camera from the ground plane, in the unit of `depth` (H, W); None when no ground is seen.

    `camera` is of the depth's size.
    """
    h, w = depth.shape
    rows = rng.integers(int(_ROWS[0] * h), int(_ROWS[1] * h), _SAMPLES)
    columns = rng.integers(int(_COLUMNS[0] * w), int(_COLUMNS[1] * w), _SAMPLES)
    z = depth[rows, columns]
    xyz = unproject(camera, np.stack([columns + 0.5, rows + 0.5], axis=1), z)
    a, b, c = (xyz[rng.integers(len(xyz), size=_TRIALS)] for _ in range(3))
    normals = np.cross(b - a, c - a)
    lengths = np.linalg.norm(normals, axis=1)
    usable = lengths > 1e-12
    normals = normals[usable] / lengths[usable, None]
    distances = np.einsum("ij,ij->i", normals, a[usable])
    level = np.abs(normals[:, 1]) > _LEVEL
    if not level.any():
        return None
    normals, distances = normals[level], distances[level]
    on_plane = np.abs(xyz @ normals.T - distances) < _TOLERANCE * z[:, None]
    best = on_plane[:, int(on_plane.sum(axis=0).argmax())]
    if best.mean() < _LEAST_SHARE:
        return None
    ground = xyz[best]
    centre = ground.mean(axis=0)
    normal = np.linalg.svd(ground - centre, full_matrices=False)[2][2]
    if abs(normal[1]) < _LEVEL:
        return None
    return float(abs(normal @ centre))


def camera_height(frames: Iterable[tuple[np.ndarray, Camera]], seed: int = 0) -> float:
    """The median height over `frames`: pairs of depth (H, W) and its camera.

    Raises `AlignmentError` when fewer than half of them show the ground.
    """
    rng = np.random.default_rng(seed)
    heights = [height_above_ground(depth, camera, rng) for depth, camera in frames]
    found = [height for height in heights if height is not None]
    if not found or 2 * len(found) < len(heights):
        raise AlignmentError(
            f"The ground is seen in {len(found)} of {len(heights)} frames only: give a known distance instead."
        )
    return float(np.median(found))
