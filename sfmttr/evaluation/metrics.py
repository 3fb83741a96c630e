"""Depth metrics, and evaluation protocols: which pixels are valid, and how predictions are scaled.

The seven measures are those of Eigen et al. (NeurIPS 2014), as in the paper's table.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import astuple, dataclass
from enum import StrEnum

import numpy as np

from sfmttr.errors import DepthKindError, GroundTruthError
from sfmttr.geometry import resize_numpy
from sfmttr.types import HW, DepthKind


@dataclass(frozen=True)
class DepthMetrics:
    """Errors of predicted depth p against true depth t."""

    abs_rel: float
    """mean |p - t| / t"""
    sq_rel: float
    """mean (p - t)^2 / t, in the unit of depth"""
    rmse: float
    """sqrt(mean (p - t)^2), in the unit of depth"""
    rmse_log: float
    """sqrt(mean (log p - log t)^2)"""
    a1: float
    """share of values with max(p / t, t / p) < 1.25"""
    a2: float
    """... < 1.25^2"""
    a3: float
    """... < 1.25^3"""
    count: int
    """number of values compared"""


@dataclass(frozen=True)
class Measure:
    """One of the seven measures, as tables name it."""

    name: str
    """Field of `DepthMetrics`, and key in JSON and CSV."""
    title: str
    label: str
    """Title for readers who do not know the field's abbreviations."""
    description: str
    higher_is_better: bool = False


MEASURES = (
    Measure("abs_rel", "AbsRel", "AbsRel", "mean of |error| / true depth"),
    Measure("sq_rel", "SqRel", "SqRel", "mean of squared error / true depth"),
    Measure("rmse", "RMSE", "RMSE", "root of the mean squared error"),
    Measure("rmse_log", "RMSE log", "RMSE log", "root of the mean squared error of log depth"),
    Measure("a1", "d1", "δ < 1.25", "share of depths less than 25 % off", higher_is_better=True),
    Measure("a2", "d2", "δ < 1.25²", "share of depths less than 56 % off", higher_is_better=True),
    Measure("a3", "d3", "δ < 1.25³", "share of depths less than 95 % off", higher_is_better=True),
)
"""All measures in the order of the paper's table. Every table of errors takes names, titles and order from here."""

_NAN = float("nan")
NOTHING_COMPARED = DepthMetrics(_NAN, _NAN, _NAN, _NAN, _NAN, _NAN, _NAN, count=0)


def depth_metrics(predicted: np.ndarray, true: np.ndarray) -> DepthMetrics:
    """Compute the errors of two arrays of positive depth of one shape; NaN with count 0 when they are empty."""
    if predicted.shape != true.shape:
        raise ValueError(f"{predicted.shape=} {true.shape=} differ")
    if predicted.size == 0:
        return NOTHING_COMPARED
    p, t = predicted.astype(np.float64).ravel(), true.astype(np.float64).ravel()
    if not (np.all(np.isfinite(p)) and np.all(p > 0) and np.all(t > 0)):
        raise ValueError("depths must be finite and positive")
    error, log_error = p - t, np.log(p) - np.log(t)
    ratio = np.exp(np.abs(log_error))
    return DepthMetrics(
        abs_rel=float(np.mean(np.abs(error) / t)),
        sq_rel=float(np.mean(error**2 / t)),
        rmse=float(np.sqrt(np.mean(error**2))),
        rmse_log=float(np.sqrt(np.mean(log_error**2))),
        a1=float(np.mean(ratio < 1.25)),
        a2=float(np.mean(ratio < 1.25**2)),
        a3=float(np.mean(ratio < 1.25**3)),
        count=p.size,
    )


def mean_over_frames(per_frame: Iterable[DepthMetrics]) -> DepthMetrics:
    """Average the errors of frames, as is usual in publications; frames without valid values are ignored."""
    rows = [m for m in per_frame if m.count]
    if not rows:
        return NOTHING_COMPARED
    errors = np.array([astuple(m)[:-1] for m in rows], np.float64).mean(axis=0)
    abs_rel, sq_rel, rmse, rmse_log, a1, a2, a3 = map(float, errors)
    return DepthMetrics(abs_rel, sq_rel, rmse, rmse_log, a1, a2, a3, count=sum(m.count for m in rows))


