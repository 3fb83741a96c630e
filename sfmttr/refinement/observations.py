"""Observations: sparse points in frames, split by 3D point into training, validation and test.

`observe` flattens a `SparseModel` into one row for each point seen in each frame; `propagate_observations` adds rows
for points in neighboring frames where they were not detected.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np

from sfmttr.config import SplitConfig
from sfmttr.errors import AlignmentError
from sfmttr.geometry import grid_from_pixels, project, sample_numpy, transform
from sfmttr.types import HW, SparseModel, SparseView

FEATURE_ERROR_PX = 0.3
"""Assumed localization error of a feature."""
RELIABLE_SIGMA, RELIABLE_ERROR_PX = 0.05, 1.5
"""Upper bounds of `relative_sigma` and `error_px` of reliable observations."""


class Split(IntEnum):
    """Split that a 3D point, and so every observation of it, belongs to."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2


@dataclass(frozen=True)
class Observations:
    """Sparse points in frames: M rows, one for each point in each frame, sorted by frame."""

    frame: np.ndarray
    """(M,) int64, position in the `FrameSet`."""
    grid: np.ndarray
    """(M, 2) float32 in [-1, 1], sampling coordinates for `geometry.sample`."""
    z: np.ndarray
    """(M,) float32 > 0, camera z in SfM units."""
    error_px: np.ndarray
    """(M,) float32, the point's mean reprojection error."""
    track_length: np.ndarray
    """(M,) int32, frames that see the point."""
    relative_sigma: np.ndarray
    """(M,) float32, approximate standard deviation of z relative to z: pixel error over parallax."""
    point: np.ndarray
    """(M,) int64, row in `SparsePoints`."""
    split: np.ndarray
    """(M,) uint8, a `Split`."""
    frame_held_out: np.ndarray
    """(M,) bool: the frame is held out, so this row is never trained on."""

    def __len__(self) -> int:
        return len(self.z)

    @property
    def reliable(self) -> np.ndarray:
        """(M,) bool: accurate enough to evaluate against, by the reconstruction alone, without any network."""
        return (self.relative_sigma < RELIABLE_SIGMA) & (self.error_px < RELIABLE_ERROR_PX)

    def where(self, keep: np.ndarray) -> Observations:
        """Return the rows where `keep` (M,) is true."""
        return replace(self, **{name: value[keep] for name, value in vars(self).items()})

    @property
    def trainable(self) -> np.ndarray:
        """(M,) bool: training rows of frames that are not held out."""
        return (self.split == Split.TRAIN) & ~self.frame_held_out

    @property
    def validation(self) -> np.ndarray:
        """(M,) bool: rows that the best step is chosen on."""
        return (self.split == Split.VALIDATION) & ~self.frame_held_out

    @property
    def test(self) -> np.ndarray:
        """(M,) bool: rows that the comparison is evaluated on."""
        return (self.split == Split.TEST) & ~self.frame_held_out

    @property
    def test_on_held_out_frames(self) -> np.ndarray:
        """(M,) bool: test points in held-out frames; no observation of these points was trained on."""
        return (self.split == Split.TEST) & self.frame_held_out


def split_points(count: int, config: SplitConfig, rng: np.random.Generator) -> np.ndarray:
    """Return the `Split` (P,) uint8 of each 3D point, in exact shares, by a random permutation."""
    order = rng.permutation(count)
    split = np.full(count, Split.TRAIN, np.uint8)
    validation, test = round(config.validation * count), round(config.test * count)
    split[order[:validation]] = Split.VALIDATION
    split[order[validation : validation + test]] = Split.TEST
    return split


