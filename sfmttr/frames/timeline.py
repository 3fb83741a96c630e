"""When the frames of a video are shown, and which of them are decoded in one go. Knows no video library."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

MIN_SKIP_FOR_SEEK = 8
"""A seek empties the decoder's pipeline; fewer frames than this are quicker decoded than jumped over."""


@dataclass(frozen=True)
class Timeline:
    """When each frame of a video is shown, known before any is decoded."""

    pts: tuple[int, ...]
    """Strictly ascending, in units of `time_base`; the position is the frame's number."""
    keyframes: tuple[int, ...]
    """Numbers of the frames that decoding can start at, ascending."""
    time_base: Fraction
    missing_frames: int = 0
    """Frames that the header promises and the file does not hold; 0 when it promises none."""
    synthetic_pts: bool = False
    """The file does not say when each frame is shown: they are numbered by evenly_timed from the start, without seeking."""

    @classmethod
    def evenly_timed(cls, frames: int, duration_s: float) -> Timeline:
        """`frames` at an even rate, for a file that says no more."""
        return cls(
            tuple(range(frames)), (0,), Fraction(duration_s / frames).limit_denominator(10**6), synthetic_pts=True
        )

    def time_s(self, number: int) -> float:
        return float((self.pts[number] - self.pts[0]) * self.time_base)

    def between(self, start_s: float, end_s: float | None) -> range:
        """Numbers of the frames with start_s <= time < end_s."""
        start = bisect_left(range(len(self.pts)), start_s, key=self.time_s)
        stop = len(self.pts) if end_s is None else bisect_left(range(len(self.pts)), end_s, key=self.time_s)
        return range(start, stop)


@dataclass(frozen=True)
class DecodeSegment:
    """Frames decoded in one go."""

    start: int
    """The keyframe that decoding starts at."""
    numbers: tuple[int, ...]
    """The wanted ones among the frames from there on, ascending."""


def decode_segments(numbers: Sequence[int], keyframes: Sequence[int]) -> list[DecodeSegment]:
    """Where to seek so that ascending `numbers` are decoded with little else between them."""
    starts, groups = [0], list[list[int]]([[]])
    for number in numbers:
        before = bisect_right(keyframes, number)
        keyframe = keyframes[before - 1] if before else 0
        if keyframe - (groups[-1][-1] if groups[-1] else 0) > MIN_SKIP_FOR_SEEK:
            starts.append(keyframe)
            groups.append([])
        groups[-1].append(number)
    return [DecodeSegment(start, tuple(group)) for start, group in zip(starts, groups, strict=True) if group]
