"""Clouds and meshes: geometry on known scenes, files read back by another library."""

from dataclasses import replace

import numpy as np
import pytest
import trimesh

from sfmttr.errors import DepthKindError
from sfmttr.geometry import pixel_centers, transform, unproject
from sfmttr.io.clouds import CloudConfig, PointCloud, PosedDepth, cloud_from_depth, step_mask, surface_mask, write_ply
from sfmttr.io.meshes import FRUSTUM_FACES, frusta, gltf_from_world, mesh_from_depth, write_glb
from sfmttr.types import Camera, Depth, DepthKind, SparseView

HW = (60, 80)
CAMERA = Camera(HW, 70.0, 72.0, 39.0, 31.0, k1=0.05, k2=-0.01, p1=0.001)
NORMAL, OFFSET = np.array([0.1, -0.2, 1.0]), 4.0
"""The plane NORMAL . x = OFFSET, in world and SfM units."""


def _pose(angle=0.2, centre=(0.3, -0.1, 0.2)):
    pose = np.eye(4)
    pose[:3, :3] = [[np.cos(angle), 0, -np.sin(angle)], [0, 1, 0], [np.sin(angle), 0, np.cos(angle)]]
    pose[:3, 3] = -pose[:3, :3] @ np.array(centre)
    return pose


def _view(frame=0, pose=None, depth=()):
    count = len(depth)
    empty = np.zeros((count, 2), np.float32)
    pose = _pose() if pose is None else pose
    return SparseView(frame, CAMERA, pose, empty, np.array(depth, np.float32), np.zeros(count, np.int64))


def _plane_frame(frame=0, pose=None, scale=1.0):
    """A frame that sees the plane, with depth in units of which `1 / scale` make an SfM unit."""
    view = _view(frame, pose)
    rays = unproject(CAMERA, pixel_centers(HW), np.ones(HW[0] * HW[1]))
    rotation, shift = view.cam_from_world[:3, :3], view.cam_from_world[:3, 3]
    normal = rotation @ NORMAL
    depth = (OFFSET + normal @ shift) / (rays @ normal)
    rgb = np.random.default_rng(0).integers(0, 255, (*HW, 3), np.uint8)
    return PosedDepth(rgb, Depth((depth.reshape(HW) / scale).astype(np.float32), DepthKind.METRIC), view)


def _box_scene(blur=0):
    """Depth of a box at 2 before a wall at 5, its edges smeared over `blur` pixels."""
    ramp = np.clip((np.arange(80) - 30) / max(blur, 1e-9), 0, 1)
    return np.tile(2 + 3 * ramp, (60, 1)).astype(np.float32)


@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_points_of_a_plane_lie_on_it(scale):
    frames = [_plane_frame(i, _pose(0.1 * i, (0.2 * i, 0, 0)), scale) for i in range(3)]
    cloud = cloud_from_depth(iter(frames), 3, scale)
    assert len(cloud.xyz) > 3000
    np.testing.assert_allclose(cloud.xyz @ NORMAL, OFFSET, atol=1e-4)


def test_mesh_of_a_plane_lies_on_it_and_faces_the_camera():
    (mesh,) = mesh_from_depth([_plane_frame()], 1, 1.0)
    np.testing.assert_allclose(mesh.xyz @ NORMAL, OFFSET, atol=1e-4)
    a, b, c = (mesh.xyz[mesh.faces[:, i]] for i in range(3))
    assert (np.cross(b - a, c - a) @ NORMAL < 0).all()
    assert mesh.uv.min() > 0
    assert mesh.uv.max() < 1


def test_colours_belong_to_their_points():
    frame = _plane_frame()
    cloud = cloud_from_depth([frame], 1, 1.0)
    xyz_in_cam = transform(frame.view.cam_from_world, cloud.xyz)
    np.testing.assert_allclose(xyz_in_cam[:, 2], frame.depth.values.ravel(), rtol=1e-5)
    np.testing.assert_array_equal(cloud.rgb, frame.rgb.reshape(-1, 3))


def test_size_is_bounded():
    config = CloudConfig(max_points=1000, max_vertices=500)
    frames = [_plane_frame(i) for i in range(4)]
    assert 600 < len(cloud_from_depth(frames, 4, 1.0, config).xyz) <= 1000
    assert 300 < sum(len(mesh.xyz) for mesh in mesh_from_depth(frames, 4, 1.0, config)) <= 500


@pytest.mark.parametrize("blur", [1, 2])
def test_nothing_flies_between_box_and_wall(blur):
    depth = _box_scene(blur)
    mask = surface_mask(depth, 70.0, 10.0)
    flying = (depth > 2.05) & (depth < 4.9)
    assert not mask[flying].any()
    assert mask[:, :28].all()
    assert mask[:, 30 + blur + 2 :].all()


def test_a_steep_road_is_no_step():
    rows = np.arange(375)[:, None] + 0.5
    road = np.where(rows > 195, 1.65 * 721 / np.maximum(rows - 173, 1), 54.0) * np.ones((1, 200))
    assert not step_mask(road).any()
    assert surface_mask(road, 721.0, 10.0).all()


def test_mesh_does_not_span_a_depth_edge():
    frame = replace(_plane_frame(), depth=Depth(_box_scene(), DepthKind.METRIC))
    (mesh,) = mesh_from_depth([frame], 1, 1.0, CloudConfig(max_vertices=600))
    depth = transform(frame.view.cam_from_world, mesh.xyz)[:, 2]
    assert np.ptp(depth[mesh.faces], axis=1).max() < 1e-4
    assert set(np.round(depth)) == {2.0, 5.0}


