"""Depth maps with poses as coloured points and textured meshes, and the files that viewers open: PLY and GLB.

Positions stay in the axes of the reconstruction (OpenCV's, x right, y down, z forward); only `write_glb` turns them
into glTF's (y up). PLY files therefore lie over the COLMAP model that they come from.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image
from scipy.ndimage import maximum_filter

from sfmttr.errors import DepthKindError
from sfmttr.geometry import inverse_rigid, transform, unproject
from sfmttr.runs import atomic_file
from sfmttr.types import HW, Camera, Depth, DepthKind, SparseView

GLTF_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
"""glTF: x right, y up, z towards the viewer."""
FLAT_ALLOWANCE = 6.0
"""How much steeper than `CloudConfig.max_slope` a surface without steps may be seen."""
MAX_BEND = 0.15
"""Relative deviation of inverse depth from a straight line, over a fiftieth of the image, that passes for none."""


@dataclass(frozen=True)
class CloudConfig:
    """What of the depth maps becomes geometry."""

    max_points: int = 400_000
    """Points of a cloud, over all frames."""
    max_vertices: int = 120_000
    """Vertices of a mesh, over all frames."""
    texture_long_side: int = 1024
    """Pictures on meshes are at most this wide or high."""
    far_percentile: float = 90.0
    """Percentile of depth, of the reconstruction's own points where there are enough, from which "far" is counted."""
    far_factor: float = 1.5
    """Depth beyond this many times that percentile is cut: sky and haze. A room loses nothing by it."""
    max_slope: float = 10.0
    """Depth changing faster than this, against the width of a pixel at that depth, is an edge and no surface. A wall
    seen under an angle of 6 degrees has a slope of 10."""


@dataclass(frozen=True)
class PosedDepth:
    """One frame: picture, depth and where the camera was."""

    rgb: np.ndarray
    """(H, W, 3) uint8."""
    depth: Depth
    """(H, W); 0 or NaN where there is none."""
    view: SparseView
    """Camera and pose in SfM units; the camera may be of another size than the picture."""

    def __post_init__(self) -> None:
        if self.rgb.shape[:2] != self.depth.values.shape:
            raise ValueError(f"{self.rgb.shape=} {self.depth.values.shape=} do not agree")
        if self.depth.kind is DepthKind.AFFINE_DISPARITY:
            raise DepthKindError("a cloud needs depth and this is affine disparity; convert it first")

    @property
    def camera(self) -> Camera:
        return self.view.camera.scaled_to(self.depth.values.shape)


@dataclass(frozen=True)
class PointCloud:
    """Coloured points."""

    xyz: np.ndarray
    """(N, 3) float32, in the world of the reconstruction."""
    rgb: np.ndarray
    """(N, 3) uint8, sRGB."""


@dataclass(frozen=True)
class DepthMesh:
    """One frame's depth as a surface that wears the frame's picture."""

    xyz: np.ndarray
    """(V, 3) float32, in the world of the reconstruction."""
    faces: np.ndarray
    """(F, 3) int64, rows of `xyz`; their front is towards the camera."""
    uv: np.ndarray
    """(V, 2) float32 in [0, 1], from the picture's top-left corner."""
    texture: np.ndarray
    """(h, w, 3) uint8."""


# ---------------------------------------------------------------------------------------- geometry


def surface_mask(depth: np.ndarray, focal_px: float, max_slope: float) -> np.ndarray:
    """(H, W) bool: pixels with depth, away from depth edges. `depth` (H, W), 0 or NaN for none.

    Networks smear depth across edges; such pixels fly between foreground and background. The jump to a neighbour is
    judged relative to depth and in units of the pixel's width there (|dz| / z * focal), which is the tangent of the
    angle under which a surface would be seen: the same test at any resolution, scale and distance. A road far away
    is steeper than that, but no step; hence places without steps get `FLAT_ALLOWANCE` times as much.
    """
    has_depth = np.isfinite(depth) & (depth > 0)
    log_depth = np.log(np.where(has_depth, depth, 1.0))
    steepest = np.zeros(depth.shape)
    for axis in (0, 1):
        both = _first(has_depth, axis) & _last(has_depth, axis)
        slope = np.where(both, np.abs(np.diff(log_depth, axis=axis)), 0) * focal_px
        np.maximum(_first(steepest, axis), slope, out=_first(steepest, axis))
        np.maximum(_last(steepest, axis), slope, out=_last(steepest, axis))
    return has_depth & (steepest <= max_slope * np.where(step_mask(depth), 1, FLAT_ALLOWANCE))


