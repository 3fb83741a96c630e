"""The strict and the relaxed model: worked out by hand, against numpy, under outliers and changes of unit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sfmttr.config import RECIPES, AlignConfig, BestTrial, Preset
from sfmttr.errors import AlignmentError
from sfmttr.refinement.alignment import (
    Alignment,
    align,
    relaxed_inliers,
    strict_inliers,
    weighted_least_squares_scale,
    weighted_median_scale,
)
from sfmttr.refinement.trust_gate import measure_consistency

DEFAULT = RECIPES[Preset.DEFAULT].align
PAPER = RECIPES[Preset.PAPER].align


def points(count: int = 400, outliers: float = 0.0, noise: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """z, and d = 2.5 z but for noise (log) and a share of outliers (too far by 2 to 6)."""
    rng = np.random.default_rng(3)
    z = rng.uniform(1, 20, count)
    d = 2.5 * z * np.exp(noise * rng.standard_normal(count))
    wrong = rng.permutation(count) < outliers * count
    return z, np.where(wrong, d * rng.uniform(2, 6, count), d)


def aligned(z: np.ndarray, d: np.ndarray, config: AlignConfig = DEFAULT, seed: int = 0) -> Alignment:
    return align(z, d, config, np.random.default_rng(seed))


@pytest.mark.parametrize("config", [DEFAULT, PAPER], ids=["default", "paper"])
def test_exact_on_clean_points(config: AlignConfig) -> None:
    result = aligned(*points(), config)
    assert result.scale == pytest.approx(2.5, rel=1e-12)
    assert result.network_scale == pytest.approx(1, rel=1e-12)
    assert result.strict_inlier_ratio == result.relaxed_inlier_ratio == 1


def test_forty_percent_of_outliers_move_the_scale_by_less_than_a_percent() -> None:
    result = aligned(*points(outliers=0.4, noise=0.02))
    assert result.scale == pytest.approx(2.5, rel=0.01)
    assert result.strict_inlier_ratio == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize("k", [1e-3, 0.37, 250.0])
def test_the_unit_of_sfm_does_not_matter(k: float) -> None:
    z, d = points(outliers=0.3, noise=0.1)
    base, other = aligned(z, d), aligned(k * z, d)
    assert other.scale == pytest.approx(base.scale / k)
    np.testing.assert_array_equal(other.strict, base.strict)
    np.testing.assert_array_equal(other.relaxed, base.relaxed)


@pytest.mark.parametrize("k", [1e-3, 250.0])
def test_the_unit_of_the_network_does_not_matter(k: float) -> None:
    z, d = points(outliers=0.3, noise=0.1)
    base, other = aligned(z, d), aligned(z, k * d)
    assert other.scale == pytest.approx(base.scale * k)
    assert other.network_scale == pytest.approx(base.network_scale)
    np.testing.assert_array_equal(other.strict, base.strict)


def test_the_printed_test_changes_with_the_unit() -> None:
    z, d = points(noise=0.1)
    assert aligned(z, d, PAPER).strict_inlier_ratio < aligned(z, 0.01 * d, PAPER).strict_inlier_ratio == 1


def test_of_scales_with_as_many_strict_inliers_that_is_taken_which_most_can_be_learnt_from() -> None:
    """Two crowds of the same size, and a third of the points beyond the farther one: which crowd is counted as larger
    is chance, and what can be learnt from is not."""
    rng = np.random.default_rng(4)
    z = rng.uniform(1, 20, 900)
    ratio = np.concatenate([rng.normal(1.0, 0.03, 305), rng.normal(1.6, 0.05, 300), rng.uniform(2.05, 2.35, 295)])
    d = ratio * z
    drawn = replace(DEFAULT, best_trial=BestTrial.RANSAC)
    assert aligned(z, d, drawn).scale == pytest.approx(1.0, rel=0.01)
    for seed in range(5):
        some = np.random.default_rng(seed).permutation(900)[:800]
        result = aligned(z[some], d[some], seed=seed)
        assert result.scale == pytest.approx(1.6, rel=0.02)
        assert result.relaxed_inlier_ratio > 0.9


def test_default_leaves_nothing_to_chance() -> None:
    z, d = points(outliers=0.3, noise=0.3)
    order = np.random.default_rng(5).permutation(len(z))
    assert aligned(z[order], d[order], seed=1).scale == pytest.approx(aligned(z, d, seed=0).scale, rel=1e-12)


def test_paper_strict_model_by_hand() -> None:
    # With s = 2: s z = 2, 4, 8; (s z - d)^2 / (s z) = 0.5, 0.5625, 0.5; tau is 0.5 and the border belongs to it.
    z, d = np.array([1.0, 2.0, 4.0]), np.array([3.0, 2.5, 6.0])
    np.testing.assert_array_equal(strict_inliers(z, d, np.array([2.0]), PAPER), [[True, False, True]])


def test_default_strict_model_by_hand() -> None:
    # With s = 2: |s z - d| / (s z) = 0.15, 0.16, 0, and 1 for a depth of twice as much.
    z, d = np.array([10.0, 10.0, 10.0, 10.0]), np.array([23.0, 16.8, 20.0, 40.0])
    np.testing.assert_array_equal(strict_inliers(z, d, np.array([2.0]), DEFAULT), [[True, False, True, False]])


@pytest.mark.parametrize("config", [DEFAULT, PAPER], ids=["default", "paper"])
def test_relaxed_model_by_hand(config: AlignConfig) -> None:
    # With s = 2 the relative errors are 0.49, 0.5 (no longer less than it), 0.4, 0.6.
    z, d = np.array([10.0, 10.0, 10.0, 10.0]), np.array([29.8, 30.0, 12.0, 8.0])
    np.testing.assert_array_equal(relaxed_inliers(z, d, 2.0, config), [True, False, True, False])


def test_paper_preset_end_to_end_by_hand() -> None:
    # Nine points with d = 2 z, one near (relaxed only), one far off. WLS over the nine alone: s = 2.
    z = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10.0])
    d = np.array([2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 28, 90.0])
    result = aligned(z, d, PAPER)
    assert result.scale == pytest.approx(2)
    assert result.strict.tolist() == [True] * 10 + [False] * 2
    assert result.relaxed.tolist() == [True] * 11 + [False]


def test_weighted_least_squares_against_numpy() -> None:
    z, d = points(noise=0.3)
    weight = 1 / d  # lstsq minimises the square of what it is given: weights 1 / d^2
    expected = np.linalg.lstsq((z * weight)[:, None], d * weight, rcond=None)[0][0]
    assert weighted_least_squares_scale(z, d) == pytest.approx(expected)


def test_least_relative_scale_against_brute_force() -> None:
    z, d = points(count=60, outliers=0.3, noise=0.3)
    reference = 2.5 * z
    candidates = reference / d  # the cost is piecewise linear: the least value is at one of its corners
    costs = [(np.abs(a * d - reference) / reference).sum() for a in candidates]
    assert weighted_median_scale(d, reference) == pytest.approx(candidates[np.argmin(costs)])


def test_network_scale_is_the_best_over_relaxed_points() -> None:
    z, d = points(outliers=0.3, noise=0.2)
    result = aligned(z, d)
    reference, kept = result.scale * z[result.relaxed], d[result.relaxed]
    costs = [np.mean(np.abs(a * kept - reference) / reference) for a in result.network_scale * np.linspace(0.9, 1.1, 9)]
    assert np.argmin(costs) == 4


def test_same_seed_same_result() -> None:
    z, d = points(outliers=0.4, noise=0.2)
    first, second = aligned(z, d, PAPER, seed=7), aligned(z, d, PAPER, seed=7)
    assert first.scale == second.scale
    np.testing.assert_array_equal(first.strict, second.strict)


def test_too_few_points() -> None:
    with pytest.raises(AlignmentError, match="Only 9"):
        aligned(*points(count=9))


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_predictions_must_be_positive(bad: float) -> None:
    z, d = points()
    d[3] = bad
    with pytest.raises(AlignmentError, match="not positive"):
        aligned(z, d)


def test_no_common_scale() -> None:
    z = np.ones(30)
    with pytest.raises(AlignmentError, match="no scale"):
        aligned(z, 2.0 ** np.arange(30))


# -------------------------------------------------------------------------------------- agreement


def in_frames(count: int, per_frame: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Frame and z of `count` frames of distinct depths each."""
    z = np.tile(np.linspace(1, 10, per_frame), count)
    return np.repeat(np.arange(count), per_frame), z


