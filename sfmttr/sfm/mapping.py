"""Mapping: from matches to a bundle-adjusted, colored model. Runs in the worker process only."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pycolmap
from PIL import Image

from sfmttr.sfm.database import DEGENERATE, VERIFIED, Report
from sfmttr.sfm.model_arrays import largest
from sfmttr.sfm.protocol import RawModel, SfmJob, SfmPhase

_MIN_MODEL_SIZE = 3
# With so few images, mapping on one thread is as fast, and leaves the other cores to the depth prediction.
_SERIAL_UP_TO_IMAGES = 120
_WIDE_ANGLE_DEG = 8.0
"""Triangulation angle beyond which an initial pair gains nothing."""
_ENOUGH_REGISTERED = 0.5
"""Share of the images with which a model is accepted."""


def incremental_options(job: SfmJob, names: list[str], runtime_s: float) -> pycolmap.IncrementalPipelineOptions:
    """Return COLMAP's options for incremental mapping of the images `names`."""
    settings = job.settings
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = job.seed
    serial = len(job.files) <= _SERIAL_UP_TO_IMAGES
    options.num_threads = options.mapper.num_threads = 1 if serial else job.threads
    options.image_names = names
    options.min_model_size = _MIN_MODEL_SIZE
    options.extract_colors = False  # `color_points` reads each image once, in parallel
    options.init_num_trials = settings.first_pair_trials
    options.max_runtime_seconds = max(1, round(runtime_s))
    options.ba_refine_focal_length = options.ba_refine_extra_params = not job.camera_fixed
    options.ba_global_frames_ratio = options.ba_global_points_ratio = settings.ba_ratio
    options.ba_global_max_refinements = settings.ba_refinements
    options.ba_global_max_num_iterations = settings.ba_iterations
    options.ba_local_max_num_iterations = settings.local_ba_iterations
    options.ba_local_max_refinements = 1
    options.mapper.abs_pose_refine_focal_length = not job.camera_fixed
    options.mapper.abs_pose_refine_extra_params = not job.camera_fixed
    options.mapper.init_max_forward_motion = settings.max_forward_motion
    options.mapper.init_min_tri_angle = settings.min_first_angle_deg
    options.mapper.filter_max_reproj_error = settings.max_error_px
    options.triangulation.merge_max_reproj_error = settings.max_error_px
    options.triangulation.complete_max_reproj_error = settings.max_error_px
    return options


def initial_pairs(job: SfmJob, names: list[str]) -> list[tuple[int, int]]:
    """Return image ids of initial pairs, best first; no image is in two of them.

    A good pair has many matches under a large triangulation angle, and is neither planar nor a pure rotation, for which
    relative pose is ambiguous.
    """
    mapped = set(names)
    with closing(pycolmap.Database.open(job.database)) as database:
        images = {image.image_id: image for image in database.read_all_images() if image.name in mapped}
        cameras = {camera.camera_id: camera for camera in database.read_all_cameras()}
        keypoints = {image_id: database.read_keypoints(image_id)[:, :2] for image_id in images}
        pair_ids, geometries = database.read_two_view_geometries()
    rated: list[tuple[bool, float, tuple[int, int]]] = []
    for pair_id, geometry in zip(pair_ids, geometries, strict=True):
        first, second = pycolmap.pair_id_to_image_pair(pair_id)
        if geometry.config not in VERIFIED or first not in images or second not in images:
            continue
        views = [(cameras[images[i].camera_id], keypoints[i]) for i in (first, second)]
        if pycolmap.estimate_two_view_geometry_pose(*views[0], *views[1], geometry):
            angle_deg = min(float(np.degrees(geometry.tri_angle)), _WIDE_ANGLE_DEG)
            value = angle_deg * len(geometry.inlier_matches)
            rated.append((geometry.config not in DEGENERATE, value, (first, second)))
    chosen: list[tuple[int, int]] = []
    used: set[int] = set()
    for _, _, pair in sorted(rated, reverse=True):
        if used.isdisjoint(pair):
            chosen.append(pair)
            used.update(pair)
    return chosen[: job.settings.first_pairs]


def map_incremental(job: SfmJob, runtime_s: float, report: Report) -> list[pycolmap.Reconstruction]:
    """Return models of the matched images. With `every` > 1, every n-th image is mapped first, then the others."""
    names = list(job.subset or job.files)
    thinned = names[:: job.settings.every]
    end = time.monotonic() + runtime_s
    models = _map_from_initial_pairs(job, thinned, end, report)
    left_s = end - time.monotonic()
    if job.settings.every == 1 or not models or left_s < 1:
        return models
    start = Path(job.output) / "thinned"
    start.mkdir()
    largest(models).write(start)
    grown = _run_incremental_mapper(job, names, left_s, report, input_path=start)
    shutil.rmtree(start)
    return models + grown


def _map_from_initial_pairs(job: SfmJob, names: list[str], end: float, report: Report) -> list[pycolmap.Reconstruction]:
    """Map from one initial pair after the other until a model has most of the images, or until `end` (monotonic)."""
    if job.settings.first_pairs == 0:
        return _run_incremental_mapper(job, names, end - time.monotonic(), report)
    models: list[pycolmap.Reconstruction] = []
    for pair in initial_pairs(job, names):
        left_s = end - time.monotonic()
        if left_s < 1:
            break
        models += _run_incremental_mapper(job, names, left_s, report, pair=pair)
        if models and largest(models).num_reg_images() >= _ENOUGH_REGISTERED * len(names):
            break
    return models


