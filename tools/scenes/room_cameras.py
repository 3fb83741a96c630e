"""Where a camera in a room may be: held in the hand, between the furniture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tools.scenes.scene import IsClear, look

CLEARANCE_M = 0.3


@dataclass(frozen=True)
class RoomCameras:
    """Cameras in a room about the origin, `half` (2,) its half width and depth."""

    half: np.ndarray
    height_m: float

    def path(self, frames: int, rng: np.random.Generator, is_clear: IsClear) -> list[np.ndarray]:
        """A hand-held walk of 1 to 2 m, sideways and a little forward, looking at about one place."""
        for attempt in range(400):
            start, yaw = self._place(rng, 1.25, 1.6), rng.uniform(0, 2 * np.pi)
            # Look across the room rather than at the nearest wall.
            start[:2] = np.array([np.sin(yaw), -np.cos(yaw)]) * self.half * rng.uniform(0.35, 0.75) + rng.normal(
                0, 0.2, 2
            )
            forward, right = np.array([-np.sin(yaw), np.cos(yaw), 0]), np.array([np.cos(yaw), np.sin(yaw), 0])
            t = np.linspace(-0.5, 0.5, frames)
            sway = [_wander(rng, frames, size) for size in (0.02, 0.015, 0.02)]
            side = rng.choice([-1, 1]) * rng.uniform(1.1, 1.5)
            positions = (
                start
                + np.outer(side * t + sway[0], right)
                + np.outer(0.5 * (t + 0.5) + sway[1], forward)
                + np.outer(sway[2] + 0.12 * np.sin(3 * t), [0, 0, 1])
            )
            if not self._all_clear(positions, is_clear, CLEARANCE_M if attempt < 300 else 0.12):
                continue
            aim = start + forward * float(rng.uniform(2.2, 3.2))
            turn = 0.85 * np.arctan2(aim[0] - positions[:, 0], aim[1] - positions[:, 1])
            turn += 0.15 * np.mean(turn) / 0.85
            pitch = np.radians(rng.uniform(-22, -12)) + _wander(rng, frames, 0.02)
            angles = zip(-np.unwrap(turn) + _wander(rng, frames, 0.012), pitch, _wander(rng, frames, 0.02), strict=True)
            return [look(p, *map(float, a)) for p, a in zip(positions, angles, strict=True)]
        raise RuntimeError("no free walk through this room; take another seed")

    def views(self, count: int, rng: np.random.Generator, is_clear: IsClear) -> list[np.ndarray]:
        """Single pictures from anywhere that is free, mostly at the height of a hand and a little downwards."""
        out: list[np.ndarray] = []
        tries = 0
        while len(out) < count:
            tries += 1
            position = self._place(rng, 0.8, 1.9)
            # In a very full room there may be no free place at that distance: then nearer is better than nothing.
            if not self._all_clear(position[None], is_clear, CLEARANCE_M if tries < 500 else 0.02) and tries < 5000:
                continue
            toward = np.arctan2(position[0], -position[1]) + rng.normal(0, 0.9)
            out.append(look(position, float(toward), float(rng.normal(-0.25, 0.22)), float(rng.normal(0, 0.06))))
        return out

    def _place(self, rng: np.random.Generator, low: float, high: float) -> np.ndarray:
        return np.array(
            [*(rng.uniform(-1, 1, 2) * (self.half - 0.35)), rng.uniform(low, min(high, self.height_m - 0.4))]
        )

    def _all_clear(self, positions: np.ndarray, is_clear: IsClear, margin_m: float) -> bool:
        inside = np.all(np.abs(positions[:, :2]) < self.half - 0.3)
        return bool(inside and is_clear(positions, margin_m).all())


def _wander(rng: np.random.Generator, frames: int, size: float) -> np.ndarray:
    """(frames,) a smooth random walk about 0, as a hand makes it."""
    time = np.arange(frames)
    waves = [np.sin(time / period + rng.uniform(0, 6.3)) * period / 12 for period in (3.0, 6.0, 12.0)]
    return np.asarray(size * np.sum(waves, axis=0) / 1.2)
