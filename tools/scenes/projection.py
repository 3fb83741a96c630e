"""Matrices that take the world to OpenGL's clip space, and what of a scene can be seen through them."""

from __future__ import annotations

import numpy as np

from sfmttr.types import Camera
from tools.scenes.scene import ShadowLight

NEAR_M = 0.08
FAR_M = 2500.0
_CHOOSE = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), axis=-1).reshape(8, 3)


def clip_from_cam(camera: Camera) -> np.ndarray:
    """(4, 4) projection. Rows go upwards in OpenGL's memory and downwards in ours, so nothing is turned round."""
    (height, width), near, far = camera.hw, NEAR_M, FAR_M
    return np.array(
        [
            [2 * camera.fx / width, 0, 2 * camera.cx / width - 1, 0],
            [0, 2 * camera.fy / height, 2 * camera.cy / height - 1, 0],
            [0, 0, (far + near) / (far - near), -2 * far * near / (far - near)],
            [0, 0, 1, 0],
        ]
    )


def shadow_clip(light: ShadowLight) -> np.ndarray:
    """(4, 4) clip_from_world of a shadow map: parallel for the sun, a wide view straight down for a lamp."""
    if light.sun:
        way = light.at / np.linalg.norm(light.at)
        side = np.cross(way, (0.0, 1.0, 0.0) if abs(way[1]) < 0.9 else (1.0, 0.0, 0.0))
        side /= np.linalg.norm(side)
        axes = np.stack([side, np.cross(way, side), -way]) / np.array([[light.extent_m], [light.extent_m], [200.0]])
        out = np.eye(4)
        out[:3, :3], out[:3, 3] = axes, -axes @ light.target
        return out
    spread, near, far = 1 / np.tan(np.radians(78.0)), 0.12, 12.0
    depth = np.array([(far + near) / (far - near), -2 * far * near / (far - near)])
    projection = np.array([[spread, 0, 0, 0], [0, spread, 0, 0], [0, 0, *depth], [0, 0, 1, 0]])
    cam = np.eye(4)
    cam[:3, :3] = [[1, 0, 0], [0, -1, 0], [0, 0, -1]]
    cam[:3, 3] = -cam[:3, :3] @ light.at
    return np.asarray(projection @ cam)


def visible_parts(bounds: np.ndarray, clip: np.ndarray, cam_from_world: np.ndarray) -> np.ndarray:
    """Numbers of the parts, of bounds (P, 2, 3), that may be in view, nearest first."""
    corners = bounds[:, _CHOOSE, np.arange(3)]
    projected = corners @ clip[:, :3].T + clip[:, 3]
    limit = projected[..., 3:]
    outside = (projected[..., :3] > limit).all(axis=1) | (projected[..., :3] < -limit).all(axis=1)
    # A part without triangles has NaN for bounds, and is neither outside nor seen: its range is empty.
    nearest = (corners @ cam_from_world[2, :3] + cam_from_world[2, 3]).min(axis=1)
    seen = np.flatnonzero(~outside.any(axis=1))
    return np.asarray(seen[np.argsort(nearest[seen], kind="stable")])
