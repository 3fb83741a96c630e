"""Rungs of the ladder, each run in a child process, in one workspace with the features and matches they share."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sfmttr.config import SfmConfig
from sfmttr.sfm import cache, health
from sfmttr.sfm.protocol import Facts, Job, RawModel, Recipe
from sfmttr.sfm.retry_policy import Climb, RungResult
from sfmttr.sfm.sparse import camera_to_colmap
from sfmttr.sfm.subprocess_runner import Outcome, StageProgress, run_job
from sfmttr.types import FrameSet, NoModelReason, OnProgress, Progress, SfmAttempt

STAGE = "sfm"
NO_MODEL = "no model found"
_FEWEST_POINTS = 50
"""Cameras that are held together by fewer are nowhere: a camera that turns in place can come to that."""
_GRACE = 0.05
"""The child hands over what it has this share of the time before it is killed (at least `_MIN_GRACE_S`)."""
_MIN_GRACE_S = 3.0
_HOPELESS = (NoModelReason.TEXTURELESS, NoModelReason.STATIC, NoModelReason.ROTATION)


@dataclass(frozen=True)
class Rung:
    """What is kept of a rung that gave a model."""

    folder: Path
    facts: Facts


class Tries:
    """Runs rungs in one workspace, where features and matches stay from rung to rung."""

    def __init__(
        self, frames: FrameSet, config: SfmConfig, workspace: Path, on_progress: OnProgress, start: float
    ) -> None:
        self._frames, self._config, self._workspace, self._on_progress = frames, config, workspace, on_progress
        self._deadline = start + config.time_limit_s
        self.facts = Facts()
        self.timed_out = False
        """Whether some rung ended because the time was up, with a part of a model or none."""
        self._complaint = ""

    def time_left_s(self) -> float:
        return self._deadline - time.monotonic()

    def run(self, recipe: Recipe, limit_s: float, subset: tuple[str, ...] = ()) -> RungResult[Rung]:
        """One rung in one child process."""
        output = self._workspace / recipe.name.replace(" ", "_")
        job = self._job(recipe, output, limit_s, subset)
        start = time.monotonic()
        outcome = run_job(job, self._workspace, reporter(self._on_progress, recipe.name), limit_s)
        seconds = time.monotonic() - start
        self._remember(outcome)
        if not outcome.ok and not outcome.timed_out:
            _discard(Path(job.database))  # what a crash has left of it may crash the next rung as well
        note = outcome.complaint
        if outcome.timed_out or seconds >= job.time_limit_s:
            self.timed_out, note = True, "out of time"
        raw = RawModel.read(output) if cache.has_model(output) else None
        if raw is None or len(raw.xyz_in_world) < _FEWEST_POINTS:
            attempt = SfmAttempt(recipe.name, 0, 0, seconds, note or NO_MODEL)
            hopeless = outcome.ok and self._hopeless(outcome.facts)
            return RungResult(attempt, hopeless=hopeless, interrupted=bool(note))
        attempt = SfmAttempt(recipe.name, len(raw.image_name), len(raw.xyz_in_world), seconds, note)
        return RungResult(attempt, Rung(output, outcome.facts), interrupted=bool(note))

    def no_model_reason(self, found: Climb[Rung]) -> tuple[NoModelReason, str]:
        """Why there is no model, and advice in one or two sentences."""
        if self.timed_out:
            limit = f"Structure-from-motion ran out of its {self._config.time_limit_s:.0f} seconds"
            return NoModelReason.OUT_OF_TIME, f"{limit}: use fewer or smaller frames, or allow more time."
        if self._complaint and not self.facts.pairs_tried:
            return NoModelReason.CRASHED, f"Structure-from-motion could not finish: {self._complaint}."
        reason = _reason(self.facts)
        advice = health.NO_MODEL_ADVICE[reason]
        registered = found.best.attempt.registered if found.best else 0
        if registered:
            advice = f"Only {registered} of {len(self._frames)} frames found their place. {advice}"
        return reason, advice

    def _job(self, recipe: Recipe, output: Path, limit_s: float, subset: tuple[str, ...]) -> Job:
        config, frames = self._config, self._frames
        camera_model, params = "SIMPLE_RADIAL", tuple[float, ...]()
        if config.intrinsics is not None:
            camera_model, params = camera_to_colmap(config.intrinsics.scaled_to(frames.hw))
        elif (focal_px := _focal_px(frames, recipe)) is not None:
            params = (focal_px, frames.hw[1] / 2, frames.hw[0] / 2, 0.0)
        return Job(
            "rung",
            output=str(output),
            images=str(frames.folder.resolve()),
            files=frames.files,
            subset=subset,
            # Rungs with the same features share a database.
            database=str(self._workspace / f"{recipe.features}.db"),
            camera_model=camera_model,
            camera_params=params,
            camera_fixed=config.intrinsics is not None,
            recipe=recipe,
            seed=config.seed,
            threads=config.threads,
            time_limit_s=max(limit_s - max(_GRACE * limit_s, _MIN_GRACE_S), 0.5),
        )

    def _remember(self, outcome: Outcome) -> None:
        if outcome.facts.pairs_tried:
            self.facts = outcome.facts
        self._complaint = outcome.complaint

    def _hopeless(self, facts: Facts) -> bool:
        """Whether the clip itself rules a model out: then the other rungs are a waste of the user's time."""
        return bool(facts.pairs_tried) and _reason(facts) in _HOPELESS


def _reason(facts: Facts) -> NoModelReason:
    """Why frames with these features and matches give no model."""
    return health.no_model_reason(
        facts.median_features, facts.pairs_verified, facts.degenerate_ratio, facts.displacement_ratio
    )


def _focal_px(frames: FrameSet, recipe: Recipe) -> float | None:
    """What the files say of themselves, else the recipe's guess."""
    if frames.focal_prior_px is not None or recipe.focal_guess is None:
        return frames.focal_prior_px
    return recipe.focal_guess * max(frames.hw)


def _discard(database: Path) -> None:
    for file in database.parent.glob(f"{database.name}*"):
        file.unlink(missing_ok=True)


def reporter(on_progress: OnProgress, rung: str) -> Callable[[StageProgress], None]:
    def report(progress: StageProgress) -> None:
        note = f"{progress.stage}, {rung}"
        on_progress(Progress(STAGE, progress.done, progress.total, note, progress.stage, rung))

    return report
