"""Preview of a clip before it is refined: pictures, duration, and warnings."""

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
PREVIEW_SIDE_PX = 320
"""Long side of the frames of a preview."""


@dataclass(frozen=True)
class ClipPreview:
    """Facts about a clip and a few of its frames."""

    info: loader.ClipInfo
    used_s: float | None
    """Duration between start and end; None for images."""
    frames: int
    """Frames that will be used, at most."""
    pictures: tuple[np.ndarray, ...]
    """A few frames (h, w, 3) uint8, small."""
    motion: float
    """Mean absolute gray-level difference of neighboring pictures; nan with fewer than two."""


def preview_clip(clip: Path, config: VideoConfig) -> ClipPreview:
    """Read a few frames of a clip. Raises `ClipError` for a clip that cannot be used at all."""
    info = loader.probe(clip, config)
    used_s = None
    if info.duration_s is not None:
        end_s = info.duration_s if config.end_s is None else min(config.end_s, info.duration_s)
        used_s = max(0.0, end_s - config.start_s)
    small = replace(config, max_frames=PREVIEW_FRAMES, long_side=PREVIEW_SIDE_PX, duplicate_threshold=0.0)
    with tempfile.TemporaryDirectory(prefix="sfmttr-look-") as folder:
        frames = loader.load_frames(clip, small, Path(folder) / "frames")
        pictures = tuple(frames.read(i).rgb for i in range(len(frames)))
    grays = [picture.mean(axis=2) for picture in pictures]
    steps = [float(np.abs(a - b).mean()) for a, b in pairwise(grays)]
    return ClipPreview(info, used_s, info.frames_to_use, pictures, float(np.mean(steps)) if steps else math.nan)


def warnings(preview: ClipPreview, config: PageConfig) -> Iterator[str]:
    """Yield what is likely to fail, each in one sentence that says what to do."""
    if preview.used_s is not None and preview.used_s < config.short_clip_s:
        yield f"Only {preview.used_s:.1f} s of video: film for at least 3 seconds while walking."
    elif preview.frames < config.few_frames:
        yield f"Only {preview.frames} frames: use 20 or more, so that more of the place is seen from several sides."
    if preview.motion < config.hardly_moves:
        yield "The camera hardly moves: walk sideways while filming, a step or two is enough."
    if preview.used_s is not None and preview.frames > 1:
        interval_s = preview.used_s / preview.frames
        if interval_s > config.sparse_frames_s:
            yield (
                f"The used frames are {interval_s:.1f} s apart and may overlap too little: choose a shorter part of "
                "the clip, or more frames, under Advanced."
            )