def test_sky_is_cut_where_the_reconstruction_ends():
    values = np.full(HW, 5.0, np.float32)
    values[:30] = 80.0
    frame = PosedDepth(_plane_frame().rgb, Depth(values, DepthKind.METRIC), _view(depth=[4.0] * 60))
    cloud = cloud_from_depth([frame], 1, 1.0)
    assert transform(frame.view.cam_from_world, cloud.xyz)[:, 2].max() < 6


def test_no_depth_gives_an_empty_cloud_and_no_mesh(tmp_path):
    nothing = np.array([[0.0, np.nan]] * 2, np.float32)
    frame = PosedDepth(np.zeros((2, 2, 3), np.uint8), Depth(nothing, DepthKind.METRIC), _view())
    cloud = cloud_from_depth([frame], 1, 1.0)
    assert len(cloud.xyz) == 0
    assert mesh_from_depth([frame], 1, 1.0) == ()
    write_ply(tmp_path / "c.ply", cloud)
    write_glb(tmp_path / "c.glb", cloud, [_view()])
    assert list(trimesh.load(tmp_path / "c.glb").geometry) == ["cameras"]


def test_disparity_is_refused():
    with pytest.raises(DepthKindError, match="convert"):
        PosedDepth(np.zeros((*HW, 3), np.uint8), Depth(_box_scene(), DepthKind.AFFINE_DISPARITY), _view())


def test_ply_reads_back(tmp_path):
    cloud = cloud_from_depth([_plane_frame()], 1, 1.0)
    write_ply(tmp_path / "c.ply", cloud, metres_per_sfm_unit=2.0)
    read = trimesh.load(tmp_path / "c.ply")
    np.testing.assert_array_equal(read.vertices.astype(np.float32), 2 * cloud.xyz)
    np.testing.assert_array_equal(read.colors[:, :3], cloud.rgb)
    assert b"comment unit: metres" in (tmp_path / "c.ply").read_bytes()[:300]


def test_one_frustum_a_camera_at_its_place():
    views = [_view(i, _pose(0.1, (0.5 * i, 0, 0))) for i in range(5)]
    xyz, faces, rgb = frusta(views, size=0.1)
    assert len(faces) == 5 * FRUSTUM_FACES
    assert len(rgb) == len(xyz)
    assert len(np.unique(rgb, axis=0)) == 5
    for i, part in enumerate(np.split(xyz, 5)):
        assert np.linalg.norm(part - [0.5 * i, 0, 0], axis=1).max() < 0.15


def test_glb_has_points_and_cameras_in_gltf_axes(tmp_path):
    views = [_view(i, np.eye(4)) for i in range(2)]
    cloud = PointCloud(np.array([[1, 2, 3], [4, 5, 6]], np.float32), np.array([[255, 0, 0], [0, 255, 0]], np.uint8))
    write_glb(tmp_path / "c.glb", cloud, views)
    scene = trimesh.load(tmp_path / "c.glb")
    assert len(scene.geometry["cameras"].faces) == 2 * FRUSTUM_FACES
    pose, _ = scene.graph["points"]
    np.testing.assert_allclose(transform(pose, scene.geometry["points"].vertices), [[1, -2, -3], [4, -5, -6]])
    np.testing.assert_array_equal(scene.geometry["points"].colors[:, :3], cloud.rgb)
    write_glb(tmp_path / "c.glb", cloud, views, metres_per_sfm_unit=2.0)
    np.testing.assert_allclose(trimesh.load(tmp_path / "c.glb").graph["points"][0], np.diag([2, -2, -2, 1]) @ np.eye(4))


def test_glb_mesh_wears_its_picture_the_right_way_up(tmp_path):
    rgb = np.zeros((*HW, 3), np.uint8)
    rgb[:30] = (250, 0, 0)
    frame = replace(_plane_frame(pose=np.eye(4)), rgb=rgb)
    write_glb(tmp_path / "m.glb", mesh_from_depth([frame], 1, 1.0), [frame.view])
    mesh = trimesh.load(tmp_path / "m.glb").geometry["surface_000"]
    colours = mesh.visual.to_color().vertex_colors
    upper = mesh.vertices[:, 1] / mesh.vertices[:, 2] < -0.15  # y over z, in the axes of the camera
    assert colours[upper, 0].mean() > 200
    assert b"KHR_materials_unlit" in (tmp_path / "m.glb").read_bytes()


def test_glb_of_many_frames_stays_small(tmp_path):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (6, 8, 3), np.uint8).repeat(80, 0).repeat(80, 1)
    frames = [
        PosedDepth(np.roll(picture, i, axis=1), Depth(depth, DepthKind.METRIC), _view(i))
        for i, depth in enumerate(rng.uniform(2, 2.01, (8, 480, 640)).astype(np.float32))
    ]
    write_glb(tmp_path / "m.glb", mesh_from_depth(frames, 8, 1.0), [frame.view for frame in frames])
    assert 1e6 < (tmp_path / "m.glb").stat().st_size < 10e6


def test_the_world_is_levelled_by_the_cameras():
    tilt = np.eye(4)
    tilt[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    pose = gltf_from_world([_view(0, _pose() @ tilt)])
    down_in_world = np.linalg.inv(_pose() @ tilt)[:3, 1]
    np.testing.assert_allclose(pose[:3, :3] @ down_in_world, [0, -1, 0], atol=1e-9)
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)
