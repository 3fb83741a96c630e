"""Depth errors on valid pixels, and the protocols under which they may be compared.

The seven measures are those of Eigen et al. (NeurIPS 2014), as printed in the paper's table. Pure functions.
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
    """Errors of predicted against true depth."""

    abs_rel: float
    """mean |p - t| / t"""
    sq_rel: float
    """mean (p - t)^2 / t, in the unit of depth"""
    rmse: float
    """in the unit of depth"""
    rmse_log: float
    a1: float
    """share with max(p / t, t / p) < 1.25"""
    a2: float
    """... < 1.25^2"""
    a3: float
    """... < 1.25^3"""
    count: int
    """values compared"""


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
    """Errors over two equally shaped arrays of positive depths. All nan, count 0, when they are empty."""
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
    """The published convention: the mean of each frame's errors; frames without any valid value do not count."""
    rows = [m for m in per_frame if m.count]
    if not rows:
        return NOTHING_COMPARED
    errors = np.array([astuple(m)[:-1] for m in rows], np.float64).mean(axis=0)
    abs_rel, sq_rel, rmse, rmse_log, a1, a2, a3 = map(float, errors)
    return DepthMetrics(abs_rel, sq_rel, rmse, rmse_log, a1, a2, a3, count=sum(m.count for m in rows))


def pool(parts: Iterable[DepthMetrics]) -> DepthMetrics:
    """The errors of all values together, from the errors of disjoint parts."""
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
    KITTI = "kitti"
    INDOOR = "indoor"
    PLAIN = "plain"


@dataclass(frozen=True)
class Protocol:
    """Which pixels count, and what is done to a prediction before it is compared."""

    name: ProtocolName
    min_depth: float
    max_depth: float
    """Metres; pixels whose true depth lies strictly between the two count, predictions are clamped to them."""
    crop: tuple[float, float, float, float] | None
    """Top, bottom, left, right as shares of height and width; None: the whole frame."""
    bins: tuple[float, ...]
    """Borders of the distance ranges that are also reported, metres; empty: quartiles of the truth."""
    median_scaling: bool = True
    """Scale each frame's prediction by median(true) / median(predicted)."""

    def describe(self) -> str:
        """One line that stands beside every figure."""
        crop = "Garg crop" if self.crop else "no crop"
        limit = f"{self.min_depth:g} to {self.max_depth:g} m" if np.isfinite(self.max_depth) else "every positive depth"
        scaling = "per-frame median scaling" if self.median_scaling else "no scaling"
        return f"{self.name}: {crop}, {limit}, {scaling}, prediction resized bilinearly to the truth, mean over frames"


GARG_CROP = (0.40810811, 0.99189189, 0.03594771, 0.96405229)


def protocol(name: ProtocolName | str, *, median_scaling: bool = True) -> Protocol:
    """The protocol of that name."""
    if name == ProtocolName.KITTI:
        return Protocol(ProtocolName.KITTI, 1e-3, 80.0, GARG_CROP, (0, 10, 20, 30, 50, 80), median_scaling)
    if name == ProtocolName.INDOOR:
        return Protocol(ProtocolName.INDOOR, 0.1, 10.0, None, (0, 1, 2, 3, 5, 10), median_scaling)
    if name == ProtocolName.PLAIN:
        return Protocol(ProtocolName.PLAIN, 0.0, float("inf"), None, (), median_scaling)
    raise GroundTruthError(f"There is no protocol '{name}': choose kitti, indoor or plain.")


def valid_mask(true: np.ndarray, protocol: Protocol) -> np.ndarray:
    """(H, W) bool: the pixels of a ground-truth map that count."""
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
    """Matching true and predicted depths of one frame, after the protocol was applied."""

    predicted: np.ndarray
    true: np.ndarray


def apply_protocol(depth: np.ndarray, kind: DepthKind, true: np.ndarray, protocol: Protocol) -> FrameComparison:
    """Resize, select, scale and clamp one prediction (h, w) for comparison with true depth (H, W), 0 = none.

    Raises `DepthKindError` when the kind cannot be compared under this protocol.
    """
    if kind is DepthKind.AFFINE_DISPARITY:
        raise DepthKindError("An affine disparity must be turned into depth before it is compared.")
    if kind is DepthKind.SCALE_INVARIANT and not protocol.median_scaling:
        raise DepthKindError("A network without a unit can only be compared with median scaling; leave it on.")
    hw: HW = (true.shape[0], true.shape[1])
    valid = valid_mask(true, protocol)
    p, t = resize_numpy(depth, hw)[valid].astype(np.float64), true[valid].astype(np.float64)
    if protocol.median_scaling and t.size:
        p = p * (np.median(t) / np.median(p))
    return FrameComparison(np.clip(p, max(protocol.min_depth, 1e-6), protocol.max_depth), t)
