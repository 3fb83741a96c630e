"""Textured meshes from depth maps with poses, and GLB files of meshes or points with the cameras.

Only `write_glb` changes axes: from those of the reconstruction (OpenCV's) to glTF's (y up).
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

from sfmttr.geometry import inverse_rigid, transform, unproject
from sfmttr.io.atomic import atomic_file
from sfmttr.io.clouds import (
    FLAT_ALLOWANCE,
    CloudConfig,
    PointCloud,
    PosedDepth,
    far_limit,
    pixel_grid,
    step_mask,
    surface_mask,
    world_points,
)
from sfmttr.types import SparseView

GLTF_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
"""Axes of glTF: x right, y up, z towards the viewer."""


@dataclass(frozen=True)
class DepthMesh:
    """Depth of one frame as a surface, textured with the frame."""

    xyz: np.ndarray
    """(V, 3) float32, in the world of the reconstruction."""
    faces: np.ndarray
    """(F, 3) int64, rows of `xyz`; front faces look at the camera."""
    uv: np.ndarray
    """(V, 2) float32 in [0, 1], from the picture's top-left corner."""
    texture: np.ndarray
    """(h, w, 3) uint8."""


def mesh_from_depth(
    frames: Iterable[PosedDepth], count: int, sfm_units_per_depth: float, config: CloudConfig | None = None
) -> tuple[DepthMesh, ...]:
    """Return one surface per frame (`count` frames, read one at a time), in SfM units; empty surfaces are omitted.

    Viewers draw points one pixel wide, which is faint; surfaces show better. A few frames spread over the clip are
    enough; a GLB of a dozen stays below 10 MB.
    """
    config = config or CloudConfig()
    budget = config.max_vertices // max(count, 1)
    meshes = (_frame_mesh(frame, budget, sfm_units_per_depth, config) for frame in frames)
    return tuple(mesh for mesh in meshes if len(mesh.faces))


def _frame_mesh(frame: PosedDepth, budget: int, scale: float, config: CloudConfig) -> DepthMesh:
    """Return a triangulated grid over the frame, without the triangles that would span a depth edge."""
    depth = frame.depth.values
    rows, columns = pixel_grid(depth.shape, budget)
    keep = surface_mask(depth, frame.camera.fx, config.max_slope) & (depth * scale <= far_limit(frame, scale, config))
    limit = config.max_slope * np.diff(columns).mean() / frame.camera.fx * np.where(step_mask(depth), 1, FLAT_ALLOWANCE)
    grid = np.ix_(rows, columns)
    faces = _grid_faces(depth[grid], keep[grid], limit[grid])
    y, x = (axis.ravel() for axis in np.meshgrid(rows, columns, indexing="ij"))
    used, faces = np.unique(faces, return_inverse=True)
    y, x = y[used], x[used]
    uv = ((np.stack([x, y], axis=1) + 0.5) / [depth.shape[1], depth.shape[0]]).astype(np.float32)
    texture = _texture(frame.rgb, config.texture_long_side)
    return DepthMesh(world_points(frame, y, x, scale), faces.reshape(-1, 3), uv, texture)


def _grid_faces(depth: np.ndarray, keep: np.ndarray, max_log_jump: np.ndarray) -> np.ndarray:
    """Return triangles (F, 3) over the grid `depth` (h, w) whose corners are kept and differ little in log depth."""
    log_depth = np.log(np.where(keep, depth, 1.0)).ravel()
    index = np.arange(depth.size).reshape(depth.shape)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    # Counter-clockwise as the camera sees them (y down), so that their front faces the camera.
    faces = np.concatenate([np.stack(corners, axis=-1).reshape(-1, 3) for corners in ((a, c, b), (b, c, d))])
    jump = np.ptp(log_depth[faces], axis=1)
    return faces[keep.ravel()[faces].all(axis=1) & (jump <= max_log_jump.ravel()[faces].min(axis=1))]


def _texture(rgb: np.ndarray, long_side: int) -> np.ndarray:
    """Return `rgb`, reduced so that its longer side is at most `long_side`."""
    image = Image.fromarray(rgb)
    image.thumbnail((long_side, long_side), Image.Resampling.LANCZOS)
    return np.asarray(image)


FRUSTUM_FACES = 8 * 6
"""Triangles of one frustum: eight bars with three sides of two triangles."""


