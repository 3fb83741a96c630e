"""The camera's height above the ground, from depth."""

from __future__ import annotations

import numpy as np
import pytest

from sfmttr.errors import AlignmentError
from sfmttr.evaluation.ground_plane import camera_height, height_above_ground
from sfmttr.geometry import pixel_centers
from sfmttr.types import Camera

CAMERA = Camera((120, 160), 130.0, 130.0, 80.0, 60.0)


def ground(height: float, pitch_deg: float = 0.0, roll_deg: float = 0.0, far: float = 60.0) -> np.ndarray:
    """(120, 160) depth of a plane `height` below the camera, cut off at `far`."""
    pitch, roll = np.radians(pitch_deg), np.radians(roll_deg)
    normal = np.array([np.sin(roll) * np.cos(pitch), np.cos(roll) * np.cos(pitch), np.sin(pitch)])
    rays = (pixel_centers(CAMERA.hw) - [CAMERA.cx, CAMERA.cy]) / [CAMERA.fx, CAMERA.fy]
    facing = np.concatenate([rays, np.ones((len(rays), 1))], axis=1) @ normal
    depth = np.where(facing > height / far, height / np.maximum(facing, 1e-9), far)
    return depth.reshape(CAMERA.hw).astype(np.float32)


@pytest.mark.parametrize(("height", "pitch", "roll"), [(1.65, 0, 0), (0.4, 12, 0), (25.0, 8, 10)])
def test_height_of_a_plane(height: float, pitch: float, roll: float) -> None:
    depth = ground(height, pitch, roll, far=40 * height)
    found = height_above_ground(depth, CAMERA, np.random.default_rng(0))
    assert found == pytest.approx(height, rel=1e-3)


def test_things_that_stand_on_it_and_noise_do_no_harm() -> None:
    depth = ground(1.6, 5)
    depth[70:110, 50:80] = 3.0
    noise = np.exp(0.005 * np.random.default_rng(1).standard_normal(depth.shape))
    found = height_above_ground((depth * noise).astype(np.float32), CAMERA, np.random.default_rng(0))
    assert found == pytest.approx(1.6, rel=0.03)


def test_a_wall_is_no_ground() -> None:
    wall = np.full(CAMERA.hw, 5.0, np.float32)
    assert height_above_ground(wall, CAMERA, np.random.default_rng(0)) is None


def test_the_median_counts_and_too_few_are_refused() -> None:
    wall = np.full(CAMERA.hw, 5.0, np.float32)
    planes = [(ground(height), CAMERA) for height in (1.5, 1.6, 4.0)]
    assert camera_height([*planes, (wall, CAMERA)]) == pytest.approx(1.6, rel=1e-3)
    with pytest.raises(AlignmentError, match="1 of 3 frames"):
        camera_height([planes[0], (wall, CAMERA), (wall, CAMERA)])
