"""Traffic: a reconstruction that looks healthy and is wrong, because what is seen moves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sfmttr.types import HW
from tools.synthetic.clip import RenderedClip, pinhole, pose
from tools.synthetic.paths import smooth_path
from tools.synthetic.rendering import render
from tools.synthetic.scene import Scene


def _traffic_scene(seed: int, travel: np.ndarray, spread: float, jitter: float, sway_m: float) -> Scene:
    """Build lanes of lorries around the camera. `travel` (N,) is the distance that the camera has covered.

    All of it moves along the street, as the camera does, so every lane has the camera's own epipolar geometry and
    looks like a still scene at another distance: what is approached k times as fast seems k times as near.
    """
    scene = Scene(seed)
    rng = scene.rng
    scene.add_quad([-60, 0, -20], [120, 0, 0], [0, 0, 100], texel_m=0.05, contrast=0.04, color=(100, 100, 103))
    scene.add_box([0, -28, 58], [160, 60, 2], texel_m=0.25, contrast=0.06, color=(150, 160, 175))
    for side in (-1, 1):
        scene.add_box([side * 30, -15, 20], [2, 34, 120], texel_m=0.2, contrast=0.06, color=(140, 135, 130))
    count = len(travel)
    creep = np.diff(travel, prepend=0.0)

    def lane(k: float) -> int:
        """Add a path that the camera approaches about k times as fast as static objects; return its index."""
        wobble = smooth_path(rng, count, (jitter,), every=5)[:, 0]
        path = np.zeros((count, 3))
        path[:, :2] = smooth_path(rng, count, (sway_m, sway_m / 2), every=4)
        path[:, 2] = np.cumsum(creep * (1 - k * np.exp(wobble)))
        return scene.add_mover(path)

    def lorry(x: float, z: float, size: Sequence[float], mover: int) -> None:
        width, height, long = size
        color = 80 + 110 * rng.random(3)
        scene.add_box([x, -0.5 - height / 2, z + long / 2], size, color=color, mover=mover)
        scene.add_box([x, -0.3, z + long / 2], [width * 0.9, 0.5, long * 0.9], color=(60, 60, 60), mover=mover)

    lorry(-2.9, 1.0, (2.4, 4.2, 9.0), lane(spread))
    lorry(-2.9, 12.0, (2.4, 3.4, 8.0), lane(spread * 1.4))
    lorry(2.9, 1.5, (2.4, 4.0, 8.0), lane(spread**-0.6))
    lorry(2.9, 11.5, (2.4, 3.6, 8.0), lane(1.0))
    lorry(-0.75, 9.0, (1.9, 2.6, 5.0), lane(spread**0.5))
    lorry(1.1, 6.5, (1.7, 3.2, 7.0), lane(spread**-0.9))
    return scene


def render_traffic(
    n_frames: int = 36,
    hw: HW = (240, 320),
    seed: int = 0,
    *,
    creep_m: float = 0.25,
    spread: float = 2.4,
    jitter: float = 0.2,
    sway_m: float = 0.03,
    horizontal_view_deg: float = 65.0,
    noise: float = 1.5,
) -> RenderedClip:
    """Render a camera in stop-and-go traffic between moving lorries, before a pale background.

    With the default settings pycolmap registers all 36 frames, and its depths are wrong by half (median, after the best
    scale), at 0.5 px, with uneven steps and a doubtful focal length. Beyond 60 frames it would run into the lorries.
    `spread` is how much the lanes differ in speed, `jitter` (log) and `sway_m` are how unevenly they go; together they
    set how badly the reconstruction fits itself.
    """
    rng = np.random.default_rng([seed, 6])
    speed = np.maximum(0.03, np.sin(np.arange(n_frames) * 2 * np.pi / 14 + 0.3))
    travel = np.cumsum(creep_m * speed * (1 + 0.3 * rng.uniform(-1, 1, n_frames)))
    travel -= travel[0]
    wander = smooth_path(rng, n_frames, (0.004, 0.004, 0.25, 0.15, 0.1))
    poses = np.stack([pose((wander[i, 0], -1.6 + wander[i, 1], travel[i]), *wander[i, 2:]) for i in range(n_frames)])
    return render(_traffic_scene(seed, travel, spread, jitter, sway_m), poses, pinhole(hw, horizontal_view_deg), noise)
