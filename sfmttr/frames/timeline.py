"""Presentation times of a video's frames, and the segments to decode. Independent of the video library."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

# A seek flushes the decoder's pipeline, so a few frames are faster decoded than skipped.
MIN_SKIP_FOR_SEEK = 8
"""Minimum number of skipped frames that is worth a seek, which flushes the decoder's pipeline."""


@dataclass(frozen=True)
class Timeline:
    """Presentation times and keyframes of a video, known before any frame is decoded."""

    pts: tuple[int, ...]
    """Presentation timestamps, strictly ascending, in units of `time_base`; the index is the frame number."""
    keyframes: tuple[int, ...]
    """Numbers of the frames at which decoding can start, ascending."""
    time_base: Fraction
    missing_frames: int = 0
    """Number of frames that the header declares and the file lacks; 0 when the header declares none."""
    synthetic_pts: bool = False
    """True when the file has no presentation timestamps: frames are counted from the start, without seeking."""

    @classmethod
    def evenly_timed(cls, frames: int, duration_s: float) -> Timeline:
        """Return a timeline of `frames` at a constant rate, for a file without timestamps."""
        return cls(
            tuple(range(frames)), (0,), Fraction(duration_s / frames).limit_denominator(10**6), synthetic_pts=True
        )

    def time_s(self, number: int) -> float:
        """Return the time of a frame in seconds after the first one."""
        return float((self.pts[number] - self.pts[0]) * self.time_base)

    def between(self, start_s: float, end_s: float | None) -> range:
        """Return the numbers of the frames with start_s <= time < end_s."""
        start = bisect_left(range(len(self.pts)), start_s, key=self.time_s)
        stop = len(self.pts) if end_s is None else bisect_left(range(len(self.pts)), end_s, key=self.time_s)
        return range(start, stop)


@dataclass(frozen=True)
class DecodeSegment:
    """Frames decoded in one pass, without a seek in between."""

    start: int
    """Number of the keyframe at which decoding starts."""
    numbers: tuple[int, ...]
    """Numbers of the requested frames from there on, ascending."""


def decode_segments(numbers: Sequence[int], keyframes: Sequence[int]) -> list[DecodeSegment]:
    """Group ascending frame `numbers` into segments so that few other frames are decoded between them."""
    starts, groups = [0], list[list[int]]([[]])
    for number in numbers:
        before = bisect_right(keyframes, number)
        keyframe = keyframes[before - 1] if before else 0
        if keyframe - (groups[-1][-1] if groups[-1] else 0) > MIN_SKIP_FOR_SEEK:
            starts.append(keyframe)
            groups.append([])
        groups[-1].append(number)
    return [DecodeSegment(start, tuple(group)) for start, group in zip(starts, groups, strict=True) if group]
