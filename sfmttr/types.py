"""Values that pass between stages: frozen, with shapes checked on construction.

Conventions (docs/architecture.md)
- Camera axes are OpenCV's: x right, y down, z forward. Depth is camera z, never ray length.
- Transforms are named `target_from_source`; sizes are `(height, width)` and named `hw`.
- Pixels are COLMAP's: the center of the top-left pixel is (0.5, 0.5).
- "SfM units" are the arbitrary length unit of one reconstruction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from PIL import Image

HW = tuple[int, int]
"""Height and width in pixels."""


class DepthKind(StrEnum):
    """Meaning of depth values. Values of different kinds are never mixed."""

    METRIC = "metric"
    """Meters."""
    SCALE_INVARIANT = "scale_invariant"
    """Network units: meters up to one unknown factor per network."""
    AFFINE_DISPARITY = "affine_disparity"
    """Inverse depth up to an unknown scale and shift."""

    @property
    def as_depth(self) -> DepthKind:
        """Kind after conversion to depth: disparity becomes scale-invariant depth."""
        return DepthKind.SCALE_INVARIANT if self is DepthKind.AFFINE_DISPARITY else self


class ResultOrigin(StrEnum):
    """Where the result of a stage comes from."""

    COMPUTED = "computed"
    RUN_FOLDER = "run_folder"
    """Read from the run folder, where an earlier call finished the stage."""
    CACHE = "cache"
    """Copied from the cache of reconstructions, which all runs share."""


@dataclass(frozen=True)
class Progress:
    """Progress of one stage of a run.

    `note` is for people alone: programs decide by the other fields.
    """

    stage: str
    """Name of the stage (`sfmttr.run.stages`), e.g. "frames", "sfm", "refine"."""
    done: int
    total: int
    """Units of work done and expected; `total` 0 means unknown."""
    note: str = ""
    phase: str = ""
    """Part of the stage: of "sfm" a `SfmPhase`, of "export" a variant or a step; empty when it has no parts."""
    attempt: str = ""
    """Name of the settings that structure-from-motion is trying; empty in other stages."""
    origin: ResultOrigin = ResultOrigin.COMPUTED


OnProgress = Callable[[Progress], None]
"""Called during long stages. It may raise `Cancelled`, which a stage propagates after cleaning up."""


def ignore_progress(progress: Progress) -> None:
    """Ignore progress: the default `OnProgress`."""


# --------------------------------------------------------------------------------------- frames


@dataclass(frozen=True)
class SkippedFrame:
    """A frame of the source that was selected but could not be used."""

    name: str
    reason: str


@dataclass(frozen=True)
class Frame:
    """One frame in memory."""

    name: str
    number: int
    """Index of the frame in its source: video frame number, or position in name order."""
    time_s: float
    rgb: np.ndarray
    """(H, W, 3) uint8, sRGB."""


@dataclass(frozen=True)
class FrameSet:
    """Selected frames of a clip, stored as image files that are read on demand."""

    folder: Path
    """Folder with one lossless image per frame, of size `hw`."""
    files: tuple[str, ...]
    """File names within `folder`, in time order."""
    names: tuple[str, ...]
    """Names for matching ground truth: the stem of the source image, or the frame number in the video."""
    numbers: tuple[int, ...]
    """Index of each frame in the source."""
    time_s: tuple[float, ...]
    hw: HW
    """Size of the stored frames."""
    source_hw: HW
    """Size in the source, after rotation to the upright orientation."""
    source_count: int
    """Number of frames in the source; 0 when unknown."""
    from_video: bool
    content_hash: str
    """SHA-256 of the stored pixels in order."""
    focal_prior_px: float | None
    """Focal length from EXIF, in pixels at size `hw`; None when there is none."""
    skipped: tuple[SkippedFrame, ...] = ()

    def __post_init__(self) -> None:
        lengths = {len(self.files), len(self.names), len(self.numbers), len(self.time_s)}
        if len(lengths) != 1:
            raise ValueError(f"files, names, numbers and times differ in length: {lengths}")

    def __len__(self) -> int:
        return len(self.files)

    def path(self, i: int) -> Path:
        """Path of the image of frame `i`."""
        return self.folder / self.files[i]

    def read(self, i: int) -> Frame:
        """Read frame `i` into memory."""
        with Image.open(self.path(i)) as image:
            rgb = np.asarray(image.convert("RGB"))
        return Frame(self.names[i], self.numbers[i], self.time_s[i], rgb)


# ------------------------------------------------------------------------------------------ SfM


@dataclass(frozen=True)
class Camera:
    """Pinhole camera with OpenCV's radial and tangential distortion (COLMAP's OPENCV), in pixels of size `hw`."""

    hw: HW
    fx: float
    fy: float
    cx: float
    cy: float
    k1: float = 0.0
    k2: float = 0.0
    p1: float = 0.0
    p2: float = 0.0

    @property
    def horizontal_view_deg(self) -> float:
        """Horizontal field of view."""
        return float(np.degrees(2 * np.arctan(self.hw[1] / (2 * self.fx))))

    def scaled_to(self, hw: HW) -> Camera:
        """Return the camera of the image resized to `hw`. COLMAP's pixel coordinates scale without an offset."""
        sy, sx = hw[0] / self.hw[0], hw[1] / self.hw[1]
        return Camera(hw, self.fx * sx, self.fy * sy, self.cx * sx, self.cy * sy, self.k1, self.k2, self.p1, self.p2)


