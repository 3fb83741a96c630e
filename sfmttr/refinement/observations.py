"""What each frame is trained on, and what is held out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np

from sfmttr.config import SplitConfig
from sfmttr.errors import AlignmentError
from sfmttr.geometry import grid_from_pixels, project, sample_numpy, transform
from sfmttr.types import HW, SparseModel

FEATURE_ERROR_PX = 0.3
RELIABLE_SIGMA, RELIABLE_ERROR_PX = 0.05, 1.5


class Split(IntEnum):
    """Which side a 3D point, and so all of its observations, is on."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2


@dataclass(frozen=True)
class Observations:
    """Points seen in frames: one row (of M) for each, sorted by frame."""

    frame: np.ndarray
    """(M,) int64, position in the `FrameSet`."""
    grid: np.ndarray
    """(M, 2) float32 in [-1, 1], for `geometry.sample`."""
    z: np.ndarray
    """(M,) float32 > 0, camera z in SfM units."""
    error_px: np.ndarray
    """(M,) float32, the point's mean reprojection error."""
    track_length: np.ndarray
    """(M,) int32, frames that see the point."""
    relative_sigma: np.ndarray
    """(M,) float32, rough uncertainty of z as a share of z: pixel error over the parallax that triangulated it."""
    point: np.ndarray
    """(M,) int64, row in `SparsePoints`."""
    split: np.ndarray
    """(M,) uint8, a `Split`."""
    frame_held_out: np.ndarray
    """(M,) bool: the frame is left out altogether, so nothing of this row may be trained on."""

    def __len__(self) -> int:
        return len(self.z)

    @property
    def reliable(self) -> np.ndarray:
        """(M,) bool: fit to judge others by, on SfM's own word alone: no network had a say in it."""
        return (self.relative_sigma < RELIABLE_SIGMA) & (self.error_px < RELIABLE_ERROR_PX)

    def where(self, keep: np.ndarray) -> Observations:
        """The rows where `keep` (M,) is true."""
        return replace(self, **{name: value[keep] for name, value in vars(self).items()})

    @property
    def trainable(self) -> np.ndarray:
        """(M,) bool: training rows of frames that are not left out."""
        return (self.split == Split.TRAIN) & ~self.frame_held_out

    @property
    def validation(self) -> np.ndarray:
        """(M,) bool: rows that choose the best step."""
        return (self.split == Split.VALIDATION) & ~self.frame_held_out

    @property
    def test(self) -> np.ndarray:
        """(M,) bool: rows that the comparison is made on."""
        return (self.split == Split.TEST) & ~self.frame_held_out

    @property
    def test_on_held_out_frames(self) -> np.ndarray:
        """(M,) bool: the same points in frames that were left out; no observation of these points was trained on."""
        return (self.split == Split.TEST) & self.frame_held_out


def split_points(count: int, config: SplitConfig, rng: np.random.Generator) -> np.ndarray:
    """(P,) uint8 `Split` of each 3D point, in exact shares, by a seeded permutation."""
    order = rng.permutation(count)
    split = np.full(count, Split.TRAIN, np.uint8)
    validation, test = round(config.validation * count), round(config.test * count)
    split[order[:validation]] = Split.VALIDATION
    split[order[validation : validation + test]] = Split.TEST
    return split


def held_out_frames(frame_count: int, block: int) -> np.ndarray:
    """(N,) bool: every second block of `block` frames; none when `block` is 0."""
    if block <= 0:
        return np.zeros(frame_count, bool)
    return (np.arange(frame_count) // block) % 2 == 1


def relative_sigma(model: SparseModel) -> np.ndarray:
    """(P,) float32: what an error of a few tenths of a pixel does to a point's depth, given its largest parallax.

    The floor stands for the error of a feature's position, which two-view points can hide completely.
    """
    focal_px = model.views[0].camera.fx
    parallax_px = focal_px * np.radians(np.maximum(model.points.triangulation_angle_deg, 0.01))
    return ((FEATURE_ERROR_PX + model.points.error_px) / parallax_px).astype(np.float32)


def observe(
    model: SparseModel, frame_count: int, hw: HW, config: SplitConfig, rng: np.random.Generator
) -> Observations:
    """Flatten and split a reconstruction of frames of size `hw`. Raises `AlignmentError` when it has no points."""
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
    """Rows for points in frames where they were not found, but in one at most `propagate_frames` away.

    A point lies where its track says, whether or not a detector fired there; over a few frames hardly any gets hidden.
    Frames that are left out altogether neither give points nor get any.
    """
    found = np.zeros((frame_count, len(model.points)), bool)
    found[observations.frame, observations.point] = True
    giving = found.copy()
    giving[observations.frame[observations.frame_held_out]] = False
    held_out = np.zeros(frame_count, bool)
    held_out[observations.frame[observations.frame_held_out]] = True
    near = giving.copy()
    for offset in range(1, min(propagate_frames, frame_count - 1) + 1):
        near[offset:] |= giving[:-offset]
        near[:-offset] |= giving[offset:]
    parts: list[tuple[int, np.ndarray, np.ndarray, np.ndarray]] = []
    for view in model.views:
        if held_out[view.frame]:
            continue
        point = np.flatnonzero(near[view.frame] & ~found[view.frame])
        xyz_in_cam = transform(view.cam_from_world, model.points.xyz_in_world[point])
        in_front = xyz_in_cam[:, 2] > 0
        point, xyz_in_cam = point[in_front], xyz_in_cam[in_front]
        xy_px = project(view.camera, xyz_in_cam)
        inside = (xy_px > 0).all(axis=1) & (xy_px < hw[::-1]).all(axis=1)
        parts.append((view.frame, point[inside], xy_px[inside], xyz_in_cam[inside, 2]))
    point = np.concatenate([np.zeros(0, np.int64), *(points for _, points, _, _ in parts)])
    split = np.zeros(len(model.points), np.uint8)
    split[observations.point] = observations.split
    return Observations(
        frame=np.concatenate([np.zeros(0, np.int64), *(np.full(len(p), frame) for frame, p, _, _ in parts)]),
        grid=grid_from_pixels(np.concatenate([np.zeros((0, 2)), *(xy for _, _, xy, _ in parts)]), hw).astype(
            np.float32
        ),
        z=np.concatenate([np.zeros(0), *(z for _, _, _, z in parts)]).astype(np.float32),
        error_px=model.points.error_px[point],
        track_length=model.points.track_length[point],
        relative_sigma=relative_sigma(model)[point],
        point=point,
        split=split[point],
        frame_held_out=np.zeros(len(point), bool),
    )


def merge_observations(first: Observations, second: Observations) -> Observations:
    """The rows of both, sorted by frame."""
    rows = {name: np.concatenate([value, getattr(second, name)]) for name, value in vars(first).items()}
    order = np.argsort(rows["frame"], kind="stable")
    return Observations(**{name: value[order] for name, value in rows.items()})


def sample_at(maps: np.ndarray, observations: Observations, *, mode: str = "bilinear") -> np.ndarray:
    """(M,) float32: the maps (N, h, w), one a frame, read at the observations."""
    values = np.empty(len(observations), np.float32)
    frames, starts = np.unique(observations.frame, return_index=True)
    ends = [*starts[1:], len(observations)] if len(starts) else []
    for frame, start, end in zip(frames, starts, ends, strict=True):
        values[start:end] = sample_numpy(maps[frame], observations.grid[start:end], mode=mode)
    return values