def pool(parts: Iterable[DepthMetrics]) -> DepthMetrics:
    """Compute the errors of all values together, from the errors of disjoint parts."""
    rows = [m for m in parts if m.count]
    if not rows:
        return NOTHING_COMPARED
    counts = np.array([m.count for m in rows], np.float64)

    def mean(name: str, power: int = 1) -> float:
        values = np.array([getattr(m, name) for m in rows]) ** power
        return float((values @ counts / counts.sum()) ** (1 / power))

    return DepthMetrics(
        abs_rel=mean("abs_rel"),
        sq_rel=mean("sq_rel"),
        rmse=mean("rmse", 2),
        rmse_log=mean("rmse_log", 2),
        a1=mean("a1"),
        a2=mean("a2"),
        a3=mean("a3"),
        count=int(counts.sum()),
    )


class ProtocolName(StrEnum):
    """Name of an evaluation protocol (`protocol`)."""

    KITTI = "kitti"
    INDOOR = "indoor"
    PLAIN = "plain"


@dataclass(frozen=True)
class Protocol:
    """Evaluation protocol: valid pixels, and scaling and clamping of predictions."""

    name: ProtocolName
    min_depth: float
    max_depth: float
    """Meters. Pixels with true depth strictly between the two are valid; predictions are clamped to them."""
    crop: tuple[float, float, float, float] | None
    """Top, bottom, left and right, as shares of height and width; None: the whole frame."""
    bins: tuple[float, ...]
    """Edges of the distance ranges in meters; empty: quartiles of the true depth."""
    median_scaling: bool = True
    """Scale each frame's prediction by median(true) / median(predicted)."""

    def describe(self) -> str:
        """Return a description in one line, to be shown with the figures."""
        crop = "Garg crop" if self.crop else "no crop"
        limit = f"{self.min_depth:g} to {self.max_depth:g} m" if np.isfinite(self.max_depth) else "every positive depth"
        scaling = "per-frame median scaling" if self.median_scaling else "no scaling"
        return f"{self.name}: {crop}, {limit}, {scaling}, prediction resized bilinearly to the truth, mean over frames"


GARG_CROP = (0.40810811, 0.99189189, 0.03594771, 0.96405229)
"""Evaluation crop for KITTI (Garg et al., ECCV 2016): top, bottom, left, right."""


def protocol(name: ProtocolName | str, *, median_scaling: bool = True) -> Protocol:
    """Return the protocol of a name. Raises `GroundTruthError` for an unknown name."""
    if name == ProtocolName.KITTI:
        return Protocol(ProtocolName.KITTI, 1e-3, 80.0, GARG_CROP, (0, 10, 20, 30, 50, 80), median_scaling)
    if name == ProtocolName.INDOOR:
        return Protocol(ProtocolName.INDOOR, 0.1, 10.0, None, (0, 1, 2, 3, 5, 10), median_scaling)
    if name == ProtocolName.PLAIN:
        return Protocol(ProtocolName.PLAIN, 0.0, float("inf"), None, (), median_scaling)
    raise GroundTruthError(f"There is no protocol '{name}': choose kitti, indoor or plain.")


def valid_mask(true: np.ndarray, protocol: Protocol) -> np.ndarray:
    """Return the valid pixels (H, W) bool of a ground-truth map."""
    valid = np.isfinite(true) & (true > protocol.min_depth) & (true < protocol.max_depth)
    if protocol.crop is not None:
        h, w = true.shape
        top, bottom, left, right = protocol.crop
        inside = np.zeros_like(valid)
        inside[int(top * h) : int(bottom * h), int(left * w) : int(right * w)] = True
        valid &= inside
    return valid


@dataclass(frozen=True)
class FrameComparison:
    """Predicted and true depth (K,) at the valid pixels of a frame, after the protocol was applied."""

    predicted: np.ndarray
    true: np.ndarray


def apply_protocol(depth: np.ndarray, kind: DepthKind, true: np.ndarray, protocol: Protocol) -> FrameComparison:
    """Resize, mask, scale and clamp a prediction (h, w) for comparison with true depth (H, W), 0 where unknown.

    Raises `DepthKindError` when the kind cannot be compared under this protocol.
    """
    if kind is DepthKind.AFFINE_DISPARITY:
        raise DepthKindError("Affine disparity cannot be compared with depth; align and convert it first.")
    if kind is DepthKind.SCALE_INVARIANT and not protocol.median_scaling:
        raise DepthKindError("Scale-invariant depth can only be compared with median scaling; leave it on.")
    hw: HW = (true.shape[0], true.shape[1])
    valid = valid_mask(true, protocol)
    p, t = resize_numpy(depth, hw)[valid].astype(np.float64), true[valid].astype(np.float64)
    if protocol.median_scaling and t.size:
        p = p * (np.median(t) / np.median(p))
    return FrameComparison(np.clip(p, max(protocol.min_depth, 1e-6), protocol.max_depth), t)
