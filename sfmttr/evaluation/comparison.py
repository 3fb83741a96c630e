"""Before / aligned / before fused / after / after fused: on held-out points, on held-out frames, on ground truth.

"Aligned" is the unrefined network times the one scale that fits the clip best: a gain that is only scale is not a gain.
"Fused" needs no training, so the fused columns show what training adds beyond it.
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
    BEFORE = "before"
    ALIGNED = "aligned"
    BEFORE_FUSED = "before_fused"
    AFTER = "after"
    AFTER_FUSED = "after_fused"


Maps = Mapping[Column, np.ndarray]
"""Depth maps (N, h, w) of one clip, all in the network's unit, each at its own resolution."""


@dataclass(frozen=True)
class DistanceErrors:
    """Errors of the values whose true depth lies in [near, far)."""

    near: float
    far: float
    metrics: DepthMetrics


@dataclass(frozen=True)
class ColumnErrors:
    overall: DepthMetrics
    by_distance: tuple[DistanceErrors, ...]


@dataclass(frozen=True)
class Comparison:
    """Errors of every column against one reference."""

    protocol: str
    """What was compared and how, for printing beside the figures."""
    unit: str
    """Unit of rmse, sq_rel and the distance ranges."""
    columns: Mapping[Column, ColumnErrors]


def _by_distance(predicted: np.ndarray, true: np.ndarray, edges: np.ndarray) -> list[DepthMetrics]:
    """Errors of the values in each range between neighbouring `edges` (B + 1,); beyond the last ones: the outermost."""
    which = np.clip(np.searchsorted(edges, true, side="right") - 1, 0, len(edges) - 2)
    return [depth_metrics(predicted[which == i], true[which == i]) for i in range(len(edges) - 1)]


def _named(edges: np.ndarray, rows: list[DepthMetrics]) -> tuple[DistanceErrors, ...]:
    return tuple(DistanceErrors(float(edges[i]), float(edges[i + 1]), row) for i, row in enumerate(rows))


def _quartile_edges(true: np.ndarray) -> np.ndarray:
    return np.quantile(true, [0.0, 0.25, 0.5, 0.75, 1.0])


def compare_at_points(maps: Maps, observations: Observations, scale: float, unit: str, what: str) -> Comparison | None:
    """Errors at sparse points (rows pooled), against their SfM depth in the network's unit; None without any point."""
    if not len(observations):
        return None
    reference = scale * observations.z
    edges = _quartile_edges(reference)
    columns = {}
    for column, values in maps.items():
        predicted = sample_at(values, observations)
        by_distance = _named(edges, _by_distance(predicted, reference, edges))
        columns[column] = ColumnErrors(depth_metrics(predicted, reference), by_distance)
    return Comparison(
        f"{what}: SfM depth of {len(reference)} points that were not trained on, no scaling", unit, columns
    )


def errors_at_points(
    predictor: DepthPredictor, frames: FrameSet, observations: Observations, scale: float
) -> DepthMetrics:
    """Errors of any predictor at sparse points, against `scale` times their SfM depth, in the predictor's unit.

    Raises `DepthKindError` for inverse depth, `NetworkError` when the predictor gives depth that is not finite and
    positive.
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
    maps: Maps, kind: DepthKind, truth: GroundTruth, protocol: Protocol, frames: np.ndarray | None = None
) -> Comparison | None:
    """Errors against the truth of the frames that have some, of those where `frames` (N,) is true; None if none."""
    chosen = [frame for frame in truth.files if frames is None or frames[frame]]
    if not chosen:
        return None
    edges = np.array(protocol.bins) if protocol.bins else _edges_of_truth(truth, protocol, chosen)
    overall: dict[Column, list[DepthMetrics]] = {column: [] for column in maps}
    binned: dict[Column, list[list[DepthMetrics]]] = {column: [] for column in maps}
    for frame in chosen:
        true = truth.read(frame)
        for column, values in maps.items():
            pair = apply_protocol(values[frame], kind, true, protocol)
            overall[column].append(depth_metrics(pair.predicted, pair.true))
            binned[column].append(_by_distance(pair.predicted, pair.true, edges))
    columns = {
        column: ColumnErrors(
            mean_over_frames(overall[column]),
            _named(edges, [pool(rows) for rows in zip(*binned[column], strict=True)]),
        )
        for column in maps
    }
    return Comparison(f"{protocol.describe()} ({len(chosen)} frames)", "m", columns)


def _edges_of_truth(truth: GroundTruth, protocol: Protocol, frames: list[int]) -> np.ndarray:
    """Quartiles of the true depth, from at most ten frames."""
    few = frames[:: max(1, len(frames) // 10)]
    values = [true[valid_mask(true, protocol)] for true in map(truth.read, few)]
    pooled = np.concatenate(values)
    if not len(pooled):
        raise GroundTruthError("The ground truth holds no positive depth under this protocol.")
    return _quartile_edges(pooled)