def step_mask(depth: np.ndarray) -> np.ndarray:
    """(H, W) bool: near a step of depth, sharp or smeared; neither planes, at any angle, nor creases are steps."""
    has_depth = np.isfinite(depth) & (depth > 0)
    inverse = 1 / np.where(has_depth, depth, 1.0)
    radius = max(2, round(max(depth.shape) / 100))
    up, down = np.zeros(depth.shape, bool), np.zeros(depth.shape, bool)
    # Transposed views instead of two axes: what is written to one is written to the other.
    for values, known, ups, downs in ((inverse, has_depth, up, down), (inverse.T, has_depth.T, up.T, down.T)):
        before, here, after = slice(None, -2 * radius), slice(radius, -radius), slice(2 * radius, None)
        all_known = known[before] & known[here] & known[after]
        # A plane's inverse depth is linear in the pixel: what is left of it is bend.
        bend = np.where(all_known, (values[before] + values[after]) / values[here] - 2, 0)
        ups[here] |= bend > MAX_BEND
        downs[here] |= bend < -MAX_BEND
    # A step bends one way at its top and the other way at its foot; a crease bends one way only.
    return maximum_filter(up, 2 * radius + 1) & maximum_filter(down, 2 * radius + 1)


def _first(array: np.ndarray, axis: int) -> np.ndarray:
    """All but the last row (axis 0) or column (axis 1)."""
    return array[:-1] if axis == 0 else array[:, :-1]


def _last(array: np.ndarray, axis: int) -> np.ndarray:
    """All but the first row (axis 0) or column (axis 1)."""
    return array[1:] if axis == 0 else array[:, 1:]


