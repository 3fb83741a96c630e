"""Attempts at a reconstruction, each in a worker process, in one workspace with shared features and matches."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sfmttr.config import SfmConfig
from sfmttr.sfm import cache, health
from sfmttr.sfm.protocol import MatchStatistics, RawModel, SfmJob, SfmSettings
from sfmttr.sfm.retry_policy import AttemptLog, AttemptResult
from sfmttr.sfm.sparse import camera_to_colmap
from sfmttr.sfm.subprocess_runner import Outcome, StageProgress, run_job
from sfmttr.types import FrameSet, NoModelReason, OnProgress, Progress, SfmAttempt

STAGE = "sfm"
NO_MODEL = "no model found"
# A camera that turns on the spot can give a model with a handful of points; its poses mean nothing.
_FEWEST_POINTS = 50
_GRACE_SHARE = 0.05
"""Share of the time limit that the worker keeps for handing over its model (at least `_MIN_GRACE_S`)."""
_MIN_GRACE_S = 3.0
_NOT_RECOVERABLE = (NoModelReason.TEXTURELESS, NoModelReason.STATIC, NoModelReason.ROTATION)


@dataclass(frozen=True)
class FoundModel:
    """Folder and statistics of an attempt that found a model."""

    folder: Path
    statistics: MatchStatistics


class AttemptRunner:
    """Runs attempts in one workspace, which keeps features and matches between them."""

    def __init__(
        self, frames: FrameSet, config: SfmConfig, workspace: Path, on_progress: OnProgress, start: float
    ) -> None:
        self._frames, self._config, self._workspace, self._on_progress = frames, config, workspace, on_progress
        self._deadline = start + config.time_limit_s
        self.statistics = MatchStatistics()
        self.timed_out = False
        """Some attempt ran out of time, with part of a model or none."""
        self._failure = ""

    def time_left_s(self) -> float:
        return self._deadline - time.monotonic()

    def run(self, settings: SfmSettings, limit_s: float, subset: tuple[str, ...] = ()) -> AttemptResult[FoundModel]:
        """Make one attempt in a worker process, at most `limit_s` seconds; `subset`: map only these files."""
        output = self._workspace / settings.name.replace(" ", "_")
        job = self._job(settings, output, limit_s, subset)
        start = time.monotonic()
        outcome = run_job(job, self._workspace, progress_reporter(self._on_progress, settings.name), limit_s)
        seconds = time.monotonic() - start
        self._record(outcome)
        if not outcome.ok and not outcome.timed_out:
            _discard(Path(job.database))  # what a crash left in it may crash the next attempt too
        note = outcome.failure
        if outcome.timed_out or seconds >= job.time_limit_s:
            self.timed_out, note = True, "out of time"
        raw = RawModel.read(output) if cache.has_model(output) else None
        if raw is None or len(raw.xyz_in_world) < _FEWEST_POINTS:
            attempt = SfmAttempt(settings.name, 0, 0, seconds, note or NO_MODEL)
            not_recoverable = outcome.ok and self._is_not_recoverable(outcome.statistics)
            return AttemptResult(attempt, not_recoverable=not_recoverable, interrupted=bool(note))
        attempt = SfmAttempt(settings.name, len(raw.image_name), len(raw.xyz_in_world), seconds, note)
        return AttemptResult(attempt, FoundModel(output, outcome.statistics), interrupted=bool(note))

    def no_model_reason(self, found: AttemptLog[FoundModel]) -> tuple[NoModelReason, str]:
        """Return why there is no model, and advice in one or two sentences."""
        if self.timed_out:
            limit = f"Structure-from-motion ran out of its {self._config.time_limit_s:.0f} seconds"
            return NoModelReason.OUT_OF_TIME, f"{limit}: use fewer or smaller frames, or allow more time."
        if self._failure and not self.statistics.pairs_tried:
            return NoModelReason.CRASHED, f"Structure-from-motion could not finish: {self._failure}."
        reason = _reason(self.statistics)
        advice = health.NO_MODEL_ADVICE[reason]
        registered = found.best.attempt.registered if found.best else 0
        if registered:
            advice = f"Only {registered} of {len(self._frames)} frames could be registered. {advice}"
        return reason, advice

    def _job(self, settings: SfmSettings, output: Path, limit_s: float, subset: tuple[str, ...]) -> SfmJob:
        config, frames = self._config, self._frames
        camera_model, params = "SIMPLE_RADIAL", tuple[float, ...]()
        if config.intrinsics is not None:
            camera_model, params = camera_to_colmap(config.intrinsics.scaled_to(frames.hw))
        elif (focal_px := _focal_px(frames, settings)) is not None:
            params = (focal_px, frames.hw[1] / 2, frames.hw[0] / 2, 0.0)
        return SfmJob(
            "reconstruct",
            output=str(output),
            images=str(frames.folder.resolve()),
            files=frames.files,
            subset=subset,
            # Attempts with the same features share a database.
            database=str(self._workspace / f"{settings.features}.db"),
            camera_model=camera_model,
            camera_params=params,
            camera_fixed=config.intrinsics is not None,
            settings=settings,
            seed=config.seed,
            threads=config.threads,
            time_limit_s=max(limit_s - max(_GRACE_SHARE * limit_s, _MIN_GRACE_S), 0.5),
        )

    def _record(self, outcome: Outcome) -> None:
        if outcome.statistics.pairs_tried:
            self.statistics = outcome.statistics
        self._failure = outcome.failure

    def _is_not_recoverable(self, statistics: MatchStatistics) -> bool:
        """Return whether the clip itself rules a model out, so that other attempts would waste time."""
        return bool(statistics.pairs_tried) and _reason(statistics) in _NOT_RECOVERABLE


def _reason(statistics: MatchStatistics) -> NoModelReason:
    """Return why frames with these features and matches give no model."""
    return health.no_model_reason(
        statistics.median_features,
        statistics.pairs_verified,
        statistics.degenerate_ratio,
        statistics.displacement_ratio,
    )


def _focal_px(frames: FrameSet, settings: SfmSettings) -> float | None:
    """Return the focal length from the files' metadata, else the prior of the settings."""
    if frames.focal_prior_px is not None or settings.focal_guess is None:
        return frames.focal_prior_px
    return settings.focal_guess * max(frames.hw)


def _discard(database: Path) -> None:
    for file in database.parent.glob(f"{database.name}*"):
        file.unlink(missing_ok=True)


def progress_reporter(on_progress: OnProgress, rung: str) -> Callable[[StageProgress], None]:
    def report(progress: StageProgress) -> None:
        note = f"{progress.stage}, {rung}"
        on_progress(Progress(STAGE, progress.done, progress.total, note, progress.stage, rung))

    return report
