"""One scale between structure-from-motion and a network: strict RANSAC + WLS model, relaxed inliers (paper, 3.2).

All functions take flat arrays over the observations of the whole clip: `z` (M,) SfM depth, `d` (M,) predicted depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

from sfmttr.config import AlignConfig, InlierTest
from sfmttr.errors import AlignmentError

MIN_OBSERVATIONS = 10
MIN_FRAME_OBSERVATIONS = 8
"""Per-frame statistics of fewer points than this say nothing."""


@dataclass(frozen=True)
class Alignment:
    """How the clip's SfM depth becomes the network's: `depth_in_network_unit = scale * z`."""

    scale: float
    """Network units for one SfM unit."""
    strict: np.ndarray
    """(M,) bool: inliers of the strict model, which the scale comes from."""
    relaxed: np.ndarray
    """(M,) bool: what is kept to learn from."""
    network_scale: float
    """The best that scaling alone can do: `network_scale * d` has the least mean |.|/(scale * z) over relaxed rows."""

    @property
    def strict_inlier_ratio(self) -> float:
        return float(self.strict.mean())

    @property
    def relaxed_inlier_ratio(self) -> float:
        return float(self.relaxed.mean())


def strict_inliers(z: np.ndarray, d: np.ndarray, scales: np.ndarray, config: AlignConfig) -> np.ndarray:
    """(S, M) bool: which points agree with each of the candidate `scales` (S,)."""
    scaled = scales[:, None] * z[None]
    residual = np.abs(scaled - d[None])
    if config.inlier_test is InlierTest.PRINTED:
        return residual**2 <= config.strict_tau * scaled
    return residual <= config.strict_tau * scaled


def ransac_scale(z: np.ndarray, d: np.ndarray, config: AlignConfig, rng: np.random.Generator) -> np.ndarray:
    """(M,) bool: the largest set of strict inliers over one-point trials."""
    picks = rng.integers(len(z), size=config.trials)
    best = np.zeros(len(z), bool)
    for start in range(0, config.trials, 20):  # in slices: trials x observations would not fit for long clips
        chosen = picks[start : start + 20]
        inliers = strict_inliers(z, d, d[chosen] / z[chosen], config)
        winner = inliers[np.argmax(inliers.sum(axis=1))]
        if winner.sum() > best.sum():
            best = winner
    return best


def weighted_least_squares_scale(z: np.ndarray, d: np.ndarray) -> float:
    """The `s` that minimises `sum (s z - d)^2 / d^2`."""
    ratio = z / d
    return float(ratio.sum() / (ratio**2).sum())


def least_relative_scale(d: np.ndarray, reference: np.ndarray) -> float:
    """The `a` that minimises `sum |a d - reference| / reference`: a weighted median of `reference / d`."""
    ratio, weight = reference / d, d / reference
    order = np.argsort(ratio)
    cumulative = np.cumsum(weight[order])
    return float(ratio[order][np.searchsorted(cumulative, 0.5 * cumulative[-1])])


def align(z: np.ndarray, d: np.ndarray, config: AlignConfig, rng: np.random.Generator) -> Alignment:
    """Strict model, then relaxed inliers. Raises `AlignmentError` with too few points, or none that agree."""
    z, d = z.astype(np.float64), d.astype(np.float64)
    if len(z) < MIN_OBSERVATIONS:
        raise AlignmentError(f"Only {len(z)} sparse points can be compared with the network: film more texture.")
    if not (np.all(z > 0) and np.all(d > 0) and np.all(np.isfinite(d))):
        raise AlignmentError("The network gave a depth that is not positive; it cannot be aligned.")
    strict = ransac_scale(z, d, config, rng)
    if strict.sum() < MIN_OBSERVATIONS:
        raise AlignmentError("The network and the reconstruction agree on no scale at all; try another network.")
    scale = weighted_least_squares_scale(z[strict], d[strict])
    relaxed = relaxed_inliers(z, d, scale, config)
    if not relaxed.any():
        raise AlignmentError("No sparse point is near what the network sees; try another network.")
    return Alignment(scale, strict, relaxed, least_relative_scale(d[relaxed], scale * z[relaxed]))


def relaxed_inliers(z: np.ndarray, d: np.ndarray, scale: float, config: AlignConfig) -> np.ndarray:
    """(M,) bool: `|scale z - d| / (scale z) < relaxed_tau`."""
    return np.abs(scale * z - d) / (scale * z) < config.relaxed_tau


@dataclass(frozen=True)
class Agreement:
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


def agreement(frame: np.ndarray, z: np.ndarray, d: np.ndarray, alignment: Alignment) -> Agreement:
    """Per-frame statistics behind the trust gate; `frame` (M,) is sorted."""
    frames, starts, counts = np.unique(frame, return_index=True, return_counts=True)
    rows = [slice(s, s + c) for s, c in zip(starts, counts, strict=True) if c >= MIN_FRAME_OBSERVATIONS]
    kept = frames[counts >= MIN_FRAME_OBSERVATIONS]
    if not rows:
        return Agreement(alignment.relaxed_inlier_ratio, 0.0, float("inf"), kept, np.empty(0))
    correlations = [stats.spearmanr(z[r], d[r]).statistic for r in rows]
    scales = np.array([np.median(d[r] / z[r]) for r in rows]) / alignment.scale
    return Agreement(
        relaxed_inlier_ratio=alignment.relaxed_inlier_ratio,
        rank_correlation=float(np.nanmedian(np.nan_to_num(correlations, nan=0.0))),
        scale_spread=float(np.std(np.log(scales))),
        frame=kept,
        frame_scale=scales,
    )
