"""Every call of pycolmap: features, matches, models, and a model as arrays. Runs in the child process only.

SIFT on the CPU only: other features abort the process in the published wheels. OpenCV finds them, in a third of the
time that the wheels' own extractor takes.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pycolmap
from PIL import Image

from sfmttr.sfm.protocol import Extractor, MatchStatistics, RawModel, SfmJob, SfmPhase
from sfmttr.sfm.sift import Features, sift

Report = Callable[[str, int, int], None]

_MIN_MODEL_SIZE = 3
_LIBRARY_GUESS = 1.2
"""COLMAP's guess of a focal length, over the image's longer side."""
_SERIAL_UP_TO_IMAGES = 120
"""Mapping of so few images hardly gains by threads that wait for each other: one is as quick, and leaves the other
cores to what runs beside it."""
_WIDE_ANGLE_DEG = 8.0
"""A first pair gains nothing by a larger triangulation angle than this."""
_ENOUGH_REGISTERED = 0.5
"""A model with this share of the images is worth going on with."""
_DEGENERATE = (
    pycolmap.TwoViewGeometryConfiguration.PLANAR,
    pycolmap.TwoViewGeometryConfiguration.PANORAMIC,
    pycolmap.TwoViewGeometryConfiguration.PLANAR_OR_PANORAMIC,
)
_VERIFIED = (
    *_DEGENERATE,
    pycolmap.TwoViewGeometryConfiguration.CALIBRATED,
    pycolmap.TwoViewGeometryConfiguration.UNCALIBRATED,
    pycolmap.TwoViewGeometryConfiguration.MULTIPLE,
)


# --------------------------------------------------------------------------------- features and matches


def extract(job: SfmJob, report: Report) -> None:
    """SIFT features of the images into the database, unless an earlier rung of the same features has done it."""
    report(SfmPhase.FEATURES, 0, len(job.files))
    if job.settings.extractor == Extractor.COLMAP:
        _extract_by_colmap(job)
        return
    folder, settings = Path(job.images), job.settings

    def features(file: str) -> Features:
        return sift(folder / file, settings.long_side, settings.max_features, settings.contrast)

    cv2.setNumThreads(1)  # images are searched side by side instead
    threads = job.threads if job.threads > 0 else os.cpu_count() or 1
    with closing(pycolmap.Database.open(job.database)) as database, ThreadPoolExecutor(threads) as pool:
        known = {image.name for image in database.read_all_images()}
        files = [file for file in job.files if file not in known]
        camera, rig_id = _camera(database, job)
        for done, (file, found) in enumerate(zip(files, pool.map(features, files), strict=True), start=1):
            _write(database, camera, rig_id, file, found)
            report(SfmPhase.FEATURES, len(known) + done, len(job.files))


def _write(database: pycolmap.Database, camera: pycolmap.Camera, rig_id: int, file: str, found: Features) -> None:
    """One image with its features into the database."""
    image_id = database.write_image(pycolmap.Image(name=file, camera_id=camera.camera_id))
    frame = pycolmap.Frame()
    frame.rig_id = rig_id
    frame.add_data_id(pycolmap.data_t(camera.sensor_id, image_id))
    database.write_frame(frame)
    database.write_keypoints(image_id, found.keypoints)
    descriptors = pycolmap.FeatureDescriptors(pycolmap.FeatureExtractorType.SIFT, found.descriptors)
    database.write_descriptors(image_id, descriptors)


def _camera(database: pycolmap.Database, job: SfmJob) -> tuple[pycolmap.Camera, int]:
    """The camera in the database, which all images are of, and the number of the rig that it is all of."""
    if database.num_cameras():
        return database.read_all_cameras()[0], database.read_all_rigs()[0].rig_id
    with Image.open(Path(job.images) / job.files[0]) as first:
        width, height = first.size
    guess_px = _LIBRARY_GUESS * max(width, height)
    unnumbered = pycolmap.INVALID_CAMERA_ID
    camera = pycolmap.Camera.create_from_model_name(unnumbered, job.camera_model, guess_px, width, height)
    if job.camera_params:
        camera.params = list(job.camera_params)
        camera.has_prior_focal_length = True
    camera.camera_id = database.write_camera(camera)
    rig = pycolmap.Rig()
    rig.add_ref_sensor(camera.sensor_id)
    return camera, database.write_rig(rig)


def _extract_by_colmap(job: SfmJob) -> None:
    """By pycolmap's own extractor, to compare with. Images that are in the database already are skipped."""
    reader = pycolmap.ImageReaderOptions()
    reader.camera_model = job.camera_model
    reader.camera_params = ",".join(repr(float(v)) for v in job.camera_params)
    options = pycolmap.FeatureExtractionOptions()
    options.num_threads = job.threads
    options.max_image_size = job.settings.long_side
    options.sift.max_num_features = job.settings.max_features
    options.sift.peak_threshold = job.settings.contrast / options.sift.octave_resolution
    pycolmap.extract_features(
        job.database,
        job.images,
        image_names=list(job.files),
        camera_mode=pycolmap.CameraMode.SINGLE,
        reader_options=reader,
        extraction_options=options,
        device=pycolmap.Device.cpu,
    )


