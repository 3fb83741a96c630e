"""Example clips: a video, its true depth, and what made them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import sfmttr
from sfmttr.io.atomic import atomic_file
from sfmttr.io.depth_files import choose_png_scale, write_depth_png
from sfmttr.io.video_writer import write_comparison_video
from sfmttr.types import HW, Camera, Depth, DepthKind
from tools.scenes import sensor
from tools.scenes.renderer import Renderer
from tools.scenes.scene import Scene, SceneKind

CLIP_HW = {SceneKind.STREET: (320, 832), SceneKind.ROOM: (480, 640)}
CLIP_FPS = {SceneKind.STREET: 10.0, SceneKind.ROOM: 15.0}
CLIP_VIEW_DEG = {SceneKind.STREET: 80.0, SceneKind.ROOM: 63.0}
MAX_DEPTH_M = 200.0
"""Truth ends here: beyond it is scenery, and the PNG's steps stay fine."""
NOISE = 0.25
"""Strength of the sensor's noise in clips."""


@dataclass(frozen=True)
class ClipFiles:
    """Result of `write_clip`."""

    video: Path
    truth: Path
    """Folder of 16-bit PNGs."""
    record: Path


def clip_camera(kind: SceneKind, hw: HW) -> Camera:
    """The camera that clips of that kind are taken with."""
    focal = float(hw[1] / 2 / np.tan(np.radians(CLIP_VIEW_DEG[kind]) / 2))
    return Camera(hw, focal, focal, hw[1] / 2, hw[0] / 2)


def write_clip(
    renderer: Renderer, scene: Scene, out: Path, frames: int, command: str, hw: HW | None = None
) -> ClipFiles:
    """Write `out`.mp4, the folder `out`.depth and `out`.json. The truth has half of the clip's resolution."""
    camera = clip_camera(scene.kind, hw or CLIP_HW[scene.kind])
    small = camera.scaled_to((camera.hw[0] // 2, camera.hw[1] // 2))
    poses = scene.camera_path(frames, np.random.default_rng([scene.seed, 21]))
    files = ClipFiles(
        out.with_name(f"{out.name}.mp4"), out.with_name(f"{out.name}.depth"), out.with_name(f"{out.name}.json")
    )
    files.truth.mkdir(parents=True, exist_ok=True)
    depths = [_limited(renderer.render_depth(scene, small, pose)) for pose in poses]
    scale = choose_png_scale(DepthKind.METRIC, max(float(depth.max()) for depth in depths))
    for i, depth in enumerate(depths):
        write_depth_png(files.truth / f"{i:06d}.png", Depth(depth, DepthKind.METRIC), scale)
    fps = CLIP_FPS[scene.kind]
    write_comparison_video(files.video, _pictures(renderer, scene, camera, poses), fps)
    record = {
        "what": "a rendered clip; depth is camera z in metres at the centre of each pixel",
        "command": command,
        "kind": scene.kind.value,
        "seed": scene.seed,
        "fps": fps,
        "sfmttr": sfmttr.__version__,
        "depth_steps_per_metre": scale.steps_per_unit,
        "camera": _camera(camera),
        "depth_camera": _camera(small),
        "cam_from_world": [np.round(pose, 7).tolist() for pose in poses],
    }
    with atomic_file(files.record) as part:
        part.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return files


def _limited(depth: np.ndarray) -> np.ndarray:
    return np.where(depth <= MAX_DEPTH_M, depth, np.float32(0))


def _pictures(renderer: Renderer, scene: Scene, camera: Camera, poses: list[np.ndarray]) -> Iterator[np.ndarray]:
    lens = np.random.default_rng([scene.seed, 22])
    look = int(lens.integers(1 << 30))
    for i, pose in enumerate(poses):
        rgb = renderer.render(scene, camera, pose).rgb
        # One camera for the clip: the same exposure and tone for each frame, other noise.
        yield sensor.expose(rgb, np.random.default_rng(look), NOISE, noise=np.random.default_rng([scene.seed, 23, i]))


def _camera(camera: Camera) -> dict[str, object]:
    return {"hw": list(camera.hw), "fx": camera.fx, "fy": camera.fy, "cx": camera.cx, "cy": camera.cy}
