"""Contact sheets: scenes with their depth, for looking at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sfmttr.types import HW
from tools.scenes.clip import clip_camera
from tools.scenes.renderer import Renderer
from tools.scenes.scene import Scene


def contact_sheet(renderer: Renderer, scenes: Sequence[Scene], views: int, hw: HW) -> np.ndarray:
    """(rows, columns, 3) uint8: one row a scene; each view with its depth below, near bright."""
    rows = []
    for scene in scenes:
        rng = np.random.default_rng([scene.seed, 41])
        poses = [scene.camera_path(2, rng)[0], *scene.random_views(views - 1, rng)]
        shown = [renderer.render(scene, clip_camera(scene.kind, hw), pose) for pose in poses]
        rows.append(np.hstack([np.vstack([view.rgb, depth_picture(view.depth_m)]) for view in shown]))
    return np.vstack(rows)


def depth_picture(depth_m: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 of inverse depth; sky is black."""
    inverse = np.where(depth_m > 0, 1 / np.maximum(depth_m, 1e-3), 0)
    top = max(float(np.percentile(inverse, 98)), 1e-6)
    grey = (255 * np.clip(inverse / top, 0, 1) ** 0.6).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)
