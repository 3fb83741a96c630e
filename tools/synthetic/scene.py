"""Scenes of textured rectangles, alone or as the faces of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from tools.synthetic.textures import MATERIALS, TEXTURE_SIZE

Vector = Sequence[float] | np.ndarray


@dataclass(frozen=True)
class Quad:
    """One textured rectangle, seen from the side that `across x down` points away from."""

    corner: np.ndarray
    across: np.ndarray
    down: np.ndarray
    """First corner and the two edges from it, in meters in the world, before motion along `Scene.paths`."""
    material: int
    offset_m: np.ndarray
    """(2,) texture position of the first corner, meters."""
    texel_m: float
    dark: np.ndarray
    bright: np.ndarray
    """(3,) colors of texture values 0 and 1, 0 to 255, before light."""
    mover: int
    """Index into `Scene.paths`; -1: static."""


@dataclass
class Scene:
    """Textured rectangles, and the paths of the moving ones."""

    seed: int
    quads: list[Quad] = field(default_factory=list)
    paths: list[np.ndarray] = field(default_factory=list)
    """For each moving object (N, 3): its offset in each frame, meters."""

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng([self.seed, 5])

    def add_quad(
        self,
        corner: Vector,
        across: Vector,
        down: Vector,
        *,
        texel_m: float = 0.02,
        contrast: float = 1.0,
        color: Vector | None = None,
        material: int | None = None,
        mover: int = -1,
    ) -> None:
        base = np.array(color if color is not None else 90 + 90 * self.rng.random(3), np.float64)
        tint = self.rng.normal(0, 10, 3) * contrast
        self.quads.append(
            Quad(
                np.array(corner, np.float64),
                np.array(across, np.float64),
                np.array(down, np.float64),
                int(self.rng.integers(MATERIALS)) if material is None else material,
                self.rng.uniform(0, TEXTURE_SIZE * texel_m, 2),
                texel_m,
                base * (1 - 0.85 * contrast) - tint,
                base * (1 + 0.55 * contrast) + tint,
                mover,
            )
        )

    def add_box(
        self,
        middle: Vector,
        size: Vector,
        *,
        yaw_deg: float = 0.0,
        texel_m: float = 0.01,
        contrast: float = 1.0,
        color: Vector | None = None,
        mover: int = -1,
        hollow: bool = False,
    ) -> None:
        """Add a box of `size` (x, y, z) centered at `middle`; the faces of a `hollow` one point inwards."""
        yaw = np.radians(yaw_deg)
        rotation = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        half = np.array(size, np.float64) / 2
        base = color if color is not None else 90 + 90 * self.rng.random(3)
        for axis in range(3):
            for side in (-1, 1):
                normal, across, down = np.zeros(3), np.zeros(3), np.zeros(3)
                normal[axis] = side
                across[(axis + 1) % 3] = 2 * half[(axis + 1) % 3]
                down[(axis + 2) % 3] = 2 * half[(axis + 2) % 3]
                if (side < 0) != hollow:
                    across, down = down, across
                corner = normal * half - (across + down) / 2
                self.add_quad(
                    np.array(middle) + rotation @ corner,
                    rotation @ across,
                    rotation @ down,
                    texel_m=texel_m,
                    contrast=contrast,
                    color=base,
                    mover=mover,
                )

    def add_mover(self, path: np.ndarray) -> int:
        self.paths.append(np.asarray(path, np.float64))
        return len(self.paths) - 1
