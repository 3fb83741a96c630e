"""What parent and child of structure-from-motion say to each other: a job as JSON, arrays as npz, statistics as JSON.

Imports neither pycolmap nor torch: both sides read it.
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
RAW_FILE, FACTS_FILE = "observations.npz", "statistics.json"
FIRST_ATTEMPT = "standard"
"""The rung that is tried first."""


class SfmPhase(StrEnum):
    """Part of a reconstruction, in the order in which they follow each other."""

    START = "start"
    FEATURES = "features"
    MATCHING = "matching"
    MAPPING = "mapping"
    """Poses and points are found; most of it runs on one core."""
    IMPORT = "import"
    """A given model is read instead."""


class Extractor(StrEnum):
    """What finds features."""

    OPENCV = "opencv"
    COLMAP = "colmap"


class Mapper(StrEnum):
    """How poses and points are found from the matches."""

    INCREMENTAL = "incremental"
    GLOBAL = "global"


@dataclass(frozen=True)
class SfmSettings:
    """Everything that one rung of the attempt_settings sets; two settings with equal features share one database."""

    name: str = FIRST_ATTEMPT
    extractor: Extractor = Extractor.OPENCV
    long_side: int = SfmConfig.long_side
    max_features: int = SfmConfig.max_features
    contrast: float = SfmConfig.contrast
    """Least contrast of a feature, times the three levels of an octave, as OpenCV counts; 1 is white beside black."""
    overlap: int = SfmConfig.overlap
    """Which neighbours images are matched with (`colmap.image_pairs`); 0: every image with every other."""
    guided_matching: bool = False
    least_trials: int = 30
    """Of a pair's RANSAC, where matches are so good that fewer would do. The library's 100 find as many inliers, and
    matching takes a sixth longer."""
    mapper: Mapper = Mapper.INCREMENTAL
    every: int = 1
    """Map every n-th frame first, then add the others to that model."""
    focal_guess: float | None = 0.75
    """Focal length over the long side where nothing is known of the camera: a phone's main lens. It is refined, and
    need not be near; but pairs are then verified as those of a calibrated camera, which is quicker and gives poses.
    None: the library's own guess (1.2), which it does not rely on itself."""
    first_pairs: int = 6
    """Pairs of images that mapping is started from until one leads to most of the images, best first (see
    `colmap.first_pairs`); 0: the library searches for one, by the three settings below."""
    max_forward_motion: float = 1.0
    """Largest share of forward motion in the first pair; 1 allows a camera that drives straight ahead."""
    min_first_angle_deg: float = 4.0
    """Smallest triangulation angle of the first pair; halved where no such pair is found."""
    first_pair_trials: int = 3
    """Attempts at each angle. The library's 200 cost longer than the mapping where neighbours are matched only."""
    ba_ratio: float = 1.7
    """The whole model is adjusted each time it has grown by this factor."""
    ba_refinements: int = 1
    ba_iterations: int = 20
    """Of one adjustment of the whole model; -1: the library's 50."""
    local_ba_iterations: int = 4
    """Of the adjustment around each new frame; the library's 25 buys nothing here that the last one does not."""
    polish_iterations: int = 10
    """Of the last adjustment, which has a robust loss; 0: none."""
    max_error_px: float = 4.0
    """Observations further off than this are dropped."""
    retriangulate: bool = True
    """Triangulate all points anew with the final poses: up to twice as many, and a better focal length, in a second."""

    @property
    def features(self) -> str:
        """A name of the settings that features depend on: settings of the same name share a database."""
        return f"{self.extractor}_{self.long_side}_{self.max_features}_{self.contrast}"


@dataclass(frozen=True)
class SfmJob:
    """One task for the child process; paths as strings so that it is plain JSON."""

    task: str
    """"reconstruct": features, matches and a model; "import": read a model that the user brought."""
    output: str
    """Folder for the model, its arrays and the statistics."""
    images: str = ""
    files: tuple[str, ...] = ()
    """Image files in order: neighbours here are neighbours in matching."""
    subset: tuple[str, ...] = ()
    """Map only these of them; empty: all."""
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
    """The child ends mapping by itself after this long and hands over what it has."""


@dataclass(frozen=True)
class MatchStatistics:
    """What the child saw on the way, whether or not there is a model."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Wall-clock time by stage: features, matching, mapping."""
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    """Processor time over all threads by stage: comparable on a machine that others share."""
    median_features: float = float("nan")
    """Median over the images."""
    pairs_tried: int = 0
    pairs_verified: int = 0
    degenerate_ratio: float = float("nan")
    """Share of verified pairs that a homography explains (plane or pure rotation)."""
    displacement_ratio: float = float("nan")
    """Image motion: 90th percentile over verified pairs of the median displacement, over the image width."""
    model_sizes: tuple[int, ...] = ()
    """Registered images of every model that mapping found."""
    error: str = ""
    """A message in plain words when the task failed in a known way."""

    def write(self, folder: Path) -> None:
        """Write the file atomically: the child may be killed at any moment."""
        write_json(folder / FACTS_FILE, self, indent=1, sort_keys=True)

    @classmethod
    def read(cls, folder: Path) -> MatchStatistics:
        """Return what `write` wrote, or an empty value when the child did not come that far."""
        path = folder / FACTS_FILE
        return read_model(path, cls) if path.exists() else cls()


@dataclass(frozen=True)
class RawModel:
    """A COLMAP model as arrays, in the pixels of its own cameras; nothing filtered yet."""

    image_name: np.ndarray
    """(V,) str, registered images only."""
    image_camera: np.ndarray
    """(V,) int64, row of the image's camera."""
    cam_from_world: np.ndarray
    """(V, 4, 4) float64."""
    camera_model: np.ndarray
    """(C,) str, COLMAP's name of the model."""
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
        """Write the file in one step: the parent may end this process at any moment, and takes what is there."""
        with atomic_file(folder / RAW_FILE) as part, part.open("wb") as file:
            np.savez_compressed(file, **{f.name: getattr(self, f.name) for f in fields(self)})

    @classmethod
    def read(cls, folder: Path) -> RawModel:
        with np.load(folder / RAW_FILE, allow_pickle=False) as arrays:
            return cls(**{f.name: arrays[f.name] for f in fields(cls)})

    def hw(self, camera: int) -> HW:
        height, width = self.camera_hw[camera]
        return int(height), int(width)
