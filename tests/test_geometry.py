"""The pixel convention, cameras against COLMAP's own, transforms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sfmttr.geometry import (
    grid_from_pixels,
    inverse_rigid,
    pixel_centers,
    project,
    resize_numpy,
    sample,
    sample_numpy,
    transform,
    unproject,
)
from sfmttr.types import Camera
from tools.synthetic import pose

HW = (48, 64)
CAMERA = Camera(HW, 60.0, 62.0, 31.0, 25.5, k1=-0.12, k2=0.03, p1=0.002, p2=-0.001)
RESOLUTIONS = [(48, 64), (24, 32), (96, 128), (12, 16), (30, 50)]


def ramp(hw: tuple[int, int]) -> np.ndarray:
    """x of each pixel's centre in pixels of the image of size `HW`, less one half."""
    return np.tile((np.arange(hw[1], dtype=np.float32) + 0.5) * HW[1] / hw[1] - 0.5, (hw[0], 1))


def inner_pixels(hw: tuple[int, int], count: int = 200) -> np.ndarray:
    """Random pixels (count, 2) of the image at least one pixel of `hw` inside, where a border cannot matter."""
    margin = np.array([HW[1] / hw[1], HW[0] / hw[0]])
    return np.random.default_rng(0).uniform(margin, np.array([HW[1], HW[0]]) - margin, (count, 2))


@pytest.mark.parametrize("hw", RESOLUTIONS)
def test_sample_of_a_ramp_is_the_coordinate(hw: tuple[int, int]) -> None:
    xy_px = inner_pixels(hw)
    grid = grid_from_pixels(xy_px, HW)
    np.testing.assert_allclose(sample_numpy(ramp(hw), grid), xy_px[:, 0] - 0.5, atol=1e-3)


def test_centres_of_pixels_read_their_own_values() -> None:
    values = np.random.default_rng(0).normal(size=HW).astype(np.float32)
    grid = grid_from_pixels(pixel_centers(HW), HW)
    for mode in ("bilinear", "nearest"):
        np.testing.assert_allclose(sample_numpy(values, grid, mode=mode), values.ravel(), atol=1e-4)


def test_nearest_reads_the_pixel_that_holds_the_point() -> None:
    xy_px = np.random.default_rng(0).uniform([0.01, 0.01], [63.99, 47.99], (300, 2))
    index = np.arange(48 * 64, dtype=np.float32).reshape(HW)
    expected = np.floor(xy_px[:, 1]) * 64 + np.floor(xy_px[:, 0])
    np.testing.assert_array_equal(sample_numpy(index, grid_from_pixels(xy_px, HW), mode="nearest"), expected)


def test_beyond_the_outermost_centres_is_the_border() -> None:
    corners = grid_from_pixels(np.array([[0.0, 0.0], [64.0, 48.0]]), HW)
    np.testing.assert_allclose(sample_numpy(ramp(HW), corners), [0, 63])


@pytest.mark.parametrize("hw", RESOLUTIONS)
def test_resizing_keeps_the_ramp(hw: tuple[int, int]) -> None:
    inner = (slice(None), slice(3, -3))
    np.testing.assert_allclose(resize_numpy(ramp(HW), hw)[inner], ramp(hw)[inner], atol=1e-3)


def test_torch_and_numpy_sample_alike() -> None:
    values = np.random.default_rng(0).normal(size=HW).astype(np.float32)
    grid = grid_from_pixels(inner_pixels(HW), HW)
    expected = sample(torch.from_numpy(values)[None], torch.from_numpy(grid))[0].numpy()
    np.testing.assert_array_equal(sample_numpy(values, grid), expected)


# --------------------------------------------------------------------------------------- cameras


def test_unproject_undoes_project() -> None:
    rng = np.random.default_rng(0)
    xyz = np.column_stack([rng.uniform(-1, 1, (200, 2)), rng.uniform(2.5, 9, 200)])
    np.testing.assert_allclose(unproject(CAMERA, project(CAMERA, xyz), xyz[:, 2]), xyz, atol=1e-9)


def test_project_agrees_with_colmap() -> None:
    pycolmap = pytest.importorskip("pycolmap")
    c = CAMERA
    params = [c.fx, c.fy, c.cx, c.cy, c.k1, c.k2, c.p1, c.p2]
    theirs = pycolmap.Camera(model="OPENCV", width=HW[1], height=HW[0], params=params)
    xyz = np.random.default_rng(0).uniform([-1, -1, 2.5], [1, 1, 9], (50, 3))
    np.testing.assert_allclose(project(c, xyz), theirs.img_from_cam(xyz), atol=1e-9)


def test_a_scaled_camera_sees_the_scaled_image() -> None:
    xyz = np.random.default_rng(0).uniform([-1, -1, 3], [1, 1, 9], (50, 3))
    small = CAMERA.scaled_to((24, 16))
    assert small.hw == (24, 16)
    np.testing.assert_allclose(project(small, xyz), project(CAMERA, xyz) * [16 / 64, 24 / 48], atol=1e-9)


def test_scaling_there_and_back_is_the_camera() -> None:
    there = CAMERA.scaled_to((480, 640))
    back = there.scaled_to(HW)
    assert [there.fx, there.cy] == pytest.approx([600, 255])
    assert [back.fx, back.fy, back.cx, back.cy] == pytest.approx([60, 62, 31, 25.5])
    assert (back.hw, back.k1, back.p2) == (HW, CAMERA.k1, CAMERA.p2)  # distortion has no unit


def test_inverse_of_a_rigid_transform() -> None:
    cam_from_world = pose((1.0, -2.0, 3.0), 20, -10, 5)
    np.testing.assert_allclose(inverse_rigid(cam_from_world) @ cam_from_world, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(transform(cam_from_world, np.array([[1.0, -2.0, 3.0]])), 0, atol=1e-12)
