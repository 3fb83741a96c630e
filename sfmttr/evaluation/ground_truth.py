"""Ground-truth depth: files matched to frames, read one at a time."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from sfmttr.config import GroundTruthConfig
from sfmttr.errors import GroundTruthError
from sfmttr.io.depth_files import MILLIMETRES, stated_scale
from sfmttr.types import FrameSet

COMPANION_SUFFIX = ".depth"
"""Suffix of the folder with a clip's ground truth: `street.depth/` next to `street.mp4`."""


def find_companion_ground_truth(clip: Path) -> GroundTruthConfig | None:
    """Return the ground truth in the clip's companion folder (protocol "plain"); None when there is no such folder."""
    folder = clip.with_name(f"{clip.name if clip.is_dir() else clip.stem}{COMPANION_SUFFIX}")
    return GroundTruthConfig(folder) if folder.is_dir() else None


@dataclass(frozen=True)
class GroundTruth:
    """Ground-truth depth maps on disk, for some of the frames."""

    files: Mapping[int, Path]
    """16-bit PNG by position in the `FrameSet`."""
    scale: float | None
    """Depth in meters = value / scale, 0 is no measurement; None: the scale stated in each file, else millimeters."""

    def read(self, frame: int) -> np.ndarray:
        """Read depth (H, W) float32 in meters, 0 where unknown. Raises `GroundTruthError` for other files."""
        path = self.files[frame]
        try:
            with Image.open(path) as image:
                mode, values = image.mode, np.asarray(image)
                scale = self.scale or stated_scale(getattr(image, "text", {})) or MILLIMETRES
        except (OSError, ValueError, UnidentifiedImageError) as error:
            raise GroundTruthError(f"{path.name} cannot be read as a depth image ({error}).") from error
        if values.ndim != 2 or mode in ("P", "1"):  # palette indices and bilevel values are no depths
            raise GroundTruthError(f"{path.name} is a picture (mode {mode}); ground truth is one 16-bit channel.")
        return values.astype(np.float32) / np.float32(scale)


def match_ground_truth(frames: FrameSet, folder: Path, scale: float | None) -> GroundTruth:
    """Match ground-truth files to frames: by name; for videos by frame number, or in order when the counts agree.

    Raises `GroundTruthError` when the folder is missing or nothing matches.
    """
    paths = check_folder(folder, scale)
    files = _by_number(frames, paths) if frames.from_video else _by_name(frames, paths)
    if not files:
        raise GroundTruthError(
            f"No file in {folder} matches a frame: name them like the frames, or by the frame's number in the video."
        )
    return GroundTruth(files, scale)


def check_folder(folder: Path, scale: float | None) -> list[Path]:
    """Return the depth maps of a folder, sorted by name.

    Raises `GroundTruthError` when the folder is missing or empty, or when the scale is not positive.
    """
    if scale is not None and not 0 < scale < math.inf:
        raise GroundTruthError("The scale of the ground truth must be positive: depth = value / scale.")
    if not folder.is_dir():
        raise GroundTruthError(f"There is no folder of ground truth at {folder}.")
    paths = sorted(folder.glob("*.png"), key=lambda path: path.name)
    if not paths:
        raise GroundTruthError(f"{folder} has no PNG files: ground truth is one 16-bit PNG per frame.")
    return paths


def _by_name(frames: FrameSet, paths: list[Path]) -> dict[int, Path]:
    known = {path.stem: path for path in paths}
    return {i: known[name] for i, name in enumerate(frames.names) if name in known}


def _by_number(frames: FrameSet, paths: list[Path]) -> dict[int, Path]:
    numbers = [int(digits[-1]) if (digits := re.findall(r"\d+", path.stem)) else -1 for path in paths]
    if frames.source_count and max(numbers) >= frames.source_count:
        if len(paths) != frames.source_count:
            raise GroundTruthError(
                f"The ground truth is numbered up to {max(numbers)} and the video has {frames.source_count} frames: "
                "number the files by frame, from 0."
            )
        # Other numbers, but one file per frame: match in numeric order (by name, 10 would come before 2).
        paths = [path for _, path in sorted(zip(numbers, paths, strict=True))]
        numbers = list(range(len(paths)))
    known = dict(zip(numbers, paths, strict=True))
    return {i: known[number] for i, number in enumerate(frames.numbers) if number in known}
