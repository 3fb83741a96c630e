"""Factor from the network's units to meters, from one measured distance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sfmttr.errors import ConfigError
from sfmttr.evaluation.comparison import Column
from sfmttr.evaluation.ground_plane import camera_height
from sfmttr.geometry import resize_numpy
from sfmttr.io.depth_maps import read_maps
from sfmttr.networks.base import TorchPredictor, source_frames
from sfmttr.run.finished import FinishedRun
from sfmttr.sfm import reconstruction
from sfmttr.types import DepthKind

CAMERA_HEIGHT_FRAMES = 20
"""Frames from which the camera's height in network units is estimated."""


@dataclass(frozen=True)
class KnownDepth:
    """Measured depth (camera z) at one pixel of one frame."""

    frame: int
    row: int
    column: int
    metres: float


@dataclass(frozen=True)
class ScaledPredictor:
    """Torch network in the unit of the export: the reference for every file."""

    predictor: TorchPredictor
    scale: float
    kind: DepthKind

    @property
    def source_offsets(self) -> tuple[int, ...]:
        return self.predictor.source_offsets

    def predict(self, rgb: np.ndarray, *source_frames: np.ndarray) -> np.ndarray:
        """Predict depth (H, W) float32 for an image (H, W, 3) uint8."""
        return self.predictor.predict(rgb, *source_frames) * np.float32(self.scale)


def metric_scale(
    known_depth: KnownDepth | None, camera_height_m: float | None, run: FinishedRun, predictor: TorchPredictor
) -> float:
    """Return the factor from the network's depth to meters, and 1 when neither distance is known.

    Raises `ConfigError` when both are given or one is invalid, `AlignmentError` when too few frames show the ground.
    """
    if known_depth is not None and camera_height_m is not None:
        raise ConfigError("give a known depth or the camera's height, not both: they may contradict each other")
    if known_depth is not None:
        return _scale_from_depth(known_depth, run, predictor)
    if camera_height_m is not None:
        return _scale_from_height(camera_height_m, run)
    return 1.0


def _scale_from_height(height_m: float, run: FinishedRun) -> float:
    """Return the scale at which the ground plane in the refined depth lies `height_m` below the camera."""
    if not (math.isfinite(height_m) and height_m > 0):
        raise ConfigError(f"the camera's height is {height_m} m; it has to be more than 0")
    maps = read_maps(run.folder / "depth" / f"{Column.AFTER}.npz")
    views = reconstruction.load_model(run.frames, run.folder / "sfm").views
    sampled = views[:: max(1, len(views) // CAMERA_HEIGHT_FRAMES)]
    return height_m / camera_height((resize_numpy(maps[v.frame], run.frames.hw), v.camera) for v in sampled)


def _scale_from_depth(known: KnownDepth, run: FinishedRun, predictor: TorchPredictor) -> float:
    """Return the scale at which the predicted depth at the pixel equals the measured one."""
    h, w = run.frames.hw
    if not 0 <= known.frame < len(run.frames):
        raise ConfigError(
            f"frame {known.frame} of the known depth is not in the run: it has 0 to {len(run.frames) - 1}"
        )
    if not (0 <= known.row < h and 0 <= known.column < w):
        raise ConfigError(f"row {known.row}, column {known.column} of the known depth are outside of {h} x {w}")
    if not (math.isfinite(known.metres) and known.metres > 0):
        raise ConfigError(f"the known depth is {known.metres} m; it has to be more than 0")
    depth = predictor.predict(run.frames.read(known.frame).rgb, *source_frames(predictor, run.frames, known.frame))
    return known.metres / float(depth[known.row, known.column])
