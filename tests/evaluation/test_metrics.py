"""Depth errors in closed form, their means, and the protocols."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest

from sfmttr.errors import DepthKindError, GroundTruthError
from sfmttr.evaluation.metrics import (
    NOTHING_COMPARED,
    Protocol,
    ProtocolName,
    apply_protocol,
    depth_metrics,
    mean_over_frames,
    pool,
    protocol,
    valid_mask,
)
from sfmttr.types import DepthKind

METRIC, RELATIVE, AFFINE = DepthKind.METRIC, DepthKind.SCALE_INVARIANT, DepthKind.AFFINE_DISPARITY
PLAIN = protocol("plain")
UNSCALED = protocol("plain", median_scaling=False)


def depths(shape: tuple[int, ...] = (40, 50), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(1, 30, shape).astype(np.float32)


def test_perfect_prediction() -> None:
    true = depths()
    assert astuple(depth_metrics(true, true)) == (0, 0, 0, 0, 1, 1, 1, true.size)


def test_constant_factor_in_closed_form() -> None:
    true = depths().astype(np.float64)
    m = depth_metrics(1.3 * true, true)
    assert m.abs_rel == pytest.approx(0.3)
    assert m.sq_rel == pytest.approx(0.09 * true.mean())
    assert m.rmse == pytest.approx(0.3 * np.sqrt((true**2).mean()))
    assert m.rmse_log == pytest.approx(np.log(1.3))
    assert (m.a1, m.a2, m.a3) == (0, 1, 1)


def test_a_few_values_by_hand() -> None:
    m = depth_metrics(np.array([1.0, 4.0, 6.0]), np.array([2.0, 4.0, 3.0]))
    assert m.abs_rel == pytest.approx((0.5 + 0 + 1) / 3)
    assert m.sq_rel == pytest.approx((0.5 + 0 + 3) / 3)
    assert m.rmse == pytest.approx(np.sqrt((1 + 0 + 9) / 3))
    assert m.rmse_log == pytest.approx(np.log(2) * np.sqrt(2 / 3))
    assert (m.a1, m.a2, m.a3) == pytest.approx((1 / 3, 1 / 3, 1 / 3))


@pytest.mark.parametrize("factor", [1.25, 0.8])
def test_ratios_count_strictly_below_the_threshold(factor: float) -> None:
    true = np.full(4, 8.0)
    assert depth_metrics(true * factor * (1 + 1e-9 if factor > 1 else 1 - 1e-9), true).a1 == 0
    assert depth_metrics(true * factor * (1 - 1e-9 if factor > 1 else 1 + 1e-9), true).a1 == 1


def test_shapes_must_agree_and_depths_be_positive() -> None:
    with pytest.raises(ValueError, match="differ"):
        depth_metrics(np.ones(3), np.ones(4))
    for predicted, true in ((0.0, 1.0), (np.nan, 1.0), (np.inf, 1.0), (1.0, 0.0), (1.0, np.nan)):
        with pytest.raises(ValueError, match="positive"):
            depth_metrics(np.array([predicted]), np.array([true]))


def test_nothing_to_compare() -> None:
    for nothing in (depth_metrics(np.empty(0), np.empty(0)), mean_over_frames([NOTHING_COMPARED]), pool([])):
        assert nothing.count == 0
        assert np.isnan(astuple(nothing)[:-1]).all()


def test_pool_is_the_error_of_all_values_together() -> None:
    predicted, true = depths(seed=1).ravel(), depths(seed=2).ravel()
    cut = [slice(0, 100), slice(100, 100), slice(100, None)]
    pooled = pool(depth_metrics(predicted[part], true[part]) for part in cut)
    assert astuple(pooled) == pytest.approx(astuple(depth_metrics(predicted, true)))


def test_mean_over_frames_counts_every_frame_the_same() -> None:
    small, large = depth_metrics(np.full(2, 2.0), np.ones(2)), depth_metrics(np.full(98, 1.0), np.ones(98))
    mean = mean_over_frames([small, NOTHING_COMPARED, large])
    assert (mean.abs_rel, mean.rmse, mean.a1, mean.count) == (0.5, 0.5, 0.5, 100)
    assert pool([small, large]).abs_rel == pytest.approx(0.02)


# -------------------------------------------------------------------------------------- protocols


def test_garg_crop_of_a_kitti_frame() -> None:
    # The bounds that published KITTI evaluations use: rows 153 to 371, columns 44 to 1197 of 375 x 1242.
    valid = valid_mask(np.full((375, 1242), 10.0, np.float32), protocol("kitti"))
    rows, columns = np.flatnonzero(valid.any(axis=1)), np.flatnonzero(valid.any(axis=0))
    assert (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) == (153, 371, 44, 1197)
    assert valid.sum() == (371 - 153) * (1197 - 44)


@pytest.mark.parametrize(("name", "low", "high"), [("kitti", 1e-3, 80), ("indoor", 0.1, 10)])
def test_limits_of_true_depth(name: str, low: float, high: float) -> None:
    true = np.zeros((100, 100), np.float32)
    values = np.array([0, low / 2, low * 1.01, high * 0.99, high, high * 2, np.nan, np.inf])
    true[50, 50:58] = values
    assert valid_mask(true, protocol(name))[50, 50:58].tolist() == [False, False, True, True, *[False] * 4]


def test_plain_takes_every_positive_depth() -> None:
    true = np.array([[0, 1e-4, 1e4, np.nan]], np.float32)
    assert valid_mask(true, PLAIN).tolist() == [[False, True, True, False]]


def test_median_scaling_takes_out_any_factor() -> None:
    true = depths()
    for factor in (0.01, 7.0):
        pair = apply_protocol(true * np.float32(factor), RELATIVE, true, PLAIN)
        assert depth_metrics(pair.predicted, pair.true).abs_rel == pytest.approx(0, abs=1e-6)


def test_median_scaling_looks_at_valid_pixels_alone() -> None:
    true, predicted = depths(), depths()
    true[:30] = 0
    predicted[:30] *= 100
    pair = apply_protocol(predicted, RELATIVE, true, PLAIN)
    np.testing.assert_allclose(pair.predicted, pair.true, rtol=1e-6)


def test_without_scaling_a_metric_network_is_taken_at_its_word() -> None:
    true = depths()
    pair = apply_protocol(2 * true, METRIC, true, UNSCALED)
    assert depth_metrics(pair.predicted, pair.true).abs_rel == pytest.approx(1)


@pytest.mark.parametrize(("kind", "rules"), [(RELATIVE, UNSCALED), (AFFINE, PLAIN), (AFFINE, UNSCALED)])
def test_kinds_that_cannot_be_compared(kind: DepthKind, rules: Protocol) -> None:
    with pytest.raises(DepthKindError):
        apply_protocol(depths(), kind, depths(), rules)


def test_predictions_are_clamped_after_scaling() -> None:
    true = np.full((100, 100), 40.0, np.float32)
    predicted = np.full((100, 100), 4.0, np.float32)
    predicted[60, 50:52] = 100, 1e-6
    pair = apply_protocol(predicted, RELATIVE, true, protocol("kitti"))
    assert (pair.predicted.min(), pair.predicted.max()) == (1e-3, 80)


def test_prediction_is_resized_to_the_truth() -> None:
    true = np.tile(np.linspace(1, 9, 64, dtype=np.float32), (48, 1))
    pair = apply_protocol(true[1::3, 1::3].copy(), METRIC, true[:, :63], UNSCALED)
    assert pair.predicted.shape == (48 * 63,)
    assert depth_metrics(pair.predicted, pair.true).abs_rel < 0.02


def test_frame_without_truth() -> None:
    pair = apply_protocol(depths(), METRIC, np.zeros((40, 50), np.float32), PLAIN)
    assert pair.true.size == 0


def test_protocols_describe_themselves() -> None:
    assert "Garg crop, 0.001 to 80 m, per-frame median scaling" in protocol("kitti").describe()
    assert "no crop, every positive depth, no scaling" in UNSCALED.describe()
    assert [protocol(name).name for name in ProtocolName] == list(ProtocolName)
    with pytest.raises(GroundTruthError, match="'make3d'"):
        protocol("make3d")