def _run_incremental_mapper(
    job: SfmJob,
    names: list[str],
    runtime_s: float,
    report: Report,
    *,
    input_path: Path | None = None,
    pair: tuple[int, int] | None = None,
) -> list[pycolmap.Reconstruction]:
    """Run COLMAP's incremental mapper from an existing model, an initial pair, or a pair that it finds."""
    registered = 0

    def count() -> None:
        nonlocal registered
        registered += 1
        report(SfmPhase.MAPPING, min(registered, len(names)), len(names))

    report(SfmPhase.MAPPING, 0, len(names))
    scratch = Path(job.output) / "models"
    scratch.mkdir()
    options = incremental_options(job, names, runtime_s)
    if pair is not None:
        options.init_image_id1, options.init_image_id2 = pair
        # The pair was chosen among all, so accept it unconditionally. (COLMAP does not allow zero degrees.)
        options.mapper.init_min_tri_angle, options.mapper.init_max_forward_motion = 0.01, 1.0
        options.multiple_models = False
    models = pycolmap.incremental_mapping(
        job.database,
        job.images,
        scratch,
        options=options,
        input_path="" if input_path is None else input_path,
        initial_image_pair_callback=count,
        next_image_callback=count,
    )
    shutil.rmtree(scratch)
    return list(models.values())


def map_global(job: SfmJob, report: Report) -> list[pycolmap.Reconstruction]:
    """Run COLMAP's global mapper. It has no callbacks and cannot be stopped; the parent kills this process instead."""
    names = list(job.subset or job.files)
    report(SfmPhase.MAPPING, 0, len(names))
    options = pycolmap.GlobalPipelineOptions()
    options.random_seed = options.mapper.random_seed = job.seed
    options.num_threads = options.mapper.num_threads = job.threads
    options.image_names = names
    if job.camera_fixed:
        options.mapper.bundle_adjustment.refine_focal_length = False
        options.mapper.bundle_adjustment.refine_extra_params = False
    scratch = Path(job.output) / "models"
    scratch.mkdir()
    models = pycolmap.global_mapping(job.database, job.images, scratch, options=options)
    shutil.rmtree(scratch)
    return list(models.values())


def final_bundle_adjustment(model: pycolmap.Reconstruction, job: SfmJob) -> pycolmap.Reconstruction:
    """Retriangulate, bundle-adjust the whole model with a robust loss, and filter outlier observations."""
    settings = job.settings
    if settings.retriangulate:
        scratch = Path(job.output) / "models"
        scratch.mkdir()
        options = incremental_options(job, [], job.time_limit_s)
        # An empty image folder keeps it from coloring points, which `color_points` does faster.
        model = pycolmap.triangulate_points(model, job.database, scratch, scratch, options=options)
        shutil.rmtree(scratch)
    if settings.polish_iterations > 0:
        bundle_adjust(model, job)
    manager = pycolmap.ObservationManager(model)
    manager.filter_all_points3D(settings.max_error_px, 1.5)
    manager.filter_observations_with_negative_depth()
    return model


def color_points(model: pycolmap.Reconstruction, raw: RawModel, job: SfmJob) -> RawModel:
    """Give every point of `model` the mean color of its observed pixels; return `raw` with these colors."""

    def observed_rgb(image: int) -> np.ndarray:
        """Return (M, 3) uint8 colors at the image's observations."""
        with Image.open(Path(job.images) / str(raw.image_name[image])) as picture:
            rgb = np.asarray(picture.convert("RGB"))
        x, y = raw.obs_xy_px[raw.obs_image == image].astype(np.int64).clip(0, (rgb.shape[1] - 1, rgb.shape[0] - 1)).T
        return rgb[y, x]

    colors = np.empty((len(raw.obs_point), 3))
    with ThreadPoolExecutor(max_workers=2) as pool:  # decoding releases the GIL
        for image, rgb in enumerate(pool.map(observed_rgb, range(len(raw.image_name)))):
            colors[raw.obs_image == image] = rgb
    count = len(raw.xyz_in_world)
    sums = np.stack([np.bincount(raw.obs_point, weights=c, minlength=count) for c in colors.T], axis=1)
    mean = sums / np.maximum(np.bincount(raw.obs_point, minlength=count), 1)[:, None]
    rgb = np.rint(mean).astype(np.uint8)
    for point_id, value in zip(sorted(model.points3D), rgb, strict=True):
        model.points3D[point_id].color = value
    return replace(raw, rgb=rgb)


def bundle_adjust(model: pycolmap.Reconstruction, job: SfmJob) -> None:
    """Adjust the whole model with a soft L1 loss."""
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.refine_focal_length = options.refine_extra_params = not job.camera_fixed
    options.ceres.loss_function_type = pycolmap.LossFunctionType.SOFT_L1
    options.ceres.solver_options.max_num_iterations = job.settings.polish_iterations
    options.ceres.solver_options.num_threads = job.threads
    pycolmap.bundle_adjustment(model, options)


def configure_process(seed: int) -> None:
    """Set log level and random seed of this process."""
    pycolmap.logging.minloglevel = 1  # warnings and worse
    pycolmap.set_random_seed(seed)
