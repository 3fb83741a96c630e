"""Clips that have no reconstruction: no motion, rotation alone, no texture."""

from __future__ import annotations

import numpy as np

from sfmttr.types import HW
from tools.synthetic.clip import RenderedClip, pinhole, pose
from tools.synthetic.rendering import render
from tools.synthetic.room import room_poses, room_scene
from tools.synthetic.scene import Scene


def render_static(n_frames: int = 12, hw: HW = (240, 320), seed: int = 0, *, noise: float = 1.5) -> RenderedClip:
    """Render the room from a tripod: the frames differ by sensor noise alone."""
    poses = np.repeat(room_poses(1, seed, 0.0), n_frames, axis=0)
    return render(room_scene(seed), poses, pinhole(hw, 62.0), noise)


def render_rotation(
    n_frames: int = 12,
    hw: HW = (240, 320),
    seed: int = 0,
    *,
    pan_deg: float = 30.0,
    horizontal_view_deg: float = 45.24,
) -> RenderedClip:
    """Render the room from a camera that only rotates.

    The view is the one that COLMAP assumes of an unknown camera, and no model is found. With a wider one (62 degrees),
    COLMAP keeps its wrong focal length and explains what is left by a path that never was: every frame registers with
    an error of 0.17 px, and the depths are wrong. Only the pairs that a homography explains give it away.
    """
    yaw = np.linspace(-pan_deg / 2, pan_deg / 2, n_frames)
    poses = np.stack([pose((0.0, -1.35, -2.0), degrees, -8 + 2 * np.sin(degrees / 5)) for degrees in yaw])
    return render(room_scene(seed), poses, pinhole(hw, horizontal_view_deg))


def render_textureless(n_frames: int = 12, hw: HW = (240, 320), seed: int = 0, *, noise: float = 1.0) -> RenderedClip:
    """Render a camera that slides along a wall of one color that fills the image."""
    scene = Scene(seed)
    scene.add_box([0, 0, 3.05], [40, 40, 0.1], contrast=0.0, color=(140, 150, 160))
    poses = np.stack([pose((0.1 * i, 0.0, 0.0)) for i in range(n_frames)])
    return render(scene, poses, pinhole(hw), noise)
