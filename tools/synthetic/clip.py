"""A rendered clip with everything that is known of it, and cameras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sfmttr.geometry import inverse_rigid
from sfmttr.types import HW, Camera


@dataclass(frozen=True)
class RenderedClip:
    """Frames with exact depth, poses and camera."""

    rgb: np.ndarray
    """(N, H, W, 3) uint8."""
    depth: np.ndarray
    """(N, H, W) float32, camera z at pixel centers, meters. Scenes are closed: every pixel has a depth."""
    cam_from_world: np.ndarray
    """(N, 4, 4) float64."""
    camera: Camera
    static: np.ndarray
    """(N, H, W) bool, False at pixels of moving objects."""
    names: tuple[str, ...]
    """Frame numbers, as in `FrameSet.names` of a video."""

    def __len__(self) -> int:
        return len(self.rgb)

    @property
    def centres_in_world(self) -> np.ndarray:
        """(N, 3) camera positions, meters."""
        return np.stack([inverse_rigid(pose)[:3, 3] for pose in self.cam_from_world])


def pose(centre: Sequence[float], yaw_deg: float = 0.0, pitch_deg: float = 0.0, roll_deg: float = 0.0) -> np.ndarray:
    """Return `cam_from_world` (4, 4) of a camera at `centre` that looks along z, turned right, up and clockwise."""
    yaw, pitch, roll = np.radians([yaw_deg, pitch_deg, roll_deg])
    turn_y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    turn_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    turn_z = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    world_from_cam = np.eye(4)
    world_from_cam[:3, :3] = turn_y @ turn_x @ turn_z
    world_from_cam[:3, 3] = centre
    return inverse_rigid(world_from_cam)


def pinhole(hw: HW, horizontal_view_deg: float = 65.0) -> Camera:
    focal = hw[1] / (2 * np.tan(np.radians(horizontal_view_deg) / 2))
    return Camera(hw, focal, focal, hw[1] / 2, hw[0] / 2)
