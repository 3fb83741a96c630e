"""Scale alignment of SfM depth and predictions: strict RANSAC and WLS model, then relaxed inliers.

Izquierdo and Civera, CVPR 2023, section 3.2. Networks that predict disparity up to scale and shift get one scale and
one shift, in inverse depth. All functions take flat arrays over the observations of the whole clip: `z` (M,) SfM depth,
`d` (M,) predicted depth, or disparity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sfmttr.config import AlignConfig, BestTrial, InlierTest
from sfmttr.errors import AlignmentError
from sfmttr.networks.inverse_depth import InverseDepth

MIN_OBSERVATIONS = 10
TRIALS_PER_CHUNK = 20  # trials x observations would not fit into memory for long clips
PAIRS_PER_TRIAL = 5  # a pair of points is less often free of outliers than a single point
IRLS_ITERATIONS = 20
TUKEY_CONSTANT = 4.685
"""Cut-off of Tukey's biweight in standard deviations: 95 % efficiency on Gaussian noise."""
INVERSE_DEPTH_FLOOR = 0.5
"""Smallest inverse depth that disparity is converted to, as a share of that of the farthest points."""


@dataclass(frozen=True)
class Alignment:
    """Conversion of the clip's SfM depth to the network's unit: `depth_in_network_unit = scale * z`."""

    scale: float
    """Network units per SfM unit."""
    strict: np.ndarray
    """(M,) bool: inliers of the strict model, which the scale is estimated from."""
    relaxed: np.ndarray
    """(M,) bool: inliers of the relaxed model, which are trained on."""
    network_scale: float
    """Factor on predictions that minimizes their mean relative error to `scale * z` over the relaxed inliers."""
    inverse: InverseDepth | None = None
    """Conversion of disparity to depth in network units; None when the network predicts depth."""

    @property
    def strict_inlier_ratio(self) -> float:
        return float(self.strict.mean())

    @property
    def relaxed_inlier_ratio(self) -> float:
        return float(self.relaxed.mean())


def strict_inliers(
    z: np.ndarray, d: np.ndarray, scales: np.ndarray, config: AlignConfig, shifts: np.ndarray | float = 0.0
) -> np.ndarray:
    """Return the inliers (S, M) bool of each candidate model `d = scale z + shift`; `scales` and `shifts` are (S,)."""
    scaled = scales[:, None] * z[None]
    residual = np.abs(scaled + np.reshape(shifts, (-1, 1)) - d[None])
    if config.inlier_test is InlierTest.PAPER:
        return residual**2 <= config.strict_tau * scaled
    return residual <= config.strict_tau * scaled


def largest_inlier_set(
    z: np.ndarray, d: np.ndarray, scales: np.ndarray, config: AlignConfig, shifts: np.ndarray | float = 0.0
) -> np.ndarray:
    """Return the largest set of strict inliers (M,) bool over all candidates; all False without candidates."""
    shifts = np.broadcast_to(shifts, scales.shape)
    best = np.zeros(len(z), bool)
    for start in range(0, len(scales), TRIALS_PER_CHUNK):
        rows = slice(start, start + TRIALS_PER_CHUNK)
        inliers = strict_inliers(z, d, scales[rows], config, shifts[rows])
        winner = inliers[np.argmax(inliers.sum(axis=1))]
        if winner.sum() > best.sum():
            best = winner
    return best


def ransac_scale(z: np.ndarray, d: np.ndarray, config: AlignConfig, rng: np.random.Generator) -> np.ndarray:
    """Return the strict inliers (M,) bool of the best one-point trial; all False without a positive scale."""
    if config.best_trial is BestTrial.MSAC:
        return _msac_inliers(z, d, config)
    picks = rng.integers(len(z), size=config.trials)
    scales = d[picks] / z[picks]
    return largest_inlier_set(z, d, scales[scales > 0], config)


