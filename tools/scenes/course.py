"""The line of a street, and the ground beside it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tools.scenes.mesh import Material, MeshBuilder, placed

STEP_M = 2.0


class Course:
    """A road's centre line in the world, from `start_m` to `end_m` along it. At 0 it passes the origin along +y."""

    def __init__(self, rng: np.random.Generator, start_m: float = -30.0, end_m: float = 190.0) -> None:
        self.along = np.arange(start_m, end_m + STEP_M, STEP_M)
        bend = rng.choice([0.0, 0.3, 1.0]) * rng.normal(0, 0.004)
        wave = rng.normal(0, 0.0025) * np.sin(self.along / rng.uniform(25, 60) + rng.uniform(0, 6))
        yaw = np.cumsum((bend + wave) * STEP_M)
        self.yaw = yaw - np.interp(0, self.along, yaw)
        x, y = np.cumsum(-np.sin(self.yaw) * STEP_M), np.cumsum(np.cos(self.yaw) * STEP_M)
        slope = rng.choice([0.0, 1.0]) * rng.normal(0, 0.012)
        z = slope * self.along + rng.normal(0, 0.3) * np.sin(self.along / rng.uniform(30, 70))
        self.points = np.stack([c - np.interp(0, self.along, c) for c in (x, y, z)], axis=1)

    def place(self, along_m: float, right_m: float, up_m: float = 0.0) -> tuple[np.ndarray, float]:
        """Point (3,) beside the line, to its right where positive, and the road's yaw there."""
        yaw = float(np.interp(along_m, self.along, self.yaw))
        x, y, z = (float(np.interp(along_m, self.along, self.points[:, i])) for i in range(3))
        return np.array([x + right_m * np.cos(yaw), y + right_m * np.sin(yaw), z + up_m]), yaw

    def frame(self, along_m: float, right_m: float, up_m: float = 0.0, turn: float = 0.0) -> np.ndarray:
        """(4, 4) local axes at that place: y along the road, turned by `turn` radians to the left."""
        position, yaw = self.place(along_m, right_m, up_m)
        return placed(position, yaw + turn)

    def strip(
        self,
        builder: MeshBuilder,
        profile: Sequence[tuple[float, float]],
        material: Material,
        from_m: float | None = None,
        to_m: float | None = None,
    ) -> None:
        """Ground along the road: `profile` is (right, up) from left to right. One part for each 30 m."""
        first = self.along[0] if from_m is None else from_m
        last = self.along[-1] if to_m is None else to_m
        shape = np.asarray(profile, np.float64)
        width = np.concatenate([[0.0], np.linalg.norm(np.diff(shape, axis=0), axis=1).cumsum()])
        for start in np.arange(first, last, 30.0):
            along = np.linspace(start, min(start + 30.0, last), 16)
            yaw = np.interp(along, self.along, self.yaw)[:, None]
            x, y, z = (np.interp(along, self.along, self.points[:, i])[:, None] for i in range(3))
            right, up = shape[:, 0], shape[:, 1]
            points = np.stack([x + right * np.cos(yaw), y + right * np.sin(yaw), z + up + 0 * yaw], axis=2)
            uv = np.stack(np.broadcast_arrays((shape[0, 0] + width)[None], along[:, None]), axis=2)
            builder.part(solid=False)
            builder.grid(points, material, uv / (material.tile_m or 1.0))
