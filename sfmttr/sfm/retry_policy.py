"""The retry ladder: which recipes are tried, in what order, and which result is kept. Pure: rungs are run elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from sfmttr.config import SfmConfig
from sfmttr.sfm.protocol import FIRST_RUNG, Mapper, Recipe
from sfmttr.types import FrameSet, SfmAttempt

ENOUGH = 0.8
"""A rung that registers this share of the frames ends the climb."""

_CLEARLY_MORE = 1.1
"""A later rung must register this much more than the best so far: later rungs are the less trusted ones."""

T = TypeVar("T")


@dataclass(frozen=True)
class RungResult(Generic[T]):
    """What one rung gave; `model` None when it gave nothing."""

    attempt: SfmAttempt
    model: T | None = None
    hopeless: bool = False
    """No other rung can do better on this clip (nothing to see, or no motion)."""
    interrupted: bool = False
    """It ran out of time or crashed, which tells nothing about the clip."""


@dataclass(frozen=True)
class Climb(Generic[T]):
    """The outcome of the ladder."""

    attempts: tuple[SfmAttempt, ...]
    best: RungResult[T] | None


def in_sequence(frames: FrameSet, config: SfmConfig) -> bool:
    """Whether frames are matched with their neighbours only, instead of each with each."""
    return frames.from_video or len(frames) > config.exhaustive_up_to


def ladder(frames: FrameSet, config: SfmConfig) -> tuple[Recipe, ...]:
    """The rungs for these frames, first choice first.

    All but the second start from the best pairs of the clip, however forward their motion is: driving clips need that.
    The second lets the library look for a pair under a wide angle.
    """
    sequence = in_sequence(frames, config)
    # A large folder is matched in the order of its names, which may not be the order of the camera's path.
    overlap = config.overlap * (1 if frames.from_video else 2) if sequence else 0
    standard = Recipe(
        FIRST_RUNG,
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


def climb(
    rungs: Sequence[Recipe],
    run: Callable[[Recipe, float], RungResult[T]],
    *,
    total: int,
    time_left_s: Callable[[], float],
) -> Climb[T]:
    """Run rungs until one registers enough of `total` frames, none can help, or the time is up; keep the best.

    `run(recipe, seconds it may take)` does one rung; what it raises passes through.
    """
    attempts: list[SfmAttempt] = []
    best: RungResult[T] | None = None
    for recipe in rungs:
        left_s = time_left_s()
        if left_s <= 0:
            break
        result = run(recipe, left_s)
        attempts.append(result.attempt)
        if result.model is not None and (best is None or _clearly_better(result.attempt, best.attempt)):
            best = result
        if result.hopeless or (best is not None and best.attempt.registered >= ENOUGH * total):
            break
    return Climb(tuple(attempts), best)


def _clearly_better(later: SfmAttempt, earlier: SfmAttempt) -> bool:
    return later.registered > _CLEARLY_MORE * earlier.registered
