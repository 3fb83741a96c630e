"""The trust gate: whether a reconstruction may teach a network (DESIGN section 4).

Structure-from-motion can be wrong with every frame registered, and held-out points cannot see it. Nor can disagreement
with the network alone: a network far from its domain disagrees as much with a perfect reconstruction, and gains most.
So the gate closes only when both signs are poor: the reconstruction does not fit itself well *and* disagrees.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from sfmttr.refinement.alignment import Alignment
from sfmttr.types import SfmHealth

THRESHOLD = 0.5
MIN_FRAME_OBSERVATIONS = 8
"""Frames with fewer observations than this are left out of the per-frame statistics."""


@dataclass(frozen=True)
class Consistency:
    """How well network and reconstruction agree, apart from the one scale."""

    relaxed_inlier_ratio: float
    rank_correlation: float
    """Spearman's, of z and d within a frame; median over frames."""
    scale_spread: float
    """Standard deviation over frames of the log of the frame's own scale, median of d / z."""
    frame: np.ndarray
    """(F,) int64, frames with enough points."""
    frame_scale: np.ndarray
    """(F,) float64, each frame's own scale over the clip's."""


def measure_consistency(frame: np.ndarray, z: np.ndarray, d: np.ndarray, alignment: Alignment) -> Consistency:
    """Per-frame statistics behind the trust gate; `frame` (M,) is sorted."""
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
    """The verdict, and what it rests on."""

    trusted: bool
    sfm_health: float
    """0 to 1, from the reconstruction alone."""
    consistency: float
    """0 to 1, from reconstruction and network together."""
    statement: str
    """One sentence for the user; empty when trusted."""
    cli_hint: str = ""
    """A further sentence that names options of the command line, which alone shows it."""

    @property
    def out_of_domain(self) -> bool:
        """Network and reconstruction disagree on the whole: if this one is trusted, it is the network that errs."""
        return self.consistency < THRESHOLD


def _ramp(value: float, poor: float, good: float) -> float:
    """0 at `poor`, 1 at `good`, linear between (either may be the larger)."""
    return float(np.clip((value - poor) / (good - poor), 0.0, 1.0))


def consistency_score(agreement: Consistency) -> float:
    """0 (no better than chance) to 1: the worst of what the three figures say.

    A wrong reconstruction of traffic can order near and far rightly, or keep its scale; it does not do all at once.
    """
    spread = agreement.scale_spread if np.isfinite(agreement.scale_spread) else 10.0
    return min(
        _ramp(agreement.relaxed_inlier_ratio, 0.6, 0.9),
        _ramp(agreement.rank_correlation, 0.4, 0.9),
        _ramp(spread, 0.30, 0.10),
    )


def evaluate_trust(health: SfmHealth, agreement: Consistency) -> Trust:
    """Open unless both the reconstruction's own health and its agreement with the network are poor."""
    score = consistency_score(agreement)
    if health.score >= THRESHOLD or score >= THRESHOLD:
        return Trust(True, health.score, score, "")
    seen = ", ".join(health.concerns) if health.concerns else "it does not fit itself well"
    statement = (
        f"Structure-from-motion does not fit itself well ({seen}) and disagrees with the network about what is near: "
        "traffic, or a camera that hardly moves? Known intrinsics, or a stretch of the clip where the camera moves and "
        "the scene does not, may help."
    )
    return Trust(False, health.score, score, statement, cli_hint="--force refines anyway.")
