"""Messages between the parent process and the SfM worker: the job and its statistics as JSON, the model as npz.

Imports neither pycolmap nor torch, because both processes import it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path

import numpy as np

from sfmttr.config import SfmConfig
from sfmttr.io.atomic import atomic_file
from sfmttr.io.json_files import read_model, write_json
from sfmttr.types import HW

JOB_FILE, LOG_FILE = "job.json", "log.txt"
RAW_FILE, STATISTICS_FILE = "observations.npz", "facts.json"
FIRST_ATTEMPT = "standard"
"""Name of the first attempt."""


class SfmPhase(StrEnum):
    """Phase of an attempt, in the order in which they follow each other."""

    START = "start"
    FEATURES = "features"
    MATCHING = "matching"
    MAPPING = "mapping"
    """Estimation of poses and points; runs mostly on one core."""
    IMPORT = "import"
    """Reading of a given model."""


class Extractor(StrEnum):
    """Feature extractor."""

    OPENCV = "opencv"
    COLMAP = "colmap"


class Mapper(StrEnum):
    """COLMAP mapper."""

    INCREMENTAL = "incremental"
    GLOBAL = "global"


@dataclass(frozen=True)
class SfmSettings:
    """All settings of one attempt. Attempts with the same `features` share one database.

    The field names are part of the cache key (`cache.cache_key`).
    """

    name: str = FIRST_ATTEMPT
    extractor: Extractor = Extractor.OPENCV
    long_side: int = SfmConfig.long_side
    max_features: int = SfmConfig.max_features
    contrast: float = SfmConfig.contrast
    """Minimum contrast of a feature in OpenCV's units: times the three levels of an octave; 1 is white beside black."""
    overlap: int = SfmConfig.overlap
    """Pairs of images that are matched (`database.image_pairs`); 0: exhaustive."""
    guided_matching: bool = False
    # COLMAP's default of 100 finds as many inliers, and matching takes a sixth longer.
    least_trials: int = 30
    """Minimum RANSAC trials of two-view geometry."""
    mapper: Mapper = Mapper.INCREMENTAL
    every: int = 1
    """Map every n-th frame first, then register the others in that model."""
    # A prior makes COLMAP verify pairs as those of a calibrated camera, which is faster and gives poses. Bundle
    # adjustment refines it, so it need not be close.
    focal_guess: float | None = 0.75
    """Prior focal length over the long side when nothing is known of the camera (a phone's main lens). None: COLMAP's
    own guess of 1.2, without the prior flag."""
    first_pairs: int = 6
    """Maximum number of initial image pairs to try, best first (`mapping.initial_pairs`), until a model has most of the
    images; 0: COLMAP searches for an initial pair by the three settings below."""
    max_forward_motion: float = 1.0
    """Maximum share of forward motion in the initial pair; 1 allows a camera that drives straight ahead."""
    min_first_angle_deg: float = 4.0
    """Minimum triangulation angle of the initial pair; halved when no such pair is found."""
    # COLMAP's default of 200 takes longer than mapping itself when only neighbors are matched.
    first_pair_trials: int = 3
    """Trials of initialization at each angle."""
    ba_ratio: float = 1.7
    """Growth of the model that triggers a global bundle adjustment."""
    ba_refinements: int = 1
    ba_iterations: int = 20
    """Iterations of a global bundle adjustment; -1: COLMAP's default of 50."""
    # COLMAP's default of 25 gains nothing that the final bundle adjustment does not.
    local_ba_iterations: int = 4
    """Iterations of the local bundle adjustment around each new image."""
    polish_iterations: int = 10
    """Iterations of the final bundle adjustment, which has a robust loss; 0: none."""
    max_error_px: float = 4.0
    """Maximum reprojection error of an observation."""
    retriangulate: bool = True
    """Triangulate all points again with the final poses: up to twice as many points, and a better focal length."""

    @property
    def features(self) -> str:
        """Name of the feature settings; attempts with the same name share a database."""
        return f"{self.extractor}_{self.long_side}_{self.max_features}_{self.contrast}"


