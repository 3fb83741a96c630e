"""Training scenes as shards on disk: one npz a scene, resumable scene by scene, made by several processes.

A shard holds `rgb` (V, H, W, 3) uint8, `depth` (V, H, W) float16 in metres with 0 for none, and `fx_px` (V,) float32;
pixels are square and the principal point is the picture's middle.
"""

from __future__ import annotations

import os
import time
import zipfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sfmttr.io.atomic import atomic_file
from sfmttr.types import HW, Camera
from tools.scenes import sensor
from tools.scenes.renderer import TRAINING, Renderer
from tools.scenes.room import build_room
from tools.scenes.scene import SCENES_A_BANK, TRAINING_SEEDS_FROM, Scene, SceneKind
from tools.scenes.street import build_street

HW_BY_KIND: Mapping[SceneKind, HW] = {SceneKind.STREET: (128, 416), SceneKind.ROOM: (192, 256)}
VIEW_DEG: Mapping[SceneKind, tuple[float, float]] = {SceneKind.STREET: (55.0, 95.0), SceneKind.ROOM: (50.0, 80.0)}
"""Horizontal field of view, from and to."""
MAX_DEPTH_M = 1000.0
MIN_DEPTH_M = 0.12
"""A view with more than a twentieth of its pixels nearer than this stands in something and is dropped."""


@dataclass(frozen=True)
class Shard:
    """One scene of a data set."""

    rgb: np.ndarray
    """(V, H, W, 3) uint8."""
    depth_m: np.ndarray
    """(V, H, W) float32, 0 for none."""
    fx_px: np.ndarray
    """(V,) float32."""


def shard_path(folder: Path, kind: SceneKind, seed: int) -> Path:
    """Where the scene of that seed lies."""
    return folder / f"{kind}-{seed:06d}.npz"


def read_shard(path: Path) -> Shard:
    """Result of `render_dataset`."""
    with np.load(path, allow_pickle=False) as content:
        return Shard(content["rgb"], content["depth"].astype(np.float32), content["fx_px"])


def render_dataset(
    folder: Path,
    kinds: Sequence[SceneKind],
    scenes: int,
    views_per_scene: int,
    hw_by_kind: Mapping[SceneKind, HW] | None = None,
    seed: int = TRAINING_SEEDS_FROM,
    workers: int = 2,
) -> int:
    """Render `scenes` scenes of each kind, of seeds from `seed` up; give how many views were made now.

    Scenes that are there already are left as they are. Raises ValueError for seeds of examples and tests.
    """
    if seed < TRAINING_SEEDS_FROM:
        raise ValueError(f"{seed=}: seeds below {TRAINING_SEEDS_FROM} are for examples and tests")
    folder.mkdir(parents=True, exist_ok=True)
    sizes = dict(HW_BY_KIND) | dict(hw_by_kind or {})
    wanted = [(kind, s) for s in range(seed, seed + scenes) for kind in kinds]
    missing = [(kind, s) for kind, s in wanted if not shard_path(folder, kind, s).is_file()]
    # Runs of neighbouring seeds share a texture bank, so a worker gets stretches of them.
    chunk = max(1, min(SCENES_A_BANK // 5, -(-len(missing) // max(1, workers))))
    jobs = [missing[i : i + chunk] for i in range(0, len(missing), chunk)]
    arguments = (jobs, [folder] * len(jobs), [views_per_scene] * len(jobs), [sizes] * len(jobs))
    if workers <= 1 or len(jobs) <= 1:
        return sum(map(_render_job, *arguments))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        return sum(pool.map(_render_job, *arguments))


def _one_thread() -> None:
    """One thread for each process: the rasteriser would start as many as there are cores in each."""
    os.environ["LP_NUM_THREADS"] = "1"


_renderer: list[Renderer] = []
"""The process's own; a context and its textures cost seconds."""


def _render_job(job: Sequence[tuple[SceneKind, int]], folder: Path, views: int, sizes: Mapping[SceneKind, HW]) -> int:
    if not _renderer:
        _renderer.append(Renderer(TRAINING))
    count = 0
    for kind, seed in job:
        shard = render_shard(_renderer[0], kind, seed, views, sizes[kind])
        depth = np.minimum(shard.depth_m, MAX_DEPTH_M).astype(np.float16)
        with atomic_file(shard_path(folder, kind, seed)) as part, part.open("wb") as file:
            _save(file, {"rgb": shard.rgb, "depth": depth, "fx_px": shard.fx_px})
        count += len(shard.rgb)
    return count


def _save(file: BinaryIO, arrays: Mapping[str, np.ndarray]) -> None:
    """An npz at compression level 1, several times faster than numpy's own, and as small for noisy pictures."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, values in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, values, allow_pickle=False)


def render_shard(renderer: Renderer, kind: SceneKind, seed: int, views: int, hw: HW) -> Shard:
    """The views of one scene, each with a camera of its own."""
    scene = build_street(seed) if kind is SceneKind.STREET else build_room(seed)
    rng = np.random.default_rng([seed, 31])
    rgb: list[np.ndarray] = []
    depth: list[np.ndarray] = []
    focal: list[float] = []
    for _ in range(4):
        for pose in scene.random_views(views - len(rgb), rng):
            camera = _random_camera(rng, kind, hw)
            view = renderer.render(scene, camera, pose)
            if np.mean((view.depth_m > 0) & (view.depth_m < MIN_DEPTH_M)) > 0.05:
                continue
            rgb.append(sensor.expose(view.rgb, rng, 1.0))
            depth.append(view.depth_m)
            focal.append(camera.fx)
        if len(rgb) >= views:
            break
    return Shard(np.stack(rgb), np.stack(depth), np.array(focal, np.float32))


def _random_camera(rng: np.random.Generator, kind: SceneKind, hw: HW) -> Camera:
    focal = hw[1] / 2 / np.tan(np.radians(rng.uniform(*VIEW_DEG[kind])) / 2)
    return Camera(hw, float(focal), float(focal), hw[1] / 2, hw[0] / 2)


def measure(scene: Scene, renderer: Renderer, views: int, hw: HW) -> float:
    """Seconds a view, without the first, which uploads the scene."""
    rng = np.random.default_rng(0)
    poses = scene.random_views(views + 1, rng)
    renderer.render(scene, _random_camera(rng, scene.kind, hw), poses[0])
    start = time.perf_counter()
    for pose in poses[1:]:
        renderer.render(scene, _random_camera(rng, scene.kind, hw), pose)
    return (time.perf_counter() - start) / views
