"""Structure-from-motion: frames to a sparse model. pycolmap runs in a child process (`_sfm.worker`) and only there.

The parts: `_sfm.ladder` says what is tried, `_sfm.child` runs one try, `_sfm.sparse` makes its result independent of
the library, `_sfm.health` and `_sfm.halves` judge it, `_sfm.store` keeps it.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from sfmttr.config import SfmConfig
from sfmttr.errors import ReconstructionError
from sfmttr.sfm import cache, health
from sfmttr.sfm.attempts import STAGE, Rung, Tries, reporter
from sfmttr.sfm.colmap_binary import check_binary_model
from sfmttr.sfm.protocol import Facts, Job, RawModel, Recipe
from sfmttr.sfm.retry_policy import Climb, climb, in_sequence, ladder
from sfmttr.sfm.sparse import Sparse, sparse_from_raw
from sfmttr.sfm.split_half import halves_disagreement
from sfmttr.sfm.subprocess_runner import run_job
from sfmttr.types import (
    Camera,
    FrameSet,
    NoModel,
    NoModelReason,
    OnProgress,
    Progress,
    ResultOrigin,
    SfmAttempt,
    SfmHealth,
    SparseModel,
    ignore_progress,
)

_PART, _MIN_PART, _ENOUGH_OF_PART = 0.6, 5, 0.5
"""Parts of the clip that are compared: share of the frames, fewest frames, share of them that must be registered."""


def reconstruct(
    frames: FrameSet,
    config: SfmConfig,
    folder: Path,
    on_progress: OnProgress = ignore_progress,
    cache_folder: Path | None = None,
) -> SparseModel | NoModel:
    """Find cameras and points of `frames` and write the model in COLMAP's binary format into `folder`.

    `folder` appears complete or not at all, and replaces what was there. A `cache_folder` is looked in first. With
    `config.model_folder` that model is imported instead. `on_progress` is called a few times a second and may raise
    `Cancelled`, which ends the child within a second and leaves no files.
    Raises `ReconstructionError` when structure-from-motion cannot run at all; finding nothing is a `NoModel`.
    """
    if config.model_folder is not None:
        return import_model(frames, config.model_folder, folder, config, on_progress)
    if len(frames) < 2:
        advice = "One frame alone has no motion to learn from: give a clip."
        return NoModel((), len(frames), NoModelReason.ONE_FRAME, advice, 0.0)
    spaced = [file for file in frames.files if any(character.isspace() for character in file)]
    if spaced:
        raise ReconstructionError(f'The frame file "{spaced[0]}" has white space in its name; rename it.')
    key = cache.cache_key(frames, config, ladder(frames, config))
    if cache_folder is not None and cache.restore(cache_folder / key, folder):
        on_progress(Progress(STAGE, 1, 1, "from the cache", origin=ResultOrigin.CACHE))
        return load_model(frames, folder)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sfmttr-sfm-", ignore_cleanup_errors=True) as temporary:
        tries = Tries(frames, config, Path(temporary), on_progress, start)
        rungs = ladder(frames, config)
        found: Climb[Rung] = climb(rungs, tries.run, total=len(frames), time_left_s=tries.time_left_s)
        if found.best is None or found.best.model is None or not _enough(found.best.attempt, frames, config):
            reason, advice = tries.no_model_reason(found)
            return NoModel(found.attempts, len(frames), reason, advice, time.monotonic() - start)
        best, name = found.best.model, found.best.attempt.rung
        recipe = next(rung for rung in rungs if rung.name == name)
        halves = partial(_disagreement_of_halves, frames, tries, recipe, best)
        model = _assemble(frames, config, best, name, found.attempts, start, folder, halves)
        cache.publish(best.folder, folder, model)
    if cache_folder is not None and not tries.timed_out:  # another day the machine may have more time
        cache.keep(folder, cache_folder / key)
    return model


def import_model(
    frames: FrameSet,
    model_folder: Path,
    folder: Path,
    config: SfmConfig | None = None,
    on_progress: OnProgress = ignore_progress,
) -> SparseModel:
    """Take a COLMAP model (text or binary) of these frames instead of a reconstruction; written into `folder`.

    Images are matched to frames by file name, by name without extension, or by number; cameras may be of another
    image size of the same aspect. Raises `ReconstructionError` when nothing matches or a camera model is unsupported.
    """
    config = config or SfmConfig()
    start = time.monotonic()
    found = cache.find_model(model_folder).resolve()
    check_binary_model(found)
    with tempfile.TemporaryDirectory(prefix="sfmttr-sfm-", ignore_cleanup_errors=True) as temporary:
        output = Path(temporary) / "given"
        job = Job("import", str(output), model=str(found))
        outcome = run_job(job, Path(temporary), reporter(on_progress, "given"), config.time_limit_s)
        if not outcome.ok:
            raise ReconstructionError(f"The given model cannot be used: {outcome.complaint}.")
        model = _assemble(frames, config, Rung(output, Facts()), "given", (), start, folder)
        cache.publish(output, folder, model)
    return model


def load_model(frames: FrameSet, folder: Path) -> SparseModel:
    """The model that `reconstruct` or `import_model` wrote into `folder`. Raises `ReconstructionError`."""
    card = cache.read_card(folder)
    sparse = _sparse(frames, folder)
    return SparseModel(sparse.views, sparse.points, card.health, card.rung, card.attempts, card.seconds, folder)


def model_identity(model_folder: Path) -> list[tuple[str, int, int]]:
    """What the model in a folder, that `import_model` would take, is known by between runs: it changes when its files
    do. Raises `ReconstructionError` when there is none."""
    return cache.identity(model_folder)


def sweep_cache(cache_folder: Path, keep_s: float) -> int:
    """Delete reconstructions in `cache_folder` that were not used for so long; give how many went."""
    return cache.sweep(cache_folder, keep_s)


@dataclass(frozen=True)
class Trial:
    """One recipe, run once (for benchmarks)."""

    attempt: SfmAttempt
    facts: Facts
    sparse: Sparse | None
    health: SfmHealth | None
    halves_s: float = 0.0
    """Time that the halves took."""


def try_recipe(
    frames: FrameSet,
    config: SfmConfig,
    recipe: Recipe,
    on_progress: OnProgress = ignore_progress,
    *,
    halves: bool = False,
) -> Trial:
    """Run one recipe without the ladder, and keep nothing on disk. With `halves` they are always compared."""
    with tempfile.TemporaryDirectory(prefix="sfmttr-sfm-", ignore_cleanup_errors=True) as temporary:
        tries = Tries(frames, config, Path(temporary), on_progress, time.monotonic())
        result = tries.run(recipe, config.time_limit_s)
        if result.model is None:
            return Trial(result.attempt, tries.facts, None, None)
        sparse = _sparse(frames, result.model.folder)
        start = time.monotonic()
        disagreement = _disagreement_of_halves(frames, tries, recipe, result.model) if halves else float("nan")
        seconds = time.monotonic() - start
        figures = replace(_figures(frames, sparse, result.model.facts), halves_disagreement=disagreement)
        given, ordered = config.intrinsics is not None, in_sequence(frames, config)
        card = _card(sparse, figures, frames, focal_given=given, ordered=ordered)
        return Trial(result.attempt, result.model.facts, sparse, card, seconds)


def _disagreement_of_halves(frames: FrameSet, tries: Tries, recipe: Recipe, rung: Rung) -> float:
    """How much depths from the first 60 % of the registered frames differ from those of the last 60 % (see `halves`).

    1 when a part alone finds no model, or one of so few of its frames that nothing can be compared; nan when there was
    no time, or too little to compare. Features and matches are there already: it costs two mappings of fewer frames.
    """
    whole = RawModel.read(rung.folder)
    names = {str(name) for name in whole.image_name}
    registered = tuple(file for file in frames.files if file in names)
    length = round(_PART * len(registered))
    models, lost = [], False
    for name, subset in (("earlier part", registered[:length]), ("later part", registered[-length:])):
        left_s = tries.time_left_s()
        if len(subset) < _MIN_PART or left_s <= 0:
            return float("nan")
        result = tries.run(replace(recipe, name=name), left_s, subset)
        if result.interrupted:
            return float("nan")
        if result.model is None:
            return 1.0
        lost = lost or result.attempt.registered < _ENOUGH_OF_PART * len(subset)
        models.append(RawModel.read(result.model.folder))
    disagreement = halves_disagreement(whole, *models)
    return 1.0 if lost and math.isnan(disagreement) else disagreement


def _enough(attempt: SfmAttempt, frames: FrameSet, config: SfmConfig) -> bool:
    return attempt.registered >= max(config.min_registered, len(frames) / 3)


# ------------------------------------------------------------------------------------ result and its card


def _sparse(frames: FrameSet, folder: Path) -> Sparse:
    raw = RawModel.read(folder)
    return sparse_from_raw(raw, cache.match_images(raw, frames), frames)


def _assemble(
    frames: FrameSet,
    config: SfmConfig,
    rung: Rung,
    name: str,
    attempts: tuple[SfmAttempt, ...],
    start: float,
    folder: Path,
    halves: Callable[[], float] | None = None,
) -> SparseModel:
    """The result with its card; `halves` is called when the cheap figures leave doubt."""
    sparse = _sparse(frames, rung.folder)
    if not sparse.views or len(sparse.points) == 0:
        raise ReconstructionError("The model has no points that its images see; give another one.")
    given, ordered = config.intrinsics is not None or name == "given", in_sequence(frames, config)
    figures = _figures(frames, sparse, rung.facts)
    if halves is not None and ordered and health.halves_would_tell(_in_doubt(figures, given, ordered)):
        figures = replace(figures, halves_disagreement=halves())
    card = _card(sparse, figures, frames, focal_given=given, ordered=ordered)
    return SparseModel(sparse.views, sparse.points, card, name, attempts, time.monotonic() - start, folder)


def _figures(frames: FrameSet, sparse: Sparse, facts: Facts) -> health.HealthFigures:
    """What a model says about itself at no cost."""
    views, points = sparse.views, sparse.points
    centres = np.array([-v.cam_from_world[:3, :3].T @ v.cam_from_world[:3, 3] for v in views])
    return health.HealthFigures(
        reprojection_px=float(points.error_px.mean()),
        step_evenness=health.step_evenness(centres, np.array([frames.time_s[v.frame] for v in views])),
        horizontal_view_deg=_middle_camera(sparse).horizontal_view_deg,
        triangulation_angle_deg=float(np.median(points.triangulation_angle_deg)),
        degenerate_pair_ratio=facts.degenerate_ratio,
        registered_ratio=len(views) / len(frames),
        track_length=float(points.track_length.mean()),
    )


def _in_doubt(figures: health.HealthFigures, focal_given: bool, ordered: bool) -> health.HealthFigures:
    """Without what there is no doubt about: a given focal length, the path through an unordered photo set."""
    return replace(
        figures,
        step_evenness=figures.step_evenness if ordered else float("nan"),
        horizontal_view_deg=float("nan") if focal_given else figures.horizontal_view_deg,
    )


def _card(
    sparse: Sparse, figures: health.HealthFigures, frames: FrameSet, *, focal_given: bool, ordered: bool
) -> SfmHealth:
    verdict = health.health_score(_in_doubt(figures, focal_given, ordered))
    halves = figures.halves_disagreement
    return SfmHealth(
        registered=len(sparse.views),
        total=len(frames),
        points=len(sparse.points),
        mean_track_length=figures.track_length,
        mean_reprojection_error_px=figures.reprojection_px,
        focal_px=_middle_camera(sparse).fx,
        focal_given=focal_given,
        horizontal_view_deg=figures.horizontal_view_deg,
        median_triangulation_angle_deg=figures.triangulation_angle_deg,
        step_evenness=figures.step_evenness,
        degenerate_pair_ratio=figures.degenerate_pair_ratio,
        halves_disagreement=None if math.isnan(halves) else halves,
        **asdict(verdict),
    )


def _middle_camera(sparse: Sparse) -> Camera:
    return sparse.views[len(sparse.views) // 2].camera
