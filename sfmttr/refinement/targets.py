"""Targets: the depth that each frame is trained on and validated with.

`select_observations` chooses the observations to keep, `make_targets` converts their depth to the network's unit, and
`add_dense_targets` adds depth between the points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from sfmttr.config import DenseConfig, WeightConfig
from sfmttr.geometry import sample_numpy
from sfmttr.refinement.alignment import Alignment
from sfmttr.refinement.observations import Observations
from sfmttr.refinement.weighting import point_weights


@dataclass(frozen=True)
class FrameTargets:
    """Reference depth at points of one frame."""

    frame: int
    grid: np.ndarray
    """(M, 2) float32, sampling coordinates for `geometry.sample`."""
    reference: np.ndarray
    """(M,) float32, SfM depth in the network's unit."""
    weight: np.ndarray
    """(M,) float32; in [0, 1] without dense targets (`add_dense_targets`)."""


@dataclass(frozen=True)
class Targets:
    """Targets of all frames that have points."""

    train: tuple[FrameTargets, ...]
    validation: tuple[FrameTargets, ...]
    """Targets that the best step is chosen on."""
    network_scale: float
    """Best scale of the unrefined network's predictions (`Alignment.network_scale`); its validation error uses it."""


def frame_targets(observations: Observations, scale: float, weight: np.ndarray) -> tuple[FrameTargets, ...]:
    """Group observations (sorted by frame) by frame, with their `weight` (M,); `scale` converts depth."""
    frames, starts = np.unique(observations.frame, return_index=True)
    reference = (scale * observations.z).astype(np.float32)
    pieces = [np.split(array, starts[1:]) for array in (observations.grid, reference, weight)]
    return tuple(FrameTargets(int(frame), *parts) for frame, *parts in zip(frames, *pieces, strict=True))


def make_targets(observations: Observations, alignment: Alignment, config: WeightConfig) -> Targets:
    """Make targets from `observations` (sorted by frame), in the network's unit by `alignment.scale`."""
    weight = point_weights(observations, config)
    train, validation = observations.trainable, observations.validation
    return Targets(
        train=frame_targets(observations.where(train), alignment.scale, weight[train]),
        validation=frame_targets(observations.where(validation), alignment.scale, weight[validation]),
        network_scale=alignment.network_scale,
    )


def add_dense_targets(
    targets: Targets,
    maps: np.ndarray,
    config: DenseConfig,
    valid_region: Callable[[np.ndarray], np.ndarray],
    rng: np.random.Generator,
) -> Targets:
    """Return `targets` with depth from `maps` (N, h, w) at random pixels of each training frame.

    `valid_region` returns the mask (K,) of a grid (K, 2) where the network predicts depth. The weights are such that
    the mean over all rows of a frame is the mean over its points plus `config.weight` times the mean over its pixels.
    """

    def dense(frame: FrameTargets) -> FrameTargets:
        grid = rng.uniform(-1, 1, (config.pixels, 2)).astype(np.float32)
        grid = grid[valid_region(grid)]
        if not len(grid):
            return frame
        total = len(frame.weight) + len(grid)
        weight = np.full(len(grid), config.weight * total / len(grid), np.float32)
        return FrameTargets(
            frame.frame,
            np.concatenate([frame.grid, grid]),
            np.concatenate([frame.reference, sample_numpy(maps[frame.frame], grid).astype(np.float32)]),
            np.concatenate([frame.weight * np.float32(total / len(frame.weight)), weight]),
        )

    return replace(targets, train=tuple(dense(frame) for frame in targets.train))


@dataclass(frozen=True)
class Selection:
    """Observations that are trained on, and the number of excluded frames and tracks."""

    mask: np.ndarray
    """(M,) bool, over all observations: True where kept."""
    num_excluded_frames: int
    num_excluded_tracks: int


def select_observations(
    observations: Observations,
    relaxed: np.ndarray,
    frame_scale: dict[int, float],
    *,
    low_confidence: bool,
    keep_reliable_outliers: bool,
) -> Selection:
    """Select the observations that the network is trained on.

    `relaxed` (M,) bool: inliers of the relaxed model. A rejected observation is either a wrong point or a place where
    the network is far off, which is what there is to learn. With `keep_reliable_outliers`, observations that SfM alone
    rates as reliable stay, too. From a `low_confidence` reconstruction they do not, and frames and tracks that disagree
    grossly with the network are excluded: a track when most of its observations are rejected, a frame when its own
    scale (`frame_scale`, relative to the clip's) is off by more than a factor of two.
    """
    if not low_confidence:
        return Selection(relaxed | observations.reliable if keep_reliable_outliers else relaxed, 0, 0)
    seen = np.bincount(observations.point)
    rejected = np.bincount(observations.point, weights=~relaxed, minlength=len(seen))
    bad_track = rejected > 0.5 * seen
    bad_frames = {frame for frame, scale in frame_scale.items() if not 0.5 < scale < 2.0}
    keep = relaxed & ~bad_track[observations.point] & ~np.isin(observations.frame, list(bad_frames))
    return Selection(keep, len(bad_frames), int(bad_track.sum()))
