"""Colored point clouds from depth maps with poses, and PLY files of them.

Positions stay in the axes of the reconstruction (OpenCV's: x right, y down, z forward), so a PLY file overlays the
COLMAP model that it comes from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import maximum_filter

from sfmttr.errors import DepthKindError
from sfmttr.geometry import inverse_rigid, transform, unproject
from sfmttr.io.atomic import atomic_file
from sfmttr.types import HW, Camera, Depth, DepthKind, SparseView

FLAT_ALLOWANCE = 6.0
"""Factor on `CloudConfig.max_slope` for surfaces without depth steps."""
MAX_BEND = 0.15
"""Largest relative deviation of inverse depth from a straight line, over a fiftieth of the image, of a plane."""


@dataclass(frozen=True)
class CloudConfig:
    """Which pixels of the depth maps become geometry."""

    max_points: int = 400_000
    """Most points of a cloud, over all frames."""
    max_vertices: int = 120_000
    """Most vertices of a mesh, over all frames."""
    texture_long_side: int = 1024
    """Largest width or height of a texture, pixels."""
    far_percentile: float = 90.0
    """Percentile of depth that "far" is relative to; depth of the sparse points where a frame has enough of them."""
    far_factor: float = 1.5
    """Depth beyond this many times that percentile is cut: sky and haze. A room loses nothing."""
    max_slope: float = 10.0
    """Largest change of depth per pixel, in units of the pixel's width at that depth; beyond it lies a depth edge. A
    wall seen under an angle of 6 degrees has a slope of 10."""


@dataclass(frozen=True)
class PosedDepth:
    """One frame: picture, depth and camera pose."""

    rgb: np.ndarray
    """(H, W, 3) uint8."""
    depth: Depth
    """(H, W); 0 or NaN where there is none."""
    view: SparseView
    """Camera and pose in SfM units; the camera may have another image size than `rgb`."""

    def __post_init__(self) -> None:
        if self.rgb.shape[:2] != self.depth.values.shape:
            raise ValueError(f"{self.rgb.shape=} {self.depth.values.shape=} do not agree")
        if self.depth.kind is DepthKind.AFFINE_DISPARITY:
            raise DepthKindError("a cloud needs depth and this is affine disparity; convert it first")

    @property
    def camera(self) -> Camera:
        """Camera at the size of the depth map."""
        return self.view.camera.scaled_to(self.depth.values.shape)


@dataclass(frozen=True)
class PointCloud:
    """Colored points."""

    xyz: np.ndarray
    """(N, 3) float32, in the world of the reconstruction."""
    rgb: np.ndarray
    """(N, 3) uint8, sRGB."""


def surface_mask(depth: np.ndarray, focal_px: float, max_slope: float) -> np.ndarray:
    """Return (H, W) bool: pixels with depth, away from depth edges. `depth` (H, W), 0 or NaN for none.

    Networks smear depth across edges; such pixels float between foreground and background. The test is on the
    difference to a neighboring pixel in units of the pixel's width at that depth (|dz| / z * focal). This is the
    tangent of the viewing angle of the surface, so the test is the same at any resolution, scale and distance. A
    distant road exceeds the limit without being a step; places without steps get `FLAT_ALLOWANCE` times the limit.
    """
    has_depth = np.isfinite(depth) & (depth > 0)
    log_depth = np.log(np.where(has_depth, depth, 1.0))
    steepest = np.zeros(depth.shape)
    for axis in (0, 1):
        both = _first(has_depth, axis) & _last(has_depth, axis)
        slope = np.where(both, np.abs(np.diff(log_depth, axis=axis)), 0) * focal_px
        np.maximum(_first(steepest, axis), slope, out=_first(steepest, axis))
        np.maximum(_last(steepest, axis), slope, out=_last(steepest, axis))
    return has_depth & (steepest <= max_slope * np.where(step_mask(depth), 1, FLAT_ALLOWANCE))


def step_mask(depth: np.ndarray) -> np.ndarray:
    """Return (H, W) bool: pixels near a depth step, sharp or smeared. Planes at any angle and creases are no steps."""
    has_depth = np.isfinite(depth) & (depth > 0)
    inverse = 1 / np.where(has_depth, depth, 1.0)
    radius = max(2, round(max(depth.shape) / 100))
    up, down = np.zeros(depth.shape, bool), np.zeros(depth.shape, bool)
    # Transposed views share their memory with `up` and `down`, so one loop body serves both axes.
    for values, known, ups, downs in ((inverse, has_depth, up, down), (inverse.T, has_depth.T, up.T, down.T)):
        before, here, after = slice(None, -2 * radius), slice(radius, -radius), slice(2 * radius, None)
        all_known = known[before] & known[here] & known[after]
        # The inverse depth of a plane is linear in the pixel; the rest is curvature.
        bend = np.where(all_known, (values[before] + values[after]) / values[here] - 2, 0)
        ups[here] |= bend > MAX_BEND
        downs[here] |= bend < -MAX_BEND
    # A step curves one way at its top and the other way at its foot; a crease curves one way only.
    return maximum_filter(up, 2 * radius + 1) & maximum_filter(down, 2 * radius + 1)


def _first(array: np.ndarray, axis: int) -> np.ndarray:
    """Return all but the last row (axis 0) or column (axis 1)."""
    return array[:-1] if axis == 0 else array[:, :-1]


def _last(array: np.ndarray, axis: int) -> np.ndarray:
    """Return all but the first row (axis 0) or column (axis 1)."""
    return array[1:] if axis == 0 else array[:, 1:]


def pixel_grid(hw: HW, budget: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of a regular grid over the whole image: at most `budget` pixels, at least 2 x 2."""
    stride = max(1.0, np.sqrt(hw[0] * hw[1] / max(budget, 4)))
    rows, columns = (max(2, int(size / stride)) for size in hw)
    y, x = np.linspace(0, hw[0] - 1, rows), np.linspace(0, hw[1] - 1, columns)
    return np.rint(y).astype(int), np.rint(x).astype(int)