@dataclass(frozen=True)
class SparsePoints:
    """3D points of a reconstruction."""

    xyz_in_world: np.ndarray
    """(P, 3) float64, SfM units."""
    rgb: np.ndarray
    """(P, 3) uint8."""
    error_px: np.ndarray
    """(P,) float32, mean reprojection error over the point's track, pixels of the stored frames."""
    track_length: np.ndarray
    """(P,) int32, number of frames in which the point is observed."""
    triangulation_angle_deg: np.ndarray
    """(P,) float32, largest angle between two viewing rays of the point."""

    def __post_init__(self) -> None:
        count = len(self.xyz_in_world)
        if self.xyz_in_world.shape != (count, 3) or self.rgb.shape != (count, 3):
            raise ValueError(f"{self.xyz_in_world.shape=} {self.rgb.shape=}, expected (P, 3)")
        for array in (self.error_px, self.track_length, self.triangulation_angle_deg):
            if array.shape != (count,):
                raise ValueError(f"{array.shape=}, expected ({count},)")

    def __len__(self) -> int:
        return len(self.xyz_in_world)


@dataclass(frozen=True)
class SparseView:
    """A registered frame with its observed points: those inside the image with depth > 0."""

    frame: int
    """Position in the `FrameSet`."""
    camera: Camera
    """At the size of the stored frames."""
    cam_from_world: np.ndarray
    """(4, 4) float64, rigid, SfM units."""
    xy_px: np.ndarray
    """(M, 2) float32, observed position of the point, in pixels of the stored frames."""
    depth: np.ndarray
    """(M,) float32 > 0, camera z of the point, SfM units."""
    point: np.ndarray
    """(M,) int64, row of the point in `SparsePoints`."""

    def __post_init__(self) -> None:
        count = len(self.depth)
        if self.cam_from_world.shape != (4, 4):
            raise ValueError(f"{self.cam_from_world.shape=}, expected (4, 4)")
        if self.xy_px.shape != (count, 2) or self.point.shape != (count,) or self.depth.shape != (count,):
            raise ValueError(f"{self.xy_px.shape=} {self.depth.shape=} {self.point.shape=} do not agree")


@dataclass(frozen=True)
class SfmHealth:
    """Quality of a reconstruction, measured without any network."""

    registered: int
    total: int
    points: int
    mean_track_length: float
    mean_reprojection_error_px: float
    focal_px: float
    focal_given: bool
    horizontal_view_deg: float
    median_triangulation_angle_deg: float
    step_evenness: float
    """Coefficient of variation of the camera's speed: 0 for uniform motion, larger for uneven motion."""
    degenerate_pair_ratio: float
    """Share of verified image pairs explained by a homography (planar scene or pure rotation); NaN when unknown."""
    score: float
    """Overall score, from 0 (inconsistent) to 1 (healthy)."""
    concerns: tuple[str, ...]
    """Reasons for a low score, as clauses for the user."""
    advice: str
    """One sentence with advice; empty when healthy."""
    halves_disagreement: float | None = None
    """Median |log ratio| of depths reconstructed from the first and from the second half of the clip; 1 when a half
    gives no model; None when not measured, because the other figures decide."""


@dataclass(frozen=True)
class SfmAttempt:
    """One attempt of the retry policy."""

    rung: str
    """Name of the attempt's settings."""
    registered: int
    points: int
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class SparseModel:
    """A reconstruction, independent of the library that made it."""

    views: tuple[SparseView, ...]
    """In frame order, registered frames only."""
    points: SparsePoints
    health: SfmHealth
    rung: str
    """Name of the attempt that succeeded, or "given" for a model from the user."""
    attempts: tuple[SfmAttempt, ...]
    seconds: float
    colmap_folder: Path
    """Folder of the model in COLMAP's binary format."""


class NoModelReason(StrEnum):
    """Why structure-from-motion gave no model."""

    ONE_FRAME = "one_frame"
    OUT_OF_TIME = "out_of_time"
    CRASHED = "crashed"
    """It ended with an error before any image pair was matched."""
    TEXTURELESS = "textureless"
    """The median image has too few features."""
    NO_OVERLAP = "no_overlap"
    """No image pair has enough matches."""
    STATIC = "static"
    """The image hardly moves."""
    ROTATION = "rotation"
    """A homography explains nearly all image pairs: the camera turned without moving."""
    UNSTABLE = "unstable"
    """Image pairs match but fit no common 3D model."""


@dataclass(frozen=True)
class NoModel:
    """Outcome of structure-from-motion without a usable model."""

    attempts: tuple[SfmAttempt, ...]
    total: int
    """Number of frames."""
    reason: NoModelReason
    advice: str
    """One or two sentences: why there is no model, and what may help."""
    seconds: float


# ---------------------------------------------------------------------------------------- depth


@dataclass(frozen=True)
class Depth:
    """Depth of one frame."""

    values: np.ndarray
    """(H, W) float32; camera z > 0, or inverse depth when `kind` is affine disparity."""
    kind: DepthKind

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.dtype != np.float32:
            raise ValueError(f"{self.values.shape=} {self.values.dtype=}, expected (H, W) float32")
