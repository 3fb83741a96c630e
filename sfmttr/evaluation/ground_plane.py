"""Camera height above the ground plane, in the unit of a depth map. With a known height, depth becomes metric.

The plane is fitted by RANSAC to the lower middle of the image, where the ground is in clips from a car or of a
pedestrian.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sfmttr.errors import AlignmentError
from sfmttr.geometry import unproject
from sfmttr.types import Camera

_ROWS, _COLUMNS = (0.62, 0.98), (0.25, 0.75)
"""Part of the image that is searched, as shares of its height and width."""
_SAMPLES, _TRIALS = 800, 150
_TOLERANCE = 0.03
"""Largest distance of an inlier from the plane, as a share of the point's depth."""
_MIN_INLIER_RATIO = 0.5
_MIN_COSINE = 0.8
"""Smallest cosine of the angle between the plane's normal and the camera's vertical: about 37 degrees."""


def height_above_ground(depth: np.ndarray, camera: Camera, rng: np.random.Generator) -> float | None:
    """Return the distance of the camera from the ground plane, in the unit of `depth` (H, W).

    `camera` has the size of `depth`. None when no ground plane is found.
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
    level = np.abs(normals[:, 1]) > _MIN_COSINE
    if not level.any():
        return None
    normals, distances = normals[level], distances[level]
    on_plane = np.abs(xyz @ normals.T - distances) < _TOLERANCE * z[:, None]
    best = on_plane[:, int(on_plane.sum(axis=0).argmax())]
    if best.mean() < _MIN_INLIER_RATIO:
        return None
    ground = xyz[best]
    center = ground.mean(axis=0)
    normal = np.linalg.svd(ground - center, full_matrices=False)[2][2]
    if abs(normal[1]) < _MIN_COSINE:
        return None
    return float(abs(normal @ center))


def camera_height(frames: Iterable[tuple[np.ndarray, Camera]], seed: int = 0) -> float:
    """Return the median height over `frames`, pairs of depth (H, W) and its camera.

    Raises `AlignmentError` when the ground is found in fewer than half of them.
    """
    rng = np.random.default_rng(seed)
    heights = [height_above_ground(depth, camera, rng) for depth, camera in frames]
    found = [height for height in heights if height is not None]
    if not found or 2 * len(found) < len(heights):
        raise AlignmentError(
            f"The ground is found in only {len(found)} of {len(heights)} frames: give a known distance instead."
        )
    return float(np.median(found))
