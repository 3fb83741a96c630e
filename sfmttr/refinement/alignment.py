"""One scale between structure-from-motion and a network: strict RANSAC + WLS model, relaxed inliers (paper, 3.2).

Networks that give disparity up to scale and shift get one scale and one shift, in inverse depth. All functions take
flat arrays over the observations of the whole clip: `z` (M,) SfM depth, `d` (M,) predicted depth, or disparity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sfmttr.config import AlignConfig, BestTrial, InlierTest
from sfmttr.errors import AlignmentError
from sfmttr.networks.inverse_depth import InverseDepth

MIN_OBSERVATIONS = 10
_TRIALS_AT_ONCE = 20
"""Trials x observations would not fit into memory for long clips."""
_PAIRS_A_TRIAL = 5
"""Two points are both right less often than one is."""
IRLS_ITERATIONS = 20
_TUKEY = 4.685
"""Of Tukey's biweight, in standard deviations: keeps 95 % of what least squares makes of Gaussian noise."""
_FLOOR_SHARE = 0.5
"""Inverse depth is guarded below this share of that of the farthest points."""


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
    inverse: InverseDepth | None = None
    """How the network's disparity becomes depth in network units; None where it gives depth."""

    @property
    def strict_inlier_ratio(self) -> float:
        return float(self.strict.mean())

    @property
    def relaxed_inlier_ratio(self) -> float:
        return float(self.relaxed.mean())


def strict_inliers(
    z: np.ndarray, d: np.ndarray, scales: np.ndarray, config: AlignConfig, shifts: np.ndarray | float = 0.0
) -> np.ndarray:
    """(S, M) bool: which points agree with each of the candidates `d = scale z + shift`, `scales` and `shifts` (S,)."""
    scaled = scales[:, None] * z[None]
    residual = np.abs(scaled + np.reshape(shifts, (-1, 1)) - d[None])
    if config.inlier_test is InlierTest.PAPER:
        return residual**2 <= config.strict_tau * scaled
    return residual <= config.strict_tau * scaled


def largest_inlier_set(
    z: np.ndarray, d: np.ndarray, scales: np.ndarray, config: AlignConfig, shifts: np.ndarray | float = 0.0
) -> np.ndarray:
    """(M,) bool: the largest of the candidates' sets of strict inliers; none where there are no candidates."""
    shifts = np.broadcast_to(shifts, scales.shape)
    best = np.zeros(len(z), bool)
    for start in range(0, len(scales), _TRIALS_AT_ONCE):
        rows = slice(start, start + _TRIALS_AT_ONCE)
        inliers = strict_inliers(z, d, scales[rows], config, shifts[rows])
        winner = inliers[np.argmax(inliers.sum(axis=1))]
        if winner.sum() > best.sum():
            best = winner
    return best


def ransac_scale(z: np.ndarray, d: np.ndarray, config: AlignConfig, rng: np.random.Generator) -> np.ndarray:
    """(M,) bool: the strict inliers of the best of the one-point trials; none where no point gives a scale."""
    if config.best_trial is BestTrial.MSAC:
        return _least_relaxed(z, d, config)
    picks = rng.integers(len(z), size=config.trials)
    scales = d[picks] / z[picks]
    return largest_inlier_set(z, d, scales[scales > 0], config)


def _least_relaxed(z: np.ndarray, d: np.ndarray, config: AlignConfig) -> np.ndarray:
    """(M,) bool: the strict inliers of the trial that has the least relaxed error.

    The trials are points evenly spaced in the order of their scales, rather than drawn: nothing is left to chance.
    """
    ratio = d / z
    scales = np.quantile(ratio, (np.arange(config.trials) + 0.5) / config.trials, method="nearest")
    scales = np.unique(scales[scales > 0])
    if not len(scales):
        return np.zeros(len(z), bool)
    error = [np.square(np.minimum(np.abs(ratio / scale - 1) / config.relaxed_tau, 1)).sum() for scale in scales]
    return strict_inliers(z, d, scales[[int(np.argmin(error))]], config)[0]


def weighted_least_squares_scale(z: np.ndarray, d: np.ndarray) -> float:
    """The `s` that minimises `sum (s z - d)^2 / d^2`."""
    ratio = z / d
    return float(ratio.sum() / (ratio**2).sum())


def weighted_median_scale(d: np.ndarray, reference: np.ndarray) -> float:
    """The `a` that minimises `sum |a d - reference| / reference`: a weighted median of `reference / d`."""
    ratio, weight = reference / d, d / reference
    order = np.argsort(ratio)
    cumulative = np.cumsum(weight[order])
    return float(ratio[order][np.searchsorted(cumulative, 0.5 * cumulative[-1])])


