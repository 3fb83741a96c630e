"""A street: forward motion between facades."""

from __future__ import annotations

import numpy as np

from sfmttr.types import HW
from tools.synthetic.clip import RenderedClip, pinhole, pose
from tools.synthetic.paths import smooth_path
from tools.synthetic.rendering import render
from tools.synthetic.scene import Scene


def _street_scene(seed: int, length_m: float) -> Scene:
    scene = Scene(seed)
    rng = scene.rng
    end, start = length_m, -6.0
    scene.add_quad([-16, 0, start], [32, 0, 0], [0, 0, end - start], texel_m=0.02, contrast=0.7, color=(105, 105, 110))
    scene.add_box([0, -30, end + 1], [80, 61, 2], texel_m=0.08, contrast=0.7, color=(150, 165, 190))
    for side in (-1, 1):
        z = start
        while z < end:
            width = rng.uniform(5, 9)
            face, height = rng.uniform(5.4, 6.8), rng.uniform(22, 30)
            deep = 16 - face
            scene.add_box([side * (face + deep / 2), -height / 2, z + width / 2], [deep, height, width], texel_m=0.015)
            if rng.random() < 0.7:  # a bay or a porch
                out, tall = rng.uniform(0.4, 1.1), rng.uniform(2.2, 4.5)
                scene.add_box([side * (face - out / 2), -tall / 2, z + width / 2], [out, tall, rng.uniform(1, 2.5)])
            z += width
        scene.add_box([side * 4.9, -0.07, (start + end) / 2], [2.2, 0.14, end - start], contrast=0.8, texel_m=0.015)
        z = 1 + 3 * rng.random()
        while z < end - 3:
            if rng.random() < 0.55:  # a parked car: body and cabin
                x, long = side * rng.uniform(2.7, 3.0), rng.uniform(3.2, 4.4)
                color = 70 + 120 * rng.random(3)
                scene.add_box([x, -0.55, z], [1.6, 0.8, long], color=color, yaw_deg=rng.normal(0, 3))
                scene.add_box([x, -1.2, z + 0.2], [1.4, 0.5, long * 0.5], color=color * 0.7)
            else:  # a crate or a post on the pavement
                tall = rng.uniform(0.7, 2.4)
                size = [rng.uniform(0.2, 0.8), tall, rng.uniform(0.2, 0.8)]
                scene.add_box([side * 4.4, -0.14 - tall / 2, z], size, yaw_deg=rng.uniform(-40, 40))
            z += rng.uniform(3.5, 6.0)
    return scene


def render_street(
    n_frames: int = 25,
    hw: HW = (240, 320),
    seed: int = 0,
    *,
    step_m: float = 0.3,
    sideways_m: float = 0.25,
    horizontal_view_deg: float = 65.0,
    noise: float = 1.5,
) -> RenderedClip:
    """Render a camera that drives 1.5 m above a street between facades, swaying to the sides."""
    rng = np.random.default_rng([seed, 3])
    steps = step_m * (1 + 0.15 * rng.uniform(-1, 1, n_frames))
    z = np.cumsum(steps) - steps[0]
    sway = sideways_m * np.sin(np.arange(n_frames) * 2 * np.pi / 16)
    wander = smooth_path(rng, n_frames, (0.05, 0.03, 1.5, 0.6, 0.5))
    poses = np.stack(
        [
            pose((sway[i] + wander[i, 0], -1.5 + wander[i, 1], z[i]), *(wander[i, 2:] + [0, -2, 0]))
            for i in range(n_frames)
        ]
    )
    scene = _street_scene(seed, max(45.0, z[-1] + 35))
    return render(scene, poses, pinhole(hw, horizontal_view_deg), noise)