def _msac_inliers(z: np.ndarray, d: np.ndarray, config: AlignConfig) -> np.ndarray:
    """Return the strict inliers (M,) bool of the trial with the smallest truncated squared error.

    MSAC (Torr and Zisserman, CVIU 2000), with the threshold of the relaxed model. The trials are not drawn: they are
    points at evenly spaced quantiles of the scale, so the result is deterministic.
    """
    ratio = d / z
    scales = np.quantile(ratio, (np.arange(config.trials) + 0.5) / config.trials, method="nearest")
    scales = np.unique(scales[scales > 0])
    if not len(scales):
        return np.zeros(len(z), bool)
    error = [np.square(np.minimum(np.abs(ratio / scale - 1) / config.relaxed_tau, 1)).sum() for scale in scales]
    return strict_inliers(z, d, scales[[int(np.argmin(error))]], config)[0]


def weighted_least_squares_scale(z: np.ndarray, d: np.ndarray) -> float:
    """Return the `s` that minimizes `sum (s z - d)^2 / d^2`."""
    ratio = z / d
    return float(ratio.sum() / (ratio**2).sum())


def weighted_median_scale(d: np.ndarray, reference: np.ndarray) -> float:
    """Return the `a` that minimizes `sum |a d - reference| / reference`: a weighted median of `reference / d`."""
    ratio, weight = reference / d, d / reference
    order = np.argsort(ratio)
    cumulative = np.cumsum(weight[order])
    return float(ratio[order][np.searchsorted(cumulative, 0.5 * cumulative[-1])])


def align(z: np.ndarray, d: np.ndarray, config: AlignConfig, rng: np.random.Generator) -> Alignment:
    """Fit the strict model, then collect the relaxed inliers.

    Raises `AlignmentError` when there are too few points, or too few that agree on a scale.
    """
    z, d = z.astype(np.float64), d.astype(np.float64)
    _check_count(z)
    if not (np.all(z > 0) and np.all(d > 0) and np.all(np.isfinite(d))):
        raise AlignmentError("The network predicted a depth that is not positive; choose another network.")
    strict = ransac_scale(z, d, config, rng)
    if strict.sum() < MIN_OBSERVATIONS:
        raise AlignmentError("The network and the reconstruction agree on no scale at all; try another network.")
    scale = weighted_least_squares_scale(z[strict], d[strict])
    relaxed = relaxed_inliers(z, d, scale, config)
    _check_relaxed(relaxed)
    return Alignment(scale, strict, relaxed, weighted_median_scale(d[relaxed], scale * z[relaxed]))


def relaxed_inliers(
    z: np.ndarray, d: np.ndarray, scale: float, config: AlignConfig, *, in_inverse_depth: bool = False
) -> np.ndarray:
    """Return the relaxed inliers (M,) bool: `|scale z - d| / (scale z) < relaxed_tau`.

    With `in_inverse_depth`, the error is that of `1 / d` relative to `1 / (scale z)`, which is `|scale z - d| / d`.
    """
    return np.abs(scale * z - d) / (d if in_inverse_depth else scale * z) < config.relaxed_tau


def _check_count(z: np.ndarray) -> None:
    if len(z) < MIN_OBSERVATIONS:
        raise AlignmentError(f"Only {len(z)} sparse points can be compared with the network: film more texture.")


def _check_relaxed(relaxed: np.ndarray) -> None:
    if not relaxed.any():
        raise AlignmentError("No sparse point is near the predicted depth; try another network.")


# --------------------------------------------------------------------- scale and shift in inverse depth