def align(z: np.ndarray, d: np.ndarray, config: AlignConfig, rng: np.random.Generator) -> Alignment:
    """Strict model, then relaxed inliers. Raises `AlignmentError` with too few points, or none that agree."""
    z, d = z.astype(np.float64), d.astype(np.float64)
    _check_count(z)
    if not (np.all(z > 0) and np.all(d > 0) and np.all(np.isfinite(d))):
        raise AlignmentError("The network gave a depth that is not positive; it cannot be aligned.")
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
    """(M,) bool: `|scale z - d| / (scale z) < relaxed_tau`; or the same of inverse depths, where `scale z` is over `d`:
    the relative error of 1 / d is that of d over d itself."""
    return np.abs(scale * z - d) / (d if in_inverse_depth else scale * z) < config.relaxed_tau


def _check_count(z: np.ndarray) -> None:
    if len(z) < MIN_OBSERVATIONS:
        raise AlignmentError(f"Only {len(z)} sparse points can be compared with the network: film more texture.")


def _check_relaxed(relaxed: np.ndarray) -> None:
    if not relaxed.any():
        raise AlignmentError("No sparse point is near what the network sees; try another network.")


# --------------------------------------------------------------------- scale and shift in inverse depth


def align_disparity(z: np.ndarray, disparity: np.ndarray, config: AlignConfig, rng: np.random.Generator) -> Alignment:
    """Strict model `disparity = a / z + b` by RANSAC over pairs of points, weighted least squares, relaxed inliers.

    Errors are judged in inverse depth, relative to it. Depth in network units is `1 / (disparity - b)`, and the scale
    is `1 / a`. Raises `AlignmentError` with too few points, or when no scale > 0 and shift fit them.
    """
    z, disparity = z.astype(np.float64), disparity.astype(np.float64)
    _check_count(z)
    if not (np.all(z > 0) and np.all(np.isfinite(disparity))):
        raise AlignmentError("The network gave a disparity that is not finite; it cannot be aligned.")
    inverse_z = 1.0 / z
    strict = _ransac_line(inverse_z, disparity, config, rng)
    if strict.sum() < MIN_OBSERVATIONS:
        raise AlignmentError("The network and the reconstruction agree on no scale and shift; try another network.")
    slope, shift = fit_line_irls(inverse_z, disparity, strict)
    farthest = float(np.quantile(inverse_z, 0.01))
    if disparity.min() >= 0 and -shift > slope * farthest:
        # Such networks end where disparity is 0, and with this shift what is there could never be as far as it is.
        strict = ransac_scale(inverse_z, disparity, config, rng)
        slope, shift = fit_line_irls(inverse_z, disparity, strict, through_zero=True)
    if not slope > 0:
        raise AlignmentError("The network sees as near what the reconstruction has far off; try another network.")
    strict = strict_inliers(inverse_z, disparity, np.array([slope]), config, shift)[0]
    if strict.sum() < MIN_OBSERVATIONS:
        raise AlignmentError("The network and the reconstruction agree on no scale and shift; try another network.")
    inverse = InverseDepth(shift, _FLOOR_SHARE * slope * farthest)
    d, scale = inverse.depth(disparity).astype(np.float64), 1.0 / slope
    relaxed = relaxed_inliers(z, d, scale, config, in_inverse_depth=True)
    _check_relaxed(relaxed)
    return Alignment(scale, strict, relaxed, weighted_median_scale(d[relaxed], scale * z[relaxed]), inverse)


def _ransac_line(
    inverse_z: np.ndarray, disparity: np.ndarray, config: AlignConfig, rng: np.random.Generator
) -> np.ndarray:
    """(M,) bool: the largest set of strict inliers over trials of two points.

    Pairs of about the same depth say nothing of the slope: where points crowd at one depth, a line steep enough makes
    inliers of that whole crowd, whatever the network says of it.
    """
    first, second = rng.integers(len(inverse_z), size=(2, _PAIRS_A_TRIAL * config.trials))
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
    """Slope and shift by least squares of the error relative to inverse depth, over the strict inliers.

    What is wrong by chance by less than the strict threshold would pull at the line: Tukey's biweight, at the scale of
    the residuals themselves, takes it out.
    """
    x, y = inverse_z[strict], disparity[strict]
    weight = np.ones(len(x))
    slope = shift = 0.0
    for _ in range(IRLS_ITERATIONS):
        # relative: both sides over x; the slope that they should also be over is one factor for all
        columns = [np.ones(len(x))] if through_zero else [np.ones(len(x)), 1 / x]
        rows = np.stack(columns, axis=1) * np.sqrt(weight)[:, None]
        found, *_ = np.linalg.lstsq(rows, np.sqrt(weight) * y / x, rcond=None)
        slope, shift = found[0], 0.0 if through_zero else found[1]
        residual = (y - slope * x - shift) / x
        spread = 1.4826 * float(np.median(np.abs(residual)))
        if spread <= 1e-12 * abs(slope):
            break
        weight = np.clip(1 - (residual / (_TUKEY * spread)) ** 2, 0, None) ** 2
    return float(slope), float(shift)
