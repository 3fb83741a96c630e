"""COLMAP models: read, choose, convert to arrays. Runs in the worker process only."""

from __future__ import annotations

import numpy as np
import pycolmap

from sfmttr.sfm.protocol import RawModel


def largest(models: list[pycolmap.Reconstruction]) -> pycolmap.Reconstruction:
    """Return the model with the most images: the first one may have two images and the second all of them."""
    return max(models, key=lambda model: (model.num_reg_images(), model.num_points3D()))


def read_model(folder: str) -> pycolmap.Reconstruction:
    """Read a model in COLMAP's text or binary format. pycolmap raises ValueError, RuntimeError and others."""
    return pycolmap.Reconstruction(folder)


def raw_model(model: pycolmap.Reconstruction) -> RawModel:
    """Convert a pycolmap reconstruction to arrays."""
    images = sorted((im for im in model.images.values() if im.has_pose), key=lambda im: im.name)
    rows = {image.image_id: row for row, image in enumerate(images)}
    features = {image.image_id: image.points2D for image in images}
    cameras = {camera_id: row for row, camera_id in enumerate(sorted(model.cameras))}
    listed = [model.cameras[camera_id] for camera_id in cameras]
    points = [model.points3D[i] for i in sorted(model.points3D)]
    seen = [
        (rows[e.image_id], e.point2D_idx, row, *features[e.image_id][e.point2D_idx].xy)
        for row, point in enumerate(points)
        for e in point.track.elements
        if e.image_id in rows
    ]
    observations = np.array(seen, np.float64).reshape(-1, 5)
    poses = np.tile(np.eye(4), (len(images), 1, 1))
    params = np.full((len(listed), 12), np.nan)
    for row, image in enumerate(images):
        poses[row, :3] = image.cam_from_world().matrix()
    for row, camera in enumerate(listed):
        params[row, : len(camera.params)] = camera.params[:12]
    return RawModel(
        image_name=np.array([image.name for image in images], dtype=np.str_),
        image_camera=np.array([cameras[image.camera_id] for image in images], np.int64),
        cam_from_world=poses,
        camera_model=np.array([camera.model.name for camera in listed], dtype=np.str_),
        camera_params=params,
        camera_hw=np.array([(camera.height, camera.width) for camera in listed], np.int64).reshape(-1, 2),
        obs_image=observations[:, 0].astype(np.int64),
        obs_feature=observations[:, 1].astype(np.int64),
        obs_point=observations[:, 2].astype(np.int64),
        obs_xy_px=observations[:, 3:],
        xyz_in_world=np.array([point.xyz for point in points], np.float64).reshape(-1, 3),
        rgb=np.array([point.color for point in points], np.uint8).reshape(-1, 3),
    )
