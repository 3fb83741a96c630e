"""The data that flows between stages: frozen values with shapes checked once, here.

Conventions (DESIGN section 3)
- Camera axes are OpenCV's: x right, y down, z forward. Depth is camera z, never ray length.
- Transforms are named `target_from_source`; sizes are `(height, width)` and named `hw`.
- Pixels are COLMAP's: the centre of the top-left pixel is (0.5, 0.5).
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


class DepthKind(StrEnum):
    """What a depth value means. Values of different kinds never mix."""

    METRIC = "metric"
    """Metres."""
    SCALE_INVARIANT = "scale_invariant"
    """Network units: metres up to one unknown factor for the network."""
    AFFINE_DISPARITY = "affine_disparity"
    """Inverse depth up to an unknown scale and shift."""

    @property
    def as_depth(self) -> DepthKind:
        """Of the depth that is made of it: what is made of disparity is depth up to scale."""
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
"""Called from long stages. It may raise `Cancelled`; a stage then cleans up and lets it through."""


def ignore_progress(progress: Progress) -> None:
    """The `OnProgress` of callers that do not want any."""


# --------------------------------------------------------------------------------------- frames


@dataclass(frozen=True)
class SkippedFrame:
    """A frame of the source that was meant to be used and was not."""

    name: str
    reason: str


@dataclass(frozen=True)
class Frame:
    """One frame in memory."""

    name: str
    number: int
    """Index of the frame in its source (video frame number, or position in name order)."""
    time_s: float
    rgb: np.ndarray
    """(H, W, 3) uint8, sRGB."""


@dataclass(frozen=True)
class FrameSet:
    """The chosen frames of a clip, stored as image files; pixels stay on disk until read."""

    folder: Path
    """Holds one lossless image a frame, at `hw`."""
    files: tuple[str, ...]
    """File names within `folder`, in time order."""
    names: tuple[str, ...]
    """Names that ground truth is matched by: the stem of the source image, or of a video's frame its number."""
    numbers: tuple[int, ...]
    """Index of each frame in the source."""
    time_s: tuple[float, ...]
    hw: HW
    """Size of the stored frames."""
    source_hw: HW
    """Size in the source, after rotation."""
    source_count: int
    """Frames in the source; 0 when unknown."""
    from_video: bool
    content_hash: str
    """sha256 over the stored pixels and their order."""
    focal_prior_px: float | None
    """Focal length from EXIF at size `hw`, if there was any."""
    skipped: tuple[SkippedFrame, ...] = ()

    def __post_init__(self) -> None:
        lengths = {len(self.files), len(self.names), len(self.numbers), len(self.time_s)}
        if len(lengths) != 1:
            raise ValueError(f"files, names, numbers and times differ in length: {lengths}")

    def __len__(self) -> int:
        return len(self.files)

    def path(self, i: int) -> Path:
        return self.folder / self.files[i]

    def read(self, i: int) -> Frame:
        with Image.open(self.path(i)) as image:
            rgb = np.asarray(image.convert("RGB"))
        return Frame(self.names[i], self.numbers[i], self.time_s[i], rgb)


# ------------------------------------------------------------------------------------------ SfM


@dataclass(frozen=True)
class Camera:
    """Pinhole camera with OpenCV's radial and tangential distortion, in pixels of an image of size `hw`."""

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
        return float(np.degrees(2 * np.arctan(self.hw[1] / (2 * self.fx))))

    def scaled_to(self, hw: HW) -> Camera:
        """The same camera for the image resized to `hw` (COLMAP pixels scale without an offset)."""
        sy, sx = hw[0] / self.hw[0], hw[1] / self.hw[1]
        return Camera(hw, self.fx * sx, self.fy * sy, self.cx * sx, self.cy * sy, self.k1, self.k2, self.p1, self.p2)


@dataclass(frozen=True)
class SparsePoints:
    """The 3D points of a reconstruction."""

    xyz_in_world: np.ndarray
    """(P, 3) float64, SfM units."""
    rgb: np.ndarray
    """(P, 3) uint8."""
    error_px: np.ndarray
    """(P,) float32, mean reprojection error over the point's track, pixels of the stored frames."""
    track_length: np.ndarray
    """(P,) int32, number of frames that see the point."""
    triangulation_angle_deg: np.ndarray
    """(P,) float32, largest angle between two of its rays."""

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
    """One registered frame and the points that it sees (depth > 0 only, inside the image only)."""

    frame: int
    """Position in the `FrameSet`."""
    camera: Camera
    """At the size of the stored frames."""
    cam_from_world: np.ndarray
    """(4, 4) float64, rigid, SfM units."""
    xy_px: np.ndarray
    """(M, 2) float32, where the point was seen, pixels of the stored frames."""
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
    """The health card: what a reconstruction says about itself, without looking at any network."""

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
    """Standard deviation over mean of the distance between neighbouring cameras per second; even paths are near 0."""
    degenerate_pair_ratio: float
    """Share of verified image pairs that a homography (planar scene or pure rotation) explains; nan when unknown."""
    score: float
    """0 (does not fit itself) to 1 (healthy)."""
    concerns: tuple[str, ...]
    """What lowered the score, in plain words."""
    advice: str
    """One sentence on what may help; empty when healthy."""
    halves_disagreement: float | None = None
    """Median |log ratio| between depths from the earlier and from the later part of the clip; 1 when a part alone finds
    no model. Measured only when the other figures leave doubt; None when it was not."""


@dataclass(frozen=True)
class SfmAttempt:
    """One rung of the retry ladder."""

    rung: str
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
    """Which rung of the ladder gave it, or "given" for a model that the user brought."""
    attempts: tuple[SfmAttempt, ...]
    seconds: float
    colmap_folder: Path
    """The same model in COLMAP's binary format."""


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
    """Structure-from-motion ran and found nothing to use."""

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
    """(H, W) float32; camera z > 0, or inverse depth when `kind` says so."""
    kind: DepthKind

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.dtype != np.float32:
            raise ValueError(f"{self.values.shape=} {self.values.dtype=}, expected (H, W) float32")