def held_out_frames(frame_count: int, block: int) -> np.ndarray:
    """Return the held-out frames (N,) bool: every second block of `block` frames; none when `block` is 0."""
    if block <= 0:
        return np.zeros(frame_count, bool)
    return (np.arange(frame_count) // block) % 2 == 1


def relative_sigma(model: SparseModel) -> np.ndarray:
    """Return the approximate relative standard deviation (P,) float32 of each point's depth.

    It is the pixel error divided by the point's largest parallax in pixels. The pixel error includes a constant for the
    localization of features, which the reprojection error of points seen in two views may not show at all.
    """
    focal_px = model.views[0].camera.fx
    parallax_px = focal_px * np.radians(np.maximum(model.points.triangulation_angle_deg, 0.01))
    return ((FEATURE_ERROR_PX + model.points.error_px) / parallax_px).astype(np.float32)


def observe(
    model: SparseModel, frame_count: int, hw: HW, config: SplitConfig, rng: np.random.Generator
) -> Observations:
    """Flatten and split a reconstruction of `frame_count` frames of size `hw`.

    Raises `AlignmentError` when no frame has points.
    """
    views = [view for view in model.views if len(view.depth)]
    if not views:
        raise AlignmentError("The reconstruction has no points in any frame: film more texture, or use another clip.")
    point = np.concatenate([view.point for view in views])
    frame = np.concatenate([np.full(len(view.depth), view.frame, np.int64) for view in views])
    split = split_points(len(model.points), config, rng)
    held_out = held_out_frames(frame_count, config.hold_out_frames)
    return Observations(
        frame=frame,
        grid=np.concatenate([grid_from_pixels(view.xy_px, hw) for view in views]),
        z=np.concatenate([view.depth for view in views]).astype(np.float32),
        error_px=model.points.error_px[point],
        track_length=model.points.track_length[point],
        relative_sigma=relative_sigma(model)[point],
        point=point,
        split=split[point],
        frame_held_out=held_out[frame],
    )


def propagate_observations(
    model: SparseModel, observations: Observations, frame_count: int, hw: HW, propagate_frames: int
) -> Observations:
    """Return rows for points in frames where they were not detected, but in a frame at most `propagate_frames` away.

    A point projects to a pixel whether or not it was detected there; within a few frames it is rarely occluded.
    Held-out frames neither give nor get points.
    """
    found = np.zeros((frame_count, len(model.points)), bool)
    found[observations.frame, observations.point] = True
    held_out = np.zeros(frame_count, bool)
    held_out[observations.frame[observations.frame_held_out]] = True
    near = _found_nearby(found & ~held_out[:, None], propagate_frames)
    parts = [
        _project_points(model, view, np.flatnonzero(near[view.frame] & ~found[view.frame]), hw)
        for view in model.views
        if not held_out[view.frame]
    ]
    point = np.concatenate([np.zeros(0, np.int64), *(part.point for part in parts)])
    split = np.zeros(len(model.points), np.uint8)
    split[observations.point] = observations.split
    xy_px = np.concatenate([np.zeros((0, 2)), *(part.xy_px for part in parts)])
    return Observations(
        frame=np.concatenate([np.zeros(0, np.int64), *(np.full(len(part.point), part.frame) for part in parts)]),
        grid=grid_from_pixels(xy_px, hw).astype(np.float32),
        z=np.concatenate([np.zeros(0), *(part.z for part in parts)]).astype(np.float32),
        error_px=model.points.error_px[point],
        track_length=model.points.track_length[point],
        relative_sigma=relative_sigma(model)[point],
        point=point,
        split=split[point],
        frame_held_out=np.zeros(len(point), bool),
    )


def _found_nearby(found: np.ndarray, reach: int) -> np.ndarray:
    """Return (N, P) bool: the point was found (`found`, of that shape) in a frame at most `reach` away."""
    near = found.copy()
    for offset in range(1, min(reach, len(found) - 1) + 1):
        near[offset:] |= found[:-offset]
        near[:-offset] |= found[offset:]
    return near


@dataclass(frozen=True)
class _ProjectedPoints:
    """Points within the image of one frame: `point` (K,), `xy_px` (K, 2), `z` (K,)."""

    frame: int
    point: np.ndarray
    xy_px: np.ndarray
    z: np.ndarray


def _project_points(model: SparseModel, view: SparseView, point: np.ndarray, hw: HW) -> _ProjectedPoints:
    """Project the points of rows `point` into a view; those behind the camera or outside the image are dropped."""
    xyz_in_cam = transform(view.cam_from_world, model.points.xyz_in_world[point])
    in_front = xyz_in_cam[:, 2] > 0
    point, xyz_in_cam = point[in_front], xyz_in_cam[in_front]
    xy_px = project(view.camera, xyz_in_cam)
    inside = (xy_px > 0).all(axis=1) & (xy_px < hw[::-1]).all(axis=1)
    return _ProjectedPoints(view.frame, point[inside], xy_px[inside], xyz_in_cam[inside, 2])


def merge_observations(first: Observations, second: Observations) -> Observations:
    """Return the rows of both, sorted by frame."""
    rows = {name: np.concatenate([value, getattr(second, name)]) for name, value in vars(first).items()}
    order = np.argsort(rows["frame"], kind="stable")
    return Observations(**{name: value[order] for name, value in rows.items()})


def sample_at(maps: np.ndarray, observations: Observations, *, mode: str = "bilinear") -> np.ndarray:
    """Sample maps (N, h, w), one for each frame, at the observations: (M,) float32."""
    values = np.empty(len(observations), np.float32)
    frames, starts = np.unique(observations.frame, return_index=True)
    ends = [*starts[1:], len(observations)] if len(starts) else []
    for frame, start, end in zip(frames, starts, ends, strict=True):
        values[start:end] = sample_numpy(maps[frame], observations.grid[start:end], mode=mode)
    return values