def frusta(views: Sequence[SparseView], size: float | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return bars along the edges of every view's frustum: vertices (V, 3), faces (F, 3), colors (V, 3) uint8.

    Bars, because viewers draw lines one pixel wide; colors run along the path. `size`: distance of the frustum's base
    from the camera, SfM units.
    """
    size = frustum_size(views) if size is None else size
    colors = matplotlib.colormaps["plasma"](np.linspace(0.05, 0.9, max(len(views), 1)), bytes=True)[:, :3]
    bars = [_frustum_bars(view, size) for view in views]
    vertices = np.concatenate([xyz for xyz, _ in bars])
    faces = np.concatenate([faces + i * len(bars[0][0]) for i, (_, faces) in enumerate(bars)])
    return vertices, faces, np.repeat(colors, len(bars[0][0]), axis=0)


def frustum_size(views: Sequence[SparseView]) -> float:
    """Return a size that shows the path: about one step of the camera, 1 to 6 % of the distance to the points."""
    centers = _centers(views)
    seen = np.concatenate([view.depth for view in views])
    extent = float(np.linalg.norm(np.ptp(centers, axis=0))) or 1.0
    distance = float(np.median(seen)) if len(seen) else extent
    step = float(np.median(np.linalg.norm(np.diff(centers, axis=0), axis=1))) if len(views) > 1 else distance
    return float(np.clip(step, 0.01 * distance, 0.06 * distance))


def _centers(views: Sequence[SparseView]) -> np.ndarray:
    """Return the camera centers (N, 3) in the world."""
    return np.stack([inverse_rigid(view.cam_from_world)[:3, 3] for view in views])


def _frustum_bars(view: SparseView, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices (48, 3) in the world and faces (48, 3) of one frustum."""
    height, width = view.camera.hw
    corners_px = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    corners = unproject(view.camera, corners_px, np.full(4, size))
    starts = np.concatenate([np.zeros((4, 3)), corners])
    ends = np.concatenate([corners, np.roll(corners, -1, axis=0)])
    bars = [_bar(start, end, 0.02 * size) for start, end in zip(starts, ends, strict=True)]
    xyz = transform(inverse_rigid(view.cam_from_world), np.concatenate([vertices for vertices, _ in bars]))
    return xyz, np.concatenate([faces + 6 * i for i, (_, faces) in enumerate(bars)])


def _bar(start: np.ndarray, end: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a three-sided bar: vertices (6, 3), faces (6, 3)."""
    along = (end - start) / max(float(np.linalg.norm(end - start)), 1e-12)
    aside = np.cross(along, np.eye(3)[np.argmin(np.abs(along))])
    aside /= np.linalg.norm(aside)
    turns = np.arange(3) * 2 * np.pi / 3
    ring = radius * (np.outer(np.cos(turns), aside) + np.outer(np.sin(turns), np.cross(along, aside)))
    sides = [[[i, (i + 1) % 3, i + 3], [(i + 1) % 3, (i + 1) % 3 + 3, i + 3]] for i in range(3)]
    return np.concatenate([start + ring, end + ring]), np.array(sides).reshape(-1, 3)


def gltf_from_world(views: Sequence[SparseView]) -> np.ndarray:
    """Return the (4, 4) transform to glTF's axes: the cameras' mean down is -y; the first camera is at 0, looks to -z.

    The axes of a reconstruction are those of some frame, tilted as the camera was held.
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
    import trimesh  # takes most of a second to import

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
    """Yield name and trimesh geometry of points or meshes."""
    import trimesh
    from trimesh.visual.material import PBRMaterial
    from trimesh.visual.texture import TextureVisuals

    if isinstance(content, PointCloud):
        if len(content.xyz):
            yield "points", trimesh.PointCloud(content.xyz, colors=_linear_rgba(content.rgb))
        return
    for i, mesh in enumerate(content):
        material = PBRMaterial(baseColorTexture=_as_jpeg(mesh.texture), doubleSided=True)
        # trimesh counts v from the bottom and flips it when it writes.
        visual = TextureVisuals(uv=mesh.uv * [1, -1] + [0, 1], material=material)
        yield f"surface_{i:03d}", trimesh.Trimesh(mesh.xyz, mesh.faces, visual=visual, process=False)


def _as_jpeg(rgb: np.ndarray) -> Image.Image:
    """Return the picture as a JPEG image, which trimesh embeds as it is: a tenth of the size of PNG."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, format="JPEG", quality=88)
    return Image.open(buffer)


def _linear_rgba(rgb: np.ndarray) -> np.ndarray:
    """Return (N, 4) uint8 in linear light, as vertex colors of glTF are; pictures are sRGB."""
    value = rgb.astype(np.float64) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    opaque = np.full((len(rgb), 1), 255)
    return np.concatenate([np.rint(linear * 255), opaque], axis=1).astype(np.uint8)


def _unlit(tree: dict[str, Any]) -> None:
    """Make every material unlit: photographs have their light in them."""
    tree["extensionsUsed"] = sorted({*tree.get("extensionsUsed", []), "KHR_materials_unlit"})
    materials = tree.setdefault("materials", [])
    plain = len(materials)
    materials.append({"name": "vertex colours", "doubleSided": True})
    for material in materials:
        material.setdefault("extensions", {})["KHR_materials_unlit"] = {}
    for mesh in tree["meshes"]:
        for primitive in mesh["primitives"]:
            primitive.setdefault("material", plain)