def _grid(hw: HW, budget: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of a regular grid of at most `budget` pixels, at least 2 x 2, over the whole image."""
    stride = max(1.0, np.sqrt(hw[0] * hw[1] / max(budget, 4)))
    rows, columns = (max(2, int(size / stride)) for size in hw)
    y, x = np.linspace(0, hw[0] - 1, rows), np.linspace(0, hw[1] - 1, columns)
    return np.rint(y).astype(int), np.rint(x).astype(int)


def far_limit(frame: PosedDepth, scale: float, config: CloudConfig) -> float:
    """Depth (SfM units) beyond which `frame` is not shown.

    The reconstruction has no points in the sky, whereas a network has to put it somewhere: where the frame has enough
    points they say what is far.
    """
    values = frame.depth.values
    has_depth = np.isfinite(values) & (values > 0)
    if not has_depth.any():
        return 0.0
    far = float(np.percentile(values[has_depth], config.far_percentile)) * scale
    if len(frame.view.depth) >= 50:
        far = min(far, float(np.percentile(frame.view.depth, config.far_percentile)))
    return far * config.far_factor


def _world_points(frame: PosedDepth, y: np.ndarray, x: np.ndarray, scale: float) -> np.ndarray:
    """(N, 3) float32 in the world, of the pixels in rows `y` (N,) and columns `x` (N,)."""
    xy_px = np.stack([x, y], axis=1) + 0.5
    xyz_in_cam = unproject(frame.camera, xy_px, frame.depth.values[y, x] * scale)
    return transform(inverse_rigid(frame.view.cam_from_world), xyz_in_cam).astype(np.float32)


def cloud_from_depth(
    frames: Iterable[PosedDepth], count: int, sfm_units_per_depth: float, config: CloudConfig | None = None
) -> PointCloud:
    """Points of all `frames` (`count` of them; read one at a time), in SfM units.

    `sfm_units_per_depth`: what the depth maps are multiplied by. The result has at most `config.max_points` points.
    """
    config = config or CloudConfig()
    parts = [_frame_points(frame, config.max_points // max(count, 1), sfm_units_per_depth, config) for frame in frames]
    if not parts:
        return PointCloud(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8))
    xyz, rgb = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return PointCloud(xyz[: config.max_points], rgb[: config.max_points])


def _frame_points(frame: PosedDepth, budget: int, scale: float, config: CloudConfig) -> tuple[np.ndarray, np.ndarray]:
    """Positions and colours of one frame's points."""
    depth = frame.depth.values
    far = far_limit(frame, scale, config)
    keep = surface_mask(depth, frame.camera.fx, config.max_slope) & (depth * scale <= far)
    rows, columns = _grid(keep.shape, budget)
    y, x = (axis.ravel() for axis in np.meshgrid(rows, columns, indexing="ij"))
    chosen = keep[y, x]
    y, x = y[chosen], x[chosen]
    return _world_points(frame, y, x, scale), frame.rgb[y, x]


def mesh_from_depth(
    frames: Iterable[PosedDepth], count: int, sfm_units_per_depth: float, config: CloudConfig | None = None
) -> tuple[DepthMesh, ...]:
    """One surface a frame (`count` frames, read one at a time), in SfM units; frames that show none are left out.

    Viewers draw points one pixel wide, which is faint: this is what to show people. A handful of frames, spread over
    the clip, is enough; a GLB of a dozen stays below 10 MB.
    """
    config = config or CloudConfig()
    budget = config.max_vertices // max(count, 1)
    meshes = (_frame_mesh(frame, budget, sfm_units_per_depth, config) for frame in frames)
    return tuple(mesh for mesh in meshes if len(mesh.faces))


def _frame_mesh(frame: PosedDepth, budget: int, scale: float, config: CloudConfig) -> DepthMesh:
    """A triangulated grid over the frame, without the triangles that would span a depth edge."""
    depth = frame.depth.values
    rows, columns = _grid(depth.shape, budget)
    keep = surface_mask(depth, frame.camera.fx, config.max_slope) & (depth * scale <= far_limit(frame, scale, config))
    limit = config.max_slope * np.diff(columns).mean() / frame.camera.fx * np.where(step_mask(depth), 1, FLAT_ALLOWANCE)
    grid = np.ix_(rows, columns)
    faces = _grid_faces(depth[grid], keep[grid], limit[grid])
    y, x = (axis.ravel() for axis in np.meshgrid(rows, columns, indexing="ij"))
    used, faces = np.unique(faces, return_inverse=True)
    y, x = y[used], x[used]
    uv = ((np.stack([x, y], axis=1) + 0.5) / [depth.shape[1], depth.shape[0]]).astype(np.float32)
    texture = _texture(frame.rgb, config.texture_long_side)
    return DepthMesh(_world_points(frame, y, x, scale), faces.reshape(-1, 3), uv, texture)


def _grid_faces(depth: np.ndarray, keep: np.ndarray, max_log_jump: np.ndarray) -> np.ndarray:
    """(F, 3) triangles over the grid `depth` (h, w), with corners that are kept and differ little in log depth."""
    log_depth = np.log(np.where(keep, depth, 1.0)).ravel()
    index = np.arange(depth.size).reshape(depth.shape)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    # Counter-clockwise as the camera sees them (y down), so that their front is what the camera saw.
    faces = np.concatenate([np.stack(corners, axis=-1).reshape(-1, 3) for corners in ((a, c, b), (b, c, d))])
    jump = np.ptp(log_depth[faces], axis=1)
    return faces[keep.ravel()[faces].all(axis=1) & (jump <= max_log_jump.ravel()[faces].min(axis=1))]


def _texture(rgb: np.ndarray, long_side: int) -> np.ndarray:
    """`rgb`, reduced so that its longer side is at most `long_side`."""
    image = Image.fromarray(rgb)
    image.thumbnail((long_side, long_side), Image.Resampling.LANCZOS)
    return np.asarray(image)


# ----------------------------------------------------------------------------------------- cameras

FRUSTUM_FACES = 8 * 6
"""Triangles of one frustum: eight bars with three sides each."""


def frusta(views: Sequence[SparseView], size: float | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bars along the edges of every view's frustum: vertices (V, 3), faces (F, 3), colours (V, 3) uint8 along the path.

    Bars, because viewers draw lines one pixel wide. `size`: distance of the frustum's base from the camera, SfM units.
    """
    size = frustum_size(views) if size is None else size
    colours = matplotlib.colormaps["plasma"](np.linspace(0.05, 0.9, max(len(views), 1)), bytes=True)[:, :3]
    bars = [_frustum_bars(view, size) for view in views]
    vertices = np.concatenate([xyz for xyz, _ in bars])
    faces = np.concatenate([faces + i * len(bars[0][0]) for i, (_, faces) in enumerate(bars)])
    return vertices, faces, np.repeat(colours, len(bars[0][0]), axis=0)


def frustum_size(views: Sequence[SparseView]) -> float:
    """A size that shows the path: about a step of the camera, within 1 to 6 % of the distance of what it sees."""
    centres = _centres(views)
    seen = np.concatenate([view.depth for view in views])
    extent = float(np.linalg.norm(np.ptp(centres, axis=0))) or 1.0
    distance = float(np.median(seen)) if len(seen) else extent
    step = float(np.median(np.linalg.norm(np.diff(centres, axis=0), axis=1))) if len(views) > 1 else distance
    return float(np.clip(step, 0.01 * distance, 0.06 * distance))


def _centres(views: Sequence[SparseView]) -> np.ndarray:
    """(N, 3) camera centres in the world."""
    return np.stack([inverse_rigid(view.cam_from_world)[:3, 3] for view in views])


def _frustum_bars(view: SparseView, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (48, 3) in the world and faces (48, 3) of one frustum."""
    height, width = view.camera.hw
    corners_px = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    corners = unproject(view.camera, corners_px, np.full(4, size))
    starts = np.concatenate([np.zeros((4, 3)), corners])
    ends = np.concatenate([corners, np.roll(corners, -1, axis=0)])
    bars = [_bar(start, end, 0.02 * size) for start, end in zip(starts, ends, strict=True)]
    xyz = transform(inverse_rigid(view.cam_from_world), np.concatenate([vertices for vertices, _ in bars]))
    return xyz, np.concatenate([faces + 6 * i for i, (_, faces) in enumerate(bars)])


def _bar(start: np.ndarray, end: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """A three-sided bar: vertices (6, 3), faces (6, 3)."""
    along = (end - start) / max(float(np.linalg.norm(end - start)), 1e-12)
    aside = np.cross(along, np.eye(3)[np.argmin(np.abs(along))])
    aside /= np.linalg.norm(aside)
    turns = np.arange(3) * 2 * np.pi / 3
    ring = radius * (np.outer(np.cos(turns), aside) + np.outer(np.sin(turns), np.cross(along, aside)))
    sides = [[[i, (i + 1) % 3, i + 3], [(i + 1) % 3, (i + 1) % 3 + 3, i + 3]] for i in range(3)]
    return np.concatenate([start + ring, end + ring]), np.array(sides).reshape(-1, 3)


# ------------------------------------------------------------------------------------------- files


def write_ply(path: Path, cloud: PointCloud, metres_per_sfm_unit: float | None = None) -> None:
    """Write a binary little-endian PLY in the axes of the reconstruction, atomically; in metres when they are known."""
    unit = "SfM units" if metres_per_sfm_unit is None else "metres"
    row = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])
    rows = np.empty(len(cloud.xyz), row)
    rows["xyz"], rows["rgb"] = cloud.xyz * (metres_per_sfm_unit or 1.0), cloud.rgb
    names = [f"property float {axis}" for axis in "xyz"] + [f"property uchar {c}" for c in ("red", "green", "blue")]
    comments = ["comment sfmttr; axes: x right, y down, z forward", f"comment unit: {unit}"]
    head = ["ply", "format binary_little_endian 1.0", *comments, f"element vertex {len(rows)}", *names, "end_header"]
    with atomic_file(path) as part, part.open("wb") as file:
        file.write("\n".join([*head, ""]).encode("ascii"))
        file.write(rows.tobytes())


def gltf_from_world(views: Sequence[SparseView]) -> np.ndarray:
    """(4, 4): glTF's axes with the cameras' mean "down" pointing down and the first camera looking along -z, at 0.

    A reconstruction's own axes are those of some frame, tilted as the hand was.
    """
    world_from_cams = [inverse_rigid(view.cam_from_world) for view in views]
    down = np.mean([pose[:3, 1] for pose in world_from_cams], axis=0)
    right = np.cross(down, world_from_cams[0][:3, 2])
    if min(np.linalg.norm(down), np.linalg.norm(right)) < 1e-3:  # straight down, or cameras turned all ways
        return GLTF_FROM_OPENCV @ views[0].cam_from_world
    axes = np.stack([right, down, np.cross(right, down)])
    level_from_world = np.eye(4)
    level_from_world[:3, :3] = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    level_from_world[:3, 3] = -level_from_world[:3, :3] @ world_from_cams[0][:3, 3]
    return GLTF_FROM_OPENCV @ level_from_world


def write_glb(
    path: Path,
    content: PointCloud | Sequence[DepthMesh],
    views: Sequence[SparseView],
    metres_per_sfm_unit: float | None = None,
) -> None:
    """Write points or meshes, with the cameras of `views`, as one GLB, level and in glTF's axes, atomically.

    glTF's unit is the metre: give `metres_per_sfm_unit` when it is known.
    """
    import trimesh  # takes most of a second, which nothing waits for here

    scene = trimesh.Scene()
    size = metres_per_sfm_unit or 1.0
    pose = np.diag([size, size, size, 1.0]) @ (gltf_from_world(views) if views else GLTF_FROM_OPENCV)
    for name, geometry in _geometries(content):
        scene.add_geometry(geometry, node_name=name, geom_name=name, transform=pose)
    if views:
        xyz, faces, rgb = frusta(views)
        cameras = trimesh.Trimesh(xyz, faces, vertex_colors=_linear_rgba(rgb), process=False)
        scene.add_geometry(cameras, node_name="cameras", geom_name="cameras", transform=pose)
    data = scene.export(file_type="glb", include_normals=False, tree_postprocessor=_unlit)
    with atomic_file(path) as part:
        part.write_bytes(data)


def _geometries(content: PointCloud | Sequence[DepthMesh]) -> Iterator[tuple[str, Any]]:
    """Name and trimesh geometry of all that is shown but the cameras."""
    import trimesh
    from trimesh.visual.material import PBRMaterial
    from trimesh.visual.texture import TextureVisuals

    if isinstance(content, PointCloud):
        if len(content.xyz):
            yield "points", trimesh.PointCloud(content.xyz, colors=_linear_rgba(content.rgb))
        return
    for i, mesh in enumerate(content):
        material = PBRMaterial(baseColorTexture=_as_jpeg(mesh.texture), doubleSided=True)
        # trimesh counts v from the bottom and turns it over when it writes.
        visual = TextureVisuals(uv=mesh.uv * [1, -1] + [0, 1], material=material)
        yield f"surface_{i:03d}", trimesh.Trimesh(mesh.xyz, mesh.faces, visual=visual, process=False)


def _as_jpeg(rgb: np.ndarray) -> Image.Image:
    """The picture as one that trimesh embeds as JPEG, a tenth of PNG's size."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="JPEG", quality=88)
    return Image.open(buffer)


def _linear_rgba(rgb: np.ndarray) -> np.ndarray:
    """(N, 4) uint8: glTF's vertex colours are linear light, and pictures are sRGB."""
    value = rgb.astype(np.float64) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    opaque = np.full((len(rgb), 1), 255)
    return np.concatenate([np.rint(linear * 255), opaque], axis=1).astype(np.uint8)


def _unlit(tree: dict[str, Any]) -> None:
    """Make every material show its colours as they are: photographs have their light in them."""
    tree["extensionsUsed"] = sorted({*tree.get("extensionsUsed", []), "KHR_materials_unlit"})
    materials = tree.setdefault("materials", [])
    plain = len(materials)
    materials.append({"name": "vertex colours", "doubleSided": True})
    for material in materials:
        material.setdefault("extensions", {})["KHR_materials_unlit"] = {}
    for mesh in tree["meshes"]:
        for primitive in mesh["primitives"]:
            primitive.setdefault("material", plain)
