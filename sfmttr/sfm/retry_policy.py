"""The retry attempt_settings: which settings are tried, in what order, and which result is kept. Pure: planned are run elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from sfmttr.config import SfmConfig
from sfmttr.sfm.protocol import FIRST_ATTEMPT, Mapper, SfmSettings
from sfmttr.types import FrameSet, SfmAttempt

ENOUGH = 0.8
"""A rung that registers this share of the frames ends the run_attempts."""

_CLEARLY_MORE = 1.1
"""A later rung must register this much more than the best so far: later planned are the less trusted ones."""

T = TypeVar("T")


@dataclass(frozen=True)
class AttemptResult(Generic[T]):
    """What one rung gave; `model` None when it gave nothing."""

    attempt: SfmAttempt
    model: T | None = None
    not_recoverable: bool = False
    """No other rung can do better on this clip (nothing to see, or no motion)."""


@dataclass(frozen=True)
class AttemptLog(Generic[T]):
    """The outcome of the attempt_settings."""

    attempts: tuple[SfmAttempt, ...]
    best: AttemptResult[T] | None


def is_sequential(frames: FrameSet, config: SfmConfig) -> bool:
    """Whether frames are matched with their neighbours only, instead of each with each."""
    return frames.from_video or len(frames) > config.exhaustive_up_to


def attempt_settings(frames: FrameSet, config: SfmConfig) -> tuple[SfmSettings, ...]:
    """The planned for these frames, first choice first.

    All but the second start from the best pairs of the clip, however forward their motion is: driving clips need that.
    The second lets the library look for a pair under a wide angle.
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
    wide = replace(standard, name="wide first pair", first_pairs=0, max_forward_motion=0.95, min_first_angle_deg=16.0)
    more = replace(standard, name="more overlap", overlap=3 * overlap)
    thinned = replace(more, name="every second frame", every=2)
    last = replace(more, name="global mapper", mapper=Mapper.GLOBAL)
    return (standard, wide, more, thinned, last) if sequence else (standard, wide, last)


def run_attempts(
    planned: Sequence[SfmSettings],
    run: Callable[[SfmSettings, float], AttemptResult[T]],
    *,
    total: int,
    time_left_s: Callable[[], float],
) -> AttemptLog[T]:
    """Run planned until one registers enough of `total` frames, none can help, or the time is up; keep the best.

    `run(settings, seconds it may take)` does one rung; what it raises passes through.
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
