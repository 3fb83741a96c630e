"""Trust gate: whether a reconstruction may supervise a network. Evidence and thresholds: docs/method.md, "Trust gate".

Structure-from-motion can be wrong although every frame is registered, and held-out points share its errors.
Disagreement with the network does not prove it either: a network far from its training domain disagrees as much with a
perfect reconstruction, and gains most. So the gate closes only when both scores are poor: the reconstruction's own
health *and* its consistency with the network.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from sfmttr.refinement.alignment import Alignment
from sfmttr.types import SfmHealth

THRESHOLD = 0.5
"""Scores below this are poor."""
MIN_FRAME_OBSERVATIONS = 8
"""Frames with fewer observations than this are excluded from the per-frame statistics."""


@dataclass(frozen=True)
class Consistency:
    """Agreement of predictions and SfM depth, apart from the clip's scale."""

    relaxed_inlier_ratio: float
    rank_correlation: float
    """Spearman's rank correlation of z and d within a frame; median over frames."""
    scale_spread: float
    """Standard deviation over frames of the log of each frame's own scale, median(d / z)."""
    frame: np.ndarray
    """(F,) int64, frames with enough observations."""
    frame_scale: np.ndarray
    """(F,) float64, each frame's own scale divided by the clip's."""


def measure_consistency(frame: np.ndarray, z: np.ndarray, d: np.ndarray, alignment: Alignment) -> Consistency:
    """Compute the per-frame statistics for the trust gate, from `frame` (M,), sorted, `z` (M,) and `d` (M,)."""
    frames, starts, counts = np.unique(frame, return_index=True, return_counts=True)
    rows = [slice(s, s + c) for s, c in zip(starts, counts, strict=True) if c >= MIN_FRAME_OBSERVATIONS]
    kept = frames[counts >= MIN_FRAME_OBSERVATIONS]
    if not rows:
        return Consistency(alignment.relaxed_inlier_ratio, 0.0, float("inf"), kept, np.empty(0))
    correlations = [stats.spearmanr(z[r], d[r]).statistic for r in rows]
    scales = np.array([np.median(d[r] / z[r]) for r in rows]) / alignment.scale
    return Consistency(
        relaxed_inlier_ratio=alignment.relaxed_inlier_ratio,
        rank_correlation=float(np.nanmedian(np.nan_to_num(correlations, nan=0.0))),
        scale_spread=float(np.std(np.log(scales))),
        frame=kept,
        frame_scale=scales,
    )


@dataclass(frozen=True)
class Trust:
    """Decision of the trust gate, with its two scores."""

    trusted: bool
    sfm_health: float
    """Score in [0, 1] of the reconstruction alone."""
    consistency: float
    """Score in [0, 1] of reconstruction and network together."""
    statement: str
    """Explanation for the user; empty when trusted."""
    cli_hint: str = ""
    """Advice that names options of the command line; only the command line shows it."""

    @property
    def out_of_domain(self) -> bool:
        """True if network and reconstruction disagree; when the reconstruction is trusted, the network is at fault."""
        return self.consistency < THRESHOLD


def _ramp(value: float, poor: float, good: float) -> float:
    """Return 0 at `poor`, 1 at `good`, linear in between; either may be the larger."""
    return float(np.clip((value - poor) / (good - poor), 0.0, 1.0))


def consistency_score(consistency: Consistency) -> float:
    """Return a score from 0 (no better than chance) to 1: the minimum over the three statistics.

    A wrong reconstruction of traffic may have the right depth order, or one scale for all frames, but not all at once.
    """
    spread = consistency.scale_spread if np.isfinite(consistency.scale_spread) else 10.0
    return min(
        _ramp(consistency.relaxed_inlier_ratio, 0.6, 0.9),
        _ramp(consistency.rank_correlation, 0.4, 0.9),
        _ramp(spread, 0.30, 0.10),
    )


def evaluate_trust(health: SfmHealth, consistency: Consistency) -> Trust:
    """Close the gate only when both the reconstruction's health and its consistency with the network are poor."""
    score = consistency_score(consistency)
    if health.score >= THRESHOLD or score >= THRESHOLD:
        return Trust(True, health.score, score, "")
    concerns = f" ({', '.join(health.concerns)})" if health.concerns else ""
    statement = (
        f"The reconstruction is not self-consistent{concerns} and disagrees with the network about what is near: "
        "traffic, or a camera that hardly moves? Known intrinsics, or a part of the clip where the camera moves and "
        "the scene does not, may help."
    )
    return Trust(False, health.score, score, statement, cli_hint="--force refines anyway.")
