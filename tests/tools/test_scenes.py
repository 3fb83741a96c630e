"""The scene renderer: same seed same place, exact depth, cameras that keep clear, files within their limits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("moderngl", reason="rendering needs moderngl (a development dependency)")

import itertools

from sfmttr.geometry import (
    grid_from_pixels,
    inverse_rigid,
    pixel_centers,
    project,
    sample_numpy,
    transform,
    unproject,
)
from sfmttr.io.depth_files import read_depth_png
from tools.render_scene import main
from tools.scenes import TRAINING, Camera, NoContextError, Renderer, Scene, SceneKind, build_scene, sensor
from tools.scenes.dataset import read_shard, render_dataset, shard_path
from tools.scenes.mesh import Material, MeshBuilder
from tools.scenes.scene import TRAINING_SEEDS_FROM, IsClear, look

STREET_CAMERA = Camera((96, 256), 150.0, 150.0, 128.0, 48.0)
ROOM_CAMERA = Camera((120, 160), 130.0, 130.0, 81.3, 58.9)
CAMERAS = {SceneKind.STREET: STREET_CAMERA, SceneKind.ROOM: ROOM_CAMERA}


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    try:
        with Renderer(TRAINING) as made:
            yield made
    except NoContextError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=list(SceneKind))
def scene(request: pytest.FixtureRequest) -> Scene:
    return build_scene(request.param, 3)


class _Nowhere:
    """Cameras of a scene that is only looked at from given poses."""

    def path(self, frames: int, rng: np.random.Generator, is_clear: IsClear) -> list[np.ndarray]:
        raise NotImplementedError

    def views(self, count: int, rng: np.random.Generator, is_clear: IsClear) -> list[np.ndarray]:
        raise NotImplementedError


def test_equal_seeds_give_equal_scenes_and_others_do_not(scene: Scene, renderer: Renderer) -> None:
    again, other = build_scene(scene.kind, scene.seed), build_scene(scene.kind, scene.seed + 1)
    pose = scene.camera_path(3, np.random.default_rng(0))[1]
    assert np.array_equal(pose, again.camera_path(3, np.random.default_rng(0))[1])
    first, second, third = (renderer.render(s, CAMERAS[scene.kind], pose) for s in (scene, again, other))
    assert np.array_equal(first.rgb, second.rgb)
    assert np.array_equal(first.depth_m, second.depth_m)
    assert not np.array_equal(first.rgb, third.rgb)


def test_depth_is_camera_z_at_pixel_centres(renderer: Renderer, scene: Scene) -> None:
    builder = MeshBuilder()
    builder.part()
    builder.quad(np.array([[-50, -50, 0], [50, -50, 0], [50, 50, 0], [-50, 50, 0]], float), Material(1))
    builder.part()
    builder.box((-0.6, 4.0, 0.0), (0.8, 5.0, 1.1), Material(1))
    plain = Scene(SceneKind.STREET, 3, builder.finish(), scene.light, _Nowhere())
    camera, pose = ROOM_CAMERA, look(np.array([0.2, 0.1, 1.6]), 0.1, -0.25, 0.05)
    depth = renderer.render(plain, camera, pose).depth_m

    world_from_cam = inverse_rigid(pose)
    rays = unproject(camera, pixel_centers(camera.hw), np.ones(camera.hw[0] * camera.hw[1])) @ world_from_cam[:3, :3].T
    eye = world_from_cam[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        ground = np.where(rays[:, 2] < 0, -eye[2] / rays[:, 2], np.inf)
        slabs = (np.array([[-0.6, 4.0, 0.0], [0.8, 5.0, 1.1]])[:, None] - eye) / rays
    enter, leave = slabs.min(axis=0).max(axis=1), slabs.max(axis=0).min(axis=1)
    expected = np.minimum(ground, np.where((enter < leave) & (enter > 0), enter, np.inf)).reshape(camera.hw)
    far = expected > 40  # the ground ends
    compared = ~far & (depth > 0)
    assert compared.mean() > 0.6
    # A pixel centre on an edge may fall to either side.
    assert np.mean(np.abs(depth - expected)[compared] < 1e-3) > 0.998


def test_two_views_agree(scene: Scene, renderer: Renderer) -> None:
    camera = CAMERAS[scene.kind]
    poses = scene.camera_path(30, np.random.default_rng(1))
    a, b = (renderer.render(scene, camera, poses[i]) for i in (0, 2))
    seen = a.depth_m.ravel() > 0
    points = unproject(camera, pixel_centers(camera.hw)[seen], a.depth_m.ravel()[seen])
    in_b = transform(poses[2] @ inverse_rigid(poses[0]), points)
    front = in_b[:, 2] > 0.1
    pixels = project(camera, in_b[front])
    inside = np.all((pixels > 1) & (pixels < [camera.hw[1] - 1, camera.hw[0] - 1]), axis=1)
    grid = grid_from_pixels(pixels[inside], camera.hw)
    there = sample_numpy(b.depth_m, grid, mode="nearest")
    expected = in_b[front][inside, 2]
    agree = np.abs(there - expected) < 0.05 * expected
    assert inside.mean() > 0.6
    assert agree.mean() > 0.8
    colour_a = a.rgb.reshape(-1, 3)[seen][front][inside][agree].astype(float)
    colour_b = np.stack([sample_numpy(b.rgb[..., c].astype(np.float32), grid[agree]) for c in range(3)], axis=1)
    assert np.median(np.abs(colour_a - colour_b).mean(axis=1)) < 12


def test_cameras_are_never_inside_things(renderer: Renderer) -> None:
    for kind in SceneKind:
        for seed in (4, 5):
            place = build_scene(kind, seed)
            rng = np.random.default_rng(seed)
            poses = place.random_views(6, rng) + place.camera_path(30, rng)
            eyes = np.array([inverse_rigid(pose)[:3, 3] for pose in poses])
            assert place.is_clear(eyes, 0.0).all()
            for pose in poses[:3]:
                depth = renderer.render_depth(place, CAMERAS[kind], pose)
                assert np.mean((depth > 0) & (depth < 0.1)) < 0.05


def test_paths_are_smooth(scene: Scene) -> None:
    poses = scene.camera_path(40, np.random.default_rng(2))
    eyes = np.array([inverse_rigid(pose)[:3, 3] for pose in poses])
    steps = np.linalg.norm(np.diff(eyes, axis=0), axis=1)
    low, high = (0.25, 0.5) if scene.kind is SceneKind.STREET else (0.0, 0.12)
    assert steps.min() >= low
    assert steps.max() <= high
    turns = [
        np.arccos(np.clip((np.trace(b[:3, :3] @ a[:3, :3].T) - 1) / 2, -1, 1)) for a, b in itertools.pairwise(poses)
    ]
    assert np.degrees(max(turns)) < 3


def test_sensor_is_mild_when_told_to_be() -> None:
    rgb = np.full((40, 50, 3), 120, np.uint8)
    assert np.array_equal(sensor.expose(rgb, np.random.default_rng(0), 0.0), rgb)
    mild = sensor.expose(rgb, np.random.default_rng(0), 0.25)
    assert mild.dtype == np.uint8
    assert not np.array_equal(mild, rgb)
    assert np.abs(mild.astype(int) - 120).mean() < 30


def test_clip_writes_all_files(tmp_path: Path, renderer: Renderer) -> None:
    command = ["clip", "room", "--seed", "3", "--frames", "3", "--hw", "96", "128", "--out", str(tmp_path / "a")]
    assert main(command) == 0
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["seed"] == 3
    assert record["command"].endswith(" ".join(command[-4:]))
    assert len(record["cam_from_world"]) == 3
    assert 0 < (tmp_path / "a.mp4").stat().st_size < 3e6
    files = sorted((tmp_path / "a.depth").iterdir())
    assert [file.name for file in files] == ["000000.png", "000001.png", "000002.png"]
    depth = read_depth_png(files[0])
    assert depth.values.shape == (48, 64)
    assert depth.steps_per_unit == record["depth_steps_per_metre"]
    assert 0.2 < np.median(depth.values[depth.values > 0]) < 8


def test_examples_and_training_never_share_a_seed(tmp_path: Path) -> None:
    assert main(["clip", "room", "--seed", str(TRAINING_SEEDS_FROM), "--out", str(tmp_path / "a")]) == 2
    with pytest.raises(ValueError, match="examples"):
        render_dataset(tmp_path, [SceneKind.ROOM], 1, 1, seed=TRAINING_SEEDS_FROM - 1)


def test_dataset_goes_on_where_it_was_stopped(tmp_path: Path, renderer: Renderer) -> None:
    sizes = {SceneKind.ROOM: (48, 64)}
    assert render_dataset(tmp_path, [SceneKind.ROOM], 1, 2, sizes, workers=1) == 2
    path = shard_path(tmp_path, SceneKind.ROOM, TRAINING_SEEDS_FROM)
    before = path.stat().st_mtime_ns
    assert render_dataset(tmp_path, [SceneKind.ROOM], 2, 2, sizes, workers=1) == 2
    assert path.stat().st_mtime_ns == before
    shard = read_shard(path)
    assert shard.rgb.shape == (2, 48, 64, 3)
    assert shard.depth_m.shape == (2, 48, 64)
    assert shard.depth_m.dtype == np.float32
    assert np.all(shard.fx_px > 20)
    path.unlink()
    render_dataset(tmp_path, [SceneKind.ROOM], 1, 2, sizes, workers=1)
    assert np.array_equal(read_shard(path).rgb, shard.rgb)