@dataclass(frozen=True)
class SfmJob:
    """One task of the worker; paths are strings, so that it is plain JSON."""

    task: str
    """"reconstruct": features, matches and a model; "import": read a model that the user gives."""
    output: str
    """Folder for the model, its arrays and the statistics."""
    images: str = ""
    files: tuple[str, ...] = ()
    """Image files in order; neighbors here are neighbors in sequential matching."""
    subset: tuple[str, ...] = ()
    """Files to map; empty: all."""
    database: str = ""
    model: str = ""
    """Folder of the model to import."""
    camera_model: str = "SIMPLE_RADIAL"
    camera_params: tuple[float, ...] = ()
    """Known or guessed parameters in COLMAP's order; empty: nothing known."""
    camera_fixed: bool = False
    settings: SfmSettings = field(default_factory=SfmSettings)
    seed: int = 0
    threads: int = -1
    time_limit_s: float = 900.0
    """Time after which the worker stops mapping and hands over what it has."""


@dataclass(frozen=True)
class MatchStatistics:
    """Statistics of features, matches and mapping, with or without a model."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Wall-clock time by phase: features, matching, mapping."""
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    """Processor time over all threads by phase, which is comparable on a shared machine."""
    median_features: float = float("nan")
    """Median number of features over the images."""
    pairs_tried: int = 0
    pairs_verified: int = 0
    degenerate_ratio: float = float("nan")
    """Share of verified pairs that a homography explains (plane or pure rotation)."""
    displacement_ratio: float = float("nan")
    """Image motion: 90th percentile over verified pairs of the median displacement, over the image width."""
    model_sizes: tuple[int, ...] = ()
    """Registered images of every model that mapping found."""
    error: str = ""
    """One sentence when the task failed in a known way."""

    def write(self, folder: Path) -> None:
        """Write the file atomically, because the worker may be killed at any moment."""
        write_json(folder / STATISTICS_FILE, self, indent=1, sort_keys=True)

    @classmethod
    def read(cls, folder: Path) -> MatchStatistics:
        """Return what `write` wrote, or empty statistics when the worker did not get that far."""
        path = folder / STATISTICS_FILE
        return read_model(path, cls) if path.exists() else cls()


@dataclass(frozen=True)
class RawModel:
    """Unfiltered COLMAP model as arrays, in the pixels of its own cameras."""

    image_name: np.ndarray
    """(V,) str, registered images only."""
    image_camera: np.ndarray
    """(V,) int64, row of the image's camera."""
    cam_from_world: np.ndarray
    """(V, 4, 4) float64."""
    camera_model: np.ndarray
    """(C,) str, COLMAP's name of the camera model."""
    camera_params: np.ndarray
    """(C, 12) float64 in COLMAP's order, padded with nan."""
    camera_hw: np.ndarray
    """(C, 2) int64."""
    obs_image: np.ndarray
    """(M,) int64, row of the image."""
    obs_feature: np.ndarray
    """(M,) int64, index of the feature within its image: the same in every model from one database."""
    obs_point: np.ndarray
    """(M,) int64, row of the point."""
    obs_xy_px: np.ndarray
    """(M, 2) float64."""
    xyz_in_world: np.ndarray
    """(P, 3) float64."""
    rgb: np.ndarray
    """(P, 3) uint8."""

    def write(self, folder: Path) -> None:
        """Write the file atomically: the parent may kill this process at any moment and use what is there."""
        with atomic_file(folder / RAW_FILE) as part, part.open("wb") as file:
            np.savez_compressed(file, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def read(cls, folder: Path) -> RawModel:
        with np.load(folder / RAW_FILE, allow_pickle=False) as arrays:
            return cls(**{f.name: arrays[f.name] for f in fields(cls)})

    def hw(self, camera: int) -> HW:
        height, width = self.camera_hw[camera]
        return int(height), int(width)
