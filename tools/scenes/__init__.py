"""Procedural places with exact depth: streets and rooms, each made from a seed.

World axes: x right, y forward, z up. Cameras are the project's (OpenCV axes, depth is camera z in metres).
"""

from __future__ import annotations

from sfmttr.types import Camera
from tools.scenes import sensor
from tools.scenes.renderer import CLIP, TRAINING, NoContextError, Quality, Renderer, View
from tools.scenes.room import build_room
from tools.scenes.scene import TRAINING_SEEDS_FROM, Scene, SceneKind
from tools.scenes.street import build_street

__all__ = [
    "CLIP",
    "TRAINING",
    "TRAINING_SEEDS_FROM",
    "Camera",
    "NoContextError",
    "Quality",
    "Renderer",
    "Scene",
    "SceneKind",
    "View",
    "build_scene",
    "sensor",
]


def build_scene(kind: SceneKind, seed: int) -> Scene:
    """The scene of that kind and seed. Equal seeds give equal scenes."""
    return build_street(seed) if kind is SceneKind.STREET else build_room(seed)