def align_disparity(z: np.ndarray, disparity: np.ndarray, config: AlignConfig, rng: np.random.Generator) -> Alignment:
    """Fit the strict model `disparity = a / z + b`, then collect the relaxed inliers.

    RANSAC over pairs of points, then iteratively reweighted least squares. Errors are relative errors of inverse depth.
    Depth in network units is `1 / (disparity - b)`, and the scale is `1 / a`. Raises `AlignmentError` when there are
    too few points, or when no scale > 0 and shift fit them.
    """
    z, disparity = z.astype(np.float64), disparity.astype(np.float64)
    _check_count(z)
    if not (np.all(z > 0) and np.all(np.isfinite(disparity))):
        raise AlignmentError("The network predicted a disparity that is not finite; choose another network.")
    inverse_z = 1.0 / z
    strict = _ransac_line(inverse_z, disparity, config, rng)
    if strict.sum() < MIN_OBSERVATIONS:
        raise AlignmentError("The network and the reconstruction agree on no scale and shift; try another network.")
    slope, shift = fit_line_irls(inverse_z, disparity, strict)
    farthest = float(np.quantile(inverse_z, 0.01))
    if disparity.min() >= 0 and -shift > slope * farthest:
        # With this shift, even disparity 0, the far end of such networks, is nearer than the farthest points.
        strict = ransac_scale(inverse_z, disparity, config, rng)
        slope, shift = fit_line_irls(inverse_z, disparity, strict, through_zero=True)
    if not slope > 0:
        raise AlignmentError("The network predicts as near what the reconstruction has as far; try another network.")
    strict = strict_inliers(inverse_z, disparity, np.array([slope]), config, shift)[0]
    if strict.sum() < MIN_OBSERVATIONS:
        raise AlignmentError("The network and the reconstruction agree on no scale and shift; try another network.")
    inverse = InverseDepth(shift, INVERSE_DEPTH_FLOOR * slope * farthest)
    d, scale = inverse.depth(disparity).astype(np.float64), 1.0 / slope
    relaxed = relaxed_inliers(z, d, scale, config, in_inverse_depth=True)
    _check_relaxed(relaxed)
    return Alignment(scale, strict, relaxed, weighted_median_scale(d[relaxed], scale * z[relaxed]), inverse)


def _ransac_line(
    inverse_z: np.ndarray, disparity: np.ndarray, config: AlignConfig, rng: np.random.Generator
) -> np.ndarray:
    """Return the largest set of strict inliers (M,) bool over trials of two points.

    Pairs of about the same depth are skipped, because they do not determine the slope: where many points have about one
    depth, a steep enough line would make inliers of all of them, whatever their disparity.
    """
    first, second = rng.integers(len(inverse_z), size=(2, PAIRS_PER_TRIAL * config.trials))
    run = inverse_z[first] - inverse_z[second]
    low, high = np.quantile(inverse_z, [0.1, 0.9])
    rise = disparity[first] - disparity[second]
    usable = (np.abs(run) > 0.25 * (high - low)) & (run != 0) & (rise * run > 0)
    slopes = rise[usable] / run[usable]
    shifts = disparity[first[usable]] - slopes * inverse_z[first[usable]]
    return largest_inlier_set(inverse_z, disparity, slopes, config, shifts)


def fit_line_irls(
    inverse_z: np.ndarray, disparity: np.ndarray, strict: np.ndarray, *, through_zero: bool = False
) -> tuple[float, float]:
    """Fit slope and shift to the strict inliers by iteratively reweighted least squares; `through_zero` fixes shift 0.

    Residuals are relative to inverse depth. Tukey's biweight, scaled by the median absolute residual, removes outliers
    that are below the strict threshold by chance and would bias the line.
    """
    x, y = inverse_z[strict], disparity[strict]
    weight = np.ones(len(x))
    slope = shift = 0.0
    for _ in range(IRLS_ITERATIONS):
        # Relative residuals: both sides divided by x. The slope in the denominator is a common factor and drops out.
        columns = [np.ones(len(x))] if through_zero else [np.ones(len(x)), 1 / x]
        rows = np.stack(columns, axis=1) * np.sqrt(weight)[:, None]
        found, *_ = np.linalg.lstsq(rows, np.sqrt(weight) * y / x, rcond=None)
        slope, shift = found[0], 0.0 if through_zero else found[1]
        residual = (y - slope * x - shift) / x
        spread = 1.4826 * float(np.median(np.abs(residual)))
        if spread <= 1e-12 * abs(slope):
            break
        weight = np.clip(1 - (residual / (TUKEY_CONSTANT * spread)) ** 2, 0, None) ** 2
    return float(slope), float(shift)
