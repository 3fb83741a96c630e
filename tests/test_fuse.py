"""Fused depth: right where the points are, untouched where they are not."""

from __future__ import annotations

import numpy as np
import pytest

from sfmttr.config import FuseConfig, SplitConfig
from sfmttr.fuse import fuse, fuse_clip, fusion_hw, log_correction, splat
from sfmttr.geometry import grid_from_pixels, pixel_centres, resize_numpy, sample_numpy
from sfmttr.targets import observe
from sfmttr.types import FrameSet
from tests.fakes import sparse_model_from_truth
from tests.synthetic import RenderedClip

HW = (48, 64)
CONFIG = FuseConfig(sigmas=(2 / 64,))
SHARP = FuseConfig(sigmas=(2 / 64, 1 / 64, 0.5 / 64), prior=1e-3)
DENSE = grid_from_pixels(pixel_centres(HW), HW)


def depth(seed: int = 0) -> np.ndarray:
    """A smooth map."""
    y, x = np.mgrid[: HW[0], : HW[1]]
    return (5 + np.sin(x / 9 + seed) + np.cos(y / 7)).astype(np.float32)


def ones(grid: np.ndarray) -> np.ndarray:
    return np.ones(len(grid), np.float32)


def test_dense_points_correct_a_constant_error() -> None:
    true = depth()
    fused = fuse(true / np.float32(1.2), DENSE, true.ravel(), ones(DENSE), HW, CONFIG)
    np.testing.assert_allclose(fused, true, rtol=0.01)


def test_dense_points_are_met_by_the_finest_level() -> None:
    true, predicted = depth(), depth(seed=1)
    fused = fuse(predicted, DENSE, true.ravel(), ones(DENSE), HW, SHARP)
    np.testing.assert_allclose(fused, true, rtol=0.01)


def test_far_from_points_nothing_changes() -> None:
    grid = grid_from_pixels(np.array([[8.5, 24.5]]), HW)
    fused = fuse(depth(), grid, 1.5 * sample_numpy(depth(), grid), ones(grid), HW, CONFIG)
    np.testing.assert_array_equal(fused[:, 20:], depth()[:, 20:])
    assert fused[24, 8] > 1.2 * depth()[24, 8]


def test_a_point_counts_for_more_the_greater_its_weight() -> None:
    grid = grid_from_pixels(np.array([[32.5, 24.5]]), HW)
    residual = np.array([0.3])
    heights = [log_correction(grid, residual, np.array([w]), HW, CONFIG)[24, 32] for w in (0.0, 0.3, 1.0)]
    # One point of weight w against a prior of one half: w / (w + 0.5) of what it asks for, at its own pixel.
    assert heights == pytest.approx([0, 0.3 * 0.3 / 0.8, 0.3 / 1.5], rel=0.1)


def test_no_points_only_resize() -> None:
    none = np.empty(0, np.float32)
    fused = fuse(depth(), np.empty((0, 2), np.float32), none, none, (96, 128), CONFIG)
    np.testing.assert_array_equal(fused, resize_numpy(depth(), (96, 128)))


@pytest.mark.parametrize("k", [0.01, 250.0])
def test_the_unit_does_not_matter(k: float) -> None:
    grid = DENSE[::7]
    reference = sample_numpy(depth(seed=1), grid)
    base = fuse(depth(), grid, reference, ones(grid), HW, CONFIG)
    other = fuse(depth() * np.float32(k), grid, reference * np.float32(k), ones(grid), HW, CONFIG)
    np.testing.assert_allclose(other, k * base, rtol=1e-5)


def test_points_that_ask_for_too_much_are_outliers() -> None:
    grid = DENSE[::7]
    reference = sample_numpy(depth(), grid) * np.float32(2.1)
    np.testing.assert_array_equal(fuse(depth(), grid, reference, ones(grid), HW, CONFIG), depth())


def test_splat_adds_up_in_the_pixel_that_holds_the_point() -> None:
    xy_px = np.array([[0.1, 0.9], [0.9, 0.1], [63.9, 47.9], [64.0, 48.0]])
    total = splat(grid_from_pixels(xy_px, HW), np.array([1.0, 2.0, 4.0, 8.0]), HW)
    assert (total[0, 0], total[-1, -1], total.sum()) == (3, 12, 15)


def test_size_of_fused_depth() -> None:
    assert fusion_hw((720, 1280), FuseConfig(long_side=640)) == (360, 640)
    assert fusion_hw((240, 320), FuseConfig(long_side=640)) == (240, 320)
    assert fusion_hw((2000, 3), FuseConfig(long_side=100)) == (100, 1)


def test_each_frame_is_fused_with_its_own_points(room: RenderedClip, room_frames: FrameSet) -> None:
    model = sparse_model_from_truth(room, room_frames, points=2000)
    observations = observe(model, len(room), (96, 128), SplitConfig(), np.random.default_rng(0))
    some = observations.where(observations.frame != 3)
    wrong = (1.2 * room.depth[:, ::2, ::2]).astype(np.float32)
    fused = fuse_clip(wrong, some, some.z, ones(some.z), (96, 128), FuseConfig())
    errors = np.abs(fused / room.depth - 1).mean(axis=(1, 2))
    assert fused.shape == room.depth.shape
    np.testing.assert_array_equal(fused[3], resize_numpy(wrong[3], (96, 128)))
    assert np.delete(errors, 3).max() < 0.75 * errors[3]
