"""A room: a hand-held arc around furniture."""

from __future__ import annotations

import numpy as np

from sfmttr.types import HW
from tools.synthetic.clip import RenderedClip, pinhole, pose
from tools.synthetic.paths import smooth_path
from tools.synthetic.rendering import render
from tools.synthetic.scene import Scene


def room_scene(seed: int) -> Scene:
    scene = Scene(seed)
    rng = scene.rng
    scene.add_box([0, -1.3, 0], [5.4, 2.6, 5.0], hollow=True, texel_m=0.008, contrast=0.7)
    for x, z, size in (
        (-1.6, 1.7, (1.0, 1.7, 0.5)),  # shelf
        (0.2, 1.0, (1.3, 0.7, 0.7)),  # table
        (1.9, 1.5, (0.7, 1.2, 0.7)),  # cupboard
        (-0.9, 0.3, (0.5, 0.45, 0.5)),  # stool
        (1.1, 0.2, (0.45, 0.35, 0.5)),  # carton
    ):
        scene.add_box([x, -size[1] / 2, z], size, yaw_deg=rng.uniform(-25, 25), texel_m=0.005)
    for _ in range(3):  # things on the table
        extent = rng.uniform(0.15, 0.35, 3)
        middle = [0.2 + rng.uniform(-0.4, 0.4), -0.7 - extent[1] / 2, 1.0 + rng.uniform(-0.2, 0.2)]
        scene.add_box(middle, extent, yaw_deg=rng.uniform(-45, 45), texel_m=0.004)
    for x in (-0.7, 0.6, 1.6):  # pictures
        scene.add_box([x, -1.75, 2.47], [0.6, 0.5, 0.06], texel_m=0.004)
    return scene


def room_poses(n_frames: int, seed: int, arc_deg: float) -> np.ndarray:
    rng = np.random.default_rng([seed, 4])
    wander = smooth_path(rng, n_frames, (0.02, 0.03, 0.02, 1.2, 0.8, 1.0))
    angle = np.linspace(-arc_deg / 2, arc_deg / 2, n_frames) if n_frames > 1 else np.zeros(1)
    poses = []
    for i, degrees in enumerate(angle):
        a = np.radians(degrees)  # around a point 3 m ahead, always looking at it
        centre = np.array([3.0 * np.sin(a), -1.35, 1.0 - 3.0 * np.cos(a)]) + wander[i, :3]
        poses.append(pose(centre, -degrees + wander[i, 3], -8 + wander[i, 4], wander[i, 5]))
    return np.stack(poses)


def render_room(
    n_frames: int = 20,
    hw: HW = (240, 320),
    seed: int = 0,
    *,
    arc_deg: float = 40.0,
    horizontal_view_deg: float = 62.0,
    noise: float = 1.5,
) -> RenderedClip:
    """Render a hand-held arc around the furniture of a room."""
    return render(room_scene(seed), room_poses(n_frames, seed, arc_deg), pinhole(hw, horizontal_view_deg), noise)
