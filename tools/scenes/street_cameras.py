"""Where a camera in a street may be: driving in a lane, now and then on foot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tools.scenes.course import Course
from tools.scenes.scene import IsClear, look

CLEARANCE_M = 0.4


@dataclass(frozen=True)
class StreetCameras:
    """Cameras along `course`; the right lane's middle is half of `lane_m` to the right of the line."""

    course: Course
    lane_m: float
    kerb_m: float

    def path(self, frames: int, rng: np.random.Generator, is_clear: IsClear) -> list[np.ndarray]:
        """Driving along the right lane, 0.3 to 0.45 m a frame, with a car's slight pitching."""
        step = rng.uniform(0.34, 0.45)
        along = rng.uniform(0, 4) + step * np.arange(frames)
        phase = rng.uniform(0, 6, 4)
        time = np.arange(frames)
        right = 0.5 * self.lane_m + 0.3 * np.sin(time / 14 + phase[0])
        pitch = -0.03 + 0.003 * np.sin(time / 5 + phase[1])
        roll, up = 0.004 * np.sin(time / 9 + phase[2]), 1.65 + 0.01 * np.sin(time / 4 + phase[3])
        out = []
        for i in range(frames):
            position, _ = self.course.place(float(along[i]), float(right[i]), float(up[i]))
            # A car looks where it will be, not along the line under it.
            ahead, _ = self.course.place(float(along[i]) + 6.0, float(np.interp(i + 6, time, right)), float(up[i]))
            way = ahead - position
            yaw = float(np.arctan2(-way[0], way[1]))
            out.append(
                look(position, yaw, float(pitch[i] + np.arctan2(way[2], np.hypot(way[0], way[1]))), float(roll[i]))
            )
        return out

    def views(self, count: int, rng: np.random.Generator, is_clear: IsClear) -> list[np.ndarray]:
        """Four in five as from a car; the rest on foot, from the pavement or across the road."""
        out: list[np.ndarray] = []
        while len(out) < count:
            driving = rng.random() < 0.8
            along = rng.uniform(-8, 70)
            if driving:
                right = rng.choice([-1, 1], p=[0.2, 0.8]) * self.lane_m * rng.uniform(0.3, 0.65)
                up, yaw, pitch, roll = (
                    rng.normal(1.62, 0.12),
                    rng.normal(0, 0.07),
                    rng.normal(-0.015, 0.03),
                    rng.normal(0, 0.01),
                )
            else:
                right = rng.uniform(-self.kerb_m - 2.5, self.kerb_m + 2.5)
                up, yaw, pitch, roll = (
                    rng.uniform(1.0, 2.3),
                    rng.normal(0, 0.6),
                    rng.normal(-0.02, 0.1),
                    rng.normal(0, 0.04),
                )
            position, road_yaw = self.course.place(along, float(right), float(up))
            if is_clear(position[None], CLEARANCE_M)[0]:
                slope = float(
                    np.arctan2(self.course.place(along + 4, 0.0)[0][2] - self.course.place(along, 0.0)[0][2], 4.0)
                )
                out.append(look(position, road_yaw + float(yaw), float(pitch) + slope, float(roll)))
        return out
