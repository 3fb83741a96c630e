"""A scene: its mesh, its light, and the positions that cameras may take."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import numpy as np

from tools.scenes.mesh import Mesh

TRAINING_SEEDS_FROM = 10_000
"""Seeds below are for examples and tests, so that no example scene is ever trained on."""
SCENES_A_BANK = 250
"""So many seeds in a row share their textures, because a texture bank takes seconds to make."""


class SceneKind(StrEnum):
    """Kind of place."""

    STREET = "street"
    ROOM = "room"


@dataclass(frozen=True)
class ShadowLight:
    """A light that casts shadows: the sun, or a lamp that shines downwards."""

    at: np.ndarray
    """(3,) where the lamp is, or the way to the sun."""
    sun: bool
    colour: np.ndarray
    """(3,) linear; of a lamp at a metre's distance."""
    target: np.ndarray
    """(3,) middle of what is lit."""
    extent_m: float
    """Half the side of the square that gets the sun's shadows; unused for lamps."""
    soft_m: float = 0.03
    """Width of the blur at a shadow's edge."""


@dataclass(frozen=True)
class Lamp:
    """A light without shadows, such as a window's or what a wall reflects."""

    at: np.ndarray
    colour: np.ndarray
    soft_m2: float = 0.5


@dataclass(frozen=True)
class Light:
    """All light of a scene, linear RGB."""

    shadow: tuple[ShadowLight, ...]
    """At most two."""
    lamps: tuple[Lamp, ...]
    """At most three."""
    ambient_up: np.ndarray
    """(3,) from above."""
    ambient_down: np.ndarray
    """(3,) from below."""
    zenith: np.ndarray
    horizon: np.ndarray
    sun_glow: np.ndarray
    cloud: tuple[float, float, float, float]
    """Cover, brightness, and an offset (2) that makes it another sky."""
    haze_m: float
    """Distance at which 63 % is haze."""
    exposure: float = 1.0
    contrast: float = 1.0


class IsClear(Protocol):
    """Return (N,) bool: points (N, 3) that keep `margin_m` from everything solid."""

    def __call__(self, points: np.ndarray, margin_m: float) -> np.ndarray: ...


class Free(Protocol):
    """Where cameras may go and how they move there."""

    def path(self, frames: int, rng: np.random.Generator, is_clear: IsClear) -> list[np.ndarray]: ...

    def views(self, count: int, rng: np.random.Generator, is_clear: IsClear) -> list[np.ndarray]: ...


@dataclass(frozen=True)
class Scene:
    """A static place. Equal seeds give equal scenes."""

    kind: SceneKind
    seed: int
    mesh: Mesh
    light: Light
    free: Free
    macro_m: float = 9.0
    """Size of the stains laid over everything."""
    _solid: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_solid", self.mesh.bounds[self.mesh.solid])

    @property
    def bank_seed(self) -> int:
        """Which texture bank it is seen with."""
        return self.seed // SCENES_A_BANK

    def is_clear(self, points: np.ndarray, margin_m: float) -> np.ndarray:
        """Return (N,) bool: points (N, 3) that keep `margin_m` from the bounds of everything solid."""
        p = np.atleast_2d(points)[:, None]
        inside = (p > self._solid[:, 0] - margin_m) & (p < self._solid[:, 1] + margin_m)
        free = np.logical_not(np.asarray(inside.all(axis=2))).all(axis=1)
        return np.asarray(free)

    def camera_path(self, frames: int, rng: np.random.Generator) -> list[np.ndarray]:
        """`cam_from_world` (4, 4) of a clip: driving in a street, hand-held in a room; smooth, never through things."""
        return self.free.path(frames, rng, self.is_clear)

    def random_views(self, count: int, rng: np.random.Generator) -> list[np.ndarray]:
        """`cam_from_world` (4, 4) of single pictures for training."""
        return self.free.views(count, rng, self.is_clear)


def look(position: np.ndarray, yaw: float, pitch: float, roll: float) -> np.ndarray:
    """`cam_from_world` of a camera that looks along +y at yaw 0; positive: to the left, upwards, top to the left."""
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    forward = np.array([-sy * cp, cy * cp, sp])
    level = np.array([cy, sy, 0.0])
    right = cr * level - sr * np.cross(forward, level)
    out = np.eye(4)
    out[:3, :3] = np.stack([right, np.cross(forward, right), forward])
    out[:3, 3] = -out[:3, :3] @ position
    return out