def test_perfect_agreement() -> None:
    frame, z = in_frames(4)
    seen = measure_consistency(frame, z, 3 * z, aligned(z, 3 * z))
    assert seen.rank_correlation == pytest.approx(1)
    assert seen.scale_spread == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(seen.frame_scale, 1)


def test_frames_own_scales_and_their_spread() -> None:
    frame, z = in_frames(4)
    own = np.array([1.0, 1.1, 1.0, 1 / 1.1])
    seen = measure_consistency(frame, z, own[frame] * z, aligned(z, own[frame] * z))
    np.testing.assert_allclose(seen.frame_scale / seen.frame_scale[0], own)
    assert seen.scale_spread == pytest.approx(np.std(np.log(own)))


def test_reversed_order_is_a_rank_correlation_of_minus_one() -> None:
    frame, z = in_frames(3)
    d = 11 - z
    alignment = Alignment(1.0, np.ones(len(z), bool), np.ones(len(z), bool), 1.0)
    assert measure_consistency(frame, z, d, alignment).rank_correlation == pytest.approx(-1)


def test_frames_of_few_points_say_nothing() -> None:
    frame, z = np.repeat([0, 1, 5], [20, 7, 8]), np.linspace(1, 5, 35)
    assert measure_consistency(frame, z, 2 * z, aligned(z, 2 * z)).frame.tolist() == [0, 5]


def test_no_frame_with_enough_points() -> None:
    frame, z = np.arange(20) // 2, np.linspace(1, 5, 20)
    seen = measure_consistency(frame, z, 2 * z, aligned(z, 2 * z))
    assert (seen.rank_correlation, seen.scale_spread, len(seen.frame)) == (0.0, float("inf"), 0)
