"""Retry policy: which settings are attempted in which order, and which result is kept. Runs nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from sfmttr.config import SfmConfig
from sfmttr.sfm.protocol import FIRST_ATTEMPT, Mapper, SfmSettings
from sfmttr.types import FrameSet, SfmAttempt

ENOUGH = 0.8
"""An attempt that registers this share of the frames is the last one."""

_CLEARLY_MORE = 1.1
# Later attempts use riskier settings, so one must register clearly more frames to replace an earlier one.

T = TypeVar("T")


@dataclass(frozen=True)
class AttemptResult(Generic[T]):
    """Result of one attempt; `model` is None when it found no model."""

    attempt: SfmAttempt
    model: T | None = None
    not_recoverable: bool = False
    """No other settings can do better on this clip (no texture, or no motion)."""
    interrupted: bool = False
    """It ran out of time or crashed, which says nothing about the clip."""


@dataclass(frozen=True)
class AttemptLog(Generic[T]):
    """All attempts, and the best result."""

    attempts: tuple[SfmAttempt, ...]
    best: AttemptResult[T] | None


def is_sequential(frames: FrameSet, config: SfmConfig) -> bool:
    """Return whether frames are matched sequentially instead of exhaustively."""
    return frames.from_video or len(frames) > config.exhaustive_up_to


def attempt_settings(frames: FrameSet, config: SfmConfig) -> tuple[SfmSettings, ...]:
    """Return the settings to attempt for these frames, in order.

    All but the second start from the best initial pairs of the clip, however forward their motion is: driving clips
    need that. The second lets COLMAP search for a wide-baseline initial pair.
    """
    sequence = is_sequential(frames, config)
    # A large folder is matched in the order of its names, which may not be the order of the camera's path.
    overlap = config.overlap * (1 if frames.from_video else 2) if sequence else 0
    standard = SfmSettings(
        FIRST_ATTEMPT,
        long_side=config.long_side,
        max_features=config.max_features,
        contrast=config.contrast,
        overlap=overlap,
    )
    wide_baseline = replace(
        standard, name="wide first pair", first_pairs=0, max_forward_motion=0.95, min_first_angle_deg=16.0
    )
    more = replace(standard, name="more overlap", overlap=3 * overlap)
    thinned = replace(more, name="every second frame", every=2)
    last = replace(more, name="global mapper", mapper=Mapper.GLOBAL)
    return (standard, wide_baseline, more, thinned, last) if sequence else (standard, wide_baseline, last)


def run_attempts(
    planned: Sequence[SfmSettings],
    run: Callable[[SfmSettings, float], AttemptResult[T]],
    *,
    total: int,
    time_left_s: Callable[[], float],
) -> AttemptLog[T]:
    """Run attempts until one registers enough of `total` frames, none can help, or the time is up; keep the best.

    `run(settings, limit_s)` makes one attempt; its exceptions pass through.
    """
    attempts: list[SfmAttempt] = []
    best: AttemptResult[T] | None = None
    for settings in planned:
        left_s = time_left_s()
        if left_s <= 0:
            break
        result = run(settings, left_s)
        attempts.append(result.attempt)
        if result.model is not None and (best is None or _clearly_better(result.attempt, best.attempt)):
            best = result
        if result.not_recoverable or (best is not None and best.attempt.registered >= ENOUGH * total):
            break
    return AttemptLog(tuple(attempts), best)


def _clearly_better(later: SfmAttempt, earlier: SfmAttempt) -> bool:
    return later.registered > _CLEARLY_MORE * earlier.registered
