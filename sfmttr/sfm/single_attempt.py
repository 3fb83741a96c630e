"""One attempt with given settings, without the retry policy. Used by benchmarks only."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from sfmttr.config import SfmConfig
from sfmttr.sfm.attempts import AttemptRunner
from sfmttr.sfm.health_card import health_card, health_figures, read_sparse
from sfmttr.sfm.protocol import MatchStatistics, SfmSettings
from sfmttr.sfm.retry_policy import is_sequential
from sfmttr.sfm.sparse import Sparse
from sfmttr.sfm.split_half import map_halves
from sfmttr.types import FrameSet, OnProgress, SfmAttempt, SfmHealth, ignore_progress


@dataclass(frozen=True)
class SingleAttempt:
    """Result of one attempt with given settings."""

    attempt: SfmAttempt
    statistics: MatchStatistics
    sparse: Sparse | None
    health: SfmHealth | None
    split_half_s: float = 0.0
    """Time of the split-half comparison."""


def run_one_attempt(
    frames: FrameSet,
    config: SfmConfig,
    settings: SfmSettings,
    on_progress: OnProgress = ignore_progress,
    *,
    split_half: bool = False,
) -> SingleAttempt:
    """Make one attempt without the retry policy, and keep nothing on disk. `split_half`: always compare the halves."""
    with tempfile.TemporaryDirectory(prefix="sfmttr-sfm-", ignore_cleanup_errors=True) as temporary:
        runner = AttemptRunner(frames, config, Path(temporary), on_progress, time.monotonic())
        result = runner.run(settings, config.time_limit_s)
        if result.model is None:
            return SingleAttempt(result.attempt, runner.statistics, None, None)
        sparse = read_sparse(frames, result.model.folder)
        start = time.monotonic()
        disagreement = map_halves(frames, runner, settings, result.model) if split_half else float("nan")
        seconds = time.monotonic() - start
        figures = replace(health_figures(frames, sparse, result.model.statistics), halves_disagreement=disagreement)
        given, ordered = config.intrinsics is not None, is_sequential(frames, config)
        card = health_card(sparse, figures, frames, focal_given=given, ordered=ordered)
        return SingleAttempt(result.attempt, result.model.statistics, sparse, card, seconds)
