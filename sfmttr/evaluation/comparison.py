"""Comparison of depth before and after refinement, at held-out points, in held-out frames and against ground truth.

A comparison has one column for each `Column`. To add one: a member here, its maps in `run.pipeline`, a field of
`ComparisonReport` in `run.report`, and its title in the page's `run_view`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from sfmttr.errors import DepthKindError, GroundTruthError, NetworkError
from sfmttr.evaluation.ground_truth import GroundTruth
from sfmttr.evaluation.metrics import (
    DepthMetrics,
    Protocol,
    apply_protocol,
    depth_metrics,
    mean_over_frames,
    pool,
    valid_mask,
)
from sfmttr.geometry import sample_numpy
from sfmttr.networks.base import DepthPredictor, source_frames
from sfmttr.refinement.observations import Observations, sample_at
from sfmttr.types import DepthKind, FrameSet


class Column(StrEnum):
    """Variant of the clip's depth, and column of every comparison."""

    BEFORE = "before"
    """Prediction of the unrefined network."""
    ALIGNED = "aligned"
    """`BEFORE` times the scale that fits the clip best (disparity: with scale and shift)."""
    # A gain over `before` that is only scale is not a gain.
    BEFORE_FUSED = "before_fused"
    """The aligned prediction, fused with sparse points: what can be had without training."""
    AFTER = "after"
    """Prediction of the refined network."""
    AFTER_FUSED = "after_fused"
    """The refined prediction, fused with sparse points."""


Maps = Mapping[Column, np.ndarray]
"""Depth maps (N, h, w) of one clip by column, all in the network's unit, each at its own resolution."""


@dataclass(frozen=True)
class DistanceErrors:
    """Errors of the values with true depth in [near, far)."""

    near: float
    far: float
    metrics: DepthMetrics


@dataclass(frozen=True)
class ColumnErrors:
    """Errors of one column, overall and by ranges of true depth."""

    overall: DepthMetrics
    by_distance: tuple[DistanceErrors, ...]


@dataclass(frozen=True)
class Comparison:
    """Errors of every column against one reference."""

    protocol: str
    """Description of the protocol, to be shown with the figures."""
    unit: str
    """Unit of RMSE, SqRel and the distance ranges."""
    columns: Mapping[Column, ColumnErrors]


def _errors_by_distance(predicted: np.ndarray, true: np.ndarray, edges: np.ndarray) -> list[DepthMetrics]:
    """Compute the errors in each range between `edges` (B + 1,); values beyond them count in the outermost range."""
    which = np.clip(np.searchsorted(edges, true, side="right") - 1, 0, len(edges) - 2)
    return [depth_metrics(predicted[which == i], true[which == i]) for i in range(len(edges) - 1)]


def _with_ranges(edges: np.ndarray, rows: list[DepthMetrics]) -> tuple[DistanceErrors, ...]:
    return tuple(DistanceErrors(float(edges[i]), float(edges[i + 1]), row) for i, row in enumerate(rows))


def _quartile_edges(true: np.ndarray) -> np.ndarray:
    return np.quantile(true, [0.0, 0.25, 0.5, 0.75, 1.0])


def compare_at_points(maps: Maps, observations: Observations, scale: float, unit: str, what: str) -> Comparison | None:
    """Compute errors at sparse points, pooled over all frames, against SfM depth in the network's unit.

    `scale` converts SfM depth; `what` names the observations in the description. None without observations.
    """
    if not len(observations):
        return None
    reference = scale * observations.z
    edges = _quartile_edges(reference)
    columns = {}
    for column, values in maps.items():
        predicted = sample_at(values, observations)
        by_distance = _with_ranges(edges, _errors_by_distance(predicted, reference, edges))
        columns[column] = ColumnErrors(depth_metrics(predicted, reference), by_distance)
    return Comparison(
        f"{what}: SfM depth of {len(reference)} points that were not trained on, no scaling", unit, columns
    )


def errors_at_points(
    predictor: DepthPredictor, frames: FrameSet, observations: Observations, scale: float
) -> DepthMetrics:
    """Compute a predictor's errors at sparse points, against `scale` times their SfM depth, in the predictor's unit.

    Raises `DepthKindError` for affine disparity, `NetworkError` when predicted depth is not finite and positive.
    """
    if predictor.kind == DepthKind.AFFINE_DISPARITY:
        raise DepthKindError("Affine disparity cannot be compared with depth; align and convert it first.")
    predicted = np.empty(len(observations), np.float32)
    for frame in np.unique(observations.frame):
        rows = observations.frame == frame
        depth = predictor.predict(frames.read(int(frame)).rgb, *source_frames(predictor, frames, int(frame)))
        if not (np.isfinite(depth).all() and (depth > 0).all()):
            raise NetworkError(f"The network gave depth that is not finite and positive for {frames.names[frame]}.")
        predicted[rows] = sample_numpy(depth, observations.grid[rows], mode="bilinear")
    return depth_metrics(predicted, scale * observations.z)


def compare_with_ground_truth(
    maps: Maps, kind: DepthKind, ground_truth: GroundTruth, protocol: Protocol, frames: np.ndarray | None = None
) -> Comparison | None:
    """Compute errors over the frames with ground truth, or those of them where `frames` (N,) is True; None if none."""
    chosen = [frame for frame in ground_truth.files if frames is None or frames[frame]]
    if not chosen:
        return None
    edges = np.array(protocol.bins) if protocol.bins else _ground_truth_quartiles(ground_truth, protocol, chosen)
    overall: dict[Column, list[DepthMetrics]] = {column: [] for column in maps}
    binned: dict[Column, list[list[DepthMetrics]]] = {column: [] for column in maps}
    for frame in chosen:
        true = ground_truth.read(frame)
        for column, values in maps.items():
            pair = apply_protocol(values[frame], kind, true, protocol)
            overall[column].append(depth_metrics(pair.predicted, pair.true))
            binned[column].append(_errors_by_distance(pair.predicted, pair.true, edges))
    columns = {
        column: ColumnErrors(
            mean_over_frames(overall[column]),
            _with_ranges(edges, [pool(rows) for rows in zip(*binned[column], strict=True)]),
        )
        for column in maps
    }
    return Comparison(f"{protocol.describe()} ({len(chosen)} frames)", "m", columns)


def _ground_truth_quartiles(ground_truth: GroundTruth, protocol: Protocol, frames: list[int]) -> np.ndarray:
    """Return the edges (5,) of the quartiles of true depth, from about ten frames."""
    few = frames[:: max(1, len(frames) // 10)]
    values = [true[valid_mask(true, protocol)] for true in map(ground_truth.read, few)]
    pooled = np.concatenate(values)
    if not len(pooled):
        raise GroundTruthError("The ground truth holds no positive depth under this protocol.")
    return _quartile_edges(pooled)
