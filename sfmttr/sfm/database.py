"""Features and matches in COLMAP's database. Runs in the worker process only.

SIFT on the CPU only: other features abort the process in pycolmap's published wheels. OpenCV extracts them in a third
of the time of the wheels' own extractor.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pycolmap
from PIL import Image

from sfmttr.sfm.protocol import Extractor, MatchStatistics, SfmJob, SfmPhase
from sfmttr.sfm.sift import Features, sift

Report = Callable[[str, int, int], None]
DEGENERATE = (
    pycolmap.TwoViewGeometryConfiguration.PLANAR,
    pycolmap.TwoViewGeometryConfiguration.PANORAMIC,
    pycolmap.TwoViewGeometryConfiguration.PLANAR_OR_PANORAMIC,
)
VERIFIED = (
    *DEGENERATE,
    pycolmap.TwoViewGeometryConfiguration.CALIBRATED,
    pycolmap.TwoViewGeometryConfiguration.UNCALIBRATED,
    pycolmap.TwoViewGeometryConfiguration.MULTIPLE,
)
_COLMAP_FOCAL_GUESS = 1.2
"""COLMAP's default focal length over the longer image side."""


def extract(job: SfmJob, report: Report) -> None:
    """Extract SIFT features of the images into the database, unless an earlier attempt with these features did."""
    report(SfmPhase.FEATURES, 0, len(job.files))
    if job.settings.extractor == Extractor.COLMAP:
        _extract_by_colmap(job)
        return
    folder, settings = Path(job.images), job.settings

    def features(file: str) -> Features:
        return sift(folder / file, settings.long_side, settings.max_features, settings.contrast)

    cv2.setNumThreads(1)  # images are processed in parallel instead
    threads = job.threads if job.threads > 0 else os.cpu_count() or 1
    with closing(pycolmap.Database.open(job.database)) as database, ThreadPoolExecutor(threads) as pool:
        known = {image.name for image in database.read_all_images()}
        files = [file for file in job.files if file not in known]
        camera, rig_id = _camera(database, job)
        for done, (file, found) in enumerate(zip(files, pool.map(features, files), strict=True), start=1):
            _write(database, camera, rig_id, file, found)
            report(SfmPhase.FEATURES, len(known) + done, len(job.files))


def _write(database: pycolmap.Database, camera: pycolmap.Camera, rig_id: int, file: str, found: Features) -> None:
    """Write one image with its features into the database."""
    image_id = database.write_image(pycolmap.Image(name=file, camera_id=camera.camera_id))
    frame = pycolmap.Frame()
    frame.rig_id = rig_id
    frame.add_data_id(pycolmap.data_t(camera.sensor_id, image_id))
    database.write_frame(frame)
    database.write_keypoints(image_id, found.keypoints)
    descriptors = pycolmap.FeatureDescriptors(pycolmap.FeatureExtractorType.SIFT, found.descriptors)
    database.write_descriptors(image_id, descriptors)


def _camera(database: pycolmap.Database, job: SfmJob) -> tuple[pycolmap.Camera, int]:
    """Return the one camera of all images, and the id of its rig; both are created at the first call."""
    if database.num_cameras():
        return database.read_all_cameras()[0], database.read_all_rigs()[0].rig_id
    with Image.open(Path(job.images) / job.files[0]) as first:
        width, height = first.size
    guess_px = _COLMAP_FOCAL_GUESS * max(width, height)
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
    """Extract features with pycolmap, for comparison. Images in the database are skipped."""
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
    """Return the pairs of `count` ordered images to match: those less than `overlap` apart, and `overlap` more at
    distances 1, 2, 4, ...; overlap 0: all pairs."""
    if overlap == 0:
        return [(i, j) for i in range(count) for j in range(i + 1, count)]
    steps = sorted({*range(1, overlap), *(2**k for k in range(overlap))})
    return [(i, i + step) for i in range(count) for step in steps if i + step < count]


def match(job: SfmJob, report: Report) -> int:
    """Match and verify pairs of images, skipping those in the database; return the number of pairs."""
    # Listed here, because COLMAP's sequential matcher goes by the order of file names.
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
    # COLMAP has no callback for matching, so the parent process counts rows in the database. This process cannot:
    # Python's SQLite and pycolmap's would drop each other's file locks, which ends in SIGBUS.
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
    """Return statistics of features and matches, for the health card and for advice."""
    with closing(pycolmap.Database.open(job.database)) as database:
        images = database.read_all_images()
        keypoints = {image.image_id: database.read_keypoints(image.image_id)[:, :2] for image in images}
        pair_ids, geometries = database.read_two_view_geometries()
        width = database.read_all_cameras()[0].width
    verified = [(p, g) for p, g in zip(pair_ids, geometries, strict=True) if g.config in VERIFIED]
    moves = []
    for pair_id, geometry in verified:
        first, second = pycolmap.pair_id_to_image_pair(pair_id)
        matches = np.asarray(geometry.inlier_matches)
        offset = keypoints[second][matches[:, 1]] - keypoints[first][matches[:, 0]]
        moves.append(np.median(np.linalg.norm(offset, axis=1)))
    degenerate = sum(geometry.config in DEGENERATE for _, geometry in verified)
    return MatchStatistics(
        median_features=float(np.median([len(k) for k in keypoints.values()])),
        pairs_tried=pairs_tried,
        pairs_verified=len(verified),
        degenerate_ratio=degenerate / len(verified) if verified else float("nan"),
        displacement_ratio=float(np.percentile(moves, 90) / width) if moves else float("nan"),
    )
