"""Structure-from-motion: frames to a `SparseModel` with its health.

pycolmap runs only in a worker process (`worker`). `retry_policy` decides what is attempted, `attempts` makes one
attempt, `sparse` turns its result into values without pycolmap, `health_card`, `health` and `split_half` assess it,
and `cache` keeps it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from sfmttr.config import SfmConfig
from sfmttr.errors import ReconstructionError
from sfmttr.sfm import cache, health
from sfmttr.sfm.attempts import STAGE, AttemptRunner, FoundModel, progress_reporter
from sfmttr.sfm.colmap_binary import check_binary_model
from sfmttr.sfm.health_card import doubtful_figures, health_card, health_figures, read_sparse
from sfmttr.sfm.protocol import MatchStatistics, SfmJob
from sfmttr.sfm.retry_policy import AttemptLog, attempt_settings, is_sequential, run_attempts
from sfmttr.sfm.split_half import map_halves
from sfmttr.sfm.subprocess_runner import run_job
from sfmttr.types import (
    FrameSet,
    NoModel,
    NoModelReason,
    OnProgress,
    Progress,
    ResultOrigin,
    SfmAttempt,
    SparseModel,
    ignore_progress,
)


def reconstruct(
    frames: FrameSet,
    config: SfmConfig,
    folder: Path,
    on_progress: OnProgress = ignore_progress,
    cache_folder: Path | None = None,
) -> SparseModel | NoModel:
    """Estimate cameras and points of `frames` and write the model in COLMAP's binary format into `folder`.

    `folder` is written atomically and replaces what was there. A result in `cache_folder` is used if there is one. With
    `config.model_folder`, that model is imported instead. `on_progress` is called a few times a second and may raise
    `Cancelled`, which ends the worker within a second and leaves no files.
    Raises `ReconstructionError` when structure-from-motion cannot run at all; finding no model returns a `NoModel`.
    """
    if config.model_folder is not None:
        return import_model(frames, config.model_folder, folder, config, on_progress)
    if len(frames) < 2:
        advice = "One frame alone has no motion to learn from: give a clip."
        return NoModel((), len(frames), NoModelReason.ONE_FRAME, advice, 0.0)
    spaced = [file for file in frames.files if any(character.isspace() for character in file)]
    if spaced:
        raise ReconstructionError(f'The frame file "{spaced[0]}" has white space in its name; rename it.')
    key = cache.cache_key(frames, config, attempt_settings(frames, config))
    if cache_folder is not None and cache.restore(cache_folder / key, folder):
        on_progress(Progress(STAGE, 1, 1, "from the cache", origin=ResultOrigin.CACHE))
        return load_model(frames, folder)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sfmttr-sfm-", ignore_cleanup_errors=True) as temporary:
        runner = AttemptRunner(frames, config, Path(temporary), on_progress, start)
        planned = attempt_settings(frames, config)
        found: AttemptLog[FoundModel] = run_attempts(
            planned, runner.run, total=len(frames), time_left_s=runner.time_left_s
        )
        if found.best is None or found.best.model is None or not _enough(found.best.attempt, frames, config):
            reason, advice = runner.no_model_reason(found)
            return NoModel(found.attempts, len(frames), reason, advice, time.monotonic() - start)
        best, name = found.best.model, found.best.attempt.rung
        settings = next(rung for rung in planned if rung.name == name)
        compare_halves = partial(map_halves, frames, runner, settings, best)
        model = _assemble(frames, config, best, name, found.attempts, start, folder, compare_halves)
        cache.publish(best.folder, folder, model)
    if cache_folder is not None and not runner.timed_out:  # the machine may have more time next time
        cache.keep(folder, cache_folder / key)
    return model


def import_model(
    frames: FrameSet,
    model_folder: Path,
    folder: Path,
    config: SfmConfig | None = None,
    on_progress: OnProgress = ignore_progress,
) -> SparseModel:
    """Import a COLMAP model (text or binary) of these frames and write it into `folder`.

    Images are matched to frames by file name, by name without extension, or by number; cameras may be of another
    image size of the same aspect. Raises `ReconstructionError` when nothing matches or a camera model is unsupported.
    """
    config = config or SfmConfig()
    start = time.monotonic()
    found = cache.find_model(model_folder).resolve()
    check_binary_model(found)
    with tempfile.TemporaryDirectory(prefix="sfmttr-sfm-", ignore_cleanup_errors=True) as temporary:
        output = Path(temporary) / "given"
        job = SfmJob("import", str(output), model=str(found))
        outcome = run_job(job, Path(temporary), progress_reporter(on_progress, "given"), config.time_limit_s)
        if not outcome.ok:
            raise ReconstructionError(f"The given model cannot be used: {outcome.failure}.")
        model = _assemble(frames, config, FoundModel(output, MatchStatistics()), "given", (), start, folder)
        cache.publish(output, folder, model)
    return model


def load_model(frames: FrameSet, folder: Path) -> SparseModel:
    """Return the model that `reconstruct` or `import_model` wrote into `folder`. Raises `ReconstructionError`."""
    card = cache.read_card(folder)
    sparse = read_sparse(frames, folder)
    return SparseModel(sparse.views, sparse.points, card.health, card.rung, card.attempts, card.seconds, folder)


def model_identity(model_folder: Path) -> list[tuple[str, int, int]]:
    """Return path, size and modification time of the files that `import_model` would read, to notice changes.

    Raises `ReconstructionError` when there are none.
    """
    return cache.identity(model_folder)


def sweep_cache(cache_folder: Path, keep_s: float) -> int:
    """Delete cached reconstructions that were not used for `keep_s` seconds; return how many."""
    return cache.sweep(cache_folder, keep_s)


def _enough(attempt: SfmAttempt, frames: FrameSet, config: SfmConfig) -> bool:
    return attempt.registered >= max(config.min_registered, len(frames) / 3)


def _assemble(
    frames: FrameSet,
    config: SfmConfig,
    found: FoundModel,
    name: str,
    attempts: tuple[SfmAttempt, ...],
    start: float,
    folder: Path,
    compare_halves: Callable[[], float] | None = None,
) -> SparseModel:
    """Return the result with its health card; `compare_halves` is called when the other figures leave doubt."""
    sparse = read_sparse(frames, found.folder)
    if not sparse.views or len(sparse.points) == 0:
        raise ReconstructionError("The model has no points that its images see; give another one.")
    given, ordered = config.intrinsics is not None or name == "given", is_sequential(frames, config)
    figures = health_figures(frames, sparse, found.statistics)
    if (
        compare_halves is not None
        and ordered
        and health.split_half_can_decide(doubtful_figures(figures, given, ordered))
    ):
        figures = replace(figures, halves_disagreement=compare_halves())
    card = health_card(sparse, figures, frames, focal_given=given, ordered=ordered)
    return SparseModel(sparse.views, sparse.points, card, name, attempts, time.monotonic() - start, folder)
