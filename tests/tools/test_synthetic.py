"""The rendered clips are what they say they are: everything else is measured against them."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from sfmttr.geometry import (
    grid_from_pixels,
    inverse_rigid,
    pixel_centers,
    project,
    sample_numpy,
    transform,
    unproject,
)
from sfmttr.types import FrameSet
from tools import synthetic
from tools.synthetic import RenderedClip, Scene, pinhole, pose, render

SMALL = (90, 120)


@pytest.fixture(scope="module")
def street() -> RenderedClip:
    return synthetic.render_street(4, SMALL)


@pytest.fixture(scope="module")
def room() -> RenderedClip:
    return synthetic.render_room(4, SMALL, arc_deg=8)


@pytest.fixture(scope="module")
def traffic() -> RenderedClip:
    return synthetic.render_traffic(6, SMALL)


def wall_clip(yaw_deg: float = 0.0, pitch_deg: float = 0.0) -> RenderedClip:
    """A wall in the plane z = 4, and nothing else."""
    scene = Scene(0)
    scene.add_box([0, 0, 4.5], [60, 60, 1])
    return render(scene, pose((0.0, 0.0, 0.0), yaw_deg, pitch_deg)[None], pinhole((30, 40)))


def warp_errors(clip: RenderedClip, i: int, j: int) -> tuple[np.ndarray, np.ndarray]:
    """Relative depth error and grey difference of the static pixels of frame `i`, found again in frame `j`."""
    xy = pixel_centers(clip.camera.hw)
    xyz = unproject(clip.camera, xy, clip.depth[i].ravel())
    xyz = transform(clip.cam_from_world[j] @ inverse_rigid(clip.cam_from_world[i]), xyz)
    ahead = clip.static[i].ravel() & (xyz[:, 2] > 0.1)
    xyz = xyz[ahead]
    there = project(clip.camera, xyz)
    inside = ((there > 1) & (there < np.array(clip.camera.hw)[::-1] - 1)).all(axis=1)
    at = grid_from_pixels(there[inside], clip.camera.hw)
    # Inverse depth is linear over a plane, so bilinear reading is exact away from edges.
    error = np.abs(sample_numpy(1 / clip.depth[j], at) * xyz[inside, 2] - 1)
    grey_i = clip.rgb[i].mean(axis=2).ravel()[ahead][inside]
    return error, np.abs(sample_numpy(clip.rgb[j].mean(axis=2), at) - grey_i)


@pytest.mark.parametrize("name", ["street", "room"])
def test_points_are_found_again_in_the_next_frame(name: str, request: pytest.FixtureRequest) -> None:
    error, grey = warp_errors(request.getfixturevalue(name), 0, 1)
    assert len(error) > 5000
    assert np.median(error) < 1e-4
    assert np.mean(error < 0.01) > 0.85  # the rest is at edges, or hidden
    assert np.median(grey) < 8  # the same texture, too


def test_what_moves_is_marked_and_only_that(traffic: RenderedClip) -> None:
    assert 0.5 < 1 - traffic.static.mean() < 0.95
    error, _ = warp_errors(traffic, 0, 5)
    assert np.mean(error < 0.01) > 0.85
    everything = RenderedClip(**{**vars(traffic), "static": np.ones_like(traffic.static)})
    error, _ = warp_errors(everything, 0, 5)
    assert np.mean(error < 0.01) < 0.6


def test_distance_of_a_known_wall_is_z_and_not_the_length_of_the_ray() -> None:
    np.testing.assert_allclose(wall_clip().depth, 4.0, rtol=1e-6)


@pytest.mark.parametrize(("yaw_deg", "pitch_deg"), [(25.0, 0.0), (0.0, 20.0), (-15.0, -10.0)])
def test_a_wall_stays_where_it_is_when_the_camera_turns(yaw_deg: float, pitch_deg: float) -> None:
    clip = wall_clip(yaw_deg, pitch_deg)
    xyz_in_cam = unproject(clip.camera, pixel_centers(clip.camera.hw), clip.depth[0].ravel())
    in_world = transform(inverse_rigid(clip.cam_from_world[0]), xyz_in_cam)
    np.testing.assert_allclose(in_world[:, 2], 4.0, rtol=1e-5)


def test_turning_goes_right_and_up() -> None:
    world_from_cam = inverse_rigid(pose((1.0, 2.0, 3.0), yaw_deg=30, pitch_deg=20))
    x, y, z = world_from_cam[:3, 2]  # where it looks
    assert x > 0
    assert y < 0
    assert z > 0
    np.testing.assert_allclose(world_from_cam[:3, 3], [1, 2, 3])


def test_nearer_things_hide_farther_ones() -> None:
    scene = Scene(0)
    scene.add_box([0, 0, 2.5], [1, 1, 1])
    scene.add_box([0, 0, 9.5], [90, 90, 1])
    depth = render(scene, pose((0.0, 0.0, 0.0))[None], pinhole((41, 41), 90)).depth[0]
    assert depth[20, 20] == pytest.approx(2.0)
    assert depth[0, 0] == pytest.approx(9.0)
    assert np.mean(depth < 3) == pytest.approx(1 / 16, abs=0.02)  # half a metre to each side at 2 m


def test_a_hole_in_the_scene_is_an_error() -> None:
    scene = Scene(0)
    scene.add_box([0, 0, 5], [1, 1, 1])
    with pytest.raises(ValueError, match="hole"):
        render(scene, pose((0.0, 0.0, 0.0))[None], pinhole((20, 20)))


def test_repeats_by_seed() -> None:
    first, again, other = (synthetic.render_street(2, SMALL, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.rgb, again.rgb)
    np.testing.assert_array_equal(first.depth, again.depth)
    np.testing.assert_array_equal(first.cam_from_world, again.cam_from_world)
    assert not np.array_equal(first.depth, other.depth)
    assert not np.array_equal(first.rgb, other.rgb)


def test_shapes_and_kinds(street: RenderedClip) -> None:
    assert street.rgb.shape == (4, *SMALL, 3)
    assert street.rgb.dtype == np.uint8
    assert street.depth.shape == street.static.shape == (4, *SMALL)
    assert street.depth.dtype == np.float32
    assert street.static.all()
    assert 0.5 < street.depth.min() < street.depth.max() < 65
    assert street.names == ("0", "1", "2", "3")
    assert len(street) == 4
    assert np.all(np.diff(street.centres_in_world[:, 2]) > 0.2)


def test_clips_that_cannot_be_reconstructed() -> None:
    static, rotation = synthetic.render_static(3, SMALL), synthetic.render_rotation(3, SMALL)
    for clip in (static, rotation):
        np.testing.assert_allclose(np.ptp(clip.centres_in_world, axis=0), 0, atol=1e-12)
    assert not np.array_equal(static.rgb[0], static.rgb[1])  # noise
    np.testing.assert_array_equal(static.depth[0], static.depth[2])
    assert np.abs(rotation.rgb[0].astype(float) - rotation.rgb[2]).mean() > 10
    flat = synthetic.render_textureless(2, SMALL)
    assert flat.rgb.std(axis=(1, 2)).max() < 2
    assert np.ptp(flat.centres_in_world[:, 0]) > 0.05


def test_frames_on_disk(street: RenderedClip, tmp_path: Path) -> None:
    frames = synthetic.write_frames(street, tmp_path / "frames")
    assert isinstance(frames, FrameSet)
    assert frames.from_video
    assert frames.hw == SMALL
    np.testing.assert_array_equal(frames.read(2).rgb, street.rgb[2])
    assert synthetic.write_frames(street, tmp_path / "again").content_hash == frames.content_hash


def test_video(street: RenderedClip, tmp_path: Path) -> None:
    path = synthetic.write_video(street, tmp_path / "street.mp4", fps=10)
    with av.open(str(path)) as container:
        decoded = list(container.decode(video=0))
    assert [frame.time for frame in decoded] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    for frame, rgb in zip(decoded, street.rgb, strict=True):
        assert np.abs(frame.to_ndarray(format="rgb24").astype(float) - rgb).mean() < 6  # colour is halved


def test_ground_truth(street: RenderedClip, tmp_path: Path) -> None:
    folder = synthetic.write_ground_truth(street, tmp_path / "truth", scale=2000)
    assert sorted(path.name for path in folder.iterdir()) == ["0.png", "1.png", "2.png", "3.png"]
    with Image.open(folder / "1.png") as image:
        values = np.asarray(image)
    assert values.dtype == np.uint16
    fits = street.depth[1] * 2000 <= 65535
    assert 0.3 < fits.mean() < 1
    np.testing.assert_allclose(values[fits] / 2000, street.depth[1][fits], atol=0.0003)
    assert not values[~fits].any()