def far_limit(frame: PosedDepth, scale: float, config: CloudConfig) -> float:
    """Return the depth (SfM units) beyond which `frame` is cut.

    A network predicts some depth for the sky, where the reconstruction has no points. A frame with enough sparse points
    therefore takes the limit from them.
    """
    values = frame.depth.values
    has_depth = np.isfinite(values) & (values > 0)
    if not has_depth.any():
        return 0.0
    far = float(np.percentile(values[has_depth], config.far_percentile)) * scale
    if len(frame.view.depth) >= 50:
        far = min(far, float(np.percentile(frame.view.depth, config.far_percentile)))
    return far * config.far_factor


def world_points(frame: PosedDepth, y: np.ndarray, x: np.ndarray, scale: float) -> np.ndarray:
    """Return the world positions (N, 3) float32 of the pixels in rows `y` (N,) and columns `x` (N,)."""
    xy_px = np.stack([x, y], axis=1) + 0.5
    xyz_in_cam = unproject(frame.camera, xy_px, frame.depth.values[y, x] * scale)
    return transform(inverse_rigid(frame.view.cam_from_world), xyz_in_cam).astype(np.float32)


def cloud_from_depth(
    frames: Iterable[PosedDepth], count: int, sfm_units_per_depth: float, config: CloudConfig | None = None
) -> PointCloud:
    """Return the points of all `frames` (`count` of them, read one at a time), in SfM units.

    `sfm_units_per_depth`: factor on the depth maps. The result has at most `config.max_points` points.
    """
    config = config or CloudConfig()
    parts = [_frame_points(frame, config.max_points // max(count, 1), sfm_units_per_depth, config) for frame in frames]
    if not parts:
        return PointCloud(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8))
    xyz, rgb = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return PointCloud(xyz[: config.max_points], rgb[: config.max_points])


def _frame_points(frame: PosedDepth, budget: int, scale: float, config: CloudConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return positions (N, 3) and colors (N, 3) of the points of one frame."""
    depth = frame.depth.values
    far = far_limit(frame, scale, config)
    keep = surface_mask(depth, frame.camera.fx, config.max_slope) & (depth * scale <= far)
    rows, columns = pixel_grid(keep.shape, budget)
    y, x = (axis.ravel() for axis in np.meshgrid(rows, columns, indexing="ij"))
    chosen = keep[y, x]
    y, x = y[chosen], x[chosen]
    return world_points(frame, y, x, scale), frame.rgb[y, x]


def write_ply(path: Path, cloud: PointCloud, metres_per_sfm_unit: float | None = None) -> None:
    """Write a binary little-endian PLY in the axes of the reconstruction, atomically; in metres when they are known."""
    unit = "SfM units" if metres_per_sfm_unit is None else "metres"
    row = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])
    rows = np.empty(len(cloud.xyz), row)
    rows["xyz"], rows["rgb"] = cloud.xyz * (metres_per_sfm_unit or 1.0), cloud.rgb
    names = [f"property float {axis}" for axis in "xyz"] + [f"property uchar {c}" for c in ("red", "green", "blue")]
    comments = ["comment sfmttr; axes: x right, y down, z forward", f"comment unit: {unit}"]
    head = ["ply", "format binary_little_endian 1.0", *comments, f"element vertex {len(rows)}", *names, "end_header"]
    with atomic_file(path) as part, part.open("wb") as file:
        file.write("\n".join([*head, ""]).encode("ascii"))
        file.write(rows.tobytes())
