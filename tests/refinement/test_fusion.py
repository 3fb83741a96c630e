"""Fused depth: right where the points are, untouched where they are not, and nothing leaks over depth edges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from sfmttr.config import FuseConfig, SplitConfig
from sfmttr.geometry import grid_from_pixels, pixel_centers, resize_numpy, sample_numpy
from sfmttr.refinement.fusion import fuse, fuse_clip, fusion_hw, log_correction
from sfmttr.refinement.observations import observe
from sfmttr.types import FrameSet
from tests.support.fakes import sparse_model_from_truth
from tools.synthetic import RenderedClip

HW = (48, 64)
CONFIG = FuseConfig()
NARROW = FuseConfig(sigmas=(2 / 64,))
DENSE = grid_from_pixels(pixel_centers(HW), HW)


def depth(seed: int = 0) -> np.ndarray:
    """A smooth map."""
    y, x = np.mgrid[: HW[0], : HW[1]]
    return (5 + np.sin(x / 9 + seed) + np.cos(y / 7)).astype(np.float32)


def ones(grid: np.ndarray) -> np.ndarray:
    return np.ones(len(grid), np.float32)


def at(*xy_px: tuple[float, float]) -> np.ndarray:
    return grid_from_pixels(np.array(xy_px), HW)


def test_dense_points_correct_a_constant_error() -> None:
    true = depth()
    fused = fuse(true / np.float32(1.2), DENSE, true.ravel(), ones(DENSE), HW, CONFIG)
    np.testing.assert_allclose(fused, true, rtol=0.01)


def test_dense_points_correct_any_smooth_error() -> None:
    true, predicted = depth(), depth(seed=1)
    fused = fuse(predicted, DENSE, true.ravel(), ones(DENSE), HW, replace(CONFIG, prior=0.01))
    assert np.abs(fused / true - 1).max() < 0.03
    assert np.abs(fused / true - 1).mean() < 0.05 * np.abs(predicted / true - 1).mean()


def test_right_depth_stays_as_it_is() -> None:
    grid = DENSE[::11]
    np.testing.assert_allclose(fuse(depth(), grid, sample_numpy(depth(), grid), ones(grid), HW, CONFIG), depth())


def test_far_from_points_nothing_changes() -> None:
    grid = at((8.5, 24.5))
    fused = fuse(depth(), grid, 1.5 * sample_numpy(depth(), grid), ones(grid), HW, NARROW)
    np.testing.assert_array_equal(fused[:, 24:], depth()[:, 24:])
    assert fused[24, 8] > 1.1 * depth()[24, 8]


def test_corrections_do_not_leak_over_depth_edges() -> None:
    near_and_far = np.where(np.arange(64) < 32, 2.0, 12.0).astype(np.float32)[None].repeat(48, axis=0)
    grid = DENSE.reshape(48, 64, 2)[::3, :32:3].reshape(-1, 2)
    fused = fuse(near_and_far, grid, np.full(len(grid), 2.6, np.float32), ones(grid), HW, CONFIG)
    np.testing.assert_allclose(fused[:, :30], 2.6, rtol=0.05)
    np.testing.assert_allclose(fused[:, 34:], 12.0, rtol=0.01)


def test_a_point_counts_for_more_the_greater_its_weight() -> None:
    log_depth, residual = np.log(depth()), np.array([0.3])
    heights = [
        log_correction(log_depth, at((32.5, 24.5)), residual, np.array([weight]), NARROW)[24, 32]
        for weight in (0.0, 0.1, 0.5, 1.0)
    ]
    assert heights[0] == 0
    assert (np.diff(heights) > 0).all()
    assert heights[-1] < 0.3


@pytest.mark.parametrize("value", [1.0, 7.0])
def test_a_flat_map_is_as_good_as_any(value: float) -> None:
    flat = np.full(HW, value, np.float32)
    fused = fuse(flat, DENSE, 1.2 * flat.ravel(), ones(DENSE), HW, CONFIG)
    np.testing.assert_allclose(fused, 1.2 * value, rtol=0.01)


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
    np.testing.assert_allclose(other, k * base, rtol=1e-3)


def test_points_that_ask_for_too_much_are_outliers() -> None:
    grid = DENSE[::7]
    reference = sample_numpy(depth(), grid) * np.float32(1.05 * CONFIG.max_factor)
    np.testing.assert_array_equal(fuse(depth(), grid, reference, ones(grid), HW, CONFIG), depth())


def test_size_of_fused_depth() -> None:
    assert fusion_hw((720, 1280), FuseConfig(long_side=640)) == (360, 640)
    assert fusion_hw((240, 320), FuseConfig(long_side=640)) == (240, 320)
    assert fusion_hw((2000, 3), FuseConfig(long_side=100)) == (100, 1)


def test_each_frame_is_fused_with_its_own_points(room: RenderedClip, room_frames: FrameSet) -> None:
    model = sparse_model_from_truth(room, room_frames, points=2000)
    observations = observe(model, len(room), (96, 128), SplitConfig(), np.random.default_rng(0))
    some = observations.where(observations.frame != 3)
    wrong = (1.2 * room.depth[:, ::2, ::2]).astype(np.float32)
    fused = fuse_clip(wrong, some, some.z, ones(some.z), (96, 128), CONFIG)
    errors = np.abs(fused / room.depth - 1).mean(axis=(1, 2))
    assert fused.shape == room.depth.shape
    np.testing.assert_array_equal(fused[3], resize_numpy(wrong[3], (96, 128)))
    assert np.delete(errors, 3).max() < 0.5 * errors[3]