def image_pairs(count: int, overlap: int) -> list[tuple[int, int]]:
    """Which of `count` images in order are matched: those less than `overlap` apart, and as many at distances 1, 2, 4,
    ...; overlap 0: all with all."""
    if overlap == 0:
        return [(i, j) for i in range(count) for j in range(i + 1, count)]
    steps = sorted({*range(1, overlap), *(2**k for k in range(overlap))})
    return [(i, i + step) for i in range(count) for step in steps if i + step < count]


def match(job: SfmJob, report: Report) -> int:
    """Match and verify pairs of images; pairs that are in the database already are skipped. Number of pairs."""
    # Pairs are listed here rather than by the library, which would go by the order of file names.
    pairs = image_pairs(len(job.files), job.settings.overlap)
    pairing = pycolmap.ImportedPairingOptions()
    pairing.match_list_path = Path(job.output) / "pairs.txt"
    lines = [f"{job.files[i]} {job.files[j]}" for i, j in pairs]
    Path(pairing.match_list_path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    matching = pycolmap.FeatureMatchingOptions()
    matching.num_threads = job.threads
    matching.guided_matching = job.settings.guided_matching
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = job.seed
    verification.ransac.min_num_trials = job.settings.least_trials
    # The library has no callbacks for matches: the parent counts rows in the database. Not this process: Python's
    # SQLite and pycolmap's, both in one process, drop each other's file locks, which ends in SIGBUS.
    report(SfmPhase.MATCHING, 0, len(pairs))
    pycolmap.match_image_pairs(
        job.database,
        matching_options=matching,
        pairing_options=pairing,
        verification_options=verification,
        device=pycolmap.Device.cpu,
    )
    Path(pairing.match_list_path).unlink()
    return len(pairs)


def match_statistics(job: SfmJob, pairs_tried: int) -> MatchStatistics:
    """What features and matches tell about the clip, for the health card and for advice."""
    with closing(pycolmap.Database.open(job.database)) as database:
        images = database.read_all_images()
        keypoints = {image.image_id: database.read_keypoints(image.image_id)[:, :2] for image in images}
        pair_ids, geometries = database.read_two_view_geometries()
        width = database.read_all_cameras()[0].width
    verified = [(p, g) for p, g in zip(pair_ids, geometries, strict=True) if g.config in _VERIFIED]
    moves = []
    for pair_id, geometry in verified:
        first, second = pycolmap.pair_id_to_image_pair(pair_id)
        matches = np.asarray(geometry.inlier_matches)
        offset = keypoints[second][matches[:, 1]] - keypoints[first][matches[:, 0]]
        moves.append(np.median(np.linalg.norm(offset, axis=1)))
    degenerate = sum(geometry.config in _DEGENERATE for _, geometry in verified)
    return MatchStatistics(
        median_features=float(np.median([len(k) for k in keypoints.values()])),
        pairs_tried=pairs_tried,
        pairs_verified=len(verified),
        degenerate_ratio=degenerate / len(verified) if verified else float("nan"),
        displacement_ratio=float(np.percentile(moves, 90) / width) if moves else float("nan"),
    )


# --------------------------------------------------------------------------------------------- mapping


def incremental_options(job: SfmJob, names: list[str], runtime_s: float) -> pycolmap.IncrementalPipelineOptions:
    settings = job.settings
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = job.seed
    serial = len(job.files) <= _SERIAL_UP_TO_IMAGES
    options.num_threads = options.mapper.num_threads = 1 if serial else job.threads
    options.image_names = names
    options.min_model_size = _MIN_MODEL_SIZE
    options.extract_colors = False  # `colour` reads each image once, and several at a time
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


def first_pairs(job: SfmJob, names: list[str]) -> list[tuple[int, int]]:
    """Image ids of the pairs that mapping may start from, best first; no image is in two of them.

    A good pair has many matches under a large angle, and is no plane or pure rotation: what such a pair says of its
    motion is a guess.
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
        if geometry.config not in _VERIFIED or first not in images or second not in images:
            continue
        views = [(cameras[images[i].camera_id], keypoints[i]) for i in (first, second)]
        if pycolmap.estimate_two_view_geometry_pose(*views[0], *views[1], geometry):
            angle_deg = min(float(np.degrees(geometry.tri_angle)), _WIDE_ANGLE_DEG)
            value = angle_deg * len(geometry.inlier_matches)
            rated.append((geometry.config not in _DEGENERATE, value, (first, second)))
    chosen: list[tuple[int, int]] = []
    used: set[int] = set()
    for _, _, pair in sorted(rated, reverse=True):
        if used.isdisjoint(pair):
            chosen.append(pair)
            used.update(pair)
    return chosen[: job.settings.first_pairs]


def map_incremental(job: SfmJob, runtime_s: float, report: Report) -> list[pycolmap.Reconstruction]:
    """Models of the matched images. With `every` > 1 the thinned-out frames come first, then the others are added."""
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
    """Models from one first pair after the other until one holds most of the images, or until `end` (monotonic)."""
    if job.settings.first_pairs == 0:
        return _run_incremental_mapper(job, names, end - time.monotonic(), report)
    models: list[pycolmap.Reconstruction] = []
    for pair in first_pairs(job, names):
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
    """Models of these images: from a model that there is already, from a first pair, or from what is found."""
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
        # It was chosen among all; there is nothing left to ask of it. (Zero degrees are not allowed.)
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
    """Models by the global mapper; it has no callbacks and cannot be told to stop, the parent kills us instead."""
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


def largest(models: list[pycolmap.Reconstruction]) -> pycolmap.Reconstruction:
    """The model with the most images: the first one found may hold two images and the second all of them."""
    return max(models, key=lambda model: (model.num_reg_images(), model.num_points3D()))


def final_bundle_adjustment(model: pycolmap.Reconstruction, job: SfmJob) -> pycolmap.Reconstruction:
    """Triangulate anew, bundle_adjust the whole model with a robust loss, and drop the observations that still do not fit."""
    settings = job.settings
    if settings.retriangulate:
        scratch = Path(job.output) / "models"
        scratch.mkdir()
        options = incremental_options(job, [], job.time_limit_s)
        # It colours points, a second's work that `colour` does, from the images that it finds: in an empty folder none.
        model = pycolmap.triangulate_points(model, job.database, scratch, scratch, options=options)
        shutil.rmtree(scratch)
    if settings.polish_iterations > 0:
        bundle_adjust(model, job)
    manager = pycolmap.ObservationManager(model)
    manager.filter_all_points3D(settings.max_error_px, 1.5)
    manager.filter_observations_with_negative_depth()
    return model


def colour(model: pycolmap.Reconstruction, raw: RawModel, job: SfmJob) -> RawModel:
    """Give every point of `model` the mean colour of the pixels that it was found at; `raw` (of it) with them."""

    def seen(image: int) -> np.ndarray:
        """(M, 3) uint8: the pixels of the image's observations."""
        with Image.open(Path(job.images) / str(raw.image_name[image])) as picture:
            rgb = np.asarray(picture.convert("RGB"))
        x, y = raw.obs_xy_px[raw.obs_image == image].astype(np.int64).clip(0, (rgb.shape[1] - 1, rgb.shape[0] - 1)).T
        return rgb[y, x]

    colours = np.empty((len(raw.obs_point), 3))
    with ThreadPoolExecutor(max_workers=2) as pool:  # decoding releases the GIL
        for image, rgb in enumerate(pool.map(seen, range(len(raw.image_name)))):
            colours[raw.obs_image == image] = rgb
    count = len(raw.xyz_in_world)
    sums = np.stack([np.bincount(raw.obs_point, weights=c, minlength=count) for c in colours.T], axis=1)
    mean = sums / np.maximum(np.bincount(raw.obs_point, minlength=count), 1)[:, None]
    rgb = np.rint(mean).astype(np.uint8)
    for point_id, value in zip(sorted(model.points3D), rgb, strict=True):
        model.points3D[point_id].color = value
    return replace(raw, rgb=rgb)


def bundle_adjust(model: pycolmap.Reconstruction, job: SfmJob) -> None:
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.refine_focal_length = options.refine_extra_params = not job.camera_fixed
    options.ceres.loss_function_type = pycolmap.LossFunctionType.SOFT_L1
    options.ceres.solver_options.max_num_iterations = job.settings.polish_iterations
    options.ceres.solver_options.num_threads = job.threads
    pycolmap.bundle_adjustment(model, options)


def configure_process(seed: int) -> None:
    """Settings of the whole process."""
    pycolmap.logging.minloglevel = 1  # warnings and worse
    pycolmap.set_random_seed(seed)


def read_model(folder: str) -> pycolmap.Reconstruction:
    """A model in COLMAP's text or binary format; the library raises ValueError, RuntimeError or the like."""
    return pycolmap.Reconstruction(folder)


def raw_model(model: pycolmap.Reconstruction) -> RawModel:
    """A pycolmap reconstruction as arrays."""
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
