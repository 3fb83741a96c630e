"""Selection of frames: windows of equal duration, the sharpest frame of each, near-duplicates dropped.

Independent of the kind of clip: a `Source` yields `Candidate`s in order, one at a time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Protocol

import numpy as np
from PIL import Image

from sfmttr.config import VideoConfig
from sfmttr.errors import ClipError
from sfmttr.frames.store import FrameStore
from sfmttr.types import HW, OnProgress, Progress, SkippedFrame

MIN_FRAMES = 3
"""Minimum number of frames for a reconstruction."""
GRAY_LONG_SIDE = 640
"""Longer side, in pixels, of the gray copies on which sharpness is measured."""
BLOCK = 4
"""Side, in pixels, of the blocks on whose means frames are compared. The means suppress sensor and coding noise, but
not a motion of one pixel."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """Readable frame that may be kept. The full picture is created only when it is kept."""

    number: int
    """Index of the frame in the source."""
    time_s: float
    gray: np.ndarray
    """(h, w) float32, 0 to 255, long side at most `GRAY_LONG_SIDE`."""
    image: Callable[[], Image.Image]
    """Creates the RGB picture, upright, with square pixels, at the stored size or larger."""


class Source(Protocol):
    """Source of candidates: a video or images."""

    skipped: list[SkippedFrame]
    """Frames that could not be read so far."""

    @property
    def names(self) -> Sequence[str]:
        """Names of all frames of the source."""
        ...

    @property
    def source_hw(self) -> HW:
        """Upright size with square pixels; known after the first candidate."""
        ...

    @property
    def focal_px(self) -> float | None:
        """Focal length in pixels at `source_hw`, or None; known after the last candidate."""
        ...

    def window_candidates(self) -> list[range]:
        """Return for each window the frames of which the sharpest is kept."""
        ...

    def candidates(self, numbers: Sequence[int]) -> Iterator[Candidate]:
        """Yield the readable ones of the requested frames (`numbers` ascend), one at a time."""
        ...


@dataclass
class SelectionState:
    """Frames selected and skipped so far."""

    numbers: list[int] = field(default_factory=list)
    time_s: list[float] = field(default_factory=list)
    skipped: list[SkippedFrame] = field(default_factory=list)
    duplicates: int = 0
    hw: HW = (0, 0)
    last_gray: np.ndarray | None = None


def keep_frames(source: Source, store: FrameStore, config: VideoConfig, on_progress: OnProgress) -> SelectionState:
    """Store the sharpest frame of each window, except near-duplicates of the last stored frame."""
    windows = source.window_candidates()
    candidates = source.candidates([number for window in windows for number in window])
    kept = SelectionState()
    for done, candidate in enumerate(sharpest_of_each(windows, candidates), start=1):
        if candidate is None:
            _note_unreadable(kept, source, windows[done - 1])
        elif _is_duplicate(candidate, kept, config):
            kept.duplicates += 1
            kept.skipped.append(SkippedFrame(source.names[candidate.number], "hardly differs from the frame before"))
        else:
            _store_frame(candidate, kept, store, config)
        on_progress(Progress("frames", done, len(windows)))
    return kept


def _store_frame(candidate: Candidate, kept: SelectionState, store: FrameStore, config: VideoConfig) -> None:
    image = candidate.image()
    kept.hw = fitted_hw((image.height, image.width), config.long_side)
    if image.size != kept.hw[::-1]:
        image = image.resize(kept.hw[::-1], Image.Resampling.LANCZOS)
    store.add(image)
    kept.numbers.append(candidate.number)
    kept.time_s.append(candidate.time_s)
    kept.last_gray = candidate.gray


def _is_duplicate(candidate: Candidate, kept: SelectionState, config: VideoConfig) -> bool:
    return kept.last_gray is not None and frame_difference(candidate.gray, kept.last_gray) < config.duplicate_threshold


def _note_unreadable(kept: SelectionState, source: Source, window: range) -> None:
    """Record a window without a readable frame, unless the source has already recorded why."""
    name = source.names[window.start]
    if all(frame.name != name for frame in source.skipped):
        kept.skipped.append(SkippedFrame(name, "cannot be decoded"))


def check_enough(kept: SelectionState, source: Source, clip_name: str) -> None:
    """Raise `ClipError`, with the likely cause, when too few frames were kept."""
    count, skipped = len(kept.numbers), len(source.skipped) + len(kept.skipped)
    if count >= MIN_FRAMES:
        return
    if kept.duplicates and kept.duplicates >= skipped - kept.duplicates:
        raise ClipError(
            f"the camera does not move in {clip_name}: all but {count} of its frames look alike; "
            "walk sideways while filming, or choose a segment with motion"
        )
    lost = f" ({skipped} more cannot be read)" if skipped else ""
    raise ClipError(f"{clip_name} has {count} usable frames{lost}; give at least {MIN_FRAMES}, better 20 or more")


def windows_in_time(times: Sequence[int], count: int) -> list[range]:
    """Divide frames at strictly ascending `times` (any unit) into at most `count` windows of equal duration.

    Windows are ranges of indices into `times`. Windows that would be empty, in a pause of a clip of variable frame
    rate, are left out.
    """
    n = len(times)
    if n <= count:
        return [range(i, i + 1) for i in range(n)]
    # The last frame is given the mean duration. Integer arithmetic: rounding cannot move a frame between windows.
    span = (times[-1] - times[0]) * n
    window_of = [(time - times[0]) * count * (n - 1) // span for time in times]
    groups = [list(group) for _, group in groupby(range(n), key=window_of.__getitem__)]
    return [range(group[0], group[-1] + 1) for group in groups]


def subsample_window(window: range, keyframes: Sequence[int], limit: int) -> range:
    """Return at most `limit` consecutive frames of a window, the candidates for selection.

    They start at the keyframe closest to the middle position, if the window has one: then no other frames need
    decoding, and the time for a long clip depends on the number of windows, not on its length.
    """
    if len(window) <= limit:
        return window
    centred = window.start + (len(window) - limit) // 2
    first = bisect_left(keyframes, window.start)
    last = bisect_left(keyframes, window.stop - limit + 1)
    start = min(keyframes[first:last], key=lambda keyframe: abs(keyframe - centred), default=centred)
    return range(start, start + limit)


def sharpest_of_each(windows: Sequence[range], candidates: Iterable[Candidate]) -> Iterator[Candidate | None]:
    """Yield the sharpest candidate of each window, in order; None for a window without a readable frame.

    Holds at most two candidates in memory: the best so far and the next.
    """
    index, best, best_sharpness = 0, None, -1.0
    for candidate in candidates:
        while candidate.number >= windows[index].stop:
            yield best
            index, best, best_sharpness = index + 1, None, -1.0
        candidate_sharpness = sharpness(candidate.gray)
        if candidate_sharpness > best_sharpness:  # the first of equals is kept
            best, best_sharpness = candidate, candidate_sharpness
    for _ in range(index, len(windows)):
        yield best
        best = None


def sharpness(gray: np.ndarray) -> float:
    """Return the variance of the Laplacian of a gray picture, (h, w) float32; 0 below 3 x 3 pixels."""
    if min(gray.shape) < 3:
        return 0.0
    neighbours = gray[:-2, 1:-1] + gray[2:, 1:-1] + gray[1:-1, :-2] + gray[1:-1, 2:]
    return float(np.var(neighbours - 4 * gray[1:-1, 1:-1]))


def frame_difference(gray_a: np.ndarray, gray_b: np.ndarray) -> float:
    """Return the mean absolute difference of two gray copies of equal size, on block means, in gray levels of 255."""
    return float(np.abs(_block_means(gray_a) - _block_means(gray_b)).mean())


def _block_means(gray: np.ndarray) -> np.ndarray:
    block = min(BLOCK, *gray.shape)
    rows, columns = gray.shape[0] // block, gray.shape[1] // block
    blocks = gray[: rows * block, : columns * block].reshape(rows, block, columns, block)
    return blocks.mean(axis=(1, 3), dtype=np.float32)


def fitted_hw(hw: HW, long_side: int) -> HW:
    """Return `hw` scaled down so that its longer side is at most `long_side`; at least one pixel a side."""
    scale = min(1.0, long_side / max(hw))
    return max(1, round(hw[0] * scale)), max(1, round(hw[1] * scale))
