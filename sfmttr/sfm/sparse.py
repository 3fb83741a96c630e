"""Conversion of COLMAP arrays to cameras, filtered observations and points, independent of pycolmap."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sfmttr.errors import ReconstructionError
from sfmttr.geometry import inverse_rigid, project, transform
from sfmttr.sfm.protocol import RawModel
from sfmttr.types import HW, Camera, FrameSet, SparsePoints, SparseView

_ASPECT_TOLERANCE = 0.01
_MAX_RAYS = 64
"""Maximum number of rays, evenly spread over the track, from which the largest angle is computed."""

# COLMAP's parameters of each supported camera model, named as the fields of `Camera`; "f" is both focal lengths.
_PARAMETERS = {
    "SIMPLE_PINHOLE": ("f", "cx", "cy"),
    "PINHOLE": ("fx", "fy", "cx", "cy"),
    "SIMPLE_RADIAL": ("f", "cx", "cy", "k1"),
    "RADIAL": ("f", "cx", "cy", "k1", "k2"),
    "OPENCV": ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2"),
}


@dataclass(frozen=True)
class Sparse:
    """Views and points of a model, without its health card."""

    views: tuple[SparseView, ...]
    points: SparsePoints


def camera_from_colmap(model: str, params: np.ndarray, hw: HW) -> Camera:
    """Convert a COLMAP camera to `Camera`. Raises `ReconstructionError` for unsupported models and invalid values."""
    if model not in _PARAMETERS:
        raise ReconstructionError(
            f"The camera model {model} is not supported; undistort the images or use one of {', '.join(_PARAMETERS)}."
        )
    names = _PARAMETERS[model]
    values = {name: float(value) for name, value in zip(names, params, strict=False)}
    if "f" in values:
        values["fx"] = values["fy"] = values.pop("f")
    if min(hw) < 1 or not all(math.isfinite(each) for each in values.values()) or min(values["fx"], values["fy"]) <= 0:
        raise ReconstructionError(f"The model has an invalid camera: {hw[1]} x {hw[0]} pixels, {values}.")
    return Camera(hw, **values)


def camera_to_colmap(camera: Camera) -> tuple[str, tuple[float, ...]]:
    """Return the simplest COLMAP camera model that represents `camera`, and its parameters."""
    name = "OPENCV" if any((camera.k1, camera.k2, camera.p1, camera.p2)) else "PINHOLE"
    return name, tuple(getattr(camera, parameter) for parameter in _PARAMETERS[name])


def sparse_from_raw(raw: RawModel, frame_of_image: np.ndarray, frames: FrameSet) -> Sparse:
    """Convert `raw` to the size of the stored frames; `frame_of_image` (V,) is each image's frame, -1 for none.

    Observations behind the camera or outside the image are dropped, then points without observations. Raises
    `ReconstructionError` for an image without a valid pose or a camera that does not fit the frames.
    """
    xy_px, depth, error_px = (
        np.full(s, np.nan) for s in ((len(raw.obs_point), 2), len(raw.obs_point), len(raw.obs_point))
    )
    cameras: dict[int, Camera] = {}
    for image, (frame, rows) in enumerate(
        zip(frame_of_image, _rows_by(raw.obs_image, len(raw.image_name)), strict=True)
    ):
        if frame < 0:
            continue
        if not _is_pose(raw.cam_from_world[image]):
            raise ReconstructionError(f"The model has no pose for its image {raw.image_name[image]}.")
        camera, scale = _camera_at(raw, int(raw.image_camera[image]), frames.hw)
        cameras[image] = camera
        xyz_in_cam = transform(raw.cam_from_world[image], raw.xyz_in_world[raw.obs_point[rows]])
        xy_px[rows], depth[rows] = raw.obs_xy_px[rows] * scale, xyz_in_cam[:, 2]
        # Points behind the camera are dropped below; any positive depth keeps their projection finite.
        in_front = np.concatenate([xyz_in_cam[:, :2], np.maximum(xyz_in_cam[:, 2:], 1e-9)], axis=1)
        error_px[rows] = np.linalg.norm(project(camera, in_front) - xy_px[rows], axis=1)
    with np.errstate(invalid="ignore"):
        inside = (xy_px >= 0).all(axis=1) & (xy_px < [frames.hw[1], frames.hw[0]]).all(axis=1)
        keep = inside & (depth > 0) & np.isfinite(depth) & np.isfinite(error_px)
    kept_points, point = np.unique(raw.obs_point[keep], return_inverse=True)
    image_of = raw.obs_image[keep]
    views = _views(raw, frame_of_image, cameras, image_of, xy_px[keep], depth[keep], point)
    track = np.bincount(point, minlength=len(kept_points))
    centres = np.array([inverse_rigid(pose)[:3, 3] for pose in raw.cam_from_world]).reshape(-1, 3)
    xyz = raw.xyz_in_world[kept_points]
    points = SparsePoints(
        xyz_in_world=xyz,
        rgb=raw.rgb[kept_points],
        error_px=(np.bincount(point, error_px[keep], len(kept_points)) / np.maximum(track, 1)).astype(np.float32),
        track_length=track.astype(np.int32),
        triangulation_angle_deg=largest_angles_deg(xyz, centres[image_of], point),
    )
    return Sparse(views, points)


def _views(
    raw: RawModel,
    frame_of_image: np.ndarray,
    cameras: dict[int, Camera],
    image_of: np.ndarray,
    xy_px: np.ndarray,
    depth: np.ndarray,
    point: np.ndarray,
) -> tuple[SparseView, ...]:
    views = []
    for image, rows in enumerate(_rows_by(image_of, len(raw.image_name))):
        if image in cameras:
            views.append(
                SparseView(
                    frame=int(frame_of_image[image]),
                    camera=cameras[image],
                    cam_from_world=raw.cam_from_world[image],
                    xy_px=xy_px[rows].astype(np.float32),
                    depth=depth[rows].astype(np.float32),
                    point=point[rows].astype(np.int64),
                )
            )
    return tuple(sorted(views, key=lambda view: view.frame))


def _rows_by(key: np.ndarray, count: int) -> list[np.ndarray]:
    """Return the rows of each of `count` keys."""
    order = np.argsort(key, kind="stable")
    return np.split(order, np.searchsorted(key[order], np.arange(1, count)))


def _is_pose(cam_from_world: np.ndarray) -> bool:
    """Return whether (4, 4) is a finite rigid transform."""
    rotation = cam_from_world[:3, :3]
    return bool(np.isfinite(cam_from_world).all() and np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-4))


def _camera_at(raw: RawModel, camera: int, hw: HW) -> tuple[Camera, np.ndarray]:
    """Return the camera scaled to the stored frames, and the (x, y) factors of its pixel coordinates."""
    own = raw.hw(camera)
    found = camera_from_colmap(str(raw.camera_model[camera]), raw.camera_params[camera], own)
    if abs(own[1] / own[0] / (hw[1] / hw[0]) - 1) > _ASPECT_TOLERANCE:
        raise ReconstructionError(
            f"The model is of images of {own[1]} x {own[0]} pixels, the frames have another aspect ({hw[1]} x {hw[0]})."
        )
    return found.scaled_to(hw), np.array([hw[1] / own[1], hw[0] / own[0]])


def largest_angles_deg(xyz: np.ndarray, centres: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Return the largest angle between two rays of each point, (P,) float32, in degrees.

    `xyz` (P, 3) are the points; `centres` (M, 3) and `point` (M,) give camera center and point of each observation.
    """
    angles = np.zeros(len(xyz), np.float32)
    order = np.argsort(point, kind="stable")
    counts = np.bincount(point, minlength=len(xyz))
    starts = np.cumsum(counts) - counts
    rays = centres - xyz[point]
    rays /= np.maximum(np.linalg.norm(rays, axis=1, keepdims=True), 1e-12)
    for length in np.unique(counts[counts > 0]):  # all tracks of one length at once, vectorized
        chosen = np.flatnonzero(counts == length)
        picked = np.unique(np.linspace(0, length - 1, min(length, _MAX_RAYS)).astype(int))
        bundle = rays[order[starts[chosen, None] + picked]]
        # In chunks of about 4 million cosines, to bound memory: long clips have many tracks of one length.
        for piece in np.array_split(np.arange(len(chosen)), 1 + len(chosen) * len(picked) ** 2 // 4_000_000):
            cosines = np.einsum("nai,nbi->nab", bundle[piece], bundle[piece]).reshape(len(piece), -1)
            angles[chosen[piece]] = np.degrees(np.arccos(np.clip(cosines.min(axis=1), -1, 1)))
    return angles
