"""What a clip holds, looked at before it is refined: pictures, duration, and warnings."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from sfmttr.config import VideoConfig
from sfmttr.frames import loader

from .config import PageConfig

PREVIEW_FRAMES = 6
"""Frames of the preview."""
PREVIEW_SIDE_PX = 320


@dataclass(frozen=True)
class ClipPreview:
    """A glance at a clip."""

    info: loader.ClipInfo
    used_s: float | None
    """Duration between start and end; None for images."""
    frames: int
    """That will be used, at most."""
    pictures: tuple[np.ndarray, ...]
    """A few frames (h, w, 3) uint8, small."""
    motion: float
    """Mean grey levels that neighbours among them differ by; nan with fewer than two."""


def preview_clip(clip: Path, config: VideoConfig) -> ClipPreview:
    """Read a few frames. Raises `ClipError` for a clip that cannot be used at all."""
    info = loader.probe(clip, config)
    used_s = None
    if info.duration_s is not None:
        end_s = info.duration_s if config.end_s is None else min(config.end_s, info.duration_s)
        used_s = max(0.0, end_s - config.start_s)
    small = replace(config, max_frames=PREVIEW_FRAMES, long_side=PREVIEW_SIDE_PX, duplicate_threshold=0.0)
    with tempfile.TemporaryDirectory(prefix="sfmttr-preview-") as folder:
        frames = loader.load_frames(clip, small, Path(folder) / "frames")
        pictures = tuple(frames.read(i).rgb for i in range(len(frames)))
    greys = [picture.mean(axis=2) for picture in pictures]
    steps = [float(np.abs(a - b).mean()) for a, b in pairwise(greys)]
    return ClipPreview(info, used_s, info.frames_to_use, pictures, float(np.mean(steps)) if steps else math.nan)


def warnings(preview: ClipPreview, config: PageConfig) -> Iterator[str]:
    """What is likely to fail, each in one sentence that says what to do."""
    if preview.used_s is not None and preview.used_s < config.short_clip_s:
        yield f"Only {preview.used_s:.1f} s of video: structure-from-motion wants a few seconds of walking."
    elif preview.frames < config.few_frames:
        yield f"Only {preview.frames} frames: with 20 or more, more of the place is seen from several sides."
    if preview.motion < config.hardly_moves:
        yield "The camera hardly moves: walk sideways while filming, a step or two is enough."
    if preview.used_s is not None and preview.frames > 1 and preview.used_s / preview.frames > config.sparse_frames_s:
        yield (
            f"Used frames are {preview.used_s / preview.frames:.1f} s apart, so neighbours may share little: "
            "choose a shorter stretch, or more frames, under Advanced."
        )
